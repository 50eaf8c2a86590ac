package copier_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"kaniko-build/executor/internal/copier"
)

// seen lists what lies below dir: names, modes, and what files and links hold.
func seen(t *testing.T, dir string) string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		switch fi, _ := e.Info(); {
		case e.IsDir():
			return nil
		case fi.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(p)
			out = append(out, rel+" -> "+to)
			return err
		default:
			b, err := os.ReadFile(p)
			out = append(out, fmt.Sprintf("%s %o %s", rel, fi.Mode().Perm(), b))
			return err
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

func TestUpdate(t *testing.T) {
	top := t.TempDir()
	root, outside := filepath.Join(top, "root"), filepath.Join(top, "outside")
	for _, dir := range []string{root + "/app/dir/full", root + "/app/was", root + "/opt", outside} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{root + "/app/old": "old", root + "/app/gone": "1", root + "/app/dir/full/f": "1", root + "/app/was/f": "1", outside + "/f": "outside", outside + "/gone": "outside"} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{
		"app/lib": "/opt/lib/..", "out": outside, "app/out": outside, "app/up": "../../../../../../outside", "app/link": outside + "/f",
		"app/proc": "/proc/self/root", "nothing": "/no/where",
	} {
		if err := os.Symlink(to, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(root+"/opt/lib", 0o755); err != nil {
		t.Fatal(err)
	}
	r, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	update := func(dest string, gone []string, files ...member) error {
		return copier.Update(t.Context(), r, dest, bytes.NewReader(pack(t, files)), gone)
	}
	if err := update("/app", []string{"gone", "dir", "link", "none/there", "out/gone"},
		member{name: "old", data: "new", mode: 0o755}, member{name: "deep/er/f", data: "2"}, member{name: "was", data: "a file"},
		member{name: "l", typ: tar.TypeSymlink, link: outside}, member{name: "lib/f", data: "by a link"}); err != nil {
		t.Fatal(err)
	}
	// A link of the root leads to where it leads for the process: there is no such place.
	for dest, names := range map[string][]string{"/out": {"f"}, "/app": {"out/f", "up/f", "proc/x/f", "l/f"}, "/nothing": {"f"}, "/app/old": {"f"}} {
		for _, name := range names {
			if err := update(dest, nil, member{name: name, data: "hostile"}); err == nil {
				t.Errorf("%s below %s was written", name, dest)
			}
		}
	}
	for _, name := range []string{"../f", "/f", ".", "a/../../f"} {
		if err := update("/app", nil, member{name: name, data: "hostile"}); err == nil {
			t.Errorf("%s was written", name)
		}
		if err := update("/app", []string{name}); err == nil {
			t.Errorf("%s was removed", name)
		}
	}
	want := strings.ReplaceAll(`app/deep/er/f 644 2
app/l -> OUT
app/lib -> /opt/lib/..
app/old 755 new
app/out -> OUT
app/proc -> /proc/self/root
app/up -> ../../../../../../outside
app/was 644 a file
nothing -> /no/where
opt/f 644 by a link
out -> OUT`, "OUT", outside)
	if got := seen(t, root); got != want {
		t.Errorf("the root holds\n%s\nwant\n%s", got, want)
	}
	if got := seen(t, outside); got != "f 644 outside\ngone 644 outside" {
		t.Errorf("outside lies\n%s", got)
	}
	if fi, err := os.Stat(root + "/app/old"); err != nil || !fi.ModTime().Equal(old) {
		t.Errorf("the time of a file: %v, %v", fi.ModTime(), err)
	}
	if err := update("/app/old/f", nil); err == nil || !strings.Contains(err.Error(), "/app/old") {
		t.Errorf("below a file: %v", err)
	}
}
