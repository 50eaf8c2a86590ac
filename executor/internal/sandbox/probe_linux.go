package sandbox

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Report is what Probe found.
type Report struct {
	Rungs []RungReport // best first
	Best  Rung         // "" if none works
}

// RungReport is one rung of a Report.
type RungReport struct {
	Candidate
	OK    bool
	Tried bool // by a mini-build; if not, Why is empty or known without one
}

// Map is the id map of the best rung.
func (r Report) Map() IDMap {
	for _, c := range r.Rungs {
		if c.OK && c.Rung == r.Best {
			return c.Map
		}
	}
	return IDMap{}
}

// Err explains why no rung works; nil if one does.
func (r Report) Err() error {
	if r.Best != "" {
		return nil
	}
	var b strings.Builder
	b.WriteString("no unprivileged containers here")
	for _, c := range r.Rungs {
		fmt.Fprintf(&b, "\n  %s: %s", c.Rung, c.Why)
		if c.Remedy != "" {
			fmt.Fprintf(&b, "\n    remedy: %s", c.Remedy)
		}
	}
	return errors.New(b.String())
}

// Candidates tells which rungs are worth trying here, without trying, best first.
func Candidates() []Candidate { return candidates(look()) }

// Container tells how this is known to be a container; "" if it is not.
func Container() string { return look().Container }

// Probe does a mini-build on each rung, best first, until one works; dir is a
// directory on the file system of the store, and left as it was. It costs
// the start of this binary, so keep the report.
//
// The rungs below the best one are reported as they look, untried; with a rung
// as only all others are. force is a user's word that "/" may be overwritten
// although nothing tells of a container.
func Probe(ctx context.Context, dir string, only Rung, force bool) Report {
	f := look()
	f.Force = force
	var r Report
	for _, c := range candidates(f) {
		entry := RungReport{Candidate: c}
		if c.Why == "" && r.Best == "" && (only == "" || c.Rung == only) {
			entry.Tried = true
			a, ok := try(ctx, c, dir)
			if !ok {
				entry.Why, entry.Remedy = explain(f, c.Rung, dir, a)
			}
			if !ok && a.op == opOverlay && c.Rung == Userns {
				c.Walk = true
				if _, ok = try(ctx, c, dir); ok {
					entry.Walk, entry.Slow, entry.Why = true, entry.Why, ""
				}
			}
			if ok {
				entry.OK, r.Best = true, c.Rung
			}
		}
		r.Rungs = append(r.Rungs, entry)
	}
	return r
}

// try makes a mini-build.
func try(ctx context.Context, c Candidate, dir string) (attempt, bool) {
	failed := func(op string, err error) (attempt, bool) {
		a := attempt{op: op, err: err.Error()}
		var errno unix.Errno
		if errors.As(err, &errno) {
			a.errno = unix.ErrnoName(errno)
		}
		return a, false
	}
	if c.Rung == InPlace {
		if err := tryInPlace("/" + probeFolder); err != nil {
			return failed(opRoot, err)
		}
	}
	store, err := os.MkdirTemp(dir, "probe-")
	if err != nil {
		return failed("", err)
	}
	defer os.RemoveAll(store)
	if uid, _ := c.Map.HostUID(0); uid != uint32(os.Geteuid()) {
		gid, _ := c.Map.HostGID(0)
		if err := os.Chown(store, int(uid), int(gid)); err != nil {
			return failed("", err)
		}
	}
	entry := probeEntry
	if c.Walk {
		entry = probeWalkEntry
	}
	n, err := StartNode(ctx, NodeSpec{Rung: c.Rung, Map: c.Map, Store: store, Entry: entry})
	if err == nil {
		err = n.Wait()
		n.Close()
	}
	if err == nil {
		return attempt{}, true
	}
	var start *startError
	var ended *nodeError
	op := ""
	if errors.As(err, &start) {
		op = start.op
	}
	if errors.As(err, &ended) && ended.op != "" {
		op = ended.op
	}
	return failed(op, err)
}

const (
	probeEntry     = "sandbox probe"
	probeWalkEntry = "sandbox probe of a folder" // as Candidate.Walk has it
)

// probeFolderInside is probeInside without an overlay.
func probeFolderInside(ctx context.Context, in *Inside) error { return in.probe(ctx, true) }

// probeInside is the node's half of a mini-build: a root of one file, an
// overlay over it, a RUN that makes a directory, and a look for it in the upper.
func probeInside(ctx context.Context, in *Inside) error { return in.probe(ctx, false) }

func (in *Inside) probe(ctx context.Context, walk bool) (err error) {
	if in.Rung == InPlace {
		return nil // the node started: a RUN is a process as it is
	}
	at := func(name string) string { return filepath.Join(StorePath, name) }
	defer func() { // only this side can remove what overlay left in its work directory
		for _, d := range []string{"lower", "lower2", "upper", "work"} {
			err = errors.Join(err, os.RemoveAll(at(d)))
		}
	}()
	for _, d := range []string{"lower", "lower/proc", "lower/dev", "lower/sys", "lower2", "upper", "work"} {
		if err := os.Mkdir(at(d), 0o755); err != nil {
			return &opError{opStore, err}
		}
	}
	if err := os.WriteFile(at("lower/probe"), probeProgram(), 0o755); err != nil {
		return &opError{opStore, err}
	}
	const other = 1000
	if in.Map.Contains(other, other) {
		if err := os.Chown(at("lower2"), other, other); err != nil {
			return &opError{opMap, fmt.Errorf("give a file to user %d: %w", other, err)}
		}
	}
	if walk {
		return in.probeRun(ctx, RunSpec{Root: at("lower")}, at("lower/made"))
	}
	m, err := overlayMount([]string{at("lower2"), at("lower")}, at("upper"), at("work"), linkPlace)
	if err != nil {
		return &opError{opOverlay, err}
	}
	m.close()
	for _, d := range []string{"upper", "work"} {
		if err := errors.Join(os.RemoveAll(at(d)), os.Mkdir(at(d), 0o755)); err != nil {
			return &opError{opStore, err}
		}
	}
	return in.probeRun(ctx, RunSpec{Lower: []string{at("lower2"), at("lower")}, Upper: at("upper"), Work: at("work")}, at("upper/made"))
}

// probeRun runs the program of a mini-build and looks for what it makes.
func (in *Inside) probeRun(ctx context.Context, spec RunSpec, made string) error {
	spec.Argv = []string{"/probe"}
	r, err := in.Run(ctx, spec)
	var x *ExecError
	if errors.As(err, &x) && len(probeProgram()) == 0 {
		return nil // all but the last step works
	}
	if err != nil {
		return &opError{opRun, err}
	}
	if r.Exit != 0 {
		return &opError{opRun, fmt.Errorf("the program of the mini-build ended with %w", unix.Errno(r.Exit))}
	}
	if _, err := os.Stat(made); err != nil {
		return &opError{opOverlay, fmt.Errorf("look for what the mini-build made: %w", err)}
	}
	return nil
}

// opError names the stage of a mini-build that failed.
type opError struct {
	op  string
	err error
}

func (e *opError) Error() string { return e.err.Error() }
func (e *opError) Unwrap() error { return e.err }

// probeProgram is a static program that makes the directory /made and exits
// with the errno; empty on machines whose code nobody has written down here.
func probeProgram() []byte {
	var code []byte
	machine := uint16(0)
	switch runtime.GOARCH {
	case "amd64":
		machine = 62
		code = []byte{
			0xb8, 83, 0, 0, 0, // mov $SYS_mkdir, %eax
			0x48, 0x8d, 0x3d, 18, 0, 0, 0, // lea path(%rip), %rdi
			0xbe, 0xed, 1, 0, 0, // mov $0755, %esi
			0x0f, 0x05, // syscall
			0xf7, 0xd8, // neg %eax
			0x89, 0xc7, // mov %eax, %edi
			0xb8, 60, 0, 0, 0, // mov $SYS_exit, %eax
			0x0f, 0x05, // syscall
		}
	case "arm64":
		machine = 183
		for _, i := range []uint32{
			0x92800c60, // mov x0, #AT_FDCWD
			0x100000e1, // adr x1, path
			0xd2803da2, // mov x2, #0755
			0xd2800448, // mov x8, #SYS_mkdirat
			0xd4000001, // svc #0
			0xcb0003e0, // neg x0, x0
			0xd2800ba8, // mov x8, #SYS_exit
			0xd4000001, // svc #0
		} {
			code = binary.LittleEndian.AppendUint32(code, i)
		}
	default:
		return nil
	}
	code = append(code, "/made\x00"...)
	const base, header = 0x400000, 64 + 56
	size := uint64(header + len(code))
	var b bytes.Buffer
	b.WriteString("\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 9))
	for _, v := range []any{
		uint16(2), machine, uint32(1), uint64(base + header), uint64(64), uint64(0), uint32(0),
		uint16(64), uint16(56), uint16(1), uint16(0), uint16(0), uint16(0), // ELF header
		uint32(1), uint32(5), uint64(0), uint64(base), uint64(base), size, size, uint64(0x1000), // load, r-x
	} {
		binary.Write(&b, binary.LittleEndian, v) // a buffer takes everything
	}
	return append(b.Bytes(), code...)
}

// look gathers the facts that candidates and explain decide by.
func look() facts {
	f := facts{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), MaxUserNS: -1}
	f.OwnUIDs, f.OwnGIDs = ownRanges("/proc/self/uid_map"), ownRanges("/proc/self/gid_map")
	for _, name := range []string{"/etc/passwd", "/etc/group"} {
		eachLine(name, func(fields []string) {
			if len(fields) < 3 {
				return
			}
			id, err := strconv.ParseUint(fields[2], 10, 32)
			if err != nil {
				return
			}
			f.Used = append(f.Used, Range{0, uint32(id), 1})
			if name == "/etc/passwd" && uint32(id) == f.UID && f.User == "" {
				f.User = fields[0]
			}
		})
	}
	for name, of := range map[string]*[]Range{"/etc/subuid": &f.SubUIDs, "/etc/subgid": &f.SubGIDs} {
		eachLine(name, func(fields []string) {
			if len(fields) != 3 {
				return
			}
			first, err1 := strconv.ParseUint(fields[1], 10, 32)
			count, err2 := strconv.ParseUint(fields[2], 10, 32)
			if err1 != nil || err2 != nil || first+count > 1<<32 {
				return
			}
			r := Range{0, uint32(first), uint32(count)}
			f.Used = append(f.Used, r)
			if fields[0] == f.User && f.User != "" || fields[0] == fmt.Sprint(f.UID) {
				*of = append(*of, r)
			}
		})
	}
	f.Helpers, f.HelpersWork = true, true
	for _, h := range []string{"newuidmap", "newgidmap"} {
		p, err := exec.LookPath(h)
		if err != nil {
			f.Helpers = false
			continue
		}
		var st unix.Stat_t
		caps, _ := unix.Getxattr(p, "security.capability", nil)
		if unix.Stat(p, &st) == nil && !(st.Mode&unix.S_ISUID != 0 && st.Uid == 0) && caps <= 0 {
			f.HelpersWork = false
		}
	}
	if n, err := strconv.ParseInt(sysctl("user/max_user_namespaces"), 10, 64); err == nil {
		f.MaxUserNS = n
	}
	f.UserNSOff = sysctl("kernel/unprivileged_userns_clone") == "0"
	f.AppArmor = sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1"
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch value = strings.TrimSpace(value); key {
		case "Seccomp":
			f.Seccomp = value == "2"
		case "NoNewPrivs":
			f.NoNewPrivs = value == "1"
		}
	}
	f.Container = container()
	return f
}

// container looks for the marks of a container, those that kaniko looks for too.
func container() string {
	for _, mark := range []string{"/run/.containerenv", "/.dockerenv", "/var/run/secrets/kubernetes.io/serviceaccount", "/proc/vz", "/__runsc_containers__"} {
		if _, err := os.Stat(mark); err == nil && !(mark == "/proc/vz" && exists("/proc/bc")) { // there it is the host
			return mark
		}
	}
	if v := os.Getenv("container"); v != "" {
		return "$container=" + v
	}
	for name, words := range map[string][]string{
		"/proc/self/cgroup":      {"docker", "kubepods", "containerd", "libpod", "lxc", "garden", "ecs/"},
		"/run/systemd/container": {""},
	} {
		data, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		for _, w := range words {
			if strings.Contains(string(data), w) {
				return name
			}
		}
	}
	if data, err := os.ReadFile("/proc/self/mountinfo"); err == nil {
		for line := range strings.Lines(string(data)) {
			if f := strings.Fields(line); len(f) > 5 && f[4] == "/" && strings.Contains(line, " - overlay ") {
				return "an overlay on /"
			}
		}
	}
	return ""
}

func exists(name string) bool { _, err := os.Stat(name); return err == nil }

const probeFolder = ".kaniko-build-probe"

// tryInPlace does in dir, a new directory of the root, what building there needs.
func tryInPlace(dir string) (err error) {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Mkdir(dir+"/d", 0o700); err != nil {
		return err
	}
	return errors.Join(os.WriteFile(dir+"/d/f", nil, 0o600), os.Chown(dir+"/d/f", 1000, 1000), os.Rename(dir+"/d", dir+"/e"))
}

func sysctl(name string) string {
	data, _ := os.ReadFile("/proc/sys/" + name)
	return strings.TrimSpace(string(data))
}

// eachLine calls do with the colon-separated fields of each line of a file,
// which may be missing.
func eachLine(name string, do func(fields []string)) {
	file, err := os.Open(name)
	if err != nil {
		return
	}
	defer file.Close()
	for s := bufio.NewScanner(file); s.Scan(); {
		line := strings.TrimSpace(s.Text())
		if line != "" && line[0] != '#' {
			do(strings.Split(line, ":"))
		}
	}
}

// ownRanges is what a process with this map can map further; nil for all ids.
func ownRanges(name string) []Range {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil
	}
	out := []Range{}
	for line := range strings.Lines(string(data)) {
		var r Range
		if n, _ := fmt.Sscan(line, &r.Inside, &r.Outside, &r.Count); n == 3 {
			out = append(out, r)
		}
	}
	if len(out) == 1 && out[0] == (Range{0, 0, 1<<32 - 1}) {
		return nil
	}
	return out
}
