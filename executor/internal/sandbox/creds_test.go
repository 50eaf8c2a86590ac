package sandbox

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestCredsFollowTheRules(t *testing.T) {
	root, user := ids{}, ids{1000, 1000, 1000, 1000}
	saved := ids{1000, 1000, 0, 1000} // seteuid(1000) by root, with real given up
	for _, c := range []struct {
		name  string
		got   ids
		errno unix.Errno
		want  ids
		fails unix.Errno
	}{
		first(root.set(5, true))("root setuid", ids{5, 5, 5, 5}, 0),
		first(user.set(0, false))("user setuid 0", user, unix.EPERM),
		first(user.set(1000, false))("user setuid self", user, 0),
		first(saved.set(0, false))("back to the saved one", ids{1000, 0, 0, 0}, 0),
		first(root.set(keep, true))("setuid -1", root, unix.EINVAL),
		first(root.setres(keep, 1000, keep, true))("root seteuid", ids{0, 1000, 0, 1000}, 0),
		first(ids{0, 1000, 0, 1000}.setres(keep, 0, keep, false))("and back", root, 0),
		first(user.setres(keep, keep, 0, false))("user setresuid", user, unix.EPERM),
		first(root.setre(1000, 1000, true))("root setreuid", ids{1000, 1000, 1000, 1000}, 0),
		first(root.setre(keep, 1000, true))("root setreuid effective", ids{0, 1000, 1000, 1000}, 0),
		first(user.setre(0, keep, false))("user setreuid", user, unix.EPERM),
	} {
		if c.got != c.want || c.errno != c.fails {
			t.Errorf("%s: %v, %v; want %v, %v", c.name, c.got, c.errno, c.want, c.fails)
		}
	}
	k := newCreds(0, 0, nil)
	k.keepCaps = true
	if k = k.become(user); !k.privileged() || k.executed(0, 0, 0).privileged() {
		t.Error("capabilities kept by prctl last until exec")
	}
	if newCreds(0, 0, nil).become(user).privileged() {
		t.Error("capabilities outlive the user")
	}
	c := newCreds(1000, 1000, []uint32{7, 8})
	if !c.inGroup(8) || !c.inGroup(1000) || c.inGroup(9) {
		t.Error("inGroup is wrong")
	}
	if x := c.executed(unix.S_IFREG|unix.S_ISUID|0o755, 0, 0); !x.privileged() || x.uid.real != 1000 || x.uid.saved != 0 {
		t.Errorf("exec of a setuid file: %+v", x)
	}
}

type credCase = struct {
	name  string
	got   ids
	errno unix.Errno
	want  ids
	fails unix.Errno
}

func first(got ids, errno unix.Errno) func(name string, want ids, fails unix.Errno) credCase {
	return func(name string, want ids, fails unix.Errno) credCase { return credCase{name, got, errno, want, fails} }
}
