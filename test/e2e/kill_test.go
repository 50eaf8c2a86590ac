package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"kaniko-build/test/image"
	"kaniko-build/test/mirror"
	"kaniko-build/test/rig"
)

// work is a small manifest whose steps take their time, so that a moment at
// random is in the middle of something: pulling, running, packing, pushing.
func work(t *testing.T, a *rig.Account, bases, push string) string {
	t.Helper()
	dir := rig.Space(t, nil)
	files := map[string]string{
		"base/Dockerfile": "FROM busybox\nRUN for i in $(seq 300); do mkdir -p /opt/d$i && echo $i > /opt/d$i/f; done\nRUN rm -r /opt/d1 && mv /opt/d2 /opt/moved\n",
	}
	manifest := fmt.Sprintf("version: 1\nregistries: {docker.io: {mirrors: [\"%s\"]}}\ntargets:\n  base: {context: base, image: %s/base}\n", bases, push)
	for i := range 4 {
		n := fmt.Sprintf("leaf%d", i)
		files[n+"/Dockerfile"] = fmt.Sprintf("FROM busybox AS build\nCOPY src /src\nRUN head -c 3000000 /dev/zero | tr '\\0' 'x' > /big%d && cat /src/* > /all\nFROM %s/base\nCOPY --from=build /all /big%d /got/\nRUN ls /got > /list && chown -R 7:%d /got\n", i, push, i, i)
		for k := range 20 {
			files[fmt.Sprintf("%s/src/f%02d", n, k)] = fmt.Sprintf("%d %d\n", i, k)
		}
		manifest += fmt.Sprintf("  %s: {context: %s, image: %s/%s}\n", n, n, push, n)
	}
	files["kaniko-build.yaml"] = manifest
	rig.Write(t, dir, files)
	rig.Give(t, dir, a)
	return dir
}

var workImages = []string{"base", "leaf0", "leaf1", "leaf2", "leaf3"}

// TestKilledAtAnyMoment kills the whole tree of processes at random moments.
// The next apply makes the right images, and nothing is left.
func TestKilledAtAnyMoment(t *testing.T) {
	rig.NeedRoot(t)
	bases := rig.StartMirror(t, mirror.Busybox)
	for kind, rounds := range map[rig.Kind]int{rig.Superuser: 20, rig.Subuid: 5, rig.Single: 5} {
		t.Run(string(kind), func(t *testing.T) {
			a, binary := rig.NewAccount(t, kind), rig.Binary(t)
			reg := rig.StartRegistry(t)
			dir := work(t, a, bases.Addr, reg.Addr)
			call := func(state string) rig.Call {
				return rig.Call{Dir: dir, Env: []string{"KANIKO_BUILD_STATE=" + state, "TMPDIR=" + filepath.Dir(state)}, Timeout: 3 * time.Minute}
			}
			argv := []string{binary, "apply", "--push", "--progress", "plain"}

			state := filepath.Join(rig.Space(t, a), "state")
			whole := a.Must(t, call(state), argv...).Took
			want := map[string]*image.Dump{}
			for _, n := range workImages {
				want[n] = describe(t, reg.Addr+"/"+n)
			}
			const seed = 20240611
			rnd := rand.New(rand.NewPCG(seed, uint64(rounds)))
			for i := range rounds {
				state := filepath.Join(rig.Space(t, a), "state")
				after := time.Duration(rnd.Float64() * float64(whole))
				killed := killAfter(t, a, call(state), after, argv...)
				o := a.Run(t, call(state), argv...)
				if o.Code != 0 {
					t.Errorf("round %d, killed after %v (%v): the next apply ends with %d\n%s", i, after, killed, o.Code, o.Tail(20))
					continue
				}
				for _, n := range workImages {
					got := describe(t, reg.Addr+"/"+n)
					for _, d := range image.Diff(want[n], got, image.DiffOptions{Layers: true, History: true}) {
						t.Errorf("round %d, killed after %v: %s: %s", i, after, n, d)
					}
				}
				if left := rig.Leftovers(state, binary); len(left) > 0 {
					t.Errorf("round %d, killed after %v: left behind:\n  %s", i, after, strings.Join(left, "\n  "))
				}
				if others := others(t, filepath.Dir(state)); len(others) > 0 {
					t.Errorf("round %d: temporary files left: %q", i, others)
				}
			}
			rig.Report(t, "killed at %d random moments of %.1f s, %s", rounds, whole.Seconds(), kind)
		})
	}
}

// others lists what is beside the state directory in a space of its own.
func others(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range list {
		if e.Name() != "state" {
			out = append(out, e.Name())
		}
	}
	return out
}

func describe(t *testing.T, ref string) *image.Dump {
	t.Helper()
	return describePlatform(t, ref, "")
}

// killAfter starts a program and kills it with all its descendants. It tells
// whether there was something to kill.
func killAfter(t *testing.T, a *rig.Account, c rig.Call, after time.Duration, argv ...string) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := a.Command(ctx, c, argv...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { cmd.Wait(); close(done) }()
	select {
	case <-done:
		return false
	case <-time.After(after):
	}
	rig.KillTree(cmd.Process.Pid)
	<-done
	return true
}

// TestInterrupted: Ctrl-C ends a build within two seconds, with the exit code
// for it, and leaves nothing.
func TestInterrupted(t *testing.T) {
	rig.NeedRoot(t)
	bases := rig.StartMirror(t, mirror.Busybox)
	for _, kind := range rig.Kinds {
		t.Run(string(kind), func(t *testing.T) {
			a, binary := rig.NewAccount(t, kind), rig.Binary(t)
			dir := rig.Space(t, nil)
			// The step ignores being asked; a child of it is in a session of its own.
			rig.Write(t, dir, map[string]string{"Dockerfile": "FROM busybox\nRUN trap '' INT TERM; (setsid sleep 1000 &); echo started; while :; do sleep 100; done\n"})
			rig.Give(t, dir, a)
			state := filepath.Join(rig.Space(t, a), "state")
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd := a.Command(ctx, rig.Call{Dir: dir, Env: []string{"KANIKO_BUILD_STATE=" + state}}, binary, "build", "--progress", "plain",
				"--registry-mirror", "docker.io="+bases.Addr, "-o", "type=oci,dest="+filepath.Join(filepath.Dir(state), "out.tar"), dir)
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			cmd.Stdout, cmd.Stderr = w, w
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			w.Close()
			var text strings.Builder
			buf := make([]byte, 4096)
			for !strings.Contains(text.String(), "started\n") {
				n, err := r.Read(buf)
				text.Write(buf[:n])
				if err != nil {
					t.Fatalf("the build ended by itself:\n%s", text.String())
				}
			}
			go func() {
				for {
					if _, err := r.Read(buf); err != nil {
						r.Close()
						return
					}
				}
			}()
			start := time.Now()
			syscall.Kill(cmd.Process.Pid, syscall.SIGINT)
			err = cmd.Wait()
			if took := time.Since(start); took > 2*time.Second {
				t.Errorf("it took %v to end", took)
			}
			if code := cmd.ProcessState.ExitCode(); code != 130 {
				t.Errorf("exit code %d (%v), want 130", code, err)
			}
			if left := rig.Leftovers(state, binary); len(left) > 0 {
				t.Errorf("left behind:\n  %s", strings.Join(left, "\n  "))
			}
			for _, p := range rig.Processes() {
				if strings.Contains(p.Cmdline, "sleep 1000") {
					t.Errorf("the step's child %d still runs", p.PID)
				}
			}
			if o := others(t, filepath.Dir(state)); len(o) > 0 {
				t.Errorf("files left: %q", o)
			}
		})
	}
}
