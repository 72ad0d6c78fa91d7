// An attribution graph that is walked: pointing lights a node's edges, a click pins it, arrow keys and Enter do the same.

const SPACE = "http://www.w3.org/2000/svg";
export const WAYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const signed = value => (value < 0 ? "−" : "+") + Math.abs(value).toPrecision(3);
const percent = share => `${share < 0 ? "−" : "+"}${(100 * Math.abs(share)).toFixed(1)} %`;

function draw(tag, attributes = {}, text = "") {
  const one = document.createElementNS(SPACE, tag);
  for (const [name, value] of Object.entries(attributes)) one.setAttribute(name, value);
  if (text) one.textContent = text;
  return one;
}

function mark({ kind, x, y, influence, label, name }, i) {
  const r = kind === "token" || kind === "logit" ? 6.5 : 3.2 + Math.min(12 * Math.sqrt(influence), 5);
  const group = draw("g", { class: `node ${kind}`, "data-node": i, transform: `translate(${x} ${y})` });
  const shapes = { error: () => draw("path", { d: `M0 ${-1.2 * r}L${1.2 * r} 0L0 ${1.2 * r}L${-1.2 * r} 0Z` }),
    token: () => draw("rect", { x: -r, y: -r, width: 2 * r, height: 2 * r }) };
  const shape = (shapes[kind] ?? (() => draw("circle", { r })))();
  shape.append(draw("title", {}, `${name}: ${label}`));
  group.append(shape);
  if (kind === "logit") group.append(draw("text", { y: -12 }, label));
  return group;
}

// The number of the point that an arrow key leads to, mostly in its direction; the same one where there is none.
export function nextPoint(points, at, [right, down]) {
  const here = points[at];
  let next = at, least = Infinity;
  points.forEach(({ x, y }, i) => {
    const along = (x - here.x) * right + (y - here.y) * down, aside = Math.abs((x - here.x) * down) + Math.abs((y - here.y) * right);
    if (along > 0.5 && along + 2 * aside < least) { least = along + 2 * aside; next = i; }
  });
  return next;
}

// `onNode` is called with a node to show, `onPins` with the pinned nodes' numbers whenever they change.
export function drawGraph(box, given, { onNode, onPins }) {
  const { nodes, width, height } = given;
  const svg = draw("svg", { class: "graph", viewBox: `0 0 ${width} ${height}`, width, height, tabindex: 0, role: "group",
    "aria-label": `attribution graph of ${nodes.length} nodes and ${given.drawn.length} edges` });
  for (const row of given.rows) svg.append(draw("line", { class: "row", x1: 0, x2: width, y1: row.y, y2: row.y }), draw("text", { x: 4, y: row.middle + 4 }, row.name));
  for (const column of given.columns) svg.append(draw("text", { class: "token", x: column.middle, y: height - 8 }, column.text));
  const edges = given.drawn.slice().sort((a, b) => Math.abs(a[2]) - Math.abs(b[2])).map(([s, t, share]) => {
    const a = nodes[s], b = nodes[t], bend = (a.y + b.y) / 2;
    const path = draw("path", { class: share > 0 ? "edge up" : "edge down", d: `M${a.x} ${a.y}C${a.x} ${bend} ${b.x} ${bend} ${b.x} ${b.y}`, "stroke-width": 0.4 + 9 * Math.abs(share) });
    svg.append(path);
    return { s, t, path };
  });
  const marks = nodes.map((node, i) => { const one = mark(node, i); svg.append(one); return one; });
  const into = nodes.map(() => []), out = nodes.map(() => []), pinned = new Set();
  given.edges.forEach(([s, t, share, value]) => { into[t].push({ other: s, share, value }); out[s].push({ other: t, share, value }); });
  let at = null;
  const light = i => {
    svg.classList.toggle("lit", i !== null);
    const near = new Set(i === null ? [] : [i]);
    for (const { s, t, path } of edges) {
      const on = i !== null && (s === i || t === i);
      path.classList.toggle("on", on);
      if (on) near.add(s).add(t);
    }
    marks.forEach((one, j) => one.classList.toggle("on", near.has(j)));
  };
  const most = list => list.slice().sort((a, b) => Math.abs(b.share) - Math.abs(a.share)).slice(0, 10)
    .map(({ other, share, value }) => ({ node: nodes[other], number: other, share: percent(share), value: signed(value) }));
  const look = i => { light(i); onNode({ ...nodes[i], number: i, reads: most(into[i]), readBy: most(out[i]) }); };
  const choose = i => { at = i; marks.forEach((one, j) => one.classList.toggle("chosen", j === i)); look(i); };
  const show = () => { marks.forEach((one, j) => one.classList.toggle("pinned", pinned.has(j))); onPins([...pinned]); };
  const pin = i => { if (!pinned.delete(i)) pinned.add(i); choose(i); show(); };
  const nodeOf = event => { const one = event.target.closest?.(".node"); return one ? Number(one.dataset.node) : null; };
  svg.addEventListener("mouseover", event => { const i = nodeOf(event); if (i !== null) look(i); });
  svg.addEventListener("mouseout", event => { if (nodeOf(event) !== null) { if (at === null) light(null); else look(at); } });
  svg.addEventListener("click", event => { const i = nodeOf(event); if (i !== null) pin(i); });
  svg.addEventListener("keydown", event => {
    if (WAYS[event.key]) { event.preventDefault(); choose(at === null ? given.first : nextPoint(nodes, at, WAYS[event.key])); }
    if ((event.key === "Enter" || event.key === " ") && at !== null) { event.preventDefault(); pin(at); }
  });
  box.replaceChildren(svg);
  return { choose, setPins(numbers) { pinned.clear(); numbers.forEach(i => pinned.add(i)); show(); }, into };
}

// E[T, S] = Σ_{t ∈ T} w_t Σ_{s ∈ S} A[t, s] / |row t|, as interp.graphs.edges_between has it.
export function between(nodes, into, T, S) {
  const rows = T.filter(t => nodes[t].has_row), whole = rows.reduce((sum, t) => sum + nodes[t].weight, 0) || 1, from = new Set(S);
  return percent(rows.reduce((sum, t) => sum + nodes[t].weight / whole * into[t].reduce((part, { other, share }) => part + (from.has(other) ? share : 0), 0), 0));
}
