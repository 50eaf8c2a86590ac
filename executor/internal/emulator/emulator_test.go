package emulator

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The lines are those of the kernel's documentation and of QEMU's own script.
func TestLine(t *testing.T) {
	for arch, want := range map[string]string{
		"arm64": `:qemu-aarch64:M::\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:` +
			`\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/q:POCF`,
		"s390x": `:qemu-s390x:M::\x7f\x45\x4c\x46\x02\x02\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x16:` +
			`\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff:/q:POCF`,
	} {
		got, err := Line(arch, "/q")
		if err != nil || got != want {
			t.Errorf("%s\ngot  %s %v\nwant %s", arch, got, err, want)
		}
	}
	if _, err := Line("vax", "/q"); err == nil {
		t.Error("vax has a line")
	}
}

func TestNative(t *testing.T) {
	for _, c := range []struct {
		host, arch string
		want       bool
	}{{"amd64", "amd64", true}, {"amd64", "386", true}, {"amd64", "arm64", false}, {"arm64", "arm", false}} {
		if got := Native(c.host, c.arch); got != c.want {
			t.Errorf("Native(%s, %s) = %v", c.host, c.arch, got)
		}
	}
}

func TestHandled(t *testing.T) {
	const handler = "enabled\ninterpreter /usr/libexec/qemu\nflags: POCF\noffset 0\n" +
		"magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n"
	for name, c := range map[string]struct {
		text string
		want bool
	}{
		"as installed":       {handler, true},
		"off":                {strings.Replace(handler, "enabled", "disabled", 1), false},
		"not opened":         {strings.Replace(handler, "POCF", "POC", 1), false},
		"of another machine": {strings.Replace(handler, "b700", "3e00", 1), false},
		"by extension":       {"enabled\ninterpreter /x\nflags: F\nextension .exe\n", false},
		"rubbish":            {"magic zz\n", false},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "any"), []byte(c.text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := Handled(dir, "arm64"); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if Handled(filepath.Join(t.TempDir(), "absent"), "arm64") {
		t.Error("handled without binfmt_misc")
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	if _, err := Find("arm64", []string{"", "relative", dir}); err == nil {
		t.Error("found in an empty directory")
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "qemu-aarch64")
	if err := os.WriteFile(name, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if p, err := Find("arm64", []string{dir}); err == nil {
		t.Errorf("found a script: %s", p)
	}
	if err := os.WriteFile(name, self, 0o644); err != nil {
		t.Fatal(err)
	}
	if static("/proc/self/exe") {
		if p, err := Find("arm64", []string{dir}); err != nil || p != name {
			t.Errorf("%s %v", p, err)
		}
	}
}
