package sandbox

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDebian does what Dockerfiles do on a real Debian root, on both rungs:
// SANDBOX_TEST_DEBIAN is the path of one, as made by
// debootstrap --variant=minbase --include=sudo,adduser bookworm.
func TestDebian(t *testing.T) {
	needRoot(t)
	from := os.Getenv("SANDBOX_TEST_DEBIAN")
	if from == "" {
		t.Skip("needs SANDBOX_TEST_DEBIAN, the path of a Debian root")
	}
	for _, c := range Candidates() {
		t.Run(string(c.Rung), func(t *testing.T) {
			l := newLabOn(t, c)
			root := l.dir()
			l.copyRoot(from, root)
			mounts := []Mount{}
			for _, name := range []string{"/etc/resolv.conf", "/etc/hosts"} {
				if data, err := os.ReadFile(name); err == nil {
					mounts = append(mounts, Mount{Kind: FileMount, Target: name, Data: data, Mode: 0o644, ReadOnly: true})
				}
			}
			env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive"}
			for _, e := range os.Environ() {
				if strings.Contains(strings.ToLower(e), "_proxy=") {
					env = append(env, e)
				}
			}
			lower := []string{root}
			do := func(uid uint32, script string) string {
				t.Helper()
				s := RunSpec{Lower: lower, Upper: l.dir(), Work: l.dir(), Env: env, Mounts: mounts, UID: uid, GID: uid, Argv: []string{"/bin/bash", "-euc", script}}
				a := l.do(job{Spec: s})
				t.Logf("%s: %v, %d owners", strings.SplitN(strings.TrimSpace(script), "\n", 2)[0], a.Took, len(a.Owners))
				if a.Exit != 0 || a.Error != "" {
					t.Errorf("%s: exit %d %s\n%s\n%s", script, a.Exit, a.Error, a.Out, a.Err)
				}
				lower = append([]string{s.Upper}, lower...)
				return strings.TrimSpace(a.Out)
			}
			expect := func(got, want string) {
				t.Helper()
				if got != want {
					t.Errorf("got\n%s\nwant\n%s", got, want)
				}
			}
			expect(do(0, `useradd -m -u 1500 -s /bin/bash ann; adduser --disabled-password --gecos '' --uid 1501 bob >/dev/null; addgroup --system svc >/dev/null; echo 'ann:pw' | chpasswd; usermod -aG sudo ann; echo 'ann ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/ann; stat -c '%u:%g %a' /home/ann /home/ann/.bashrc /home/bob /etc/shadow; id ann`),
				"1500:1500 755\n1500:1500 644\n1501:1501 700\n0:42 640\nuid=1500(ann) gid=1500(ann) groups=1500(ann),27(sudo)")
			expect(do(0, `su ann -c 'id -u; id -un; cd; touch mine; stat -c %U:%G mine'; su - bob -c 'pwd; id -u'; setpriv --reuid=1500 --regid=1500 --init-groups id -u; runuser -u ann -- id -u`),
				"1500\nann\nann:ann\n/home/bob\n1501\n1500\n1500")
			expect(do(1500, `id -u; sudo id -u; sudo -u bob id -un; sudo install -o bob -g svc -m 2750 -d /srv/x; stat -c '%U:%G %a' /srv/x; sudo touch /root/r; whoami; stat -c %u /home/ann/mine`),
				"1500\n0\nbob\nbob:svc 2750\nann\n1500")
			if os.Getenv("SANDBOX_TEST_APT") != "" {
				do(0, `apt-get update -qq; apt-get install -y --no-install-recommends openssh-client man-db >/dev/null; dpkg -l man-db | grep -c ^ii; stat -c '%U:%G' /var/cache/man; dpkg --verify; stat -c '%U:%G %a' /usr/bin/ssh-agent`)
			}
			expect(do(0, `mkdir /t && cd /t && touch a b && chown 7:8 a && ln -s a l && chown -h 9:9 l && tar cf /t.tar . && mkdir /u && tar xpf /t.tar -C /u && stat -c '%n %u:%g' /u/a /u/l; python3 -c 1 2>/dev/null || true; find / -xdev -user 1500 | sort | head -3`),
				"/u/a 7:8\n/u/l 9:9\n/home/ann\n/home/ann/.bash_logout\n/home/ann/.bashrc")
		})
	}
}

// copyRoot copies a root of the host into the store, with owners as the map can have them.
func (l *lab) copyRoot(from, to string) {
	l.t.Helper()
	if out, err := exec.CommandContext(l.t.Context(), "cp", "-a", from+"/.", l.host(to)).CombinedOutput(); err != nil {
		l.t.Fatalf("cp: %v: %s", err, out)
	}
	err := filepath.WalkDir(l.host(to), func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		if st.Mode&unix.S_IFMT == unix.S_IFCHR || st.Mode&unix.S_IFMT == unix.S_IFBLK {
			return os.Remove(p)
		}
		uid, ok1 := l.m.HostUID(st.Uid)
		gid, ok2 := l.m.HostGID(st.Gid)
		if !ok1 || !ok2 {
			uid, _ = l.m.HostUID(0)
			gid, _ = l.m.HostGID(0)
			if d.IsDir() || d.Type().IsRegular() {
				if err := unix.Setxattr(p, overrideXattr, fmt.Appendf(nil, overrideFormat, st.Mode, st.Uid, st.Gid, 0), 0); err != nil {
					return err
				}
			}
		}
		if err := os.Lchown(p, int(uid), int(gid)); err != nil {
			return err
		}
		if d.Type()&fs.ModeSymlink == 0 {
			return unix.Chmod(p, st.Mode&0o7777)
		}
		return nil
	})
	if err != nil {
		l.t.Fatal(err)
	}
}
