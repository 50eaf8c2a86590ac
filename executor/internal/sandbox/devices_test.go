package sandbox

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// substitute lays an empty file for a device into a root.
func (l *lab) substitute(path, record string) {
	l.t.Helper()
	l.write(path, "", 0o600)
	if err := unix.Setxattr(l.host(path), overrideXattr, []byte(record), 0); err != nil {
		l.t.Skipf("needs user extended attributes: %v", err)
	}
}

func (l *lab) modeOf(path string) string {
	l.t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(l.host(path), &st); err != nil {
		l.t.Fatal(err)
	}
	uid, _ := l.m.HostUID(0)
	gid, _ := l.m.HostGID(0)
	return fmt.Sprintf("%o root:%v size:%d", st.Mode, st.Uid == uid && st.Gid == gid, st.Size)
}

func TestDevicesMadeInARun(t *testing.T) {
	l := newLab(t)
	l.full()
	bb := l.busybox()
	for _, aware := range []bool{false, true} {
		s := l.spec([]string{bb}, `set -e
			umask 027; mknod /a c 1 5; mknod -m 640 /b b 7 300; mkdir /d; chmod 2755 /d; chgrp 6 /d; chmod g+s /d; mknod /d/c c 0 1
			mknod /gone c 1 3; rm /gone; mknod /moved c 1 3; mv /moved /m; ln /m /m2; chown 3:4 /m; chmod 1666 /m2
			mkdir /r /r/dev; cp -a /bin /r; chroot /r /bin/mknod /dev/null c 1 3; mkdir /e; (cd /e; mknod ../e/rel b 8 1); mknod /pipe p
			mknod /zero c 0 0 2>/dev/null && echo zero; mknod /a c 1 5 2>/dev/null && echo again; mknod /no/a c 1 5 2>/dev/null && echo nowhere
			mknod /proc/x c 1 5 2>/dev/null && echo proc; mknod /dev/x c 1 5 2>/dev/null && echo dev
			su u -c 'mknod /tmp/u c 1 5' 2>/dev/null && echo user; test -e /zero && echo left; test -e /tmp/u && echo left; true`)
		s.Devices = aware
		a := l.do(job{Spec: s})
		if a.Exit != 0 || a.Error != "" || a.Out != "" && a.Out != "dev\n" { // a tmpfs has attributes since Linux 6.6
			t.Errorf("aware %v: exit %d %s, out %q, err %q", aware, a.Exit, a.Error, a.Out, a.Err)
			continue
		}
		for path, want := range map[string]string{
			"/a": fmt.Sprint("20640 0 0 ", unix.Mkdev(1, 5)), "/b": fmt.Sprint("60640 0 0 ", unix.Mkdev(7, 300)), "/d/c": "20640 0 6 1",
			"/m": fmt.Sprint("21666 3 4 ", unix.Mkdev(1, 3)), "/m2": fmt.Sprint("21666 3 4 ", unix.Mkdev(1, 3)),
			"/r/dev/null": fmt.Sprint("20640 0 0 ", unix.Mkdev(1, 3)), "/e/rel": fmt.Sprint("60640 0 0 ", unix.Mkdev(8, 1)),
		} {
			if got := l.recordOf(s.Upper + path); got != want {
				t.Errorf("aware %v: record of %s: %q, want %q", aware, path, got, want)
			}
			if got := l.modeOf(s.Upper + path); got != "100600 root:true size:0" {
				t.Errorf("aware %v: %s on disk: %s", aware, path, got)
			}
		}
	}
}

func TestDevicesOfTheBaseAreSeen(t *testing.T) {
	l := newLab(t)
	l.full()
	bb := l.busybox()
	l.substitute(bb+"/null", fmt.Sprint("20666 0 5 ", unix.Mkdev(1, 3)))
	l.substitute(bb+"/disk", fmt.Sprint("60660 0 6 ", unix.Mkdev(8, 17)))
	l.substitute(bb+"/hole", "20666 0 0 0")
	l.substitute(bb+"/junk", "rubbish")
	l.substitute(bb+"/mine", fmt.Sprint("20666 0 0 ", unix.Mkdev(1, 3)))
	l.substitute(bb+"/owner", "100600 7 7 0")
	if err := os.Chmod(l.host(bb+"/mine"), 0o666); err != nil { // anybody could have written its record
		t.Fatal(err)
	}
	s := l.spec([]string{bb}, `cd /; stat -c '%n %u:%g %a %F %t:%T' /null disk hole junk mine owner
		ls -ln null | tr -s ' ' | cut -c 1-18; test -c /null && echo char; test -b /disk && echo block; [ -c /junk ] || echo none
		mkdir /r && cp -a /bin /null /r && chroot /r /bin/stat -c '%n %F %t:%T' /null ../null
		chmod 600 /null && chown 9:9 /null && touch /disk && stat -c '%n %u:%g %a %F %t:%T' /null
		su u -c 'chmod 777 /disk 2>/dev/null || echo denied; chown u /disk 2>/dev/null || echo denied; stat -c %F /disk'
		mknod /own c 1 9 && stat -c '%F %t:%T' /own; rm /hole && mv /disk /hole && stat -c '%F' /hole`)
	s.Devices = true
	a := l.do(job{Spec: s})
	want := `/null 0:5 666 character special file 1:3
disk 0:6 660 block special file 8:11
hole 0:0 600 regular empty file 0:0
junk 0:0 600 regular empty file 0:0
mine 0:0 666 regular empty file 0:0
owner 0:0 600 regular empty file 0:0
crw-rw-rw- 1 0 5 1
char
block
none
/null character special file 1:3
../null character special file 1:3
/null 9:9 600 character special file 1:3
denied
denied
block special file
character special file 1:9
block special file
`
	if a.Out != want || a.Exit != 0 {
		t.Errorf("got\n%s(exit %d %q %s)\nwant\n%s", a.Out, a.Exit, a.Err, a.Error, want)
	}
	for path, want := range map[string]string{"/null": fmt.Sprint("20600 9 9 ", unix.Mkdev(1, 3)), "/hole": fmt.Sprint("60660 0 6 ", unix.Mkdev(8, 17)), "/r/null": fmt.Sprint("20666 0 5 ", unix.Mkdev(1, 3))} {
		if got := l.recordOf(s.Upper + path); got != want {
			t.Errorf("record of %s: %q, want %q", path, got, want)
		}
	}
}

// A RUN that makes no device never waits for its supervisor: the filter that it
// has in addition allows everything else.
func BenchmarkRunStat(b *testing.B) {
	for _, aware := range []bool{false, true} {
		b.Run(fmt.Sprintf("devices=%v", aware), func(b *testing.B) {
			l := newLab(b)
			l.full()
			bb := l.busybox()
			s := l.spec([]string{bb}, "")
			s.Devices = aware
			for b.Loop() {
				s.Upper, s.Work = l.dir(), l.dir()
				s.Argv = []string{"/bin/sh", "-c", "i=0; while test $i -lt 10000; do test -e /etc/passwd; i=$((i+1)); done"}
				a := l.do(job{Spec: s})
				b.ReportMetric(float64(a.Took.Microseconds())/10000, "us/stat")
			}
		})
	}
}
