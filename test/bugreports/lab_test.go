package bugreports

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"kaniko-build/test/image"
	"kaniko-build/test/mirror"
	"kaniko-build/test/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }

// reports are the cases, each a method, on the machine itself or in a container.
type reports struct{ box *rig.Box }

func TestOnTheMachine(t *testing.T) { reports{}.each(t) }

// TestInAContainer runs the cases in our debug image, in Docker's default container.
func TestInAContainer(t *testing.T) {
	d := rig.StartDocker(t)
	rig.LoadExecutors(t, d, rig.DebugImage)
	r := reports{box: rig.StartBox(t, d)}
	for name, reason := range exceptions {
		if _, ok := reflect.TypeFor[reports]().MethodByName(name); !ok || reason == "" {
			t.Errorf("exceptions: there is no case %s, or no reason %q", name, reason)
		}
	}
	r.each(t)
}

// exceptions are the cases that a container in which nothing can be mounted cannot pass,
// with the kernel's reason. Reviewed by hand; there are none.
var exceptions = map[string]string{}

// each runs every method as a test.
func (r reports) each(t *testing.T) {
	v := reflect.ValueOf(r)
	for i := range v.NumMethod() {
		name := v.Type().Method(i).Name
		if r.box != nil && exceptions[name] != "" {
			continue
		}
		t.Run(name, func(t *testing.T) { v.Method(i).Call([]reflect.Value{reflect.ValueOf(t)}) })
	}
}

// lab builds images from one account under one umask; its state lasts as long
// as the lab, so that the second build of it is a warm one.
type lab struct {
	*testing.T
	account *rig.Account
	box     *rig.Box // where it builds; nil is here
	binary  string
	mirror  *rig.Registry
	umask   int
	state   string
	dir     string // the context C of the reports
	out     string
	n       int
}

// umasks are those that a case is tried under; in the container, where builds take
// longer, the odd one alone, unless it compares them.
var umasks = []int{0o022, 0o077}

// under runs a case in a lab for each umask.
func (r reports) under(t *testing.T, try func(l *lab), bases ...string) {
	t.Helper()
	if len(bases) == 0 {
		bases = []string{mirror.Busybox}
	}
	reg := rig.StartMirror(t, bases...)
	list := umasks
	if r.box != nil && !strings.Contains(t.Name(), "BR19") {
		list = umasks[1:]
	}
	for _, umask := range list {
		t.Run(fmt.Sprintf("umask%03o", umask), func(t *testing.T) { try(r.newLab(t, reg, umask)) })
	}
}

func (r reports) newLab(t *testing.T, reg *rig.Registry, umask int) *lab {
	t.Helper()
	l := &lab{T: t, account: rig.NewAccount(t, rig.Superuser), binary: rig.Binary(t), mirror: reg, umask: umask}
	if l.box = r.box; l.box != nil {
		l.binary, l.dir, l.out = rig.BoxBinary, l.box.Space(t), l.box.Space(t)
		l.state = "/kaniko/states" + l.dir // in the container's own root
		return l
	}
	l.state = filepath.Join(rig.Space(t, l.account), "state")
	l.dir, l.out = rig.Space(t, l.account), rig.Space(t, l.account)
	return l
}

// call runs the program.
func (l *lab) call(c rig.Call, argv ...string) rig.Output {
	l.Helper()
	if l.box != nil {
		return l.box.Run(l.T, c, argv...)
	}
	return l.account.Run(l.T, c, argv...)
}

// write makes files in the context; a Dockerfile may start with a blank line.
func (l *lab) write(files map[string]string) {
	l.Helper()
	for name, text := range files {
		files[name] = strings.TrimPrefix(text, "\n")
	}
	rig.Write(l.T, l.dir, files)
}

// run starts a build of the context with a state directory and returns what
// it printed, and the image if it was made.
func (l *lab) run(state string, flags ...string) (rig.Output, string) {
	l.Helper()
	l.n++
	out := filepath.Join(l.out, fmt.Sprintf("%d.tar", l.n))
	argv := append([]string{l.binary, "build", "--progress", "plain", "-o", "type=oci,dest=" + out,
		"--registry-mirror", "docker.io=" + l.mirror.Addr}, flags...)
	return l.call(rig.Call{Dir: l.dir, Umask: l.umask, Env: []string{"KANIKO_BUILD_STATE=" + state}, Timeout: 2 * time.Minute},
		append(argv, l.dir)...), out
}

// made is run for what has to build.
func (l *lab) made(state string, flags ...string) *image.Dump {
	l.Helper()
	o, out := l.run(state, flags...)
	if o.Code != 0 {
		l.Fatalf("build %v: exit code %d\n%s", flags, o.Code, o.Tail(30))
	}
	return describe(l.T, out)
}

func describe(t *testing.T, where string) *image.Dump {
	t.Helper()
	img, err := image.Open(where, "")
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	d, err := image.Describe(img, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range d.Problems {
		t.Errorf("malformed image: %s", p)
	}
	return d
}

// build builds the context as it is now, warm if this is not the lab's first
// build, then again, then with a fresh state. All three have to be equal.
func (l *lab) build(flags ...string) *image.Dump {
	l.Helper()
	first := l.made(l.state, flags...)
	again := l.made(l.state, flags...)
	if !slices.Equal(first.DiffIDs, again.DiffIDs) {
		l.Errorf("nothing changed, but layers were made again: %v, then %v", first.DiffIDs, again.DiffIDs)
	}
	l.n++
	cold := l.made(filepath.Join(l.out, fmt.Sprintf("state-%d", l.n)), flags...)
	// A key leaves times out, so a warm build may keep an older one.
	for _, d := range image.Diff(cold, first, image.DiffOptions{Layers: true, History: true, MTime: "ignore"}) {
		l.Errorf("warm is not cold: %s", d)
	}
	return first
}

// text checks the content of a file.
func (l *lab) text(d *image.Dump, path, want string) {
	l.Helper()
	e, ok := d.Find(path)
	switch {
	case !ok:
		l.Errorf("%s is missing, want %q", path, want)
	case e.Type != "file":
		l.Errorf("%s is a %s, want a file with %q", path, e.Type, want)
	case e.Text != want:
		l.Errorf("%s holds %q, want %q", path, e.Text, want)
	}
}

// mode checks type, mode and owner: "dir 0755 0:0".
func (l *lab) mode(d *image.Dump, path, want string) {
	l.Helper()
	e, ok := d.Find(path)
	if !ok {
		l.Errorf("%s is missing, want %s", path, want)
		return
	}
	if got := fmt.Sprintf("%s %s %d:%d", e.Type, e.Mode, e.UID, e.GID); got != want {
		l.Errorf("%s is %s, want %s", path, got, want)
	}
}

// gone checks that nothing is at path.
func (l *lab) gone(d *image.Dump, path string) {
	l.Helper()
	if e, ok := d.Find(path); ok {
		l.Errorf("%s is a %s, want nothing there", path, e.Type)
	}
}

// below lists the names directly or deeper below a directory.
func below(d *image.Dump, dir string) []string {
	var out []string
	for _, p := range d.Paths() {
		if rest, ok := strings.CutPrefix(p, dir+"/"); ok {
			out = append(out, rest)
		}
	}
	return out
}

// names checks what lies below a directory.
func (l *lab) names(d *image.Dump, dir string, want ...string) {
	l.Helper()
	if got := below(d, dir); !slices.Equal(got, want) {
		l.Errorf("%s holds %q, want %q", dir, got, want)
	}
}

// layer returns the diff ID of the image's nth layer from the end, 1 being
// the last.
func (l *lab) layer(d *image.Dump, n int) string {
	l.Helper()
	if len(d.DiffIDs) < n {
		l.Fatalf("%d layers, want %d at least", len(d.DiffIDs), n)
	}
	return d.DiffIDs[len(d.DiffIDs)-n]
}

func (l *lab) path(name string) string { return filepath.Join(l.dir, name) }

func (l *lab) must(err error) {
	l.Helper()
	if err != nil {
		l.Fatal(err)
	}
}

func (l *lab) rename(from, to string) { l.Helper(); l.must(os.Rename(l.path(from), l.path(to))) }
