package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// beside makes a job run commands beside its process, and write a file in its root. wait
// returns when that is done; then the process has ended, too.
func beside(ctx context.Context, j *job, out io.Writer, a *answer) (wait func()) {
	going, said := make(chan *Process, 1), make(chan struct{})
	first := sync.OnceFunc(func() { close(said) })
	j.Spec.Going = func(p *Process) { going <- p }
	j.Spec.Stdout = writerFunc(func(p []byte) (int, error) { defer first(); return out.Write(p) })
	var wg sync.WaitGroup
	ended := make(chan struct{})
	wg.Go(func() {
		var p *Process
		select {
		case p = <-going:
			<-said
		case <-ended:
			return
		}
		err := p.Use(func(root *os.File) error {
			fd, err := unix.Openat2(int(root.Fd()), "used", &unix.OpenHow{Flags: unix.O_CREAT | unix.O_WRONLY, Mode: 0o644, Resolve: unix.RESOLVE_IN_ROOT})
			if err != nil {
				return err
			}
			f := os.NewFile(uintptr(fd), "used")
			_, err = f.WriteString("by the node\n")
			return errors.Join(err, f.Close())
		})
		if err != nil {
			a.Beside = append(a.Beside, err.Error())
		}
		for _, argv := range j.Beside {
			var out bytes.Buffer
			r, err := p.Run(ctx, argv, &out)
			text := fmt.Sprintf("%sexit %d", out.String(), r.Exit)
			if err != nil {
				text = err.Error()
			}
			a.Beside = append(a.Beside, text)
		}
		<-ended
		_, err = p.Run(ctx, []string{"true"}, nil)
		a.Beside = append(a.Beside, fmt.Sprint(err), fmt.Sprint(p.Use(func(*os.File) error { return nil })))
	})
	return func() { close(ended); wg.Wait() }
}

// rights is what a process may do, as the kernel tells it, and where it is.
const rights = `id -u; pwd; echo $WORD; hostname; umask; grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp)' /proc/self/status; ls /proc/self/fd | tr '\n' ' '; ls -l /proc/self/ns | grep -Eo '(mnt|pid|ipc|uts|net|user):.*'; ulimit -n`

func TestBesideAProcess(t *testing.T) {
	for _, c := range []struct {
		name string
		lab  func(testing.TB) *lab
		uid  uint32
	}{{"root", newLab, 0}, {"user", newLab, 1000}, {"single", singleLab, 0}, {"single user", singleLab, 1000}} {
		t.Run(c.name, func(t *testing.T) {
			l := c.lab(t)
			if !strings.HasPrefix(c.name, "single") && c.uid != 0 {
				l.full()
			}
			s := l.spec([]string{l.busybox()}, rights+`; trap 'echo hup' HUP; trap 'exit 7' TERM; echo up; while :; do sleep 1000 & wait $!; done`)
			s.UID, s.GID, s.Dir = c.uid, c.uid, "/tmp"
			s.Env = append(s.Env, "WORD=said")
			a := l.do(job{Spec: s, Beside: [][]string{
				{"sh", "-c", rights},
				{"cat", "/used"},
				{"sh", "-c", "cat /proc/1/comm; mount -t tmpfs x /tmp || unshare -m true || unshare -U true || echo no rights"},
				{"nope"},
				{"sh", "-c", "exit 3"},
				{"kill", "-HUP", "1"},
				{"kill", "-TERM", "1"},
			}})
			if a.Error != "" || a.Exit != 7 || !strings.HasSuffix(a.Out, "up\nhup\n") {
				t.Errorf("the process ends with %d, %q, %q, %q", a.Exit, a.Error, a.Out, a.Err)
			}
			if a.MountsAfter != a.MountsBefore || len(a.Processes) > 0 {
				t.Errorf("%d mounts before, %d after, left are %q", a.MountsBefore, a.MountsAfter, a.Processes)
			}
			own, _, _ := strings.Cut(a.Out, "up\n")
			if len(a.Beside) != 9 {
				t.Fatalf("got %q", a.Beside)
			}
			for i, want := range []string{own + "exit 0", "by the node\nexit 0", "", `exec: "nope": executable file not found in $PATH`, "exit 3", "exit 0"} {
				if got := a.Beside[i]; want != "" && got != want {
					t.Errorf("command %d: got\n%s\nwant\n%s", i, got, want)
				}
			}
			if got := a.Beside[2]; !strings.HasPrefix(got, "sh\n") || !strings.HasSuffix(got, "no rights\nexit 0") {
				t.Errorf("with rights: %s", got)
			}
			// The process ends, and with it what runs beside it, perhaps before it has ended itself.
			if got := a.Beside[6]; got != "exit 0" && got != ErrEnded.Error() {
				t.Errorf("the command that ends it: %s", got)
			}
			for _, got := range a.Beside[7:] {
				if got != ErrEnded.Error() {
					t.Errorf("after its end: %s", got)
				}
			}
		})
	}
}
