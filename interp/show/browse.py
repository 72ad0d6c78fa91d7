"""A page to browse the latents of an index: one fold per latent, with a search box, and nothing to fetch."""

from collections.abc import Callable, Iterable
from pathlib import Path

from interp.features import Example, FeatureIndex, Record
from interp.show.html import Html, escape, table, tokens

CSS = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
input { font: inherit; width: 100%; padding: .5rem; box-sizing: border-box; }
details { border-bottom: 1px solid #8884; padding: .3rem 0; content-visibility: auto;
          contain-intrinsic-size: auto 2rem; }
summary { cursor: pointer; } summary b { display: inline-block; min-width: 5rem; }
summary small, figcaption { opacity: .75; }
ul { list-style: none; padding: 0; } li { white-space: pre-wrap; overflow-wrap: anywhere; margin: .2rem 0; }
li b { display: inline-block; min-width: 4rem; font-variant-numeric: tabular-nums; }
.t { border-radius: 2px; } table { border-collapse: collapse; } td, th { text-align: left; padding: 0 1rem 0 0; }
svg { display: block; width: 100%; max-width: 30rem; height: 5rem; fill: currentColor; }
[hidden] { display: none; }
"""
SCRIPT = """
const box = document.getElementById("search"), all = [...document.querySelectorAll("details")];
const words = all.map(d => d.textContent.toLowerCase()), count = document.getElementById("count");
const look = () => { const q = box.value.trim().toLowerCase(); let n = 0;
  all.forEach((d, i) => { d.hidden = !words[i].includes(q); n += !d.hidden; });
  count.textContent = n + " of " + all.length; };
box.addEventListener("input", look);
document.addEventListener("keydown", e => { if (e.key === "/" && document.activeElement !== box)
  { e.preventDefault(); box.focus(); } });
const go = () => { const d = location.hash && document.getElementById(location.hash.slice(1));
  if (d) { d.hidden = false; d.open = true; d.scrollIntoView(); } };
addEventListener("hashchange", go);
look(); go();
"""


def browse(
    path: str | Path,
    found: FeatureIndex,
    latents: Iterable[int],
    describe: Callable[[Record], str],
    title: str = "Latents",
) -> Path:
    """Write a self-contained page of some latents of an index and return where it is.

    Press / to search labels and texts; folds open by mouse or keyboard, and an address ending in #latent-17 opens one.
    All strings of the index are shown as they are.

    Errors: `ValueError` for no latents or a name that does not end in `.html`; `IndexError` for a latent that does
    not exist.

    ```python
    browse("latents.html", FeatureIndex.open("index"), range(500), Describer(found))
    ```
    """
    path, listed = Path(path), list(latents)
    if path.suffix != ".html" or not listed:
        raise ValueError(f"{len(listed)} latents and the path {str(path)!r} were given: give some, and a path in .html")
    folds = "".join(_fold(record, describe(record)) for record in map(found.record, listed))
    about = (
        f"{found.about['model']} at {found.about['site']}; {found.about['tokens']:,} tokens of "
        f"{found.about['texts']:,} texts read. Top examples flatter any latent: look at the sampled ones as well."
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<style>{CSS}</style></head><body><main><h1>{escape(title)}</h1><p>{escape(about)}</p>"
        f'<label>Search labels and texts (press /) <input id="search" type="search"></label><p id="count" '
        f'aria-live="polite"></p>{folds}</main><script>{SCRIPT}</script></body></html>\n',
        encoding="utf-8",
    )
    return path


def record_html(record: Record, label: str) -> Html:
    """One latent, as the page shows it, for a notebook.

    ```python
    record_html(found.record(17), describe(found.record(17)))
    ```
    """
    return Html(_body(record, label))


def _fold(record: Record, label: str) -> str:
    head = f"<b>{record.latent}</b>{escape(label)} <small>{record.evidence.firing_rate:.3%}</small>"
    return f'<details id="latent-{record.latent}"><summary>{head}</summary>{_body(record, label)}</details>'


def _body(record: Record, label: str) -> str:
    e = record.evidence
    if not e.examples:
        return f"<p>Latent {record.latent} never fires on these texts.</p>"
    facts = (
        f"{label}. On at {e.firing_rate:.3%} of {e.tokens:,} tokens, mean {e.mean:.2f}, largest {e.largest:.2f}; "
        f"root mean square where on {record.second_moment**0.5:.2f}."
    )
    words = zip(e.promoted, e.suppressed, strict=True)
    logits = [[escape(repr(a)), f"{x:+.2f}", escape(repr(b)), f"{y:+.2f}"] for (a, x), (b, y) in words]
    firing = [[escape(repr(word)), f"{share:.1%}"] for word, share in record.tokens[:10]]
    others = ", ".join(f'<a href="#latent-{i}">{i}</a> ({j:.2f})' for i, j in record.partners[:10])
    return (
        f"<p>{escape(facts)}</p><h4>Highest texts</h4>{_examples(e.examples, e.largest)}"
        f"<h4>Texts drawn at random from those it fires on</h4>{_examples(record.sampled, e.largest)}"
        f"<h4>How strongly</h4>{_bars(e.counts.tolist(), e.edges.tolist())}"
        f"<h4>Tokens, by share of its activation</h4>{table(['token', 'share'], firing)}"
        + (f"<h4>Next tokens</h4>{table(['promoted', 'logit', 'suppressed', 'logit'], logits)}" if logits else "")
        + (f"<p>Fires with latents {others} (Jaccard index)</p>" if others else "")
    )


def _examples(examples: tuple[Example, ...], largest: float) -> str:
    lines = (f"<li><b>{e.activation:.2f}</b>{tokens(e.tokens, e.activations, largest)}</li>" for e in examples[:10])
    return f"<ul>{''.join(lines)}</ul>"


def _bars(counts: list[int], edges: list[float]) -> str:
    most, n = max(counts), len(counts)
    bars = "".join(
        f'<rect x="{i}" y="{40 * (1 - c / most):.2f}" width="0.9" height="{40 * c / most:.2f}">'
        f"<title>{edges[i]:.3g} to {edges[i + 1]:.3g}: {c:,}</title></rect>"
        for i, c in enumerate(counts)
        if c
    )
    return (
        f'<svg viewBox="0 0 {n} 40" preserveAspectRatio="none" role="img" aria-label="histogram of activations from 0 '
        f'to {edges[-1]:.3g}">{bars}</svg>'
    )
