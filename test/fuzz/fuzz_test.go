package fuzz

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"kaniko-build/test/image"
	"kaniko-build/test/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }

// replayed is how many seeds every test run builds, half of each grammar.
const replayed = 50

// patience is how long a build may take. Some cannot end, as when a RUN of the
// narrow grammar writes to a fifo that nobody reads; BuildKit would wait for ever.
const patience = 90 * time.Second

// batch is how many seeds share their states.
const batch = 25

// TestRandomDockerfiles builds the cases of many seeds. Environment:
//
//	SEEDS=7 or 100-200         these seeds, instead of the first 25 of each grammar
//	KANIKO_BUILD_FUZZ_TIME=1h  go on with new seeds until then
//	BUILDCTL="buildctl …"      compare with BuildKit too; its daemon takes docker.io
//	                           from REGISTRY (default 127.0.0.1:5000)
func TestRandomDockerfiles(t *testing.T) {
	rig.NeedRoot(t)
	spans := []span{{1, replayed / 2}, {firstWide + 1, firstWide + replayed/2}}
	if s := os.Getenv("SEEDS"); s != "" {
		spans = []span{parseSpan(t, s)}
	}
	var until time.Time
	if s := os.Getenv("KANIKO_BUILD_FUZZ_TIME"); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil {
			t.Fatal(err)
		}
		until = time.Now().Add(d)
		from := spans[0].from
		if os.Getenv("SEEDS") == "" {
			from = uint64(time.Now().Unix()) // new ones each time
		}
		spans = []span{{from, from + 1<<40}}
	}
	l := newLab(t)
	count := 0
	for _, s := range spans {
		for first := s.from; first <= s.to; first += batch {
			last := min(first+batch-1, s.to)
			count += int(last - first + 1)
			l.batch(t, first, last)
			if !until.IsZero() && time.Now().After(until) {
				break
			}
		}
	}
	rig.Report(t, "random Dockerfiles: %d seeds from %d, %d of them build", count, spans[0].from, l.built)
}

// span is a row of seeds, both ends included.
type span struct{ from, to uint64 }

func parseSpan(t *testing.T, s string) span {
	t.Helper()
	a, b, many := strings.Cut(s, "-")
	from, err := strconv.ParseUint(a, 10, 64)
	to := from
	if err == nil && many {
		to, err = strconv.ParseUint(b, 10, 64)
	}
	if err != nil || to < from {
		t.Fatalf("SEEDS=%s: want a number, or two with a dash", s)
	}
	return span{from, to}
}

// lab builds.
type lab struct {
	account  *rig.Account
	binary   string
	registry *rig.Registry
	buildctl []string
	www      string // the server's address
	key      string // file of a private key, for an agent
	built    int
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{account: rig.NewAccount(t, rig.Superuser), binary: rig.Binary(t), registry: rig.StartRegistry(t), buildctl: strings.Fields(os.Getenv("BUILDCTL")), www: serve(t)}
	l.key = filepath.Join(rig.Space(t, nil), "key")
	if out, err := exec.CommandContext(t.Context(), rig.Need(t, "ssh-keygen", "openssh-client"), "-q", "-t", "ed25519", "-N", "", "-f", l.key).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	images := filepath.Join(rig.Root(t), "test", "conformance", "images")
	l.registry.Push(t, images)
	if len(l.buildctl) > 0 {
		to := os.Getenv("REGISTRY")
		if to == "" {
			to = "127.0.0.1:5000"
		}
		if _, err := image.Push(t.Context(), images, to); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// result is an image, or the reason why there is none.
type result struct {
	dump   *image.Dump
	output string
}

var placed = regexp.MustCompile(`(?m)^.*Dockerfile:\d+:\d+: (.*)$`)

// reason is the first line that names a place and is no warning.
func (r result) reason() string {
	for _, m := range placed.FindAllStringSubmatch(r.output, -1) {
		return m[1]
	}
	return r.output
}

// batch builds seeds with one state, each twice, and then with another state
// from the last to the first.
func (l *lab) batch(t *testing.T, first, last uint64) {
	dir := rig.Space(t, l.account)
	defer os.RemoveAll(dir)
	cold, warm, back := map[uint64]result{}, map[uint64]result{}, map[uint64]result{}
	for s := first; s <= last; s++ {
		l.write(t, dir, s)
		cold[s] = l.build(t, dir, "state", s)
		warm[s] = l.build(t, dir, "state", s)
	}
	for s := last; s >= first && s <= last; s-- {
		back[s] = l.build(t, dir, "reversed", s)
	}
	for s := first; s <= last; s++ {
		t.Run(fmt.Sprintf("seed%d", s), func(t *testing.T) {
			if cold[s].dump != nil {
				l.built++
			} else {
				t.Logf("does not build: %s", cold[s].reason())
			}
			agree(t, "warm", cold[s], warm[s], image.DiffOptions{Layers: true, History: true})
			agree(t, "in another order", cold[s], back[s], image.DiffOptions{Layers: true, History: true})
			if len(l.buildctl) > 0 {
				theirs := l.buildkit(t, dir, s)
				if why := fault(theirs, cold[s]); why != "" {
					t.Logf("BuildKit's fault: %s", why)
				} else {
					agree(t, "BuildKit", theirs, cold[s], image.DiffOptions{Layers: true, History: true})
				}
			}
			if t.Failed() {
				t.Logf("SEEDS=%d make fuzz-dockerfile builds this again:\n%s\nargs: %q\n%s", s, Make(s).Dockerfile, Make(s).Args, cold[s].output)
			}
		})
	}
}

func agree(t *testing.T, what string, want, got result, o image.DiffOptions) {
	t.Helper()
	switch {
	case want.dump == nil && got.dump == nil:
		return
	case want.dump == nil || got.dump == nil:
		t.Errorf("%s: one builds, the other does not:\n%s\n--\n%s", what, want.output, got.output)
	default:
		for _, d := range image.Diff(want.dump, got.dump, o) {
			t.Errorf("%s: %s", what, d)
		}
	}
}

// faults are what BuildKit does by mistake and we do not; see the package's
// words. Each tells how the output of the build that failed looks.
var faults = []struct {
	theirs bool // BuildKit's build failed, ours did not; else the other way round
	says   *regexp.Regexp
	why    string
}{
	{true, regexp.MustCompile(`failed to solve: lstat /(dir|special|nested|tree|many): no such file or directory`), "it did not send the directory of a wildcard that matches nothing"},
	{true, regexp.MustCompile(`(?s)>>> .*--exclude=.*"/(abs|dangling)": not found`), "--exclude makes it follow dangling links beside what it copies"},
	{false, regexp.MustCompile(`COPY .*--parents.* --from=.*\n.*not found`), "it requires nothing of the stage that the copy goes to"},
}

// fault tells which fault of BuildKit's explains that only one of the two builds.
func fault(theirs, ours result) string {
	for _, f := range faults {
		failed, built := ours, theirs
		if f.theirs {
			failed, built = theirs, ours
		}
		if failed.dump == nil && built.dump != nil && f.says.MatchString(failed.output) {
			return f.why
		}
	}
	return ""
}

// write lays a case out: the context, "other" for a named one, the Dockerfile
// beside them.
func (l *lab) write(t *testing.T, dir string, seed uint64) {
	t.Helper()
	c := Make(seed)
	work := filepath.Join(dir, fmt.Sprint(seed))
	lay(t, filepath.Join(work, "context"), c.Files, c.Nodes)
	lay(t, filepath.Join(work, "other"), c.Other, []Node{{Path: "lnk", Kind: "symlink", Arg: "sub"}})
	text := strings.ReplaceAll(c.Dockerfile, wwwHost, l.www)
	rig.Write(t, work, map[string]string{"context/Dockerfile": text, "secret": "secret\n"})
	settle(t, work)
	lay(t, filepath.Join(work, "context"), nil, times(c.Nodes))
	// BuildKit would pull what a syntax line names, so it gets none.
	bk := strings.Replace(strings.Replace(text, syntax, "", 1), strings.ReplaceAll(syntax, "\n", "\r\n"), "", 1)
	rig.Write(t, work, map[string]string{"buildkit/Dockerfile": bk})
	if own, ok := c.Files["Dockerfile.dockerignore"]; ok {
		rig.Write(t, work, map[string]string{"buildkit/Dockerfile.dockerignore": own})
	}
}

func (l *lab) build(t *testing.T, dir, state string, seed uint64) result {
	t.Helper()
	c, work, out := Make(seed), filepath.Join(dir, fmt.Sprint(seed)), filepath.Join(dir, "out.tar")
	argv := []string{l.binary, "build", "--progress", "plain", "--registry-mirror", "docker.io=" + l.registry.Addr, "-o", "type=oci,dest=" + out}
	flag := func(name, value string) { argv = append(argv, name, value) }
	for _, a := range c.Args {
		flag("--build-arg", a)
	}
	for _, a := range c.Labels {
		flag("--label", a)
	}
	if c.Target != "" {
		flag("--target", c.Target)
	}
	for name, what := range c.Contexts {
		if ref, ok := strings.CutPrefix(what, "image:"); ok {
			flag("--build-context", name+"=docker-image://"+ref)
			continue
		}
		flag("--build-context", name+"="+filepath.Join(work, "other"))
	}
	if c.Secret {
		flag("--secret", "id=s,src="+filepath.Join(work, "secret"))
	}
	if c.SSH {
		flag("--ssh", "default="+l.key)
	}
	o := l.account.Run(t, rig.Call{Dir: dir, Timeout: patience, Env: []string{"KANIKO_BUILD_STATE=" + filepath.Join(dir, state)}}, append(argv, filepath.Join(work, "context"))...)
	for _, word := range []string{"panic:", "internal error"} {
		if strings.Contains(o.All(), word) {
			t.Errorf("seed %d: the program broke:\n%s", seed, o.Tail(30))
		}
	}
	if o.Code != 0 {
		return result{output: o.Tail(8)}
	}
	return described(t, out, o.Tail(8))
}

func described(t *testing.T, out, text string) result {
	t.Helper()
	defer os.Remove(out)
	img, err := image.Open(out, "")
	if err != nil {
		t.Error(err)
		return result{output: text}
	}
	defer img.Close()
	d, err := image.Describe(img, nil, 0)
	if err != nil {
		t.Error(err)
		return result{output: text}
	}
	return result{d, text}
}

// buildkit builds the case of a seed with BuildKit. Its daemon keeps what a
// client sent and brings it up to date, which spoils times, so that is pruned;
// caches of an earlier run too.
func (l *lab) buildkit(t *testing.T, dir string, seed uint64) result {
	t.Helper()
	c, work, out := Make(seed), filepath.Join(dir, fmt.Sprint(seed)), filepath.Join(dir, "buildkit.tar")
	bin, args := l.buildctl[0], l.buildctl[1:]
	for _, kind := range []string{"source.local", "exec.cachemount"} {
		prune := append(append([]string{}, args...), "prune", "--filter", "type=="+kind)
		if text, err := exec.CommandContext(t.Context(), bin, prune...).CombinedOutput(); err != nil {
			t.Fatalf("buildctl prune: %v\n%s", err, text)
		}
	}
	argv := append(append([]string{}, args...), "build", "--progress=plain", "--no-cache", "--frontend", "dockerfile.v0", "--output", "type=oci,dest="+out)
	flag := func(name, value string) { argv = append(argv, name, value) }
	flag("--local", "context="+filepath.Join(work, "context"))
	flag("--local", "dockerfile="+filepath.Join(work, "buildkit"))
	for _, a := range c.Args {
		flag("--opt", "build-arg:"+a)
	}
	for _, a := range c.Labels {
		flag("--opt", "label:"+a)
	}
	if c.Target != "" {
		flag("--opt", "target="+c.Target)
	}
	for name, what := range c.Contexts {
		if ref, ok := strings.CutPrefix(what, "image:"); ok {
			flag("--opt", "context:"+name+"=docker-image://"+ref)
			continue
		}
		flag("--local", "named-"+name+"="+filepath.Join(work, "other"))
		flag("--opt", "context:"+name+"=local:named-"+name)
	}
	if c.Secret {
		flag("--secret", "id=s,src="+filepath.Join(work, "secret"))
	}
	if c.SSH {
		flag("--ssh", "default="+l.key)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	text, err := exec.CommandContext(ctx, bin, argv...).CombinedOutput()
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	tail := strings.Join(lines[max(0, len(lines)-8):], "\n")
	if err != nil {
		return result{output: tail}
	}
	return described(t, out, tail)
}

// TestCasesAreTheSameEveryTime: a seed is a case for good.
func TestCasesAreTheSameEveryTime(t *testing.T) {
	for i := range uint64(400) {
		seed := i%200 + i/200*firstWide
		a, b := Make(seed), Make(seed)
		if fmt.Sprint(a) != fmt.Sprint(b) {
			t.Fatalf("seed %d makes two cases", seed)
		}
	}
}
