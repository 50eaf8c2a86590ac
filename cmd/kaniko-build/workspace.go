package main

import (
	"errors"
	"path"
	"path/filepath"

	"kaniko-build/executor"
	"kaniko-build/plan"
	"kaniko-build/schema"
	"kaniko-build/schema/diag"
)

// workspace is a manifest that was read, and the directory its paths start from.
type workspace struct {
	root     string
	manifest *schema.Manifest
	brought  checkouts
	// keepGoing leaves the mistakes of a target to its nodes, which fail by them: those in
	// its Dockerfile, and in what it names that is not there.
	keepGoing bool
}

// at gives a problem the place it is about.
func at(err error, pos diag.Pos) error {
	var one *diag.Problem
	if errors.As(err, &one) && one.Pos == (diag.Pos{}) {
		return &diag.Problem{Pos: pos, What: one.What, Hint: one.Hint}
	}
	return err
}

// path is a path of the manifest as a real one.
func (w *workspace) path(p string) string {
	if path.IsAbs(p) {
		return p
	}
	if dir, ok := w.brought.path(w.manifest.Repositories, p); ok {
		return dir
	}
	return filepath.Join(w.root, filepath.FromSlash(p))
}

// plan plans the selected targets.
func (w *workspace) plan(selection []string) (*plan.Plan, error) {
	defer reading()()
	return plan.Make(w.manifest, selection, plan.Facts{Platform: executor.HostPlatform()}, dockerfiles{w, w.places(), &executor.Dockerfiles{}})
}

// dockerfiles tells a plan what Dockerfiles refer to.
type dockerfiles struct {
	w     *workspace
	at    places
	texts *executor.Dockerfiles
}

func (d dockerfiles) References(t schema.Target, platform string) ([]plan.Reference, error) {
	r, err := d.w.request(&t, platform)
	if err != nil || r.Mistake != nil {
		return nil, err
	}
	refs, err := d.texts.References(r)
	if err != nil && d.w.keepGoing {
		return nil, nil // its node will fail by it, and leave the others alone
	}
	if err != nil {
		return nil, d.at.err(err)
	}
	out := make([]plan.Reference, len(refs))
	for i, ref := range refs {
		out[i] = plan.Reference{Name: ref.Name, Pos: d.at.pos(ref.Pos), Use: ref.Use, Platform: ref.Platform, Unresolved: ref.Unresolved, Context: ref.Context}
	}
	return out, nil
}

// edges is what every target needs, for selections that follow edges.
func (w *workspace) edges() (map[string][]string, error) {
	var all []string
	for _, t := range w.manifest.Targets {
		all = append(all, t.Name)
	}
	p, err := w.plan(all)
	if err != nil {
		return nil, err
	}
	out := map[string][]string{}
	for _, e := range p.Edges {
		t := p.Node(e.Node).Target.Name
		out[t] = append(out[t], p.Node(e.Needs).Target.Name)
	}
	return out, nil
}
