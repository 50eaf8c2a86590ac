package pages

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"kaniko-build/test/rig"
)

// watching is a running `kaniko-build watch --serve`.
type watching struct {
	*testing.T
	dir  string
	url  string
	cmd  *exec.Cmd
	told []string
	over chan struct{}
}

// serve watches a directory, and waits for the address of the page.
func serve(t *testing.T, dir string, args ...string) *watching {
	t.Helper()
	w := &watching{T: t, dir: dir, over: make(chan struct{})}
	w.cmd = exec.Command(rig.Binary(t), append([]string{"watch", "--serve", "127.0.0.1:0", "--progress", "plain", "--debounce", "50ms"}, args...)...)
	w.cmd.Dir = dir
	w.cmd.Env = append(os.Environ(), "KANIKO_BUILD_STATE="+filepath.Join(dir, "state"), "CI=", "GITHUB_ACTIONS=", "GITLAB_CI=")
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	errs, err := w.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	found := make(chan string, 1)
	go func() {
		defer close(w.over)
		lines := bufio.NewScanner(errs)
		for lines.Scan() {
			w.told = append(w.told, lines.Text())
			if at, ok := strings.CutPrefix(lines.Text(), "the page is at "); ok {
				found <- at
			}
		}
	}()
	t.Cleanup(func() {
		w.end()
		if t.Failed() {
			t.Log(strings.Join(w.told[max(0, len(w.told)-40):], "\n"))
		}
	})
	select {
	case w.url = <-found:
	case <-w.over:
		t.Fatal("it has ended")
	case <-time.After(time.Minute):
		t.Fatal("it says no address")
	}
	return w
}

// end interrupts the watch, unless it has ended, and waits for it.
func (w *watching) end() {
	w.Helper()
	if w.cmd.ProcessState != nil {
		return
	}
	if err := w.cmd.Process.Signal(os.Interrupt); err != nil {
		w.Error(err)
	}
	<-w.over
	_ = w.cmd.Wait()
	if code := w.cmd.ProcessState.ExitCode(); code != 130 {
		w.Errorf("interrupted it ends with code %d", code)
	}
}

func (w *watching) write(name, text string) {
	w.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o644); err != nil {
		w.Fatal(err)
	}
}

// node is an expression: the node of the picture.
func node(id string) string { return fmt.Sprintf(`document.querySelector('.node[data-id="%s"]')`, id) }

// is is an expression: a node of the picture has a state.
func is(id string, states ...string) string {
	var any []string
	for _, s := range states {
		any = append(any, fmt.Sprintf("%s?.classList.contains(%q)", node(id), s))
	}
	return "(" + strings.Join(any, " || ") + ")"
}

func TestAWatchIsSeenInABrowser(t *testing.T) {
	run := func(script string) string { return fmt.Sprintf("RUN [\"/bin/busybox\", \"sh\", \"-c\", %q]", script) }
	manifest := "version: 1\nname: shop\ntargets:\n" +
		target("base", "", "FROM scratch", "COPY --chmod=755 busybox /bin/busybox") +
		target("api", "backend", "FROM example.test/base", "COPY f /f", run("printf '%s\\n' '"+strings.ReplaceAll(hostile, "'", `"`)+"'; echo f holds; /bin/busybox cat /f")) +
		target("web", "frontend", "FROM example.test/api", "COPY g /g")
	dir := repository(t, map[string]string{"kaniko-build.yaml": manifest, "f": "one\n", "g": "one\n"})
	addr := rig.HoldPort(t)
	w := serve(t, dir, "--serve", addr)
	b := openBrowser(t)
	page := b.open(w.url)
	page.until(is("base", "built", "cached") + " && " + is("api", "built") + " && " + is("web", "built"))
	page.until(`document.getElementById("outcome").innerText === "watching"`)
	page.run("window.same = true", nil)

	// A file is saved: the states change, and the page is the same one.
	page.run(`window.states = new Set(); new MutationObserver(() => states.add(`+node("api")+`.getAttribute("class").replace(/ (dim|chosen)/g, ""))).observe(`+node("api")+`, {attributes: true});`, nil)
	w.write("f", "two\n")
	page.until(`document.querySelectorAll("#history li").length === 2 && ` + is("web", "built") + ` && document.querySelector('#images tr[data-id="web"]').innerText.includes("\t2\t")`)
	var got struct {
		Same                        bool
		States                      []string
		Title, History, Table, Base string
	}
	page.run(`return {same: window.same, states: [...states], title: document.title, history: document.querySelector("#history li").innerText, table: document.querySelector('#images tr[data-id="api"]').innerText,
  base: document.querySelector('#images tr[data-id="base"]').innerText}`, &got)
	if !got.Same || got.Title != "shop" || !strings.Contains(strings.Join(got.States, ","), "building") {
		t.Errorf("same page %v, title %q, states of api %q", got.Same, got.Title, got.States)
	}
	if !strings.Contains(got.History, "api: f changed (saved ") || !strings.Contains(got.History, "2 built") || !strings.Contains(got.Table, "f changed (saved ") || !strings.Contains(got.Base, "\t1\t") {
		t.Errorf("history %q, api %q, base %q", got.History, got.Table, got.Base)
	}

	// Its log is shown on a click, as text, and goes on.
	page.run(node("api")+`.dispatchEvent(new MouseEvent("click", {bubbles: true}))`, nil)
	page.until(`document.getElementById("log").innerText.includes("| two")`)
	var log string
	page.run(`return document.getElementById("log").innerText`, &log)
	if !strings.Contains(log, strings.ReplaceAll(hostile, "'", `"`)) || !strings.Contains(log, "| one") {
		t.Errorf("the log is %q", log)
	}
	w.write("f", "three\n")
	page.until(`document.getElementById("log").innerText.includes("| three")`)
	page.run(`document.activeElement.blur()`, nil)
	page.key("Escape")
	page.until(`document.getElementById("panel").hidden`)

	// Without a mouse: Tab reaches the graph, arrows go in it, Enter opens, Escape closes.
	page.run(`document.getElementById("larger").focus()`, nil)
	page.key("Tab")
	page.until(`document.activeElement === document.getElementById("graph") || document.activeElement.dataset.id`)
	var at string
	if page.run(`return document.activeElement.dataset.id || ""`, &at); at == "" {
		page.key("Tab") // the box that is moved
	}
	page.key("ArrowRight")
	page.until(`document.activeElement === ` + node("api"))
	page.key("Enter")
	page.until(`!document.getElementById("panel").hidden && document.querySelector("#detail h2").innerText === "api"`)
	page.key("Escape")
	page.until(`document.getElementById("panel").hidden && document.activeElement === ` + node("api"))

	// What goes wrong is shown, and waited out.
	w.write("kaniko-build.yaml", manifest+"  broken: [\n")
	page.until(`document.getElementById("outcome").innerText === "broken" && document.getElementById("problem").innerText.includes("kaniko-build.yaml:")`)
	w.write("kaniko-build.yaml", manifest+target("late", "backend", "FROM example.test/base", "RUN /bin/busybox false"))
	page.until(is("late", "failed") + ` && document.getElementById("failures").innerText.includes("late failed")`)
	page.until(`document.getElementById("problem").hidden`)

	// Light and dark.
	colours := `return [getComputedStyle(document.body).backgroundColor, getComputedStyle(` + node("api") + `.querySelector("rect")).fill]`
	var light, dark []string
	for _, c := range []struct {
		scheme string
		out    *[]string
	}{{"light", &light}, {"dark", &dark}} {
		page.call(page.session, "Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": c.scheme}}}, nil)
		page.run(colours, c.out)
	}
	if light[0] == dark[0] || light[1] == dark[1] {
		t.Errorf("light is %q, dark is %q", light, dark)
	}
	page.quiet()

	// It ends with the watch, and the port is free.
	w.end()
	page.until(`document.getElementById("outcome").innerText === "the watch has ended"`)
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Errorf("the port is not free: %v", err)
	} else {
		l.Close()
	}
}

// TestOtherOriginsSeeNothing has pages of other servers, who even know the address.
func TestOtherOriginsSeeNothing(t *testing.T) {
	dir := repository(t, map[string]string{"kaniko-build.yaml": "version: 1\nname: secret\ntargets:\n" + target("a", "", "FROM scratch", "COPY f /f"), "f": "x\n"})
	w := serve(t, dir)
	evil := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "text/html")
		fmt.Fprint(rw, "<!doctype html><title>evil</title><body></body>")
	}))
	defer evil.Close()
	b := openBrowser(t)
	page := b.open(evil.URL)
	address, err := json.Marshal(w.url)
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Fetch, Blind, Stream, Script, Frame string }
	page.run(`const at = `+string(address)+`;
const asked = async (url, o) => { try { const r = await fetch(url, o); return r.type + " " + (await r.text()); } catch (e) { return "refused"; } };
const loaded = (tag, props) => new Promise(done => { const e = Object.assign(document.createElement(tag), props); e.onload = () => done("loaded"); e.onerror = () => done("refused"); document.body.append(e); });
const out = {fetch: await asked(at + "events"), blind: await asked(at + "graph.svg", {mode: "no-cors"}), script: await loaded("script", {src: at + "live.js"})};
out.stream = await new Promise(done => { const s = new EventSource(at + "events"); s.onmessage = s.onopen = () => done("open"); s.addEventListener("snapshot", () => done("snapshot")); s.onerror = () => { s.close(); done("refused"); }; });
await loaded("iframe", {src: at});
try { out.frame = document.querySelector("iframe").contentDocument ? "read" : "refused"; } catch (e) { out.frame = "refused"; }
return out;`, &got)
	if got.Fetch != "refused" || got.Blind != "refused" || got.Stream != "refused" || got.Script != "refused" || got.Frame != "refused" {
		t.Errorf("another origin gets %+v", got)
	}
	// A name that somebody else made lead here.
	at, err := url.Parse(w.url)
	if err != nil {
		t.Fatal(err)
	}
	page = b.open("http://rebound.test:" + at.Port() + at.Path)
	var text string
	page.run("return document.body.innerText", &text)
	if !strings.Contains(text, "not known by that name") {
		t.Errorf("by another name it says %q", text)
	}
	page = b.open("http://" + at.Host + "/" + strings.Repeat("A", 26) + "/")
	page.run("return document.body.innerText", &text)
	if !strings.Contains(text, "no valid token") {
		t.Errorf("with another token it says %q", text)
	}
}

// TestAThousandImagesAreWatched has all of them change their state twice at each save:
// the first fails, and what stands on it is not built.
func TestAThousandImagesAreWatched(t *testing.T) {
	var m strings.Builder
	m.WriteString("version: 1\nname: thousand\ntargets:\n" + target("base", "", "FROM scratch", "COPY f /f", `RUN ["/none"]`))
	for i := range 999 {
		m.WriteString(target(fmt.Sprintf("service-%03d", i), []string{"backend", "frontend", "data"}[i%3], "FROM example.test/base", fmt.Sprintf("COPY g /service-%d", i)))
	}
	dir := repository(t, map[string]string{"kaniko-build.yaml": m.String(), "f": "x\n", "g": "x\n"})
	w := serve(t, dir)
	page := openBrowser(t).open(w.url)
	page.until(is("base", "failed") + ` && document.querySelectorAll(".node.skipped[data-id]").length === 999 && document.getElementById("outcome").innerText === "watching"`)
	page.run(`window.pauses = []; let last = performance.now(); (function tick() { const now = performance.now(); pauses.push(now - last); last = now; setTimeout(tick, 0); })();`, nil)
	for i := range 3 {
		w.write("f", fmt.Sprintln(i))
		page.until(fmt.Sprintf(`document.querySelectorAll("#history li").length === %d && document.querySelectorAll(".node.skipped[data-id]").length === 999 && document.getElementById("outcome").innerText === "watching"`, i+2))
	}
	var got struct {
		Longest, Click, Search float64 // milliseconds
		Found                  int
	}
	page.run(`const took = f => { const begun = performance.now(); f(); document.body.offsetHeight; return performance.now() - begun; };
const out = {longest: Math.max(...pauses)};
out.click = took(() => `+node("service-500")+`.dispatchEvent(new MouseEvent("click", {bubbles: true})));
document.getElementById("search").value = "service-50";
out.search = await new Promise(r => { document.getElementById("search").dispatchEvent(new Event("input")); setTimeout(() => r(took(() => {})), 500); });
out.found = document.querySelectorAll("#images tbody tr:not([hidden])").length;
return out;`, &got)
	page.until(`document.getElementById("log").innerText.includes("not built: needs base")`)
	t.Logf("a click takes %.0f ms, the longest pause while 1000 states change is %.0f ms", got.Click, got.Longest)
	if got.Click > 3000 || got.Longest > 5000 || got.Found != 10 {
		t.Errorf("a click takes %.0f ms, the longest pause is %.0f ms, %d are found", got.Click, got.Longest, got.Found)
	}
	page.quiet()
}
