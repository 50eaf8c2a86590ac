package pages

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kaniko-build/test/rig"
)

// browser is a Chromium that goes on, driven by the DevTools protocol through two
// pipes: JSON messages with a zero byte after each.
type browser struct {
	*testing.T
	in       *os.File
	messages chan message
	number   int
}

type message struct {
	ID      int             `json:"id,omitempty"`
	Session string          `json:"sessionId,omitempty"`
	Method  string          `json:"method,omitempty"`
	Params  json.RawMessage `json:"params,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   json.RawMessage `json:"error,omitempty"`
}

// tab is one page of a browser.
type tab struct {
	*browser
	session string
}

// openBrowser starts a browser that reaches this machine only, by its number and by
// the name rebound.test.
func openBrowser(t *testing.T) *browser {
	t.Helper()
	home := t.TempDir()
	cmd := exec.Command(rig.Need(t, "chromium", "chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--user-data-dir="+filepath.Join(home, "profile"), "--remote-debugging-pipe", "--window-size=1400,1000",
		"--host-resolver-rules=MAP rebound.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost", "about:blank")
	cmd.Env = append(os.Environ(), "HOME="+home)
	cmd.WaitDelay = 5 * time.Second
	var errs bytes.Buffer
	cmd.Stderr = &errs
	theirs, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, theirOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.ExtraFiles = []*os.File{theirs, theirOut} // 3 and 4
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	theirOut.Close()
	b := &browser{T: t, in: in, messages: make(chan message, 1000)}
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(b.messages)
		r := bufio.NewReader(out)
		for {
			text, err := r.ReadBytes(0)
			if err != nil {
				return
			}
			var m message
			if json.Unmarshal(text[:len(text)-1], &m) == nil {
				b.messages <- m
			}
		}
	}()
	t.Cleanup(func() {
		in.Close() // it ends then
		ended := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		defer ended.Stop()
		for range b.messages {
		}
		<-read
		out.Close()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("chromium said: %.2000s", errs.String())
		}
	})
	return b
}

// call asks the browser for something.
func (b *browser) call(session, method string, params, result any) {
	b.Helper()
	b.number++
	p, err := json.Marshal(params)
	if err != nil {
		b.Fatal(err)
	}
	m, err := json.Marshal(message{ID: b.number, Session: session, Method: method, Params: p})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := b.in.Write(append(m, 0)); err != nil {
		b.Fatalf("%s: %v", method, err)
	}
	late := time.After(2 * time.Minute)
	for {
		select {
		case m, ok := <-b.messages:
			if !ok {
				b.Fatalf("%s: the browser has ended", method)
			}
			if m.ID != b.number {
				continue
			}
			if m.Error != nil {
				b.Fatalf("%s: %s", method, m.Error)
			}
			if result != nil {
				if err := json.Unmarshal(m.Result, result); err != nil {
					b.Fatalf("%s: %v in %s", method, err, m.Result)
				}
			}
			return
		case <-late:
			b.Fatalf("%s: no answer", method)
		}
	}
}

// open opens a page. What goes wrong in it is noted: see quiet.
func (b *browser) open(url string) *tab {
	b.Helper()
	var target struct{ TargetID string }
	b.call("", "Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var session struct{ SessionID string }
	b.call("", "Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &session)
	t := &tab{browser: b, session: session.SessionID}
	b.call(t.session, "Page.enable", map[string]any{}, nil)
	b.call(t.session, "Page.addScriptToEvaluateOnNewDocument", map[string]any{"source": `window.problems = [];
addEventListener("error", e => problems.push(String(e.message)), true);
addEventListener("unhandledrejection", e => problems.push(String(e.reason)));
document.addEventListener("securitypolicyviolation", e => problems.push("policy: " + e.violatedDirective + " " + e.blockedURI + " " + e.sourceFile + ":" + e.lineNumber));`}, nil)
	var went struct{ ErrorText string }
	b.call(t.session, "Page.navigate", map[string]any{"url": url}, &went)
	if went.ErrorText != "" {
		b.Fatalf("open %s: %s", url, went.ErrorText)
	}
	t.until(`document.readyState === "complete"`)
	return t
}

// run runs the body of an async function in the page, and decodes what that returns
// into out.
func (t *tab) run(script string, out any) {
	t.Helper()
	var answer struct {
		Result struct {
			Value json.RawMessage
		}
		ExceptionDetails json.RawMessage
	}
	t.call(t.session, "Runtime.evaluate", map[string]any{"expression": "(async () => {" + script + "})()", "awaitPromise": true, "returnByValue": true}, &answer)
	if answer.ExceptionDetails != nil {
		t.Fatalf("the script fails: %s\n%s", answer.ExceptionDetails, script)
	}
	if out != nil {
		if err := json.Unmarshal(answer.Result.Value, out); err != nil {
			t.Fatalf("%v in %s", err, answer.Result.Value)
		}
	}
}

// until waits until an expression is true, a minute at most.
func (t *tab) until(expression string) {
	t.Helper()
	var ok bool
	t.run(`const end = Date.now() + 60000; while (!(`+expression+`)) { if (Date.now() > end) return false; await new Promise(r => setTimeout(r, 20)); } return true;`, &ok)
	if !ok {
		var text string
		t.run(`return document.title + "\n" + (document.body?.innerText || "") + "\n" + JSON.stringify(window.problems || [])`, &text)
		t.Fatalf("it never comes true that %s\n%.3000s", expression, text)
	}
}

// key presses a key and lets it go.
func (t *tab) key(name string) {
	t.Helper()
	codes := map[string]int{"Tab": 9, "Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
	for _, kind := range []string{"rawKeyDown", "keyUp"} {
		t.call(t.session, "Input.dispatchKeyEvent", map[string]any{"type": kind, "key": name, "code": name, "windowsVirtualKeyCode": codes[name]}, nil)
	}
}

// quiet fails if anything went wrong in the page.
func (t *tab) quiet() {
	t.Helper()
	var problems []string
	t.run("return window.problems", &problems)
	if len(problems) > 0 {
		t.Errorf("the page complains: %s", strings.Join(problems, "\n"))
	}
}
