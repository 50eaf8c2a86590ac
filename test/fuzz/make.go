package fuzz

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// Case is what a seed makes.
type Case struct {
	Dockerfile string
	Files      map[string]string // of the context; see rig.Write
	Nodes      []Node            // what else is in the context
	Args       []string          // of --build-arg
	Labels     []string
	Target     string
	Other      map[string]string // files of the directory that a named context may be
	Contexts   map[string]string // name -> "dir" or "image:REF"
	Secret     bool              // the secret "s" is given
	SSH        bool              // an agent is
}

// syntax is the first line of some Dockerfiles.
const syntax = "# syntax=docker/dockerfile:1\n"

// maker draws a case.
type maker struct {
	*rand.Rand
	b      strings.Builder
	seed   uint64
	stages []string // names of the finished ones
	args   []string // declared in this stage
	n      int
}

// The small worlds that everything is drawn from, so that things collide.
var (
	paths    = []string{"/a", "/a/b", "/a/b/c", "/d", "/d/e", "/lnk", "/w", "/w/x y", "/etc/new", "/tmp/t", "/opt/deep/er"}
	sources  = []string{"f", "g", "dir", "dir/sub", "dir/x.txt", "dir/sub/y.txt", "*.txt", "d*", ".", "odd name", "dir/../f", "run.sh", "lnk", "missing?"}
	owners   = []string{"1:2", "app", "root:root", "1000", "0:7"}
	modes    = []string{"0644", "755", "u+x", "a=rX", "4755", "1777", "600", "go-w"}
	names    = []string{"X", "Y", "LONG_NAME"}
	values   = []string{"one", "two words", "", "$X", "${Y:-none}", "${X#o}", "a=b", "it's"}
	bases    = []string{"busybox", "busybox", "busybox", "nasty", "nasty-docker", "scratch"}
	contexts = map[string]string{
		"f": "f\n", "g": "g\n", "dir/x.txt": "x\n", "dir/sub/y.txt": "y\n", "dir/sub/z": "z\n", "dir/empty/": "",
		"one.txt": "1\n", "two.txt": "2\n", "odd name": "odd\n", "run.sh": "#!/bin/sh\necho ran\n", "nested/deep/er/file": "deep\n", ".hidden": "h\n",
	}
)

func (m *maker) pick(from []string) string { return from[m.IntN(len(from))] }

func (m *maker) chance(percent int) bool { return m.IntN(100) < percent }

func (m *maker) line(format string, args ...any) { fmt.Fprintf(&m.b, format+"\n", args...) }

// Make draws the case of a seed, always the same. Seeds from firstWide on have
// the wide grammar.
func Make(seed uint64) Case {
	if seed >= firstWide {
		return makeWide(seed)
	}
	m := &maker{Rand: rand.New(rand.NewPCG(seed, 1)), seed: seed}
	if m.chance(20) {
		m.b.WriteString(syntax)
	}
	if m.chance(30) {
		m.line("ARG BASE=%s", m.pick(bases[:4]))
	} else {
		m.line("ARG BASE=busybox")
	}
	stages := 1 + m.IntN(3)
	for i := range stages {
		m.stage(i, i == stages-1)
	}
	c := Case{Dockerfile: m.b.String(), Files: map[string]string{}, Nodes: []Node{{Path: "lnk", Kind: "symlink", Arg: "dir"}}}
	for name, text := range contexts {
		c.Files[name] = text
	}
	for range m.IntN(3) {
		c.Files[fmt.Sprintf("dir/n%d", m.IntN(4))] = fmt.Sprintf("%d\n", m.IntN(3))
	}
	if m.chance(25) {
		c.Files[".dockerignore"] = m.pick([]string{"**/*.txt\n!dir/x.txt\n", "dir/sub\n", "*\n!f\n!dir\n", "# nothing\n", ".hidden\nn*\n"})
	}
	for _, n := range names {
		if m.chance(30) {
			c.Args = append(c.Args, n+"="+m.pick([]string{"given", "", "two words", "$X"}))
		}
	}
	return c
}

func (m *maker) stage(i int, last bool) {
	base := m.pick(bases)
	switch {
	case len(m.stages) > 0 && m.chance(35):
		base = m.pick(m.stages)
	case m.chance(15):
		base = "${BASE}"
	}
	name := fmt.Sprintf("s%d", i)
	m.line("FROM %s AS %s", base, name)
	m.args = nil
	for range 1 + m.IntN(7) {
		m.instruction(base == "scratch")
	}
	m.stages = append(m.stages, name)
}

func (m *maker) instruction(bare bool) {
	switch k := m.IntN(100); {
	case k < 35 && !bare:
		m.run()
	case k < 65:
		m.copy()
	case k < 70:
		m.line("ENV %s=%q", m.pick(names), m.pick(values))
	case k < 75:
		n := m.pick(names)
		m.args = append(m.args, n)
		if m.chance(50) {
			m.line("ARG %s", n)
		} else {
			m.line("ARG %s=%q", n, m.pick(values))
		}
	case k < 82:
		m.line("WORKDIR %s", m.pick([]string{"/w", "/a/b", "rel", "/lnk/in", "/new/w", "/w/$X"}))
	case k < 86:
		m.line("USER %s", m.pick([]string{"root", "0", "1000:1000", "root:root", "4321"}))
	case k < 90:
		m.line("LABEL %s=%q", strings.ToLower(m.pick(names)), m.pick(values))
	case k < 92:
		m.line("EXPOSE %d/%s", 80+m.IntN(3), m.pick([]string{"tcp", "udp"}))
	case k < 94:
		m.line("VOLUME %q", m.pick(paths))
	case k < 96:
		m.line("%s", m.pick([]string{`CMD ["a", "b"]`, `CMD echo $X`, `ENTRYPOINT ["e"]`, `ENTRYPOINT e f`, `STOPSIGNAL 9`, `HEALTHCHECK NONE`, `HEALTHCHECK --interval=5s CMD true`}))
	case k < 98:
		m.line("SHELL [\"/bin/sh\", \"-c\"]")
	default:
		m.line("ONBUILD RUN true")
	}
}

// run writes a RUN whose commands may fail without failing the step.
func (m *maker) run() {
	var cmds []string
	for range 1 + m.IntN(4) {
		cmds = append(cmds, m.command())
	}
	flags := ""
	if m.chance(15) {
		from := ""
		if len(m.stages) > 0 && m.chance(50) {
			from = ",from=" + m.pick(m.stages)
		} else {
			from = ",source=dir"
		}
		flags += " --mount=type=bind,target=/mnt/b" + from
		cmds = append(cmds, "ls -A /mnt/b > /listed || true")
	}
	if m.chance(10) {
		flags += " --mount=type=" + m.pick([]string{"cache,target=/var/c", "tmpfs,target=/mnt/t", "cache,target=/a/b"})
		if strings.Contains(flags, "type=cache") { // no other seed's, and no other stage's at the same time
			flags += fmt.Sprintf(",id=%d-%d", m.seed, len(m.stages))
		}
	}
	if m.chance(10) {
		flags += " --network=" + m.pick([]string{"none", "default"})
	}
	switch m.IntN(4) {
	case 0:
		m.line("RUN%s <<EOF\n%s\nEOF", flags, strings.Join(cmds, "\n"))
	case 1:
		m.line("RUN%s %s", flags, strings.Join(cmds, " \\\n && "))
	case 2:
		m.line("RUN%s [\"/bin/sh\", \"-c\", %q]", flags, strings.Join(cmds, "; "))
	default:
		m.line("RUN%s %s", flags, strings.Join(cmds, "; "))
	}
}

func (m *maker) command() string {
	p, q := "'"+m.pick(paths)+"'", "'"+m.pick(paths)+"'"
	m.n++
	c := m.pick([]string{
		"mkdir -p %[1]s", "echo %[3]d > %[1]s", "rm -rf %[1]s", "mv %[1]s %[2]s", "ln -s %[2]s %[1]s", "ln %[1]s %[2]s", "cp -a %[1]s %[2]s",
		"chmod %[4]s %[1]s", "chown %[5]s %[1]s", "touch -d @1%[3]d00000000 %[1]s", "mkfifo %[1]s", "echo $X $Y >> %[1]s", "mkdir -p %[1]s && echo in > %[1]s/in",
		"rm -rf %[1]s && mkdir -p %[1]s", "rm -rf %[1]s && ln -s %[2]s %[1]s", "id > %[1]s", "pwd > %[1]s", "chown -R %[5]s %[1]s", "find /a /d /w | sort > /found",
	})
	return "{ " + fmt.Sprintf(c+"%[6]s", p, q, m.IntN(4), m.pick([]string{"700", "4755", "1777", "a+rwx"}), m.pick([]string{"1:2", "1000", "0:7"}), "") + "; } 2>/dev/null || true"
}

// copy writes a COPY or ADD of some kind.
func (m *maker) copy() {
	word := "COPY"
	var flags []string
	if m.chance(15) {
		word = "ADD"
	}
	if m.chance(25) {
		flags = append(flags, "--chown="+m.pick(owners))
	}
	if m.chance(25) {
		flags = append(flags, "--chmod="+m.pick(modes))
	}
	if m.chance(12) {
		flags = append(flags, "--link")
	}
	dest := m.pick(paths)
	if strings.Contains(dest, " ") {
		dest = "/w/"
	}
	if m.chance(40) {
		dest += "/"
	}
	if word == "COPY" && len(m.stages) > 0 && m.chance(35) {
		flags = append(flags, "--from="+m.pick(m.stages))
		from := m.pick([]string{"/a", "/d", "/w", "/etc/passwd", "/lnk", "/a/b", "/a/b/*"})
		m.line("%s %s %s %s", word, strings.Join(flags, " "), from, dest)
		return
	}
	if m.chance(12) {
		m.line("COPY %s <<%s %s\nx=$X y=${Y}\nEOF", strings.Join(flags, " "), m.pick([]string{"EOF", "'EOF'"}), strings.TrimSuffix(dest, "/"))
		return
	}
	if word == "COPY" && m.chance(10) {
		flags = append(flags, "--parents")
	}
	if m.chance(10) {
		flags = append(flags, "--exclude="+m.pick([]string{"*.txt", "sub", "**/y*", "dir/x.txt"}))
	}
	list := []string{m.pick(sources)}
	if m.chance(25) {
		list = append(list, m.pick(sources))
		dest = strings.TrimSuffix(dest, "/") + "/"
	}
	if slices.ContainsFunc(list, func(s string) bool { return strings.Contains(s, " ") }) {
		var q []string
		for _, s := range append(list, dest) {
			q = append(q, fmt.Sprintf("%q", s))
		}
		m.line("%s %s [%s]", word, strings.Join(flags, " "), strings.Join(q, ", "))
		return
	}
	m.line("%s %s %s %s", word, strings.Join(flags, " "), strings.Join(list, " "), dest)
}
