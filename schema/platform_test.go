package schema

import "testing"

// What is nearly a known platform is it misspelt; what is like none may be new.
func TestCheckPlatform(t *testing.T) {
	for text, want := range map[string]string{
		"linux/amd64": "ok", "linux/arm/v7": "ok", "linux/386": "ok", "windows/amd64": "ok", "linux/riscv64": "ok", "linux/mips64r6el": "ok", "amd64": "ok", "linux/kvx": "ok",
		"linux/amd46": "linux/amd64", "linxu/amd64": "linux/amd64", "linux/arm46": "linux/arm64", "linux/am64": "linux/amd64", "amd46": "amd64",
		"linux/armv7": "linux/arm/v7", "linux/x86": "linux/386", "linux/arm65/v8": "linux/arm64/v8",
		"x": "", "": "", "linux/": "", "a/b/c/d": "",
	} {
		near, ok := CheckPlatform(text)
		if got := near; ok && (want != "ok" || got != "") || !ok && got != want {
			t.Errorf("CheckPlatform(%q) = %q, %v; want %q", text, near, ok, want)
		}
	}
}
