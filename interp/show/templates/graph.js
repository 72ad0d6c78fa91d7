"use strict";
// The graph: hover lights a node's edges, a click pins it, pinned nodes become supernodes; all of it by keys as well.
const given = JSON.parse(document.getElementById("data").textContent), nodes = given.nodes;
const graph = document.querySelector("svg.graph"), marks = [...graph.querySelectorAll(".node")];
const paths = [...graph.querySelectorAll(".edge")], box = id => document.getElementById(id);
const number = new Map(nodes.map((node, i) => [node.name, i])), mark = new Map(marks.map(m => [+m.dataset.node, m]));
const into = nodes.map(() => []), out = nodes.map(() => []);
given.edges.forEach(([s, t, share, value]) => { into[t].push([s, share, value]); out[s].push([t, share, value]); });
const pinned = new Set(), groups = [];
let at = null;
const make = (tag, text = "", attributes = {}) => {
  const element = document.createElement(tag);
  element.textContent = text;
  Object.entries(attributes).forEach(([name, value]) => element.setAttribute(name, value));
  return element;
};
const signed = value => (value < 0 ? "−" : "+") + Math.abs(value).toPrecision(3).replace(/\.?0+$/, "");
const percent = share => `${share < 0 ? "−" : "+"}${(100 * Math.abs(share)).toFixed(1)} %`;
const light = i => {
  graph.classList.toggle("lit", i !== null);
  const near = new Set(i === null ? [] : [i]);
  paths.forEach(path => {
    const on = i !== null && (+path.dataset.s === i || +path.dataset.t === i);
    path.classList.toggle("on", on);
    if (on) near.add(+path.dataset.s).add(+path.dataset.t);
  });
  marks.forEach(m => m.classList.toggle("on", near.has(+m.dataset.node)));
};
const listed = (title, edges) => {
  const most = edges.slice().sort((a, b) => Math.abs(b[1]) - Math.abs(a[1])).slice(0, 12);
  const list = make("ul", "", { class: "ends-of" });
  most.forEach(([other, share, value]) => {
    const item = make("li"), button = make("button", nodes[other].name);
    button.addEventListener("click", () => choose(other));
    item.append(make("b", percent(share), { class: share > 0 ? "up" : "down" }), button,
      make("span", nodes[other].label), make("small", signed(value)));
    list.append(item);
  });
  return most.length ? [make("h3", `${title} (${edges.length})`), list] : [];
};
const tell = i => {
  const node = nodes[i], text = box(`text-${node.feature}`), pane = box("node");
  const facts = [`${(100 * node.influence).toFixed(1)} % of the influence`];
  if (node.kind === "feature") facts.unshift(`activation ${node.a.toPrecision(3)}`);
  if (node.kind === "logit") facts.unshift(`probability ${node.p.toFixed(3)}`, `logit less the mean ${signed(node.a)}`);
  if (node.bias !== null) facts.push(`${signed(node.bias)} from biases`);
  pane.replaceChildren(make("p", `${node.name} · ${node.label}`, { class: "named" }), make("p", facts.join(", ")),
    ...listed("Reads from", into[i]), ...listed("Is read by", out[i]));
  if (text) pane.append(text.content.cloneNode(true));
};
const choose = i => {
  marks.forEach(m => m.classList.toggle("chosen", +m.dataset.node === i));
  at = i;
  mark.get(i)?.scrollIntoView({ block: "nearest", inline: "nearest" });
  light(i);
  tell(i);
};
const pin = i => { if (!pinned.delete(i)) pinned.add(i); choose(i); draw(); };
const colour = k => `hsl(${(k * 137.5 + 20) % 360} 65% 50%)`;
// E[T, S] = sum over t in T of w_t sum over s in S of A[t, s] / |row t|, as edges_between has it.
const between = (T, S) => {
  const rows = T.filter(t => nodes[t].has_row), whole = rows.reduce((sum, t) => sum + nodes[t].weight, 0) || 1;
  const from = new Set(S);
  return rows.reduce((sum, t) => sum + nodes[t].weight / whole *
    into[t].reduce((part, [s, share]) => part + (from.has(s) ? share : 0), 0), 0);
};
const flow = () => {
  const shown = groups.map((group, k) => ({ ...group, k, height: group.nodes.reduce((sum, i) =>
    sum + nodes[i].height, 0) / group.nodes.length })).sort((a, b) => b.height - a.height);
  const table = make("table"), head = table.createTHead().insertRow(), body = table.createTBody();
  ["from", "to", "share"].forEach(word => head.append(make("th", word)));
  shown.flatMap(T => shown.filter(S => S.k !== T.k).map(S => [S, T, between(T.nodes, S.nodes)]))
    .filter(([, , share]) => Math.abs(share) >= 0.0005).sort((a, b) => Math.abs(b[2]) - Math.abs(a[2]))
    .forEach(([S, T, share]) => {
      const row = body.insertRow();
      row.append(make("td", S.name), make("td", T.name), make("td", percent(share), { class: share > 0 ? "up" : "down" }));
    });
  return groups.length > 1 ? [table] : [];
};
const keep = () => {
  const state = { pins: [...pinned].map(i => nodes[i].name), groups: groups.map(group =>
    [group.name, ...group.nodes.map(i => nodes[i].name)]) };
  history.replaceState(null, "", "#" + encodeURIComponent(JSON.stringify(state)));
};
const draw = () => {
  marks.forEach(m => {
    const i = +m.dataset.node, k = groups.findIndex(group => group.nodes.includes(i));
    m.classList.toggle("pinned", pinned.has(i));
    m.setAttribute("aria-label", nodes[i].name);
    m.style.setProperty("--group", k < 0 ? "" : colour(k));
    m.classList.toggle("grouped", k >= 0);
  });
  box("pins").textContent = pinned.size;
  box("groups").replaceChildren(...groups.map((group, k) => {
    const item = make("li"), show = make("button", group.name), drop = make("button", "×", { "aria-label": `remove ${group.name}` });
    show.addEventListener("click", () => { pinned.clear(); group.nodes.forEach(i => pinned.add(i)); draw(); });
    drop.addEventListener("click", () => { groups.splice(k, 1); draw(); });
    item.append(make("i", "", { style: `background:${colour(k)}` }), show,
      make("span", ` ${group.nodes.map(i => nodes[i].name).join(", ")}`), drop);
    return item;
  }));
  box("between").replaceChildren(...flow());
  keep();
};
const add = (name, members) => {
  if (!members.length) return;
  groups.forEach(group => { group.nodes = group.nodes.filter(i => !members.includes(i)); });
  groups.push({ name, nodes: members });
  groups.splice(0, groups.length, ...groups.filter(group => group.nodes.length));
};
const group = () => {
  add(box("called").value.trim() || `supernode ${groups.length + 1}`, [...pinned]);
  pinned.clear();
  box("called").value = "";
  draw();
};
const look = () => {
  const asked = box("search").value.trim().toLowerCase();
  const found = asked ? nodes.map((_, i) => i).filter(i => `${nodes[i].name} ${nodes[i].label}`.toLowerCase().includes(asked)) : [];
  graph.classList.toggle("sought", asked !== "");
  marks.forEach(m => m.classList.toggle("found", found.includes(+m.dataset.node)));
  box("count").textContent = asked ? `${found.length} of ${nodes.length} nodes` : `${nodes.length} nodes`;
  return found;
};
const nodeOf = event => event.target.closest?.(".node");
graph.addEventListener("mouseover", event => { const m = nodeOf(event); if (m) { light(+m.dataset.node); tell(+m.dataset.node); } });
graph.addEventListener("mouseout", event => { if (nodeOf(event)) { light(at); if (at !== null) tell(at); } });
graph.addEventListener("click", event => {
  const m = nodeOf(event);
  if (m) pin(+m.dataset.node); else { at = null; light(null); marks.forEach(one => one.classList.remove("chosen")); }
});
const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const step = ([right, down]) => {
  const { x, y } = nodes[at];
  let next = null, least = Infinity;
  nodes.forEach((node, i) => {
    const along = (node.x - x) * right + (node.y - y) * down;
    const aside = Math.abs((node.x - x) * down) + Math.abs((node.y - y) * right);
    if (along > 0.5 && along + 2 * aside < least) { least = along + 2 * aside; next = i; }
  });
  if (next !== null) choose(next);
};
graph.addEventListener("keydown", event => {
  if (ways[event.key]) { event.preventDefault(); if (at === null) choose(given.first); else step(ways[event.key]); }
  if ((event.key === "Enter" || event.key === " ") && at !== null) { event.preventDefault(); pin(at); }
});
document.addEventListener("keydown", event => {
  const typing = event.target.tagName === "INPUT";
  if (event.key === "/" && !typing) { event.preventDefault(); box("search").focus(); }
  if (event.key === "g" && !typing && pinned.size) { event.preventDefault(); box("called").focus(); }
  if (event.key === "Escape" && typing) { event.target.value = ""; look(); graph.focus(); }
  if (event.key === "Enter" && event.target === box("search")) { const [first] = look(); if (first !== undefined) choose(first); }
});
box("search").addEventListener("input", look);
box("make").addEventListener("submit", event => { event.preventDefault(); group(); });
box("unpin").addEventListener("click", () => { pinned.clear(); draw(); });
const known = names => names.filter(name => number.has(name)).map(name => number.get(name));
let kept = null;
try { kept = JSON.parse(decodeURIComponent(location.hash.slice(1))); } catch { kept = null; }
(kept?.groups ?? given.supernodes).forEach(([name, ...members]) => add(name, known(members)));
known(kept?.pins ?? []).forEach(i => pinned.add(i));
look();
draw();
