package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestRunHello(t *testing.T) {
	l := newLab(t)
	bb := l.busybox()
	if got := l.sh([]string{bb}, "echo hello; hostname; id -u; pwd; umask; echo $$"); got != "hello\nbuildkitsandbox\n0\n/\n0022\n1" {
		t.Errorf("got %q", got)
	}
}

func TestRunSeesItsRootAndNothingElse(t *testing.T) {
	t.Setenv("SECRET_OF_HOST", "1")
	l := newLab(t)
	bb := l.busybox()
	got := l.sh([]string{bb}, `ls -a / | tr '\n' ' '; echo; env | sort | tr '\n' ' '; echo; ls /proc | grep '^[0-9]' | wc -l; ls /proc/self/fd | tr '\n' ' '; echo; cat /proc/self/mountinfo; cat /proc/1/environ | tr '\0' ' '`)
	lines := strings.Split(got, "\n")
	if want := ". .. bin dev etc home proc root run sys tmp usr "; lines[0] != want {
		t.Errorf("root holds %q, want %q", lines[0], want)
	}
	if want := "PATH=/bin:/usr/bin PWD=/ SHLVL=1 "; lines[1] != want {
		t.Errorf("environment %q, want %q", lines[1], want)
	}
	if lines[2] > "5" || len(lines[2]) > 1 {
		t.Errorf("%s processes are visible", lines[2])
	}
	if want := "0 1 2 3 "; lines[3] != want { // 3 is ls reading the directory
		t.Errorf("descriptors %q, want %q", lines[3], want)
	}
	for _, word := range []string{"/store", "SECRET", l.store} {
		for _, line := range lines {
			// The kernel tells an overlay's own options; they are paths of the
			// node, where nothing can be opened from here.
			if strings.Contains(line, word) && !strings.Contains(line, "lowerdir") {
				t.Errorf("%q is visible: %s", word, line)
			}
		}
	}
	if a := l.do(job{Spec: l.spec([]string{bb}, "ls /store /.root /../store")}); a.Exit == 0 {
		t.Errorf("the store is visible: %s", a.Out)
	}
}

func TestRunCannotWriteSysctls(t *testing.T) {
	l := newLab(t)
	bb := l.busybox()
	l.helper(bb)
	got := l.sh([]string{bb}, "/helper writable /proc/sys /proc/irq /proc/bus /proc/fs /proc/sysrq-trigger /sys")
	lines := strings.Split(got, "\n")
	if len(lines) != 1 {
		t.Errorf("%d writable: %.2000q", len(lines)-1, lines)
	}
	if n, _ := strconv.Atoi(lines[len(lines)-1]); n < 1000 {
		t.Errorf("only %d files were tried", n)
	}
}

func TestRunMasksProc(t *testing.T) {
	l := newLab(t)
	bb := l.busybox()
	for _, name := range maskedProc {
		st, err := os.Stat("/proc/" + name)
		if err != nil {
			continue
		}
		got := l.sh([]string{bb}, "if test -d /proc/"+name+"; then ls -A /proc/"+name+" | wc -l; else stat -c %t:%T /proc/"+name+"; fi")
		if want := map[bool]string{true: "0", false: "1:3"}[st.IsDir()]; got != want {
			t.Errorf("/proc/%s: %s, want %s", name, got, want)
		}
	}
	if got := l.sh([]string{bb}, "ls -A /sys/firmware | wc -l"); got != "0" {
		t.Errorf("/sys/firmware holds %s names", got)
	}
}

func TestRunHasDockersCapabilities(t *testing.T) {
	l := newLab(t)
	bb := l.busybox()
	got := l.sh([]string{bb}, "grep -E '^(Cap|NoNew|Seccomp:)' /proc/self/status")
	want := fmt.Sprintf("CapInh:\t%016x\nCapPrm:\t%016[2]x\nCapEff:\t%016[2]x\nCapBnd:\t%016[2]x\nCapAmb:\t%016[1]x\nNoNewPrivs:\t0\nSeccomp:\t2", 0, 0xa80425fb)
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestRunAsUser(t *testing.T) {
	l := newLab(t)
	l.full()
	bb := l.busybox()
	s := l.spec([]string{bb}, "id -u; id -g; id -G; grep -E '^Cap(Prm|Eff)' /proc/self/status; echo x > /dev/stdout; touch /tmp/mine && stat -c %u:%g /tmp/mine; touch /etc/no 2>/dev/null || echo denied")
	s.UID, s.GID, s.Groups = 1000, 1001, []uint32{1001, 7}
	a := l.do(job{Spec: s})
	want := "1000\n1001\n1001 7\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nx\n1000:1001\ndenied\n"
	if a.Out != want || a.Exit != 0 {
		t.Errorf("got %q (exit %d, %q, %s), want %q", a.Out, a.Exit, a.Err, a.Error, want)
	}
}

func TestRunSetuidRootWorks(t *testing.T) {
	l := newLab(t)
	l.full()
	bb := l.busybox()
	// busybox keeps root only for applets that may have it: su does.
	data, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	l.write(bb+"/usr/bin/su", string(data), 0o755|os.ModeSetuid)
	l.write(bb+"/etc/passwd", "root::0:0:root:/root:/bin/sh\nu:x:1000:1000::/home/u:/bin/sh\n", 0o644)
	l.write(bb+"/etc/shadow", "root::1::::::\n", 0o600)
	s := l.spec([]string{bb}, "id -u; /usr/bin/su -c 'id -u; chown 5:5 /tmp && stat -c %u /tmp' root")
	s.UID, s.GID = 1000, 1000
	a := l.do(job{Spec: s})
	if a.Out != "1000\n0\n5\n" {
		t.Errorf("got %q %q exit %d %s", a.Out, a.Err, a.Exit, a.Error)
	}
}

func TestRunForbidsNamespacesAndMounts(t *testing.T) {
	l := newLab(t)
	bb := l.busybox()
	got := l.sh([]string{bb}, "for c in 'unshare -U true' 'unshare -m true' 'mount -t tmpfs x /tmp' 'mount -o bind /etc /tmp' 'mount -o remount,rw /proc/sys'; do $c 2>/dev/null && echo $c; done; true")
	if got != "" {
		t.Errorf("allowed: %s", got)
	}
}

func TestRunOwnersAndSpecialFiles(t *testing.T) {
	l := newLab(t)
	l.full()
	bb := l.busybox()
	s := l.spec([]string{bb}, "touch /a && chown 65535:33 /a && mkfifo /f && ln -s x /l && chown -h 7:7 /l && chmod 6755 /a && stat -c '%u %g %a' /a /l")
	a := l.do(job{Spec: s})
	if a.Out != "65535 33 6755\n7 7 777\n" {
		t.Errorf("got %q %q", a.Out, a.Err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(l.host(s.Upper+"/a"), &st); err != nil && os.Geteuid() == 0 {
		t.Fatal(err)
	}
	if want, _ := l.m.HostUID(65535); st.Uid != want {
		t.Errorf("owner on the host is %d, want %d", st.Uid, want)
	}
}

func TestRunExitAndExecErrors(t *testing.T) {
	l := newLab(t)
	bb := l.busybox()
	l.write(bb+"/plain", "no program", 0o644)
	l.write(bb+"/script", "#!/no/such/shell\n", 0o755)
	l.mkdir(strings.TrimPrefix(bb, StorePath+"/")+"/usr/bin/dir", 0o755)
	for _, c := range []struct {
		argv  []string
		exit  int
		code  int
		error string
	}{
		{[]string{"sh", "-c", "exit 42"}, 42, 0, ""},
		{[]string{"sh", "-c", "kill -9 $$; kill -TERM $$; exit 3"}, 3, 0, ""}, // process 1 is immune to itself
		{[]string{"true"}, 0, 0, ""},
		{[]string{"nope"}, 0, 127, `exec: "nope": executable file not found in $PATH`},
		{[]string{"dir"}, 0, 127, `exec: "dir": executable file not found in $PATH`},
		{[]string{"/bin/nope"}, 0, 127, `exec: "/bin/nope": stat /bin/nope: no such file or directory`},
		{[]string{"/plain"}, 0, 126, `exec: "/plain": permission denied`},
		{[]string{"/etc"}, 0, 126, `exec: "/etc": permission denied`},
		{[]string{"/script"}, 0, 127, `exec /script: no such file or directory`},
		{[]string{"/etc/passwd/x"}, 0, 126, `exec: "/etc/passwd/x": stat /etc/passwd/x: not a directory`},
	} {
		s := l.spec([]string{bb}, "")
		s.Argv = c.argv
		a := l.do(job{Spec: s})
		if a.Exit != c.exit || a.Error != c.error || a.ExecCode != c.code {
			t.Errorf("%q: exit %d, code %d, error %q; want %d, %d, %q", c.argv, a.Exit, a.ExecCode, a.Error, c.exit, c.code, c.error)
		}
	}
	s := l.spec([]string{bb}, "true")
	s.Dir = "/missing"
	if a := l.do(job{Spec: s}); !strings.Contains(a.Error, `chdir to "/missing": no such file or directory`) {
		t.Errorf("missing directory: %q", a.Error)
	}
	s = l.spec([]string{bb}, "pwd; cat")
	s.Dir = "/home/u"
	if a := l.do(job{Spec: s}); a.Out != "/home/u\n" {
		t.Errorf("working directory: %q %q", a.Out, a.Error)
	}
}

// TestRunDirIsNoWayOut: a working directory below /proc/self/fd must not be
// one that the node has open.
func TestRunDirIsNoWayOut(t *testing.T) {
	l := newLab(t)
	bb := l.busybox()
	for n := range 64 {
		s := l.spec([]string{bb}, "pwd -P; ls -a")
		s.Dir = fmt.Sprintf("/proc/self/fd/%d", n)
		if a := l.do(job{Spec: s}); a.Error == "" {
			t.Fatalf("entered %s: %q", s.Dir, a.Out)
		}
	}
}

func TestRunNetworkNone(t *testing.T) {
	l := newLab(t)
	bb := l.busybox()
	s := l.spec([]string{bb}, "ls /sys/class/net; ip addr show lo | grep -c 'inet 127.0.0.1'; ip link show lo | grep -c 'LOOPBACK,UP'; cat /proc/net/dev | wc -l")
	s.Network = NoNetwork
	if a := l.do(job{Spec: s}); a.Out != "lo\n1\n1\n3\n" {
		t.Errorf("got %q %q %s", a.Out, a.Err, a.Error)
	}
}

func TestRunHostNetwork(t *testing.T) {
	l := newLab(t)
	bb := l.busybox()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		c, err := ln.Accept()
		if err == nil {
			c.Write([]byte("hi\n"))
			c.Close()
		}
	}()
	port := ln.Addr().(*net.TCPAddr).Port
	if got := l.sh([]string{bb}, fmt.Sprintf("nc 127.0.0.1 %d </dev/null", port)); got != "hi" {
		t.Errorf("got %q", got)
	}
}

func TestRunDevices(t *testing.T) {
	l := newLab(t)
	bb := l.busybox()
	got := l.sh([]string{bb}, `ls /dev | tr '\n' ' '; echo; echo x > /dev/null && head -c 3 /dev/zero | wc -c && head -c 3 /dev/urandom | wc -c; readlink /dev/fd; readlink /dev/stdout; touch /dev/shm/x && stat -c %a /dev/shm; (echo y >/dev/full) 2>/dev/null || echo full; mount | grep -c ' /dev/mqueue '; ls /dev/pts`)
	core := ""
	if _, err := os.Lstat("/proc/kcore"); err == nil { // not every kernel has it
		core = "core "
	}
	want := core + "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero \n3\n3\n/proc/self/fd\n/proc/self/fd/1\n1777\nfull\n1\nptmx"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestRunMounts(t *testing.T) {
	l := newLab(t)
	bb := l.busybox()
	src := l.dir()
	rel := strings.TrimPrefix(src, StorePath+"/")
	l.mkdir(rel+"/sub", 0o755)
	l.write(src+"/sub/file", "data", 0o644)
	if err := os.Symlink("/sub/file", l.host(src+"/link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../../../etc/passwd", l.host(src+"/out")); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"ro", "rw", "t", "s"} {
		l.mkdir(strings.TrimPrefix(bb, StorePath+"/")+"/run/"+d, 0o755)
	}
	l.write(bb+"/run/f", "", 0o644)
	l.write(bb+"/run/secret", "", 0o644)
	s := l.spec([]string{bb}, `cat /run/ro/sub/file /run/f; (echo x > /run/ro/new) 2>&1 | grep -o 'Read-only.*'; echo y > /run/rw/new; stat -c %a /run/t; echo z > /run/t/z; cat /run/secret /etc/hosts; stat -c '%a %u:%g' /run/secret; (echo q >/etc/hosts) 2>&1 | grep -o 'Read-only.*'; ls /run/s; dd if=/dev/zero of=/run/t/big bs=1k count=100 2>&1 | grep -o 'No space.*'`)
	s.Mounts = []Mount{
		{Kind: BindMount, Source: src, Target: "/run/ro", ReadOnly: true},
		{Kind: BindMount, Source: src, Target: "/run/rw"},
		{Kind: BindMount, Source: src, Sub: "link", Target: "/run/f"},
		{Kind: TmpfsMount, Target: "/run/t", Size: 64 << 10, Mode: 0o1770},
		{Kind: BindMount, Source: src, Sub: "/sub/../sub", Target: "run/s"},
		{Kind: FileMount, Target: "/run/secret", Data: []byte("s3cret\n"), Mode: 0o400},
		{Kind: FileMount, Target: "/etc/hosts", Data: []byte("127.0.0.1 localhost\n"), Mode: 0o644, ReadOnly: true},
	}
	a := l.do(job{Spec: s})
	want := "datadataRead-only file system\n1770\ns3cret\n127.0.0.1 localhost\n400 0:0\nRead-only file system\nfile\nNo space left on device\n"
	if a.Out != want {
		t.Errorf("got %q\n%q %s, want %q", a.Out, a.Err, a.Error, want)
	}
	if data, err := os.ReadFile(l.host(src + "/new")); err != nil || string(data) != "y\n" {
		t.Errorf("written through the mount: %q, %v", data, err)
	}
	// A source's links lead nowhere outside.
	s = l.spec([]string{bb}, "cat /run/f")
	s.Mounts = []Mount{{Kind: BindMount, Source: src, Sub: "out", Target: "/run/f"}}
	if a := l.do(job{Spec: s}); !strings.Contains(a.Error, "no such file") {
		t.Errorf("bind of a link out: %q %q", a.Out, a.Error)
	}
	if a := l.do(job{Spec: func() RunSpec {
		s := l.spec([]string{bb}, "true")
		s.Mounts = []Mount{{Kind: TmpfsMount, Target: "/not/there"}}
		return s
	}()}); !strings.Contains(a.Error, "/not/there") {
		t.Errorf("missing mount point: %q", a.Error)
	}
}

// TestRunHostileRoot: links in the root where we mount lead nowhere outside.
func TestRunHostileRoot(t *testing.T) {
	l := newLab(t)
	for _, c := range []struct{ path, target string }{
		{"proc", "/store"}, {"proc", "../../../../../../store/layers"}, {"dev", "/.files"}, {"sys", "/proc"},
		{"etc/resolv.conf", "/../../../../store/victim"}, {"etc/resolv.conf", "/proc/self/root/store/victim"},
		{"dev", "/etc"}, {"etc", "/proc/1/root"},
	} {
		bb := l.busybox()
		victim := l.dir()
		p := l.host(bb + "/" + c.path)
		if err := os.RemoveAll(p); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(c.target, p); err != nil {
			t.Fatal(err)
		}
		s := l.spec([]string{bb}, "echo ran; cat /etc/resolv.conf; mount | wc -l")
		s.Mounts = []Mount{{Kind: FileMount, Target: "/etc/resolv.conf", Data: []byte("nameserver 1\n"), Mode: 0o644}}
		a := l.do(job{Spec: s}) // also checks the node's mounts
		if c.path == "dev" && c.target == "/etc" {
			// Inside the root: /etc is covered by our /dev, where resolv.conf is made.
			if a.Error != "" || !strings.Contains(a.Out, "nameserver 1") {
				t.Errorf("%s -> %s: %q %q", c.path, c.target, a.Out, a.Error)
			}
		} else if a.Error == "" && c.target != "/proc" { // which is a directory of the root
			t.Errorf("%s -> %s: ran: %q", c.path, c.target, a.Out)
		}
		entries, _ := os.ReadDir(l.host(victim))
		if len(entries) > 0 {
			t.Errorf("%s -> %s: something landed outside: %v", c.path, c.target, entries)
		}
	}
	// A link that stays inside is fine.
	bb := l.busybox()
	if err := os.Remove(l.host(bb + "/etc/resolv.conf")); err != nil {
		t.Fatal(err)
	}
	l.write(bb+"/run/real", "", 0o644)
	if err := os.Symlink("../run/real", l.host(bb+"/etc/resolv.conf")); err != nil {
		t.Fatal(err)
	}
	s := l.spec([]string{bb}, "cat /run/real")
	s.Mounts = []Mount{{Kind: FileMount, Target: "/etc/resolv.conf", Data: []byte("nameserver 1\n"), Mode: 0o644}}
	if a := l.do(job{Spec: s}); a.Out != "nameserver 1\n" {
		t.Errorf("link inside: %q %q", a.Out, a.Error)
	}
}

func TestRunManyLowers(t *testing.T) {
	l := newLab(t)
	bb := l.busybox()
	lowers := []string{}
	for i := range 127 {
		d := l.dir()
		l.write(fmt.Sprintf("%s/f%d", d, i), "", 0o644)
		lowers = append(lowers, d)
	}
	if got := l.sh(append(lowers, bb), "ls / | grep -c ^f"); got != "127" {
		t.Errorf("%s files of 127 layers are visible", got)
	}
}

func TestRunReadOnlyAndBindRoots(t *testing.T) {
	l := newLab(t)
	bb := l.busybox()
	script := []string{"/bin/sh", "-c", "echo x > /made 2>/dev/null; ls / | grep -c made; true"}
	for _, c := range []struct {
		name string
		s    RunSpec
		want string
	}{
		{"one read-only layer", RunSpec{Lower: []string{bb}}, "0\n"},
		{"two read-only layers", RunSpec{Lower: []string{l.dir(), bb}}, "0\n"},
		{"a directory as it is", RunSpec{Root: bb}, "1\n"},
	} {
		c.s.Argv, c.s.Env = script, []string{"PATH=/bin"}
		if a := l.do(job{Spec: c.s}); a.Out != c.want {
			t.Errorf("%s: %q %q %s", c.name, a.Out, a.Err, a.Error)
		}
	}
	if _, err := os.Stat(l.host(bb + "/made")); err != nil {
		t.Error(err)
	}
}

func TestRunLeavesNoProcess(t *testing.T) {
	l := newLab(t)
	bb := l.busybox()
	// A background process that keeps the output pipe, one that left the session.
	a := l.do(job{Spec: l.spec([]string{bb}, "sleep 1234 & (sleep 1235 </dev/null &) ; echo done")})
	if a.Out != "done\n" || a.Took > 2*time.Second {
		t.Errorf("got %q after %v", a.Out, a.Took)
	}
	if p := hostProcesses(t, "sleep\x00123"); len(p) > 0 {
		t.Errorf("left: %v", p)
	}
}

func TestRunCancel(t *testing.T) {
	l := newLab(t)
	bb := l.busybox()
	a := l.do(job{Spec: l.spec([]string{bb}, "trap '' TERM INT; sleep 1236 & echo started; while :; do sleep 1237; done"), Cancel: time.Millisecond})
	if a.Error != "context canceled" || a.Took > 2*time.Second {
		t.Errorf("got %q after %v", a.Error, a.Took)
	}
	if p := hostProcesses(t, "sleep\x00123"); len(p) > 0 {
		t.Errorf("left: %v", p)
	}
}

// hostProcesses lists processes of this machine by a part of their command line.
func hostProcesses(t *testing.T, part string) []string {
	t.Helper()
	var out []string
	names, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if data, err := os.ReadFile(n); err == nil && strings.Contains(string(data), part) {
			out = append(out, n)
		}
	}
	return out
}

func TestRunCannotReachAbstractSocketsOutside(t *testing.T) {
	if f, err := landlockScope(scopeSockets | scopeSignals); err != nil {
		t.Skipf("needs Landlock of Linux 6.12: %v", err)
	} else {
		f.Close()
	}
	l := newLab(t)
	bb := l.busybox()
	name := fmt.Sprintf("@sandbox-test-%d", os.Getpid())
	ln, err := net.Listen("unix", name)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	// busybox has no client for them; the list of sockets shows it is there.
	if got := l.sh([]string{bb}, "grep -c "+name+" /proc/net/unix"); got != "1" {
		t.Skipf("the socket is not in sight: %q", got)
	}
	l.helper(bb)
	s := l.spec([]string{bb}, "")
	s.Argv = []string{"/helper", "connect-abstract", name}
	if a := l.do(job{Spec: s}); a.Exit != 7 {
		t.Errorf("connected, or could not try: exit %d %q %q %s", a.Exit, a.Out, a.Err, a.Error)
	}
}

// many is a node that runs steps side by side while memory is collected.
func many(ctx context.Context, in *Inside) error {
	var s RunSpec
	if err := json.NewDecoder(in.Files[0]).Decode(&s); err != nil {
		return err
	}
	var wg sync.WaitGroup
	errs := make(chan error, 100)
	for i := range 8 {
		wg.Go(func() {
			for k := range 10 {
				s := s
				dir := filepath.Join(StorePath, "layers", fmt.Sprintf("many-%d-%d", i, k))
				s.Upper, s.Work = dir+"/u", dir+"/w"
				var out bytes.Buffer
				s.Stdout = &out
				if err := errors.Join(os.MkdirAll(s.Upper, 0o755), os.MkdirAll(s.Work, 0o755)); err != nil {
					errs <- err
					return
				}
				s.Argv = []string{"/bin/sh", "-c", fmt.Sprintf("echo %d-%d; exit %d", i, k, k)}
				r, err := in.Run(ctx, s)
				if want := fmt.Sprintf("%d-%d\n", i, k); err != nil || r.Exit != k || out.String() != want {
					errs <- fmt.Errorf("step %s: exit %d, output %q, error %v", want, r.Exit, out.String(), err)
				}
				os.RemoveAll(dir)
				runtime.GC()
			}
		})
	}
	wg.Wait()
	close(errs)
	all := []error{}
	for err := range errs {
		all = append(all, err)
	}
	return errors.Join(all...)
}

func TestRunManyAtOnce(t *testing.T) {
	l := newLab(t)
	bb := l.busybox()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	n, err := StartNode(t.Context(), NodeSpec{Rung: here(t).Rung, Map: l.m, Store: l.store, Entry: "many", Files: []*os.File{r}})
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	if err := json.NewEncoder(w).Encode(RunSpec{Lower: []string{bb}, Env: []string{"PATH=/bin"}}); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := n.Wait(); err != nil {
		t.Error(err)
	}
	n.Close()
}

// TestRunCannotChangeThisProgram: the program of the node is process 1 for a
// moment, and a RUN can even ask for it by name.
func TestRunCannotChangeThisProgram(t *testing.T) {
	l := newLab(t)
	bb := l.busybox()
	var before unix.Stat_t
	if err := unix.Stat("/proc/self/exe", &before); err != nil {
		t.Fatal(err)
	}
	l.helper(bb)
	s := l.spec([]string{bb}, "")
	// As this test binary it would run tests: ask for none of them, twice.
	s.Argv = []string{"/proc/self/exe", "-test.run=^$"}
	l.do(job{Spec: s})
	if got := l.sh([]string{bb}, "readlink /proc/1/exe"); got != "/bin/busybox" {
		t.Errorf("process 1 is %q", got)
	}
	var after unix.Stat_t
	if err := unix.Stat("/proc/self/exe", &after); err != nil {
		t.Fatal(err)
	}
	if after.Ctim != before.Ctim {
		t.Error("this program was changed")
	}
}

func BenchmarkRunTrue(b *testing.B) {
	l := newLab(b)
	bb := l.busybox()
	var took time.Duration
	s := l.spec([]string{bb}, "")
	s.Argv = []string{"/bin/true"}
	for b.Loop() {
		s.Upper, s.Work = l.dir(), l.dir()
		a := l.do(job{Spec: s})
		if a.Error != "" {
			b.Fatal(a.Error)
		}
		took += a.Took
	}
	b.ReportMetric(float64(took.Microseconds())/1000/float64(b.N), "ms/run")
}

func BenchmarkStartNode(b *testing.B) {
	c := here(b)
	store := storeDir(b, c.Map)
	for b.Loop() {
		n, err := StartNode(b.Context(), NodeSpec{Rung: c.Rung, Map: c.Map, Store: store, Entry: "hang"})
		if err != nil {
			b.Fatal(err)
		}
		n.Close()
	}
}
