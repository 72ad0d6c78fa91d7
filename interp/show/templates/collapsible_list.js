"use strict";
// Latents or memories as folds: a body is made when its fold is first opened, so that hundreds of them load at once.
const bodies = JSON.parse(document.getElementById("bodies").textContent);
const folds = [...document.querySelectorAll("details[data-fold]")];
const kind = document.querySelector(".folds").dataset.kind;
const box = document.getElementById("search"), count = document.getElementById("count");
let words = null;
const plain = (fold, i) => (fold.firstElementChild.textContent + " " + bodies[i].replace(/<[^>]*>/g, "")
  .replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&#34;/g, '"').replace(/&#39;/g, "'").replace(/&amp;/g, "&"))
  .toLowerCase();
const fill = fold => {
  const room = fold.lastElementChild;
  if (!room.childNodes.length) room.innerHTML = bodies[folds.indexOf(fold)];
};
folds.forEach(fold => fold.addEventListener("toggle", () => { if (fold.open) fill(fold); }));
const seek = () => {
  words ??= folds.map(plain);
  const asked = box.value.trim().toLowerCase();
  let found = 0;
  folds.forEach((fold, i) => { fold.hidden = !words[i].includes(asked); found += !fold.hidden; });
  count.textContent = asked ? `${found} of ${folds.length} ${kind}` : `${folds.length} ${kind}`;
};
box.addEventListener("input", seek);
const step = by => {
  const shown = folds.filter(fold => !fold.hidden), at = shown.indexOf(document.activeElement.closest("details"));
  const next = shown[at < 0 ? 0 : Math.max(0, Math.min(shown.length - 1, at + by))];
  next?.firstElementChild.focus();
  next?.scrollIntoView({ block: "nearest" });
};
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (document.activeElement === box) {
    if (event.key === "Escape") { box.value = ""; seek(); box.blur(); }
    if (event.key === "Enter" || event.key === "ArrowDown") { event.preventDefault(); box.blur(); step(0); }
    return;
  }
  const keys = { "/": () => box.focus(), j: () => step(1), k: () => step(-1),
    v: () => document.body.classList.toggle("values") };
  if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
});
const unfold = fold => { fold.open = true; fill(fold); };
const go = () => {
  const fold = location.hash && document.getElementById(location.hash.slice(1));
  if (!fold || fold.tagName !== "DETAILS") return;
  fold.hidden = false;
  unfold(fold);
  fold.scrollIntoView();
  fold.firstElementChild.focus({ preventScroll: true });
};
addEventListener("hashchange", go);
count.textContent = `${folds.length} ${kind}`;
if (folds.length === 1) unfold(folds[0]);
go();
