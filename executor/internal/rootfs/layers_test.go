package rootfs

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/layer"
)

func TestMain(m *testing.M) {
	if os.Getenv("ROOTFS_CHILD") != "" {
		if err := child(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

type member struct {
	name, data, link string
	typ              byte
	mode             int64
	uid              int
}

func archive(members ...member) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		h := &tar.Header{Name: m.name, Typeflag: m.typ, Mode: m.mode, Uid: m.uid, Gid: m.uid, Size: int64(len(m.data)), Linkname: m.link, ModTime: time.Unix(1600000000, 0)}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		if h.Typeflag == tar.TypeChar {
			h.Devmajor, h.Devminor = 1, 3
		}
		if err := errors.Join(w.WriteHeader(h), func() error { _, err := io.WriteString(w, m.data); return err }()); err != nil {
			panic(err) // the test's own members
		}
	}
	w.Close()
	return b.Bytes()
}

// blobs is a registry: blobs by the diffID of what is in them.
type blobs struct {
	data  map[digest.Digest][]byte
	opens atomic.Int32
	slow  time.Duration // between two kilobytes
}

func (b *blobs) add(tar []byte) Layer {
	if b.data == nil {
		b.data = map[digest.Digest][]byte{}
	}
	id := digest.FromBytes(tar)
	b.data[id] = tar
	return Layer{DiffID: id}
}

func (b *blobs) open(ctx context.Context, l Layer) (io.ReadCloser, error) {
	b.opens.Add(1)
	d, ok := b.data[l.DiffID]
	if !ok {
		return nil, errors.New("no such blob")
	}
	if b.slow > 0 {
		return io.NopCloser(&slowReader{d, b.slow}), nil
	}
	return io.NopCloser(bytes.NewReader(d)), nil
}

type slowReader struct {
	b    []byte
	wait time.Duration
}

func (s *slowReader) Read(p []byte) (int, error) {
	if len(s.b) == 0 {
		return 0, io.EOF
	}
	time.Sleep(s.wait)
	n := copy(p[:min(len(p), 1024)], s.b)
	s.b = s.b[n:]
	return n, nil
}

func paths(t testing.TB, dirs []string) []string {
	t.Helper()
	var out []string
	for _, s := range shapeOf(t, dirs) {
		f := strings.Fields(s)
		out = append(out, f[0])
	}
	return out[1:] // without the root
}

func shapeOf(t testing.TB, dirs []string) []string {
	t.Helper()
	v, err := OpenView(dirs...)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	return shape(t, v)
}

func clean(t *testing.T, l *Layers) {
	t.Helper()
	list, err := os.ReadDir(l.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if strings.HasPrefix(e.Name(), ".") {
			t.Errorf("%s is left", e.Name())
		}
	}
}

func TestEnsure(t *testing.T) {
	needMount(t) // owners
	var b blobs
	base := b.add(archive(member{name: "etc/", typ: tar.TypeDir, mode: 0o750, uid: 5}, member{name: "etc/a", data: "A"}, member{name: "etc/b", data: "B"}))
	own := b.add(archive(member{name: "opt/", typ: tar.TypeDir}, member{name: "opt/x", data: "X"}))
	needy := b.add(archive(member{name: "etc/.wh.a"}, member{name: "etc/c", data: "C"}, member{name: "d", typ: tar.TypeLink, link: "etc/b", mode: 0o600}))
	l := &Layers{Dir: filepath.Join(t.TempDir(), "layers")}
	dirs, err := l.Ensure(t.Context(), []Layer{base, own, needy, own}, b.open)
	if err != nil {
		t.Fatal(err)
	}
	// own stands twice in the chain, and once in what the kernel is given.
	if len(dirs) != 3 || dirs[0] != l.Root(own.DiffID.Encoded()) || !strings.Contains(dirs[1], "chain") || strings.Contains(dirs[2], "chain") {
		t.Errorf("directories %q", dirs)
	}
	if got, want := paths(t, dirs), []string{"d", "etc", "etc/b", "etc/c", "opt", "opt/x"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	v, _ := OpenView(dirs...)
	defer v.Close()
	if e, err := v.Lstat(t.Context(), "etc"); err != nil || e.Perm() != 0o750 || e.UID != 5 {
		t.Errorf("etc: %+v, %v", e, err)
	}
	if b.opens.Load() != 3 {
		t.Errorf("%d blobs opened, want 3", b.opens.Load())
	}
	clean(t, l)

	// Again, and with another chain: the needy layer is made anew, no other.
	b.opens.Store(0)
	if again, err := l.Ensure(t.Context(), []Layer{base, own, needy, own}, b.open); err != nil || !slices.Equal(again, dirs) || b.opens.Load() != 0 {
		t.Errorf("again: %q, %v, %d blobs opened", again, err, b.opens.Load())
	}
	other, err := l.Ensure(t.Context(), []Layer{own, base, needy}, b.open)
	if err != nil || other[0] == dirs[1] || b.opens.Load() != 1 {
		t.Errorf("other chain: %q, %v, %d blobs opened", other, err, b.opens.Load())
	}
	if _, ok := l.Has([]Layer{own, base, needy}); !ok {
		t.Error("Has does not find what is there")
	}
	if _, ok := l.Has([]Layer{base, needy}); ok {
		t.Error("Has finds a needy layer on another chain")
	}
	// One that cannot be marked as used is being pruned: it is not there.
	var asked []string
	l.Use = func(dir string) bool { asked = append(asked, filepath.Base(dir)); return false }
	if _, ok := l.Has([]Layer{own}); ok || len(asked) == 0 || asked[0] != own.DiffID.Encoded() {
		t.Errorf("Has finds what is being pruned; asked about %q", asked)
	}
	l.Use = nil
	clean(t, l)
}

func TestEnsureReadsAnyCompressionAndChecksDigests(t *testing.T) {
	var b blobs
	var chain []Layer
	for i, c := range []layer.Compression{{Type: layer.Gzip}, {Type: layer.Zstd}, {Type: layer.None}} {
		tar := archive(member{name: fmt.Sprint("f", i), data: "x"})
		var z bytes.Buffer
		w, err := layer.Compress(&z, c)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(tar)
		w.Close()
		one := b.add(tar)
		b.data[one.DiffID] = z.Bytes()
		chain = append(chain, one)
	}
	l := &Layers{Dir: t.TempDir()}
	dirs, err := l.Ensure(t.Context(), chain, b.open)
	if err != nil || !slices.Equal(paths(t, dirs), []string{"f0", "f1", "f2"}) {
		t.Errorf("%q, %v", dirs, err)
	}
	var cut bytes.Buffer
	w := gzip.NewWriter(&cut)
	w.Write(archive(member{name: "y", data: strings.Repeat("long", 10000)}))
	w.Close()
	for name, data := range map[string][]byte{"other": archive(member{name: "y"}), "cut": cut.Bytes()[:cut.Len()/2], "none": nil} {
		bad := Layer{DiffID: digest.FromString(name)}
		if data != nil {
			b.data[bad.DiffID] = data
		}
		if _, err := l.Ensure(t.Context(), append(slices.Clone(chain), bad), b.open); err == nil || !strings.Contains(err.Error(), bad.DiffID.String()) {
			t.Errorf("%s: error %v", name, err)
		}
		if _, ok := l.Has([]Layer{bad}); ok {
			t.Errorf("%s was kept", name)
		}
	}
	if _, err := l.Ensure(t.Context(), []Layer{{DiffID: "sha256:../../etc"}}, b.open); err == nil {
		t.Error("a digest that is a path was accepted")
	}
	clean(t, l)
}

func TestEnsureOpaqueRootHidesLayers(t *testing.T) {
	var b blobs
	low := b.add(archive(member{name: "low"}))
	top := b.add(archive(member{name: ".wh..wh..opq"}, member{name: "top"}))
	dirs, err := (&Layers{Dir: t.TempDir()}).Ensure(t.Context(), []Layer{low, top}, b.open)
	if err != nil || len(dirs) != 1 || !slices.Equal(paths(t, dirs), []string{"top"}) {
		t.Errorf("%q, %v", dirs, err)
	}
}

func TestEnsureCancelled(t *testing.T) {
	b := blobs{slow: time.Millisecond}
	one := b.add(archive(member{name: "f", data: strings.Repeat("x", 1<<20)}))
	two := b.add(archive(member{name: "d/f", data: strings.Repeat("x", 1<<20)}))
	l := &Layers{Dir: t.TempDir()}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := l.Ensure(ctx, []Layer{one, two}, b.open); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	if d := time.Since(start); d > 3*time.Second {
		t.Errorf("ended after %v", d)
	}
	clean(t, l)
}

// needyChain is layers that refer to each other, so that all but the first are
// finished upon their chain.
func needyChain(b *blobs) []Layer {
	big := strings.Repeat("0123456789abcdef", 4096)
	chain := []Layer{b.add(archive(member{name: "d/", typ: tar.TypeDir, mode: 0o711}, member{name: "d/0", data: big}))}
	for i := range 5 {
		chain = append(chain, b.add(archive(member{name: fmt.Sprint("d/", i+1), data: big}, member{name: fmt.Sprint("l", i), typ: tar.TypeLink, link: "d/0"})))
	}
	return chain
}

// child is what other processes of these tests do: it brings a chain about,
// and may be killed meanwhile.
func child() error {
	b := blobs{slow: 200 * time.Microsecond}
	chain := needyChain(&b)
	if os.Getenv("ROOTFS_CHILD") == "backwards" { // another chain of the same layers
		chain[4], chain[5] = chain[5], chain[4]
	}
	l := &Layers{Dir: os.Getenv("ROOTFS_DIR")}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	dirs, err := l.Ensure(ctx, chain, b.open)
	if err != nil {
		return err
	}
	fmt.Println(b.opens.Load(), strings.Join(dirs, " "))
	return nil
}

func TestEnsureByManyProcesses(t *testing.T) {
	dir := t.TempDir()
	run := func(how string) *exec.Cmd {
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), "ROOTFS_CHILD="+how, "ROOTFS_DIR="+dir)
		return c
	}
	// Some die at any moment.
	for i := range 4 {
		c := run("forwards")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(10+25*i) * time.Millisecond) // the moment is the point
		c.Process.Kill()
		c.Wait()
	}
	type result struct {
		out []byte
		err error
	}
	results := make(chan result)
	for i := range 4 {
		go func() {
			c := run([]string{"forwards", "backwards"}[i%2])
			c.Stderr = os.Stderr
			out, err := c.Output()
			results <- result{out, err}
		}()
	}
	opens := 0
	seen := map[string]int{}
	for range 4 {
		r := <-results
		if r.err != nil {
			t.Fatalf("child: %v", r.err)
		}
		n, dirs, _ := strings.Cut(strings.TrimSpace(string(r.out)), " ")
		var k int
		fmt.Sscan(n, &k)
		opens += k
		seen[dirs]++
	}
	if len(seen) != 2 {
		t.Errorf("results %v, want two", seen)
	}
	if opens > 10 { // 6 layers, 2 of them again on the other chain, and a lost race
		t.Errorf("%d blobs opened", opens)
	}
	l := &Layers{Dir: dir}
	if err := l.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	clean(t, l)
	for dirs := range seen {
		if got := paths(t, strings.Fields(dirs)); len(got) != 12 {
			t.Errorf("%q", got)
		}
	}
}

func TestSweepLeavesTheLiving(t *testing.T) {
	l := &Layers{Dir: t.TempDir()}
	live, err := l.temp()
	if err != nil {
		t.Fatal(err)
	}
	dead := filepath.Join(l.Dir, tempPrefix+"dead")
	os.MkdirAll(filepath.Join(dead, "fs/d"), 0o755)
	unlock, err := l.lock(t.Context(), "", "mine")
	if err != nil {
		t.Fatal(err)
	}
	os.WriteFile(filepath.Join(l.Dir, lockPrefix+"theirs"), nil, 0o644)
	if err := l.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]bool{live.fs(): true, dead: false, filepath.Join(l.Dir, lockPrefix+"mine"): true, filepath.Join(l.Dir, lockPrefix+"theirs"): false} {
		if _, err := os.Lstat(p); (err == nil) != want {
			t.Errorf("%s is there: %v, want %v", p, err == nil, want)
		}
	}
	unlock()
	live.remove()
	clean(t, l)
}

func TestAdopt(t *testing.T) {
	l := &Layers{Dir: filepath.Join(t.TempDir(), "layers")}
	one, two := Layer{DiffID: digest.FromString("x")}, Layer{DiffID: digest.FromString("y")}
	for _, c := range []struct {
		chain []Layer
		alone bool // serves any chain
	}{{[]Layer{one}, true}, {[]Layer{one}, true}, {[]Layer{one, two}, false}} {
		up := filepath.Join(filepath.Dir(l.Dir), "up")
		os.Mkdir(up, 0o755)
		os.Symlink("a", filepath.Join(up, "l"))
		dir, err := l.Adopt(t.Context(), c.chain, up, map[string][2]uint32{"l": {3, 4}}, false)
		if err != nil {
			t.Fatal(err)
		}
		if found, ok := l.Has(c.chain); !ok || found != dir {
			t.Errorf("Has finds %q, want %q", found, dir)
		}
		if _, ok := l.Has(c.chain[len(c.chain)-1:]); ok != c.alone {
			t.Errorf("%v serves any chain: %v, want %v", c.chain, ok, c.alone)
		}
		if _, err := os.Lstat(up); err == nil {
			t.Error("the upper is still there")
		}
		v, err := OpenView(dir)
		if err != nil {
			t.Fatal(err)
		}
		if e, err := v.Lstat(t.Context(), "l"); err != nil || e.UID != 3 || e.GID != 4 || e.Link != "a" {
			t.Errorf("%+v, %v", e, err)
		}
		v.Close()
	}
	clean(t, l)
}

// TestNearIsOnlyFoundByItsChain has a layer at a place of its own for a while.
func TestNearIsOnlyFoundByItsChain(t *testing.T) {
	l := &Layers{Dir: filepath.Join(t.TempDir(), "layers")}
	one, two := Layer{DiffID: digest.FromString("x")}, Layer{DiffID: digest.FromString("y")}
	dir := t.TempDir()
	l.Near([]Layer{one, two}, dir)
	if found, ok := l.Has([]Layer{one, two}); !ok || found != dir {
		t.Errorf("Has finds %q, want %q", found, dir)
	}
	for _, other := range [][]Layer{{two}, {one}, {two, two}} {
		if found, ok := l.Has(other); ok {
			t.Errorf("%v is at %q", other, found)
		}
	}
	if got, ok := l.Far([]Layer{one, two}); !ok || got != dir {
		t.Errorf("Far gives %q, want %q", got, dir)
	}
	if _, ok := l.Has([]Layer{one, two}); ok {
		t.Error("it is still there")
	}
}

func TestUmaskDoesNotShow(t *testing.T) {
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	var b blobs
	dirs, err := (&Layers{Dir: t.TempDir()}).Ensure(t.Context(), []Layer{b.add(archive(member{name: "a/b"}))}, b.open)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"", "a", "a/b"} {
		if st, err := os.Stat(filepath.Join(dirs[0], p)); err != nil || st.Mode().Perm() != 0o755 {
			t.Errorf("%q: %v, %v", p, st.Mode(), err)
		}
	}
}

// TestOneID runs the whole path in a user namespace where root is the only id.
func TestOneID(t *testing.T) {
	if os.Getenv("ROOTFS_ONE_ID") == "" {
		exe, err := os.ReadFile(os.Args[0]) // where an ordinary user can read it
		if err != nil {
			t.Fatal(err)
		}
		top, err := os.MkdirTemp("", "one-id")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(top)
		uid, gid := os.Geteuid(), os.Getegid()
		if uid == 0 {
			uid, gid = 12345, 12345
		}
		if err := errors.Join(os.Chown(top, uid, gid), os.WriteFile(filepath.Join(top, "t"), exe, 0o755), os.Mkdir(filepath.Join(top, "tmp"), 0o777), os.Chown(filepath.Join(top, "tmp"), uid, gid)); err != nil {
			t.Fatal(err)
		}
		c := exec.Command(filepath.Join(top, "t"), "-test.run=^TestOneID$", "-test.v")
		c.Dir = top
		c.Env = append(os.Environ(), "ROOTFS_ONE_ID=1", "TMPDIR="+filepath.Join(top, "tmp"))
		c.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}, GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}},
		}
		if os.Geteuid() == 0 {
			c.SysProcAttr.Credential = &syscall.Credential{Uid: 0, Gid: 0, NoSetGroups: true}
		}
		out, err := c.CombinedOutput()
		if err != nil && strings.Contains(err.Error(), "operation not permitted") {
			t.Skipf("needs user namespaces: %v", err)
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		t.Logf("%s", out)
		return
	}
	var b blobs
	base := b.add(archive(member{name: "home/", typ: tar.TypeDir, uid: 1000, mode: 0o2750}, member{name: "home/f", data: "x", uid: 1000, mode: 0o4711},
		member{name: "home/l", typ: tar.TypeSymlink, link: "f", uid: 1000}, member{name: "null", typ: tar.TypeChar, mode: 0o666, uid: 7}, member{name: "bin", data: "b"}))
	next := b.add(archive(member{name: "home/.wh.l"}, member{name: "home/new", uid: 1000}))
	mk := layer.Maker{IDs: layer.IDRange(1)}
	l := &Layers{Dir: filepath.Join(t.TempDir(), "layers"), Make: mk}
	dirs, err := l.Ensure(t.Context(), []Layer{base, next}, b.open)
	if err != nil {
		t.Fatal(err)
	}
	if !HasDevices(dirs) || !HasDevices(dirs[1:]) || HasDevices(dirs[:1]) {
		t.Errorf("devices: %v in the stack, %v in the base, %v above", HasDevices(dirs), HasDevices(dirs[1:]), HasDevices(dirs[:1]))
	}
	top := t.TempDir()
	s := Stack{dirs}
	at := func(p string) string { return filepath.Join(top, p) }
	if err := errors.Join(s.NewUpper(at("up")), os.Mkdir(at("m"), 0o755)); err != nil {
		t.Fatal(err)
	}
	stubs, err := s.Stubs(t.Context(), at("up"), []Target{{Path: "/home/cache"}, {Path: "/proc", Keep: true}}, mk)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Mount(t.Context(), at("m"), at("up"), at("w")); err != nil {
		t.Fatal(err)
	}
	err = errors.Join(os.Chmod(at("m/home/f"), 0o755), os.Remove(at("m/bin")), os.WriteFile(at("m/home/mine"), nil, 0o644), os.Rename(at("m/null"), at("m/zero")))
	if err := errors.Join(err, Unmount(at("m")), RemoveWork(at("w")), stubs.Remove(t.Context())); err != nil {
		t.Fatal(err)
	}
	v, err := OpenView(dirs...)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	var packed bytes.Buffer
	stats, err := layer.Pack(t.Context(), &packed, at("up"), v, layer.PackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !stats.Devices {
		t.Error("a device in the upper was not noticed")
	}
	var got []string
	tr := tar.NewReader(&packed)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%c %s %o %d:%d", h.Typeflag, h.Name, h.Mode, h.Uid, h.Gid))
	}
	want := []string{"0 .wh.bin 0 0:0", "5 home/ 2750 1000:1000", "0 home/f 755 1000:1000", "0 home/mine 644 0:0", "0 .wh.null 0 0:0", "5 proc/ 755 0:0", "3 zero 666 7:7"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	for _, s := range shapeOf(t, dirs[1:]) {
		if strings.HasPrefix(s, "home/l ") && !strings.Contains(s, "1000:1000") {
			t.Errorf("the link's owner is lost: %s", s)
		}
	}
}

// evilTar is a layer with overlay's own control data in it.
func evilTar(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	control := map[string]string{
		"SCHILY.xattr.user.overlay.opaque": "y", "SCHILY.xattr.trusted.overlay.opaque": "y",
		"SCHILY.xattr.user.overlay.redirect": "/etc", "SCHILY.xattr.user.overlay.whiteout": "y",
	}
	for _, h := range []*tar.Header{
		{Name: "secret/", Typeflag: tar.TypeDir, Mode: 0o755, PAXRecords: control},
		{Name: "keep", Typeflag: tar.TypeChar, Mode: 0o644, PAXRecords: control},
	} {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	return b.Bytes()
}
