// The page of a watch. What it knows comes from /events: a snapshot, then what changes.
const states = ["failed", "building", "queued", "waiting", "built", "cached", "skipped"];
const nodes = new Map(), dependents = new Map(), rows = new Map(), builds = new Map();
let picture = null, drawn = -1, chosen = "", filter = "", before = null, phase = {phase: "connecting"};

const clock = ms => new Date(ms).toTimeString().slice(0, 8);
const show = (id, yes) => { $(id).hidden = !yes; };

// The head: what the watch does, and whether anybody tells us.
function drawPhase(lost) {
  const busy = [...nodes.values()].filter(n => n.state === "building").length;
  const word = lost || phase.phase;
  $("outcome").className = lost ? "lost" : phase.phase;
  $("outcome").replaceChildren(make("b", {}, word), !lost && busy ? " " + plural(busy, "image") : "");
  show("problem", phase.problem);
  $("problem").textContent = phase.problem || "";
}

// The numbers, each a filter.
function drawTiles() {
  const counts = {};
  for (const n of nodes.values()) counts[n.state] = (counts[n.state] || 0) + 1;
  const tile = (value, word, state) => make("button", {class: "tile " + state, "aria-pressed": String(filter === state), "data-state": state,
    onclick: () => { filter = filter === state ? "" : state; drawTiles(); narrow(); }}, make("b", {}, String(value)), make("span", {}, word));
  const focused = document.activeElement?.dataset?.state;
  $("summary").replaceChildren(tile(nodes.size, "images", ""), ...states.filter(s => counts[s] || s === filter).map(s => tile(counts[s] || 0, s, s)));
  if (focused !== undefined) $("summary").querySelector('[data-state="' + focused + '"]')?.focus();
}
function drawFailures() {
  const failed = [...nodes.values()].filter(n => n.state === "failed");
  $("failures").replaceChildren(...failed.slice(0, 20).map(n => make("div", {class: "failure", "data-id": n.id},
    make("button", {onclick: () => choose(n.id)}, make("b", {}, n.id + " failed")), make("pre", {}, (n.error || "").split("\n").slice(-12).join("\n")))));
}

// The table: a row for each node, made once.
function fill(row, n) {
  row.className = n.id === chosen ? "chosen" : "";
  row.replaceChildren(make("td", {}, make("span", {class: "dot " + n.state}), make("button", {}, n.id)), make("td", {}, n.state + (n.step ? " " + n.step.split(" ").slice(0, 2).join(" ") : "")),
    make("td", {class: "n"}, n.took ? time(n.took) : ""), make("td", {class: "n"}, String(n.builds)), make("td", {class: "n"}, n.size ? bytes(n.size) : ""),
    make("td", {class: "why"}, n.state === "failed" || n.state === "skipped" ? firstLine(n.error || "") : n.cause || ""));
}
// narrow shows those images that are looked for.
function narrow() {
  const text = $("search").value.trim().toLowerCase(), all = !text && !filter, met = new Set();
  for (const n of nodes.values()) {
    const yes = (!filter || n.state === filter) && (!text || n.id.toLowerCase().includes(text) || (n.group || "").toLowerCase().includes(text));
    if (yes) met.add(n.id);
    rows.get(n.id).hidden = !yes;
  }
  $("count").textContent = all ? "" : met.size + " of " + nodes.size;
  picture?.only(all ? null : met);
  if (all) light();
}
let waiting = 0;
$("search").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(narrow, 60); });
$("images").tBodies[0].addEventListener("click", e => { const row = e.target.closest("tr"); if (row) choose(row.dataset.id); });

// The graph: a picture from the server, coloured here.
async function drawGraph(number) {
  if (number === drawn || !number) return;
  drawn = number;
  const svg = await new Promise(done => { // as a document, so that nothing of it is read as HTML
    const r = new XMLHttpRequest();
    r.open("GET", "graph.svg");
    r.responseType = "document";
    r.onload = () => done(r.status === 200 ? r.responseXML?.documentElement : null);
    r.onerror = () => done(null);
    r.send();
  });
  if (!svg || number !== drawn) { if (!svg) drawn = -1; return; }
  $("graph").replaceChildren(document.importNode(svg, true));
  picture = drawing($("graph").firstElementChild, choose);
  for (const n of nodes.values()) colour(n);
  narrow();
}
function colour(n) {
  const e = picture?.shapes.get(n.id);
  if (!e) return;
  e.classList.remove(...states);
  e.classList.add(n.state);
  e.setAttribute("aria-label", n.id + ", " + n.state);
  const title = e.querySelector("title");
  if (title) title.textContent = n.id + "\n" + n.state + (n.step ? "\n" + n.step : "") + (n.cause ? "\n" + n.cause : "");
}
function light() {
  const near = chosen ? new Set([...reach(chosen, id => nodes.get(id)?.needs || []), ...reach(chosen, id => dependents.get(id) || [])]) : null;
  picture?.light(chosen, near);
  for (const [id, row] of rows) row.classList.toggle("chosen", id === chosen);
}

// The history.
function drawBuild(b) {
  builds.set(b.number, b);
  for (const old of builds.keys()) if (builds.size > 50) builds.delete(old); // the oldest come first
  const at = $("history").querySelector('[data-number="' + b.number + '"]');
  const counts = Object.entries(b.counts).sort().map(([what, n]) => n + " " + what).join(", ");
  const line = make("li", {"data-number": String(b.number)}, make("span", {class: "t"}, clock(b.time)), make("span", {class: "t"}, b.took ? time(b.took) : "goes on"),
    make("div", {}, make("div", {}, make("span", {class: "dot " + (b.counts.failed ? "failed" : b.took ? "built" : "building")}), b.text), make("div", {class: "which"}, counts, " ",
      ...b.nodes.map(id => make("button", {onclick: () => choose(id)}, id)), b.total > b.nodes.length ? "and " + (b.total - b.nodes.length) + " more" : "")));
  if (at) at.replaceWith(line); else $("history").prepend(line);
  while ($("history").childElementCount > 50) $("history").lastElementChild.remove();
}
const drawNote = n => { if (n) $("note").textContent = clock(n.time) + " " + n.text; };

// The panel of a node, with its log as it grows.
const links = list => list.flatMap((id, i) => [i ? ", " : "", make("button", {onclick: () => choose(id)}, id)]);
const fold = list => list.length <= 20 ? links(list) : [...links(list.slice(0, 20)), " and " + (list.length - 20) + " more"];
function drawDetail() {
  const n = nodes.get(chosen);
  if (!n) return;
  const fact = (...children) => make("div", {class: "facts"}, ...children);
  const needs = n.needs || [], by = dependents.get(n.id) || [];
  const focused = $("detail").contains(document.activeElement);
  $("detail").replaceChildren(make("h2", {}, make("span", {class: "dot " + n.state}), n.id),
    fact([n.state + (n.since ? " since " + clock(n.since) : ""), n.took ? time(n.took) : "", n.size ? bytes(n.size) : "", n.group ? "group " + n.group : "", plural(n.builds, "build")].filter(Boolean).join(" · ")),
    n.step ? fact(n.step) : "", n.cause ? fact("why: " + n.cause) : "", n.names ? fact(n.names.join(", ")) : "", n.digest ? fact(make("code", {}, n.digest)) : "",
    needs.length ? fact("needs ", ...fold(needs)) : "", by.length ? fact("needed by ", ...fold(by)) : "", n.error ? make("pre", {class: "error"}, n.error) : "", make("h3", {}, "Log"));
  if (focused) $("panel").focus();
}
let log = null, logged = 0;
function follow(id) {
  log?.close();
  log = null;
  if (!id || document.hidden) return;
  log = new EventSource("log?node=" + encodeURIComponent(id));
  log.addEventListener("log", e => {
    const part = JSON.parse(e.data), box = $("log"), end = box.scrollTop + box.clientHeight > box.scrollHeight - 8;
    if (part.first) { box.replaceChildren(); logged = 0; }
    if (part.gone) box.append(make("i", {}, "… " + plural(part.gone, "line") + " not kept …\n"));
    if (part.lines.length) box.append(part.lines.join("\n") + "\n");
    logged += part.lines.length;
    while (box.childNodes.length > 1 && logged > 3000) { logged -= box.firstChild.textContent.split("\n").length - 1; box.firstChild.remove(); }
    if (end || part.first) box.scrollTop = box.scrollHeight;
  });
  log.addEventListener("ended", () => log.close());
}
function choose(id) {
  if (!nodes.has(id)) return;
  if (!chosen) before = document.activeElement;
  if (id !== chosen) { $("log").replaceChildren(); follow(id); }
  chosen = id;
  light();
  drawDetail();
  show("panel", true);
  $("panel").scrollTop = 0;
  $("panel").focus({preventScroll: true});
  history.replaceState(null, "", "#" + encodeURIComponent(id));
}
function leave() {
  if (!chosen) return;
  chosen = "";
  follow("");
  show("panel", false);
  narrow();
  before?.focus?.();
  history.replaceState(null, "", "#");
}
$("close").onclick = leave;
addEventListener("keydown", e => {
  if (e.key === "Escape") leave();
  if (e.key === "/" && document.activeElement !== $("search")) { e.preventDefault(); $("search").focus(); }
});

// What is told.
let redraw = 0;
function later() { // what counts all images is drawn once for many messages
  redraw ||= setTimeout(() => { redraw = 0; if (!over) drawPhase(); drawTiles(); drawFailures(); if (filter) narrow(); }, 50);
}
function took(n) {
  nodes.set(n.id, n);
  const row = rows.get(n.id);
  if (row) fill(row, n);
  colour(n);
  if (n.id === chosen) drawDetail();
}
const told = {
  snapshot(s) {
    $("title").textContent = document.title = s.title || "kaniko-build watch";
    nodes.clear(); rows.clear(); dependents.clear(); builds.clear();
    for (const n of s.nodes) { nodes.set(n.id, n); dependents.set(n.id, []); }
    for (const n of s.nodes) for (const p of n.needs || []) dependents.get(p)?.push(n.id);
    const body = document.createDocumentFragment();
    for (const n of s.nodes) { const row = make("tr", {"data-id": n.id}); fill(row, n); rows.set(n.id, row); body.append(row); }
    $("images").tBodies[0].replaceChildren(body);
    $("history").replaceChildren();
    for (const b of s.builds) drawBuild(b);
    drawNote(s.note);
    phase = s.phase;
    if (chosen && !nodes.has(chosen)) leave();
    for (const n of s.nodes) colour(n);
    narrow();
    drawGraph(s.picture);
    if (chosen) drawDetail(); else if (location.hash.length > 1) choose(decodeURIComponent(location.hash.slice(1)));
  },
  phase(p) { phase = p; },
  nodes(list) { list.forEach(took); },
  build: drawBuild,
  note: drawNote,
};
let source = null, last = "", over = false;
function connect() {
  source?.close();
  source = null;
  if (document.hidden || over) return; // a browser has few connections for all pages of one place
  source = new EventSource("events" + (last ? "?after=" + last : ""));
  for (const [kind, f] of Object.entries(told)) source.addEventListener(kind, e => { last = e.lastEventId; f(JSON.parse(e.data)); later(); });
  source.addEventListener("ended", () => { over = true; source.close(); drawPhase("the watch has ended"); });
  source.onopen = later;
  source.onerror = () => drawPhase(source?.readyState === EventSource.CLOSED ? "the watch has ended" : "not connected: trying again");
}
document.addEventListener("visibilitychange", () => { connect(); follow(document.hidden ? "" : chosen); });
connect();
