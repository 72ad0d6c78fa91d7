"use strict";
// The atlas: drag, wheel, pinch and keys move it, a click or the arrows choose a cell, two cells are joined by a walk.
const given = JSON.parse(document.getElementById("data").textContent), cells = given.cells, S = given.size;
const box = id => document.getElementById(id), chart = document.querySelector("svg.atlas"), NS = "http://www.w3.org/2000/svg";
const side = given.square, ends = { from: null, to: null };
let view = { x: 0, y: 0, size: S }, at = null, route = [];
const make = (tag, text = "", attributes = {}) => {
  const element = document.createElement(tag);
  element.textContent = text;
  Object.entries(attributes).forEach(([name, value]) => element.setAttribute(name, value));
  return element;
};
const draw = (tag, attributes) => {
  const element = document.createElementNS(NS, tag);
  Object.entries(attributes).forEach(([name, value]) => element.setAttribute(name, value));
  return element;
};
const left = cell => cell.column * side, top_ = cell => S - (cell.row + 1) * side;
const middle = i => [left(cells[i]) + side / 2, top_(cells[i]) + side / 2];
const most = Math.max(...cells.map(cell => cell.n));
const hue = name => [...name].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 360, 7);
const marks = cells.map((cell, i) => {
  const group = draw("g", { class: "cell", "data-cell": i }), inner = side * (0.55 + 0.43 * Math.sqrt(cell.n / most));
  const x = left(cell) + (side - inner) / 2, y = top_(cell) + (side - inner) / 2, place = { x, y, width: inner, height: inner };
  if (cell.icon) {
    group.append(draw("image", { ...place, href: cell.icon, preserveAspectRatio: "none" }), draw("rect", { ...place, class: "edge" }));
  } else {
    const words = (cell.words.length ? cell.words.map(word => word[0]) : [cell.label]).slice(0, 3);
    group.append(draw("rect", { ...place, rx: side / 10, class: "plain", style: `fill: hsl(${hue(cell.label)} 45% 50% / .22)` }));
    words.forEach((word, k) => {
      const text = draw("text", { x: left(cell) + side / 2, y: top_(cell) + side * (0.5 + 0.25 * (k - (words.length - 1) / 2)) + side * 0.07, "font-size": Math.min(side / 4.6, 1.5 * side / Math.max(word.length, 1)) });
      text.textContent = word;
      group.append(text);
    });
  }
  const title = draw("title", {});
  title.textContent = `${cell.label}\n${cell.n} activations${cell.purity === null ? "" : `, ${Math.round(100 * cell.purity)} % of them its label`}`;
  group.append(title);
  box("cells").append(group);
  return group;
});
const look = () => chart.setAttribute("viewBox", `${view.x} ${view.y} ${view.size} ${view.size}`);
const zoom = (factor, x = view.x + view.size / 2, y = view.y + view.size / 2) => {
  const size = Math.min(S * 1.2, Math.max(side * 2, view.size / factor)), share = size / view.size;
  view = { x: x - (x - view.x) * share, y: y - (y - view.y) * share, size };
  look();
};
const point = event => {
  const frame = chart.getBoundingClientRect();
  return [view.x + (event.clientX - frame.left) / frame.width * view.size, view.y + (event.clientY - frame.top) / frame.height * view.size];
};
const figure = (text, picture) => {
  const item = make("li");
  if (picture) item.append(make("img", "", { src: picture, alt: "", width: 64, height: 64 }));
  item.append(make("span", text));
  return item;
};
const strip = parts => { const list = make("ol", "", { class: "strip" }); list.append(...parts); return list; };
const tell = i => {
  const cell = cells[i], facts = [`${cell.n} activations`, `dispersion ${cell.dispersion.toFixed(2)}`];
  if (cell.purity !== null) facts.push(`${Math.round(100 * cell.purity)} % are ${cell.label}`);
  if (cell.cosine !== null) facts.push(`icon's cosine with the mean ${cell.cosine.toFixed(2)}`);
  const pane = box("cell");
  pane.replaceChildren(make("p", cell.label, { class: "named" }), make("p", facts.join(", ")));
  if (cell.icon) pane.append(make("img", "", { src: cell.icon, alt: "the icon of the cell", width: 128, height: 128, class: "icon" }));
  if (cell.words.length) {
    pane.append(make("h3", "Speaks for"), make("p", cell.words.map(([word, value]) => `${word} ${value > 0 ? "+" : "−"}${Math.abs(value).toFixed(2)}`).join(", ")));
  }
  pane.append(make("h3", "Real examples nearest to its mean"), strip(cell.examples.map(one => figure(one.text, one.picture))));
  ["from", "to"].forEach(end => {
    const button = make("button", `walk ${end} here`);
    button.addEventListener("click", () => set(end, i));
    pane.append(button, " ");
  });
};
const choose = (i, move = false) => {
  marks[at]?.classList.remove("chosen");
  at = i;
  marks[i].classList.add("chosen");
  marks[i].parentNode.append(marks[i]);
  if (move) {
    const [x, y] = middle(i);
    if (x < view.x || x > view.x + view.size || y < view.y || y > view.y + view.size) { view.x = x - view.size / 2; view.y = y - view.size / 2; look(); }
  }
  tell(i);
};
// The shortest way over links of cells: Dijkstra on 1 − cos of their means.
const near = cells.map(() => []);
given.links.forEach(([i, j, d]) => { near[i].push([j, d]); near[j].push([i, d]); });
const cosine = new Map(given.links.flatMap(([i, j, d]) => [[`${i} ${j}`, d], [`${j} ${i}`, d]]));
const shortest = (a, b) => {
  const far = cells.map(() => Infinity), came = cells.map(() => -1), open = new Set([a]);
  far[a] = 0;
  while (open.size) {
    const i = [...open].reduce((best, one) => far[one] < far[best] ? one : best);
    open.delete(i);
    if (i === b) break;
    near[i].forEach(([j, d]) => { if (far[i] + d < far[j]) { far[j] = far[i] + d; came[j] = i; open.add(j); } });
  }
  const way = [b];
  while (way[0] !== a && came[way[0]] >= 0) way.unshift(came[way[0]]);
  return way[0] === a ? way : [];
};
const crossed = (a, b) => {
  const [x0, y0] = middle(a), [x1, y1] = middle(b), found = [];
  for (let k = 0; k <= 60; k += 1) {
    const x = x0 + (x1 - x0) * k / 60, y = y0 + (y1 - y0) * k / 60;
    const i = cells.findIndex(cell => Math.floor(x / side) === cell.column && Math.floor(y / side) === given.size / side - 1 - cell.row);
    if (i >= 0 && found.at(-1) !== i) found.push(i);
  }
  return found;
};
const path = way => way.map((i, k) => `${k ? "L" : "M"}${middle(i).join(" ")}`).join("");
const changes = way => way.slice(1).filter((i, k) => cells[i].label !== cells[way[k]].label).length;
const walk = () => {
  if (ends.from === null || ends.to === null || ends.from === ends.to) return;
  route = shortest(ends.from, ends.to);
  const line = crossed(ends.from, ends.to), pane = box("walk");
  marks.forEach((mark, i) => mark.classList.toggle("walked", route.includes(i)));
  box("way").setAttribute("d", path(route));
  box("line").setAttribute("d", path([ends.from, ends.to]));
  if (!route.length) { pane.replaceChildren(make("p", "No way over neighbours leads there.")); return; }
  const steps = route.slice(1).map((i, k) => cosine.get(`${route[k]} ${i}`)), largest = Math.max(...steps);
  const apart = line.slice(1).filter((i, k) => !cosine.has(`${line[k]} ${i}`)).length;
  pane.replaceChildren(
    make("p", `${route.length} cells, ${changes(route)} changes of label; the largest step is ${largest.toFixed(3)}, ${largest <= given.large ? "not above" : "above"} that of 95 in a hundred links (${given.large.toFixed(3)}).`),
    strip(route.map(i => { const item = figure(cells[i].label, cells[i].icon ?? cells[i].examples[0]?.picture); item.addEventListener("click", () => choose(i, true)); return item; })),
    make("p", `Control. The straight line on the map crosses ${line.length} cells with ${changes(line)} changes of label, and ${apart} of its ${Math.max(line.length - 1, 0)} steps join cells that are no neighbours.`, { class: "keys" }));
};
const name = i => `${i}: ${cells[i].label}`;
const set = (end, i) => { ends[end] = i; box(end).value = name(i); walk(); };
const read = text => {
  const number = parseInt(text, 10);
  if (number in cells && text === name(number)) return number;
  const asked = text.trim().toLowerCase(), fit = i => cells[i].label.toLowerCase().includes(asked);
  return asked ? cells.map((_, i) => i).filter(fit).sort((a, b) => cells[b].n - cells[a].n)[0] ?? null : null;
};
box("labels").append(...cells.map((_, i) => make("option", "", { value: name(i) })));
box("go").addEventListener("submit", event => {
  event.preventDefault();
  ["from", "to"].forEach(end => { const i = read(box(end).value); if (i !== null) { ends[end] = i; box(end).value = name(i); } });
  walk();
});
box("stop").addEventListener("click", () => {
  ends.from = ends.to = null;
  route = [];
  ["from", "to"].forEach(end => { box(end).value = ""; });
  ["way", "line"].forEach(one => box(one).removeAttribute("d"));
  marks.forEach(mark => mark.classList.remove("walked"));
  box("walk").replaceChildren(make("p", "Give two cells."));
});
const seek = () => {
  const asked = box("search").value.trim().toLowerCase();
  const text = cell => [cell.label, ...cell.words.map(word => word[0]), ...cell.examples.map(one => one.text)].join(" ").toLowerCase();
  const found = asked ? cells.map((_, i) => i).filter(i => text(cells[i]).includes(asked)) : [];
  chart.classList.toggle("sought", asked !== "");
  marks.forEach((mark, i) => mark.classList.toggle("found", found.includes(i)));
  box("count").textContent = asked ? `${found.length} of ${cells.length} cells` : `${cells.length} cells`;
  return found;
};
box("search").addEventListener("input", seek);
const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
const step = ([right, up]) => {
  let next = null, least = Infinity;
  cells.forEach((cell, i) => {
    const along = (cell.column - cells[at].column) * right + (cell.row - cells[at].row) * up;
    const aside = Math.abs((cell.column - cells[at].column) * up) + Math.abs((cell.row - cells[at].row) * right);
    if (along > 0 && along + 2 * aside < least) { least = along + 2 * aside; next = i; }
  });
  if (next !== null) choose(next, true);
};
chart.addEventListener("keydown", event => {
  if (ways[event.key]) { event.preventDefault(); if (at === null) choose(0, true); else step(ways[event.key]); }
});
document.addEventListener("keydown", event => {
  const typing = event.target.tagName === "INPUT";
  if (event.key === "/" && !typing) { event.preventDefault(); box("search").focus(); }
  if (event.key === "Escape" && typing) { event.target.value = ""; seek(); chart.focus(); }
  if (event.key === "Enter" && event.target === box("search")) { const [first] = seek(); if (first !== undefined) choose(first, true); }
  if (typing || event.ctrlKey || event.metaKey) return;
  if (event.key === "+" || event.key === "=") zoom(1.4);
  if (event.key === "-" || event.key === "−") zoom(1 / 1.4);
  if (event.key === "0") { view = { x: 0, y: 0, size: S }; look(); }
  if ((event.key === "f" || event.key === "t") && at !== null) set(event.key === "f" ? "from" : "to", at);
});
chart.addEventListener("wheel", event => { event.preventDefault(); zoom(Math.exp(-event.deltaY / 400), ...point(event)); }, { passive: false });
// One pointer moves the map, two enlarge it; a press that does not move chooses.
const held = new Map();
let moved = false;
chart.addEventListener("pointerdown", event => { held.set(event.pointerId, [event.clientX, event.clientY]); moved = false; });
chart.addEventListener("pointermove", event => {
  const before = held.get(event.pointerId);
  if (!before) return;
  const scale = view.size / chart.getBoundingClientRect().width, now = [event.clientX, event.clientY];
  const gap = () => { const [a, b] = [...held.values()]; return Math.hypot(a[0] - b[0], a[1] - b[1]); };
  if (held.size === 1) {
    if (!moved && Math.hypot(now[0] - before[0], now[1] - before[1]) < 4) return;
    moved = true;
    chart.setPointerCapture(event.pointerId);
    view.x -= (now[0] - before[0]) * scale;
    view.y -= (now[1] - before[1]) * scale;
    held.set(event.pointerId, now);
    look();
  } else if (held.size === 2) {
    const old = gap();
    held.set(event.pointerId, now);
    moved = true;
    if (old > 0) zoom(gap() / old, ...point(event));
  }
});
const release = event => held.delete(event.pointerId);
chart.addEventListener("pointerup", release);
chart.addEventListener("pointercancel", release);
chart.addEventListener("click", event => {
  const mark = event.target.closest?.(".cell");
  if (mark && !moved) choose(+mark.dataset.cell);
});
box("in").addEventListener("click", () => zoom(1.6));
box("out").addEventListener("click", () => zoom(1 / 1.6));
box("all").addEventListener("click", () => { view = { x: 0, y: 0, size: S }; look(); });
seek();
