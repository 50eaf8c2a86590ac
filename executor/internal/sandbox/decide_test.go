package sandbox

import (
	"strings"
	"testing"
)

func TestCandidates(t *testing.T) {
	ordinary := facts{UID: 1000, GID: 1001, User: "ann", MaxUserNS: 100, Helpers: true, HelpersWork: true,
		SubUIDs: []Range{{0, 100000, 65536}}, SubGIDs: []Range{{0, 200000, 65536}},
		Used: []Range{{0, 0, 1}, {0, 1000, 1}, {0, 100000, 65536}, {0, 200000, 65536}}}
	with := func(change func(f *facts)) facts { f := ordinary; change(&f); return f }
	for _, c := range []struct {
		name   string
		f      facts
		full   string // name of the map, "" for none
		why    string // part of the reason
		remedy string
		single bool
	}{
		{"root", facts{UID: 0, MaxUserNS: 100}, "u0.1879048192.65536", "", "", true},
		{"root where the first range is in use", facts{UID: 0, MaxUserNS: 100, Used: []Range{{0, 0x70000000 + 5, 1}}}, "u0.1879113728.65536", "", "", true},
		{"root in a container's user namespace", facts{UID: 0, MaxUserNS: 100, OwnUIDs: []Range{{0, 100000, 65536}}, OwnGIDs: []Range{{0, 100000, 65536}}}, "u0.0.65536", "", "", true},
		{"root in a small user namespace", facts{UID: 0, MaxUserNS: 100, OwnUIDs: []Range{{0, 1000, 1}}, OwnGIDs: []Range{{0, 1000, 1}}}, "", "no 65536 ids", "", true},
		{"root never maps the host's root", facts{UID: 0, MaxUserNS: 100, OwnUIDs: []Range{{0, 0, 65536}}, OwnGIDs: []Range{{0, 0, 65536}}}, "", "no 65536 ids", "", false},
		{"ordinary user", ordinary, "u0.1000.1_1.100000.65535_g0.1001.1_1.200000.65535", "", "", true},
		{"two small ranges", with(func(f *facts) { f.SubUIDs = []Range{{0, 5000, 10}, {0, 7000, 20}}; f.SubGIDs = f.SubUIDs }), "u0.1000.1_1.5000.10_11.7000.20_g0.1001.1_1.5000.10_11.7000.20", "", "", true},
		{"no subuid", with(func(f *facts) { f.SubUIDs = nil }), "", "user ann has no ids in /etc/subuid", "sudo usermod --add-subuids 265536-331071 --add-subgids 265536-331071 ann", true},
		{"no helper", with(func(f *facts) { f.Helpers = false }), "", "newuidmap and newgidmap are not installed", "sudo apt-get install -y uidmap", true},
		{"helper without privilege", with(func(f *facts) { f.HelpersWork = false }), "", "no privilege", "chmod u+s", true},
		{"no new privileges", with(func(f *facts) { f.NoNewPrivs = true }), "", "no_new_privs", "allowPrivilegeEscalation: true", true},
		{"namespaces off", with(func(f *facts) { f.MaxUserNS = 0 }), "", "user.max_user_namespaces=0", "sudo sysctl -w user.max_user_namespaces=15000", false},
		{"namespaces for root only", with(func(f *facts) { f.UserNSOff = true }), "", "kernel.unprivileged_userns_clone=0", "sudo sysctl -w kernel.unprivileged_userns_clone=1", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := candidates(c.f)
			full, single := got[0], got[1]
			if c.full != "" {
				name := IDMap{full.Map.UIDs, full.Map.GIDs}
				u, g := text(name.UIDs, "."), text(name.GIDs, ".")
				text := "u" + u
				if u != g {
					text += "_g" + g
				}
				if text != c.full || full.Why != "" {
					t.Errorf("map %s (%s), want %s", text, full.Why, c.full)
				}
			} else if !strings.Contains(full.Why, c.why) || !strings.Contains(full.Remedy, c.remedy) {
				t.Errorf("why %q, remedy %q; want %q, %q", full.Why, full.Remedy, c.why, c.remedy)
			}
			if id, _ := single.Map.HostUID(0); c.f.UID == 0 && c.f.OwnUIDs == nil && id == 0 {
				t.Errorf("root's single id is the host's root")
			}
			if (single.Why == "") != c.single {
				t.Errorf("userns-single: why %q", single.Why)
			}
		})
	}
}

func TestExplain(t *testing.T) {
	user := facts{UID: 1000, User: "ann"}
	for _, c := range []struct {
		name   string
		f      facts
		rung   Rung
		a      attempt
		why    string
		remedy string
	}{
		{"seccomp", facts{Seccomp: true}, Userns, attempt{opClone, "EPERM", "x"}, "seccomp filter", "seccomp=unconfined"},
		{"limit", user, Userns, attempt{opClone, "ENOSPC", "x"}, "limit of user namespaces", "user.max_user_namespaces"},
		{"ubuntu", facts{UID: 1000, AppArmor: true}, Userns, attempt{opSetup, "EACCES", "x"}, "AppArmor", "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"},
		{"masked proc", user, Userns, attempt{opProc, "EPERM", "x"}, "masks", "procMount: Unmasked"},
		{"container's root", user, Userns, attempt{opOverlay, "EINVAL", "x"}, "/dir", "KANIKO_BUILD_STATE"},
		{"helper", user, Userns, attempt{opMap, "", "newuidmap: not allowed"}, "not allowed", "ann in /etc/subuid"},
		{"anything", user, Userns, attempt{"", "EIO", "read: input/output error"}, "input/output", ""},
	} {
		why, remedy := explain(c.f, c.rung, "/dir", c.a)
		if !strings.Contains(why, c.why) || !strings.Contains(remedy, c.remedy) {
			t.Errorf("%s: why %q, remedy %q; want %q, %q", c.name, why, remedy, c.why, c.remedy)
		}
	}
}

func TestMapNamesAreShortAndDiffer(t *testing.T) {
	a := IDMap{UIDs: lay(1000, []Range{{0, 100000, 65536}}), GIDs: lay(1000, []Range{{0, 100000, 65536}})}
	b := IDMap{UIDs: lay(1000, []Range{{0, 100000, 65536}}), GIDs: lay(1000, []Range{{0, 100001, 65536}})}
	for _, m := range []IDMap{a, b, SingleMap(1000, 1000)} {
		if s := m.String(); len(s) > 60 || strings.ContainsAny(s, "/: ") {
			t.Errorf("%q is no name for a folder", s)
		}
	}
	if a.String() == b.String() {
		t.Errorf("two maps are both called %s", a)
	}
	for id, want := range map[uint32]uint32{0: 1000, 1: 100000, 65535: 165534} {
		if got, ok := a.HostUID(id); !ok || got != want {
			t.Errorf("HostUID(%d) = %d, %v; want %d", id, got, ok, want)
		}
	}
	if a.Contains(65536, 0) || !a.Contains(65535, 65535) || SingleMap(5, 5).Contains(1, 0) {
		t.Error("Contains is wrong at an edge")
	}
}

func TestInPlaceOnlyForRootInAContainer(t *testing.T) {
	for _, c := range []struct {
		name string
		f    facts
		why  string
	}{
		{"root in a container", facts{Container: "/.dockerenv"}, ""},
		{"root in a container without namespaces", facts{Container: "/.dockerenv", MaxUserNS: 0}, ""},
		{"root on a host", facts{}, "does not look like a container"},
		{"root who insists", facts{Force: true}, ""},
		{"a user in a container", facts{UID: 1000, Container: "/.dockerenv"}, "only root"},
		{"a user who insists", facts{UID: 1000, Force: true}, "only root"},
	} {
		list := candidates(c.f)
		got := list[len(list)-1]
		if got.Rung != InPlace || (got.Why == "") != (c.why == "") || !strings.Contains(got.Why, c.why) || (got.Why == "") != (got.Remedy == "") {
			t.Errorf("%s: %+v", c.name, got)
		}
		if id, ok := got.Map.HostUID(0); !ok || id != 0 {
			t.Errorf("%s: id 0 is %d, %v", c.name, id, ok)
		}
	}
}
