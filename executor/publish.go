package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kaniko-build/executor/internal/image"
	"kaniko-build/executor/internal/registry"
	"kaniko-build/schema/diag"
)

// Push puts the image of a built node into the repositories of its names, by
// digest: no tag moves before PutTags. What a repository has is not sent.
func (x *Executor) Push(ctx context.Context, n *Node) error {
	if n.Result() == nil {
		return fmt.Errorf("internal error: %s is not built", n.ID)
	}
	return x.rebuilt(ctx, n, func() error { return x.push(ctx, n) })
}

func (x *Executor) push(ctx context.Context, n *Node) error {
	n.arrived(ctx)
	r := n.Result()
	origins := map[digest.Digest][]string{}
	for _, l := range n.built() {
		for _, o := range append(n.pushedBelow(l.Descriptor.Digest), x.whereabouts(n, l).Origin, n.origin(l.Descriptor.Digest)) {
			if o == "" || strings.HasPrefix(o, layoutScheme) {
				continue
			}
			if name, err := image.ParseName(o); err == nil && !slices.Contains(origins[l.Descriptor.Digest], name.Context()) {
				origins[l.Descriptor.Digest] = append(origins[l.Descriptor.Digest], name.Context())
			}
		}
	}
	err := eachRepository(r.Names, func(name string) error {
		if _, err := x.registry.Push(ctx, name, r.Manifest, x.content(n, x.streamBlob), origins); err != nil {
			return unpushed(name, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pushed = r.Manifest.Digest
	return nil
}

// eachRepository calls f with one name of each repository.
func eachRepository(names []string, f func(name string) error) error {
	done := map[string]bool{}
	for _, name := range names {
		parsed, err := image.ParseName(name)
		if err != nil {
			return err
		}
		if done[parsed.Context()] {
			continue
		}
		done[parsed.Context()] = true
		if err := f(name); err != nil {
			return err
		}
	}
	return nil
}

// pushedBelow are the names under which nodes that n stands on have pushed a
// blob: there it can be mounted from.
func (n *Node) pushedBelow(blob digest.Digest) (names []string) {
	for _, b := range n.images {
		if b == nil || b.node == nil {
			continue
		}
		p := b.node
		if p.wasPushed() != "" && slices.ContainsFunc(p.built(), func(l builtLayer) bool { return l.Descriptor.Digest == blob }) {
			names = append(names, p.Result().Names...)
		}
		names = append(names, p.pushedBelow(blob)...)
	}
	return names
}

// wasPushed is the manifest that was pushed, "" if none was.
func (n *Node) wasPushed() digest.Digest {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.pushed == "" && n.twin != nil {
		return n.twin.wasPushed()
	}
	return n.pushed
}

// PutTags makes the names of a node stand for its image, which was pushed. It
// returns those that moved.
func (x *Executor) PutTags(ctx context.Context, n *Node) (moved []string, err error) {
	r, err := n.published(ctx, x)
	if err != nil {
		return nil, err
	}
	raw, err := image.Read(ctx, image.FromStore(x.store), r.Manifest, image.MaxManifest)
	if err != nil {
		return nil, err
	}
	for _, name := range r.Names {
		ok, err := x.registry.PutTag(ctx, name, r.Manifest, raw)
		if err != nil {
			return moved, fmt.Errorf("tag %s: %w", name, err)
		}
		if ok {
			moved = append(moved, name)
		}
	}
	return moved, nil
}

// Output is a place to put an image besides the store.
type Output struct {
	Type    string // oci, docker, tar, local
	Dest    string // a file, for local a directory; "-" is Stdout
	Dir     bool   // oci: a layout directory instead of a tar of one
	Alone   bool   // with Dir: the index has this image alone, and without its names
	Rewrite bool   // set file times after SOURCE_DATE_EPOCH to it, in our own layers
	Stdout  io.Writer
}

// unpushed is why an image was not pushed. What a registry says names the image
// already.
func unpushed(name string, err error) error {
	var said *registry.Error
	if errors.As(err, &said) {
		return err
	}
	return fmt.Errorf("push %s: %w", name, err)
}

// ParseOutput reads the value of -o: "type=oci,dest=x.tar", or a directory.
func ParseOutput(s string) (Output, error) {
	bad := func(format string, args ...any) (Output, error) {
		return Output{}, &diag.Problem{What: fmt.Sprintf("output %q: ", s) + fmt.Sprintf(format, args...), Hint: "write type=oci|docker|tar|local,dest=PATH[,tar=false][,rewrite-timestamp=true]"}
	}
	if !strings.Contains(s, "=") {
		if s == "-" {
			return Output{Type: "tar", Dest: "-"}, nil
		}
		return Output{Type: "local", Dest: s}, nil
	}
	var o Output
	for field := range strings.SplitSeq(s, ",") {
		k, v, ok := strings.Cut(field, "=")
		if !ok {
			return bad("%q has no value", field)
		}
		switch k {
		case "type":
			o.Type = v
		case "dest":
			o.Dest = v
		case "tar":
			o.Dir = v == "false"
		case "rewrite-timestamp":
			o.Rewrite = v == "true"
		default:
			return bad("no field %q", k)
		}
	}
	if o.Type == "" {
		return bad("it has no type")
	}
	if !slices.Contains([]string{"oci", "docker", "tar", "local"}, o.Type) {
		return bad("no type %q", o.Type)
	}
	switch {
	case o.Dest == "":
		return bad("it has no dest")
	case o.Dest == "-" && (o.Type == "local" || o.Dir):
		return bad("a directory cannot be written to standard output")
	}
	return o, nil
}

// Export writes the image of a built node somewhere, whole or not at all. The
// notes say what could not be kept, as owners in a directory of an ordinary
// user.
func (x *Executor) Export(ctx context.Context, n *Node, o Output) (notes []string, err error) {
	err = x.rebuilt(ctx, n, func() (err error) {
		notes, err = x.export(ctx, n, o)
		return err
	})
	return notes, err
}

func (x *Executor) export(ctx context.Context, n *Node, o Output) (notes []string, err error) {
	img, c, err := x.exported(ctx, n, o)
	if err != nil {
		return nil, err
	}
	d := img.Manifest
	switch r := n.Result(); {
	case o.Type != "oci" || o.Alone || !n.Attest.any(): // other types hold an image and nothing else
	case d.Digest == r.Image.Digest:
		d = r.Manifest
	default:
		about, err := x.attest(ctx, n, img, c, true)
		if err == nil {
			d, err = x.together(n, d, about)
		}
		if err != nil {
			return nil, fmt.Errorf("attest the image of %s: %w", n.ID, err)
		}
	}
	return o.export(ctx, x.content(n, x.openBlob), d, n.Result().Names, img.Layers)
}

// export writes an image, or for the type oci an index, with the names it has.
func (o Output) export(ctx context.Context, src image.Source, d ocispec.Descriptor, names []string, layers []image.Layer) (notes []string, err error) {
	ex := image.Export{Descriptor: d}
	for _, name := range names {
		parsed, err := image.ParseName(name)
		if err != nil {
			return nil, err
		}
		ex.Names = append(ex.Names, parsed)
	}
	switch o.Type {
	case "oci":
		if o.Alone {
			ex.Names = nil
			return nil, errors.Join(image.WriteOCIDir(ctx, o.Dest, src, ex), image.KeepOnly(o.Dest, ex))
		}
		if o.Dir {
			return nil, image.WriteOCIDir(ctx, o.Dest, src, ex)
		}
		return nil, o.write(func(w io.Writer) error { return image.WriteOCI(ctx, w, src, ex) })
	case "docker":
		return nil, o.write(func(w io.Writer) error { return image.WriteDocker(ctx, w, src, ex) })
	case "tar":
		return nil, o.write(func(w io.Writer) error { return image.WriteTar(ctx, w, src, layers, nil) })
	default:
		return image.WriteLocal(ctx, o.Dest, src, layers, nil)
	}
}

// write writes to the file of an output, whole or not at all, or to Stdout.
func (o Output) write(f func(w io.Writer) error) error {
	if o.Dest == "-" {
		return f(o.Stdout)
	}
	if err := os.MkdirAll(filepath.Dir(o.Dest), 0o755); err != nil {
		return fmt.Errorf("make the folder of the output: %w", err)
	}
	return image.ToFile(o.Dest, func(file *os.File) error { return f(file) })
}

// exported is the image as an output wants it: the built one, or one whose own
// layers have their times set.
func (x *Executor) exported(ctx context.Context, n *Node, o Output) (image.Assembled, chain, error) {
	c := chain{layers: n.built(), base: n.base()}
	if !o.Rewrite || n.program.Epoch == nil {
		img, err := x.assemble(n, c)
		return img, c, err
	}
	c.layers = slices.Clone(c.layers)
	for i, l := range c.layers {
		if l.Created == nil || l.DiffID != l.ID {
			continue // of a base, which stays as it is; or done
		}
		v, err := x.retimed(ctx, n, l)
		if err != nil {
			return image.Assembled{}, c, fmt.Errorf("set the times of layer %s: %w", l.DiffID, err)
		}
		c.layers[i].Layer = image.Layer{Descriptor: v.Descriptor, DiffID: v.Tar}
	}
	img, err := x.assemble(n, c)
	return img, c, err
}

// base is the image at the bottom of a node's target stage.
func (n *Node) base() *baseImage {
	for i := len(n.program.Stages) - 1; ; {
		b := n.program.Stages[i].Base
		if b.Image != nil {
			return n.images[imageKey(*b.Image)]
		}
		if n.job.Stages[i].Base.Stage < 0 {
			return nil
		}
		i = n.job.Stages[i].Base.Stage
	}
}
