package pages

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// hostile is what a RUN prints that would like to be markup.
const hostile = `</script><script>document.title="error: hacked"</script><img src=x onerror="document.title='error: hacked'">`

func TestAReportIsUsed(t *testing.T) {
	run := func(script string) string { return fmt.Sprintf("RUN [\"/bin/busybox\", \"sh\", \"-c\", %q]", script) }
	manifest := "version: 1\nname: shop\ntargets:\n" +
		target("base", "", "FROM scratch", "COPY --chmod=755 busybox /bin/busybox", run("echo this is the base")) +
		target("api", "backend", "FROM example.test/base AS build", run("cat /bin/busybox > /big"), "FROM example.test/base", "COPY f /f", "COPY --from=build /big /big", run("echo building the api")) +
		target("bad", "backend", "FROM example.test/base", run("printf '%s\\n' '"+strings.ReplaceAll(hostile, "'", `"`)+"'; echo the last words; exit 3")) +
		target("after", "backend", "FROM example.test/bad")
	dir := repository(t, map[string]string{"kaniko-build.yaml": manifest, "f": "one\n"})
	page := filepath.Join(dir, "out", "report.html")
	if _, code := kaniko(t, dir, "apply", "--keep-going", "--progress", "quiet", "--report", page); code != 1 {
		t.Fatalf("exit code %d", code)
	}
	// The second run knows some steps, and says why it does not know others.
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("two\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, code := kaniko(t, dir, "apply", "--keep-going", "--progress", "quiet", "--report", page); code != 1 {
		t.Fatalf("exit code %d", code)
	}
	var got, dark struct {
		Title, Outcome, Summary, Failures string
		API, Bad, Log, Table, Layers      string
		Bars, Critical                    int
		Classes                           map[string]string
		Open                              bool
		Back                              string
		Wrong                             []string
		Loaded                            int
	}
	script := `
const $ = s => document.querySelector(s), click = e => e.dispatchEvent(new MouseEvent("click", {bubbles: true}));
const out = {outcome: $("#outcome").innerText, summary: $("#summary").innerText, failures: $("#failures").innerText, table: $("#images").innerText,
  bars: document.querySelectorAll(".step[data-id]").length, critical: document.querySelectorAll("#critical button").length,
  classes: Object.fromEntries([...document.querySelectorAll(".node[data-id]")].map(e => [e.dataset.id, e.getAttribute("class")])), back: getComputedStyle(document.body).backgroundColor};
click($('.node[data-id="api"]'));
out.api = $("#detail").innerText; out.open = !$("#panel").hidden;
out.layers = [...document.querySelectorAll("#detail .layer")].map(e => e.innerText.replace(/\s+/g, " ")).join("\n");
click($('.step[data-id="bad"]'));
out.bad = $("#detail").innerText; out.log = $("#detail details[open] pre.log").innerText;
document.dispatchEvent(new KeyboardEvent("keydown", {key: "Escape", bubbles: true}));
out.open = out.open && $("#panel").hidden;
out.loaded = performance.getEntriesByType("resource").length;
` + measure + `out.wrong = result.wrong; out.title = document.title; return out;`
	look(t, page, script, false, &got)
	look(t, page, script, true, &dark)
	if got.Title != "shop" || !strings.HasPrefix(got.Outcome, "failed in ") || got.Loaded != 0 || len(got.Wrong) > 0 || !got.Open {
		t.Errorf("title %q, outcome %q, %d things loaded, panel %v, wrong in the graph: %q", got.Title, got.Outcome, got.Loaded, got.Open, got.Wrong)
	}
	if want := map[string]string{"base": "node cached", "api": "node built", "bad": "node failed", "after": "node skipped"}; fmt.Sprint(got.Classes) != fmt.Sprint(want) {
		for id, c := range want {
			if !strings.HasPrefix(got.Classes[id], c) {
				t.Errorf("%s is %q, want %q", id, got.Classes[id], c)
			}
		}
	}
	for _, c := range []struct{ what, got, want string }{
		{"the summary", got.Summary, "steps known"},
		{"the failures", got.Failures, "bad failed at kaniko-build.yaml:"},
		{"the failures", got.Failures, "the last words"},
		{"api", got.API, "cat /bin/busybox"},
		{"api", got.API, "not known: f changed"},
		{"api", got.API, "needs base"},
		{"api", got.API, "cached"},
		{"api", got.API, "layers, compressed"},
		{"the layers", got.Layers, "MB COPY"},
		{"bad", got.Bad, "exit code: 3"},
		{"the log", got.Log, strings.ReplaceAll(hostile, "'", `"`)},
		{"the table", got.Table, "f changed"},
	} {
		if !strings.Contains(c.got, c.want) {
			t.Errorf("%s does not say %q:\n%s", c.what, c.want, c.got)
		}
	}
	if got.Bars < 2 || got.Critical != 2 {
		t.Errorf("%d bars, a critical path of %d", got.Bars, got.Critical)
	}
	if got.Back == dark.Back {
		t.Errorf("light and dark are the same: %s", got.Back)
	}
}

func TestAReportOfAThousandImagesIsUsable(t *testing.T) {
	var b strings.Builder
	b.WriteString("version: 1\nname: thousand\ntargets:\n" + target("base", "", "FROM scratch", "COPY f /f"))
	for i := range 19 {
		b.WriteString(target(fmt.Sprintf("tool-%02d", i), "tools", "FROM example.test/base", fmt.Sprintf("COPY f /tool-%d", i)))
	}
	for i := range 980 {
		b.WriteString(target(fmt.Sprintf("service-%03d", i), []string{"backend", "frontend", "data", "ops", "edge"}[i%5], fmt.Sprintf("FROM example.test/tool-%02d", i%19), fmt.Sprintf("COPY f /service-%d", i)))
	}
	dir := repository(t, map[string]string{"kaniko-build.yaml": b.String(), "f": "x\n"})
	page := filepath.Join(dir, "report.html")
	if _, code := kaniko(t, dir, "apply", "--progress", "quiet", "--report", page); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	fi, err := os.Stat(page)
	if err != nil || fi.Size() > 3<<20 {
		t.Errorf("the page is %d bytes, %v", fi.Size(), err)
	}
	var got struct {
		Nodes, Rows, Bars, Found int
		Load, Click, Search      float64 // milliseconds
		Detail                   string
		Wrong                    int
	}
	look(t, page, `
const $ = s => document.querySelector(s), click = e => e.dispatchEvent(new MouseEvent("click", {bubbles: true}));
const took = f => { const begun = performance.now(); f(); document.body.offsetHeight; return performance.now() - begun; };
const out = {load: performance.timing.domContentLoadedEventEnd - performance.timing.navigationStart, nodes: document.querySelectorAll(".node[data-id]").length,
  rows: document.querySelectorAll("#images tbody tr").length, bars: document.querySelectorAll(".step[data-id]").length};
out.click = took(() => click($('.node[data-id="service-500"]')));
out.detail = $("#detail").innerText;
$("#search").value = "service-50";
out.search = await new Promise(r => { $("#search").dispatchEvent(new Event("input")); setTimeout(() => { r(took(() => {})); }, 500); });
out.found = document.querySelectorAll("#images tbody tr").length;
const boxes = [...document.querySelectorAll(".node[data-id] > rect")].map(e => e.getBoundingClientRect()).sort((a, b) => a.left - b.left);
out.wrong = 0;
for (let i = 0; i < boxes.length; i++) for (let k = i + 1; k < boxes.length && boxes[k].left < boxes[i].right; k++)
  if (boxes[i].top < boxes[k].bottom && boxes[k].top < boxes[i].bottom) out.wrong++;
return out;`, false, &got)
	if got.Nodes != 1000 || got.Rows != 1000 || got.Bars != 1000 || got.Found != 10 || got.Wrong > 0 {
		t.Errorf("%d nodes, %d rows, %d bars, %d found, %d overlap", got.Nodes, got.Rows, got.Bars, got.Found, got.Wrong)
	}
	if !strings.Contains(got.Detail, "service-500") || !strings.Contains(got.Detail, "COPY f /service-500") {
		t.Errorf("a click shows %q", got.Detail)
	}
	t.Logf("%d bytes, loaded in %.0f ms, a click takes %.0f ms", fi.Size(), got.Load, got.Click)
	if got.Click > 3000 {
		t.Errorf("a click takes %.0f ms", got.Click)
	}
}
