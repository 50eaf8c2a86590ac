package main

import (
	"crypto/ed25519"
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/ssh"

	"kaniko-build/test/githttp"
)

// TestRepositories runs testdata/repository. Each script has a repository served by
// git itself: REPO is its address, COMMIT the first of its two commits. "stop
// server" lets it answer nobody, until "start server".
func TestRepositories(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "repository"),
		RequireExplicitExec: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"stop":  func(ts *testscript.TestScript, _ bool, _ []string) { stopped(ts).Store(true) },
			"start": func(ts *testscript.TestScript, _ bool, _ []string) { stopped(ts).Store(false) },
		},
		Setup: func(e *testscript.Env) error {
			e.Setenv("KANIKO_BUILD_STATE", filepath.Join(e.WorkDir, "state"))
			e.Setenv("HOME", e.WorkDir)
			work := filepath.Join(e.WorkDir, "git", "images")
			commits, err := makeRepository(work)
			if err != nil {
				return err
			}
			backend, err := githttp.Backend(t.Context(), filepath.Join(e.WorkDir, "git"))
			if err != nil {
				return err
			}
			off := &atomic.Bool{}
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if off.Load() {
					http.Error(w, "stopped", http.StatusServiceUnavailable)
					return
				}
				if rest, ok := strings.CutPrefix(r.URL.Path, "/closed"); ok {
					_, password, _ := r.BasicAuth()
					switch header := r.Header.Get("Authorization"); {
					case rest == "/file" && (header == "Bearer sesame" || header == "Open sesame"):
						_, _ = w.Write([]byte("for those who ask\n"))
						return
					case password != "sesame":
						w.Header().Set("WWW-Authenticate", `Basic realm="closed"`)
						http.Error(w, "closed", http.StatusUnauthorized)
						return
					}
					r.URL.Path = rest
				}
				backend.ServeHTTP(w, r)
			}))
			e.Defer(s.Close)
			e.Values["stopped"] = off
			e.Setenv("REPO", s.URL+"/images/.git")
			e.Setenv("COMMIT", commits[0])
			agent, err := net.Listen("unix", filepath.Join(e.WorkDir, "agent.sock"))
			if err != nil {
				return err
			}
			e.Defer(func() { agent.Close() })
			e.Setenv("AGENT", filepath.Join(e.WorkDir, "agent.sock"))
			if err := writeKey(filepath.Join(e.WorkDir, "key")); err != nil {
				return err
			}
			e.Setenv("CLOSED", s.URL+"/closed")
			e.Setenv("PORT", s.URL[strings.LastIndexByte(s.URL, ':')+1:])
			return nil
		},
	})
}

func stopped(ts *testscript.TestScript) *atomic.Bool { return ts.Value("stopped").(*atomic.Bool) }

// writeKey makes a private key.
func writeKey(file string) error {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		return err
	}
	return os.WriteFile(file, pem.EncodeToMemory(block), 0o600)
}

// makeRepository makes two commits of a repository for the scripts.
func makeRepository(work string) (commits []string, err error) {
	git := func(args ...string) (string, error) {
		c := exec.Command("git", args...)
		c.Dir = work
		c.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com")
		out, err := c.Output()
		return strings.TrimSpace(string(out)), err
	}
	for _, dir := range []string{"base", "whole"} {
		if err := os.MkdirAll(filepath.Join(work, dir), 0o755); err != nil {
			return nil, err
		}
	}
	if _, err := git("init", "-q", "-b", "main", "."); err != nil {
		return nil, err
	}
	files := map[string]string{
		"base/kaniko-build.yaml":  "vars: {name: {default: none}}\ntargets: {base: {labels: {name: \"${vars.name}\"}}}\n",
		"base/Dockerfile":         "FROM scratch\nCOPY . /\n",
		"whole/kaniko-build.yaml": "version: 1\nname: whole\nrun: {push: true}\ntargets: {base: {context: ../base}}\n",
		"hooks.yaml":              "targets:\n  h:\n    hooks: {before: [{run: touch ran}]}\n    dockerfileInline: FROM scratch\n",
		"link.yaml":               "targets: {l: {dockerfile: away}}\n",
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(work, "away")); err != nil {
		return nil, err
	}
	for _, text := range []string{"first\n", "second\n"} {
		files["base/from-base"] = text
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(work, name), []byte(text), 0o644); err != nil {
				return nil, err
			}
		}
		if _, err := git("add", "-A"); err != nil {
			return nil, err
		}
		if _, err := git("commit", "-qm", text); err != nil {
			return nil, err
		}
		id, err := git("rev-parse", "HEAD")
		if err != nil {
			return nil, err
		}
		commits = append(commits, id)
	}
	return commits, nil
}
