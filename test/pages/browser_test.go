package pages

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"kaniko-build/test/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }

var found = regexp.MustCompile(`(?s)<pre id="found">(.*?)</pre>`)

// look opens a page, runs a script in it and decodes what that returns into
// out. dark is what the reader prefers.
func look(t *testing.T, page, script string, dark bool, out any) {
	t.Helper()
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(page, ".svg") {
		b = []byte("<!doctype html><meta charset=utf-8><body style='margin:0'>" + string(b) + "</body></html>")
	}
	added := `<script>addEventListener("error", e => { document.title = "error: " + e.message; });
addEventListener("load", async () => {
  let result;
  try { result = {ok: await (async () => {` + script + `})()}; } catch (e) { result = {error: String(e.stack || e)}; }
  document.body.innerHTML = "<pre id=found></pre>";
  document.getElementById("found").textContent = JSON.stringify({...result, title: document.title});
});</script>`
	copied := filepath.Join(t.TempDir(), "page.html")
	if at := bytes.LastIndex(b, []byte("</body>")); at > 0 {
		b = append(append(append([]byte(nil), b[:at]...), added...), b[at:]...)
	} else {
		t.Fatalf("%s has no end", page)
	}
	if err := os.WriteFile(copied, b, 0o644); err != nil {
		t.Fatal(err)
	}
	scheme := "1"
	if dark {
		scheme = "0"
	}
	dump := chromium(t, "--blink-settings=preferredColorScheme="+scheme, "--dump-dom", "file://"+copied)
	m := found.FindStringSubmatch(dump)
	if m == nil {
		t.Fatalf("the script left nothing: %.2000s", dump)
	}
	answer := struct {
		OK    json.RawMessage
		Error string
		Title string
	}{}
	if err := json.Unmarshal([]byte(html.UnescapeString(m[1])), &answer); err != nil {
		t.Fatalf("%v in %s", err, m[1])
	}
	if answer.Error != "" || strings.HasPrefix(answer.Title, "error:") {
		t.Fatalf("the page fails: %s %s", answer.Error, answer.Title)
	}
	if err := json.Unmarshal(answer.OK, out); err != nil {
		t.Fatalf("%v in %s", err, answer.OK)
	}
}

// chromium runs the browser, which reaches nothing but files.
func chromium(t *testing.T, args ...string) string {
	t.Helper()
	program := rig.Need(t, "chromium", "chromium")
	home := t.TempDir()
	all := append([]string{"--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--user-data-dir=" + filepath.Join(home, "profile"),
		"--host-resolver-rules=MAP * ~NOTFOUND", "--window-size=1400,1000", "--virtual-time-budget=60000", "--timeout=60000"}, args...)
	cmd := exec.CommandContext(t.Context(), program, all...)
	cmd.Env = append(os.Environ(), "HOME="+home)
	cmd.WaitDelay = 5 * time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		t.Fatalf("chromium: %v\n%s", err, errs.String())
	}
	return out.String()
}

// repository is a directory with a manifest and what it names.
func repository(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	rig.Write(t, dir, files)
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "busybox"), busybox, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// kaniko runs the program in a directory, with a store beside it, and returns
// its standard output and exit code.
func kaniko(t *testing.T, dir string, args ...string) (string, int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), rig.Binary(t), args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "KANIKO_BUILD_STATE="+filepath.Join(dir, "state"), "CI=", "GITHUB_ACTIONS=", "GITLAB_CI=")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v", err)
	}
	if code := cmd.ProcessState.ExitCode(); code > 1 {
		t.Fatalf("kaniko-build %q: exit code %d\n%s", args, code, errs.String())
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// target is a target of a manifest with its Dockerfile in it.
func target(name, group string, lines ...string) string {
	s := fmt.Sprintf("  %s:\n    context: .\n    image: example.test/%s\n", name, name)
	if group != "" {
		s += "    groups: [" + group + "]\n"
	}
	return s + "    dockerfileInline: |\n      " + strings.Join(lines, "\n      ") + "\n"
}
