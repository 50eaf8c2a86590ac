package rootfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/layer"
)

// Stack is layer directories to be mounted upon each other, topmost first.
type Stack struct{ Dirs []string }

// maxLower is how many lowers the kernel takes.
const maxLower = 500

// NewUpper makes dir, an empty directory to be the upper of a stack: its root
// has mode 0755 and the owner of the root below, as BuildKit's has.
func (s Stack) NewUpper(dir string) error {
	if len(s.Dirs) == 0 {
		return newUpper(dir, uint32(os.Geteuid()), uint32(os.Getegid()))
	}
	var st unix.Stat_t
	if err := unix.Stat(s.Dirs[0], &st); err != nil {
		return fmt.Errorf("make upper: %s: %w", s.Dirs[0], err)
	}
	return newUpper(dir, st.Uid, st.Gid)
}

// NewUpper is Stack.NewUpper for what the view shows.
func (v *View) NewUpper(dir string) error {
	if len(v.layers) == 0 {
		return newUpper(dir, uint32(os.Geteuid()), uint32(os.Getegid()))
	}
	e, _, err := v.layers[0].stat("")
	if err != nil {
		return fmt.Errorf("make upper: %w", err)
	}
	return newUpper(dir, e.UID, e.GID)
}

func newUpper(dir string, uid, gid uint32) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("make upper: %w", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return fmt.Errorf("make upper: %w", err)
	}
	if uid == uint32(os.Geteuid()) && gid == uint32(os.Getegid()) {
		return nil
	}
	if err := os.Lchown(dir, int(uid), int(gid)); err != nil {
		return fmt.Errorf("make upper: %w", err)
	}
	return nil
}

// Mount mounts the stack at target with upper on top, in the mount namespace
// of the caller, who must own it. work is made; it must be on upper's file
// system. Nothing is synced to disk, as upper is worth nothing after a crash.
func (s Stack) Mount(ctx context.Context, target, upper, work string) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := os.Mkdir(work, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("mount stack: %w", err)
	}
	lower, err := s.lower(work)
	if err != nil {
		return fmt.Errorf("mount stack: %w", err)
	}
	if err := overlay(target, lower, upper, work, 0); err != nil {
		return fmt.Errorf("mount stack of %d layers at %s: %w", len(lower), target, err)
	}
	return nil
}

// MountReadOnly mounts the stack at target without an upper. scratch is a
// directory that is made and must stay empty: overlay wants two lowers.
func (s Stack) MountReadOnly(ctx context.Context, target, scratch string) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := os.Mkdir(scratch, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("mount stack: %w", err)
	}
	lower, err := s.lower(scratch)
	if err != nil {
		return fmt.Errorf("mount stack: %w", err)
	}
	for _, empty := range []string{emptyDir(scratch), scratch} {
		if len(lower) < 2 {
			if err := os.Mkdir(empty, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
				return fmt.Errorf("mount stack: %w", err)
			}
			lower = append(lower, empty)
		}
	}
	if len(s.Dirs) == 0 {
		lower = []string{scratch, emptyDir(scratch)}
	}
	if err := overlay(target, lower, "", "", unix.MOUNT_ATTR_RDONLY); err != nil {
		return fmt.Errorf("mount stack of %d layers at %s: %w", len(lower), target, err)
	}
	return nil
}

// Unmount takes a mount of a stack away, with all that is mounted below it.
func Unmount(target string) error {
	err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EBUSY) { // something in it is mounted, or open
		err = unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}
	if err != nil && !errors.Is(err, unix.EINVAL) { // EINVAL: not mounted
		return fmt.Errorf("unmount %s: %w", target, err)
	}
	return nil
}

// RemoveWork removes what Mount made beside the upper, once it is unmounted.
func RemoveWork(work string) error {
	return errors.Join(os.RemoveAll(work), os.RemoveAll(emptyDir(work)))
}

func emptyDir(work string) string { return work + ".empty" }

// lower lists the directories for one mount: the same one twice is an error
// for the kernel, and the one further down shows nothing that the one above
// does not; what an opaque root hides is left out.
func (s Stack) lower(work string) ([]string, error) {
	var out []string
	seen := map[string]bool{}
	for _, d := range s.Dirs {
		if seen[d] {
			continue
		}
		seen[d] = true
		out = append(out, d)
		if hides, err := layer.Opaque(d); err != nil {
			return nil, err
		} else if hides {
			break
		}
	}
	if len(out) > maxLower {
		return nil, fmt.Errorf("%d layers: the kernel stacks %d at most", len(out), maxLower)
	}
	if len(out) == 0 {
		empty := emptyDir(work)
		if err := os.Mkdir(empty, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, err
		}
		out = append(out, empty)
	}
	return out, nil
}

// overlay mounts through fsopen, one call a lower, so that neither their
// number nor the length of their paths is bounded by one page.
func overlay(target string, lower []string, upper, work string, attr int) error {
	fsfd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open overlay: %w", err)
	}
	defer unix.Close(fsfd)
	var open []*os.File // until the mount is made
	defer func() {
		for _, f := range open {
			f.Close()
		}
	}()
	// short gives a path that fits into a parameter (256 bytes) and needs no escapes.
	short := func(p string) (string, error) {
		if filepath.IsAbs(p) && len(p) < 256 && !strings.ContainsAny(p, `\:,`) {
			return p, nil
		}
		f, err := os.OpenFile(p, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return "", err
		}
		open = append(open, f)
		return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())), nil
	}
	set := func(key, val string) error {
		if err := unix.FsconfigSetString(fsfd, key, val); err != nil {
			return fmt.Errorf("option %s=%s: %w%s", key, val, err, kernelSays(fsfd))
		}
		return nil
	}
	if err := unix.FsconfigSetString(fsfd, "source", "overlay"); err != nil {
		return err
	}
	if err := unix.FsconfigSetFlag(fsfd, "userxattr"); err != nil {
		return fmt.Errorf("option userxattr: %w%s", err, kernelSays(fsfd))
	}
	if err := set("index", "off"); err != nil {
		return err
	}
	var joined []string // for kernels before 6.7
	for i, d := range lower {
		p, err := short(d)
		if err != nil {
			return err
		}
		if joined == nil {
			err := set("lowerdir+", p)
			if err == nil {
				continue
			}
			if i > 0 || !errors.Is(err, unix.EINVAL) {
				return err
			}
		}
		joined = append(joined, p)
	}
	if joined != nil {
		return overlayOld(target, lower, upper, work, attr)
	}
	if upper != "" {
		for _, o := range [][2]string{{"upperdir", upper}, {"workdir", work}} {
			p, err := short(o[1])
			if err != nil {
				return err
			}
			if err := set(o[0], p); err != nil {
				return err
			}
		}
		if err := unix.FsconfigSetFlag(fsfd, "volatile"); err != nil {
			return fmt.Errorf("option volatile: %w%s", err, kernelSays(fsfd))
		}
	}
	if err := unix.FsconfigCreate(fsfd); err != nil {
		return fmt.Errorf("make overlay: %w%s", err, kernelSays(fsfd))
	}
	mfd, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, attr)
	if err != nil {
		return fmt.Errorf("mount overlay: %w%s", err, kernelSays(fsfd))
	}
	defer unix.Close(mfd)
	if err := unix.MoveMount(mfd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach overlay: %w", err)
	}
	return nil
}

// overlayOld is one mount(2), whose options must fit into a page: lowers are
// named by their descriptors.
func overlayOld(target string, lower []string, upper, work string, attr int) error {
	var open []*os.File
	defer func() {
		for _, f := range open {
			f.Close()
		}
	}()
	fd := func(p string) (string, error) {
		f, err := os.OpenFile(p, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return "", err
		}
		open = append(open, f)
		return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())), nil
	}
	var names []string
	for _, d := range lower {
		p, err := fd(d)
		if err != nil {
			return err
		}
		names = append(names, p)
	}
	data := "userxattr,index=off,lowerdir=" + strings.Join(names, ":")
	flags := uintptr(0)
	if upper != "" {
		u, err := fd(upper)
		if err != nil {
			return err
		}
		w, err := fd(work)
		if err != nil {
			return err
		}
		data += ",volatile,upperdir=" + u + ",workdir=" + w
	}
	if attr&unix.MOUNT_ATTR_RDONLY != 0 {
		flags |= unix.MS_RDONLY
	}
	if len(data) >= os.Getpagesize() {
		return fmt.Errorf("%d layers do not fit into one mount call: Linux 6.7 or later is needed", len(lower))
	}
	return unix.Mount("overlay", target, "overlay", flags, data)
}

// kernelSays reads what the kernel logged about a file system being set up.
func kernelSays(fsfd int) string {
	var b strings.Builder
	buf := make([]byte, 1024)
	for {
		n, err := unix.Read(fsfd, buf)
		if err != nil || n <= 0 {
			return b.String()
		}
		b.WriteString(" (" + strings.TrimSpace(strings.TrimPrefix(string(buf[:n]), "e ")) + ")")
	}
}
