package copier

import (
	"context"
	"fmt"
	"path"
	"runtime"
	"strconv"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/tree"
)

// HashFunc gives a text that is equal for files with equal content and equal
// extended attributes. It is called from many goroutines.
type HashFunc func(ctx context.Context, t tree.Tree, name string, e tree.Entry) (string, error)

// KeyLines says what the items are, one line for each file that is copied: all
// that Place makes of them but for times. With owned the owners are left out,
// as --chown replaces them. The lines come in the order in which Place works.
func KeyLines(ctx context.Context, src tree.Tree, items []Item, owned bool, hash HashFunc) ([]string, error) {
	g, ctx := errgroup.WithContext(ctx)
	full := make(chan *keyBatch)
	for range max(2, runtime.GOMAXPROCS(0)) {
		g.Go(func() error {
			for b := range full {
				if err := b.finish(ctx, src, owned, hash); err != nil {
					return err
				}
			}
			return nil
		})
	}
	var all []*keyBatch
	g.Go(func() error {
		defer close(full)
		now := &keyBatch{}
		send := func() error {
			all = append(all, now)
			select {
			case full <- now:
				now = &keyBatch{}
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		for _, it := range items {
			first := map[[2]uint64]string{}
			err := Walk(ctx, src, it, func(rel string, e tree.Entry) error {
				in := keyInput{path: path.Join(it.Path, rel), name: path.Join(it.Name, rel), e: e, top: rel == "" && e.IsDir() && !it.literal}
				if e.IsRegular() && e.Nlink > 1 && e.Ino != 0 {
					id := [2]uint64{e.Dev, e.Ino}
					if in.same = first[id]; in.same == "" {
						first[id] = in.name
					}
				}
				if now.in == nil {
					now.in = make([]keyInput, 0, batchSize)
				}
				if now.in = append(now.in, in); len(now.in) < batchSize {
					return nil
				}
				return send()
			})
			if err != nil {
				return err
			}
		}
		return send()
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var lines []string
	for _, b := range all {
		lines = append(lines, b.lines...)
	}
	return lines, nil
}

// keyBatch is some files whose lines are made together, while the walk goes on.
type keyBatch struct {
	in    []keyInput
	lines []string
}

const batchSize = 128

type keyInput struct {
	path, name string // in the source, in the destination
	e          tree.Entry
	top        bool   // a directory whose contents are copied
	same       string // an earlier name of the same file
}

func (b *keyBatch) finish(ctx context.Context, src tree.Tree, owned bool, hash HashFunc) error {
	b.lines = make([]string, len(b.in))
	for n, in := range b.in {
		sum := ""
		if !in.top && in.same == "" {
			var err error
			if sum, err = hash(ctx, src, in.path, in.e); err != nil {
				return err
			}
		}
		b.lines[n] = keyLine(in.name, in.e, in.top, owned, in.same, sum)
	}
	b.in = nil
	return nil
}

// keyLine has fields of which each is quoted or has no space in it, so that no
// two inputs give the same line. Of a directory whose contents are copied only
// that it is one counts.
func keyLine(name string, e tree.Entry, top, owned bool, same, sum string) string {
	if top {
		return "contents of a directory"
	}
	b := make([]byte, 0, len(name)+len(sum)+len(same)+len(e.Link)+48)
	b = strconv.AppendQuote(b, name)
	m := e.Perm()
	b = append(b, ' ', '0'+byte(m>>9), '0'+byte(m>>6&7), '0'+byte(m>>3&7), '0'+byte(m&7), ' ')
	if owned {
		b = append(b, "- "...)
	} else {
		b = strconv.AppendUint(b, uint64(e.UID), 10)
		b = append(b, ':')
		b = strconv.AppendUint(b, uint64(e.GID), 10)
		b = append(b, ' ')
	}
	switch e.Type() {
	case unix.S_IFREG:
		if same != "" {
			return string(strconv.AppendQuote(append(b, "link-to "...), same))
		}
		b = append(b, "file "...)
	case unix.S_IFDIR:
		b = append(b, "dir "...)
	case unix.S_IFLNK:
		b = append(strconv.AppendQuote(append(b, "symlink "...), e.Link), ' ')
	case unix.S_IFIFO:
		b = append(b, "fifo "...)
	case unix.S_IFSOCK:
		b = append(b, "socket "...)
	default:
		b = fmt.Appendf(b, "device %o %d:%d ", e.Type(), unix.Major(e.Rdev), unix.Minor(e.Rdev))
	}
	return string(append(b, sum...))
}
