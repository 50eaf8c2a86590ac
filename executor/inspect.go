package executor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/platforms"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"kaniko-build/executor/internal/copier"
	"kaniko-build/executor/internal/dockerfile"
	"kaniko-build/executor/internal/image"
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

// baseImage is an image that a program reads: one from outside, or what
// another node of the run makes.
type baseImage struct {
	config *dockerspec.DockerOCIImage
	digest digest.Digest // of the image for the platform, of one from outside
	named  digest.Digest // of what the name stands for, which may be an index
	layers []baseLayer   // of an image from outside
	node   *Node         // or the node
	docker bool          // it has Docker's media types
}

// imageKey tells apart the images of a program.
func imageKey(r dockerfile.ImageRef) string {
	if r.Context != "" {
		return "context " + r.Context + " " + platforms.Format(r.Platform)
	}
	return r.Ref + " " + platforms.Format(r.Platform)
}

// Reference is a name in a Dockerfile that needs an image from outside.
type Reference struct {
	Name       string // after ARG resolution
	Pos        diag.Pos
	Use        string // "FROM", "COPY --from", "RUN --mount=from"
	Platform   string // of FROM --platform; "" is the request's
	Unresolved bool   // it holds an ARG without a value: Name is as written
	Context    bool   // it is a named context, by its name in Request.Contexts, for a platform that FROM names
}

// References lists what the needed stages of a Dockerfile refer to; named contexts only
// where FROM names their platform. Nothing is read or asked. That a name has no value is no
// mistake yet: the caller may do without that edge, Inspect may not.
func References(r Request) ([]Reference, error) { return new(Dockerfiles).References(r) }

// Dockerfiles tells what many Dockerfiles refer to: those with the same text are taken
// apart once. It may be used from many goroutines.
type Dockerfiles struct{ syntaxes dockerfile.Syntaxes }

// References is References.
func (d *Dockerfiles) References(r Request) ([]Reference, error) {
	o, err := parseOptions(r, nil)
	if err != nil {
		return nil, err
	}
	o.Syntaxes = &d.syntaxes
	f, err := dockerfile.Parse(r.Dockerfile.Data, o)
	if err = named(err, f.References()); err != nil {
		return nil, err
	}
	var out []Reference
	for _, ref := range f.References() {
		if ref.Context && ref.Platform == nil {
			continue
		}
		one := Reference{Name: ref.Name, Pos: ref.Pos, Use: string(ref.Use), Unresolved: ref.Unresolved, Context: ref.Context}
		if ref.Platform != nil {
			one.Platform = platforms.FormatAll(*ref.Platform)
		}
		out = append(out, one)
	}
	return out, nil
}

// named is an error of a Dockerfile without the problems that are there only
// because a name has no value.
func named(err error, refs []dockerfile.Reference) error {
	var many diag.Problems
	if !errors.As(err, &many) {
		return err
	}
	var rest diag.List
	for _, p := range many {
		blank := slices.ContainsFunc(refs, func(r dockerfile.Reference) bool {
			return r.Unresolved && r.Pos.File == p.Pos.File && r.Pos.Line == p.Pos.Line
		})
		if !blank {
			rest.AddErr(diag.Pos{}, p)
		}
	}
	return rest.Err()
}

func parseOptions(r Request, epoch *int64) (dockerfile.Options, error) {
	o := dockerfile.Options{
		Name: r.Dockerfile.Name, Args: r.Args, Target: r.Stage, Labels: r.Labels, Epoch: epoch,
		BuildPlatform: platforms.DefaultSpec(), NetworkMode: r.Network, ShmSize: r.ShmSize,
	}
	for _, h := range r.ExtraHosts {
		o.ExtraHosts = append(o.ExtraHosts, dockerfile.ExtraHost{Host: h.Name, IP: h.IP})
	}
	if r.Check != "" {
		o.Check = &r.Check
	}
	if r.Platform != "" {
		p, err := platforms.Parse(r.Platform)
		if err != nil {
			return o, &diag.Problem{What: fmt.Sprintf("platform %q: %v", r.Platform, err), Hint: "write os/arch[/variant], as linux/amd64"}
		}
		o.Platform = platforms.Normalize(p)
	}
	for name := range r.Contexts {
		o.Contexts = append(o.Contexts, name)
	}
	slices.Sort(o.Contexts)
	return o, nil
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
	if err := n.Format.Check(); err != nil {
		return err
	}
	if err := n.Attest.check(n.Format); err != nil {
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
	if err := n.grants(x.opts.Getenv); err != nil {
		return err
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

// nameImages makes sources of named contexts that are images sources of those
// images.
func (n *Node) nameImages() {
	for i := range n.program.Stages {
		st := &n.program.Stages[i]
		name := func(s *dockerfile.Source) {
			if s.Kind == dockerfile.FromContext && s.Context != "" && !isDirectory(n.Contexts[s.Context]) {
				*s = dockerfile.Source{Kind: dockerfile.FromImage, Image: &dockerfile.ImageRef{Ref: s.Context, Context: s.Context, Platform: st.Platform, Pos: st.Pos}}
			}
		}
		name(&st.Base)
		for k := range st.Steps {
			if c := st.Steps[k].Copy; c != nil {
				name(&c.From)
			}
			if r := st.Steps[k].Run; r != nil {
				for m := range r.Mounts {
					name(&r.Mounts[m].From)
				}
			}
		}
	}
}

// isDirectory tells whether the value of a named context is a directory.
func isDirectory(value string) bool {
	return !strings.Contains(value, "://") && !strings.HasPrefix(value, "node:")
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

// parentOf is the node that makes an image, nil if none does.
func (n *Node) parentOf(name string, p ocispec.Platform) *Node {
	if one := n.parents[name+"::"+platforms.Format(platforms.Normalize(p))]; one != nil {
		return one
	}
	return n.parents[name]
}

// prefetch asks for images side by side; errors come again to whoever uses
// the image.
func (x *Executor) prefetch(ctx context.Context, n *Node, refs []dockerfile.ImageRef) {
	var wg sync.WaitGroup
	for _, r := range refs {
		if n.parentOf(r.Ref, r.Platform) == nil {
			wg.Go(func() { _, _ = x.registry.Resolve(ctx, r.Ref, r.Platform) })
		}
	}
	wg.Wait()
}

// image finds the image that a reference stands for; nil for a named context
// that is no image.
func (x *Executor) image(ctx context.Context, n *Node, r dockerfile.ImageRef) (*baseImage, error) {
	key := imageKey(r)
	n.mu.Lock()
	b, ok := n.images[key]
	n.mu.Unlock()
	if ok {
		return b, nil
	}
	b, err := x.findImage(ctx, n, r)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.images[key] = b
	return b, nil
}

func (x *Executor) findImage(ctx context.Context, n *Node, r dockerfile.ImageRef) (*baseImage, error) {
	ref, parent := r.Ref, n.parentOf(r.Ref, r.Platform)
	if r.Context != "" {
		value := n.Contexts[r.Context]
		parent = n.parents["context "+r.Context]
		switch {
		case parent != nil:
		case strings.HasPrefix(value, "docker-image://"):
			ref = strings.TrimPrefix(value, "docker-image://")
		case strings.HasPrefix(value, "oci-layout://"):
			return x.layoutImage(ctx, n, strings.TrimPrefix(value, "oci-layout://"), r)
		default:
			return nil, nil
		}
	}
	if parent != nil {
		config := parent.program.Target().Config
		config.History = parent.history() // their times come with the layers
		return &baseImage{config: &config, node: parent}, nil
	}
	res, err := x.registry.Resolve(ctx, ref, r.Platform)
	if err != nil {
		return nil, err
	}
	return n.fromOutside(ref, res, r), nil
}

// fromOutside records an image of a registry or layout.
func (n *Node) fromOutside(origin string, res image.Resolved, r dockerfile.ImageRef) *baseImage {
	b := &baseImage{config: &res.Config, digest: res.Descriptor.Digest, named: cmp.Or(res.Index, res.Descriptor.Digest), docker: res.Descriptor.MediaType == image.DockerManifest}
	for _, l := range res.Layers {
		b.layers = append(b.layers, baseLayer{DiffID: l.DiffID, Blob: l.Descriptor, Origin: origin})
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.Bases = append(n.Bases, Base{Name: r.Ref, Digest: res.Descriptor.Digest, Pos: r.Pos})
	return b
}

// plan makes the job: every step with its key by definition.
func (x *Executor) plan(ctx context.Context, n *Node) error {
	n.job = job{Node: n.ID, Images: map[string][]baseLayer{}, Encode: n.Format.Compression, Epoch: n.clamp(), Ahead: n.Ahead && len(n.Names) > 0 && !n.Format.Single}
	keys := make([]store.Key, len(n.program.Stages)) // after the last step
	afresh := make([]bool, len(n.program.Stages))    // something of it runs even when it is known
	var wrong diag.List
	for i := range n.program.Stages {
		st := &n.program.Stages[i]
		js := jobStage{Title: st.Title, Base: jobBase{Stage: -1}}
		parent, err := x.startKey(ctx, n, st, keys)
		if err != nil {
			return err
		}
		if st.Base.Kind == dockerfile.FromStage {
			js.Base.Stage = st.Base.Stage
		}
		afresh[i] = n.afresh(st.Base, afresh)
		fresh := n.NoCache || slices.Contains(n.NoCacheFor, st.Name) && st.Name != ""
		for k := range st.Steps {
			step := jobStep{Step: st.Steps[k], Number: k + 1, Of: len(st.Steps), Fresh: fresh}
			if step.Copy != nil || step.Run != nil || step.Workdir != nil {
				if err := x.stepKey(ctx, n, st, &step, parent, keys); err != nil {
					if err = placedSources(err, &step.Step); !isMistake(err) {
						return err
					}
					wrong.AddErr(step.Pos, err) // and look at the other steps, for all mistakes at once
				}
				parent = step.over(parent)
				for _, src := range stepSources(&step.Step) {
					afresh[i] = afresh[i] || n.afresh(src, afresh)
				}
				step.ByContent = afresh[i]
				afresh[i] = afresh[i] || fresh
			}
			js.Steps = append(js.Steps, step)
		}
		keys[i] = parent
		n.job.Stages = append(n.job.Stages, js)
	}
	n.finalKey, n.fresh = keys[len(keys)-1], afresh[len(keys)-1]
	return wrong.Err()
}

// afresh tells whether what a source shows is made anew in this run.
func (n *Node) afresh(src dockerfile.Source, stages []bool) bool {
	switch src.Kind {
	case dockerfile.FromStage:
		return stages[src.Stage]
	case dockerfile.FromImage:
		b := n.images[imageKey(*src.Image)]
		return b != nil && b.node != nil && b.node.fresh
	}
	return false
}

// startKey is the key that the first step of a stage builds on.
func (x *Executor) startKey(ctx context.Context, n *Node, st *dockerfile.Stage, keys []store.Key) (store.Key, error) {
	platform := platforms.Format(st.Platform)
	switch st.Base.Kind {
	case dockerfile.FromStage:
		return keys[st.Base.Stage], nil
	case dockerfile.FromImage:
		b, err := x.image(ctx, n, *st.Base.Image)
		if err != nil {
			return store.Key{}, placed(err, st.Pos)
		}
		return b.key(platform), nil
	case dockerfile.FromContext:
		return store.Key{}, &diag.Problem{Pos: st.Pos, What: fmt.Sprintf("the named context %q is a directory, which cannot be a base image", st.Base.Context), Hint: "begin FROM scratch and COPY --from=" + st.Base.Context + " / /"}
	default:
		return hashLines(startLines(platform, nil)), nil
	}
}

// key stands for an image's file system.
func (b *baseImage) key(platform string) store.Key {
	if b.node != nil {
		return b.node.finalKey
	}
	ids := make([]digest.Digest, len(b.layers))
	for i, l := range b.layers {
		ids[i] = l.DiffID
	}
	return hashLines(startLines(platform, ids))
}

// stepKey fills in a step's key by definition and the lines it is made of.
func (x *Executor) stepKey(ctx context.Context, n *Node, st *dockerfile.Stage, s *jobStep, parent store.Key, keys []store.Key) error {
	lines := []string{parentLine(parent)}
	read := func(src dockerfile.Source, sel copier.Select) ([]string, error) {
		switch src.Kind {
		case dockerfile.FromScratch:
			return []string{"from nothing"}, nil
		case dockerfile.FromStage:
			s.Reads = append(s.Reads, stageRead{Line: -1, Stage: src.Stage, Select: sel})
			return []string{fmt.Sprintf("from stage %x", keys[src.Stage])}, nil
		case dockerfile.FromImage:
			b, err := x.image(ctx, n, *src.Image)
			if err != nil {
				return nil, err
			}
			return []string{fmt.Sprintf("from image %x", b.key(""))}, nil
		}
		f, err := n.sources.find(ctx, src.Context, sel, s.Copy != nil && s.Copy.Chown != "")
		if err != nil {
			return nil, err
		}
		if s.Copy != nil {
			for _, text := range f.special.sentences() {
				n.Warnings = append(n.Warnings, Event{Node: n.ID, Kind: Warning, Pos: s.Pos, Time: time.Now(), Text: text})
			}
		}
		return f.lines, nil
	}
	switch {
	case s.Run != nil:
		more, err := runLines(s.Run, func(src dockerfile.Source, paths []string) ([]string, error) {
			return read(src, copier.Select{Patterns: paths})
		}, n.granted)
		if err != nil {
			return err
		}
		lines = append(lines, more...)
	case s.Copy != nil:
		if s.Copy.Link {
			lines[0] = "no parent"
		}
		lines = append(lines, copyLines(s.Copy)...)
		if len(s.Copy.Sources) > 0 {
			more, err := read(s.Copy.From, selection(s.Copy))
			if err != nil {
				return err
			}
			lines = append(lines, more...)
		}
		for i, r := range s.Copy.Remote {
			more, err := n.sources.remote(ctx, remoteTreeName(st.Title, s.Number, i), r, st.Platform)
			if err != nil {
				return err
			}
			lines = append(lines, more...)
		}
	default:
		lines = append(lines, workdirLines(s.Workdir)...)
	}
	lines = append(lines, leftOutLines(x.opts, s.Run != nil)...)
	next := 0
	for i, l := range lines { // where the lines of stages ended up
		if strings.HasPrefix(l, "from stage ") && next < len(s.Reads) {
			s.Reads[next].Line = i
			next++
		}
	}
	s.Lines, s.Key = lines, hashLines(lines)
	return nil
}

// selection is what a COPY selects in its source.
func selection(c *dockerfile.Copy) copier.Select {
	return copier.Select{Patterns: c.Sources, Exclude: c.Exclude, Parents: c.Parents}
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

// Check reads a Dockerfile as a build would, without images, and returns what
// the lint rules find, with an error too. Without a target it judges all stages.
// Of the context only the ignore file is read.
func Check(ctx context.Context, r Request) ([]Event, error) {
	o, err := parseOptions(r, nil)
	if err != nil {
		return nil, err
	}
	o.AllStages = r.Stage == ""
	if o.Ignore, err = ignorePatterns(ctx, r); err != nil {
		return nil, err
	}
	f, _ := dockerfile.Parse(r.Dockerfile.Data, o) // Check gives its error
	warnings, err := f.Check()
	var out []Event
	for _, w := range warnings {
		out = append(out, Event{Kind: Warning, Rule: w.Rule, Text: w.Text, Pos: w.Pos})
	}
	return out, err
}
