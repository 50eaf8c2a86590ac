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
	type input struct {
		path, name string
		e          tree.Entry
		top        bool
		same       string // an earlier name of the same file
		sum        string
	}
	var in []input
	for _, it := range items {
		first := map[[2]uint64]string{}
		err := Walk(ctx, src, it, func(rel string, e tree.Entry) error {
			i := input{path: path.Join(it.Path, rel), name: path.Join(it.Name, rel), e: e, top: rel == "" && e.IsDir() && !it.literal}
			if e.IsRegular() && e.Nlink > 1 && e.Ino != 0 {
				id := [2]uint64{e.Dev, e.Ino}
				if i.same = first[id]; i.same == "" {
					first[id] = i.name
				}
			}
			in = append(in, i)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	workers := max(2, runtime.GOMAXPROCS(0))
	const batch = 64
	next := make(chan []input)
	for range workers {
		g.Go(func() error {
			for part := range next {
				for i := range part {
					if part[i].top || part[i].same != "" {
						continue
					}
					sum, err := hash(ctx, src, part[i].path, part[i].e)
					if err != nil {
						return err
					}
					part[i].sum = sum
				}
			}
			return nil
		})
	}
	g.Go(func() error {
		defer close(next)
		for i := 0; i < len(in); i += batch {
			select {
			case next <- in[i:min(i+batch, len(in))]:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	lines := make([]string, len(in))
	for n, i := range in {
		lines[n] = keyLine(i.name, i.e, i.top, owned, i.same, i.sum)
	}
	return lines, nil
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
	b = fmt.Appendf(b, " %04o ", e.Perm())
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
