package property

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
)

// Edit changes one thing and says what. It may change nothing that matters, or
// nothing at all.
func (r *Repo) Edit(rnd *rand.Rand) string {
	for {
		if said := edits[rnd.IntN(len(edits))](r, rnd); said != "" {
			return said
		}
	}
}

// edits are tried until one finds something to do.
var edits = []func(r *Repo, rnd *rand.Rand) string{
	(*Repo).editContent, (*Repo).editContent, (*Repo).editComment, (*Repo).editQuietly, (*Repo).editMode,
	(*Repo).renameFile, (*Repo).addFile, (*Repo).removeFile, (*Repo).swapType, (*Repo).swapType, (*Repo).touchFile,
	(*Repo).editIgnore, (*Repo).editStep, (*Repo).addStep, (*Repo).removeStep, (*Repo).swapSteps, (*Repo).editDockerfileComment,
	(*Repo).editArg, (*Repo).editLabel, (*Repo).moveBase, (*Repo).labelBase,
}

// some finds a path of a file that fits, and is none of the fixed directories.
func (r *Repo) some(rnd *rand.Rand, fits func(f File) bool) (string, bool) {
	var names []string
	for _, n := range slices.Sorted(maps.Keys(r.Files)) {
		if fits(r.Files[n]) && !slices.Contains(directories, n) {
			names = append(names, n)
		}
	}
	if len(names) == 0 {
		return "", false
	}
	return pick(rnd, names), true
}

func regular(f File) bool { return !f.Dir && f.Link == "" }

func anything(File) bool { return true }

func (r *Repo) change(rnd *rand.Rand, what string, with func(f *File)) string {
	n, ok := r.some(rnd, regular)
	if !ok {
		return ""
	}
	f := r.Files[n]
	f.Quiet = false
	with(&f)
	r.Files[n] = f
	return what + " " + n
}

func (r *Repo) editContent(rnd *rand.Rand) string {
	return r.change(rnd, "edit", func(f *File) { f.Text += fmt.Sprintln(r.fresh()) })
}

func (r *Repo) editComment(rnd *rand.Rand) string {
	return r.change(rnd, "comment in", func(f *File) { f.Text += fmt.Sprintln("#", r.fresh()) })
}

// editQuietly changes one byte and leaves size and time.
func (r *Repo) editQuietly(rnd *rand.Rand) string {
	return r.change(rnd, "edit without a trace", func(f *File) {
		b := []byte(f.Text + "0\n")
		b = b[:max(len(f.Text), 1)]
		i := rnd.IntN(len(b))
		b[i] = 'a' + (b[i]+1)%26
		f.Quiet = len(b) == len(f.Text)
		f.Text = string(b)
	})
}

func (r *Repo) editMode(rnd *rand.Rand) string {
	n, ok := r.some(rnd, func(f File) bool { return f.Link == "" })
	if !ok {
		return ""
	}
	f := r.Files[n]
	f.Mode = pick(rnd, []uint32{0o644, 0o755, 0o600, 0o4755, 0o777, 0o1755})
	if f.Dir {
		f.Mode |= 0o700
	}
	r.Files[n] = f
	return fmt.Sprintf("mode %o of %s", f.Mode, n)
}

// move takes a path, and what is below it, elsewhere; "" removes it.
func (r *Repo) move(from, to string) {
	for n, f := range maps.Clone(r.Files) {
		if n != from && !strings.HasPrefix(n, from+"/") {
			continue
		}
		delete(r.Files, n)
		if to != "" {
			r.Files[to+strings.TrimPrefix(n, from)] = f
		}
	}
}

func (r *Repo) renameFile(rnd *rand.Rand) string {
	n, ok := r.some(rnd, anything)
	if !ok {
		return ""
	}
	to := fmt.Sprintf("%s/n%d", n[:strings.LastIndexByte(n, '/')], r.fresh())
	r.move(n, to)
	return "rename " + n + " to " + to
}

func (r *Repo) addFile(rnd *rand.Rand) string {
	dir := pick(rnd, directories)
	if rnd.IntN(3) == 0 {
		if d, ok := r.some(rnd, func(f File) bool { return f.Dir }); ok {
			dir = d
		}
	}
	n := fmt.Sprintf("%s/%s%d%s", dir, pick(rnd, []string{"new", "odd ", ".dot"}), r.fresh(), pick(rnd, []string{"", "", ".log", ".md"}))
	r.Files[n] = File{Mode: 0o644, Text: pick(rnd, []string{"", "new\n", "# nothing\n"})}
	return fmt.Sprintf("add %q", n)
}

func (r *Repo) removeFile(rnd *rand.Rand) string {
	if len(r.Files) < 20 {
		return ""
	}
	n, ok := r.some(rnd, anything)
	if !ok {
		return ""
	}
	r.move(n, "")
	return "remove " + n
}

// swapType makes a file, a directory or a symlink another of these.
func (r *Repo) swapType(rnd *rand.Rand) string {
	n, ok := r.some(rnd, anything)
	if !ok {
		return ""
	}
	old := r.Files[n]
	r.move(n, "")
	kinds := []File{{Mode: 0o644, Text: "was another type\n"}, {Dir: true, Mode: 0o755}, {Link: pick(rnd, []string{"f0", "../f1", "nowhere", "/etc/passwd"})}}
	now := pick(rnd, kinds)
	if now.Dir == old.Dir && (now.Link == "") == (old.Link == "") {
		now = kinds[2]
		if old.Link != "" {
			now = kinds[0]
		}
	}
	r.Files[n] = now
	if now.Dir && rnd.IntN(2) == 0 {
		r.Files[n+"/in"] = File{Mode: 0o644, Text: "in\n"}
	}
	return fmt.Sprintf("make %s a %s", n, kind(now))
}

func kind(f File) string {
	switch {
	case f.Dir:
		return "directory"
	case f.Link != "":
		return "symlink to " + f.Link
	}
	return "file"
}

// touchFile leaves everything: the caller writes the file again.
func (r *Repo) touchFile(rnd *rand.Rand) string {
	return r.change(rnd, "touch", func(*File) {})
}

func (r *Repo) editIgnore(rnd *rand.Rand) string {
	p := pick(rnd, []string{"**/*.log", "**/*.md", "lib/two/sub", "svc/*/f1", "**/.dot*", "nothing/at/all"})
	if i := slices.Index(r.Ignore, p); i >= 0 {
		r.Ignore = slices.Delete(slices.Clone(r.Ignore), i, i+1)
		return "ignore no longer " + p
	}
	r.Ignore = append(slices.Clone(r.Ignore), p)
	return "ignore " + p
}

// stage picks a stage of an image to edit.
func (r *Repo) stage(rnd *rand.Rand) (*Stage, string) {
	m := &r.Images[rnd.IntN(len(r.Images))]
	i := rnd.IntN(len(m.Stages))
	m.Stages = slices.Clone(m.Stages)
	m.Stages[i].Steps = slices.Clone(m.Stages[i].Steps)
	return &m.Stages[i], m.Name + ":" + m.Stages[i].Name
}

// optional are the steps of a stage that nothing else relies on.
func (st *Stage) optional() []int {
	var out []int
	for i, s := range st.Steps {
		if s.Text != compiled && s.From == "" {
			out = append(out, i)
		}
	}
	return out
}

func (r *Repo) editStep(rnd *rand.Rand) string {
	st, where := r.stage(rnd)
	may := st.optional()
	if len(may) == 0 {
		return ""
	}
	s := &st.Steps[pick(rnd, may)]
	switch s.Kind {
	case "run":
		s.Text += fmt.Sprintf("; echo %d > /edited", r.fresh())
	case "copy":
		s.Dest = fmt.Sprintf("/moved%d/", r.fresh())
	case "workdir":
		s.Text = fmt.Sprintf("/w%d", r.fresh())
	default:
		s.Text = fmt.Sprint(r.fresh())
	}
	return "edit in " + where + ": " + s.line()
}

func (r *Repo) addStep(rnd *rand.Rand) string {
	st, where := r.stage(rnd)
	if len(st.Steps) > 8 || st.Base == "scratch" {
		return ""
	}
	s := r.step(rnd, nil)
	st.Steps = slices.Insert(st.Steps, rnd.IntN(len(st.Steps)+1), s)
	return "add to " + where + ": " + s.line()
}

func (r *Repo) removeStep(rnd *rand.Rand) string {
	st, where := r.stage(rnd)
	may := st.optional()
	if len(may) < 2 {
		return ""
	}
	i := pick(rnd, may)
	s := st.Steps[i]
	st.Steps = slices.Delete(st.Steps, i, i+1)
	return "remove from " + where + ": " + s.line()
}

func (r *Repo) swapSteps(rnd *rand.Rand) string {
	st, where := r.stage(rnd)
	if len(st.Steps) < 2 {
		return ""
	}
	i := rnd.IntN(len(st.Steps) - 1)
	st.Steps[i], st.Steps[i+1] = st.Steps[i+1], st.Steps[i]
	return fmt.Sprintf("swap steps %d and %d of %s", i+1, i+2, where)
}

func (r *Repo) editDockerfileComment(rnd *rand.Rand) string {
	m := &r.Images[rnd.IntN(len(r.Images))]
	m.Comment = fmt.Sprint("comment ", r.fresh())
	return "comment in the Dockerfile of " + m.Name
}

func (r *Repo) editArg(rnd *rand.Rand) string {
	m := &r.Images[rnd.IntN(len(r.Images))]
	m.Args = maps.Clone(m.Args)
	if m.Args == nil {
		m.Args = map[string]string{}
	}
	m.Args["V"] = pick(rnd, []string{"1", "2", "three four", ""})
	return fmt.Sprintf("argument V=%q of %s", m.Args["V"], m.Name)
}

func (r *Repo) editLabel(rnd *rand.Rand) string {
	m := &r.Images[rnd.IntN(len(r.Images))]
	m.Label = fmt.Sprint("label ", r.fresh())
	return "label of " + m.Name
}

func (r *Repo) moveBase(*rand.Rand) string {
	r.Base.Content = (r.Base.Content + 1) % 3
	return fmt.Sprintf("base is version %d", r.Base.Content)
}

func (r *Repo) labelBase(*rand.Rand) string {
	r.Base.Label = (r.Base.Label + 1) % 3
	return fmt.Sprintf("label of the base is version %d", r.Base.Label)
}
