const run = JSON.parse(document.getElementById("data").textContent);
const byID = new Map(run.nodes.map(n => [n.id, n]));
const ran = Boolean(run.started);
const critical = new Set(run.critical || []);
const dependents = new Map(run.nodes.map(n => [n.id, []]));
for (const n of run.nodes) { n.steps ||= []; n.needs ||= []; for (const p of n.needs) dependents.get(p)?.push(n.id); }

const length = n => Math.max(0, (n.end || 0) - (n.begin || 0));
const where = s => (s.stage ? s.stage + " " : "") + s.step + "/" + s.of;
const misses = n => n.steps.filter(s => s.state !== "cached");
const whyOf = n => { const s = n.steps.find(s => s.why); return n.state === "failed" || n.state === "skipped" ? firstLine(n.error || "") : s ? s.why : ""; };

// The head.
$("title").textContent = run.title;
if (ran) {
  const b = make("b", {}, run.outcome);
  if (run.outcome !== "done") b.style.color = "var(--failed)";
  $("outcome").append(b, " in " + time(run.elapsed || 0) + ", " + new Date(run.started).toLocaleString());
}
function tile(value, word, kind) { $("summary").append(make("div", {class: "tile " + (kind || "")}, make("b", {}, String(value)), make("span", {}, word))); }
const count = state => run.nodes.filter(n => n.state === state).length;
tile(run.nodes.length, "images");
if (ran) {
  const all = run.nodes.flatMap(n => n.steps), hits = all.filter(s => s.state === "cached").length;
  tile(count("built"), "built");
  tile(count("cached"), "cached");
  if (count("failed")) tile(count("failed"), "failed", "failed");
  if (count("skipped")) tile(count("skipped"), "skipped");
  tile(all.length ? Math.round(100 * hits / all.length) + " %" : "–", hits + " of " + plural(all.length, "step") + " known");
  tile(time(run.elapsed || 0), "in all, with " + plural(run.jobs || 1, "job"));
  tile(time([...critical].reduce((sum, id) => sum + length(byID.get(id)), 0)), "critical path of " + critical.size);
  tile(bytes(run.nodes.reduce((sum, n) => sum + (n.size || 0), 0)), "in all images");
} else {
  tile(run.nodes.reduce((sum, n) => sum + n.needs.length, 0), "edges");
  tile(critical.size, "in the longest chain");
  for (const state of [...new Set(run.nodes.map(n => n.state || ""))].sort()) if (state) tile(count(state), state);
  $("graph-hint").textContent = "what is needed stands to the left; click an image for what it has to do with others";
}
for (const n of run.nodes.filter(n => n.state === "failed")) {
  const s = n.steps.find(s => s.state === "failed");
  $("failures").append(make("div", {class: "failure", "data-id": n.id, onclick: () => choose(n.id)},
    make("b", {}, n.id + " failed"), s ? " at " + s.pos : "",
    make("pre", {}, s && s.log ? s.log.split("\n").slice(-12).join("\n") : n.error)));
}

// The graph.
const picture = drawing(document.querySelector("#graph svg"), choose);

// The timeline: steps by slot, one element each.
const bars = new Map();
let width = 1;
function drawTimeline() {
  const box = $("timeline"), left = 56, total = Math.max(run.elapsed || 0, 1), px = (Math.max(300, box.clientWidth - left - 10) * width) / total;
  const x = ms => left + ms * px;
  box.replaceChildren(); bars.clear();
  const ticks = make("div", {class: "ticks", style: {width: x(total) + "px"}});
  const unit = [10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 3e4, 6e4, 12e4, 3e5, 6e5, 12e5, 36e5].find(u => u * px > 70) || 72e5;
  for (let t = 0; t <= total; t += unit) ticks.append(make("span", {style: {left: x(t) + "px"}}, t ? time(t) : "0"));
  const slots = make("div", {class: "slots", style: {width: x(total) + "px"}}), rows = [];
  for (let i = 0; i < run.slots; i++) { rows.push(make("div", {class: "slot"}, make("i", {}, "job " + (i + 1)))); }
  for (const n of run.nodes) for (const s of n.steps) {
    if (!s.slot) continue;
    const w = Math.max(2, (s.end - s.begin) * px);
    const bar = make("div", {class: "step " + s.state + (critical.has(n.id) ? " critical" : "") + (w < 14 ? " tiny" : ""), "data-id": n.id,
      style: {left: x(s.begin) + "px", width: w + "px"}, title: n.id + "  [" + where(s) + "]  " + time(s.end - s.begin) + "\n" + firstLine(s.text) + (s.why ? "\n" + s.why : ""),
      onclick: () => choose(n.id, s)}, w < 40 ? "" : n.id + " " + where(s));
    rows[s.slot - 1].append(bar);
    if (!bars.has(n.id)) bars.set(n.id, []);
    bars.get(n.id).push(bar);
  }
  slots.append(...rows);
  box.append(ticks, slots);
}
if (run.slots) {
  $("timeline-section").hidden = false;
  $("timeline-hint").textContent = "each line is a job; steps of the critical path stand out";
  drawTimeline();
  addEventListener("resize", drawTimeline);
  $("narrower").onclick = () => { width = Math.max(1, width / 1.6); drawTimeline(); };
  $("wider").onclick = () => { width = Math.min(200, width * 1.6); drawTimeline(); };
}
if (ran && critical.size) {
  $("critical-section").hidden = false;
  const total = [...critical].reduce((sum, id) => sum + length(byID.get(id)), 0) || 1;
  for (const id of critical) {
    const n = byID.get(id);
    $("critical").append(make("button", {style: {flexGrow: Math.max(1, 1000 * length(n) / total)}, title: id + "  " + time(length(n)), onclick: () => choose(id)}, id + "  " + time(length(n))));
  }
}

// The table.
const columns = ran ? [
  ["Image", n => n.id, n => [make("span", {class: "dot " + n.state}), n.id]],
  ["State", n => n.state || "", n => n.state],
  ["Time", length, n => n.end ? time(length(n)) : "", "n"],
  ["Known", n => n.steps.length ? (n.steps.length - misses(n).length) / n.steps.length : 0, n => n.steps.length ? n.steps.length - misses(n).length + " of " + n.steps.length : "", "n"],
  ["Size", n => n.size || 0, n => n.size ? bytes(n.size) : "", "n"],
  ["When", n => n.begin || 0, n => span(n)],
  ["Why", whyOf, whyOf, "why"],
] : [
  ["Image", n => n.id, n => n.id], ["Group", n => n.group || "", n => n.group || ""],
  ...(run.nodes.some(n => n.state) ? [["State", n => n.state || "", n => [make("span", {class: "dot " + (n.state || "")}), n.state || ""]]] : []),
  ["Needs", n => n.needs.length, n => n.needs.length, "n"], ["Needed by", n => dependents.get(n.id).length, n => dependents.get(n.id).length, "n"],
  ["Why", n => n.note || "", n => n.note || "", "why"],
];
function span(n) {
  if (!n.end) return "";
  const total = Math.max(run.elapsed, 1);
  return make("span", {class: "span"}, make("i", {class: n.state, style: {left: 100 * n.begin / total + "%", width: Math.max(0.5, 100 * length(n) / total) + "%"}}));
}
let sort = ran ? 2 : 0, up = !ran;
const rows = new Map();
function drawTable() {
  const text = $("search").value.trim().toLowerCase();
  const shown = run.nodes.filter(n => !text || n.id.toLowerCase().includes(text) || (n.group || "").toLowerCase().includes(text));
  const key = columns[sort][1];
  shown.sort((a, b) => { const x = key(a), y = key(b); return (x < y ? -1 : x > y ? 1 : 0) * (up ? 1 : -1); });
  $("images").tHead.replaceChildren(make("tr", {}, ...columns.map(([name, , , kind], i) =>
    make("th", {class: (kind === "n" ? "n " : "") + (i === sort ? "sorted" + (up ? " up" : "") : ""), onclick: () => { up = i === sort ? !up : i === 0; sort = i; drawTable(); }}, name))));
  rows.clear();
  const body = document.createDocumentFragment();
  for (const n of shown) {
    const row = make("tr", {"data-id": n.id, class: n.id === chosen ? "chosen" : "", onclick: () => choose(n.id)},
      ...columns.map(([, , cell, kind]) => make("td", {class: kind || ""}, ...[cell(n)].flat())));
    rows.set(n.id, row);
    body.append(row);
  }
  $("images").tBodies[0].replaceChildren(body);
  $("count").textContent = shown.length === run.nodes.length ? "" : shown.length + " of " + run.nodes.length;
  const met = new Set(shown.map(n => n.id));
  picture.only(text ? met : null);
  for (const [id, list] of bars) for (const b of list) b.classList.toggle("dim", Boolean(text) && !met.has(id));
  if (!text && chosen) light(chosen);
  if (!text && !chosen) picture.light("", null);
}
let waiting = 0;
$("search").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(drawTable, 60); });

// light shows what a node has to do with.
let chosen = "";
function light(id) {
  const near = id ? new Set([...reach(id, n => byID.get(n).needs), ...reach(id, n => dependents.get(n))]) : null;
  picture.light(id, near);
  for (const [other, list] of bars) for (const b of list) b.classList.toggle("dim", Boolean(near) && !near.has(other));
  for (const [other, row] of rows) row.classList.toggle("chosen", other === id);
}
const links = list => list.flatMap((id, i) => [i ? ", " : "", make("a", {onclick: () => choose(id)}, id)]);
const fold = (list, most) => list.length <= most ? links(list) : [...links(list.slice(0, most)), " and " + (list.length - most) + " more"];

// choose opens the panel of a node, at a step of it.
function choose(id, at) {
  const n = byID.get(id);
  if (!n) return;
  chosen = id;
  light(id);
  const d = $("detail");
  d.replaceChildren(make("h2", {}, make("span", {class: "dot " + (n.state || "")}), n.id));
  const facts = [n.state, n.end ? time(length(n)) : "", n.size ? bytes(n.size) : "", n.group ? "group " + n.group : ""].filter(Boolean).join(" · ");
  d.append(make("div", {class: "facts"}, facts));
  if (n.names) d.append(make("div", {class: "facts"}, n.names.join(", ")));
  if (n.digest) d.append(make("div", {class: "facts"}, make("code", {}, n.digest)));
  if (n.note) d.append(make("pre", {}, n.note));
  if (n.needs.length && n.reasons) for (const [i, p] of n.needs.entries()) d.append(make("div", {class: "facts"}, "needs ", ...links([p]), n.reasons[i] ? " (" + n.reasons[i] + ")" : ""));
  else if (n.needs.length) d.append(make("div", {class: "facts"}, "needs ", ...fold(n.needs, 20)));
  if (dependents.get(id).length) d.append(make("div", {class: "facts"}, "needed by ", ...fold(dependents.get(id), 20)));
  if (n.error) d.append(make("pre", {class: "error"}, n.error));
  for (const w of n.warnings || []) d.append(make("div", {class: "note"}, w));
  if (n.steps.length) d.append(make("h3", {}, plural(n.steps.length, "step") + (misses(n).length ? ", " + misses(n).length + " executed" : ", all known")));
  for (const s of n.steps) {
    const open = s === at || !at && s.state === "failed" || Boolean(s.log) && n.steps.length === 1;
    const one = make("details", {class: s.log ? "" : "plain", open},
      make("summary", {}, make("span", {class: "dot " + s.state}), make("span", {class: "t"}, where(s)), make("code", {title: s.pos}, s.text),
        make("span", {class: "t"}, s.state === "cached" ? "cached" : time(s.end - s.begin))));
    if (s.log) one.append(make("pre", {class: "log"}, s.log));
    d.append(one);
    if (s.why) d.append(make("div", {class: "note"}, "not known: " + s.why));
    if (s.from) d.append(make("div", {class: "note"}, "from " + s.from));
    if (s === at) setTimeout(() => one.scrollIntoView({block: "center"}));
  }
  if (n.layers && n.layers.length) {
    const most = Math.max(...n.layers.map(l => l.size), 1);
    d.append(make("h3", {}, plural(n.layers.length, "layer") + ", compressed"));
    for (const l of n.layers) d.append(make("div", {class: "layer" + (l.text ? "" : " base"), title: l.text || "of the base"},
      make("span", {}, bytes(l.size)), make("i", {style: {width: 100 * l.size / most + "%"}}), make("code", {}, l.text || "of the base")));
  }
  $("panel").hidden = false;
  $("panel").scrollTop = 0;
  history.replaceState(null, "", "#" + encodeURIComponent(id));
}
function leave() { chosen = ""; $("panel").hidden = true; light(""); history.replaceState(null, "", "#"); }
$("close").onclick = leave;
addEventListener("keydown", e => {
  if (e.key === "Escape") leave();
  if (e.key === "/" && document.activeElement !== $("search")) { e.preventDefault(); $("search").focus(); }
});
drawTable();
if (run.cut) $("count").textContent += " The logs were too long for one page; --log-dir has them whole.";
if (location.hash.length > 1) choose(decodeURIComponent(location.hash.slice(1)));
