package executor

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"kaniko-build/executor/internal/dockerfile"
)

// comparison finds the first input of a step that differs from the nearest
// earlier one, and says it in people's words.
type comparison struct {
	e      *explainer
	n      *Node
	stage  int
	states [][]State // of the node, up to the step that is compared
	old    pastStage
	args   []string // names of the arguments that were given then
}

// first is the reason of the first difference, nil if there is none.
func (c *comparison) first(s *jobStep, then pastStep) *Reason {
	if s.Key == then.Key {
		return nil
	}
	a, b := s.Lines, then.Lines
	if len(b) == 0 {
		return &Reason{ReasonNew, "nothing like it was built before"}
	}
	if a[0] != b[0] && strings.HasPrefix(a[0], "parent ") {
		if r := c.parent(); r != nil {
			return r
		}
	}
	a, b = c.expand(a[1:]), c.expand(b[1:])
	i := 0
	for i < len(a) && i < len(b) && a[i] == b[i] {
		i++
	}
	at := func(lines []string) string {
		if i < len(lines) {
			return lines[i]
		}
		return ""
	}
	is, was := at(a), at(b)
	label := func(prefix string) bool { return strings.HasPrefix(is, prefix) || strings.HasPrefix(was, prefix) }
	switch {
	case label("env "):
		if r := c.env(a, b); r != nil {
			return r
		}
	case label(`"`), label("contents of a directory"):
		if r := files(s, a, b, i); r != nil {
			return r
		}
	}
	if s.Text != then.Text {
		return &Reason{ReasonText, "the instruction's text changed: " + brief(then.Text) + " -> " + brief(s.Text)}
	}
	mount := mountAt(a, min(i, len(a)-1))
	switch {
	case label("argv "):
		return &Reason{ReasonSetting, "its command: " + brief(after(was)) + " -> " + brief(after(is))}
	case label("granted "):
		verb := "is granted now"
		if is == "granted false" {
			verb = "is not granted any more"
		}
		return &Reason{ReasonSecret, mount.kind + " " + mount.id + " " + verb}
	case label("from stage "):
		return c.fromStage(s, a, i)
	case label("from image "):
		return c.fromImage(s, then, a, i)
	case label("git "), label("url "):
		return &Reason{ReasonRemote, "what it fetches: " + brief(after(was)) + " -> " + brief(after(is))}
	}
	for _, w := range inWords {
		if label(w.prefix) {
			return &Reason{ReasonSetting, w.name + ": " + orNone(after(was)) + " -> " + orNone(after(is))}
		}
	}
	if mount.kind != "" {
		return &Reason{ReasonSetting, mount.String() + ": " + orNone(was) + " -> " + orNone(is)}
	}
	return &Reason{ReasonSetting, orNone(brief(was)) + " -> " + orNone(brief(is))}
}

// inWords says what lines of one value are called.
var inWords = []struct{ prefix, name string }{
	{"user ", "the user"}, {"dir ", "the working directory"}, {"workdir ", "the working directory"}, {"network ", "the network"},
	{"hostname ", "the host name"}, {"chown ", "--chown"}, {"chmod ", "--chmod"}, {"dest ", "the destination"},
	{"pattern ", "a source"}, {"exclude ", "--exclude"}, {"epoch ", "SOURCE_DATE_EPOCH"},
}

// parent says what came before the step that differs: an earlier step of the
// stage, or what the stage starts from.
func (c *comparison) parent() *Reason {
	done := c.states[c.stage]
	for _, st := range done {
		if st.differs != nil && st.differs.Kind != ReasonAfter {
			return afterStep(st)
		}
	}
	if len(done) > 0 && done[len(done)-1].differs != nil {
		return done[len(done)-1].differs
	}
	if len(done) == 0 || done[0].differs == nil {
		if r := c.base(); r != nil {
			return r
		}
	}
	return &Reason{ReasonAfter, "other steps come before it"}
}

func afterStep(st State) *Reason {
	if st.Hit {
		return &Reason{ReasonAfter, fmt.Sprintf("after step %d: %s", st.Step, st.differs.Text)}
	}
	return &Reason{ReasonAfter, fmt.Sprintf("after step %d, which misses", st.Step)}
}

// base says how what the stage starts from differs.
func (c *comparison) base() *Reason {
	st := &c.n.program.Stages[c.stage]
	now, then := c.n.pastSource(st.Base), c.old.Base
	switch {
	case now.Kind == dockerfile.FromStage && then.Kind == now.Kind:
		return c.stageReason(st.Base.Stage)
	case now.Node != "" && now.Node == then.Node:
		return c.nodeReason(c.n.images[imageKey(*st.Base.Image)].node)
	case now.Kind != then.Kind || now.Name != then.Name || now.Node != then.Node:
		return &Reason{ReasonBase, "base " + nameOf(then) + " -> " + nameOf(now)}
	case now.Digest != then.Digest:
		return &Reason{ReasonBase, fmt.Sprintf("base %s moved from %s to %s", now.Name, then.Digest, now.Digest)}
	}
	return nil
}

func nameOf(s pastSource) string {
	switch {
	case s.Kind == dockerfile.FromScratch:
		return "scratch"
	case s.Node != "":
		return "target " + s.Node
	case s.Kind == dockerfile.FromStage:
		return "stage " + s.Name
	}
	return s.Name
}

// stageReason says of a stage that it is not what it was.
func (c *comparison) stageReason(i int) *Reason {
	title := c.n.job.Stages[i].Title
	for _, st := range c.states[i] {
		if st.differs == nil || st.differs.Kind == ReasonAfter {
			continue
		}
		if st.Hit {
			return &Reason{ReasonAfter, fmt.Sprintf("after step %d of stage %s: %s", st.Step, title, st.differs.Text)}
		}
		return &Reason{ReasonAfter, fmt.Sprintf("after step %d of stage %s, which misses", st.Step, title)}
	}
	return &Reason{ReasonAfter, "after stage " + title + ", which differs"}
}

// nodeReason says of another target that it is not what it was.
func (c *comparison) nodeReason(n *Node) *Reason {
	states := c.e.node(n)
	for _, st := range states[len(states)-1] {
		if !st.Hit {
			return &Reason{ReasonAfter, fmt.Sprintf("after step %d of target %s, which misses", st.Step, n.ID)}
		}
	}
	return &Reason{ReasonAfter, "after target " + n.ID + ", which differs"}
}

// afresh says why the results of a step are not looked up by its definition:
// something before it runs although it is known.
func (c *comparison) afresh(s *jobStep, done []State) *Reason {
	for i := len(done) - 1; i >= 0; i-- {
		if w := done[i].Why; w != nil && w.Kind == ReasonNoCache {
			return &Reason{ReasonAfter, fmt.Sprintf("after step %d, which runs again", done[i].Step)}
		}
	}
	for _, src := range append([]dockerfile.Source{c.n.program.Stages[c.stage].Base}, stepSources(&s.Step)...) {
		switch src.Kind {
		case dockerfile.FromStage:
			for _, st := range c.states[src.Stage] {
				if st.Why != nil {
					return &Reason{ReasonAfter, "after stage " + c.n.job.Stages[src.Stage].Title + ", which runs again"}
				}
			}
		case dockerfile.FromImage:
			if b := c.n.images[imageKey(*src.Image)]; b != nil && b.node != nil && b.node.fresh {
				return &Reason{ReasonAfter, "after target " + b.node.ID + ", which runs again"}
			}
		}
	}
	return &Reason{ReasonAfter, "after something that runs again"}
}

// fromStage explains the line of a stage that the step reads from.
func (c *comparison) fromStage(s *jobStep, lines []string, i int) *Reason {
	nth := count(lines[:min(i, len(lines))], "from stage ")
	if nth >= len(s.Reads) {
		return &Reason{ReasonAfter, "it reads from other stages"}
	}
	return c.stageReason(s.Reads[nth].Stage)
}

// fromImage explains the line of an image that the step reads from.
func (c *comparison) fromImage(s *jobStep, then pastStep, lines []string, i int) *Reason {
	nth := count(lines[:min(i, len(lines))], "from image ")
	for _, src := range stepSources(&s.Step) {
		if src.Kind != dockerfile.FromImage {
			continue
		}
		if nth > 0 {
			nth--
			continue
		}
		now := c.n.pastSource(src)
		if now.Node != "" {
			return c.nodeReason(c.n.images[imageKey(*src.Image)].node)
		}
		for _, old := range then.Images {
			if old.Name == now.Name && old.Digest != now.Digest {
				return &Reason{ReasonBase, fmt.Sprintf("image %s moved from %s to %s", now.Name, old.Digest, now.Digest)}
			}
		}
		return &Reason{ReasonBase, "it reads from image " + now.Name}
	}
	return &Reason{ReasonBase, "it reads from other images"}
}

func count(lines []string, prefix string) int {
	n := 0
	for _, l := range lines {
		if strings.HasPrefix(l, prefix) {
			n++
		}
	}
	return n
}

// expand puts the lines of files in the place of a line that stands for them,
// hashes cut short. A listing that is gone stays the one line.
func (c *comparison) expand(lines []string) []string {
	var out []string
	for _, l := range lines {
		if !strings.HasPrefix(l, filesPrefix) {
			if strings.HasPrefix(l, `"`) {
				l = shorten(l)
			}
			out = append(out, l)
			continue
		}
		list, ok := c.e.listing(l)
		if !ok {
			list = []string{l}
		}
		out = append(out, list...)
	}
	return out
}

// listing finds what a line of many files stands for, hashes cut short.
func (e *explainer) listing(line string) ([]string, bool) {
	if list, ok := e.short[line]; ok {
		return list, true
	}
	list, ok := e.x.listings.get(line)
	if ok {
		list = shortened(list)
	} else {
		var err error
		if list, err = e.x.store.GetListing(listingName(line)); err != nil {
			return nil, false
		}
	}
	e.short[line] = list
	return list, true
}

// env explains the first variable that differs.
func (c *comparison) env(a, b []string) *Reason {
	vars := func(lines []string) (names []string, values map[string]string) {
		values = map[string]string{}
		for _, l := range lines {
			if kv, ok := strings.CutPrefix(l, "env "); ok {
				k, v, _ := strings.Cut(kv, "=")
				names, values[k] = append(names, k), v
			}
		}
		return names, values
	}
	names, now := vars(a)
	old, then := vars(b)
	for _, k := range names {
		was, ok := then[k]
		if ok && was == now[k] {
			continue
		}
		if !ok {
			return &Reason{ReasonArg, c.variable(k) + ": " + brief(now[k]) + " is new"}
		}
		return &Reason{ReasonArg, c.variable(k) + ": " + orEmpty(brief(was)) + " -> " + orEmpty(brief(now[k]))}
	}
	for _, k := range old {
		if _, ok := now[k]; !ok {
			return &Reason{ReasonArg, c.variable(k) + " is not set any more"}
		}
	}
	return nil // another order
}

// variable names a variable by what sets it.
func (c *comparison) variable(name string) string {
	if _, ok := c.n.Args[name]; ok || slices.Contains(c.args, name) {
		return "--build-arg " + name
	}
	by := "ENV"
	for _, s := range c.n.job.Stages[c.stage].Steps {
		if f := strings.Fields(s.Text); len(f) > 1 && strings.EqualFold(f[0], "ARG") {
			if k, _, _ := strings.Cut(f[1], "="); k == name {
				by = "ARG"
			}
		}
	}
	return by + " " + name
}

// file is a line of a file that is copied or mounted.
type file struct {
	name, mode, owner, kind, rest string
}

func parseFile(line string) (f file, ok bool) {
	q, err := strconv.QuotedPrefix(line)
	if err != nil {
		return f, false
	}
	if f.name, err = strconv.Unquote(q); err != nil {
		return f, false
	}
	parts := strings.SplitN(strings.TrimPrefix(line[len(q):], " "), " ", 4)
	for len(parts) < 4 {
		parts = append(parts, "")
	}
	f.mode, f.owner, f.kind, f.rest = parts[0], parts[1], parts[2], parts[3]
	return f, true
}

// files explains the first file from line i on that differs, and counts the
// others.
func files(s *jobStep, a, b []string, i int) *Reason {
	now, then := fileLines(a), fileLines(b)
	inMount := ""
	if s.Run != nil {
		inMount = mountAt(a, min(i, len(a)-1)).String() + ": "
	}
	var first string
	n := 0
	tell := func(name, text string) {
		if n++; n == 1 {
			first = fmt.Sprintf(text, printableName(sourceName(s, name)))
		}
	}
	for _, l := range a {
		f, ok := parseFile(l)
		if !ok {
			continue
		}
		old, was := then[f.name]
		switch {
		case !was:
			tell(f.name, "%s added")
		case old != l:
			g, _ := parseFile(old)
			tell(f.name, f.changed(g))
		}
	}
	for _, l := range b {
		if f, ok := parseFile(l); ok {
			if _, is := now[f.name]; !is {
				tell(f.name, "%s removed")
			}
		}
	}
	switch n {
	case 0:
		return nil
	case 1:
	default:
		first += fmt.Sprintf(", and %d more", n-1)
	}
	return &Reason{ReasonFile, inMount + first}
}

func fileLines(lines []string) map[string]string {
	out := map[string]string{}
	for _, l := range lines {
		if f, ok := parseFile(l); ok {
			out[f.name] = l
		}
	}
	return out
}

// changed is how f differs from what it was, a format for its name.
func (f file) changed(was file) string {
	lit := func(s string) string { return strings.ReplaceAll(printableName(s), "%", "%%") }
	switch {
	case f.kind != was.kind:
		return "%s was a " + lit(was.kind) + " and is a " + lit(f.kind)
	case f.mode != was.mode:
		return "mode of %s " + was.mode + " -> " + f.mode
	case f.owner != was.owner:
		return "owner of %s " + lit(was.owner) + " -> " + lit(f.owner)
	case f.kind == "symlink":
		return "link %s: " + lit(was.rest) + " -> " + lit(f.rest)
	case f.kind == "link-to":
		return "%s is a name of " + lit(f.rest) + " now"
	}
	content, attrs, _ := strings.Cut(f.rest, "+")
	oldContent, oldAttrs, _ := strings.Cut(was.rest, "+")
	if content == oldContent && attrs != oldAttrs {
		return "extended attributes of %s changed"
	}
	return "%s changed"
}

// sourceName is a file as it is called in its context: a line has the name that
// it gets in the destination.
func sourceName(s *jobStep, name string) string {
	var sources []string
	switch {
	case s.Copy != nil && !s.Copy.Parents:
		sources = s.Copy.Sources
	case s.Run != nil:
		for _, m := range s.Run.Mounts {
			if m.Type == dockerfile.MountBind {
				sources = append(sources, m.Source)
			}
		}
	}
	first, _, _ := strings.Cut(name, "/")
	for _, src := range sources {
		dir, base := path.Split(path.Clean("/" + src))
		if ok, err := path.Match(base, first); ok && err == nil {
			return strings.TrimPrefix(path.Join(dir, name), "/")
		}
	}
	return name
}

// mount is the mount that a line of a RUN's key belongs to.
type mount struct{ kind, target, id string }

func (m mount) String() string {
	return m.kind + " mount " + cmp.Or(m.target, m.id)
}

func mountAt(lines []string, i int) mount {
	for ; i >= 0; i-- {
		kind, ok := strings.CutPrefix(lines[i], "mount ")
		if !ok {
			continue
		}
		m := mount{kind: kind}
		for _, l := range lines[i+1:] {
			if strings.HasPrefix(l, "mount ") {
				break
			}
			if v, ok := strings.CutPrefix(l, "target "); ok && m.target == "" {
				m.target = v
			}
			if v, ok := strings.CutPrefix(l, "id "); ok && m.id == "" {
				m.id = v
			}
		}
		return m
	}
	return mount{}
}

// after is a line without its label.
func after(line string) string {
	_, rest, _ := strings.Cut(line, " ")
	return rest
}

func orNone(s string) string { return cmp.Or(s, "none") }

func orEmpty(s string) string { return cmp.Or(s, `""`) }

// brief is a text on one line, cut to fit.
func brief(s string) string {
	s = printableName(s)
	if r := []rune(s); len(r) > 60 {
		s = string(r[:59]) + "…"
	}
	return s
}

// printableName shows a text with its control characters escaped.
func printableName(s string) string {
	q := strconv.Quote(s)
	q = strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(q[1 : len(q)-1])
	return q
}
