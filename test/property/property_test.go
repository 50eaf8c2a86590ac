package property

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"kaniko-build/test/image"
	"kaniko-build/test/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }

// perRepo is how many rounds one monorepo, and its store, live.
const perRepo = 15

// TestRandomEdits edits monorepos and builds each state warm and cold.
// Environment:
//
//	SEED=7      the first monorepo's seed (1); the next has the next
//	ROUNDS=500  how many edits (30), 15 for each monorepo
func TestRandomEdits(t *testing.T) {
	rig.NeedRoot(t)
	seed, rounds := number(t, "SEED", 1), number(t, "ROUNDS", 30)
	l := newLab(t)
	total := rounds
	for ; rounds > 0; rounds -= perRepo {
		t.Run(fmt.Sprintf("seed%d", seed), func(t *testing.T) { l.repo(t, uint64(seed), min(rounds, perRepo)) })
		seed++
	}
	rig.Report(t, "random edits: %d rounds, %d steps built cold, %d of them warm", total, l.cold, l.warm)
}

func number(t *testing.T, env string, otherwise int) int {
	t.Helper()
	s := os.Getenv(env)
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		t.Fatalf("%s=%s: want a number from 1", env, s)
	}
	return n
}

// lab has what all monorepos share.
type lab struct {
	account    *rig.Account
	binary     string
	registry   *rig.Registry
	busybox    v1.Image
	cold, warm int // steps executed
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{account: rig.NewAccount(t, rig.Superuser), binary: rig.Binary(t), registry: rig.StartRegistry(t)}
	img, err := image.Open(filepath.Join(rig.Root(t), "test", "conformance", "images")+"#busybox", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(img.Close)
	l.busybox = img.Image
	return l
}

// push makes the tag of the base stand for b.
func (l *lab) push(t *testing.T, ref string, b Base) {
	t.Helper()
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	text := fmt.Sprintln("version", b.Content)
	err := w.WriteHeader(&tar.Header{Name: "etc/base", Mode: 0o644, Size: int64(len(text)), ModTime: rig.Epoch})
	_, err2 := io.WriteString(w, text)
	err = errors.Join(err, err2, w.Close())
	var img v1.Image
	if err == nil {
		var one v1.Layer
		if one, err = tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer.Bytes())), nil }); err == nil {
			img, err = mutate.AppendLayers(l.busybox, one)
		}
	}
	if err == nil {
		var cf *v1.ConfigFile
		if cf, err = img.ConfigFile(); err == nil {
			cf = cf.DeepCopy()
			cf.Config.Labels = map[string]string{"version": fmt.Sprint(b.Label)}
			img, err = mutate.ConfigFile(img, cf)
		}
	}
	if err == nil {
		var to name.Reference
		if to, err = name.ParseReference(ref, name.Insecure); err == nil {
			err = remote.Write(to, img, remote.WithContext(t.Context()))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// repo is the life of one monorepo.
func (l *lab) repo(t *testing.T, seed uint64, rounds int) {
	rnd := rand.New(rand.NewPCG(seed, 2))
	r := Make(rnd)
	space := rig.Space(t, l.account)
	w := &workspace{lab: l, dir: filepath.Join(space, "repo"), base: fmt.Sprintf("%s/base%d:tag", l.registry.Addr, seed)}
	warm := filepath.Join(space, "warm")
	seen := map[string]At{} // keys of steps that ran in the warm store
	var history []string
	for round := 1; round <= rounds; round++ {
		var did []string
		if round > 1 { // the first is the monorepo as it was made
			for range 1 + rnd.IntN(3) {
				did = append(did, r.Edit(rnd))
			}
			if rnd.IntN(8) == 0 { // what a prune takes: what is not in an image has to run again
				if err := os.RemoveAll(filepath.Join(warm, "layers")); err != nil {
					t.Fatal(err)
				}
				clear(seen)
				did = append(did, "forget the unpacked layers")
			}
		}
		history = append(history, fmt.Sprintf("  %d: %s", round, strings.Join(did, "; ")))
		w.write(t, r, did)
		keys, err := r.Keys()
		if err != nil {
			t.Fatal(err)
		}
		jobs := fmt.Sprint(1 + rnd.IntN(4))
		got := w.apply(t, warm, "-j", jobs)
		fresh := filepath.Join(space, "cold")
		want := w.apply(t, fresh, "-j", "2")
		l.cold, l.warm = l.cold+len(want.ran), l.warm+len(got.ran)
		if got.code != want.code || !maps.Equal(got.digests, want.digests) {
			t.Errorf("warm %d %v\ncold %d %v\n%s", got.code, got.digests, want.code, want.digests, w.differences(t, warm, fresh, got, want))
			t.Logf("warm: %s\ncold: %s", got.text, want.text)
		}
		now := map[string]At{}
		for _, at := range got.ran {
			k, ok := keys[at]
			if !ok {
				t.Errorf("%v ran, which is no step", at)
			}
			if old, ok := seen[k]; ok {
				t.Errorf("needless: %v ran, as %v did with all the same", at, old)
			}
			if other, ok := now[k]; ok {
				t.Errorf("twice: %v ran, and %v in the same run", at, other)
			}
			now[k] = at
		}
		maps.Copy(seen, now)
		if round%5 == 0 && got.code == 0 {
			w.plain(t, r, rnd, warm, fresh)
		}
		if err := os.RemoveAll(fresh); err != nil {
			t.Fatal(err)
		}
		if t.Failed() {
			t.Fatalf("round %d of seed %d:\n%s\nagain: make property SEED=%d ROUNDS=%d\n%s", round, seed, strings.Join(history, "\n"), seed, round, w.dockerfiles(r))
		}
	}
}

// workspace is a monorepo on disk.
type workspace struct {
	*lab
	dir  string
	base string
	was  map[string]File
	put  Base
	made bool // the base was pushed
}

// write brings the disk to what r is, and touches only what changed, and what
// an edit says it touches.
func (w *workspace) write(t *testing.T, r *Repo, did []string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	if !w.made || w.put != r.Base {
		w.push(t, w.base, r.Base)
		w.made, w.put = true, r.Base
	}
	for _, n := range slices.Backward(slices.Sorted(maps.Keys(w.was))) {
		old, now := w.was[n], r.Files[n]
		if _, stays := r.Files[n]; !stays || kind(old) != kind(now) {
			must(os.RemoveAll(filepath.Join(w.dir, n)))
		}
	}
	for _, n := range slices.Sorted(maps.Keys(r.Files)) {
		p, f := filepath.Join(w.dir, n), r.Files[n]
		old, had := w.was[n]
		had = had && kind(old) == kind(f)
		must(os.MkdirAll(filepath.Dir(p), 0o755))
		switch {
		case f.Dir:
			must(os.MkdirAll(p, 0o755))
		case f.Link != "":
			if !had {
				must(os.Symlink(f.Link, p))
			}
			continue
		case had && f.Quiet && old.Text != f.Text:
			st, err := os.Stat(p)
			must(err)
			file, err := os.OpenFile(p, os.O_WRONLY, 0)
			must(err)
			_, err = file.WriteString(f.Text)
			must(errors.Join(err, file.Close(), os.Chtimes(p, st.ModTime(), st.ModTime())))
		case !had || old.Text != f.Text || slices.Contains(did, "touch "+n):
			must(os.WriteFile(p, []byte(f.Text), 0o644))
		}
		must(chmod(p, f.Mode))
	}
	w.was = maps.Clone(r.Files)
	texts := map[string]string{"kaniko-build.yaml": r.Manifest(w.registry.Addr), ".dockerignore": strings.Join(r.Ignore, "\n") + "\n"}
	for _, m := range r.Images {
		texts[m.Name+".Dockerfile"] = m.Dockerfile(w.base)
	}
	for n, text := range texts {
		must(os.WriteFile(filepath.Join(w.dir, n), []byte(text), 0o644))
	}
}

// chmod knows setuid and sticky as the numbers say.
func chmod(p string, mode uint32) error {
	m := os.FileMode(mode & 0o777)
	if mode&0o4000 != 0 {
		m |= os.ModeSetuid
	}
	if mode&0o1000 != 0 {
		m |= os.ModeSticky
	}
	return os.Chmod(p, m)
}

// outcome is what an apply did.
type outcome struct {
	code    int
	digests map[string]string // of images that were built
	ran     []At
	text    string
}

func (w *workspace) apply(t *testing.T, state string, flags ...string) outcome {
	t.Helper()
	meta := filepath.Join(filepath.Dir(w.dir), "meta.json")
	argv := append([]string{w.binary, "apply", "--keep-going", "--progress", "json", "--metadata-file", meta}, flags...)
	o := w.account.Run(t, rig.Call{Dir: w.dir, Env: []string{"KANIKO_BUILD_STATE=" + state}, Timeout: 10 * time.Minute}, argv...)
	out := outcome{code: o.Code, digests: map[string]string{}, text: o.Tail(15)}
	if strings.Contains(o.All(), "panic:") || strings.Contains(o.All(), "internal error") {
		t.Errorf("the program broke:\n%s", o.Tail(30))
	}
	for line := range strings.Lines(o.All()) {
		var e struct {
			Node, Kind, Stage string
			Step              int
		}
		if json.Unmarshal([]byte(line), &e) == nil && e.Kind == "step-done" {
			out.ran = append(out.ran, At{e.Node, e.Stage, e.Step})
		}
	}
	var targets map[string]struct {
		Digest string `json:"containerimage.digest"`
	}
	b, err := os.ReadFile(meta)
	if err != nil {
		return out // it did not get so far
	}
	if err := errors.Join(json.Unmarshal(b, &targets), os.Remove(meta)); err != nil {
		t.Fatal(err)
	}
	for n, one := range targets {
		if one.Digest != "" {
			out.digests[n] = one.Digest
		}
	}
	return out
}

// describe builds one image, which is known, into a file and reads it.
func (w *workspace) describe(t *testing.T, state, target string, flags ...string) *image.Dump {
	t.Helper()
	file := filepath.Join(filepath.Dir(w.dir), "out.tar")
	o := w.apply(t, state, append([]string{target, "-o", "type=oci,dest=" + file}, flags...)...)
	if o.code != 0 {
		t.Errorf("apply %s: exit code %d\n%s", target, o.code, o.text)
		return nil
	}
	img, err := image.Open(file, "")
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	d, err := image.Describe(img, nil, 0)
	if err := errors.Join(err, os.Remove(file)); err != nil {
		t.Fatal(err)
	}
	return d
}

// plain compares an image of both stores as it is without times set; nothing
// runs for that.
func (w *workspace) plain(t *testing.T, r *Repo, rnd *rand.Rand, warm, cold string) {
	t.Helper()
	target := pick(rnd, r.Images).Name
	a, b := w.describe(t, warm, target, "--var", "same=false"), w.describe(t, cold, target, "--var", "same=false")
	if a == nil || b == nil {
		return
	}
	for _, d := range image.Diff(b, a, image.DiffOptions{Layers: true, History: true, MTime: "ignore"}) {
		t.Errorf("%s with its own times: %s", target, d)
	}
}

// differences says how the images of two stores differ.
func (w *workspace) differences(t *testing.T, warm, cold string, got, want outcome) string {
	t.Helper()
	var b strings.Builder
	for _, n := range slices.Sorted(maps.Keys(want.digests)) {
		if got.digests[n] == "" || got.digests[n] == want.digests[n] {
			continue
		}
		was, now := w.describe(t, cold, n), w.describe(t, warm, n)
		if was == nil || now == nil {
			continue
		}
		for _, d := range image.Diff(was, now, image.DiffOptions{Layers: true, History: true, Created: true}) {
			fmt.Fprintf(&b, "%s: %s\n", n, d)
		}
		for i := range min(len(was.DiffIDs), len(now.DiffIDs)) {
			if was.DiffIDs[i] != now.DiffIDs[i] {
				fmt.Fprintf(&b, "%s: layer %d is %s, cold %s\n", n, i, now.DiffIDs[i], was.DiffIDs[i])
			}
		}
	}
	return b.String()
}

func (w *workspace) dockerfiles(r *Repo) string {
	var b strings.Builder
	for _, m := range r.Images {
		fmt.Fprintf(&b, "--- %s\n%s", m.Name, m.Dockerfile(w.base))
	}
	return b.String()
}

// TestMonoreposAreTheSameEveryTime: a seed and a number of edits is a monorepo
// for good.
func TestMonoreposAreTheSameEveryTime(t *testing.T) {
	draw := func(seed uint64) string {
		rnd := rand.New(rand.NewPCG(seed, 2))
		r := Make(rnd)
		var did []string
		for range 60 {
			did = append(did, r.Edit(rnd))
		}
		keys, err := r.Keys()
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(did, r.Files, r.Images, keys)
	}
	for seed := range uint64(50) {
		if draw(seed) != draw(seed) {
			t.Fatalf("seed %d makes two monorepos", seed)
		}
	}
}
