package credential_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"

	"kaniko-build/executor/internal/credential"
)

// helper writes a credential helper that gives a password for every host.
func helper(t *testing.T, dir, suffix, password string) {
	t.Helper()
	text := fmt.Sprintf("#!/bin/sh\nread host; echo '{\"ServerURL\":\"x\",\"Username\":\"u\",\"Secret\":\"%s\"}'\n", password)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-"+suffix), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// While the files of the machine are an image's, what was known stays known and
// the image's programs are not run.
func TestAway(t *testing.T) {
	home := alone(t)
	bin, kaniko := filepath.Join(home, "bin"), filepath.Join(home, "kaniko")
	t.Setenv("PATH", bin+":/usr/bin:/bin")
	helper(t, bin, "both", "of PATH")
	helper(t, bin, "path", "of PATH")
	helper(t, bin, "later", "of PATH")
	helper(t, kaniko, "both", "of kaniko")
	config := filepath.Join(home, ".docker/config.json")
	if err := os.Mkdir(filepath.Dir(config), 0o700); err != nil {
		t.Fatal(err)
	}
	const text = `{"auths":{"plain.example":{"username":"u","password":"plain"}},"credHelpers":{"both.example":"both","path.example":"path","later.example":"later"}}`
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	k := credential.New(credential.Options{})
	check := func(want map[string]string) {
		t.Helper()
		for host, password := range want {
			if c := resolve(t, k, host+"/x"); c.Password != password {
				t.Errorf("%s: the password is %q, want %q", host, c.Password, password)
			}
		}
	}
	check(map[string]string{"plain.example": "plain", "both.example": "of PATH", "path.example": "of PATH", "other.example": ""})
	back, err := k.Away(kaniko)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(config, config+".aside"); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"both", "path", "later"} {
		helper(t, bin, suffix, "of the image")
	}
	again, err := k.Away(kaniko) // another image, which waits
	if err != nil {
		t.Fatal(err)
	}
	back()
	check(map[string]string{"plain.example": "plain", "both.example": "of kaniko", "path.example": "of PATH", "other.example": ""})
	r, err := name.NewRepository("later.example/x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.ResolveContext(t.Context(), r); err == nil || !strings.Contains(err.Error(), "docker-credential-later") || !strings.Contains(err.Error(), kaniko) {
		t.Errorf("a helper of the image: %v", err)
	}
	again()
	if err := os.Rename(config+".aside", config); err != nil {
		t.Fatal(err)
	}
	helper(t, bin, "later", "of PATH again")
	check(map[string]string{"plain.example": "plain", "later.example": "of PATH again"})
}
