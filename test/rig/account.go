package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Account is somebody who runs the binary.
type Account struct {
	Name string
	UID  int
	GID  int
	Home string
}

// Kind says which of the three accounts is meant; each gets another rung of
// isolation, or the same one by another way.
type Kind string

const (
	Superuser Kind = "root"   // rung userns, ids in an unused high range
	Subuid    Kind = "subuid" // rung userns, newuidmap
	Single    Kind = "single" // rung userns-single
)

// Kinds lists all of them, the strongest first.
var Kinds = []Kind{Superuser, Subuid, Single}

// NeedRoot fails the test when it does not run as root: it makes accounts, and
// gives them files.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, which makes the accounts that the build runs from; run as root")
	}
}

// NewAccount makes an account of a kind, which is gone when the test ends. Its
// name holds our process id, so that packages that test at once do not meet.
func NewAccount(t testing.TB, k Kind) *Account {
	t.Helper()
	NeedRoot(t)
	if k == Superuser {
		return &Account{Name: "root", Home: Space(t, nil)}
	}
	sweep(t)
	name := fmt.Sprintf("kb-%s-%d", map[Kind]string{Subuid: "sub", Single: "nosub"}[k], os.Getpid())
	// A system account gets no range of its own accord.
	admin(t, "useradd", "--system", "--no-log-init", "--create-home", "--base-dir", Space(t, nil), "--shell", "/bin/sh", name)
	t.Cleanup(func() {
		// Nothing may be left that runs as the user, or userdel refuses.
		exec.Command("pkill", "-KILL", "-u", name).Run()
		for range 50 {
			if exec.Command("pgrep", "-u", name).Run() != nil {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		admin(t, "userdel", name)
	})
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	a := &Account{Name: name, Home: u.HomeDir}
	a.UID, _ = strconv.Atoi(u.Uid)
	a.GID, _ = strconv.Atoi(u.Gid)
	if k == Subuid {
		from := 1_000_000_000 + a.UID*65536
		span := fmt.Sprintf("%d-%d", from, from+65535)
		admin(t, "usermod", "--add-subuids", span, "--add-subgids", span, name)
	}
	return a
}

var ours = regexp.MustCompile(`(?m)^(kb-(?:no)?sub-(\d+)):`)

// sweep removes accounts of test processes that were killed.
func sweep(t testing.TB) {
	t.Helper()
	b, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range ours.FindAllSubmatch(b, -1) {
		if _, err := os.Stat("/proc/" + string(m[2])); errors.Is(err, os.ErrNotExist) {
			exec.Command("userdel", string(m[1])).Run() // another test may be at it too
		}
	}
}

// admin runs a command that changes accounts. The lock on the account files is
// busy while another package does the same.
func admin(t testing.TB, name string, args ...string) {
	t.Helper()
	var out []byte
	var err error
	for range 10 {
		if out, err = exec.Command(name, args...).CombinedOutput(); err == nil {
			return
		}
		time.Sleep(300 * time.Millisecond)
	}
	t.Errorf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
}

// Space is an empty directory that belongs to a (root for nil) and that every
// account can reach. It is removed at the end, mounts or not.
func Space(t testing.TB, a *Account) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "kaniko-build-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove the test's directory: %v", err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if a != nil {
		Give(t, dir, a)
	}
	return dir
}

// Give makes a the owner of everything below dir. Modes and times stay.
func Give(t testing.TB, dir string, a *Account) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		if err := os.Lchown(p, a.UID, a.GID); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT == unix.S_IFLNK {
			return nil
		}
		return unix.Chmod(p, st.Mode&0o7777) // chown took setuid away
	})
	if err != nil {
		t.Fatalf("give %s to %s: %v", dir, a.Name, err)
	}
}

// Call is one start of a program.
type Call struct {
	Dir     string
	Env     []string // added to a small clean environment
	Umask   int      // 0 is 022
	Timeout time.Duration
	Stdin   []byte
}

// Output is what came of a Call.
type Output struct {
	Stdout, Stderr string
	Code           int // exit code; -1 when killed, as by the timeout
	Took           time.Duration
}

// All is both streams, for looking for words that may stand in either.
func (o Output) All() string { return o.Stdout + o.Stderr }

// Tail is the last n lines of both streams; of a program that crashed, what the
// crash begins with.
func (o Output) Tail(n int) string {
	l := strings.Split(strings.TrimRight(o.All(), "\n"), "\n")
	for i, line := range l {
		if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") || strings.HasPrefix(line, "SIG") && strings.Contains(line, ": ") {
			return strings.Join(l[max(0, i-n):min(len(l), i+100)], "\n")
		}
	}
	return strings.Join(l[max(0, len(l)-n):], "\n")
}

// Env is the environment that a's programs get.
func (a *Account) Env() []string {
	return []string{
		"HOME=" + a.Home, "USER=" + a.Name, "LOGNAME=" + a.Name, "LC_ALL=C.UTF-8",
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	}
}

// Command prepares a program that runs as a. A umask of its own needs sh to
// set it. The program leads a process group and dies with the test.
func (a *Account) Command(ctx context.Context, c Call, argv ...string) *exec.Cmd {
	argv = append([]string{"/bin/sh", "-c", fmt.Sprintf("umask %03o; exec \"$@\"", or(c.Umask, 0o022)), "sh"}, argv...)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = c.Dir
	if cmd.Dir == "" {
		cmd.Dir = a.Home
	}
	cmd.Env = append(a.Env(), c.Env...)
	cmd.Stdin = bytes.NewReader(c.Stdin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if a.UID != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(a.UID), Gid: uint32(a.GID)}
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// Run runs a program to its end.
func (a *Account) Run(t testing.TB, c Call, argv ...string) Output {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), or(c.Timeout, 2*time.Minute))
	defer cancel()
	cmd := a.Command(ctx, c, argv...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	start := time.Now()
	err := cmd.Run()
	o := Output{Stdout: stdout.String(), Stderr: stderr.String(), Code: cmd.ProcessState.ExitCode(), Took: time.Since(start)}
	var exit *exec.ExitError
	switch {
	case ctx.Err() == context.DeadlineExceeded:
		o.Stderr += fmt.Sprintf("\n(killed after %v)", o.Took.Round(time.Second))
		o.Code = -1
	case err != nil && !errors.As(err, &exit):
		t.Fatalf("run %s: %v", argv[0], err)
	}
	return o
}

// Must is Run for what has to succeed.
func (a *Account) Must(t testing.TB, c Call, argv ...string) Output {
	t.Helper()
	o := a.Run(t, c, argv...)
	if o.Code != 0 {
		t.Fatalf("%s: exit code %d\n%s", strings.Join(argv, " "), o.Code, o.Tail(40))
	}
	return o
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}
