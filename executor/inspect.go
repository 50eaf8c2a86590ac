package executor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/platforms"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"kaniko-build/executor/internal/copier"
	"kaniko-build/executor/internal/dockerfile"
	"kaniko-build/executor/internal/store"
	"kaniko-build/schema/diag"
)

// Node is an inspected request: what its build will do, and what of that is
// done already.
type Node struct {
	Request
	Bases    []Base  // images it reads, with the digest that the tag stands for now
	Warnings []Event // of the linter
	Priority float64 // of its steps among those that wait; the caller sets it before Build
	program  *dockerfile.Program
	images   map[string]*baseImage // by imageKey
	sources  *sources
	job      job
	finalKey store.Key // of the target stage
	fresh    bool      // something of the target stage runs afresh
	parents  map[string]*Node
	broken   error          // why it cannot be built, of InspectEach
	going    func(*Process) // of a process that goes on: called when it can be reached; may be nil

	mu      sync.Mutex
	twin    *Node         // the same node, looked at before: what became of it counts for this one too
	result  *Result       // once built
	adopted string        // where the image is in a registry, of a node that was not built
	layers  []builtLayer  // of the result, base first
	pushed  digest.Digest // manifest that was pushed
	stated  []byte        // provenance, as JSON
	ahead   aheads
}

// Base is an image that a node reads.
type Base struct {
	Name   string // as written
	Digest digest.Digest
	Pos    diag.Pos
}

// Inspect resolves requests and computes every key that can be known before
// anything runs. A request comes after those that it names as parents. Images
// are asked for side by side, each once. All mistakes are reported together;
// what the linter found goes to the sink.
func (x *Executor) Inspect(ctx context.Context, requests []Request) ([]*Node, error) {
	return x.InspectBeside(ctx, requests, nil)
}

// inspectedAtOnce is how many nodes are inspected side by side. Most of their time
// they wait for a registry.
const inspectedAtOnce = 64

// InspectBeside is Inspect of some nodes where others are known, by their IDs: they
// may be parents of the requests without being among them.
func (x *Executor) InspectBeside(ctx context.Context, requests []Request, known map[string]*Node) ([]*Node, error) {
	nodes, errs, err := x.inspectAll(ctx, requests, known)
	if err != nil {
		return nil, err
	}
	var l diag.List
	var other []error
	for i, err := range errs {
		switch {
		case err == nil, errors.Is(err, errParent):
		case isMistake(err):
			l.AddErr(diag.Pos{}, err)
		default:
			other = append(other, fmt.Errorf("%s: %w", nodes[i].ID, err))
		}
	}
	if err := errors.Join(append([]error{l.Err()}, other...)...); err != nil {
		return nil, err
	}
	return nodes, x.ready(ctx, nodes)
}

// InspectEach is Inspect where a mistake in one node leaves the others as they are.
// broken has the errors of nodes that cannot be built, by ID, and of those that stand on
// them; these are among the nodes, and nothing may be asked of them but what they are
// called, how many steps they have (none) and InputDigest, which is the error.
func (x *Executor) InspectEach(ctx context.Context, requests []Request) (nodes []*Node, broken map[string]error, err error) {
	nodes, errs, err := x.inspectAll(ctx, requests, nil)
	if err != nil {
		return nil, nil, err
	}
	broken = map[string]error{}
	var good []*Node
	for i, n := range nodes {
		if errs[i] == nil {
			good = append(good, n)
			continue
		}
		n.broken, broken[n.ID] = errs[i], errs[i]
		n.job, n.program = job{}, nil
	}
	return nodes, broken, x.ready(ctx, good)
}

// ready tells what the linter found, and looks for results outside the machine.
func (x *Executor) ready(ctx context.Context, nodes []*Node) error {
	for _, n := range nodes {
		for _, w := range n.Warnings {
			x.opts.Sink(w)
		}
	}
	return x.findAhead(ctx, nodes)
}

// inspectAll inspects nodes, with the error of each.
func (x *Executor) inspectAll(ctx context.Context, requests []Request, known map[string]*Node) ([]*Node, []error, error) {
	nodes := make([]*Node, len(requests))
	byID := maps.Clone(known)
	if byID == nil {
		byID = map[string]*Node{}
	}
	done := make([]chan struct{}, len(requests))
	errs := make([]error, len(requests))
	index := map[string]int{}
	shared := newContexts()
	x.onClose(shared.Close)
	for i, r := range requests {
		nodes[i] = &Node{Request: r}
		byID[r.ID] = nodes[i]
		index[r.ID] = i
		done[i] = make(chan struct{})
	}
	g, gctx := errgroup.WithContext(ctx)
	one := func(i int) error {
		defer close(done[i])
		parents, err := parentsOf(nodes[i].Request, byID)
		if err != nil {
			errs[i] = err
			return nil
		}
		for _, p := range parents {
			j, asked := index[p.ID]
			if !asked {
				continue
			}
			if j >= i {
				return fmt.Errorf("internal error: node %s comes before its parent %s", nodes[i].ID, p.ID)
			}
			<-done[j]
			if errs[j] != nil {
				errs[i] = errParent
				return nil
			}
		}
		nodes[i].parents = parents
		errs[i] = x.inspect(gctx, nodes[i], shared)
		return nil
	}
	var next atomic.Int64 // parents have begun before their children, so that nobody waits for ever
	for range min(len(nodes), inspectedAtOnce) {
		g.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(nodes) {
					return nil
				}
				if err := one(i); err != nil {
					return err
				}
			}
		})
	}
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	return nodes, errs, context.Cause(ctx)
}

var errParent = errors.New("a parent has mistakes")

// parentsOf finds the nodes whose images a request reads, by the name written.
func parentsOf(r Request, byID map[string]*Node) (map[string]*Node, error) {
	out := map[string]*Node{}
	add := func(name, id string) error {
		p := byID[id]
		if p == nil {
			return fmt.Errorf("internal error: node %s needs %s, which is not in the run", r.ID, id)
		}
		out[name] = p
		return nil
	}
	for name, id := range r.Images {
		if err := add(name, id); err != nil {
			return nil, err
		}
	}
	for name, value := range r.Contexts {
		if id, ok := strings.CutPrefix(value, "node:"); ok {
			if err := add("context "+name, id); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

func (x *Executor) inspect(ctx context.Context, n *Node, shared *contexts) error {
	if n.Mistake != nil {
		return n.Mistake
	}
	if err := n.Format.Check(); err != nil {
		return err
	}
	if err := n.Attest.check(n.Format); err != nil {
		return err
	}
	if err := n.grants(x.opts.Getenv); err != nil {
		return err
	}
	if err := x.resolve(ctx, n, shared); err != nil {
		return err
	}
	n.nameImages()
	for _, w := range n.program.Warnings {
		n.Warnings = append(n.Warnings, Event{Node: n.ID, Kind: Warning, Rule: w.Rule, Text: w.Text, Pos: w.Pos, Time: time.Now()})
	}
	n.warnDevices()
	for _, r := range n.program.Images() {
		if _, err := x.image(ctx, n, r); err != nil { // what only COPY --from or a mount names
			return placed(err, r.Pos)
		}
	}
	if err := x.plan(ctx, n); err != nil {
		return err
	}
	n.warnTimes()
	return nil
}

// resolve reads the Dockerfile of a node, with the images that its stages begin
// from.
func (x *Executor) resolve(ctx context.Context, n *Node, shared *contexts) error {
	src := newSources(x, n.Request, shared)
	x.onClose(src.Close)
	n.sources = src
	o, err := parseOptions(n.Request, x.opts.Epoch)
	if err != nil {
		return err
	}
	if o.Ignore, err = ignorePatterns(ctx, n.Request); err != nil {
		return err
	}
	o.RemoteEpoch = func(r dockerfile.Remote) (*int64, error) { return src.remoteEpoch(ctx, r) }
	o.Syntaxes = &x.syntaxes
	f, err := dockerfile.Parse(n.Dockerfile.Data, o)
	if err != nil {
		return err
	}
	n.images = map[string]*baseImage{}
	x.prefetch(ctx, n, f.Images())
	n.program, err = f.Resolve(func(r dockerfile.ImageRef) (*dockerspec.DockerOCIImage, error) {
		b, err := x.image(ctx, n, r)
		if err != nil || b == nil {
			return nil, err
		}
		return b.config, nil
	})
	return err
}

// warnTimes says that an image whose times are set cannot be the same every time
// when the one that it stands on is not: its layers stay as they are.
func (n *Node) warnTimes() {
	b := n.base()
	if n.clamp() == nil || b == nil || b.node == nil || b.node.clamp() != nil {
		return
	}
	n.Warnings = append(n.Warnings, Event{Node: n.ID, Kind: Warning, Pos: n.program.Target().Pos, Time: time.Now(),
		Text: fmt.Sprintf("the image is to be reproducible, and stands on %s, which is not", b.node.ID)})
}

// warnDevices says of devices that a RUN would like to have that it gets none;
// those that are required are a mistake, which Resolve has found.
func (n *Node) warnDevices() {
	for _, st := range n.program.Stages {
		for _, s := range st.Steps {
			if s.Run == nil {
				continue
			}
			for _, d := range s.Run.Devices {
				n.Warnings = append(n.Warnings, Event{Node: n.ID, Kind: Warning, Pos: s.Pos, Time: time.Now(),
					Text: fmt.Sprintf("device %q is not there for builds, so RUN goes without it", d.Name)})
			}
		}
	}
}

// placed gives an error the position of what it is about, if it has none.
func placed(err error, pos diag.Pos) error {
	var one *diag.Problem
	var many diag.Problems
	if errors.As(err, &many) || errors.As(err, &one) && one.Pos != (diag.Pos{}) {
		return err
	}
	if one != nil {
		return &diag.Problem{Pos: pos, What: one.What, Hint: one.Hint}
	}
	hint := ""
	if errors.Is(err, fs.ErrPermission) {
		hint = "make it readable for this user, or leave it out in .dockerignore"
	}
	return &diag.Problem{Pos: pos, What: err.Error(), Hint: hint}
}

// placedSources is an error of a step with its place: where a source that is not there
// is written, else the step's.
func placedSources(err error, s *dockerfile.Step) error {
	var wrong copier.Mistakes
	if s.Copy == nil || !errors.As(err, &wrong) {
		return placed(err, s.Pos)
	}
	var l diag.List
	for _, m := range wrong {
		pos := s.Pos
		if m.Pattern < len(s.Copy.Places) {
			pos = s.Copy.Places[m.Pattern]
		}
		l.Add(pos, m.Problem.Hint, "%s", m.Problem.What)
	}
	return l.Err()
}

// isMistake tells whether an error is one of what users wrote.
func isMistake(err error) bool {
	var one *diag.Problem
	var many diag.Problems
	return errors.As(err, &many) || errors.As(err, &one)
}

// steps counts the steps that make layers.
func (n *Node) steps() int {
	out := 0
	for _, st := range n.job.Stages {
		for i := range st.Steps {
			if len(st.Steps[i].Lines) > 0 {
				out++
			}
		}
	}
	return out
}

// HostPlatform is the platform that images are made for when nobody says.
func HostPlatform() string { return platforms.Format(platforms.Normalize(platforms.DefaultSpec())) }
