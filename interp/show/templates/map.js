"use strict";
// The map: a search marks and lists latents, a click or the arrow keys choose one.
const map = document.querySelector("svg.map"), circles = [...map.querySelectorAll("circle")];
const seeker = document.getElementById("search"), tally = document.getElementById("count");
const listed = document.getElementById("listed"), chosen = document.getElementById("chosen"), most = 60;
let sought = null, at = null;
const place = circle => [Number(circle.getAttribute("cx")), Number(circle.getAttribute("cy"))];
const choose = circle => {
  at?.classList.remove("chosen");
  at = circle;
  at.classList.add("chosen");
  at.parentNode.appendChild(at);
  chosen.textContent = said(at);
  if (map.dataset.page) {
    const link = document.createElement("a");
    link.href = `${map.dataset.page}#latent-${at.dataset.latent}`;
    link.textContent = "evidence";
    chosen.append(" ", link);
  }
};
const look = () => {
  sought ??= new Map(circles.map(circle => [circle, said(circle).toLowerCase()]));
  const asked = seeker.value.trim().toLowerCase();
  const found = asked ? circles.filter(circle => sought.get(circle).includes(asked)) : [];
  map.classList.toggle("sought", asked !== "");
  circles.forEach(circle => circle.classList.remove("found"));
  listed.replaceChildren(...found.slice(0, most).map(circle => {
    const button = document.createElement("button"), item = document.createElement("li");
    button.textContent = said(circle).split("\n")[0];
    button.addEventListener("click", () => choose(circle));
    item.append(button);
    return item;
  }));
  found.forEach(circle => { circle.classList.add("found"); circle.parentNode.appendChild(circle); });
  const more = found.length > most ? `, the first ${most} listed` : "";
  tally.textContent = asked ? `${found.length} of ${circles.length} latents${more}` : `${circles.length} latents`;
};
seeker.addEventListener("input", look);
map.addEventListener("click", event => { if (event.target.tagName === "circle") choose(event.target); });
const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
map.addEventListener("keydown", event => {
  const way = ways[event.key];
  if (!way) return;
  event.preventDefault();
  if (!at) { choose(circles[0]); return; }
  const [x, y] = place(at);
  let next = null, least = Infinity;
  for (const circle of circles) {
    const [dx, dy] = [place(circle)[0] - x, place(circle)[1] - y];
    const along = dx * way[0] + dy * way[1], aside = Math.abs(dx * way[1]) + Math.abs(dy * way[0]);
    if (along > 0 && along + 2 * aside < least) { least = along + 2 * aside; next = circle; }
  }
  if (next) choose(next);
});
document.addEventListener("keydown", event => {
  if (event.key === "/" && document.activeElement !== seeker) { event.preventDefault(); seeker.focus(); }
  if (event.key === "Escape" && document.activeElement === seeker) { seeker.value = ""; look(); }
});
tally.textContent = `${circles.length} latents`;
