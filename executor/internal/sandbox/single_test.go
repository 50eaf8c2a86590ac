package sandbox

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// singleLab is a node with one id.
func singleLab(t testing.TB) *lab {
	t.Helper()
	for _, c := range Candidates() {
		if c.Rung == UsernsSingle {
			if c.Why != "" {
				t.Skipf("needs user namespaces: %s", c.Why)
			}
			return newLabOn(t, c)
		}
	}
	t.Fatal("no candidate")
	return nil
}

// recordOf reads what is recorded of a file of an upper.
func (l *lab) recordOf(path string) string {
	l.t.Helper()
	buf := make([]byte, 128)
	n, err := unix.Lgetxattr(l.host(path), overrideXattr, buf)
	if err != nil {
		return err.Error()
	}
	return string(buf[:n])
}

func TestSingleOwners(t *testing.T) {
	l := singleLab(t)
	bb := l.busybox()
	s := l.spec([]string{bb}, `set -e
		touch /a /b && chown 65535:33 /a && chmod 6755 /a && stat -c '%u:%g %a' /a
		mkdir -p /d/e && chown -R 7:8 /d && stat -c '%u:%g %a %F' /d /d/e
		chown 0:0 /a && stat -c '%u:%g %a' /a && chown 1:1 /a
		chown 5 /etc/passwd && stat -c '%u:%g' /etc/passwd
		mv /b /c && chown 9:9 /c && mv /c /b && ln /b /b2 && stat -c '%u:%g %h' /b2
		chgrp 42 /b && stat -c '%u:%g' /b2
		cp -a /b /copy && stat -c '%u:%g' /copy
		ln -s /b /l && chown -h 3:4 /l && stat -c '%u:%g' /l && stat -L -c '%u:%g' /l
		mkfifo /f && chown 2:2 /f && stat -c '%u:%g %F' /f
		mknod /dev2 c 1 7 && stat -c '%u:%g %F %t:%T' /dev2 && chown 0:6 /dev2 && chmod 660 /dev2 && stat -c '%u:%g %F %t:%T %a' /dev2
		ls -ln /b | tr -s ' ' | cut -d' ' -f 3,4 2>/dev/null || true
		cd /d && chown 70:71 e && stat -c '%u:%g' /d/e && cd / && find /d -user 70`)
	a := l.do(job{Spec: s})
	want := `65535:33 6755
7:8 755 directory
7:8 755 directory
0:0 755
5:0
9:9 2
9:42
9:42
3:4
9:42
2:2 fifo
0:0 character special file 1:7
0:6 character special file 1:7 660
70:71
/d/e
`
	if got := strings.Replace(a.Out, "9 42\n", "", 1); got != want || a.Exit != 0 {
		t.Errorf("got\n%s(exit %d, %s %s)\nwant\n%s", a.Out, a.Exit, a.Err, a.Error, want)
	}
	for path, want := range map[string]string{
		"/a": "100755 1 1 0", "/d/e": "40755 70 71 0", "/etc/passwd": "100644 5 0 0", "/b": "100644 9 42 0", "/copy": "100644 9 42 0",
		"/dev2": fmt.Sprintf("20660 0 6 %d", unix.Mkdev(1, 7)),
	} {
		if got := l.recordOf(s.Upper + path); got != want {
			t.Errorf("record of %s: %q, want %q", path, got, want)
		}
	}
	owners := map[inode]Owner{}
	for _, o := range a.Owners {
		owners[inode{o.Dev, o.Ino}] = o
	}
	for path, want := range map[string]Owner{"/l": {UID: 3, GID: 4}, "/f": {UID: 2, GID: 2}} {
		var st unix.Stat_t
		if err := unix.Lstat(l.host(s.Upper+path), &st); err != nil {
			t.Fatal(err)
		}
		o, ok := owners[inode{st.Dev, st.Ino}]
		if !ok || o.UID != want.UID || o.GID != want.GID {
			t.Errorf("owner of %s: %+v (known: %v), want %+v; all: %+v", path, o, ok, want, a.Owners)
		}
	}
	if len(a.Owners) != 2 {
		t.Errorf("owners: %+v", a.Owners)
	}
}

func TestSingleLinksOfLowerLayersAndRemovedOnes(t *testing.T) {
	l := singleLab(t)
	bb := l.busybox()
	s := l.spec([]string{bb}, `set -e; chown -h 5:5 /bin/ls; stat -c %u:%g /bin/ls; ln -s x /gone; chown -h 6:6 /gone; rm /gone; ln -s y /new; stat -c %u:%g /new; mv /bin/ls /bin/ls2; stat -c %u:%g /bin/ls2`)
	a := l.do(job{Spec: s})
	if a.Out != "5:5\n0:0\n5:5\n" {
		t.Errorf("got %q %q %s", a.Out, a.Err, a.Error)
	}
	var st unix.Stat_t
	if err := unix.Lstat(l.host(s.Upper+"/bin/ls2"), &st); err != nil {
		t.Fatal(err)
	}
	if want := (Owner{st.Dev, st.Ino, 5, 5}); len(a.Owners) != 1 || a.Owners[0] != want {
		t.Errorf("owners %+v, want %+v", a.Owners, want)
	}
}

func TestSingleUser(t *testing.T) {
	l := singleLab(t)
	bb := l.busybox()
	s := l.spec([]string{bb}, `id -u; id -g; id -G; touch /tmp/mine; mkdir /tmp/dir; ln -s a /tmp/link; mkfifo /tmp/fifo; echo x > /tmp/dir/file; echo y >> /tmp/dir/file; cat /tmp/dir/file
		stat -c '%n %u:%g %a' /tmp/mine /tmp/dir /tmp/link /tmp/fifo /tmp/dir/file
		chown 0 /tmp/mine 2>/dev/null || echo denied; chgrp 7 /tmp/mine && stat -c %g /tmp/mine; chmod 600 /etc/passwd 2>/dev/null || echo denied; mknod /tmp/n c 1 3 2>/dev/null || echo denied; (id -u); sh -c 'sh -c "id -u"'; echo z > /dev/stdout`)
	s.UID, s.GID, s.Groups = 1000, 1001, []uint32{1001, 7}
	a := l.do(job{Spec: s})
	want := `1000
1001
1001 7
x
y
/tmp/mine 1000:1001 644
/tmp/dir 1000:1001 755
/tmp/link 1000:1001 777
/tmp/fifo 1000:1001 644
/tmp/dir/file 1000:1001 644
denied
7
denied
denied
1000
1000
z
`
	if a.Out != want {
		t.Errorf("got\n%s(exit %d, %q %s)\nwant\n%s", a.Out, a.Exit, a.Err, a.Error, want)
	}
	if got := l.recordOf(s.Upper + "/tmp/dir/file"); got != "100644 1000 1001 0" {
		t.Errorf("record: %q", got)
	}
}

func TestSingleSetuidFilesAndSu(t *testing.T) {
	l := singleLab(t)
	bb := l.busybox()
	data, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	l.write(bb+"/usr/bin/su", string(data), 0o755|os.ModeSetuid)
	l.write(bb+"/etc/passwd", "root::0:0:root:/root:/bin/sh\nu:x:1000:1000::/home/u:/bin/sh\n", 0o644)
	l.write(bb+"/etc/shadow", "root::1::::::\n", 0o600)
	s := l.spec([]string{bb}, "id -u; /usr/bin/su -c 'id -u; chown 5:5 /tmp && stat -c %u /tmp' root; id -u")
	s.UID, s.GID = 1000, 1000
	if a := l.do(job{Spec: s}); a.Out != "1000\n0\n5\n1000\n" {
		t.Errorf("user to root: got %q %q exit %d %s", a.Out, a.Err, a.Exit, a.Error)
	}
	if got := l.sh([]string{bb}, "su u -c 'id -u; id -g; touch /tmp/x; (sleep 0.1; id -u > /tmp/y) & wait'; stat -c %u /tmp/x; cat /tmp/y; id -u"); got != "1000\n1000\n1000\n1000\n0" {
		t.Errorf("root to user: got %q", got)
	}
}

func TestSingleSeesRecordsOfLowerLayers(t *testing.T) {
	l := singleLab(t)
	bb := l.busybox()
	l.write(bb+"/etc/owned", "x", 0o640)
	if err := unix.Setxattr(l.host(bb+"/etc/owned"), overrideXattr, []byte("100640 12 34 0"), 0); err != nil {
		t.Skipf("needs user extended attributes: %v", err)
	}
	s := l.spec([]string{bb}, "stat -c '%u:%g %a' /etc/owned; chmod 600 /etc/owned; stat -c '%u:%g %a' /etc/owned; chroot / stat -c %u /etc/owned; mkdir /r && cp -a /bin /etc /r && chroot /r /bin/stat -c '%u:%g' /etc/owned /etc/../../etc/owned")
	a := l.do(job{Spec: s})
	if a.Out != "12:34 640\n12:34 600\n12\n12:34\n12:34\n" {
		t.Errorf("got %q %q %s", a.Out, a.Err, a.Error)
	}
	if got := l.recordOf(s.Upper + "/etc/owned"); got != "100600 12 34 0" {
		t.Errorf("record %q", got)
	}
}

func TestSingleDescriptorsAndOddPaths(t *testing.T) {
	l := singleLab(t)
	bb := l.busybox()
	got := l.sh([]string{bb}, `ln -s /dev/stdout /log; chown 5:5 /dev/stdout /log && echo ok; chown 5 /nope 2>&1 | grep -o 'No such.*'; chown 5 /proc/self/fd/99 2>&1 | grep -o 'No such.*'; chown 5 /proc/version 2>/dev/null || echo refused; touch /x; chown 4:4 /x/ 2>&1 | grep -o 'Not a.*'; chown 3 ../../../../x && stat -c %u /x`)
	if got != "ok\nNo such file or directory\nNo such file or directory\nrefused\nNot a directory\n3" {
		t.Errorf("got %q", got)
	}
}

func BenchmarkSingleStat(b *testing.B) {
	l := singleLab(b)
	bb := l.busybox()
	s := l.spec([]string{bb}, "")
	for b.Loop() {
		s.Upper, s.Work = l.dir(), l.dir()
		s.Argv = []string{"/bin/sh", "-c", "i=0; while test $i -lt 10000; do test -e /etc/passwd; i=$((i+1)); done"}
		a := l.do(job{Spec: s})
		b.ReportMetric(float64(a.Took.Microseconds())/10000, "us/stat")
	}
}

func TestSingleGroupsAreSorted(t *testing.T) {
	l := singleLab(t)
	bb := l.busybox()
	s := l.spec([]string{bb}, "id -G")
	s.UID, s.GID, s.Groups = 5, 1234, []uint32{2002, 100, 7}
	if a := l.do(job{Spec: s}); a.Out != "1234 7 100 2002\n" {
		t.Errorf("got %q %q %s", a.Out, a.Err, a.Error)
	}
}

func TestSingleOwnerOfABind(t *testing.T) {
	l := singleLab(t)
	bb, shown := l.busybox(), l.dir()
	l.write(shown+"/agent", "", 0o660)
	if err := os.Remove(l.host(shown + "/agent")); err != nil {
		t.Fatal(err)
	}
	socket, err := net.Listen("unix", l.host(shown+"/agent"))
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	l.own(l.host(shown + "/agent"))
	l.write(bb+"/agent", "", 0o600)
	s := l.spec([]string{bb}, "stat -c '%u:%g %F' /agent; chown 0:0 /agent; stat -c '%u:%g' /agent")
	s.Mounts = []Mount{{Kind: BindMount, Target: "/agent", Source: shown + "/agent", UID: 11, GID: 12}}
	a := l.do(job{Spec: s})
	if a.Out != "11:12 socket\n0:0\n" || len(a.Owners) != 0 {
		t.Errorf("got %q %q %s, owners %v", a.Out, a.Err, a.Error, a.Owners)
	}
}
