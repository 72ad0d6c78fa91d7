// The page of the workbench. Everything that is shown is text, set by textContent; nothing comes from outside.

import { WAYS, between, drawGraph, nextPoint } from "./graph.js";

const $ = id => document.getElementById(id);
const PANELS = { read: "Read", steer: "Steer", edit: "Edit", trace: "Trace", graph: "Graph", "features-panel": "Features", log: "Log" };
const KEYS = { p: "read", s: "steer", f: "features-panel", b: "trace", a: "graph", e: "edit", l: "log" };
const session = { model: null, token: "", job: null, reading: null, features: null, chosen: 0, pinned: false, directions: [] };

// The token is in the address only until it is read; the tab keeps it over a reload.
const given = location.hash.slice(1);
if (given) { sessionStorage.setItem("token", given); history.replaceState(null, "", location.pathname); }
session.token = sessionStorage.getItem("token") ?? "";

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") element.addEventListener("click", value);
    else if (name === "class") element.className = value;
    else element.setAttribute(name, value);
  }
  for (const child of children) element.append(child instanceof Node ? child : document.createTextNode(child));
  return element;
}
const fill = (element, ...children) => element.replaceChildren(...children);
const fixed = (value, digits = 3) => value === null || value === undefined ? "–" : value.toFixed(digits);

function table(head, rows) {
  const cell = (tag, value, number) => make(tag, number ? { class: "number" } : {}, value instanceof Node ? value : String(value));
  const numeric = head.map((_, i) => rows.length > 0 && rows.every(row => typeof row[i] !== "object" && /^[-–+\d.,% [\]to]*$/.test(row[i])));
  return make("table", {}, make("thead", {}, make("tr", {}, ...head.map((one, i) => cell("th", one, numeric[i])))),
    make("tbody", {}, ...rows.map(row => make("tr", {}, ...row.map((one, i) => cell("td", one, numeric[i]))))));
}

async function ask(path, options = {}) {
  const headers = { Authorization: `Bearer ${session.token}`, ...(options.body ? { "Content-Type": "application/json" } : {}), ...options.headers };
  const answer = await fetch(`/api/v1${path}`, { ...options, headers });
  if (answer.ok) return answer;
  let detail = `the server answered ${answer.status}`;
  try { detail = (await answer.json()).detail; } catch { /* no JSON: the status says what there is to say */ }
  throw new Error(detail);
}

// Events of a job, from the stream that its request opened, if there is one; a broken connection is taken up again
// where it ended.
async function* events(id, opened = null) {
  let last = -1;
  for (let tries = 0; tries < 5;) {
    try {
      const answer = opened ?? await ask(`/jobs/${id}/events`, { headers: { "Last-Event-ID": String(last) } });
      opened = null;
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        rest += value;
        for (let end; (end = rest.indexOf("\n\n")) >= 0; rest = rest.slice(end + 2)) {
          const lines = Object.fromEntries(rest.slice(0, end).split("\n").filter(line => !line.startsWith(":"))
            .map(line => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]));
          if (!lines.event) continue;
          last = Number(lines.id);
          tries = 0;
          const data = JSON.parse(lines.data);
          if (lines.event === "queued") id = data.id;
          yield { event: lines.event, data };
          if (["result", "error", "cancelled"].includes(lines.event)) return;
        }
      }
      tries += 1;
    } catch (error) {
      tries += 1;
      if (tries >= 5 || !(error instanceof TypeError)) throw error;
    }
    await new Promise(done => setTimeout(done, 300));
  }
  throw new Error("the connection to the server is lost: is it still running?");
}

function say(text, error = false) {
  $("progress").textContent = error ? "" : text;
  $("error").hidden = !error;
  if (error) $("error").textContent = text;
}

// Queue an action and follow it to its end; null where it was stopped.
async function run(kind, args, { onToken = () => {}, what = kind } = {}) {
  say(`${what} …`);
  $("error").hidden = true;
  const opened = await ask("/jobs", { method: "POST", body: JSON.stringify({ kind, args }), headers: { Accept: "text/event-stream" } });
  const onQueued = id => {
    session.job = id;
    sessionStorage.setItem("job", JSON.stringify({ id, kind, args }));
  };
  try { return await follow(events(null, opened), onToken, what, onQueued); } finally { session.job = null; sessionStorage.removeItem("job"); }
}

async function follow(stream, onToken, what, onQueued = () => {}) {
  for await (const { event, data } of stream) {
    if (event === "queued") {
      onQueued(data.id);
      if (data.position > 0) say(`${what}: ${data.position} before it`);
    } else if (event === "started") say(`${what} …`);
    else if (event === "token") onToken(data);
    else if (event === "error") throw new Error(data.detail);
    else if (event === "cancelled") { say(`${what}: stopped`); return null; }
    else if (event === "result") { say(""); refresh(); return data; }
  }
  return null;
}

const stop = () => session.job && ask(`/jobs/${session.job}`, { method: "DELETE" }).catch(() => {});
function on(form, work) {
  $(form).addEventListener("submit", async event => {
    event.preventDefault();
    const buttons = [...$(form).querySelectorAll("button:not([type=button])")];
    buttons.forEach(button => { button.disabled = true; });
    try { await work(); } catch (error) { say(error.message, true); } finally { buttons.forEach(button => { button.disabled = false; }); }
  });
}

// ---- read ------------------------------------------------------------------------------------------------------
on("read-form", async () => {
  const text = $("read-text").value, sae = $("read-sae").value;
  session.reading = await run("lens", { text, top: 5 }, { what: "reading" });
  if (!session.reading) return;
  session.features = sae ? await run("features", { text, sae, top: 8 }, { what: "features" }) : null;
  session.pinned = false;
  drawTokens();
  const likeliest = session.reading.words.at(-1).at(-1)[0], word = $("read-word").value;
  try {
    const split = await run("attribute", { text, word: word || session.reading.top.at(-1).at(-1)[0] }, { what: "splitting" });
    if (split) drawSplit(split, word || likeliest);
  } catch (error) { say(""); fill($("split"), make("p", { class: "soft" }, error.message)); }
});

function drawTokens() {
  const { tokens } = session.reading;
  fill($("tokens"), ...tokens.map((token, i) => {
    const button = make("button", { type: "button", class: "token", role: "option", tabindex: i === tokens.length - 1 ? "0" : "-1", "aria-selected": "false" }, token);
    button.addEventListener("mouseenter", () => { if (!session.pinned) choose(i, false); });
    button.addEventListener("focus", () => { if (!session.pinned) choose(i, false); });
    button.addEventListener("click", () => choose(i, !(session.pinned && session.chosen === i)));
    return button;
  }));
  choose(tokens.length - 1, false);
}

$("tokens").addEventListener("keydown", event => {
  const step = { ArrowRight: 1, ArrowLeft: -1, Home: -1e9, End: 1e9 }[event.key];
  if (!step || !session.reading) return;
  event.preventDefault();
  const buttons = [...$("tokens").children], at = buttons.indexOf(document.activeElement);
  const next = Math.max(0, Math.min(buttons.length - 1, (at < 0 ? session.chosen : at) + step));
  session.pinned = false;
  buttons[next].focus();
});

function choose(i, pinned) {
  session.chosen = i;
  session.pinned = pinned;
  [...$("tokens").children].forEach((button, j) => {
    button.setAttribute("aria-selected", String(i === j));
    button.tabIndex = i === j ? 0 : -1;
    button.classList.toggle("pinned", pinned && i === j);
  });
  const { layers, words, probability, kl } = session.reading;
  fill($("lens"), table(["layer", "likeliest next words", "KL, nats"], layers.map((layer, l) => [String(layer),
    words[l][i].map((word, k) => `${JSON.stringify(word)} ${fixed(probability[l][i][k], 2)}`).join("  "), fixed(kl[l][i], 2)]).reverse()));
  drawFeatures(i);
}

// Features are of tokens that carry text; special ones have none.
function drawFeatures(i) {
  if (!session.features) { fill($("features"), make("p", { class: "soft" }, "Give a dictionary with --sae to see features.")); return; }
  const place = session.reading.content.slice(0, i + 1).filter(Boolean).length - 1;
  const firings = session.reading.content[i] ? session.features.firings[place] : [];
  if (!firings?.length) { fill($("features"), make("p", { class: "soft" }, "Nothing fires on this token.")); return; }
  fill($("features"), table(["latent", "activation", "label", "raises"], firings.map(one => [
    make("button", { type: "button", onclick: () => showLatent($("read-sae").value, one.latent) }, String(one.latent)),
    fixed(one.activation, 2), one.label, one.raises.map(([word]) => JSON.stringify(word)).join(" ")])));
}

function drawSplit({ names, parts, logit }, word) {
  const order = parts.map((_, i) => i).sort((a, b) => Math.abs(parts[b]) - Math.abs(parts[a])).slice(0, 12);
  const largest = Math.max(...order.map(i => Math.abs(parts[i])));
  fill($("split"), make("p", { class: "soft" }, `Logit of ${JSON.stringify(word)} after the text: ${fixed(logit)}`),
    table(["part", "adds", ""], order.map(i => {
      const bar = make("span", { class: parts[i] < 0 ? "bar minus" : "bar" });
      bar.style.width = `${Math.round(160 * Math.abs(parts[i]) / largest)}px`;
      return [names[i], fixed(parts[i]), bar];
    })));
}

// ---- steer -----------------------------------------------------------------------------------------------------
function addDirection(preset = {}) {
  const kind = make("select", { "aria-label": "Where the direction is from" },
    ...Object.keys(session.model?.saes ?? {}).map(name => make("option", { value: `sae:${name}` }, `latent of ${name}`)),
    ...Object.keys(session.model?.directions ?? {}).map(name => make("option", { value: `name:${name}` }, name)),
    make("option", { value: "texts" }, "two sets of texts"));
  const latent = make("input", { type: "number", min: "0", value: String(preset.latent ?? 0), "aria-label": "Latent" });
  const texts = make("textarea", { rows: "2", "aria-label": "Texts about it, one per line", placeholder: "texts about it, one per line" });
  const background = make("textarea", { rows: "2", "aria-label": "Other texts, one per line", placeholder: "other texts, one per line" });
  const site = make("input", { value: `resid_post.${Math.floor((session.model?.n_layers ?? 2) / 2)}`, size: "14", "aria-label": "Site" });
  const dose = make("input", { type: "number", step: "any", value: String(preset.dose ?? 2), "aria-label": "Dose" });
  const row = make("div", { class: "row" }, kind, latent, texts, background, site, make("label", {}, "dose ", dose));
  const entry = { row, read: () => {
    const [way, ...name] = kind.value.split(":");
    const lines = area => area.value.split("\n").map(line => line.trim()).filter(Boolean);
    if (way === "sae") return { dose: Number(dose.value), sae: name.join(":"), latent: Number(latent.value) };
    if (way === "name") return { dose: Number(dose.value), name: name.join(":") };
    return { dose: Number(dose.value), texts: lines(texts), background: lines(background), site: site.value };
  } };
  row.append(make("button", { type: "button", onclick: () => { session.directions = session.directions.filter(one => one !== entry); row.remove(); } }, "Remove"));
  const shown = () => { const way = kind.value.split(":")[0]; latent.hidden = way !== "sae"; for (const one of [texts, background, site]) one.hidden = way !== "texts"; };
  if (preset.sae) kind.value = `sae:${preset.sae}`;
  kind.addEventListener("change", shown);
  shown();
  session.directions.push(entry);
  $("directions").append(row);
}
$("add-direction").addEventListener("click", () => addDirection());

on("steer-form", async () => {
  const prompt = $("steer-prompt").value, columns = ["unsteered", "steered", "random"];
  for (const column of columns) { fill($(`out-${column}`), make("span", { class: "prompt" }, prompt)); $(`note-${column}`).textContent = ""; }
  $("receipt").textContent = "";
  const found = await run("steer", { prompt, directions: session.directions.map(one => one.read()), max_new_tokens: Number($("steer-n").value),
    temperature: Number($("steer-t").value), seed: Number($("steer-seed").value) },
    { what: "steering", onToken: ({ column, text }) => $(`out-${column}`).append(text) });
  if (found) drawSteered(prompt, found);
});

function drawSteered(prompt, found) {
  for (const column of ["unsteered", "steered", "random"]) {
    fill($(`out-${column}`), make("span", { class: "prompt" }, prompt), found.texts[column]);
    const ratio = found.perplexity[column] / found.perplexity.unsteered;
    $(`note-${column}`).textContent = `perplexity under the unsteered model ${fixed(found.perplexity[column], 1)}`
      + (column === "unsteered" ? "" : ` (× ${fixed(ratio, 2)})`) + (column === "random" ? `; seed ${found.seeds.join(", ")}` : "");
  }
  $("receipt").textContent = Object.entries(found.receipt).map(([site, one]) =>
    `${site}: changed in ${one.fired} passes, by ${fixed(100 * one.change, 1)} % of the norm on average`).join("; ");
}

on("dose-form", async () => {
  const list = text => text.split(",").map(one => one.trim()).filter(Boolean);
  const found = await run("dose", { prompt: $("steer-prompt").value, direction: session.directions[0]?.read() ?? { dose: 1 },
    doses: list($("dose-doses").value).map(Number), words: list($("dose-words").value) }, { what: "comparing doses" });
  if (found) drawDose(found);
});

function drawDose(found) {
  const named = ["steered", "random"], x = dose => 60 + 480 * (dose / Math.max(...found.steered.map(one => one.dose))), y = share => 190 - 160 * share;
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const draw = (tag, attributes, text = "") => { const one = document.createElementNS(svg.namespaceURI, tag);
    for (const [name, value] of Object.entries(attributes)) one.setAttribute(name, value);
    one.textContent = text; svg.append(one); };
  svg.setAttribute("viewBox", "0 0 640 230");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", "Share of continuations that name the concept, by dose; the table has the numbers");
  for (const share of [0, 0.5, 1]) { draw("line", { class: "grid", x1: 60, x2: 560, y1: y(share), y2: y(share) }); draw("text", { x: 18, y: y(share) + 4 }, `${100 * share} %`); }
  for (const name of named) {
    draw("path", { class: name, d: found[name].map((one, i) => `${i ? "L" : "M"}${x(one.dose)} ${y(one.naming[0])}`).join("") });
    for (const one of found[name]) { draw("circle", { class: name, cx: x(one.dose), cy: y(one.naming[0]), r: 4 });
      draw("line", { class: name, x1: x(one.dose), x2: x(one.dose), y1: y(one.naming[1]), y2: y(one.naming[2]) }); }
    draw("text", { x: 568, y: y(found[name].at(-1).naming[0]) + (name === "random" ? 14 : -4) }, name);
  }
  for (const one of found.steered) draw("text", { x: x(one.dose) - 6, y: 212 }, String(one.dose));
  const share = ([value, low, high]) => `${fixed(100 * value, 0)} % [${fixed(100 * low, 0)} to ${fixed(100 * high, 0)}]`;
  const rows = [["unsteered", "0", share(found.unsteered[0].naming), "1.00"], ...named.flatMap(name => found[name].map(one =>
    [name, String(one.dose), share(one.naming), fixed(one.perplexity_ratio, 2)]))];
  fill($("dose"), make("figure", {}, make("h2", {}, "Dose and effect"), svg, table(["", "dose", "names the concept", "perplexity ratio"], rows),
    make("figcaption", {}, `Of ${found.n} continuations a dose, with Wilson's interval. Control: random directions of equal norm at the same doses.`)));
}

// A file that an export made, and what is said of it.
async function take(kind, args, said) {
  try {
    const found = await run(kind, args, { what: "exporting" });
    if (!found) return;
    await download(`/files/${found.file}`, found.name);
    $(said).textContent = `${found.name}: ${found.said}`;
  } catch (error) { say(error.message, true); }
}
$("export-steering").addEventListener("click", () => session.directions.length
  ? take("export_steering", { direction: session.directions[0].read(), form: $("steer-form-of").value }, "steering-said") : say("Add a direction first.", true));

// ---- edit ------------------------------------------------------------------------------------------------------
on("edit-form", async () => {
  const args = { subject: $("edit-subject").value, prompt: $("edit-prompt").value, old: $("edit-old").value, new: $("edit-new").value, method: $("edit-method").value };
  const found = await run("edit", args, { what: "editing" });
  if (!found) return;
  fill($("preview"), make("figure", {}, make("h2", {}, `${found.name}: what ${found.method} would change most`),
    table(["after", "now", "then", "KL, nats", "random edit"], found.moved.map(one => [`…${one.text.slice(-60)}`, one.before, one.after, fixed(one.kl), fixed(one.control)])),
    ...against(found.conflicts),
    make("figcaption", {}, "The texts after which the next word changes most. Control: the same under a random edit of equal norm.")));
});
const against = conflicts => conflicts.map(one => make("p", { class: "against", role: "note" }, `Conflict: ${one}`));

function drawEdits() {
  const { edits, applied } = session.model;
  $("banner").hidden = applied.length === 0;
  $("banner").textContent = applied.length ? `The model is edited: ${applied.join(", ")}. All that is shown is of the edited model.` : "";
  fill($("edits"), ...(Object.keys(edits).length ? [table(["edit", "fact", ""], Object.entries(edits).map(([name, fact]) => [name, fact,
    make("div", { class: "row" },
      make("button", { type: "button", onclick: () => change(applied.includes(name) ? "undo" : "apply", name).catch(error => say(error.message, true)) }, applied.includes(name) ? "Undo" : "Apply"),
      make("button", { type: "button", onclick: () => take("export_edit", { name, form: "edit" }, "edit-said") }, "Download"),
      make("button", { type: "button", onclick: () => take("export_edit", { name, form: "lora" }, "edit-said") }, "As LoRA"))])),
    make("p", { class: "soft said", id: "edit-said" })] : []));
}

async function change(kind, name) {
  const found = await run(kind, { name }, { what: kind === "apply" ? "applying" : "undoing" });
  if (!found) return;
  fill($("preview"), make("figure", {}, ...(kind === "apply"
    ? [make("h2", {}, `${name} is in the model`), table(["prompt", "before", "with the edit"], found.prompts.map((prompt, i) => [prompt, found.before[i], found.after[i]])), ...against(found.conflicts)]
    : [make("h2", {}, `${name} is out of the model`), make("p", {}, found.identical ? "The weights are bit for bit those of before." : "Other edits are still in it.")])));
}

// ---- trace -----------------------------------------------------------------------------------------------------
on("trace-form", async () => {
  const value = name => $(`trace-${name}`).value;
  const found = await run("patch", Object.fromEntries(["clean", "corrupt", "right", "wrong", "site"].map(name => [name, value(name)])), { what: "tracing" });
  if (!found) return;
  const rows = found.effect.map((row, l) => [found.sites[l], row]).reverse();
  const colour = share => { const strength = Math.min(1, Math.abs(share)); return share >= 0 ? `rgba(47, 108, 143, ${0.75 * strength})` : `rgba(178, 58, 37, ${0.75 * strength})`; };
  fill($("heat"), make("figure", {}, make("h2", {}, "Share of the logit difference that each place brings back"),
    make("table", { class: "heat" }, make("thead", {}, make("tr", {}, make("th", {}, ""), ...found.tokens.map(token => make("th", { class: "slanted" }, token)))),
      make("tbody", {}, ...rows.map(([site, row]) => make("tr", {}, make("th", {}, site), ...row.map(share => {
        const cell = make("td", { title: `${site}: ${fixed(share)}` }, Math.abs(share) >= 0.1 ? fixed(share, 2) : "");
        cell.style.background = colour(share);
        return cell;
      }))))),
    make("figcaption", {}, `1 is the whole difference: ${fixed(found.unpatched, 2)} with nothing patched, ${fixed(found.patched, 2)} with everything. Tokens are those of the corrupt prompt; cells without a number are below 0.1.`)));
});

$("find-circuit").addEventListener("click", async () => {
  const value = name => $(`trace-${name}`).value;
  try {
    const found = await run("circuit", Object.fromEntries(["clean", "corrupt", "right", "wrong"].map(name => [name, value(name)])), { what: "finding the circuit" });
    if (!found) return;
    const [ours, random] = found.curves;
    fill($("circuit"), make("figure", {}, make("h2", {}, `The edges that matter most, of ${found.n_edges.toLocaleString()}, by ${found.how}`),
      table(["edge", "effect"], found.edges.map(([name, effect]) => [name, fixed(effect)])),
      make("p", {}, `Faithfulness of its circuits (CPR): ${fixed(ours.cpr)}; of random ones ${fixed(random.cpr)}.`),
      make("figcaption", {}, found.check)));
  } catch (error) { say(error.message, true); }
});

// ---- graph -----------------------------------------------------------------------------------------------------
const walk = { name: "", graph: null, nodes: [], pins: [], groups: [] };
on("graph-form", async () => {
  const target = $("graph-target").value;
  const found = await run("graph", { text: $("graph-text").value, transcoders: $("graph-by").value, targets: target ? [target] : [], max_features: Number($("graph-n").value) }, { what: "drawing the graph" });
  if (!found) return;
  Object.assign(walk, { name: found.name, nodes: found.graph.nodes, pins: [], groups: [] });
  const scores = Object.entries(found.scores).map(([name, [value, control]]) => [name.replace("_", " "), fixed(value, 2), fixed(control, 2)]);
  fill($("graph-scores"), make("figure", {}, make("h2", {}, `${found.name}: ${found.said.map(([word, p]) => `${JSON.stringify(word)} ${fixed(p, 2)}`).join("  ")}, by ${found.by}`),
    table(["score, of the whole graph", "here", "decoders shuffled"], scores), ...(found.warning ? [make("p", { class: "against", role: "note" }, `Read with care: ${found.warning}.`)] : [])));
  for (const part of ["graph-figure", "graph-panes"]) $(part).hidden = false;
  $("graph-about").textContent = found.graph.about;
  fill($("nodes-found"));
  walk.graph = drawGraph($("graph-drawing"), found.graph, { onNode: drawNode, onPins: drawPins });
  drawPins([]);
});

function drawNode(node) {
  const facts = [`${fixed(100 * node.influence, 1)} % of the influence`, ...(node.kind === "feature" ? [`activation ${fixed(node.a, 2)}`] : []),
    ...(node.bias === null ? [] : [`${fixed(node.bias, 3)} from biases`])];
  const ends = (title, list) => list.length ? [make("h3", {}, title), table(["", "share", "value"], list.map(one => [
    make("button", { type: "button", onclick: () => walk.graph.choose(one.number) }, `${one.node.name} ${one.node.label}`), one.share, one.value]))] : [];
  fill($("graph-node"), make("p", {}, make("b", {}, `${node.name} · ${node.label}`)), make("p", { class: "soft" }, facts.join(", ")),
    ...ends("Reads from", node.reads), ...ends("Is read by", node.readBy));
}

function drawPins(pins) {
  walk.pins = pins;
  $("graph-pins").textContent = pins.length ? pins.map(i => walk.nodes[i].name).join(", ") : "Nothing is pinned.";
  const rows = walk.groups.flatMap(T => walk.groups.filter(S => S !== T).map(S => [S.name, T.name, between(walk.nodes, walk.graph.into, T.members, S.members)]));
  fill($("groups"), ...walk.groups.map(group => make("div", { class: "row" }, make("b", {}, group.name), make("span", { class: "soft" }, group.members.map(i => walk.nodes[i].name).join(", ")),
    make("button", { type: "button", onclick: () => walk.graph.setPins(group.members) }, "Pin"),
    make("button", { type: "button", onclick: () => { walk.groups = walk.groups.filter(one => one !== group); drawPins(walk.pins); } }, "Remove"))),
    ...(rows.length ? [table(["from", "to", "share of what it reads"], rows)] : []));
}
$("group-pins").addEventListener("click", () => {
  if (!walk.pins.length) return;
  const members = walk.pins;
  walk.groups = walk.groups.map(one => ({ ...one, members: one.members.filter(i => !members.includes(i)) })).filter(one => one.members.length);
  walk.groups.push({ name: $("group-name").value.trim() || `supernode ${walk.groups.length + 1}`, members });
  $("group-name").value = "";
  walk.graph.setPins([]);
});
$("unpin").addEventListener("click", () => walk.graph?.setPins([]));
on("nodes-form", async () => {
  const nodes = walk.pins.map(i => walk.nodes[i]).filter(node => node.kind === "feature").map(node => node.name);
  if (!nodes.length) { say("Pin at least one feature (a circle) first.", true); return; }
  const found = await run("steer_nodes", { graph: walk.name, nodes, factor: Number($("nodes-factor").value) }, { what: "steering the nodes" });
  if (!found) return;
  fill($("nodes-found"), table(["next token", "predicted", "measured", "others, measured", "p before", "p after"], found.logits.map((one, i) => [JSON.stringify(one.token),
    fixed(one.predicted, 2), fixed(one.measured, 2), found.control ? fixed(found.control[i], 2) : "–", fixed(one.before, 3), fixed(one.after, 3)])),
    make("p", {}, `The model then says ${found.likeliest.map(([word, p]) => `${JSON.stringify(word)} ${fixed(p, 2)}`).join("  ")}.`),
    make("p", { class: "soft" }, `Changes of logits, less the mean's. Predicted in the local replacement model, measured in the model. Control: ${found.others.length} other features of this prompt, drawn at random and scaled alike.`));
});

// ---- features --------------------------------------------------------------------------------------------------
on("search-form", async () => {
  const sae = $("search-sae").value;
  const found = await run("search", { sae, words: $("search-words").value }, { what: "searching" });
  if (!found) return;
  fill($("found"), found.latents.length ? table(["latent", "label", "on at", "largest"], found.latents.map(one => [
    make("button", { type: "button", onclick: () => showLatent(sae, one.latent) }, String(one.latent)), one.label, `${fixed(100 * one.firing_rate, 2)} %`, fixed(one.largest, 2)]))
    : make("p", { class: "soft" }, "No latent's label or tokens hold these words."));
});

async function showLatent(sae, latent) {
  try {
    const found = await run("latent", { sae, latent }, { what: "opening" });
    if (!found) return;
    show("features-panel");
    const largest = found.largest || 1;
    const words = list => list?.slice(0, 8).map(([word]) => JSON.stringify(word)).join(" ") ?? "";
    fill($("latent"), make("figure", {}, make("h2", {}, `Latent ${latent}: ${found.label}`),
      make("div", { class: "row" }, make("button", { type: "button", onclick: () => { $("directions").replaceChildren(); session.directions = []; addDirection({ sae, latent, dose: 2 }); show("steer"); } }, "Steer with it")),
      make("p", { class: "soft" }, found.tokens ? `On at ${fixed(100 * found.firing_rate, 3)} % of ${found.tokens.toLocaleString()} tokens, at most ${fixed(found.largest, 2)}. Promotes ${words(found.promoted)}; suppresses ${words(found.suppressed)}.` : ""),
      make("ol", { class: "examples" }, ...found.examples.map(one => make("li", {}, ...one.tokens.map((token, i) => {
        const piece = make("span", { class: "mark", title: fixed(one.values[i], 2) }, token);
        if (one.values[i] > 0) piece.style.background = `rgba(192, 67, 46, ${0.65 * one.values[i] / largest})`;
        return piece;
      })))), make("figcaption", {}, "The texts on which it is highest, each token coloured by its activation.")));
    $("latent").scrollIntoView({ block: "start" });
  } catch (error) { say(error.message, true); }
}

// The map: a point per latent on one canvas, the nearest one is named; arrow keys walk from point to point.
const plane = { sae: "", points: [], at: null };
$("draw-map").addEventListener("click", async () => {
  const sae = $("search-sae").value;
  try {
    const found = await run("map", { sae }, { what: "drawing the map" });
    if (!found) return;
    const spans = [found.x, found.y].map(list => [Math.min(...list), Math.max(...list)]);
    const { width, height } = $("map"), scale = Math.min(...[width, height].map((side, i) => (side - 40) / Math.max(spans[i][1] - spans[i][0], 1e-9)));
    const place = (value, i, side) => side / 2 + (value - (spans[i][0] + spans[i][1]) / 2) * scale * (i ? -1 : 1);
    Object.assign(plane, { sae, at: null, points: found.latents.map((latent, i) => ({ latent, label: found.labels[i], x: place(found.x[i], 0, width), y: place(found.y[i], 1, height) })) });
    $("map-figure").hidden = false;
    $("map-about").textContent = `${found.about}. Near each other: decoder directions that point the same way. Distances between far apart points mean nothing.`;
    drawMap();
  } catch (error) { say(error.message, true); }
});
function drawMap() {
  const pen = $("map").getContext("2d"), style = getComputedStyle(document.documentElement);
  pen.clearRect(0, 0, $("map").width, $("map").height);
  pen.fillStyle = style.getPropertyValue("--before");
  for (const { x, y } of plane.points) { pen.beginPath(); pen.arc(x, y, 3.5, 0, 7); pen.fill(); }
  if (plane.at === null) return;
  const { x, y, latent, label } = plane.points[plane.at];
  pen.fillStyle = style.getPropertyValue("--concept");
  pen.beginPath(); pen.arc(x, y, 7, 0, 7); pen.fill();
  $("map-at").textContent = `Latent ${latent}: ${label}`;
}
function nearestPoint(event) {
  const box = $("map").getBoundingClientRect(), x = (event.clientX - box.left) * $("map").width / box.width, y = (event.clientY - box.top) * $("map").height / box.height;
  let best = null, least = 900;
  plane.points.forEach((one, i) => { const far = (one.x - x) ** 2 + (one.y - y) ** 2; if (far < least) { least = far; best = i; } });
  return best;
}
$("map").addEventListener("mousemove", event => { const i = nearestPoint(event); if (i !== null && i !== plane.at) { plane.at = i; drawMap(); } });
$("map").addEventListener("click", event => { const i = nearestPoint(event); if (i !== null) showLatent(plane.sae, plane.points[i].latent); });
$("map").addEventListener("keydown", event => {
  const way = WAYS[event.key];
  if (event.key === "Enter" && plane.at !== null) { showLatent(plane.sae, plane.points[plane.at].latent); return; }
  if (!way || !plane.points.length) return;
  event.preventDefault();
  plane.at = plane.at === null ? 0 : nextPoint(plane.points, plane.at, way);
  drawMap();
});

// ---- log -------------------------------------------------------------------------------------------------------
async function drawLog() {
  const { head, entries } = await (await ask("/session")).json();
  const copied = code => make("div", { class: "entry" }, make("pre", {}, code),
    make("button", { type: "button", onclick: () => navigator.clipboard?.writeText(code) }, "Copy"));
  fill($("entries"), copied(head), ...entries.map(entry => copied(entry.code)));
}
async function download(path, name) {
  const link = make("a", { href: URL.createObjectURL(await (await ask(path)).blob()), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
$("get-notebook").addEventListener("click", () => download("/session.ipynb", "session.ipynb").catch(error => say(error.message, true)));
$("get-session").addEventListener("click", () => download("/session.zip", "session.zip").catch(error => say(error.message, true)));
$("get-script").addEventListener("click", () => download("/session.py", "session.py").catch(error => say(error.message, true)));

// ---- panels, keys, start ---------------------------------------------------------------------------------------
function show(name) {
  for (const panel of Object.keys(PANELS)) {
    $(panel).hidden = panel !== name;
    const tab = $(`tab-${panel}`);
    tab.setAttribute("aria-selected", String(panel === name));
    tab.tabIndex = panel === name ? 0 : -1;
  }
  if (name === "log" && session.model) drawLog().catch(error => say(error.message, true));
}
fill($("tabs"), ...Object.entries(PANELS).map(([name, title]) => make("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": name,
  onclick: () => show(name) }, title)));
$("tabs").addEventListener("keydown", event => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const names = Object.keys(PANELS), next = (names.findIndex(name => !$(name).hidden) + step + names.length) % names.length;
  show(names[next]);
  $(`tab-${names[next]}`).focus();
});
let waiting = false;
document.addEventListener("keydown", event => {
  if (event.key === "Escape") { stop(); return; }
  if (event.target.matches?.("input, textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (waiting && KEYS[event.key]) { event.preventDefault(); show(KEYS[event.key]); $("main").focus(); waiting = false; return; }
  waiting = event.key === "g";
  if (event.key === "/") { event.preventDefault(); show("features-panel"); $("search-words").focus(); }
});
document.querySelectorAll(".stop").forEach(button => button.addEventListener("click", stop));

async function refresh() {
  session.model = await (await ask("/model")).json();
  drawEdits();
  if (!$("log").hidden) drawLog().catch(() => {});
}

async function start() {
  show("read");
  if (!session.token) { say("Open the address that the terminal shows: it holds a token.", true); return; }
  for (;;) {
    const model = await (await ask("/model")).json();
    if (model.state === "ready") { session.model = model; break; }
    if (model.what.startsWith("failed")) { say(model.what, true); return; }
    $("model").textContent = "the model is being loaded …";
    await new Promise(done => setTimeout(done, 200));
  }
  const { name, n_layers, d_model, holds, refused, saes, indexes } = session.model;
  $("model").textContent = `${name}: ${n_layers} layers, width ${d_model}; ${holds ? "every site's law holds" : `${refused} sites refused`}`;
  for (const [select, names] of [["read-sae", Object.keys(saes)], ["search-sae", indexes], ["graph-by", session.model.transcoders]]) fill($(select), ...names.map(one => make("option", {}, one)));
  if (name !== "landmark") { // these facts and pairs are the bundled model's: elsewhere they are examples to read
    for (const field of document.querySelectorAll("#edit-form input, #trace-form input")) {
      field.placeholder = field.value;
      field.value = "";
    }
  }
  $("graph-none").hidden = session.model.transcoders.length > 0;
  $("graph-form").hidden = session.model.transcoders.length === 0;
  addDirection();
  drawEdits();
  document.body.dataset.ready = "yes";
  const kept = JSON.parse(sessionStorage.getItem("job") ?? "null"); // a reload in the middle of a job takes it up again
  if (kept?.kind === "steer") {
    show("steer");
    const texts = { unsteered: "", steered: "", random: "" };
    session.job = kept.id;
    const found = await follow(events(kept.id), ({ column, text }) => { texts[column] += text; fill($(`out-${column}`), make("span", { class: "prompt" }, kept.args.prompt), texts[column]); }, "steering")
      .catch(error => { say(error.message, true); return null; });
    session.job = null;
    sessionStorage.removeItem("job");
    if (found) drawSteered(kept.args.prompt, found);
  }
}
start().catch(error => say(error.message, true));
