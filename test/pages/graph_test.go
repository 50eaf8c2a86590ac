package pages

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// monorepo is 60 images as a shop may have them: bases, toolchains, services,
// what is made of several of them.
func monorepo() string {
	var b strings.Builder
	b.WriteString("version: 1\nname: shop\ntargets:\n")
	n := 0
	add := func(name, group, from string, others ...string) {
		n++
		lines := []string{"FROM " + from}
		for _, o := range others {
			lines = append(lines, "COPY --from=example.test/"+o+" /f /from/"+o)
		}
		b.WriteString(target(name, group, append(lines, "COPY f /f/"+name)...))
	}
	on := func(name string) string { return "example.test/" + name }
	add("base-debian", "", "scratch")
	add("base-alpine", "", "scratch")
	for _, t := range []string{"go", "node", "python"} {
		add(t+"-toolchain", "toolchains", on("base-debian"))
	}
	add("protos", "toolchains", on("go-toolchain"))
	for i := range 24 {
		add(fmt.Sprintf("service-%02d", i), "backend", on("base-debian"), "go-toolchain", "protos")
	}
	add("gateway-edge", "backend", on("service-00"))
	for _, f := range strings.Fields("storefront admin account-portal-with-quite-a-long-name-that-is-cut seller kiosk status docs blog") {
		add(f, "frontend", on("base-alpine"), "node-toolchain")
	}
	for _, f := range strings.Fields("etl-orders etl-users etl-clicks features trainer model dashboards exporter") {
		add(f, "data", on("python-toolchain"))
	}
	add("model-gpu", "data", on("model"))
	add("reports", "data", on("dashboards"), "storefront")
	for _, f := range strings.Fields("migrate seed smoke load e2e backup restore") {
		add(f, "ops", on("base-debian"))
	}
	add("e2e-runner", "ops", on("e2e"), "storefront", "gateway-edge", "service-01")
	add("bundle", "ops", on("base-alpine"), "gateway-edge", "reports", "admin", "model-gpu")
	add("installer", "ops", on("bundle"))
	for ; n < 60; n++ {
		b.WriteString(target(fmt.Sprintf("cron-%02d", n), "ops", "FROM example.test/base-debian", "COPY f /f"))
	}
	return b.String()
}

// measure looks at a picture as it is drawn: boxes, texts, lines.
const measure = `
const box = e => { const r = e.getBoundingClientRect(); return {x: r.left, y: r.top, r: r.right, b: r.bottom}; };
const hit = (a, b, by) => a.x < b.r - by && b.x < a.r - by && a.y < b.b - by && b.y < a.b - by;
const within = (a, b) => a.x >= b.x - 0.5 && a.y >= b.y - 0.5 && a.r <= b.r + 0.5 && a.b <= b.b + 0.5;
const svg = document.querySelector("svg.graph"), wrong = [];
const nodes = [...svg.querySelectorAll(".node[data-id]")].map(e => ({id: e.dataset.id, e, box: box(e.querySelector("rect")), texts: [...e.querySelectorAll("text")].map(box)}));
const labels = [...svg.querySelectorAll(".lane text")].map(box), lanes = [...svg.querySelectorAll(".lane rect")].map(box), blocks = [...svg.querySelectorAll(".block")].map(box);
const all = box(svg);
for (const [i, n] of nodes.entries()) {
  if (!within(n.box, all)) wrong.push(n.id + " is outside");
  for (const t of n.texts) if (!within(t, n.box)) wrong.push("the text of " + n.id + " is wider than its box");
  for (const o of nodes.slice(0, i)) if (hit(n.box, o.box, 0)) wrong.push(n.id + " overlaps " + o.id);
  for (const l of labels) if (hit(n.box, l, 0)) wrong.push(n.id + " overlaps a label");
}
for (const l of labels) if (!lanes.some(r => within(l, r))) wrong.push("a label is wider than its band");
for (const [i, l] of labels.entries()) for (const o of labels.slice(0, i)) if (hit(l, o, 0)) wrong.push("labels overlap");
const paths = [...svg.querySelectorAll(".line")], m = svg.getScreenCTM();
let edges = 0;
for (const p of paths) {
  const keys = p.dataset.edges.split(" "), ends = new Set(keys.flatMap(k => k.split(">")));
  edges += keys.length;
  const total = p.getTotalLength();
  for (let i = 0; i <= 200; i++) {
    const at = p.getPointAtLength(total * i / 200).matrixTransform(m);
    for (const n of nodes) if (!ends.has(n.id) && at.x > n.box.x + 1 && at.x < n.box.r - 1 && at.y > n.box.y + 1 && at.y < n.box.b - 1) { wrong.push("the line " + keys[0] + " passes through " + n.id); i = 201; break; }
    for (const l of labels) if (at.x > l.x && at.x < l.r && at.y > l.y && at.y < l.b) { wrong.push("the line " + keys[0] + " passes through a label"); i = 201; break; }
  }
}
const fill = id => getComputedStyle(svg.querySelector('.node[data-id="' + id + '"] rect')).fill;
const result = {wrong, nodes: nodes.length, edges, groups: lanes.length, critical: [...svg.querySelectorAll(".node.critical[data-id]")].map(e => e.dataset.id),
  marked: svg.querySelectorAll(".line.critical").length, fills: Object.fromEntries(nodes.map(n => [n.id, fill(n.id)])), width: all.r - all.x, height: all.b - all.y,
  paper: getComputedStyle(svg.querySelector(".paper")).fill};
`

type measured struct {
	Wrong         []string
	Nodes, Edges  int
	Groups        int
	Critical      []string
	Marked        int
	Fills         map[string]string
	Width, Height float64
	Paper         string
}

func TestThePictureOfAMonorepoIsReadable(t *testing.T) {
	dir := repository(t, map[string]string{"kaniko-build.yaml": monorepo(), "f": "x\n"})
	var first measured // nothing is remembered of any image: the longest way is that of most images
	out, _ := kaniko(t, dir, "graph", "--format", "svg")
	page := filepath.Join(t.TempDir(), "first.svg")
	if err := os.WriteFile(page, []byte(out), 0o644); err != nil {
		t.Fatal(err)
	}
	look(t, page, measure+"return result;", false, &first)
	if want := "[base-debian go-toolchain protos service-00 gateway-edge bundle installer]"; fmt.Sprint(first.Critical) != want || first.Marked != 6 {
		t.Errorf("the critical path is %v, %d lines are marked", first.Critical, first.Marked)
	}
	if _, code := kaniko(t, dir, "apply", "--progress", "quiet", "base-debian", "base-alpine", "protos", "service-03"); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	for _, format := range []string{"svg", "html"} {
		out, _ := kaniko(t, dir, "graph", "--format", format, "--explain")
		page := filepath.Join(t.TempDir(), "graph."+format)
		if err := os.WriteFile(page, []byte(out), 0o644); err != nil {
			t.Fatal(err)
		}
		var light, dark measured
		look(t, page, measure+"return result;", false, &light)
		look(t, page, measure+"return result;", true, &dark)
		if len(light.Wrong) > 0 {
			t.Errorf("%s: %d things are wrong: %q", format, len(light.Wrong), light.Wrong[:min(len(light.Wrong), 10)])
		}
		// 3+1 toolchains, 24 services with three edges each, and so on.
		if light.Nodes != 60 || light.Edges != 4+24*3+1+8*2+8+1+2+7+4+5+1+1 || light.Groups != 5 {
			t.Errorf("%s: %d nodes, %d edges, %d groups", format, light.Nodes, light.Edges, light.Groups)
		}
		if len(light.Critical) < 2 || light.Marked != len(light.Critical)-1 { // by times now
			t.Errorf("%s: the critical path is %v, %d lines are marked", format, light.Critical, light.Marked)
		}
		known, other, plain := light.Fills["service-03"], light.Fills["service-04"], light.Fills["cron-59"]
		if known == other || other != plain || known != light.Fills["base-debian"] {
			t.Errorf("%s: colours are %s, %s, %s", format, known, other, plain)
		}
		if light.Paper == dark.Paper || light.Fills["service-03"] == dark.Fills["service-03"] {
			t.Errorf("%s: light and dark are the same: %s", format, light.Paper)
		}
		if light.Width > 4000 || light.Height > 3000 {
			t.Errorf("%s: %.0fx%.0f pixels", format, light.Width, light.Height)
		}
	}
}

// TestTheGraphsPageIsUsed searches and clicks.
func TestTheGraphsPageIsUsed(t *testing.T) {
	dir := repository(t, map[string]string{"kaniko-build.yaml": monorepo(), "f": "x\n"})
	out, _ := kaniko(t, dir, "graph", "--format", "html")
	page := filepath.Join(t.TempDir(), "graph.html")
	if err := os.WriteFile(page, []byte(out), 0o644); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Rows, Dim int
		Detail    string
		Far       bool
	}
	look(t, page, `
const $ = s => document.querySelector(s), wait = ms => new Promise(r => setTimeout(r, ms));
$("#search").value = "etl-"; $("#search").dispatchEvent(new Event("input")); await wait(200);
const rows = document.querySelectorAll("#images tbody tr").length, dim = document.querySelectorAll(".node[data-id]:not(.dim)").length;
$("#search").value = ""; $("#search").dispatchEvent(new Event("input")); await wait(200);
$('.node[data-id="protos"]').dispatchEvent(new MouseEvent("click", {bubbles: true}));
return {rows, dim, detail: $("#detail").innerText, far: $('.node[data-id="storefront"]').classList.contains("dim") && !$('.node[data-id="service-05"]').classList.contains("dim")};`, false, &got)
	if got.Rows != 3 || got.Dim != 3 {
		t.Errorf("the search shows %d rows and %d nodes", got.Rows, got.Dim)
	}
	if !strings.Contains(got.Detail, "needs go-toolchain (FROM example.test/go-toolchain)") || !strings.Contains(got.Detail, "needed by service-00, service-01") || !got.Far {
		t.Errorf("a click shows %q, %v", got.Detail, got.Far)
	}
}
