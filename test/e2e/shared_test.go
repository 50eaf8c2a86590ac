package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"kaniko-build/test/mirror"
	"kaniko-build/test/rig"
)

// happened is one event of a run, as `apply --progress json` prints it.
type happened struct {
	Kind, Text string
	Pos        struct{ Line int }
}

// runs are programs that go on at once and whose events are read as they come.
type runs struct {
	mu     sync.Mutex
	events [][]happened // of each run
	output []strings.Builder
	over   []bool
	change chan struct{} // closed and made anew whenever a field above changes

	cmds []*exec.Cmd
	done []chan struct{}
}

func (r *runs) set(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
	close(r.change)
	r.change = make(chan struct{})
}

// start begins one more.
func (r *runs) start(t *testing.T, a *rig.Account, c rig.Call, argv ...string) {
	t.Helper()
	if r.change == nil {
		r.change = make(chan struct{})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	cmd, done := a.Command(ctx, c, argv...), make(chan struct{})
	out, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	i := len(r.cmds)
	r.cmds, r.done = append(r.cmds, cmd), append(r.done, done)
	r.set(func() {
		r.events, r.output, r.over = append(r.events, nil), append(r.output, strings.Builder{}), append(r.over, false)
	})
	go func() {
		defer close(done)
		defer cancel()
		defer out.Close()
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var e happened
			r.set(func() {
				r.output[i].WriteString(lines.Text() + "\n")
				if json.Unmarshal(lines.Bytes(), &e) == nil {
					r.events[i] = append(r.events[i], e)
				}
			})
		}
		_ = cmd.Wait() // its code is looked at
		r.set(func() { r.over[i] = true })
	}()
	t.Cleanup(func() { cancel(); <-done })
}

// until waits for something to be true of the events of the runs.
func (r *runs) until(t *testing.T, what string, f func(events [][]happened) bool) {
	t.Helper()
	for {
		r.mu.Lock()
		ok, change, over := f(r.events), r.change, 0
		for _, o := range r.over {
			if o {
				over++
			}
		}
		r.mu.Unlock()
		if ok {
			return
		}
		if over == len(r.cmds) {
			t.Fatalf("all ended, and not: %s\n%s", what, r.all())
		}
		<-change
	}
}

func (r *runs) all() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	for i := range r.output {
		fmt.Fprintf(&b, "run %d:\n%s", i, r.output[i].String())
	}
	return b.String()
}

// count is how many events of a kind there are about instructions that begin
// with text, in all runs.
func (r *runs) count(kind, text string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, list := range r.events {
		for _, e := range list {
			if e.is(kind, text) {
				n++
			}
		}
	}
	return n
}

func (e happened) is(kind, text string) bool {
	return e.Kind == kind && strings.HasPrefix(e.Text, text)
}

// ok waits for the end of a run, which must be good.
func (r *runs) ok(t *testing.T, i int) {
	t.Helper()
	<-r.done[i]
	if code := r.cmds[i].ProcessState.ExitCode(); code != 0 {
		t.Fatalf("run %d: exit code %d\n%s", i, code, r.all())
	}
}

// TestRunsShareTheirWork starts runs at once whose images have stages, a base and
// a context in common: each of these costs once. When the one that does the work
// is killed, exactly one of those that wait does it instead.
func TestRunsShareTheirWork(t *testing.T) {
	rig.NeedRoot(t)
	bases := rig.StartMirror(t, mirror.Busybox)
	// The file "go" of the cache mount holds the shared step until the test has
	// seen what it wants to see.
	const (
		run    = "RUN --mount=type=cache,id=gate,target=/gate cat"
		shared = "FROM busybox AS lib\nCOPY src /src\n" + run + " /proc/sys/kernel/random/uuid > /id; until test -e /gate/go; do sleep 0.05; done\n" +
			"FROM busybox\nCOPY --from=lib /id /id\n"
	)
	for _, kind := range rig.Kinds {
		t.Run(string(kind), func(t *testing.T) {
			a, binary := rig.NewAccount(t, kind), rig.Binary(t)
			reg := rig.StartRegistry(t)
			dir := rig.Space(t, nil)
			files := map[string]string{"c/src/f": "f\n", "c/gate.Dockerfile": "FROM busybox\nRUN --mount=type=cache,id=gate,target=/gate touch /gate/go\n"}
			head := fmt.Sprintf("version: 1\nregistries: {docker.io: {mirrors: [%q]}}\ntargets:\n", bases.Addr)
			targets := ""
			for i := range 3 {
				target := fmt.Sprintf("  n%[1]d: {context: c, dockerfile: %[1]d.Dockerfile, image: %[2]s/n%[1]d}\n", i, reg.Addr)
				files[fmt.Sprintf("c/%d.Dockerfile", i)] = shared + fmt.Sprintf("RUN echo %d > /own\n", i)
				files[fmt.Sprintf("%d.yaml", i)] = head + target
				targets += target
			}
			files["all.yaml"] = head + targets
			rig.Write(t, dir, files)
			rig.Give(t, dir, a)
			// check looks at the images that came out, and at what was done for them.
			check := func(t *testing.T, r *runs, images []int, killed int, fetched int) {
				t.Helper()
				ids := map[string]bool{}
				for _, i := range images {
					d := describe(t, fmt.Sprintf("%s/n%d", reg.Addr, i))
					id, _ := d.Find("/id")
					own, _ := d.Find("/own")
					if own.Text != fmt.Sprintf("%d\n", i) {
						t.Errorf("image %d has /own %q", i, own.Text)
					}
					ids[id.Text] = true
				}
				if len(ids) != 1 {
					t.Errorf("the shared step was run for each image: %v", ids)
				}
				for _, one := range []struct {
					kind, text string
					want       int
				}{
					{"step-done", "COPY src", 1},
					{"step-started", run, 1 + killed},
					{"step-done", run, 1},
					{"step-done", "COPY --from=lib", 1},
					{"step-done", "RUN echo", len(images)},
				} {
					if n := r.count(one.kind, one.text); n != one.want {
						t.Errorf("%s of %q: %d times, want %d\n%s", one.kind, one.text, n, one.want, r.all())
					}
				}
				if fetched != 2 { // config and the only layer
					t.Errorf("%d blobs of the base were fetched, want 2", fetched)
				}
			}
			round := func(t *testing.T, manifests []string, images []int, kill bool) {
				state := filepath.Join(rig.Space(t, a), "state")
				call := rig.Call{Dir: dir, Env: []string{"KANIKO_BUILD_STATE=" + state}, Timeout: 3 * time.Minute}
				pulls := func() int { return len(bases.Requests(t, `"GET /v2/library/busybox/blobs/`)) }
				before, r := pulls(), &runs{}
				for _, m := range manifests {
					r.start(t, a, call, binary, "apply", "-f", m, "--push", "--progress", "json")
				}
				holder, killed := -1, 0
				r.until(t, "one is in the shared step, and the others wait for it", func(events [][]happened) bool {
					waiting := 0
					for i, list := range events {
						for _, e := range list {
							if e.is("step-started", run) {
								holder = i
							}
							if e.Kind == "waiting" && e.Pos.Line == 3 {
								waiting++
							}
						}
					}
					return holder >= 0 && waiting >= len(images)-1
				})
				if kill {
					rig.KillTree(r.cmds[holder].Process.Pid)
					<-r.done[holder]
					images = append(images[:holder:holder], images[holder+1:]...)
					killed = 1
				}
				a.Must(t, call, binary, "build", "--registry-mirror", "docker.io="+bases.Addr, "-f", "c/gate.Dockerfile", "c")
				for i := range r.cmds {
					if !kill || i != holder {
						r.ok(t, i)
					}
				}
				check(t, r, images, killed, pulls()-before)
				if left := rig.Leftovers(state, binary); len(left) > 0 {
					t.Errorf("left behind:\n  %s", strings.Join(left, "\n  "))
				}
			}
			t.Run("one run", func(t *testing.T) { round(t, []string{"all.yaml"}, []int{0, 1, 2}, false) })
			t.Run("two runs", func(t *testing.T) { round(t, []string{"0.yaml", "1.yaml"}, []int{0, 1}, false) })
			t.Run("the holder is killed", func(t *testing.T) { round(t, []string{"0.yaml", "1.yaml", "2.yaml"}, []int{0, 1, 2}, true) })
		})
	}
}
