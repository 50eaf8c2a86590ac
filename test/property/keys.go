package property

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/moby/patternmatcher"
)

// At is where a step stands: image, stage and the number of the instruction in
// it, from 1. The stage of a Dockerfile that has one only goes by no name.
type At struct {
	Image, Stage string
	Step         int
}

// Keys tells for each step that makes a layer what it depends on: what it is
// told to do, and all that it sees of other steps, files, arguments and the base.
// Two steps with one key make the same; the reverse need not hold.
func (r *Repo) Keys() (map[At]string, error) {
	k := &keys{r: r, out: map[At]string{}, images: map[string]state{}}
	ignore, err := patternmatcher.New(r.Ignore)
	if err != nil {
		return nil, err
	}
	for _, n := range slices.Sorted(maps.Keys(r.Files)) {
		hidden, err := ignore.MatchesOrParentMatches(n)
		if err != nil {
			return nil, err
		}
		if !hidden {
			k.visible = append(k.visible, n)
		}
	}
	for i := range r.Images {
		k.image(&r.Images[i])
	}
	return k.out, nil
}

type keys struct {
	r       *Repo
	visible []string // files that are not ignored, sorted
	out     map[At]string
	images  map[string]state // what each ends with
}

// state is what a step finds before it.
type state struct {
	key string
	env map[string]string // with arguments
	dir string
}

func hash(parts ...any) string {
	return fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(nil, "%q", parts)))
}

func (k *keys) image(m *Image) {
	stages := map[string]state{}
	find := func(name string) state {
		if s, ok := stages[name]; ok {
			return s
		}
		return k.images[name]
	}
	var s state
	for _, st := range m.Stages {
		title := st.Name
		if len(m.Stages) == 1 {
			title = ""
		}
		switch st.Base {
		case "base":
			s = state{key: hash("base", k.r.Base.Content)}
		case "scratch":
			s = state{key: hash("scratch")}
		default:
			s = find(st.Base)
		}
		s.env = maps.Clone(s.env)
		if s.env == nil {
			s.env = map[string]string{}
		}
		for i, step := range st.Steps {
			at := At{m.Name, title, i + 1}
			switch step.Kind {
			case "env":
				s.env[step.Name] = step.Text
			case "arg":
				s.env["arg "+step.Name] = step.Text
				if v, ok := m.Args[step.Name]; ok {
					s.env["arg "+step.Name] = v
				}
			case "workdir":
				s.dir = step.Text
				s.key = hash(s.key, "workdir", s.dir)
				k.out[at] = s.key
			case "run":
				bound := ""
				if len(step.Sources) > 0 {
					bound = k.content(step.Sources[0])
				}
				s.key = hash(s.key, step.line(), fmt.Sprint(s.env), s.dir, bound)
				k.out[at] = s.key
			case "copy":
				parent := s.key
				if step.Flags == "--link" {
					parent = ""
				}
				read := ""
				if step.From != "" {
					read = find(step.From).key
				} else {
					for _, src := range step.Sources {
						read += k.content(src)
					}
				}
				k.out[at] = hash(parent, step.line(), read)
				s.key = hash(s.key, k.out[at])
			}
		}
		stages[st.Name] = s
	}
	k.images[m.Name] = s
}

// content is all that a COPY of a path of the context, or of DIR/*, takes along.
func (k *keys) content(source string) string {
	dir := path.Dir(source + "/x")
	if d, ok := strings.CutSuffix(source, "/*"); ok {
		dir = d
	}
	var b strings.Builder
	for _, n := range k.visible {
		f := k.r.Files[n]
		if n != dir && !strings.HasPrefix(n, dir+"/") {
			continue
		}
		mode := fs.FileMode(f.Mode)
		if f.Link != "" {
			mode = 0o777
		}
		fmt.Fprintf(&b, "%q %v %o %q %q\n", n, f.Dir, mode, f.Link, f.Text)
	}
	return hash(b.String())
}
