package e2e

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"kaniko-build/test/registrytest"
	"kaniko-build/test/rig"
)

// A password is kept when the registry takes it, and nothing is when it does not.
func TestLoginAsksTheRegistry(t *testing.T) {
	for name, o := range map[string]registrytest.Options{"basic": {Auth: true}, "tokens": {Tokens: true}, "TLS": {Auth: true, TLS: true}} {
		t.Run(name, func(t *testing.T) {
			r := registrytest.Start(t, o)
			dir := t.TempDir()
			config, ca := filepath.Join(dir, "config.json"), filepath.Join(dir, "ca.pem")
			login := func(password string, more ...string) (string, error) {
				c := exec.Command(rig.Binary(t), append([]string{"login", "-u", registrytest.User, "--password-stdin", r.Host}, more...)...)
				c.Env = append(os.Environ(), "DOCKER_CONFIG="+dir)
				c.Stdin = strings.NewReader(password + "\n")
				out, err := c.CombinedOutput()
				return string(out), err
			}
			var trust []string
			if o.TLS {
				if err := os.WriteFile(ca, r.CA, 0o600); err != nil {
					t.Fatal(err)
				}
				trust = []string{"--ca", ca}
				if out, err := login(registrytest.Password); err == nil || !strings.Contains(out, "cannot be trusted") {
					t.Errorf("%v\n%s", err, out)
				}
			}
			out, err := login("wrong", trust...)
			var code *exec.ExitError
			if !errors.As(err, &code) || code.ExitCode() != 1 || !strings.Contains(out, "does not take this user and password") || !strings.Contains(out, "Nothing was kept") || strings.Contains(out, "wrong") {
				t.Errorf("a wrong password: %v\n%s", err, out)
			}
			if _, err := os.Stat(config); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("there is a config: %v", err)
			}
			if out, err := login(registrytest.Password, trust...); err != nil || !strings.HasSuffix(out, "kept for "+r.Host+"\n") {
				t.Errorf("%v\n%s", err, out)
			}
			b, err := os.ReadFile(config)
			if err != nil || !strings.Contains(string(b), r.Host) {
				t.Errorf("%v\n%s", err, b)
			}
		})
	}
}
