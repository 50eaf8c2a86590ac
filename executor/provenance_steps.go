package executor

import (
	"fmt"
	"path"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kaniko-build/executor/internal/dockerfile"
	"kaniko-build/executor/internal/image"
)

// Steps in provenance have the names and fields that BuildKit gives operations of its
// language (solver/pb/ops.proto, as JSON), as far as steps here have them: sources,
// exec, and file with copy and mkdir. What they have not is left out: operations have
// no digests here, and one COPY is one operation.

type buildConfig struct {
	Definition []buildStep `json:"llbDefinition,omitempty"`
}

type buildStep struct {
	ID     string    `json:"id"`
	Op     operation `json:"op"`
	Inputs []string  `json:"inputs,omitempty"`
}

type operation struct {
	Op       opKind      `json:"Op"`
	Platform *opPlatform `json:"platform,omitempty"`
}

type opPlatform struct {
	Architecture string `json:"Architecture"`
	OS           string `json:"OS"`
	Variant      string `json:"Variant,omitempty"`
}

type opKind struct {
	Source *sourceOp `json:"source,omitempty"`
	Exec   *execOp   `json:"exec,omitempty"`
	File   *fileOp   `json:"file,omitempty"`
}

type sourceOp struct {
	Identifier string `json:"identifier"`
}

type execOp struct {
	Meta    execMeta    `json:"meta"`
	Mounts  []execMount `json:"mounts"`
	Network int         `json:"network,omitempty"` // 1 host, 2 none
}

type execMeta struct {
	Args []string `json:"args"`
	Env  []string `json:"env,omitempty"`
	Cwd  string   `json:"cwd"`
	User string   `json:"user,omitempty"`
}

type execMount struct {
	Input     int        `json:"input,omitempty"` // -1 is none
	Dest      string     `json:"dest"`
	Selector  string     `json:"selector,omitempty"`
	ReadOnly  bool       `json:"readonly,omitempty"`
	MountType int        `json:"mountType,omitempty"` // 1 secret, 2 ssh, 3 cache, 4 tmpfs
	Secret    *secretOpt `json:"secretOpt,omitempty"`
	SSH       *secretOpt `json:"SSHOpt,omitempty"`
	Cache     *cacheOpt  `json:"cacheOpt,omitempty"`
}

type secretOpt struct {
	ID       string `json:"ID"`
	Mode     uint32 `json:"mode,omitempty"`
	UID      uint32 `json:"uid,omitempty"`
	GID      uint32 `json:"gid,omitempty"`
	Optional bool   `json:"optional,omitempty"`
}

type cacheOpt struct {
	ID string `json:"ID"`
}

type fileOp struct {
	Actions []fileAction `json:"actions"`
}

type fileAction struct {
	Action    fileKind `json:"Action"`
	Input     int      `json:"input"`
	Secondary int      `json:"secondaryInput"` // -1 is none
	Output    int      `json:"output"`
}

type fileKind struct {
	Copy  *copyAction  `json:"copy,omitempty"`
	Mkdir *mkdirAction `json:"mkdir,omitempty"`
}

type copyAction struct {
	Src  string `json:"src"`
	Dest string `json:"dest"`
}

type mkdirAction struct {
	Path        string `json:"path"`
	MakeParents bool   `json:"makeParents"`
}

// buildSteps are the operations of a node, and where they come from.
type buildSteps struct {
	hide    masker
	list    []buildStep
	pos     map[string][2]int // lines, by id
	tops    []string          // the last of each stage; "" is nothing
	sources map[string]string // ids by identifier
	ids     map[stepPlace]string
	bases   map[int]string // of stages that begin from an image
}

func (n *Node) buildSteps(hide masker) *buildSteps {
	b := &buildSteps{hide: hide, pos: map[string][2]int{}, sources: map[string]string{}, ids: map[stepPlace]string{}, bases: map[int]string{}}
	for i := range n.program.Stages {
		st := &n.program.Stages[i]
		top := ""
		switch st.Base.Kind {
		case dockerfile.FromStage:
			top = b.tops[st.Base.Stage]
		case dockerfile.FromImage:
			top = b.source(n, st.Base, st.Platform)
			b.bases[i] = top
			b.pos[top] = [2]int{st.Pos.Line, st.Pos.Line}
		}
		for k := range st.Steps {
			s := &st.Steps[k]
			if s.Run == nil && s.Copy == nil && s.Workdir == nil {
				continue
			}
			top = b.step(n, st, s, top)
			b.ids[stepPlace{i, k}] = top
			b.pos[top] = [2]int{s.Pos.Line, max(s.EndLine, s.Pos.Line)}
		}
		b.tops = append(b.tops, top)
	}
	if top := b.tops[len(b.tops)-1]; top != "" {
		b.add(operation{}, []string{top}) // names the result
	}
	return b
}

func (b *buildSteps) add(op operation, inputs []string) string {
	id := fmt.Sprintf("step%d", len(b.list))
	s := buildStep{ID: id, Op: op}
	for _, in := range inputs {
		s.Inputs = append(s.Inputs, in+":0")
	}
	b.list = append(b.list, s)
	return id
}

// source is the step that a source is, added where it is used first; "" is nothing.
func (b *buildSteps) source(n *Node, src dockerfile.Source, p ocispec.Platform) string {
	var id string
	switch src.Kind {
	case dockerfile.FromStage:
		return b.tops[src.Stage]
	case dockerfile.FromScratch:
		return ""
	case dockerfile.FromContext:
		id = "local://context"
		if src.Context != "" {
			id = "local://" + src.Context
		}
	case dockerfile.FromImage:
		p = src.Image.Platform
		id = "docker-image://" + n.identifier(*src.Image)
	}
	key := id + " " + p.OS + "/" + p.Architecture + "/" + p.Variant
	if at, ok := b.sources[key]; ok {
		return at
	}
	op := operation{Op: opKind{Source: &sourceOp{id}}}
	if src.Kind == dockerfile.FromImage {
		op.Platform = &opPlatform{p.Architecture, p.OS, p.Variant}
	}
	b.sources[key] = b.add(op, nil)
	return b.sources[key]
}

// identifier is the full name of an image that was read, with its digest where it
// has one.
func (n *Node) identifier(r dockerfile.ImageRef) string {
	ref := r.Ref
	if r.Context != "" {
		if value, ok := strings.CutPrefix(n.Contexts[r.Context], "docker-image://"); ok {
			ref = value
		}
	}
	if name, err := image.ParseName(ref); err == nil {
		ref = name.String()
	}
	if b := n.images[imageKey(r)]; b != nil && b.named != "" && !strings.Contains(ref, "@") {
		ref += "@" + b.named.String()
	}
	return ref
}

// step adds an instruction that works on what the step top has left.
func (b *buildSteps) step(n *Node, st *dockerfile.Stage, s *dockerfile.Step, top string) string {
	var inputs []string
	input := func(id string) int {
		if id == "" {
			return -1
		}
		for i, in := range inputs {
			if in == id {
				return i
			}
		}
		inputs = append(inputs, id)
		return len(inputs) - 1
	}
	root := input(top)
	var op operation
	switch {
	case s.Run != nil:
		op.Platform = &opPlatform{st.Platform.Architecture, st.Platform.OS, st.Platform.Variant}
		op.Op.Exec = b.exec(n, st, s.Run, root, input)
	case s.Copy != nil:
		op.Op.File = &fileOp{}
		act := func(src, from string) {
			op.Op.File.Actions = append(op.Op.File.Actions, fileAction{Action: fileKind{Copy: &copyAction{b.hide.hide(src), b.hide.hide(s.Copy.Dest)}}, Input: root, Secondary: input(from)})
		}
		for _, name := range s.Copy.Sources {
			act(path.Join("/", name), b.source(n, s.Copy.From, st.Platform))
		}
		for _, r := range s.Copy.Remote {
			id := Redacted(r.URL)
			if r.Git != nil {
				id = "git://" + strings.TrimPrefix(Redacted(r.Git.Remote), "https://") + "#" + r.Git.Ref
			}
			if b.sources[id] == "" {
				b.sources[id] = b.add(operation{Op: opKind{Source: &sourceOp{b.hide.hide(id)}}}, nil)
			}
			act("/"+r.Name, b.sources[id])
		}
		for _, f := range s.Copy.Inline {
			act("/"+f.Path, "")
		}
	default:
		op.Op.File = &fileOp{[]fileAction{{Action: fileKind{Mkdir: &mkdirAction{s.Workdir.Path, true}}, Input: root, Secondary: -1}}}
	}
	return b.add(op, inputs)
}

func (b *buildSteps) exec(n *Node, st *dockerfile.Stage, r *dockerfile.Run, root int, input func(string) int) *execOp {
	e := &execOp{Meta: execMeta{Cwd: r.Dir, User: r.User}, Mounts: []execMount{{Input: root, Dest: "/"}}}
	for _, a := range r.Argv {
		e.Meta.Args = append(e.Meta.Args, b.hide.hide(a))
	}
	for _, v := range r.Env {
		e.Meta.Env = append(e.Meta.Env, b.hide.hide(v))
	}
	e.Network = map[string]int{"host": 1, "none": 2}[r.Network]
	for _, m := range r.Mounts {
		x := execMount{Input: -1, Dest: m.Target, ReadOnly: m.ReadOnly}
		granted := &secretOpt{ID: m.ID, UID: m.UID, GID: m.GID, Optional: !m.Required}
		if m.Mode != nil {
			granted.Mode = *m.Mode
		}
		switch m.Type {
		case dockerfile.MountSecret:
			x.MountType, x.Secret = 1, granted
		case dockerfile.MountSSH:
			x.MountType, x.SSH = 2, granted
		case dockerfile.MountCache:
			x.MountType, x.Cache = 3, &cacheOpt{m.ID}
		case dockerfile.MountTmpfs:
			x.MountType = 4
		default:
			x.Input, x.Selector = input(b.source(n, m.From, st.Platform)), m.Source
		}
		e.Mounts = append(e.Mounts, x)
	}
	return e
}

// stepSource is the Dockerfile, and the lines of it that steps come from.
type stepSource struct {
	Locations map[string]stepLocations `json:"locations,omitempty"`
	Infos     []sourceInfo             `json:"infos"`
}

type stepLocations struct {
	Locations []stepLocation `json:"locations,omitempty"`
}

type stepLocation struct {
	Ranges []lineRange `json:"ranges"`
}

type lineRange struct {
	Start line `json:"start"`
	End   line `json:"end"`
}

type line struct {
	Line int `json:"line"`
}

type sourceInfo struct {
	Filename string `json:"filename"`
	Language string `json:"language"`
	Data     []byte `json:"data"`
}

// text is the Dockerfile with the places of steps in it.
func (b *buildSteps) text(n *Node) *stepSource {
	out := &stepSource{Locations: map[string]stepLocations{}, Infos: []sourceInfo{{path.Base(n.Dockerfile.Name), "Dockerfile", []byte(b.hide.hide(string(n.Dockerfile.Data)))}}}
	for id, at := range b.pos {
		out.Locations[id] = stepLocations{[]stepLocation{{[]lineRange{{line{at[0]}, line{at[1]}}}}}}
	}
	return out
}

// layers are those that the image has after each step of its stages.
func (b *buildSteps) layers(n *Node, img image.Assembled) map[string][][]ocispec.Descriptor {
	if n.Format.Single {
		return nil // layers of the image are of no single step
	}
	out := map[string][][]ocispec.Descriptor{}
	var all []ocispec.Descriptor
	for _, l := range img.Layers {
		all = append(all, ocispec.Descriptor{MediaType: l.Descriptor.MediaType, Digest: l.Descriptor.Digest, Size: l.Descriptor.Size})
	}
	at := len(all) - n.ownLayers()
	var stages []int
	for i := len(n.job.Stages) - 1; i >= 0; i = n.job.Stages[i].Base.Stage {
		stages = append([]int{i}, stages...)
	}
	if id := b.bases[stages[0]]; id != "" {
		out[id+":0"] = [][]ocispec.Descriptor{all[:at]}
	}
	for _, i := range stages {
		for k := range n.job.Stages[i].Steps {
			if len(n.job.Stages[i].Steps[k].Lines) > 0 {
				at++
				out[b.ids[stepPlace{i, k}]+":0"] = [][]ocispec.Descriptor{all[:at]}
			}
		}
	}
	return out
}
