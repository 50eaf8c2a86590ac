package image

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
)

// Change is one way in which two layers differ.
type Change struct {
	Name     string // "/path"; that of a whiteout begins with "-/"
	What     string // "is missing", "content differs", "mode is 0644, not 0755"
	InA, InB bool   // which of them have the name
}

// leaf is what a layer says about one name.
type leaf struct {
	meta
	size int64
	sum  [sha256.Size]byte
}

// CompareLayers tells how layer b differs from a, entry by entry, by name: type,
// mode, owner, size, content, target, device, extended attributes, and times
// for which sameTime is false. The layers' bytes are checked.
func CompareLayers(ctx context.Context, srcA Source, a Layer, srcB Source, b Layer, sameTime func(a, b time.Time) bool) ([]Change, error) {
	la, err := leaves(ctx, srcA, a)
	if err != nil {
		return nil, err
	}
	lb, err := leaves(ctx, srcB, b)
	if err != nil {
		return nil, err
	}
	names := maps.Clone(la)
	maps.Copy(names, lb)
	var out []Change
	for _, name := range slices.Sorted(maps.Keys(names)) {
		x, inA := la[name]
		y, inB := lb[name]
		c := Change{Name: name, InA: inA, InB: inB}
		switch {
		case !inB:
			c.What = "is missing"
		case !inA:
			c.What = "is there, and should not be"
		default:
			if c.What = differ(x, y); c.What == "" && !sameTime(x.mtime, y.mtime) {
				c.What = fmt.Sprintf("time is %s, not %s", stamp(y.mtime), stamp(x.mtime))
			}
		}
		if c.What != "" {
			out = append(out, c)
		}
	}
	return out, nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// differ says how y differs from x but for times; "" if it does not.
func differ(x, y leaf) string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if x.typeflag != y.typeflag {
		return fmt.Sprintf("is a %s, not a %s", typeName(y.typeflag), typeName(x.typeflag))
	}
	if x.mode != y.mode {
		say("mode is %04o, not %04o", y.mode, x.mode)
	}
	if x.uid != y.uid || x.gid != y.gid {
		say("owner is %d:%d, not %d:%d", y.uid, y.gid, x.uid, x.gid)
	}
	if x.size != y.size {
		say("size is %d, not %d", y.size, x.size)
	} else if x.sum != y.sum {
		say("content differs")
	}
	if x.link != y.link {
		say("leads to %q, not %q", y.link, x.link)
	}
	if x.major != y.major || x.minor != y.minor {
		say("device is %d:%d, not %d:%d", y.major, y.minor, x.major, x.minor)
	}
	if !maps.Equal(x.xattrs, y.xattrs) {
		say("extended attributes differ")
	}
	return strings.Join(out, ", ")
}

func typeName(t byte) string {
	switch t {
	case tar.TypeDir:
		return "directory"
	case tar.TypeSymlink:
		return "symbolic link"
	case tar.TypeLink:
		return "hard link"
	case tar.TypeChar, tar.TypeBlock:
		return "device"
	case tar.TypeFifo:
		return "fifo"
	}
	return "file"
}

func leaves(ctx context.Context, src Source, l Layer) (map[string]leaf, error) {
	out := map[string]leaf{}
	buf := make([]byte, copySize)
	err := eachEntry(ctx, src, l, func(_ int, h *tar.Header, r io.Reader) error {
		if len(out) >= maxEntries {
			return fmt.Errorf("more than %d files", maxEntries)
		}
		name := path.Clean("/" + h.Name)
		if dir, base := path.Split(name); strings.HasPrefix(base, whiteout) {
			name = "-" + dir + strings.TrimPrefix(base, whiteout)
		}
		f := leaf{meta: metaOf(h), size: h.Size}
		if h.Typeflag == tar.TypeReg {
			sum := sha256.New()
			if err := copyAll(ctx, sum, r, buf); err != nil {
				return err
			}
			sum.Sum(f.sum[:0])
		}
		out[name] = f
		return nil
	})
	return out, err
}
