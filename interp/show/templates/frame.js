"use strict";
// What an element says on hover is its title; it is shown at once, also next to the keyboard's focus.
const tip = document.body.appendChild(document.createElement("div"));
tip.id = "tip";
tip.setAttribute("role", "tooltip");
tip.hidden = true;
const said = element => {
  const inner = element.querySelector(":scope > title");
  if (inner) { element.dataset.said = inner.textContent; inner.remove(); }
  if (element.title) { element.dataset.said = element.title; element.removeAttribute("title"); }
  return element.dataset.said;
};
const show = (element, x, y) => {
  tip.textContent = said(element);
  tip.hidden = false;
  tip.style.left = Math.max(4, Math.min(x + 12, innerWidth - tip.offsetWidth - 12)) + "px";
  tip.style.top = (y + 18 + tip.offsetHeight > innerHeight ? y - tip.offsetHeight - 10 : y + 18) + "px";
};
const saying = target => target.closest?.("[title], [data-said]") ??
  (target.querySelector?.(":scope > title") && target.tagName !== "svg" ? target : null);
document.addEventListener("mouseover", event => {
  const element = saying(event.target);
  if (element && said(element)) show(element, event.clientX, event.clientY); else tip.hidden = true;
});
document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
const lost = document.documentElement.dataset.lost;
if (lost) {
  const note = document.createElement("p");
  note.setAttribute("role", "alert");
  note.textContent = `The figures are missing: they are drawn by ${lost}, which belongs next to this page.`;
  document.querySelector("h1").after(note);
}
