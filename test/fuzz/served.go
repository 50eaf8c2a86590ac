package fuzz

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kaniko-build/test/githttp"
	"kaniko-build/test/rig"
)

// wwwHost stands in Dockerfiles for the server on loopback.
const wwwHost = "http://www.invalid"

// servedNames are the files that the server has. An "undated" one has no time,
// one that is "named" is called otherwise by the server, "moved" is a redirect.
var servedNames = []string{"file", "undated", "named", "moved", "a.tar", "a.tar?query=1", "missing", "file"}

func servedContent(name string) []byte {
	name, _, _ = strings.Cut(name, "?")
	switch name {
	case "missing":
		return nil
	case "a.tar":
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, n := range []string{"t/", "t/file"} {
			h := &tar.Header{Name: n, Typeflag: tar.TypeDir, Mode: 0o711, Uid: 3, Gid: 4, ModTime: time.Unix(1500000000, 0)}
			if !strings.HasSuffix(n, "/") {
				h.Typeflag, h.Size = tar.TypeReg, 2
			}
			w.WriteHeader(h)
			if h.Size > 0 {
				io.WriteString(w, "t\n")
			}
		}
		w.Close()
		return b.Bytes()
	case "moved":
		name = "file"
	}
	return []byte("served " + name + "\n")
}

// servedSum is the digest of a file, or another one.
func servedSum(name string, right bool) string {
	b := servedContent(name)
	if !right {
		b = []byte("wrong")
	}
	return fmt.Sprintf("sha256:%x", sha256.Sum256(b))
}

// serve starts the server of files and of a repository, and returns where it
// listens, "http://127.0.0.1:port".
func serve(t testing.TB) string {
	t.Helper()
	root := repository(t)
	backend, err := githttp.Backend(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/repo.git/", backend)
	mux.HandleFunc("/files/{name}", func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("name")
		b, when := servedContent(name), time.Unix(1400000000, 0)
		switch name {
		case "missing":
			http.NotFound(w, r)
			return
		case "moved":
			http.Redirect(w, r, "/files/file", http.StatusFound)
			return
		case "undated":
			when = time.Time{}
		case "named":
			w.Header().Set("Content-Disposition", `attachment; filename="other-name"`)
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", when, bytes.NewReader(b))
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL
}

// repository makes repo.git in a new directory: a branch, a tag, one with
// annotation, and directories.
func repository(t testing.TB) string {
	t.Helper()
	root := rig.Space(t, nil)
	work := filepath.Join(root, "work")
	git := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "git", args...)
		cmd.Dir = work
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b",
			"GIT_AUTHOR_DATE=1700000000 +0000", "GIT_COMMITTER_DATE=1700000000 +0000")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	rig.Write(t, work, map[string]string{"top": "top\n", "sub/f": "one\n", "sub/deep/g": "g\n", "run": "#!/bin/sh\n"})
	if err := os.Symlink("sub/f", filepath.Join(work, "link")); err != nil {
		t.Fatal(err)
	}
	git("init", "-q", "-b", "main", ".")
	git("add", ".")
	git("commit", "-qm", "one")
	git("tag", "v1")
	rig.Write(t, work, map[string]string{"sub/f": "another size, for git\n"})
	git("commit", "-qam", "two")
	git("tag", "-am", "annotated", "annotated")
	git("clone", "-q", "--bare", ".", filepath.Join(root, "repo.git"))
	return root
}
