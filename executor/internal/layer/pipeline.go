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

// pipeline writes the entries that a packer finds, while it finds more. Small files are
// read by others ahead of their turn; what is large is read as it is written.
//
//	packer ─add─> entries in order ────────────────> write
//	                    └─> read, side by side ─┘
type pipeline struct {
	p    *packer
	w    io.Writer
	each func(h *tar.Header, content []byte) // may be nil

	entries chan *packed
	read    chan *packed
	readers sync.WaitGroup
	free    sync.Pool // of *[]byte with room for a small file
}

const (
	smallFile  = 64 << 10 // bytes
	aheadFiles = 128      // files that are read, or about to be: 8 MB
)

// packed is an entry on its way.
type packed struct {
	name string
	h    *tar.Header
	when time.Time
	// Of a small file: its content, once done is closed.
	small bool
	done  chan struct{}
	buf   *[]byte
	data  []byte
	err   error
}

func newPipeline(p *packer, w io.Writer, each func(h *tar.Header, content []byte)) *pipeline {
	o := &pipeline{p: p, w: w, each: each, entries: make(chan *packed, aheadFiles), read: make(chan *packed, aheadFiles)}
	o.free.New = func() any { b := make([]byte, smallFile); return &b }
	for range max(2, runtime.GOMAXPROCS(0)) {
		o.readers.Go(func() {
			for e := range o.read {
				o.readSmall(e)
			}
		})
	}
	return o
}

// add puts an entry at the end. It waits while many are under way.
func (o *pipeline) add(ctx context.Context, name string, h *tar.Header, when time.Time) error {
	e := &packed{name: name, h: h, when: when}
	if h.Typeflag == tar.TypeReg && h.Size > 0 && h.Size <= smallFile {
		e.small, e.done = true, make(chan struct{})
	}
	select {
	case o.entries <- e:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if e.small {
		select {
		case o.read <- e:
		case <-ctx.Done():
			e.err = context.Cause(ctx)
			close(e.done)
			return e.err
		}
	}
	return nil
}

// close says that nothing more comes.
func (o *pipeline) close() {
	close(o.read)
	close(o.entries)
}

// write writes all entries, until an error. It ends after close.
func (o *pipeline) write() error {
	tw := tar.NewWriter(o.w)
	buf := make([]byte, 128<<10)
	for e := range o.entries {
		if err := o.entry(tw, e, buf); err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
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
	if e.small {
		<-e.done
		if e.err != nil {
			return e.err
		}
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
	case e.small:
		_, err := tw.Write(e.data)
		o.free.Put(e.buf)
		if err != nil {
			return fmt.Errorf("write content: %w", err)
		}
	case e.h.Typeflag == tar.TypeReg && e.h.Size > 0:
		return o.large(tw, e, buf)
	}
	return nil
}

func (o *pipeline) readSmall(e *packed) {
	defer close(e.done)
	if e.err = context.Cause(o.p.ctx); e.err != nil {
		return
	}
	e.buf = o.free.Get().(*[]byte)
	b := (*e.buf)[:e.h.Size]
	var n int
	if o.p.drawn != nil {
		n, e.err = tree.ReadFile(o.p.ctx, o.p.drawn, e.name, b)
	} else {
		n, e.err = o.p.readSmall(e.name, b)
	}
	if e.data = b[:n]; e.err == nil && n < len(b) {
		e.err = errShrank
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
