package watch

import (
	"io"
	"net"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"kaniko-build/test/rig"
)

// door is an address in front of a registry that can be shut: nobody listens there then.
type door struct {
	testing.TB
	addr, to string
	listener net.Listener
	over     sync.WaitGroup
	mu       sync.Mutex
	open     map[net.Conn]bool
}

func newDoor(t testing.TB, to string) *door {
	d := &door{TB: t, addr: rig.HoldPort(t), to: to, open: map[net.Conn]bool{}}
	d.unlock()
	t.Cleanup(d.shut)
	return d
}

func (d *door) unlock() {
	d.Helper()
	l, err := net.Listen("tcp", d.addr)
	if err != nil {
		d.Fatal(err)
	}
	d.listener = l
	d.over.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", d.to)
			if err != nil {
				c.Close()
				continue
			}
			d.mu.Lock()
			d.open[c], d.open[to] = true, true
			d.mu.Unlock()
			for _, way := range [][2]net.Conn{{c, to}, {to, c}} { // the end of one is the end of both
				d.over.Go(func() {
					_, _ = io.Copy(way[0], way[1])
					c.Close()
					to.Close()
				})
			}
		}
	})
}

func (d *door) shut() {
	d.listener.Close()
	d.mu.Lock()
	for c := range d.open {
		c.Close()
	}
	clear(d.open)
	d.mu.Unlock()
	d.over.Wait()
}

// TestPushing puts tags in a registry after each save, those of a run all or none, and waits for
// a registry that is away.
func TestPushing(t *testing.T) {
	reg := rig.StartRegistry(t)
	d := newDoor(t, reg.Addr)
	files := map[string]string{
		"kaniko-build.yaml": "version: 1\ntargets:\n  a: {context: a, image: " + d.addr + "/a}\n  b: {context: b, image: " + d.addr + "/b}\n",
		"a/Dockerfile":      "FROM scratch\nCOPY f /\n", "a/f": "1", "b/Dockerfile": "FROM scratch\nCOPY f /\n", "b/f": "1",
	}
	s := prepare(t, files)
	s.command(exec.Command(rig.Binary(s), "watch", "--progress", "json", "--push", "a", "b")) // mark has no registry
	last := map[string]string{}                                                               // digests by target, as events tell
	rest := func() (failed string) {
		t.Helper()
		for {
			switch e := s.next(); e.is() {
			case "node-done a", "node-done b":
				last[e.Node] = e.Image.Digest
			case "node-failed a", "node-failed b":
				failed += e.Text + "\n"
			case "watch watching":
				return failed
			}
		}
	}
	same := func(what string, want map[string]string) {
		t.Helper()
		for _, name := range []string{"a", "b"} {
			if got := rig.Tagged(t, reg.Addr, name, "latest"); got != want[name] || got == "" {
				t.Errorf("%s: the tag of %s is %q, want %q", what, name, got, want[name])
			}
		}
	}
	rest()
	same("at the start", last)
	first := map[string]string{"a": last["a"], "b": last["b"]}
	s.write(map[string]string{"a/f": "2"})
	rest()
	if last["a"] == first["a"] {
		t.Error("a save made the same image")
	}
	same("after a save", last)

	// One cannot be built: no tag is put, and with the next save that mends it all are.
	before := map[string]string{"a": last["a"], "b": last["b"]}
	s.sh(`printf 'FROM scratch\nCOPY f /\nRUN ["/none"]\n' > b/Dockerfile; echo 3 > a/f`)
	if failed := rest(); !strings.Contains(failed, "none") {
		t.Errorf("told %q", failed)
	}
	same("while one cannot be built", before)
	s.sh("printf 'FROM scratch\\nCOPY f /new\\n' > b/Dockerfile")
	rest()
	if last["a"] == before["a"] || last["b"] == before["b"] {
		t.Error("a save made the same image")
	}
	same("when it can be built again", last)

	// The registry is away: that is told, and the last state is there with the next save.
	before = map[string]string{"a": last["a"], "b": last["b"]}
	d.shut()
	s.write(map[string]string{"a/f": "4"})
	if failed := rest(); !strings.Contains(failed, "refused") {
		t.Errorf("told %q", failed)
	}
	s.write(map[string]string{"a/f": "5"})
	rest()
	same("while the registry is away", before)
	d.unlock()
	s.write(map[string]string{"b/f": "2"})
	rest()
	if last["a"] == before["a"] || last["b"] == before["b"] {
		t.Error("a save made the same image")
	}
	same("when the registry is back", last)
}
