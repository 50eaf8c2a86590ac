package sandbox

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Candidate is a rung with the map it would use here.
type Candidate struct {
	Rung Rung
	Map  IDMap
	// Walk says that no overlay can be mounted in the store: a RUN has a folder for its
	// root, and what it changed is found by a walk. Slow says why, Remedy what helps.
	Walk bool
	Slow string
	// Why it cannot work, and the command that helps; both empty if it may.
	Why, Remedy string
}

// facts is what the choice of rungs depends on; see look.
type facts struct {
	UID, GID uint32
	User     string // login name, "" if unknown

	// What this process itself can map; nil for everything.
	OwnUIDs, OwnGIDs []Range

	Used             []Range // ids somebody uses, by Outside and Count
	SubUIDs, SubGIDs []Range // of User
	Helpers          bool    // newuidmap and newgidmap are installed
	HelpersWork      bool    // ... and have privilege: setuid or file capabilities

	MaxUserNS  int64 // user.max_user_namespaces, -1 if unknown
	UserNSOff  bool  // kernel.unprivileged_userns_clone=0
	AppArmor   bool  // kernel.apparmor_restrict_unprivileged_userns=1
	Seccomp    bool  // a filter is installed: a container's
	NoNewPrivs bool
	// Container tells how this is known to be a container; "" if it is not.
	Container string
	Force     bool // use the root of what may be no container
}

// candidates decides what is worth trying, best first.
func candidates(f facts) []Candidate {
	return append(namespaces(f), inPlace(f))
}

// inPlace overwrites "/": only where that is a container's own, and only for
// root, who can give files their owners.
func inPlace(f facts) Candidate {
	c := Candidate{Rung: InPlace, Map: ownMap(f.OwnUIDs, f.OwnGIDs)}
	switch {
	case f.UID != 0:
		c.Why, c.Remedy = fmt.Sprintf("only root can build in the container's own root, and this is user %d", f.UID), "docker run --user 0, or runAsUser: 0 in the pod"
	case f.Container == "" && !f.Force:
		c.Why, c.Remedy = "this does not look like a container, and / would be overwritten", "run in a container, or say that this is one: --force"
	}
	return c
}

// namespaces are the candidates with user namespaces.
func namespaces(f facts) []Candidate {
	full := Candidate{Rung: Userns}
	single := Candidate{Rung: UsernsSingle, Map: SingleMap(f.UID, f.GID)}
	if why, remedy := off(f); why != "" {
		full.Why, full.Remedy = why, remedy
		single.Why, single.Remedy = why, remedy
		return []Candidate{full, single}
	}
	if f.UID == 0 {
		full.Map, full.Why, full.Remedy = rootMap(f)
		single.Why, single.Remedy = full.Why, full.Remedy
		if full.Why == "" { // one of its ids: never the host's 0
			single.Map = SingleMap(full.Map.UIDs[0].Outside, full.Map.GIDs[0].Outside)
		} else if f.OwnUIDs != nil && f.OwnGIDs != nil && !mapsHostRoot(f.OwnUIDs) && !mapsHostRoot(f.OwnGIDs) {
			single.Map, single.Why, single.Remedy = SingleMap(0, 0), "", ""
		}
	} else {
		full.Map, full.Why, full.Remedy = userMap(f)
	}
	return []Candidate{full, single}
}

// off tells why there are no user namespaces at all.
func off(f facts) (why, remedy string) {
	switch {
	case f.MaxUserNS == 0:
		return "user namespaces are off (user.max_user_namespaces=0)", "sudo sysctl -w user.max_user_namespaces=15000"
	case f.UserNSOff && f.UID != 0:
		return "user namespaces are for root only (kernel.unprivileged_userns_clone=0)", "sudo sysctl -w kernel.unprivileged_userns_clone=1"
	}
	return "", ""
}

// rootMap is the map of root: ids that nobody has. Never 0 to 0 of the
// host: the host's user 0 can write global sysctls whatever its namespace.
// Inside a user namespace of a container, where the ids are not the host's
// anyway, the container's own ids serve if there are no others.
func rootMap(f facts) (m IDMap, why, remedy string) {
	uids, ok1 := free(f.Used, f.OwnUIDs)
	gids, ok2 := free(f.Used, f.OwnGIDs)
	if ok1 && ok2 {
		return IDMap{UIDs: []Range{uids}, GIDs: []Range{gids}}, "", ""
	}
	same := Range{0, 0, Ids}
	if f.OwnUIDs != nil && f.OwnGIDs != nil && covers(f.OwnUIDs, same) && covers(f.OwnGIDs, same) && !mapsHostRoot(f.OwnUIDs) && !mapsHostRoot(f.OwnGIDs) {
		return IDMap{UIDs: []Range{same}, GIDs: []Range{same}}, "", ""
	}
	return IDMap{}, fmt.Sprintf("no 65536 ids are free in this user namespace (it has %s)", text(f.OwnUIDs, ":")),
		"run outside of this container, or give it at least 65536 ids"
}

func mapsHostRoot(own []Range) bool {
	for _, r := range own {
		if r.Outside == 0 {
			return true
		}
	}
	return false
}

// userMap is the map of an ordinary user: 0 is the user, the rest comes from
// /etc/subuid and /etc/subgid.
func userMap(f facts) (m IDMap, why, remedy string) {
	name := f.User
	if name == "" {
		name = fmt.Sprint(f.UID)
	}
	var missing []string
	if len(f.SubUIDs) == 0 {
		missing = append(missing, "/etc/subuid")
	}
	if len(f.SubGIDs) == 0 {
		missing = append(missing, "/etc/subgid")
	}
	if len(missing) > 0 {
		first := freeSub(f.Used)
		r := fmt.Sprintf("%d-%d", first, first+Ids-1)
		return IDMap{}, fmt.Sprintf("user %s has no ids in %s", name, strings.Join(missing, " and ")),
			fmt.Sprintf("sudo usermod --add-subuids %s --add-subgids %s %s", r, r, name)
	}
	if !f.Helpers {
		return IDMap{}, "newuidmap and newgidmap are not installed", "sudo apt-get install -y uidmap (Debian, Ubuntu) or sudo dnf install -y shadow-utils (Fedora)"
	}
	if !f.HelpersWork {
		return IDMap{}, "newuidmap has no privilege here (it is neither setuid nor has file capabilities)", "sudo chmod u+s /usr/bin/newuidmap /usr/bin/newgidmap"
	}
	if f.NoNewPrivs {
		return IDMap{}, "no_new_privs is set, so newuidmap cannot act", "allow it in the container: docker run without --security-opt no-new-privileges, or allowPrivilegeEscalation: true in the pod"
	}
	return IDMap{UIDs: lay(f.UID, f.SubUIDs), GIDs: lay(f.GID, f.SubGIDs)}, "", ""
}

// freeSub is where a new range of subordinate ids can start, as useradd counts.
func freeSub(used []Range) uint32 {
	first := uint32(100000)
	sorted := slices.SortedFunc(slices.Values(used), func(a, b Range) int { return cmp.Compare(a.Outside, b.Outside) })
	for _, u := range sorted {
		if overlapsAny(Range{0, first, Ids}, []Range{u}) && uint64(u.Outside)+uint64(u.Count)+Ids < 1<<31 {
			first = u.Outside + u.Count
		}
	}
	return first
}

// attempt is how far a mini-build came.
type attempt struct {
	op    string // see the op constants; "" for anything else
	errno string // as "EPERM", "" if none
	err   string
}

// Where a mini-build can stop.
const (
	opClone   = "clone"   // no user namespace
	opMap     = "map"     // no ids in it
	opExec    = "exec"    // this program cannot be executed by the mapped root
	opSetup   = "setup"   // no mounts
	opProc    = "proc"    // no fresh /proc
	opStore   = "store"   // the mapped root cannot reach the store
	opOverlay = "overlay" // no overlay with its upper in the store
	opRun     = "run"     // no container
	opRoot    = "root"    // the container's root cannot be written to
)

// explain says why a mini-build failed and what helps.
func explain(f facts, rung Rung, dir string, a attempt) (why, remedy string) {
	denied := a.errno == "EPERM" || a.errno == "EACCES"
	switch {
	case a.op == opClone && a.errno == "ENOSPC":
		return "the limit of user namespaces is reached (user.max_user_namespaces)", "sudo sysctl -w user.max_user_namespaces=15000"
	case a.op == opClone && denied && f.Seccomp:
		return "a seccomp filter forbids user namespaces (the container's profile)",
			"docker run --security-opt seccomp=unconfined, or seccompProfile: {type: Unconfined} in the pod"
	case denied && f.AppArmor && f.UID != 0:
		return "AppArmor forbids what user namespaces are for (kernel.apparmor_restrict_unprivileged_userns=1)",
			"sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
	case a.op == opClone && denied:
		return "the kernel or its policy forbids user namespaces (or this process runs in a chroot): " + a.err,
			"sudo sysctl -w user.max_user_namespaces=15000 kernel.unprivileged_userns_clone=1"
	case a.op == opMap && f.NoNewPrivs && rung == Userns:
		return "no_new_privs is set, so newuidmap cannot act: " + a.err, "allowPrivilegeEscalation: true in the pod, or docker run without no-new-privileges"
	case a.op == opMap && rung == Userns && f.UID == 0:
		return "root may not map ids here: " + a.err, "give the container CAP_SETUID and CAP_SETGID"
	case a.op == opMap && rung == Userns:
		return "newuidmap refused: " + a.err, "check the lines of " + cmp.Or(f.User, fmt.Sprint(f.UID)) + " in /etc/subuid and /etc/subgid"
	case a.op == opProc && denied:
		return "neither a fresh /proc nor the one here can be mounted (a container that masks it?)",
			"docker run --security-opt systempaths=unconfined, or procMount: Unmasked in the pod (with hostUsers: false)"
	case a.op == opExec && denied:
		return "the mapped root may not execute this program: " + a.err, "chmod a+rx the program and keep it on a file system mounted without noexec"
	case a.op == opOverlay && a.errno == "EINVAL":
		return "no overlay can have its upper directory in " + dir + " (is it on an overlay itself, as a container's root is?): " + a.err,
			"put the store on a volume or another real file system: KANIKO_BUILD_STATE=DIR"
	case (a.op == opOverlay || a.op == opSetup) && a.errno == "ENODEV":
		return "the kernel has no overlay file system: " + a.err, "sudo modprobe overlay"
	case a.op == opSetup && denied && f.Container != "":
		return "mounts are refused (the container's AppArmor profile?): " + a.err, "docker run --security-opt apparmor=unconfined, or appArmorProfile: {type: Unconfined} in the pod"
	case a.op == opRoot && a.errno == "EROFS":
		return "the container's root is read-only", "docker run without --read-only, or readOnlyRootFilesystem: false in the pod"
	case a.op == opRoot && denied:
		return "root cannot give files away here: " + a.err, "leave the container the capabilities CHOWN, FOWNER and DAC_OVERRIDE, which it has by default"
	case a.errno == "ENOSYS":
		return "the kernel is too old (Linux 5.12 or later is needed): " + a.err, ""
	}
	return a.err, ""
}
