package fuzz

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// firstWide is the first seed of the grammar that has the whole language. What
// smaller seeds make is as it was before there was this one.
const firstWide = 1_000_000

// The words of the wide grammar. Those of a list that mostly fail stand for
// few of its places, so that most Dockerfiles build.
var (
	widePaths = []string{"/a", "/a/b", "/a/b/c", "/d", "/d/e", "/lnk", "/w", "/w/x", "/etc/new", "/tmp/t", "/opt/deep/er", "/opt/data", "/opt/shared",
		"/opt/flip-dir", "/opt/flip-file", "/opt/to-data", "/opt/to-data-abs", "/opt/dangling", "/home/app/h", "/usr/lib/n", "/lib/m", "/srv/deep/er", "/opt/hard1", "/new"}
	wideTargets = []string{"/mnt/m", "/mnt/n", "/mnt/m/in", "/a/b", "/a/b/c", "/opt/data", "rel", "/lnk/t", "/w", "/w/x/in", "/deep/ly/in"}
	wideSources = []string{"f", "g", "dir", "dir/", "dir/sub", "dir/x.txt", "dir/sub/y.txt", "*.txt", "d*", ".", "dir/../f", "run.sh", "lnk", "lnk/x.txt", "nested", "nested/deep/er/file",
		"n*d/d*", "dir/*", "*/sub", "hard*", "[fg]", "un*", "dir/lin*", "star[*]", "miss*", "many/..", "./f", "/f", "spec*", "tree", "special/s*"}
	wideParents = []string{"dir/sub/y.txt", "dir/./sub/y.txt", "./dir/sub", "dir/./sub/", "nested/./deep/er/file", "nested/*/er/./file", "**/*.txt", "dir/./**/y*", "nested/deep/./er", "*/sub/./y.txt", "f", "lnk/./x.txt", "tree/./*/f"}
	wideOut     = []string{"/a", "/a/b", "/a/", "/d", "/w", "/etc/passwd", "/lnk", "/a/b/*", "/a/*", "/opt", "/opt/shared", "/opt/data", "/opt/to-data", "/opt/hard1", "/opt/hard*", "/home/app",
		"/usr/bin/cap-tool", "/usr/bin/setuid-tool", "/opt/pipe", "/opt/null", "/opt/climb/passwd", "/opt/fraction", "/srv", "/new*", "/opt/dang*", "/etc/new*"}
	wideOwners = []string{"1:2", "app", "root:root", "1000", "0:7", "app:tape", ":5", "daemon:", "4242", "nobody-here", "1000:disk", "0", "77777", "lone:users", "$X", "root"}
	wideModes  = []string{"0644", "755", "u+x", "a=rX", "4755", "1777", "600", "go-w", "u=rwX,go=rX", "g+s", "+t", "-x", "u+s,g-r", "a-rwx,u=r", "7777", "0", "=", "u=g", "o+w,+X"}
	wideNames  = []string{"X", "Y", "LONG_NAME", "TARGETARCH", "PATH_TWO", "HOME2"}
	wideValues = []string{"one", "two words", "", "a=b", "it's", "x.y.z", "/usr/o/o", "öö", "tab\there", "# no comment", "-dash", "a,b", "100%"}
	wideForms  = []string{"$X", "${Y}", "${X:-none}", "${Y-unset}", "${X:+set}", "${Y+set}", "${X#o}", "${X##*/}", "${Y%e}", "${X%%.*}", "${X/o/0}", "${X//o/0}", "${Y#t*o}", "${Y##t*o}",
		"${X:-${Y:-deep}}", "pre${X}post", "$X$Y", "${LONG_NAME:-a/b}", "$Z", "${FROM_BASE}", "$TARGETARCH", "${TARGETPLATFORM}", "${BUILDARCH:+b}", "\\$X", "${X:+${Y}}", "${PATH%%:*}", "${X/w*s/W}", "${EMPTY-e}${EMPTY:-E}"}
	wideBad  = []string{"${X:?must be}", "${X", "${X@}", "${:-x}", "${X:=y}", "$(X)", "${X/}"}
	wideBase = []string{"busybox", "busybox", "busybox", "busybox", "nasty", "nasty", "nasty-docker", "nasty-zstd", "nasty-onbuild", "hollow", "multi", "scratch", "BUSY", "img", "busybox:latest", "docker.io/library/nasty"}
	ignores  = []string{"**/*.txt", "!dir/x.txt", "dir/sub", "*", "!f", "!dir", "# nothing", ".hidden", "n*", "!**/y*", "tree/**", "!tree/one", "lnk", "dir/*/y?txt", "/g", "./run.sh", "nested/deep/", "!nested/deep/er", "[fg]", "**", "!**/*.sh", " f ", "", "!.dockerignore", "dir/../g", "**/deep"}
	shells   = []string{`["/bin/sh", "-c"]`, `["/bin/sh", "-ec"]`, `["/bin/busybox", "sh", "-c"]`, `["/bin/sh", "-xc"]`}
	users    = []string{"root", "0", "1000:1000", "root:root", "4321", "app", "app:tape", "1000", "lone", "0:7", "4242", "$X", "1000:disk", "daemon"}
	dirs     = []string{"/w", "/a/b", "rel", "/lnk/in", "/new/w", "/w/$X", "..", ".", "${X:-/q}", "/opt/to-data/in", "rel/../up", "/a//b/./c/", "\"/s p\"", "/"}
	signals  = []string{"9", "SIGTERM", "quit", "SIGRTMIN+3", "15", "${X:-INT}"}
	ports    = []string{"80", "81/udp", "8000-8003", "443/TCP", "9/sctp", "1 2/tcp 3/udp", "${X:-22}"}
	health   = []string{"NONE", "CMD true", `CMD ["true", "now"]`, "--interval=5s CMD true", "--timeout=1m30s --retries=3 --start-period=2s --start-interval=500ms CMD test -e $X", "--retries=0 CMD x"}
	triggers = []string{"RUN echo triggered >> /ob", "COPY f /ob-f", "ENV X=trigger", "ARG Y=trigger", "WORKDIR obdir", "USER 1000", "LABEL ob=$X", "ADD --chown=5 dir /ob-dir", "RUN <<E\necho more >> /ob\nE", "EXPOSE 99", "CMD ob", "COPY --from=busybox /bin/sh /ob-sh", "RUN --mount=type=bind,target=/mm ls /mm > /ob-ls"}
)

// wide draws a case of the wide grammar.
type wide struct {
	*maker
	num     int    // of the stage
	bare    bool   // no shell in it
	nasty   bool   // it has what the images called nasty have
	escape  string // at the ends of lines
	caches  int
	secrets bool
	ssh     bool
}

func makeWide(seed uint64) Case {
	m := &wide{maker: &maker{Rand: rand.New(rand.NewPCG(seed, 2)), seed: seed}, escape: `\`}
	if m.chance(20) {
		m.b.WriteString(syntax)
	}
	if m.chance(8) {
		m.escape = "`"
		m.line("# escape=`")
	}
	if m.chance(5) {
		m.line("# check=skip=all")
	}
	m.line("ARG BUSY=busybox")
	if m.chance(40) {
		m.line("ARG X=%s", m.pick([]string{"global", `"two words"`, "${BUSY}", ""}))
	}
	stages := 1 + m.IntN(4)
	for m.num = range stages {
		m.stage()
	}
	c := Case{Files: map[string]string{}, Other: map[string]string{}, Contexts: map[string]string{}}
	m.context(&c)
	m.inputs(&c)
	text := m.b.String()
	if m.chance(5) {
		text = strings.ReplaceAll(text, "\n", "\r\n")
	}
	if m.chance(5) {
		text = "\ufeff" + text
	}
	c.Dockerfile = text
	return c
}

// inputs draws what the command line says.
func (m *wide) inputs(c *Case) {
	for _, n := range wideNames {
		if m.chance(25) {
			c.Args = append(c.Args, n+"="+m.pick([]string{"given", "", "two words", "$X", "a.b/c"}))
		}
	}
	c.Contexts["img"] = "image:busybox"
	if m.chance(30) {
		c.Contexts["img"] = "image:nasty"
	}
	c.Contexts["other"] = "dir"
	if m.chance(4) {
		c.Contexts["busybox"] = "image:nasty"
	}
	if m.chance(4) && len(m.stages) > 1 {
		c.Contexts[m.stages[0]] = m.pick([]string{"dir", "image:busybox", "image:nasty"})
	}
	if m.chance(10) {
		c.Target = strings.ToLower(m.pick(m.stages))
	}
	if m.chance(10) {
		c.Labels = append(c.Labels, "cli="+m.pick(wideValues))
	}
	if m.chance(10) {
		c.Args = append(c.Args, "SOURCE_DATE_EPOCH=1600000000")
	}
	c.Secret, c.SSH = m.secrets && m.chance(85), m.ssh && m.chance(85)
}

// word writes the name of an instruction, or of a flag's stage.
func (m *wide) word(s string) string {
	if m.chance(6) {
		return strings.ToLower(s)
	}
	return s
}

// value is a word for the right side of ENV, ARG and LABEL.
func (m *wide) value() string {
	switch k := m.IntN(100); {
	case k < 35:
		return fmt.Sprintf("%q", m.pick(wideValues))
	case k < 55:
		return `"` + m.pick(wideForms) + `"`
	case k < 80:
		return m.pick(wideForms)
	case k < 85:
		return "'" + m.pick(wideForms) + "'"
	case k < 90:
		return m.pick(wideForms) + m.pick(wideForms)
	case k < 98:
		return strings.NewReplacer(" ", m.escape+" ", "\t", "", "'", "").Replace(m.pick(wideValues))
	default:
		return m.pick(wideBad)
	}
}

func (m *wide) stage() {
	base, flags := m.pick(wideBase), ""
	earlier := len(m.stages) > 0 && m.chance(40)
	switch {
	case earlier:
		base = strings.ToLower(m.pick(m.stages)) // FROM: the one place where we find more than BuildKit
	case base == "BUSY":
		base = m.pick([]string{"${BUSY}", "$BUSY", "${NOPE:-busybox}", "${BUSY:+nasty}"})
	case base == "multi" && m.chance(50):
		flags = "--platform=linux/arm64 "
	case m.chance(8):
		flags = "--platform=" + m.pick([]string{"linux/amd64", "$BUILDPLATFORM", "${TARGETPLATFORM}", "linux/amd64"}) + " "
	}
	if !earlier {
		m.bare = base == "scratch" || base == "hollow" || base == "multi"
	}
	m.nasty = strings.Contains(base, "nasty")
	name := fmt.Sprintf("s%d", m.num)
	if m.chance(15) {
		name = fmt.Sprintf("Stage%d", m.num)
	}
	m.line("%s %s%s %s %s", m.word("FROM"), flags, base, m.word("AS"), name)
	m.stages = append(m.stages, name)
	if m.nasty && m.chance(75) {
		m.line("USER %s", m.pick([]string{"root", "0", "root:root"}))
	}
	for range 1 + m.IntN(8) {
		m.instruction()
	}
}

func (m *wide) instruction() {
	switch k := m.IntN(100); {
	case k < 30 && !m.bare:
		m.run()
	case k < 50:
		m.copy()
	case k < 55:
		m.copyFrom()
	case k < 59:
		m.heredocs()
	case k < 66:
		m.add()
	case k < 71:
		m.env()
	case k < 76:
		n := m.pick(wideNames)
		if m.chance(45) {
			m.line("%s %s", m.word("ARG"), n)
		} else if m.chance(20) {
			m.line("ARG %s=%s %s", n, m.value(), m.pick(wideNames))
		} else {
			m.line("ARG %s=%s", n, m.value())
		}
	case k < 81:
		m.line("%s %s", m.word("WORKDIR"), m.pick(dirs))
	case k < 84:
		m.line("%s %s", m.word("USER"), m.pick(users))
	case k < 87:
		m.line("LABEL %s=%s \"%s\"=%s", strings.ToLower(m.pick(wideNames)), m.value(), m.pick([]string{"multi word", "k.${X:-x}", "dotted.key"}), m.value())
	case k < 89:
		m.line("EXPOSE %s", m.pick(ports))
	case k < 91:
		m.line("VOLUME %s", m.pick([]string{`["/a", "/v w"]`, "/a /vol", "/w", "${X:-/volx}", `["$X"]`, "/opt/data"}))
	case k < 93:
		m.line("%s", m.pick([]string{`CMD ["a", "b"]`, `CMD echo $X`, `CMD ["not", json]`, `CMD []`, `ENTRYPOINT ["e"]`, `ENTRYPOINT e f`, `ENTRYPOINT []`}))
	case k < 94:
		m.line("STOPSIGNAL %s", m.pick(signals))
	case k < 95:
		m.line("HEALTHCHECK %s", m.pick(health))
	case k < 96:
		m.line("SHELL %s", m.pick(shells))
	case k < 97:
		m.line("%s", m.pick([]string{"MAINTAINER me <a@b>", "# a comment", "", "# escape=x", "   # indented"}))
	default:
		m.line("ONBUILD %s", m.pick(triggers))
	}
}

func (m *wide) env() {
	switch n := m.pick(wideNames); {
	case m.chance(15):
		m.line("ENV %s %s", n, m.pick([]string{"old form", "$X and more", `"quoted" tail`, `a\ b`}))
	case m.chance(30):
		m.line("ENV %s=%s %s\n    %s=%s", n, m.value(), m.escape, m.pick(wideNames), m.value())
	default:
		m.line("%s %s=%s", m.word("ENV"), n, m.value())
	}
}

// flags draws what COPY and ADD have in common.
func (m *wide) flags(word string) (flags []string, link bool) {
	link = m.chance(12)
	if m.chance(25) {
		owner := m.pick(wideOwners)
		if link {
			owner = m.pick([]string{"1:2", "1000", "0:7", "root", ":5"})
		}
		flags = append(flags, "--chown="+owner)
	}
	if m.chance(25) {
		flags = append(flags, "--chmod="+m.pick(wideModes))
	}
	if link {
		flags = append(flags, m.pick([]string{"--link", "--link", "--link=true"}))
	}
	if m.chance(12) {
		for range 1 + m.IntN(2) {
			flags = append(flags, "--exclude="+m.pick([]string{"*.txt", "sub", "**/y*", "x.txt", "**/*.txt", "!sub/y.txt", "sub/*", "*", "**/f", "deep"}))
		}
	}
	m.Shuffle(len(flags), func(i, j int) { flags[i], flags[j] = flags[j], flags[i] })
	return flags, link
}

func (m *wide) dest() string {
	d := m.pick(widePaths)
	switch k := m.IntN(100); {
	case k < 45:
		d += "/"
	case k < 50:
		d += "/."
	case k < 56:
		d = m.pick([]string{".", "./", "rel", "rel/", "../up", "/", "$X", "/x${X:+y}/", "/n/../m/"})
	case k < 70:
		d += fmt.Sprintf("/c%d", m.IntN(3))
	}
	return d
}

// write puts the parts of a COPY or ADD together.
func (m *wide) write(word string, flags []string, list []string, dest string) {
	quote := m.chance(8)
	for _, s := range list {
		quote = quote || strings.Contains(s, " ")
	}
	if quote {
		var q []string
		for _, s := range append(list, dest) {
			q = append(q, fmt.Sprintf("%q", s))
		}
		m.line("%s %s [%s]", word, strings.Join(flags, " "), strings.Join(q, ", "))
		return
	}
	sep := " "
	if m.chance(6) {
		sep = " " + m.escape + "\n" + m.pick([]string{"", "# between\n", "\n"}) + "  "
	}
	m.line("%s %s%s%s", m.word(word), strings.Join(append(flags, list...), sep), sep, dest)
}

func (m *wide) copy() {
	word := "COPY"
	if m.chance(15) {
		word = "ADD"
	}
	flags, _ := m.flags(word)
	list := []string{m.pick(wideSources)}
	if word == "COPY" && m.chance(15) {
		flags = append(flags, "--parents")
		list[0] = m.pick(wideParents)
		if m.chance(20) {
			list = append(list, m.pick(wideParents))
		}
		m.write(word, flags, list, strings.TrimSuffix(m.dest(), "/")+"/")
		return
	}
	dest := m.dest()
	if m.chance(20) {
		list = append(list, m.pick(wideSources))
		if m.chance(90) {
			dest = strings.TrimSuffix(dest, "/") + "/"
		}
	}
	if m.chance(4) {
		list[0] = m.pick([]string{"odd name", "missing", "${X:-f}", "special/loop", "dir/${Y:-x}.txt", "../f", "pipe", "abs", "dangling", "dir/up", "dir/link", "special/sock"})
	}
	m.write(word, flags, list, dest)
}

func (m *wide) copyFrom() {
	flags, _ := m.flags("COPY")
	from := m.pick([]string{"busybox", "nasty", "nasty-docker", "img", "other", "multi"})
	if len(m.stages) > 1 && m.chance(75) {
		i := m.IntN(len(m.stages) - 1)
		from = m.pick([]string{m.stages[i], strings.ToUpper(m.stages[i]), fmt.Sprint(i), m.stages[i]})
	}
	src := m.pick(wideOut)
	if from == "other" {
		src = m.pick([]string{".", "o", "sub", "*", "sub/./p", "lnk"})
	}
	if m.chance(10) {
		flags = append(flags, "--parents")
		src = m.pick([]string{"/etc/passwd", "/opt/./data", "/opt/*/./*", "/a/./b", "**/er", "/home/./app", "/sub/p"})
	}
	m.write("COPY", append(flags, "--from="+from), []string{src}, m.dest())
}

func (m *wide) heredocs() {
	flags, _ := m.flags("COPY")
	word := m.pick([]string{"COPY", "COPY", "ADD"})
	dest := m.dest()
	switch m.IntN(5) {
	case 0:
		m.line("%s %s <<A <<\"B\" %s\nfrom a $X\n  ${Y:-y}\nA\nliteral $X\nB", word, strings.Join(flags, " "), strings.TrimSuffix(dest, "/")+"/")
	case 1:
		m.line("%s %s <<-E %s\n\t\tindented ${X/o/0}\n\tE", word, strings.Join(flags, " "), dest)
	case 2:
		m.line("%s %s f <<'AB' g %s\n\\$X `x` \\\\\nAB", word, strings.Join(flags, " "), strings.TrimSuffix(dest, "/")+"/")
	case 3:
		m.line("%s %s <<F %s\nF", word, strings.Join(flags, " "), dest)
	default:
		m.line("%s %s <<EOF %s\nx=$X y=${Y}\n# no comment\nEOF", word, strings.Join(flags, " "), dest)
	}
}

func (m *wide) add() {
	flags, link := m.flags("ADD")
	dest := m.dest()
	switch k := m.IntN(100); {
	case k < 55:
		list := []string{m.pick([]string{"plain.tar", "packed.tar.gz", "packed.tar.bz2", "packed.tar.xz", "packed.tar.zst", "joined.tgz", "ar*.tar", "empty.tar", "no.tar.gz", "f.gz", "cut.tar", "tar-no-name", "plain.tar"})}
		if m.chance(20) {
			flags = append(flags, "--unpack="+m.pick([]string{"true", "false"}))
		}
		if m.chance(15) {
			list = append(list, m.pick([]string{"plain.tar", "f"}))
			dest = strings.TrimSuffix(dest, "/") + "/"
		}
		m.write("ADD", flags, list, dest)
	case k < 82:
		name := m.pick(servedNames)
		if m.chance(25) {
			flags = append(flags, "--checksum="+servedSum(name, m.chance(85)))
		}
		if m.chance(30) {
			flags = append(flags, "--unpack="+m.pick([]string{"true", "true", "false"}))
		}
		m.write("ADD", flags, []string{wwwHost + "/files/" + name}, dest)
	default:
		if link {
			dest = "/git/"
		}
		if m.chance(15) {
			flags = append(flags, "--keep-git-dir=false")
		}
		m.write("ADD", flags, []string{wwwHost + "/repo.git" + m.pick([]string{"", "#main", "#v1", "#main:sub", "#v1:sub/deep", "?tag=v1", "?branch=main&subdir=sub", "#annotated"})}, dest)
	}
}

func (m *wide) run() {
	var cmds []string
	for range 1 + m.IntN(4) {
		cmds = append(cmds, m.command())
	}
	flags := ""
	if m.chance(30) {
		for range 1 + m.IntN(2) {
			f, c := m.mount()
			flags += " --mount=" + f
			cmds = append(cmds, c)
		}
	}
	if m.chance(8) {
		flags += " --network=" + m.pick([]string{"none", "default"})
	}
	if m.chance(4) {
		flags += " --security=sandbox"
	}
	word := m.word("RUN")
	switch m.IntN(9) {
	case 0:
		m.line("%s%s <<EOF\n%s\nEOF", word, flags, strings.Join(cmds, "\n"))
	case 1, 2:
		m.line("%s%s %s", word, flags, strings.Join(cmds, " "+m.escape+"\n"+m.pick([]string{"", "# between\n", "\n"})+" && "))
	case 3:
		m.line("%s%s [\"/bin/sh\", \"-c\", %q]", word, flags, strings.Join(cmds, "; "))
	case 4:
		m.line("%s%s <<-'E'\n\t#!/bin/sh\n\t%s\n\tE", word, flags, strings.Join(cmds, "\n\t"))
	case 5:
		m.line("%s%s cat <<A > /here-a; cat <<\"B\" >> /here-a\none $X\nA\ntwo $X\nB", word, flags)
	case 6:
		m.line("%s%s <<E /bin/sh -e\n%s\nE", word, flags, strings.Join(cmds, "\n"))
	default:
		m.line("%s%s %s", word, flags, strings.Join(cmds, "; "))
	}
}

// mount draws a mount and a command that looks at it.
func (m *wide) mount() (flag, command string) {
	target := m.pick(wideTargets)
	look := fmt.Sprintf("{ ls -A %s; stat -c '%%a %%u %%g %%F' %s; } >> /seen 2>&1 || true", target, target)
	switch k := m.IntN(100); {
	case k < 40:
		from := m.pick([]string{",source=dir", "", ",from=busybox,source=/bin", ",from=nasty,source=/opt/data,rw", ",source=f", ",src=lnk,readwrite", ",from=other", ",from=img", ",ro=false", ",from=other,source=sub"})
		if len(m.stages) > 1 && m.chance(50) {
			from = ",from=" + m.pick(m.stages[:len(m.stages)-1]) + m.pick([]string{"", ",rw", ",source=/etc"})
		}
		if m.chance(30) {
			look = fmt.Sprintf("{ echo new > %s/new; rm -f %s/x.txt; } 2>/dev/null || true; ", target, target) + look
		}
		return m.pick([]string{"type=bind,", "", "type=bind,"}) + "target=" + target + from, look
	case k < 65:
		m.caches++
		id := fmt.Sprintf("%d-%d", m.seed, m.num)
		if m.chance(40) {
			id += fmt.Sprintf("-%d", m.caches)
		}
		more := m.pick([]string{"", "", ",mode=0700", ",uid=1000,gid=7", ",sharing=locked", ",sharing=private", ",ro", ",from=busybox,source=/etc", ",from=other,source=sub", ",mode=1777,uid=1"})
		return "type=cache,id=" + id + ",target=" + target + more, fmt.Sprintf("echo %d >> %s/log; ", m.caches, target) + look
	case k < 78:
		return "type=tmpfs,target=" + target + m.pick([]string{"", ",size=1m", ",size=64k"}), look
	case k < 92:
		m.secrets = true
		more := m.pick([]string{"", ",target=/run/here", ",mode=0440,uid=5,gid=6", ",env=S", ",target=rel-secret", ",required", ",env=S,target=/both", ",dst=/a/secret"})
		return "type=secret,id=s" + more, "{ cat /run/secrets/s /run/here rel-secret /both /a/secret; stat -c '%a %u %g' /run/secrets/s; echo \"$S\"; } >> /seen 2>/dev/null || true"
	default:
		m.ssh = true
		return "type=ssh" + m.pick([]string{"", ",mode=0666", ",uid=5", ",target=/agent", ",id=default", ",required"}), "{ echo $SSH_AUTH_SOCK; stat -c '%a %u %g %F' $SSH_AUTH_SOCK; } >> /seen 2>&1 || true"
	}
}

func (m *wide) command() string {
	p, q := m.pick(widePaths), m.pick(widePaths)
	list := []string{
		"mkdir -p %[1]s", "echo %[3]d > %[1]s", "rm -rf %[1]s", "mv %[1]s %[2]s", "ln -s %[2]s %[1]s", "ln %[1]s %[2]s", "cp -a %[1]s %[2]s",
		"chmod %[4]s %[1]s", "chown %[5]s %[1]s", "touch -d @1%[3]d00000000 %[1]s", "mkfifo %[1]s.fifo", "echo $X $Y >> %[1]s", "mkdir -p %[1]s && echo in > %[1]s/in",
		"rm -rf %[1]s && mkdir -p %[1]s", "rm -rf %[1]s && ln -s %[2]s %[1]s", "id > %[1]s", "pwd > %[1]s", "chown -R %[5]s %[1]s",
		"find / -xdev -path /proc -prune -o -path /sys -prune -o -path /dev -prune -o -name seen-all -prune -o -exec stat -c '%%n %%f %%u %%g %%N' {} + | sort > /seen-all",
		"env | grep -v -e OTEL_ -e TRACEPARENT | sort > /env", "grep -E '^(Cap|NoNewPrivs|Umask|Groups|SigIgn|SigBlk|Uid|Gid)' /proc/self/status > /status", "ulimit -n > /limit; umask >> /limit",
		"dd if=/dev/zero of=%[1]s bs=1 count=1 seek=300000", "rm -rf %[1]s/* %[1]s/.[a-z]*", "mkdir -p %[1]s && cp -a %[2]s %[1]s/", "mkdir -p /rep && rm -rf /rep && echo f > /rep",
		"for i in 1 2 3; do mkdir -p %[1]s/$i && ln -f /etc/passwd %[1]s/$i/p; done", "cat /etc/hostname /etc/resolv.conf > /dev/null; ls /dev | grep -v otel > /devs", "chmod -R g+s %[1]s", "mkdir %[1]s; rmdir %[1]s",
		"rm /bin/vi; touch -h -d @1000000000 %[1]s", "cp %[1]s %[2]s && chmod 4755 %[2]s && chown 1000 %[2]s", "mknod %[1]s c 1 3", "mount | grep -c ' / ' > /mounts; cat /proc/1/comm >> /mounts", "mv /opt /opt2; mv /opt2 /opt", "ln -sfn %[2]s /lnk",
	}
	if m.nasty {
		list = append(list, "nastyctl setx %[1]s user.colour 626c7565", "nastyctl setx %[1]s security.capability 0100000200040000000000000000000000000000", "nastyctl sock %[1]s",
			"cat /opt/data/* > /opt/out; rm -rf /opt/data; mkdir /opt/data", "ln /opt/hard1 /opt/hard9; echo more >> /opt/hard2", "rm -rf /opt/flip-file && echo x > /opt/flip-file", "chown 7 /usr/bin/setuid-tool", "echo >> /usr/bin/cap-tool",
			"mv /usr/bin/cap-tool /usr/bin/cap2", "rm -rf /home/app /srv", "chmod 0 /opt/secret", "cp -a /opt /opt3")
	}
	c := fmt.Sprintf(m.pick(list)+"%[6]s", p, q, m.IntN(4), m.pick([]string{"700", "4755", "1777", "a+rwx", "2750", "0"}), m.pick([]string{"1:2", "1000", "0:7", "4000:5", "65000"}), "")
	if m.chance(3) {
		return c // which may fail the step
	}
	return "{ " + c + "; } 2>/dev/null || true"
}
