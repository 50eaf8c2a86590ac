package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kaniko-build/executor/internal/image"
	"kaniko-build/executor/internal/tree"
	"kaniko-build/schema/diag"
)

// Discrepancy is something in which a result differs from what the same input
// makes in a store that knows nothing.
type Discrepancy struct {
	Node  string   `json:"node"`
	Stage string   `json:"stage,omitempty"`
	Step  int      `json:"step,omitempty"` // from 1, in its stage; 0 is the image's config
	Text  string   `json:"text,omitempty"` // the instruction
	Pos   diag.Pos `json:"pos,omitzero"`
	Path  string   `json:"path,omitempty"`
	What  string   `json:"what"` // how the result differs
	// Unsteady tells that two builds that know nothing differ in this too: the
	// step makes something else each time. Otherwise the result is wrong.
	Unsteady bool `json:"unsteady"`
}

// Verification is what Verify found.
type Verification struct {
	Nodes         []string      `json:"nodes"` // that were compared, in order
	Steps         int           `json:"steps"` // of them
	Discrepancies []Discrepancy `json:"discrepancies,omitempty"`
}

// Verify builds those of the built nodes that pick chooses, and their parents,
// again in a store of their own that knows nothing, and compares: config and
// history but for the time of making, and each step's layer entry by entry, but
// for times that are newer than the build or come from a context. Where something
// differs it builds once more, to tell a wrong result from a step that makes
// something else each time, and looks at the other stages too, to find the first
// step that differs. Nodes come parents first.
func (x *Executor) Verify(ctx context.Context, nodes []*Node, pick func(node string) bool) (v Verification, err error) {
	needed := map[string]bool{}
	var need func(n *Node)
	need = func(n *Node) {
		needed[n.ID] = true
		for _, p := range n.parents {
			need(p)
		}
	}
	for _, n := range nodes {
		if n.result != nil && pick(n.ID) {
			need(n)
		}
	}
	var again []*Node
	for _, n := range nodes {
		if needed[n.ID] {
			again = append(again, n)
			v.Nodes = append(v.Nodes, n.ID)
		}
	}
	if len(again) == 0 {
		return v, nil
	}
	first, err := x.openCold(ctx, again)
	if err != nil {
		return v, err
	}
	defer func() { err = errors.Join(err, first.close(ctx)) }()
	var second *cold
	defer func() {
		if second != nil {
			err = errors.Join(err, second.close(ctx))
		}
	}()
	for i, n := range again {
		var same bool
		var steps int
		err := x.rebuilt(ctx, n, func() (err error) { // it reads what a cache outside has
			same, steps, err = x.same(ctx, n, first, i)
			return err
		})
		if err != nil {
			return v, err
		}
		v.Steps += steps
		if same {
			continue
		}
		if second == nil {
			if second, err = x.openCold(ctx, again); err != nil {
				return v, err
			}
		}
		for stage := range n.program.Stages {
			found, err := x.judge(ctx, n, stage, first, second, i)
			if err != nil {
				return v, err
			}
			v.Discrepancies = append(v.Discrepancies, found...)
		}
		config, err := x.compareConfig(ctx, n, first, i)
		if err != nil {
			return v, err
		}
		v.Discrepancies = append(v.Discrepancies, config...)
	}
	return v, nil
}

// cold is nodes that were built in a store of their own.
type cold struct {
	of    *Executor
	x     *Executor
	dir   func() error // gives the directory away
	nodes []*Node
	began time.Time
}

// fixed is a runner whose answer is known.
type fixed struct {
	Runner
	iso Isolation
}

// afarOf is the runner of nodes afar, if it is one.
func afarOf(r Runner) (Afar, bool) {
	if f, ok := r.(fixed); ok {
		r = f.Runner
	}
	a, ok := r.(Afar)
	return a, ok
}

func (f fixed) Probe(context.Context, string) (Isolation, error) { return f.iso, nil }

// openCold builds nodes where nothing is known. Its events are nobody's.
func (x *Executor) openCold(ctx context.Context, nodes []*Node) (_ *cold, err error) {
	iso, err := x.isolation()
	if err != nil {
		return nil, err
	}
	temp, err := x.store.TempDir("verify")
	if err != nil {
		return nil, err
	}
	c := &cold{of: x, dir: temp.Discard, began: time.Now()}
	o := x.opts
	// A directory of our own: that of a session may be the nodes'.
	o.State, o.Runner, o.Sink = filepath.Join(temp.Path, "store"), fixed{x.opts.Runner, iso}, nil
	if err := os.Mkdir(o.State, 0o700); err != nil {
		return nil, errors.Join(fmt.Errorf("make a store to verify with: %w", err), temp.Remove())
	}
	if c.x, err = Open(ctx, o); err != nil {
		return nil, errors.Join(err, temp.Remove())
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close(ctx))
		}
	}()
	var requests []Request
	for _, n := range nodes {
		r := n.Request
		r.Names, r.Cache, r.Attest = nil, nil, Attest{}
		requests = append(requests, r)
	}
	if c.nodes, err = c.x.Inspect(ctx, requests); err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	for i, n := range c.nodes {
		if n.finalKey != nodes[i].finalKey {
			return nil, fmt.Errorf("verify %s: its files or a base image changed meanwhile\n  hint: build again when nothing changes them", n.ID)
		}
		if _, err = c.x.Build(ctx, n); err != nil {
			return nil, fmt.Errorf("verify: build %s again: %w", n.ID, err)
		}
	}
	return c, nil
}

// close takes the store away, also after ctx has ended.
func (c *cold) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return errors.Join(c.x.Close(ctx), c.dir(), c.of.sweep(ctx))
}

// stepOf is a step that makes a layer, and the title of its stage.
type stepOf struct {
	*jobStep
	stage string
}

// steps are those whose layers the last stage of a node ends with, in order.
func (n *Node) layerSteps() []stepOf {
	var out []stepOf
	var walk func(i int)
	walk = func(i int) {
		st := &n.job.Stages[i]
		if st.Base.Stage >= 0 {
			walk(st.Base.Stage)
		}
		for k := range st.Steps {
			if len(st.Steps[k].Lines) > 0 {
				out = append(out, stepOf{&st.Steps[k], st.Title})
			}
		}
	}
	walk(len(n.job.Stages) - 1)
	return out
}

// until is the node with stage i as its last.
func (n *Node) until(i int) *Node {
	program := *n.program
	program.Stages = program.Stages[:i+1]
	out := &Node{Request: n.Request, Bases: n.Bases, program: &program, images: n.images, sources: n.sources, job: n.job, parents: n.parents}
	out.job.Stages, out.job.Ahead = nil, false
	for _, st := range n.job.Stages[:i+1] {
		steps := st.Steps
		st.Steps = nil
		for _, s := range steps {
			s.Fresh, s.ByContent = false, false // it was run, and put down
			st.Steps = append(st.Steps, s)
		}
		out.job.Stages = append(out.job.Stages, st)
	}
	return out
}

// same tells whether the image of a node is that of its cold twin, and how many
// steps it has.
func (x *Executor) same(ctx context.Context, n *Node, c *cold, i int) (bool, int, error) {
	steps := n.layerSteps()
	warm, twin := n.built(), c.nodes[i].built()
	if len(warm) != len(twin) {
		return false, len(steps), nil
	}
	config, err := x.compareConfig(ctx, n, c, i)
	if err != nil || len(config) > 0 {
		return false, len(steps), err
	}
	same := x.sameTimes(ctx, n, c)
	for k := len(warm) - len(steps); k < len(warm); k++ {
		if warm[k].ID == twin[k].ID {
			continue
		}
		changes, err := image.CompareLayers(ctx, c.x.content(c.nodes[i], c.x.openBlob), twin[k].Layer, x.content(n, x.openBlob), warm[k].Layer, same)
		if err != nil || len(changes) > 0 {
			return false, len(steps), err
		}
	}
	return true, len(steps), nil
}

// sameTimes says which times count as equal: those of the cold build's own
// time, and those that a file of a context has.
func (x *Executor) sameTimes(ctx context.Context, n *Node, c *cold) func(cold, warm time.Time) bool {
	var times map[int64]bool
	return func(cold, warm time.Time) bool {
		if cold.Equal(warm) || !cold.Before(c.began.Truncate(time.Second)) {
			return true
		}
		if times == nil {
			times = map[int64]bool{}
			n.contextTimes(ctx, times)
		}
		return times[cold.Unix()]
	}
}

// contextTimes adds the times of the files that a node and its parents may read.
func (n *Node) contextTimes(ctx context.Context, times map[int64]bool) {
	names := []string{""}
	for name, value := range n.Contexts {
		if isDirectory(value) {
			names = append(names, name)
		}
	}
	for _, name := range names {
		t, err := n.sources.tree(ctx, contextTree(name))
		if err != nil {
			continue // a context that cannot be read now has no say
		}
		_ = tree.Walk(ctx, t, "", func(_ string, e tree.Entry) error {
			times[e.ModTime.Unix()] = true
			return nil
		})
	}
	for _, p := range n.parents {
		p.contextTimes(ctx, times)
	}
}

// judge compares the steps that a stage itself has in three builds.
func (x *Executor) judge(ctx context.Context, n *Node, stage int, first, second *cold, i int) ([]Discrepancy, error) {
	own := 0
	for _, s := range n.job.Stages[stage].Steps {
		if len(s.Lines) > 0 {
			own++
		}
	}
	if own == 0 {
		return nil, nil
	}
	warm := n.until(stage)
	var w chain
	err := x.withoutSpoiled(ctx, warm, func() (err error) {
		w, _, _, err = x.chainOf(ctx, warm)
		return err
	})
	if err != nil {
		return nil, err
	}
	warm.layers = w.layers
	a, _, _, err := first.x.chainOf(ctx, first.nodes[i].until(stage))
	if err != nil {
		return nil, err
	}
	b, _, _, err := second.x.chainOf(ctx, second.nodes[i].until(stage))
	if err != nil {
		return nil, err
	}
	steps := warm.layerSteps()
	if len(w.layers) != len(a.layers) || len(w.layers) != len(b.layers) || len(w.layers) < len(steps) {
		return nil, fmt.Errorf("internal error: %s was built of %d, %d and %d layers", n.ID, len(w.layers), len(a.layers), len(b.layers))
	}
	at := len(w.layers) - len(steps)
	var out []Discrepancy
	for k := len(steps) - own; k < len(steps); k++ {
		wl, al, bl := w.layers[at+k], a.layers[at+k], b.layers[at+k]
		if wl.ID == al.ID {
			continue
		}
		srcA, srcB := image.FromStore(first.x.store), image.FromStore(second.x.store)
		changes, err := image.CompareLayers(ctx, srcA, al.Layer, x.content(warm, x.openBlob), wl.Layer, x.sameTimes(ctx, n, first))
		if err != nil {
			return nil, err
		}
		if len(changes) == 0 {
			continue
		}
		between, err := image.CompareLayers(ctx, srcB, bl.Layer, srcA, al.Layer, x.sameTimes(ctx, n, second))
		if err != nil {
			return nil, err
		}
		unsteady, names := map[string]bool{}, true // names: both cold builds have the same
		for _, c := range between {
			unsteady[c.Name] = true
			names = names && c.InA && c.InB
		}
		for _, c := range changes {
			s := steps[k]
			out = append(out, Discrepancy{
				Node: n.ID, Stage: s.stage, Step: s.Number, Text: s.Text, Pos: s.Pos, Path: c.Name, What: c.What,
				Unsteady: unsteady[c.Name] || !c.InA && !names, // a name that is made up each time
			})
		}
	}
	return out, nil
}

// compareConfig compares what an image says about itself, but for layers and
// times of making.
func (x *Executor) compareConfig(ctx context.Context, n *Node, c *cold, i int) ([]Discrepancy, error) {
	warm, err := plainConfig(ctx, x.content(n, x.openBlob), n.result.Config)
	if err != nil {
		return nil, err
	}
	twin, err := plainConfig(ctx, c.x.content(c.nodes[i], c.x.openBlob), c.nodes[i].result.Config)
	if err != nil || string(warm) == string(twin) {
		return nil, err
	}
	return []Discrepancy{{Node: n.ID, What: fmt.Sprintf("config is %s, not %s", warm, twin)}}, nil
}

func plainConfig(ctx context.Context, src image.Source, d ocispec.Descriptor) ([]byte, error) {
	b, err := image.Read(ctx, src, d, image.MaxConfig)
	if err != nil {
		return nil, err
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("read config %s: %w", d.Digest, err)
	}
	delete(m, "created")
	delete(m, "rootfs")
	if list, ok := m["history"].([]any); ok {
		for _, h := range list {
			if record, ok := h.(map[string]any); ok {
				delete(record, "created")
			}
		}
	}
	return json.Marshal(m)
}
