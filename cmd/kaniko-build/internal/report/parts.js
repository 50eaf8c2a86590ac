// What the page of a run and the page of watching have in common. It stands before the
// script of either, in one function with it.
const $ = id => document.getElementById(id);
// make builds an element; text is always text.
function make(tag, attributes, ...children) {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(attributes || {})) {
    if (v === undefined || v === false) continue;
    if (k === "onclick") e.addEventListener("click", v);
    else if (k === "class") e.className = v;
    else if (k === "style") Object.assign(e.style, v);
    else e.setAttribute(k, v === true ? "" : v);
  }
  e.append(...children.filter(c => c !== undefined && c !== null && c !== ""));
  return e;
}
const time = ms => ms < 1000 ? Math.round(ms) + " ms" : ms < 60000 ? (ms / 1000).toFixed(1) + " s" :
  ms < 3600000 ? Math.floor(ms / 60000) + " min " + String(Math.floor(ms / 1000) % 60).padStart(2, "0") + " s" : Math.floor(ms / 3600000) + " h " + Math.floor(ms / 60000) % 60 + " min";
const bytes = n => { let u = 0; while (n >= 1000 && u < 4) { n /= 1000; u++; } return (u ? n.toFixed(1) : n) + " " + ["B", "kB", "MB", "GB", "TB"][u]; };
const firstLine = s => s.split("\n")[0] + (s.includes("\n") ? " …" : "");
const plural = (n, word) => n + " " + word + (n === 1 ? "" : "s");
// reach is all that can be got to from a node.
function reach(id, next) {
  const met = new Set([id]), todo = [id];
  while (todo.length) for (const n of next(todo.pop())) if (!met.has(n)) { met.add(n); todo.push(n); }
  return met;
}

// drawing gives life to the picture of a graph in its box: it is moved, made larger and
// smaller, and pick is called for the node that is clicked, or entered. One of its nodes is
// reached by Tab, the others from there by arrows. shapes are its nodes by their IDs.
function drawing(svg, pick) {
  const box = $("graph"), shapes = new Map(), lines = [];
  let moved = false, from = null, scale = 1;
  for (const e of svg.querySelectorAll(".node[data-id]")) {
    e.setAttribute("tabindex", shapes.size ? "-1" : "0");
    e.setAttribute("role", "button");
    e.setAttribute("aria-label", e.dataset.id);
    shapes.set(e.dataset.id, e);
    e.addEventListener("click", () => { if (!moved) pick(e.dataset.id); });
    e.addEventListener("focus", () => { for (const other of svg.querySelectorAll('.node[tabindex="0"]')) other.setAttribute("tabindex", "-1"); e.setAttribute("tabindex", "0"); });
    e.addEventListener("keydown", k => {
      if (k.key === "Enter" || k.key === " ") { k.preventDefault(); pick(e.dataset.id); return; }
      const way = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[k.key];
      if (!way) return;
      k.preventDefault();
      beside(e, way)?.focus();
    });
  }
  svg.setAttribute("role", "group");
  // beside is the nearest node in a direction.
  function beside(e, [dx, dy]) {
    const middle = e => { const r = e.querySelector("rect"), v = k => Number(r.getAttribute(k)); return [v("x") + v("width") / 2, v("y") + v("height") / 2]; };
    const [x, y] = middle(e);
    let best = null, least = Infinity;
    for (const other of shapes.values()) {
      const [ox, oy] = middle(other), along = (ox - x) * dx + (oy - y) * dy, aside = Math.abs((ox - x) * dy) + Math.abs((oy - y) * dx);
      if (other !== e && along > 1 && along + 3 * aside < least) { least = along + 3 * aside; best = other; }
    }
    return best;
  }
  for (const e of svg.querySelectorAll(".line")) lines.push([e, e.dataset.edges.split(" ").map(x => x.split(">"))]);
  const full = {w: svg.viewBox.baseVal.width, h: svg.viewBox.baseVal.height};
  function zoom(to) {
    const x = (box.scrollLeft + box.clientWidth / 2) / scale, y = (box.scrollTop + box.clientHeight / 2) / scale;
    scale = Math.min(3, Math.max(0.05, to));
    svg.setAttribute("width", full.w * scale); svg.setAttribute("height", full.h * scale);
    box.scrollLeft = x * scale - box.clientWidth / 2; box.scrollTop = y * scale - box.clientHeight / 2;
  }
  const fitting = () => Math.min(1, box.clientWidth / full.w);
  $("smaller").onclick = () => zoom(scale / 1.3); $("larger").onclick = () => zoom(scale * 1.3);
  $("fit").onclick = () => zoom(Math.min(fitting(), innerHeight * 0.7 / full.h));
  zoom(Math.max(fitting(), 0.45));
  box.onpointerdown = e => { moved = false; from = {x: e.clientX, y: e.clientY, l: box.scrollLeft, t: box.scrollTop}; };
  window.onpointermove = e => {
    if (!from) return;
    const dx = e.clientX - from.x, dy = e.clientY - from.y;
    if (Math.abs(dx) + Math.abs(dy) > 4) { moved = true; box.classList.add("drag"); }
    box.scrollLeft = from.l - dx; box.scrollTop = from.t - dy;
  };
  window.onpointerup = () => { from = null; box.classList.remove("drag"); };
  box.onwheel = e => { if (e.ctrlKey) { e.preventDefault(); zoom(scale * Math.exp(-e.deltaY / 300)); } };
  return {
    shapes,
    // light shows what a node has to do with: near are the nodes; null is all.
    light(id, near) {
      for (const [other, e] of shapes) { e.classList.toggle("dim", Boolean(near) && !near.has(other)); e.classList.toggle("chosen", other === id); }
      for (const [e, edges] of lines) {
        const on = Boolean(near) && edges.some(([a, b]) => near.has(a) && near.has(b));
        e.classList.toggle("near", on && edges.some(([a, b]) => a === id || b === id));
        e.classList.toggle("dim", Boolean(near) && !on);
      }
    },
    // only shows some nodes; null is all.
    only(ids) { for (const [id, e] of shapes) e.classList.toggle("dim", Boolean(ids) && !ids.has(id)); },
  };
}
