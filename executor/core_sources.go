package executor

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"

	"kaniko-build/executor/internal/buildctx"
	"kaniko-build/executor/internal/copier"
	"kaniko-build/executor/internal/dockerfile"
	"kaniko-build/executor/internal/rootfs"
	"kaniko-build/executor/internal/store"
	"kaniko-build/executor/internal/tree"
)

// stepSources are the places a step reads from, in its order.
func stepSources(s *dockerfile.Step) []dockerfile.Source {
	var out []dockerfile.Source
	if s.Copy != nil && len(s.Copy.Sources) > 0 {
		out = append(out, s.Copy.From)
	}
	if s.Run != nil {
		for _, m := range s.Run.Mounts {
			if m.Type == dockerfile.MountBind || m.Type == dockerfile.MountCache {
				out = append(out, m.From)
			}
		}
	}
	return out
}

// stack is a list of layers.
type stack struct {
	dirs []string // top first, as overlay wants them; nil from look
	view *rootfs.View
}

func (s *stack) Close() error {
	if s.view == nil {
		return nil
	}
	return s.view.Close()
}

// open makes sure that layers lie unpacked, and looks at them.
func (c *core) open(ctx context.Context, layers []rootfs.Layer) (*stack, error) {
	if c.near {
		return nil, errBox
	}
	dirs, err := c.layers.Ensure(ctx, layers, c.openLayer)
	if err != nil {
		return nil, c.blame(ctx, err)
	}
	if err := c.arrived(layers); err != nil {
		return nil, err
	}
	view, err := rootfs.OpenView(dirs...)
	if err != nil {
		return nil, err
	}
	return &stack{dirs: dirs, view: view}, nil
}

// sources are the stacks of the stages and images that a step reads from.
func (c *core) sources(ctx context.Context, s *dockerfile.Step) (map[string][]rootfs.Layer, error) {
	out := map[string][]rootfs.Layer{}
	for _, src := range stepSources(s) {
		switch src.Kind {
		case dockerfile.FromStage:
			top, err := c.stage(ctx, src.Stage)
			if err != nil {
				return nil, err
			}
			out[sourceKey(src)] = top
		case dockerfile.FromImage:
			var top []rootfs.Layer
			for _, l := range c.job.Images[imageKey(*src.Image)] {
				top = append(top, c.baseLayer(l, top))
			}
			out[sourceKey(src)] = top
		}
	}
	return out, nil
}

// tree opens a source for reading; close ends that. The content of a file in it
// may be rootfs.ErrUnpack.
func (c *core) tree(ctx context.Context, src dockerfile.Source, sources map[string][]rootfs.Layer) (t tree.Tree, closeTree func(), err error) {
	switch src.Kind {
	case dockerfile.FromStage, dockerfile.FromImage:
		s, err := c.lookAtSource(ctx, sources[sourceKey(src)])
		if err != nil {
			return nil, nil, err
		}
		if c.root != nil && !c.job.Walk {
			return rootView{s.view, c.root, ids(sources[sourceKey(src)])}, func() { s.Close() }, nil
		}
		return s.view, func() { s.Close() }, nil
	case dockerfile.FromScratch:
		return newInlineTree(nil), func() {}, nil
	default:
		t, err := c.context(ctx, src.Context)
		return t, func() {}, err
	}
}

// contentLines are the lines of a step's key by content: those of its
// definition, with what other steps made replaced by what it is.
func (c *core) contentLines(ctx context.Context, s *jobStep, sources map[string][]rootfs.Layer, top []rootfs.Layer) ([]string, error) {
	ids := make([]digest.Digest, len(top))
	for i, l := range top {
		ids[i] = l.DiffID
	}
	lines := append([]string{parentLine(contentParent(ids))}, s.Lines[1:]...)
	if s.Copy != nil && s.Copy.Link {
		lines[0] = "no parent"
	}
	for _, r := range s.Reads {
		src := dockerfile.Source{Kind: dockerfile.FromStage, Stage: r.Stage}
		err := c.unpacking(ctx, [][]rootfs.Layer{sources[sourceKey(src)]}, func() error {
			t, done, err := c.tree(ctx, src, sources)
			if err != nil {
				return err
			}
			defer done()
			items, err := copier.Find(ctx, t, r.Select)
			if err == nil {
				lines[r.Line], err = contentLine(ctx, t, items, s.Copy != nil && s.Copy.Chown != "")
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return lines, nil
}

// contextTree names the tree of a context for host.Tree.
func contextTree(name string) string { return "context:" + name }

// remoteTreeName names the tree of a source that ADD fetches.
func remoteTreeName(stage string, step, i int) string {
	return fmt.Sprintf("remote:%s:%d:%d", stage, step, i)
}

// sourceKey tells apart the sources of a program.
func sourceKey(s dockerfile.Source) string {
	switch s.Kind {
	case dockerfile.FromImage:
		return "image " + imageKey(*s.Image)
	case dockerfile.FromStage:
		return fmt.Sprintf("stage %d", s.Stage)
	default:
		return string(s.Kind) + " " + s.Context
	}
}

// contentLine stands for the content of items that another stage made.
func contentLine(ctx context.Context, t tree.Tree, items []copier.Item, owned bool) (string, error) {
	h, err := buildctx.OpenHasher("")
	if err != nil {
		return "", err
	}
	lines, err := copier.KeyLines(ctx, t, items, owned, h.Hash)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("content %x", store.KeyOf(lines)), nil
}
