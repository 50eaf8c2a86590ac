package fuzz

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"kaniko-build/test/image"
	"kaniko-build/test/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }

// replayed are the seeds that every test run builds.
const replayed = 50

// batch is how many seeds share their states.
const batch = 25

// TestRandomDockerfiles builds the cases of many seeds. Environment:
//
//	SEEDS=7 or 100-200         these seeds, instead of the first 50
//	KANIKO_BUILD_FUZZ_TIME=1h  go on with new seeds until then
//	BUILDCTL="buildctl …"      compare with BuildKit too; its daemon takes docker.io
//	                           from REGISTRY (default 127.0.0.1:5000)
func TestRandomDockerfiles(t *testing.T) {
	rig.NeedRoot(t)
	from, to := uint64(1), uint64(replayed)
	if s := os.Getenv("SEEDS"); s != "" {
		from, to = span(t, s)
	}
	var until time.Time
	if s := os.Getenv("KANIKO_BUILD_FUZZ_TIME"); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil {
			t.Fatal(err)
		}
		until = time.Now().Add(d)
		if os.Getenv("SEEDS") == "" {
			from = uint64(time.Now().Unix()) // new ones each time
		}
		to = from + 1<<40
	}
	l := newLab(t)
	count := 0
	for first := from; first <= to; first += batch {
		last := min(first+batch-1, to)
		count += int(last - first + 1)
		l.batch(t, first, last)
		if !until.IsZero() && time.Now().After(until) {
			break
		}
	}
	rig.Report(t, "random Dockerfiles: %d seeds from %d, %d of them build", count, from, l.built)
}

func span(t *testing.T, s string) (from, to uint64) {
	t.Helper()
	a, b, many := strings.Cut(s, "-")
	from, err := strconv.ParseUint(a, 10, 64)
	to = from
	if err == nil && many {
		to, err = strconv.ParseUint(b, 10, 64)
	}
	if err != nil || to < from {
		t.Fatalf("SEEDS=%s: want a number, or two with a dash", s)
	}
	return from, to
}

// lab builds.
type lab struct {
	account  *rig.Account
	binary   string
	registry *rig.Registry
	buildctl []string
	built    int
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{account: rig.NewAccount(t, rig.Superuser), binary: rig.Binary(t), registry: rig.StartRegistry(t), buildctl: strings.Fields(os.Getenv("BUILDCTL"))}
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
			}
			agree(t, "warm", cold[s], warm[s], image.DiffOptions{Layers: true, History: true})
			agree(t, "in another order", cold[s], back[s], image.DiffOptions{Layers: true, History: true})
			if len(l.buildctl) > 0 {
				agree(t, "BuildKit", l.buildkit(t, dir, s), cold[s], image.DiffOptions{Layers: true, History: true})
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

// write lays a case out; symlinks are what rig.Write cannot make.
func (l *lab) write(t *testing.T, dir string, seed uint64) {
	t.Helper()
	c := Make(seed)
	work := filepath.Join(dir, fmt.Sprint(seed))
	c.Files["Dockerfile"] = c.Dockerfile
	rig.Write(t, work, c.Files)
	if err := os.Symlink("dir", filepath.Join(work, "lnk")); err != nil {
		t.Fatal(err)
	}
	rig.Write(t, work, map[string]string{"f": c.Files["f"]}) // the directory's time again
	if err := os.Chtimes(work, rig.Epoch, rig.Epoch); err != nil {
		t.Fatal(err)
	}
}

func (l *lab) build(t *testing.T, dir, state string, seed uint64) result {
	t.Helper()
	out := filepath.Join(dir, "out.tar")
	argv := []string{l.binary, "build", "--progress", "plain", "--registry-mirror", "docker.io=" + l.registry.Addr, "-o", "type=oci,dest=" + out}
	for _, a := range Make(seed).Args {
		argv = append(argv, "--build-arg", a)
	}
	o := l.account.Run(t, rig.Call{Dir: dir, Env: []string{"KANIKO_BUILD_STATE=" + filepath.Join(dir, state)}}, append(argv, filepath.Join(dir, fmt.Sprint(seed)))...)
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
// client sent and brings it up to date, which spoils times, so that is pruned.
// It would pull what a syntax line names, so it gets a Dockerfile without one.
func (l *lab) buildkit(t *testing.T, dir string, seed uint64) result {
	t.Helper()
	work, out := filepath.Join(dir, fmt.Sprint(seed)), filepath.Join(dir, "buildkit.tar")
	files := filepath.Join(dir, "dockerfiles", fmt.Sprint(seed))
	rig.Write(t, files, map[string]string{"Dockerfile": strings.TrimPrefix(Make(seed).Dockerfile, syntax)})
	bin, args := l.buildctl[0], l.buildctl[1:]
	prune := append(append([]string{}, args...), "prune", "--filter", "type==source.local")
	if text, err := exec.CommandContext(t.Context(), bin, prune...).CombinedOutput(); err != nil {
		t.Fatalf("buildctl prune: %v\n%s", err, text)
	}
	argv := append(append([]string{}, args...), "build", "--progress=plain", "--no-cache", "--frontend", "dockerfile.v0",
		"--output", "type=oci,dest="+out, "--local", "context="+work, "--local", "dockerfile="+files)
	for _, a := range Make(seed).Args {
		argv = append(argv, "--opt", "build-arg:"+a)
	}
	text, err := exec.CommandContext(t.Context(), bin, argv...).CombinedOutput()
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	tail := strings.Join(lines[max(0, len(lines)-8):], "\n")
	if err != nil {
		return result{output: tail}
	}
	return described(t, out, tail)
}

// TestCasesAreTheSameEveryTime: a seed is a case for good.
func TestCasesAreTheSameEveryTime(t *testing.T) {
	for seed := range uint64(200) {
		a, b := Make(seed), Make(seed)
		if a.Dockerfile != b.Dockerfile || fmt.Sprint(a.Files, a.Args) != fmt.Sprint(b.Files, b.Args) {
			t.Fatalf("seed %d makes two cases", seed)
		}
	}
}
