package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"time"

	"kaniko-build/executor/internal/tree"
)

// pipeline writes the entries that a packer finds, while it finds more. They go in runs:
// the small files of one are read by one of the readers, ahead of their turn. What is
// large is read as it is written.
//
//	packer ─add─> runs in order ────────────────> write
//	                  └─> read, side by side ─┘
type pipeline struct {
	p    *packer
	w    io.Writer
	each func(h *tar.Header, content []byte) // may be nil

	filling *run
	runs    chan *run
	read    chan *run
	readers sync.WaitGroup
	free    sync.Pool // of *[]byte with room for the small files of a run
}

const (
	smallFile  = 64 << 10  // bytes
	runBytes   = 512 << 10 // of the small files of a run
	runEntries = 64
	aheadRuns  = 4 // that are read, or about to be
)

// run is entries that follow one another.
type run struct {
	entries []packed
	small   int           // bytes of small files
	buf     *[]byte       // nil without any
	done    chan struct{} // closed when they have been read
}

// packed is an entry on its way.
type packed struct {
	name string
	h    *tar.Header
	when time.Time
	// Of a small file, once its run is done: its content. Before that data is the place
	// for it.
	data []byte
	err  error
}

// small tells whether an entry is a file whose content comes with it.
func (e *packed) small() bool {
	return e.h.Typeflag == tar.TypeReg && e.h.Size > 0 && e.h.Size <= smallFile
}

func newPipeline(p *packer, w io.Writer, each func(h *tar.Header, content []byte)) *pipeline {
	o := &pipeline{p: p, w: w, each: each, filling: &run{}, runs: make(chan *run, aheadRuns), read: make(chan *run, aheadRuns)}
	o.free.New = func() any { b := make([]byte, runBytes); return &b }
	for range max(2, runtime.GOMAXPROCS(0)) {
		o.readers.Go(func() {
			for r := range o.read {
				o.readRun(r)
			}
		})
	}
	return o
}

// add puts an entry at the end. It waits while many are under way.
func (o *pipeline) add(ctx context.Context, name string, h *tar.Header, when time.Time) error {
	e := packed{name: name, h: h, when: when}
	size := 0
	if e.small() {
		size = int(h.Size)
	}
	if o.filling.small+size > runBytes {
		if err := o.send(ctx); err != nil {
			return err
		}
	}
	r := o.filling
	if size > 0 {
		if r.buf == nil {
			r.buf = o.free.Get().(*[]byte)
		}
		e.data = (*r.buf)[r.small : r.small+size : r.small+size]
		r.small += size
	}
	r.entries = append(r.entries, e)
	if large := h.Typeflag == tar.TypeReg && h.Size > smallFile; !large && len(r.entries) < runEntries {
		return nil
	}
	return o.send(ctx)
}

// send has the run that is being filled read and written.
func (o *pipeline) send(ctx context.Context) error {
	r := o.filling
	if len(r.entries) == 0 {
		return nil
	}
	o.filling, r.done = &run{entries: make([]packed, 0, runEntries)}, make(chan struct{})
	if r.buf == nil {
		close(r.done)
	} else {
		select {
		case o.read <- r:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	select {
	case o.runs <- r:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// close says that nothing more comes.
func (o *pipeline) close(ctx context.Context) error {
	err := o.send(ctx)
	close(o.read)
	close(o.runs)
	return err
}

// write writes all entries, until an error. It ends after close.
func (o *pipeline) write() error {
	tw := tar.NewWriter(o.w)
	buf := make([]byte, 128<<10)
	for r := range o.runs {
		<-r.done
		for i := range r.entries {
			if err := o.entry(tw, &r.entries[i], buf); err != nil {
				return fmt.Errorf("%s: %w", r.entries[i].name, err)
			}
		}
		if r.buf != nil {
			o.free.Put(r.buf)
		}
	}
	if err := context.Cause(o.p.ctx); err != nil {
		return err
	}
	return tw.Close()
}

func (o *pipeline) entry(tw *tar.Writer, e *packed, buf []byte) error {
	if err := context.Cause(o.p.ctx); err != nil {
		return err
	}
	if e.err != nil {
		return e.err
	}
	if err := tw.WriteHeader(e.h); err != nil {
		return fmt.Errorf("write header: %w", err)
	}
	if o.each != nil {
		h := *e.h
		h.ModTime = e.when
		o.each(&h, e.data)
	}
	switch {
	case e.small():
		if _, err := tw.Write(e.data); err != nil {
			return fmt.Errorf("write content: %w", err)
		}
	case e.h.Typeflag == tar.TypeReg && e.h.Size > 0:
		return o.large(tw, e, buf)
	}
	return nil
}

// readRun reads the small files of a run.
func (o *pipeline) readRun(r *run) {
	defer close(r.done)
	for i := range r.entries {
		e := &r.entries[i]
		if !e.small() {
			continue
		}
		if e.err = context.Cause(o.p.ctx); e.err != nil {
			return
		}
		var n int
		if o.p.drawn != nil {
			n, e.err = tree.ReadFile(o.p.ctx, o.p.drawn, e.name, e.data)
		} else {
			n, e.err = o.p.readSmall(e.name, e.data)
		}
		if e.err == nil && n < len(e.data) {
			e.err = errShrank
		}
		if e.err != nil {
			return // nothing after it is written
		}
	}
}

var errShrank = errors.New("the file shrank while it was read")

// readSmall reads a file of the directory. One that grew has its first bytes in the tar.
func (p *packer) readSmall(name string, b []byte) (int, error) {
	n, st, err := p.dir.ReadFileStat(name, b)
	if errors.Is(err, tree.ErrLarger) {
		err = nil
	}
	if s := p.contents.sum(); s != nil && err == nil {
		s.write(b[:n])
		s.is(inode{st.Dev, st.Ino})
	}
	return n, err
}

func (o *pipeline) large(tw *tar.Writer, e *packed, buf []byte) (err error) {
	f, err := o.p.open(e.name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	sum := o.p.contents.sum()
	for size := e.h.Size; size > 0; {
		if err := context.Cause(o.p.ctx); err != nil {
			return err
		}
		n, err := f.Read(buf[:min(int64(len(buf)), size)])
		sum.write(buf[:n])
		if _, err := tw.Write(buf[:n]); err != nil {
			return fmt.Errorf("write content: %w", err)
		}
		if size -= int64(n); err != nil && size > 0 {
			if err == io.EOF {
				return errShrank
			}
			return err
		}
	}
	if real, ok := f.(*os.File); ok && sum != nil {
		return sum.of(int(real.Fd()))
	}
	return nil
}
