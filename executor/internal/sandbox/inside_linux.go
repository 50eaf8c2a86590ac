package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Entry is the work of a node. Its error reaches Node.Wait as text.
type Entry func(ctx context.Context, in *Inside) error

// Inside is a node seen from inside. Its file system:
//
//	/store               the store
//	/proc /sys /dev      of the node's own namespaces
//	/etc/resolv.conf, /etc/hosts    copies of the host's
//	/tmp                 memory; big files belong into the store
//
// On rung inplace it is that of the container, and the store where it is outside.
type Inside struct {
	Rung  Rung
	Map   IDMap
	Store string     // where the store is
	Files []*os.File // as NodeSpec.Files

	// borrowed says that /proc is that of whoever started the node, as in a
	// container that hides parts of its own: the kernel then refuses another.
	borrowed bool
}

// Paths in a node. rootPlace and filesPlace are empty directories; the mount
// namespace of each RUN mounts on its own copy of them.
const (
	StorePath  = "/store"
	rootPlace  = "/.root"
	filesPlace = "/.files"
	linkPlace  = "/.links"
	voidPlace  = "/.void"
	formats    = "/.binfmt" // mounted only where there are handlers
)

// Reexec must be called first thing in main. If this process was started by
// StartNode it runs the node and returns its exit code and true: exit with it.
// Otherwise it returns at once with false.
//
// A process is a node if it has the node's name, is process 1 of a user
// namespace with a map, and finds the sealed configuration that only
// StartNode makes as descriptor 3. A user who forges all this has a namespace
// of his own to play in. On rung inplace it has the name and the configuration
// and is root's, who needs no forgery.
func Reexec(entries map[string]Entry) (int, bool) {
	if len(os.Args) == 0 || os.Args[0] != nodeName {
		return 0, false
	}
	config, ok := readConfig()
	inPlace := config.Rung == InPlace
	if !ok || !inPlace && (os.Getpid() != 1 || ownsHost()) || inPlace && os.Geteuid() != 0 {
		return 0, false
	}
	runtime.LockOSThread() // keeps RUNs, which lock and spoil threads, off the main one
	status := os.NewFile(statusFD, "status")
	unix.CloseOnExec(statusFD)
	unix.CloseOnExec(lifeFD)
	in := &Inside{Rung: config.Rung, Map: config.Map, Store: StorePath}
	enter := in.enter
	if inPlace {
		in.Store, enter = config.Path, enterInPlace
	}
	err := enter(config)
	if err == nil {
		_, err = status.WriteString(readyLine + "\n")
	}
	if err == nil {
		for i, n := range config.Files {
			unix.CloseOnExec(n)
			in.Files = append(in.Files, os.NewFile(uintptr(n), fmt.Sprintf("inherited-%d", i)))
		}
		if entry := all(entries)[config.Entry]; entry != nil {
			ended := make(chan error)
			go func() { ended <- entry(context.Background(), in) }()
			err = <-ended
		} else {
			err = fmt.Errorf("internal error: no entry %q", config.Entry)
		}
	}
	if err != nil {
		m := nodeMessage{Error: err.Error()}
		var errno unix.Errno
		if errors.As(err, &errno) {
			m.Errno = int(errno)
		}
		var op *opError
		if errors.As(err, &op) {
			m.Op = op.op
		}
		line, _ := json.Marshal(m) // two plain fields
		status.Write(append(line, '\n'))
		return 1, true
	}
	return 0, true
}

// all adds the entries of this package to those of the program.
func all(entries map[string]Entry) map[string]Entry {
	out := map[string]Entry{probeEntry: probeInside, probeWalkEntry: probeFolderInside}
	for k, e := range entries {
		out[k] = e
	}
	return out
}

// readConfig reads descriptor 3 if it is what StartNode leaves there.
func readConfig() (nodeConfig, bool) {
	seals, err := unix.FcntlInt(configFD, unix.F_GET_SEALS, 0)
	if err != nil || seals&configSeals != configSeals {
		return nodeConfig{}, false
	}
	f := os.NewFile(configFD, "config")
	defer f.Close()
	data, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
	if err != nil {
		return nodeConfig{}, false
	}
	var c nodeConfig
	if json.Unmarshal(data, &c) != nil || c.Magic != nodeMagic {
		return nodeConfig{}, false
	}
	return c, true
}

// ownsHost tells whether this process is in the first user namespace.
func ownsHost() bool {
	data, err := os.ReadFile("/proc/self/uid_map")
	return err != nil || strings.Join(strings.Fields(string(data)), " ") == "0 0 4294967295"
}

// enter builds the node's root and moves into it.
func (in *Inside) enter(c nodeConfig) error {
	unix.Umask(0o022)
	etc := map[string][]byte{}
	for _, name := range []string{"/etc/resolv.conf", "/etc/hosts"} {
		if data, err := os.ReadFile(name); err == nil {
			etc[name] = data // a host without them builds without them
		}
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	proc, err := in.proc()
	if err != nil {
		return err
	}
	m, err := tmpfsMount(0o755, 0, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	if err != nil {
		proc.close()
		return err
	}
	// Any directory will do for the moment; /proc is there wherever Linux is.
	place, err := openDir("/proc")
	if err != nil {
		return err
	}
	defer place.close()
	if err := m.attach(place); err != nil {
		return fmt.Errorf("mount root: %w", err)
	}
	root, err := openDir("/proc")
	if err != nil {
		return err
	}
	defer root.close()
	b := &builder{root: root}
	for _, d := range []string{"store", "proc", "sys", "dev", "etc", "tmp", rootPlace, filesPlace, linkPlace, voidPlace} {
		b.dir(d, 0o755)
	}
	b.mode("tmp", 0o1777)
	for name, data := range etc {
		b.file(name, data, 0o644)
	}
	b.mount("/store", func() (fd, error) { return cloneMount(c.Store, "") }, 0)
	for _, bind := range c.Binds {
		b.parents(bind.Target)
		if bind.Dir {
			b.dir(bind.Target, 0o755)
		} else {
			b.file(bind.Target, nil, 0o644)
		}
		b.mount(bind.Target, func() (fd, error) { return cloneMount(bind.FD, "") }, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	}
	b.mount("/proc", func() (fd, error) { return proc, nil }, 0)
	b.mount("/sys", func() (fd, error) { return cloneMount(unix.AT_FDCWD, "/sys") }, sysAttrs)
	b.devices("/dev")
	if b.err != nil {
		return b.err
	}
	if err := unix.Fchdir(int(root)); err != nil {
		return fmt.Errorf("enter root: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("change root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the host's file system: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("enter root: %w", err)
	}
	unix.Close(c.Store)
	for _, bind := range c.Binds {
		unix.Close(bind.FD)
	}
	if err := handle(c.Handlers); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte("kaniko-build")); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	if err := unix.Access(StorePath, unix.R_OK|unix.X_OK); err != nil {
		// Search permission is what matters; the store may hide its list.
		if err := unix.Access(StorePath, unix.X_OK); err != nil {
			return &opError{opStore, fmt.Errorf("search the store as the mapped root: %w: give its directory the group %d and mode 0710", err, hostGID(c.Map))}
		}
	}
	return nil
}

// handle registers handlers for programs of other kinds in the user namespace of
// the node. They are gone with the mount.
func handle(lines []string) error {
	if len(lines) == 0 {
		return nil
	}
	if err := unix.Mkdir(formats, 0o700); err != nil {
		return fmt.Errorf("make directory %s: %w", formats, err)
	}
	if err := unix.Mount("binfmt_misc", formats, "binfmt_misc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount binfmt_misc in a user namespace, which takes Linux 6.7: %w", err)
	}
	for _, line := range lines {
		if err := os.WriteFile(formats+"/register", []byte(line), 0o200); err != nil {
			return fmt.Errorf("register a handler: %w", err)
		}
	}
	return nil
}

// proc is a detached /proc: one of our own process namespace, if that is allowed.
// In that of the container our processes have the numbers that they have there,
// and /proc/self is right.
func (in *Inside) proc() (fd, error) {
	m, err := newMount("proc", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC, option{"source", "proc"})
	if err == nil || !errors.Is(err, unix.EPERM) {
		return m, asOp(opProc, err)
	}
	m, bindErr := cloneMount(unix.AT_FDCWD, "/proc")
	if bindErr != nil {
		return -1, asOp(opProc, errors.Join(err, bindErr))
	}
	in.borrowed = true
	return m, nil
}

func asOp(op string, err error) error {
	if err == nil {
		return nil
	}
	return &opError{op, err}
}

func hostGID(m IDMap) uint32 { id, _ := m.HostGID(0); return id }

const (
	sysAttrs = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	devAttrs = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC
)

// builder lays out a root. After the first error the rest does nothing.
type builder struct {
	root fd
	err  error
}

func (b *builder) fail(what, name string, err error) {
	if b.err == nil && err != nil {
		b.err = fmt.Errorf("%s %s: %w", what, name, err)
	}
}

func relative(name string) string { return strings.TrimLeft(name, "/") }

// dir makes a directory, or finds one.
func (b *builder) dir(name string, mode uint32) {
	if b.err != nil {
		return
	}
	err := unix.Mkdirat(int(b.root), relative(name), mode)
	if err == unix.EEXIST {
		err = nil
	}
	b.fail("make directory", name, err)
}

func (b *builder) parents(name string) {
	parts := strings.Split(relative(path.Dir(path.Clean(name))), "/")
	for i := range parts {
		if parts[i] != "" {
			b.dir(path.Join(parts[:i+1]...), 0o755)
		}
	}
}

func (b *builder) mode(name string, mode uint32) {
	if b.err == nil {
		b.fail("set mode of", name, unix.Fchmodat(int(b.root), relative(name), mode, 0))
	}
}

func (b *builder) file(name string, data []byte, mode uint32) {
	if b.err != nil {
		return
	}
	f, err := unix.Openat(int(b.root), relative(name), unix.O_CREAT|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_EXCL, mode)
	if err != nil {
		b.fail("make file", name, err)
		return
	}
	file := os.NewFile(uintptr(f), name)
	_, err = file.Write(data)
	b.fail("write", name, errors.Join(err, file.Close()))
}

func (b *builder) link(target, name string) {
	if b.err == nil {
		b.fail("link", name, unix.Symlinkat(target, int(b.root), relative(name)))
	}
}

// mount attaches what get makes at name, below the root.
func (b *builder) mount(name string, get func() (fd, error), attrs uint64) {
	if b.err != nil {
		return
	}
	m, err := get()
	if err != nil {
		b.fail("mount", name, err)
		return
	}
	if attrs != 0 {
		if err := m.restrict(attrs); err != nil {
			m.close()
			b.fail("restrict mount", name, err)
			return
		}
	}
	target, err := within(b.root, name, 0)
	if err != nil {
		m.close()
		b.fail("find mount point", name, err)
		return
	}
	defer target.close()
	b.fail("mount", name, m.attach(target))
}

// deviceNodes are what a container's /dev has; the nodes themselves come from
// the /dev of whoever builds it.
var deviceNodes = []string{"null", "zero", "full", "random", "urandom", "tty"}

// devices mounts a minimal /dev at name, a directory below the root.
func (b *builder) devices(name string) {
	b.mount(name, func() (fd, error) { return tmpfsMount(0o755, 64<<20, devAttrs) }, 0)
	if b.err != nil {
		return
	}
	dev, err := within(b.root, name, unix.O_DIRECTORY)
	if err != nil {
		b.fail("open", name, err)
		return
	}
	defer dev.close()
	in := &builder{root: dev}
	for _, n := range deviceNodes {
		in.file(n, nil, 0o666)
		in.mount(n, func() (fd, error) { return cloneMount(unix.AT_FDCWD, "/dev/"+n) }, 0)
	}
	in.dir("pts", 0o755)
	in.mount("pts", func() (fd, error) {
		options := []option{{"source", "devpts"}, {"mode", "620"}, {"ptmxmode", "666"}}
		m, err := newMount("devpts", devAttrs, append(options, option{"gid", "5"})...)
		if err != nil { // no group 5 here
			m, err = newMount("devpts", devAttrs, options...)
		}
		return m, err
	}, 0)
	in.dir("shm", 0o1777)
	in.mount("shm", func() (fd, error) {
		return tmpfsMount(0o1777, 64<<20, devAttrs|unix.MOUNT_ATTR_NODEV)
	}, 0)
	in.dir("mqueue", 0o755)
	in.mount("mqueue", func() (fd, error) {
		return newMount("mqueue", devAttrs|unix.MOUNT_ATTR_NODEV, option{"source", "mqueue"})
	}, 0)
	in.link("pts/ptmx", "ptmx")
	in.link("/proc/self/fd", "fd")
	in.link("/proc/self/fd/0", "stdin")
	in.link("/proc/self/fd/1", "stdout")
	in.link("/proc/self/fd/2", "stderr")
	if _, err := os.Stat("/proc/kcore"); err == nil { // not every kernel has it; as with runc
		in.link("/proc/kcore", "core")
	}
	if in.err != nil {
		b.fail("fill", name, in.err)
	}
}
