package executor

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"

	"kaniko-build/executor/internal/dockerfile"
	"kaniko-build/executor/internal/rootfs"
	"kaniko-build/executor/internal/store"
	"kaniko-build/schema/diag"
)

// State says of one step that makes a layer whether its result is known, and if
// not, why.
type State struct {
	Node  string   `json:"node"`
	Stage string   `json:"stage"`
	Step  int      `json:"step"` // from 1, in its stage
	Of    int      `json:"of"`
	Text  string   `json:"text"`
	Pos   diag.Pos `json:"pos,omitzero"`
	Key   string   `json:"key"` // by definition
	Hit   bool     `json:"hit"`
	From  string   `json:"from,omitempty"` // of a hit: the cache entry outside that has it; "" is the store
	Why   *Reason  `json:"why,omitempty"`  // of a miss

	differs *Reason // from the nearest earlier step, also of a hit
}

// Reason is why a step runs: the first input that differs from the build before.
type Reason struct {
	Kind ReasonKind `json:"kind"`
	Text string     `json:"text"` // for people, on one line
}

// ReasonKind says what a Reason is about.
type ReasonKind string

// The kinds of reasons.
const (
	ReasonNew     ReasonKind = "new"      // nothing like it was built before
	ReasonText    ReasonKind = "text"     // the instruction is another
	ReasonFile    ReasonKind = "file"     // something that is copied or mounted
	ReasonArg     ReasonKind = "arg"      // a variable
	ReasonBase    ReasonKind = "base"     // the base image, or one that is read
	ReasonAfter   ReasonKind = "after"    // what came before it differs
	ReasonSetting ReasonKind = "setting"  // user, directory, network and other things in effect
	ReasonSecret  ReasonKind = "secret"   // a secret or an agent is there now, or is not
	ReasonRemote  ReasonKind = "remote"   // what ADD fetches
	ReasonGone    ReasonKind = "gone"     // it was built, and the store has lost it
	ReasonNoCache ReasonKind = "no-cache" // it is to run whatever is known
	ReasonIdle    ReasonKind = "idle"     // nobody looked, as nothing needs it
)

// past is what the store remembers of a node's last build.
type past struct {
	Args   []string    `json:"args,omitempty"` // names of the build arguments that were given
	Stages []pastStage `json:"stages"`
}

type pastStage struct {
	Title string     `json:"title"`
	Base  pastSource `json:"base"`
	Steps []pastStep `json:"steps,omitempty"` // that make layers
}

type pastStep struct {
	Text   string       `json:"text"`
	Kind   string       `json:"kind"`
	Key    store.Key    `json:"key"`
	Lines  []string     `json:"lines"`
	Images []pastSource `json:"images,omitempty"` // that it reads, in the order of its lines
}

// pastSource is what a stage starts from, or a step reads.
type pastSource struct {
	Kind     dockerfile.Kind `json:"kind,omitempty"`
	Name     string          `json:"name,omitempty"`   // of an image as written, of a stage its title
	Node     string          `json:"node,omitempty"`   // that makes the image
	Digest   digest.Digest   `json:"digest,omitempty"` // of an image from outside
	Platform string          `json:"platform,omitempty"`
}

// present is a node as a later one will see it.
func (n *Node) present() past {
	p := past{}
	for name := range n.Args {
		p.Args = append(p.Args, name)
	}
	slices.Sort(p.Args)
	for i := range n.job.Stages {
		js, st := &n.job.Stages[i], &n.program.Stages[i]
		ps := pastStage{Title: js.Title, Base: n.pastSource(st.Base)}
		ps.Base.Platform = platforms.Format(st.Platform)
		for k := range js.Steps {
			s := &js.Steps[k]
			if len(s.Lines) == 0 {
				continue
			}
			one := pastStep{Text: s.Text, Kind: kindOf(s), Key: s.Key, Lines: s.Lines}
			for _, src := range stepSources(&s.Step) {
				if src.Kind == dockerfile.FromImage {
					one.Images = append(one.Images, n.pastSource(src))
				}
			}
			ps.Steps = append(ps.Steps, one)
		}
		p.Stages = append(p.Stages, ps)
	}
	return p
}

func (n *Node) pastSource(src dockerfile.Source) pastSource {
	p := pastSource{Kind: src.Kind}
	switch src.Kind {
	case dockerfile.FromStage:
		p.Name = n.job.Stages[src.Stage].Title
	case dockerfile.FromImage:
		p.Name = src.Image.Ref
		b := n.images[imageKey(*src.Image)]
		if b == nil {
			break
		}
		p.Digest = b.digest
		if b.node != nil {
			p.Node = b.node.ID
		}
	}
	return p
}

// kindOf names the kind of a step that makes a layer.
func kindOf(s *jobStep) string {
	switch {
	case s.Run != nil:
		return "RUN"
	case s.Copy != nil && s.Copy.Add:
		return "ADD"
	case s.Copy != nil:
		return "COPY"
	}
	return "WORKDIR"
}

// pastID names what the store remembers of a node: another work tree has a
// record of its own.
func (r *Request) pastID() string {
	sum := sha256.Sum256([]byte(r.Context + "\x00" + r.Dockerfile.Name + "\x00" + r.Stage + "\x00" + r.Platform))
	return r.ID + "-" + hex.EncodeToString(sum[:8])
}

// stamp is equal for builds with the same keys.
func (p past) stamp() string {
	lines := slices.Clone(p.Args)
	for _, st := range p.Stages {
		lines = append(lines, st.Title, st.Base.Name, st.Base.Digest.String())
		for _, s := range st.Steps {
			lines = append(lines, s.Key.String(), s.Text)
		}
	}
	return hashLines(lines).String()
}

// record keeps what was built, so that the next build can say what differs. It
// writes only when something does. That it fails is no failure of the build.
func (x *Executor) record(n *Node) {
	p := n.present()
	id, stamp := n.pastID(), p.stamp()
	if x.store.PastStamp(id) == stamp {
		return
	}
	for _, st := range p.Stages {
		for _, s := range st.Steps {
			for _, l := range s.Lines {
				if x.keepListing(l) != nil {
					return
				}
			}
		}
	}
	_ = x.store.PutPast(id, stamp, p) // a poorer explanation next time
}

// keepListing makes sure that the store knows what a line of many files stands
// for.
func (x *Executor) keepListing(line string) error {
	lines, ok := x.listings.get(line)
	if !ok || !x.listings.keep(line) || x.store.TouchListing(listingName(line)) {
		return nil
	}
	return x.store.PutListing(listingName(line), shortened(lines))
}

// shortened are lines of files with their hashes cut to twelve digits: enough to
// say which file changed.
func shortened(lines []string) []string {
	out := make([]string, len(lines))
	for i, l := range lines {
		out[i] = shorten(l)
	}
	return out
}

// shorten cuts the hashes at the end of the line of a file: that of its content
// and, after a plus, that of its attributes.
func shorten(line string) string {
	at := strings.LastIndexByte(line, ' ') + 1
	sums := strings.Split(line[at:], "+")
	for i, s := range sums {
		if len(s) != 2*sha256.Size {
			return line
		}
		sums[i] = s[:12]
	}
	return line[:at] + strings.Join(sums, "+")
}

func listingName(line string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(line, filesPrefix), " ")
	return name
}

// Explain says of every step of inspected nodes, parents first, whether its
// result is known, in the store or in the node's cache, and if not, why. It starts
// nothing and reads no file of a
// context.
func (x *Executor) Explain(ctx context.Context, nodes []*Node) ([]State, error) {
	e := newExplainer(x)
	var out []State
	for _, n := range nodes {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		for _, st := range e.node(n) {
			out = append(out, st...)
		}
	}
	return out, nil
}

// explainer explains nodes that may stand on each other.
type explainer struct {
	x      *Executor
	states map[*Node][][]State // by stage; only steps that make layers
	short  map[string][]string // listings with hashes cut short, by line
}

func newExplainer(x *Executor) *explainer {
	return &explainer{x: x, states: map[*Node][][]State{}, short: map[string][]string{}}
}

// node explains one node.
func (e *explainer) node(n *Node) [][]State {
	if s, ok := e.states[n]; ok {
		return s
	}
	now := n.present()
	var then past
	known := e.x.store.GetPast(n.pastID(), &then) == nil
	states := make([][]State, len(now.Stages))
	tops := make([][]rootfs.Layer, len(now.Stages)) // as far as it is known
	for i, ps := range now.Stages {
		old := matchStage(now, then, i)
		pairs := align(ps.Steps, old.Steps)
		js := &n.job.Stages[i]
		tops[i] = e.start(n, i, tops)
		c := comparison{e: e, n: n, stage: i, states: states, old: old, args: then.Args}
		k := 0
		for j := range js.Steps {
			s := &js.Steps[j]
			if len(s.Lines) == 0 {
				continue
			}
			st := State{Node: n.ID, Stage: js.Title, Step: s.Number, Of: s.Of, Text: s.Text, Pos: s.Pos, Key: s.Key.String()}
			below := tops[i]
			hit, gone := e.lookup(s, &tops[i])
			if o := e.x.cached(s); !hit && o != nil {
				hit, st.From = true, o.Layer.Origin
				if below != nil {
					tops[i] = above(below, o.Layer.DiffID)
				}
			}
			switch {
			case !known || pairs[k] < 0:
				st.differs = &Reason{ReasonNew, "nothing like it was built before"}
			default:
				st.differs = c.first(s, old.Steps[pairs[k]])
			}
			switch {
			case s.Fresh && n.NoCache:
				st.Why = &Reason{ReasonNoCache, "noCache"}
			case s.Fresh:
				st.Why = &Reason{ReasonNoCache, "noCache of stage " + js.Title}
			case s.ByContent:
				st.Why = c.afresh(s, states[i])
			case hit:
				st.Hit = true
			case s.Missed != "":
				st.Why = &Reason{ReasonGone, s.Missed}
			case s.Ask && !s.Asked:
				st.Why = &Reason{ReasonIdle, "nothing that is to be built reads it: no cache was asked"}
			case gone != "":
				st.Why = &Reason{ReasonGone, gone}
			case st.differs != nil:
				st.Why = st.differs
			default:
				st.Why = &Reason{ReasonGone, "the store does not have its result any more"}
			}
			states[i] = append(states[i], st)
			k++
		}
	}
	e.states[n] = states
	return states
}

// start is the stack that a stage begins with, nil if it is not known.
func (e *explainer) start(n *Node, i int, tops [][]rootfs.Layer) []rootfs.Layer {
	b := n.program.Stages[i].Base
	switch b.Kind {
	case dockerfile.FromStage:
		return tops[b.Stage]
	case dockerfile.FromImage:
		img := n.images[imageKey(*b.Image)]
		if img == nil || img.node != nil {
			return nil
		}
		out := []rootfs.Layer{}
		for _, l := range img.layers {
			out = append(out, rootfs.Layer{DiffID: l.DiffID})
		}
		return out
	}
	return []rootfs.Layer{}
}

// lookup tells whether the result of a step can be used, as the core will find;
// gone says why an entry that is there cannot. top becomes the stack above it.
func (e *explainer) lookup(s *jobStep, top *[]rootfs.Layer) (hit bool, gone string) {
	full, dir := e.x.full(), ""
	if iso, err := e.x.isolation(); err == nil {
		dir = filepath.Dir(e.x.store.LayerDir(iso.IDs.String(), "x"))
	}
	below := *top
	*top = nil
	entry, err := e.x.store.GetKey(s.Key, full)
	var miss *store.Miss
	if errors.As(err, &miss) && miss.Reason != "" {
		return false, "its record is damaged"
	}
	if err != nil {
		if _, err := e.x.store.GetKey(s.Key, false); err == nil {
			return false, "it was built with a single id, which is not good enough here"
		}
		return false, ""
	}
	if below != nil {
		*top = above(below, entry.DiffID)
	}
	if len(e.x.store.Variants(entry.DiffID)) > 0 {
		return true, ""
	}
	layers := rootfs.Layers{Dir: dir}
	if _, ok := layers.Has(above(below, entry.DiffID)); ok {
		return true, ""
	}
	return false, "its blob is gone"
}

// matchStage finds what stage i was in the last build: one of its name, else one
// without a partner at the same place.
func matchStage(now, then past, i int) pastStage {
	names := make([]string, len(now.Stages))
	for k, st := range now.Stages {
		names[k] = st.Title
	}
	for _, st := range then.Stages {
		if st.Title == names[i] {
			return st
		}
	}
	// Counted from the end, where the target is.
	if k := len(then.Stages) - (len(now.Stages) - i); k >= 0 && !slices.Contains(names, then.Stages[k].Title) {
		return then.Stages[k]
	}
	return pastStage{}
}

// align pairs steps with those of the last build, as a diff does: the longest
// row of instructions with the same text first, then in the gaps between those
// one of the same kind. -1 is a step without a partner.
func align(now, then []pastStep) []int {
	out := make([]int, len(now))
	for i := range out {
		out[i] = -1
	}
	if len(now)*len(then) > 1<<20 { // no Dockerfile that a person wrote
		for i := range min(len(now), len(then)) {
			out[i] = i
		}
		return out
	}
	// best[i][j] is how many of now[i:] and then[j:] can be paired.
	best := make([][]int, len(now)+1)
	for i := range best {
		best[i] = make([]int, len(then)+1)
	}
	for i := len(now) - 1; i >= 0; i-- {
		for j := len(then) - 1; j >= 0; j-- {
			best[i][j] = max(best[i+1][j], best[i][j+1])
			if now[i].Text == then[j].Text {
				best[i][j] = max(best[i][j], best[i+1][j+1]+1)
			}
		}
	}
	gap := func(i, iEnd, j, jEnd int) {
		for ; i < iEnd; i++ {
			for k := j; k < jEnd; k++ {
				if now[i].Kind == then[k].Kind {
					out[i], j = k, k+1
					break
				}
			}
		}
	}
	i, j := 0, 0
	gapI, gapJ := 0, 0
	for i < len(now) && j < len(then) {
		switch {
		case now[i].Text == then[j].Text && best[i][j] == best[i+1][j+1]+1:
			gap(gapI, i, gapJ, j)
			out[i] = j
			i, j = i+1, j+1
			gapI, gapJ = i, j
		case best[i+1][j] >= best[i][j+1]:
			i++
		default:
			j++
		}
	}
	gap(gapI, len(now), gapJ, len(then))
	return out
}

// stepPlace is a step of a job.
type stepPlace struct{ stage, step int }

// why tells of the steps of a job why they will run.
func (x *Executor) why(n *Node) map[stepPlace]string {
	out := map[stepPlace]string{}
	if len(n.job.Stages) == 0 {
		return out // a sweep
	}
	for i, st := range newExplainer(x).node(n) {
		for _, s := range st {
			if s.Why != nil {
				out[stepPlace{i, s.Step - 1}] = s.Why.Text
			}
		}
	}
	return out
}

// StepKey is the key of one step, with the lines it is made of.
type StepKey struct {
	Node  string `json:"node"`
	Stage string `json:"stage"`
	Step  int    `json:"step"`
	Of    int    `json:"of"`
	Text  string `json:"text"`

	Key   string  `json:"key"` // by definition
	Lines []Lines `json:"lines"`

	// By content, if the step was run and the store still knows.
	ContentKey   string  `json:"contentKey,omitempty"`
	ContentLines []Lines `json:"contentLines,omitempty"`
}

// Lines is one line of a key. One that stands for many files has theirs.
type Lines struct {
	Line  string   `json:"line"`
	Files []string `json:"files,omitempty"`
}

// Keys lists the keys of a node's steps, in order. The lines of a key, hashed
// with the scheme before them, give the key.
func (x *Executor) Keys(n *Node) []StepKey {
	full := x.full()
	var out []StepKey
	for _, st := range n.job.Stages {
		for i := range st.Steps {
			s := &st.Steps[i]
			if len(s.Lines) == 0 {
				continue
			}
			k := StepKey{Node: n.ID, Stage: st.Title, Step: s.Number, Of: s.Of, Text: s.Text, Key: s.Key.String(), Lines: x.withFiles(s.Lines)}
			if e, err := x.store.GetKey(s.Key, full); err == nil && e.ByContent != nil {
				if c, err := x.store.GetKey(*e.ByContent, full); err == nil {
					k.ContentKey, k.ContentLines = e.ByContent.String(), x.withFiles(c.Lines)
				}
			}
			out = append(out, k)
		}
	}
	return out
}

func (x *Executor) withFiles(lines []string) []Lines {
	out := make([]Lines, len(lines))
	for i, l := range lines {
		out[i].Line = l
		if files, ok := x.listings.get(l); ok {
			out[i].Files = files
		}
	}
	return out
}
