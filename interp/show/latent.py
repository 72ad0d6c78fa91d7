"""What an index knows of one latent, as a piece of a page, with the evidence for a concept where one was searched."""

from collections.abc import Collection
from itertools import groupby

from interp.features import Example, Record, Score
from interp.show.html import Html, escape, table, tokens

SHOWN = 10  # examples of each kind


def record_html(record: Record, label: str, score: Score | None = None) -> Html:
    """One latent, as a page of folds shows it, for a notebook; `score` is what a search found of it.

    ```python
    record_html(found.record(17), describe(found.record(17)))
    ```
    """
    return Html(f"<h3>Latent {record.latent}: {escape(label)}</h3>{record_body(record, score)}")


def record_body(record: Record, score: Score | None = None, here: Collection[int] = ()) -> str:
    """The HTML of one latent, without its label; those it fires with are links where the page has them `here`."""
    e = record.evidence
    if not e.examples:
        return f"<p>Latent {record.latent} never fires on these texts.</p>"
    facts = (
        f"On at {e.firing_rate:.3%} of {e.tokens:,} tokens, mean {e.mean:.2f}, largest {e.largest:.2f}; "
        f"root mean square where on {record.second_moment**0.5:.2f}."
    )
    words = zip(e.promoted, e.suppressed, strict=True)
    logits = [[_code(a), f"{x:+.2f}", _code(b), f"{y:+.2f}"] for (a, x), (b, y) in words]
    firing = [[_code(word), f"{share:.1%}"] for word, share in record.tokens[:SHOWN]]
    tables = f"<div><h4>Tokens, by share of its activation</h4>{table(['token', 'share'], firing)}</div>" + (
        f"<div class='words'><h4>Next tokens, read straight off its direction</h4>"
        f"{table(['promoted', 'logit', 'suppressed', 'logit'], logits)}</div>"
        if logits
        else ""
    )
    return (
        (_against(score) if score else "")
        + f"<p>{escape(facts)}</p>"
        + f"<h4>Texts where it is highest</h4>{_examples(e.examples, e.largest)}"
        + f"<h4>Texts drawn at random from all it fires on</h4>{_examples(record.sampled, e.largest)}"
        + f"<div class='beside'><div><h4>How strongly it fires</h4>{_bars(e.counts.tolist(), e.edges.tolist())}"
        + f"{_partners(record, here)}</div>{tables}</div>"
    )


def _against(score: Score) -> str:
    """How well the latent finds the searched concept, on the half it was not chosen on."""
    kept, (low, high) = score.held_out, score.interval
    forms = "".join(f", of {escape(form)} {recall:.2f}" for form, recall in score.recall_by_form.items())
    return (
        f"<p><strong>For the concept:</strong> F1 {kept.f1:.3f} ({low:.2f} to {high:.2f}) above {kept.threshold:.2f}: "
        f"precision {kept.precision:.2f}, recall {kept.recall:.2f}{forms}; AUROC {kept.auroc:.3f}.</p>"
    )


def _partners(record: Record, here: Collection[int]) -> str:
    if not record.partners:
        return "<p>No other latent fires with it.</p>"
    others = ", ".join(
        (f'<a href="#latent-{i}">{i}</a>' if i in here else str(i)) + f" ({j:.2f})" for i, j in record.partners[:SHOWN]
    )
    return f"<p>Fires with latents {others}: the Jaccard index of their firings.</p>"


def _code(word: str) -> str:
    return f"<code>{escape(word.replace(chr(10), '↵').replace(' ', '·'))}</code>"


def _examples(examples: tuple[Example, ...], largest: float) -> str:
    lines = (f"<li><b>{e.activation:.2f}</b><div>{_stretch(e, largest)}</div></li>" for e in examples[:SHOWN])
    return f'<ul class="examples">{"".join(lines)}</ul>'


def _stretch(example: Example, largest: float) -> str:
    """One example, its silent stretches in one piece each: most tokens are silent, and a page holds many."""
    pieces: list[str] = []
    for on, run in groupby(zip(example.tokens, example.activations, strict=True), key=lambda pair: pair[1] > 0):
        texts, values = zip(*run, strict=True)
        pieces.append(tokens(texts, values, largest) if on else tokens(["".join(texts)], [0.0], largest))
    return "".join(pieces)


def _bars(counts: list[int], edges: list[float]) -> str:
    most, n = max(counts), len(counts)
    bars = "".join(
        f'<rect x="{i}" y="{40 * (1 - c / most):.2f}" width="0.9" height="{40 * c / most:.2f}">'
        f"<title>{edges[i]:.3g} to {edges[i + 1]:.3g}: {c:,} tokens</title></rect>"
        for i, c in enumerate(counts)
        if c
    )
    return (
        f'<svg class="bars" viewBox="0 0 {n} 40" preserveAspectRatio="none" role="img" '
        f'aria-label="histogram of activations from 0 to {edges[-1]:.3g}">{bars}</svg>'
        f'<div class="ends"><span>0</span><span>{edges[-1]:.3g}</span></div>'
    )
