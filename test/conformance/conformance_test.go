package conformance

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"kaniko-build/test/conformance/corpus"
	"kaniko-build/test/image"
	"kaniko-build/test/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }

// limits are how many exceptions a rung may have.
var limits = map[rig.Kind]int{rig.Superuser: 0, rig.Subuid: 12, rig.Single: 12, inPlace: 12, walk: 12}

// exception is a case that a rung cannot do.
type exception struct {
	Rungs  []rig.Kind `yaml:"rungs"`
	Case   string     `yaml:"case"`
	Reason string     `yaml:"reason"`
}

func TestConformance(t *testing.T) {
	rig.NeedRoot(t)
	all, err := corpus.LoadAll("cases")
	if err != nil {
		t.Fatal(err)
	}
	s := newSuite(t)
	exceptions := loadExceptions(t, all)
	for _, kind := range rig.Kinds {
		t.Run(string(kind), func(t *testing.T) {
			r := s.rung(t, kind, exceptions[kind])
			for _, c := range all {
				t.Run(c.Name, func(t *testing.T) {
					t.Parallel()
					r.try(t, c)
				})
			}
		})
	}
}

// TestExceptionsAreReviewed keeps the table honest when no case is run.
func TestExceptionsAreReviewed(t *testing.T) {
	all, err := corpus.LoadAll("cases")
	if err != nil {
		t.Fatal(err)
	}
	for kind, list := range loadExceptions(t, all) {
		if n, most := len(list), limits[kind]; n > most {
			t.Errorf("rung %s has %d exceptions, more than %d", kind, n, most)
		}
	}
}

// TestGoldensAreWhole reads every golden, and checks that a case that is
// expected to build has one.
func TestGoldensAreWhole(t *testing.T) {
	all, err := corpus.LoadAll("cases")
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 262 {
		t.Errorf("%d cases, want 262 at least", len(all))
	}
	for _, c := range all {
		d, err := image.ReadDump(filepath.Join(c.Dir, "golden.json"))
		if (err == nil) != (c.Expect == "ok") {
			t.Errorf("%s: expect is %s, but its golden: %v", c.Name, c.Expect, err)
		}
		if err == nil {
			if diff := image.Diff(d, d, everything); len(diff) > 0 {
				t.Errorf("%s: differs from itself: %q", c.Name, diff)
			}
		}
	}
}

var everything = image.DiffOptions{Layers: true, History: true, Created: true}

func loadExceptions(t *testing.T, all []*corpus.Case) map[rig.Kind]map[string]string {
	t.Helper()
	b, err := os.ReadFile("exceptions.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var list []exception
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	if err := dec.Decode(&list); err != nil && err != io.EOF {
		t.Fatalf("exceptions.yaml: %v", err)
	}
	out := map[rig.Kind]map[string]string{}
	for _, e := range list {
		if !slices.ContainsFunc(all, func(c *corpus.Case) bool { return c.Name == e.Case }) {
			t.Errorf("exceptions.yaml: no case %q", e.Case)
		}
		if e.Reason == "" {
			t.Errorf("exceptions.yaml: %s has no reason", e.Case)
		}
		for _, k := range e.Rungs {
			if !slices.Contains(rig.Kinds, k) && k != inPlace && k != walk {
				t.Errorf("exceptions.yaml: %s: no rung %q", e.Case, k)
			}
			if out[k] == nil {
				out[k] = map[string]string{}
			}
			out[k][e.Case] = e.Reason
		}
	}
	return out
}

// suite is what all rungs share.
type suite struct {
	binary   string
	registry *rig.Registry
	www      *corpus.Server
	known    [][]string          // chains of diff IDs of the base images
	blobs    map[string][]string // such a chain, joined -> digests of its blobs, one list per image that has it
}

func newSuite(t *testing.T) *suite {
	t.Helper()
	for program, pkg := range map[string]string{
		"git": "git", "python3": "python3", "xz": "xz-utils", "zstd": "zstd", "bzip2": "bzip2", "ssh-keygen": "openssh-client",
	} {
		rig.Need(t, program, pkg)
	}
	s := &suite{binary: rig.Binary(t), registry: rig.StartRegistry(t), blobs: map[string][]string{}}
	s.registry.Push(t, "images")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var err error
	if s.www, err = corpus.Serve(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.www.Close() })
	if s.known, err = image.Chains("images"); err != nil {
		t.Fatal(err)
	}
	refs, err := image.LayoutRefs("images")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range refs {
		for _, platform := range []string{"linux/amd64", "linux/arm64"} {
			img, err := image.Open("images#"+r, platform)
			if err != nil {
				continue
			}
			digests, ids, err := image.LayerDigests(img)
			img.Close()
			if err != nil {
				t.Fatal(err)
			}
			k := strings.Join(ids, " ")
			s.blobs[k] = append(s.blobs[k], strings.Join(digests, " "))
		}
	}
	return s
}

// rung builds the cases from one account, with one state directory.
type rung struct {
	*suite
	kind       rig.Kind
	account    *rig.Account
	state      string
	exceptions map[string]string

	// Of rung inplace: the container that builds, and the directory that both
	// sides see, there as boxShared.
	box    *rig.Running
	shared string

	mu                     sync.Mutex
	passed, failed, exempt int
	cold, warm             time.Duration
}

func (s *suite) rung(t *testing.T, kind rig.Kind, exceptions map[string]string) *rung {
	t.Helper()
	r := s.newRung(t, kind, exceptions)
	r.account = rig.NewAccount(t, kind)
	r.state = filepath.Join(rig.Space(t, r.account), "state")
	return r
}

func (s *suite) newRung(t *testing.T, kind rig.Kind, exceptions map[string]string) *rung {
	t.Helper()
	r := &rung{suite: s, kind: kind, exceptions: exceptions}
	t.Cleanup(func() {
		rig.Report(t, "conformance, rung %s: %d cases passed, %d failed, %d exceptions; builds took %.0f s cold, %.0f s warm",
			kind, r.passed, r.failed, r.exempt, r.cold.Seconds(), r.warm.Seconds())
	})
	return r
}

// space is a new directory that the builder sees, too.
func (r *rung) space(t *testing.T) string {
	t.Helper()
	if r.box == nil {
		return rig.Space(t, nil)
	}
	dir, err := os.MkdirTemp(r.shared, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (r *rung) run(t *testing.T, c rig.Call, argv ...string) rig.Output {
	t.Helper()
	if r.box != nil {
		return r.runInBox(t, c, argv...)
	}
	return r.account.Run(t, c, argv...)
}

// try runs one case and judges it by the table of exceptions.
func (r *rung) try(t *testing.T, c *corpus.Case) {
	wrong, text := r.check(t, c)
	reason, excused := r.exceptions[c.Name]
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case excused && len(wrong) == 0:
		r.failed++
		t.Errorf("passes: take it out of exceptions.yaml (it says: %s)", reason)
	case excused:
		r.exempt++
		t.Logf("exception: %s (%s)", reason, strings.Join(wrong, "; "))
	case len(wrong) > 0:
		r.failed++
		t.Errorf("%s\n  %s", c.Description, strings.Join(wrong, "\n  "))
		if c.Note != "" {
			t.Log("note:", c.Note)
		}
		t.Log(text)
	default:
		r.passed++
	}
}

// check builds a case cold and warm and tells what is wrong, with the end of
// the output that belongs to it.
func (r *rung) check(t *testing.T, c *corpus.Case) (wrong []string, text string) {
	dir := r.space(t)
	p, err := c.Prepare(filepath.Join(dir, "case"))
	if err != nil {
		t.Fatal(err)
	}
	if www, ok := p.HasWWW(); ok {
		r.www.Offer(c.Name, www)
	}
	if r.account.UID != 0 {
		rig.Give(t, dir, r.account)
	}
	var first *image.Dump
	for _, pass := range []string{"cold", "warm"} {
		out := filepath.Join(dir, pass+".tar")
		o := r.build(t, p, out)
		r.mu.Lock()
		if pass == "cold" {
			r.cold += o.Took
		} else {
			r.warm += o.Took
		}
		r.mu.Unlock()
		found, dump := r.judge(c, o, out)
		if first != nil && dump != nil {
			for _, d := range image.Diff(first, dump, image.DiffOptions{Layers: true, History: true}) {
				found = append(found, "warm is not cold: "+d)
			}
			if !slices.Equal(first.DiffIDs, dump.DiffIDs) {
				found = append(found, fmt.Sprintf("warm is not cold: layers were made again: %v, not %v", dump.DiffIDs, first.DiffIDs))
			}
		}
		first = dump
		for _, f := range found {
			wrong = append(wrong, pass+": "+f)
		}
		if len(found) > 0 {
			return wrong, o.Tail(25)
		}
	}
	return nil, ""
}

func (r *rung) build(t *testing.T, p *corpus.Case, out string) rig.Output {
	output := "type=oci,dest=" + out
	if p.Rewrite {
		output += ",rewrite-timestamp=true"
	}
	argv := []string{r.binary, "build", "--progress", "plain", "-o", output,
		"--registry-mirror", "docker.io=" + r.registry.Addr, "-f", filepath.Join(p.Dir, p.Dockerfile)}
	env := []string{"KANIKO_BUILD_STATE=" + r.state, "TMPDIR=" + filepath.Dir(p.Dir)}
	flag := func(name, value string) {
		if value != "" {
			argv = append(argv, name, value)
		}
	}
	flag("--target", p.Target)
	flag("--platform", p.Platform)
	for _, k := range keys(p.BuildArgs) {
		flag("--build-arg", k+"="+p.BuildArgs[k])
	}
	for _, k := range keys(p.Labels) {
		flag("--label", k+"="+p.Labels[k])
	}
	for i, s := range p.Secrets {
		if s.File != "" {
			flag("--secret", "id="+s.ID+",src="+filepath.Join(p.Dir, s.File))
			continue
		}
		name := fmt.Sprintf("CASE_SECRET_%d", i)
		env = append(env, name+"="+s.Value)
		flag("--secret", "id="+s.ID+",env="+name)
	}
	for _, s := range p.SSH {
		flag("--ssh", s.ID+"="+filepath.Join(p.Dir, s.Key))
	}
	for _, k := range keys(p.NamedContexts) {
		kind, arg, _ := strings.Cut(p.NamedContexts[k], ":")
		if kind == "image" {
			flag("--build-context", k+"=docker-image://"+arg)
		} else {
			flag("--build-context", k+"="+filepath.Join(p.Dir, arg))
		}
	}
	for _, k := range keys(p.Env) {
		env = append(env, k+"="+p.Env[k])
	}
	argv = append(argv, filepath.Join(p.Dir, "context"))
	return r.run(t, rig.Call{Dir: p.Dir, Env: env, Timeout: 3 * time.Minute}, argv...)
}

func keys(m map[string]string) []string {
	var ks []string
	for k := range m {
		ks = append(ks, k)
	}
	slices.Sort(ks)
	return ks
}

// judge compares what a build did with what the case asks.
func (r *rung) judge(c *corpus.Case, o rig.Output, out string) (wrong []string, d *image.Dump) {
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	for _, word := range []string{"panic:", "goroutine ", "internal error"} {
		if strings.Contains(o.Stderr, word) {
			say("the program broke: it says %q", word)
		}
	}
	if c.Expect == "error" {
		if o.Code == 0 {
			say("it builds, but an error is expected")
		}
		if o.Code < 0 {
			say("it was killed")
		}
		for _, w := range c.Errors {
			if !slices.ContainsFunc(strings.Split(w, "|"), func(s string) bool { return strings.Contains(o.All(), s) }) {
				say("the message does not hold %q", w)
			}
		}
		if c.ErrorAt != "" && !regexp.MustCompile(regexp.QuoteMeta(c.ErrorAt)+`(\D|$)`).MatchString(o.All()) {
			say("the message does not name %s", c.ErrorAt)
		}
		if _, err := os.Stat(out); err == nil {
			say("a failed build left an output")
		}
		return wrong, nil
	}
	if o.Code != 0 {
		say("exit code %d", o.Code)
		return wrong, nil
	}
	img, err := image.Open(out, c.Platform)
	if err != nil {
		say("open the image: %v", err)
		return wrong, nil
	}
	defer img.Close()
	if err := image.Validate(img); err != nil {
		say("go-containerregistry: %v", err)
	}
	want, err := image.ReadDump(filepath.Join(c.Dir, "golden.json"))
	if err != nil {
		say("read the golden: %v", err)
		return wrong, nil
	}
	d, err = image.Describe(img, r.known, -1)
	if err != nil {
		say("describe the image: %v", err)
		return wrong, nil
	}
	wrong = append(wrong, image.Diff(want, d, image.DiffOptions{
		MTime: c.MTime, Created: c.Created == "check", History: c.History == "check", Layers: c.Layers == "check",
	})...)
	wrong = append(wrong, r.sameBase(img, want, c.Rewrite)...)
	return wrong, d
}

// sameBase checks that the blobs of the base are passed on byte for byte. A
// build that rewrites times may have touched them.
func (r *rung) sameBase(img *image.Opened, want *image.Dump, rewritten bool) []string {
	n := len(want.BaseDiffIDs)
	if n == 0 || rewritten {
		return nil
	}
	digests, _, err := image.LayerDigests(img)
	if err != nil {
		return []string{err.Error()}
	}
	got := strings.Join(digests[:min(n, len(digests))], " ")
	if !slices.Contains(r.blobs[strings.Join(want.BaseDiffIDs, " ")], got) {
		return []string{fmt.Sprintf("the base's layers are not passed on as they were: %s", got)}
	}
	return nil
}
