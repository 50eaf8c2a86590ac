package e2e

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"kaniko-build/test/mirror"
	"kaniko-build/test/rig"
)

// gate stands before a registry and lets requests through, or not.
type gate struct {
	addr string

	mu    sync.Mutex
	count int // requests that came
	hit   func(n int, line string) bool
	fault fault
	lines []string      // of those that came
	held  chan struct{} // closed when a request hangs
	free  chan struct{} // closed when it may end
}

type fault int

const (
	refuses fault = iota
	hangs         // until the next set
)

func startGate(t *testing.T, reg *rig.Registry) *gate {
	t.Helper()
	g := &gate{hit: none, held: make(chan struct{}), free: make(chan struct{})}
	target := &url.URL{Scheme: "http", Host: reg.Addr}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Host = r.In.Host // for the places of uploads
	}, ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		g.count++
		line := r.Method + " " + r.URL.Path
		g.lines = append(g.lines, line)
		hit := g.hit(g.count, line)
		kind, held, free := g.fault, g.held, g.free
		g.mu.Unlock()
		switch {
		case !hit:
			proxy.ServeHTTP(w, r)
		case kind == hangs:
			close(held)
			<-free
		default:
			http.Error(w, `{"errors":[{"code":"DENIED","message":"not today"}]}`, http.StatusForbidden)
		}
	}))
	t.Cleanup(srv.Close)
	t.Cleanup(g.open)
	g.addr = strings.TrimPrefix(srv.URL, "http://")
	return g
}

// set begins to count anew, from 1, and has requests go wrong.
func (g *gate) set(f fault, hit func(n int, line string) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.free)
	g.count, g.hit, g.fault, g.lines = 0, hit, f, nil
	g.held, g.free = make(chan struct{}), make(chan struct{})
}

// open lets all requests through.
func (g *gate) open() { g.set(refuses, none) }

func none(int, string) bool { return false }

// number is the kth request alone.
func number(k int) func(int, string) bool { return func(n int, _ string) bool { return n == k } }

func (g *gate) seen() (n int, lines []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.count, slices.Clone(g.lines)
}

// release is a repository of two images with two tags each, one of them with an
// attestation, of which every round has repositories of its own.
type releaseLab struct {
	*testing.T
	m     *machine
	reg   *rig.Registry
	gate  *gate
	round int
}

func (l *releaseLab) names() []string {
	var out []string
	for _, n := range []string{"base", "app"} {
		for _, tag := range []string{"1", "latest"} {
			out = append(out, fmt.Sprintf("r%d/%s:%s", l.round, n, tag))
		}
	}
	return out
}

func (l *releaseLab) args() []string {
	return []string{"apply", "--push", "--var", fmt.Sprintf("round=r%d", l.round)}
}

// version writes the sources of a version. Versions of a round share a layer.
func (l *releaseLab) version(v string) {
	rig.Write(l.T, l.m.dir, map[string]string{"base/file": v + "\n", "app/file": v + "\n"})
}

// tags tells what every tag of the round stands for, "" if it does not exist.
func (l *releaseLab) tags() map[string]string {
	l.Helper()
	out := map[string]string{}
	for _, n := range l.names() {
		repo, tag, _ := strings.Cut(n, ":")
		out[n] = rig.Tagged(l.T, l.reg.Addr, repo, tag)
	}
	return out
}

func newReleaseLab(t *testing.T) *releaseLab {
	rig.NeedRoot(t)
	reg := rig.StartMirror(t, mirror.Busybox)
	g := startGate(t, reg)
	dir := rig.Space(t, nil)
	rig.Write(t, dir, map[string]string{
		"kaniko-build.yaml": fmt.Sprintf(`version: 1
registries: {docker.io: {mirrors: ["%[1]s"]}}
vars: {round: {type: string, default: r0}}
targets:
  base: {context: base, image: "%[2]s/${vars.round}/base", tags: ["1", latest]}
  app: {context: app, image: "%[2]s/${vars.round}/app", tags: ["1", latest], contexts: {base: "target:base"}, attest: {provenance: min}}
`, reg.Addr, g.addr),
		"base/Dockerfile": "FROM busybox\nCOPY file /base\n",
		"app/Dockerfile":  "FROM base\nCOPY file /app\n",
	})
	return &releaseLab{T: t, m: newMachine(t, rig.Superuser, dir), reg: reg, gate: g}
}

// A registry fails at each request of a release in turn. Whatever it is, the tags
// all stand for the new images or all for the old ones; and when the registry is
// well again, so is the release.
func TestReleaseIsAllOrNothing(t *testing.T) {
	l := newReleaseLab(t)
	requests := 0
	for _, f := range []struct {
		name string
		dead bool // from that request on
	}{{"refuses", false}, {"dies", true}} {
		t.Run(f.name, func(t *testing.T) {
			l.T, l.m.T = t, t
			refused, split := 0, 0
			first := 1
			if f.dead { // before the tags that is the same
				first = max(1, requests-15)
			}
			for k := first; ; k++ {
				l.round++
				l.version("one")
				l.gate.open()
				l.m.must(l.args()...)
				old := l.tags()
				l.version("two")
				l.gate.set(refuses, func(n int, _ string) bool { return n == k || f.dead && n > k })
				o := l.m.run(l.args()...)
				n, lines := l.gate.seen()
				if n < k {
					if o.Code != 0 {
						t.Fatalf("without a fault: exit code %d\n%s", o.Code, o.Tail(20))
					}
					requests = n
					t.Logf("%d requests; %d releases failed, %d of them could not put all back", n, refused, split)
					break
				}
				l.judge(o, old, lines[k-1], f.dead, &refused, &split)
				l.gate.open()
				l.m.must(l.args()...)
				for name, d := range l.tags() {
					if d == old[name] || d == "" {
						t.Errorf("request %d (%s): the next release left %s", k, lines[k-1], name)
					}
				}
			}
			if refused == 0 {
				t.Error("no release failed")
			}
		})
	}
}

// judge looks at the tags after a release that met a fault.
func (l *releaseLab) judge(o rig.Output, old map[string]string, request string, dead bool, refused, split *int) {
	l.Helper()
	var moved []string
	for name, d := range l.tags() {
		if d != old[name] {
			moved = append(moved, name)
		}
	}
	if o.Code == 0 { // it could do without
		if len(moved) != len(old) {
			l.Errorf("%s failed: exit code 0, and only %v moved\n%s", request, moved, o.Tail(20))
		}
		return
	}
	*refused++
	if len(moved) == 0 {
		return
	}
	if !dead {
		l.Errorf("%s failed: the tags %v moved all the same\n%s", request, moved, o.Tail(20))
		return
	}
	*split++
	for _, name := range moved {
		if !strings.Contains(o.All(), "could not be put back: "+l.gate.addr+"/"+name) {
			l.Errorf("%s failed: nothing is said of %s\n%s", request, name, o.Tail(20))
		}
	}
}

// New tags that cannot all be put are taken away where the registry allows it;
// Debian's does not, and the message names them.
func TestReleaseNamesNewTagsThatStay(t *testing.T) {
	l := newReleaseLab(t)
	l.round = 1
	l.version("one")
	l.gate.open()
	l.m.must(l.args()...)
	tags := 0
	l.round = 2
	l.gate.set(refuses, func(_ int, line string) bool {
		if putsTag(line) {
			tags++
		}
		return putsTag(line) && tags == 4
	})
	o := l.m.run(l.args()...)
	if o.Code == 0 {
		t.Fatalf("exit code 0\n%s", o.Tail(20))
	}
	for name, d := range l.tags() {
		if said := strings.Contains(o.All(), "could not be put back: "+l.gate.addr+"/"+name+", from nothing"); said != (d != "") {
			t.Errorf("%s exists: %v; the message names it: %v\n%s", name, d != "", said, o.Tail(20))
		}
	}
}

// A release that is killed leaves tags that the next one takes over: it sends
// only what is missing, and if it fails the tags go back to before the first.
func TestReleaseThatWasKilled(t *testing.T) {
	l := newReleaseLab(t)
	kill := func(k int) (old map[string]string, killed bool) {
		l.round++
		l.version("one")
		l.gate.open()
		l.m.must(l.args()...)
		old = l.tags()
		l.version("two")
		l.gate.set(hangs, number(k))
		return old, l.killed()
	}
	sent := func() (out []string) {
		for _, line := range l.reg.Requests(l.T, fmt.Sprintf(`"PUT /v2/r%d/`, l.round), "/blobs/uploads/", " 201 ") {
			_, d, _ := strings.Cut(line, "digest=")
			d, _, _ = strings.Cut(d, " ")
			out = append(out, d)
		}
		return out
	}
	split := 0
	for k := 1; ; k++ {
		old, killed := kill(k)
		if !killed {
			break
		}
		_, lines := l.gate.seen()
		before := sent()
		if !allOrNothing(old, l.tags()) {
			split++
		}
		l.gate.open()
		l.m.must(l.args()...)
		for name, d := range l.tags() {
			if d == old[name] {
				t.Errorf("killed at request %d: the next release left %s", k, name)
			}
		}
		for _, d := range sent()[len(before):] {
			if slices.Contains(before, d) {
				t.Errorf("killed at request %d (%s): the blob %s was sent again", k, lines[k-1], d)
			}
		}
	}
	if split == 0 {
		t.Error("no kill fell between two tags")
	}
	t.Logf("%d kills fell between two tags", split)

	// Killed between two tags, and refused the next time: as before the first.
	for k := 1; ; k++ {
		old, killed := kill(k)
		if !killed {
			t.Fatal("no kill fell between two tags")
		}
		if allOrNothing(old, l.tags()) {
			continue
		}
		l.version("three")
		l.gate.open()
		whole := l.m.run(append(l.args(), "--on-tag-exists", "fail")...)
		if whole.Code == 0 || !strings.Contains(whole.All(), "no tag was moved") {
			t.Errorf("tags of an interrupted release count as new: exit code %d\n%s", whole.Code, whole.Tail(20))
		}
		first := true
		l.gate.set(refuses, func(_ int, line string) bool {
			hit := putsTag(line) && first
			first = first && !hit
			return hit
		})
		if o := l.m.run(l.args()...); o.Code == 0 {
			t.Errorf("a release whose tags are refused: exit code 0\n%s", o.Tail(20))
		}
		for name, d := range l.tags() {
			if d != old[name] {
				t.Errorf("%s is %s, and was %s before the release that was killed", name, d, old[name])
			}
		}
		return
	}
}

// putsTag tells whether a request puts a tag.
func putsTag(line string) bool {
	return strings.HasPrefix(line, "PUT ") && (strings.HasSuffix(line, "/manifests/latest") || strings.HasSuffix(line, "/manifests/1"))
}

func allOrNothing(old, now map[string]string) bool {
	moved := 0
	for name, d := range now {
		if d != old[name] {
			moved++
		}
	}
	return moved == 0 || moved == len(old)
}

// killed runs a release and kills it when the gate holds a request; false says
// that it ended by itself.
func (l *releaseLab) killed() bool {
	l.Helper()
	ctx, cancel := context.WithTimeout(l.Context(), time.Minute)
	defer cancel()
	cmd := l.m.account.Command(ctx, rig.Call{Dir: l.m.dir, Env: []string{"KANIKO_BUILD_STATE=" + l.m.state}}, append([]string{l.m.binary}, l.args()...)...)
	out, err := os.Create(filepath.Join(rig.Space(l.T, nil), "out"))
	if err != nil {
		l.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		l.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	l.gate.mu.Lock()
	held := l.gate.held
	l.gate.mu.Unlock()
	select {
	case <-held:
		rig.KillTree(cmd.Process.Pid)
		<-ended
		return true
	case err := <-ended:
		if err != nil {
			l.Fatalf("the release failed: %v", err)
		}
		return false
	}
}

// A tag that exists stays, or fails the release before any other moved.
func TestTagsThatExist(t *testing.T) {
	l := newReleaseLab(t)
	l.round = 1
	l.version("one")
	l.gate.open()
	l.m.must(l.args()...)
	old := l.tags()
	l.version("two")
	o := l.m.run(append(l.args(), "--on-tag-exists", "fail")...)
	if o.Code == 0 || !strings.Contains(o.All(), "no tag was moved") {
		t.Errorf("fail: exit code %d\n%s", o.Code, o.Tail(20))
	}
	o = l.m.must(append(l.args(), "--on-tag-exists", "skip")...)
	if !strings.Contains(o.All(), "exists and stays") {
		t.Errorf("skip says nothing\n%s", o.Tail(20))
	}
	for name, d := range l.tags() {
		if d != old[name] {
			t.Errorf("%s moved", name)
		}
	}
	rig.Write(t, l.m.dir, map[string]string{"more.yaml": fmt.Sprintf("registries: {\"%s\": {onTagExists: fail}}\n", l.gate.addr)})
	if o := l.m.run(append(l.args(), "-f", "kaniko-build.yaml", "-f", "more.yaml")...); o.Code == 0 || !strings.Contains(o.All(), "no tag was moved") {
		t.Errorf("the manifest says fail: exit code %d\n%s", o.Code, o.Tail(20))
	}
	l.version("one") // the same again is no conflict
	l.m.must(append(l.args(), "--on-tag-exists", "fail")...)
	l.version("two")
	l.m.must(append(l.args(), "--publish", "each")...)
	for name, d := range l.tags() {
		if d == old[name] || d == "" {
			t.Errorf("%s is %s", name, d)
		}
	}
}
