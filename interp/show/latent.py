"""What an index knows of one latent, as a piece of a page, with the evidence for a concept where one was searched."""

from collections.abc import Collection, Sequence
from itertools import groupby

from markupsafe import Markup

from interp.features import Example, Record, Score
from interp.show.html import Html, part, render, table, tokens, visible

SHOWN = 10  # examples of each kind


def record_html(record: Record, label: str, score: Score | None = None) -> Html:
    """One latent, as a page of folds shows it, for a notebook; `score` is what a search found of it.

    Examples:
        ```python
        record_html(found.record(17), describe(found.record(17)))
        ```
    """
    return Html(record_body(record, score, label=label))


def record_body(record: Record, score: Score | None = None, here: Collection[int] = (), *, label: str = "") -> Markup:
    """The HTML of one latent; those it fires with are links where the page has them `here`."""
    e = record.evidence
    words = zip(e.promoted, e.suppressed, strict=True)
    logits = [[_code(a), f"{x:+.2f}", _code(b), f"{y:+.2f}"] for (a, x), (b, y) in words]
    firing = [[_code(word), f"{share:.1%}"] for word, share in record.tokens[:SHOWN]]
    bars = e.counts.tolist()
    return render(
        "latent.html",
        record=record,
        label=label,
        score=score,
        here=here,
        shown=SHOWN,
        highest=_lines(e.examples, e.largest),
        sampled=_lines(record.sampled, e.largest),
        bars=bars,
        most=max(bars),
        edges=e.edges.tolist(),
        firing=table(["token", "share"], firing),
        logits=table(["promoted", "logit", "suppressed", "logit"], logits) if logits else "",
    )


def _code(word: str) -> Markup:
    return part("code", visible(word))


def _lines(examples: Sequence[Example], largest: float) -> list[tuple[float, Markup]]:
    return [(example.activation, _stretch(example, largest)) for example in examples[:SHOWN]]


def _stretch(example: Example, largest: float) -> Markup:
    """One example, its silent stretches in one piece each: most tokens are silent, and a page holds many."""
    pieces: list[str] = []
    values: list[float] = []
    for on, run in groupby(zip(example.tokens, example.activations, strict=True), key=lambda pair: pair[1] > 0):
        texts, activations = zip(*run, strict=True)
        pieces += texts if on else ["".join(texts)]
        values += activations if on else [0.0]
    return tokens(pieces, values, largest)
