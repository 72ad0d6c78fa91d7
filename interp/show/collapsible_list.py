"""Many latents or memories on one page, each a fold whose body is made when it is opened, with search and keys."""

import json
from collections.abc import Iterable
from pathlib import Path

from interp.features import Record, Score
from interp.show.html import escape
from interp.show.latent import record_body

SCRIPT = (Path(__file__).parent / "folds.js").read_text(encoding="utf-8")
COLOURED = '<span class="t"'  # as html.tokens writes it
VALUES = ", <kbd>v</kbd> writes the values under the tokens; point at a token for its own"
Fold = tuple[Record, str, Score | None]  # a latent, its label, and what a search found of it


def folded(latents: Iterable[Fold]) -> str:
    """The folds of some latents with their search box and script: one such list to a page."""
    listed, found = list(latents), []
    here = {record.latent for record, _, _ in listed}
    for record, label, score in listed:
        figure = f"F1 {score.held_out.f1:.2f}" if score else f"{record.evidence.firing_rate:.2%} of tokens"
        head = f"<b>{record.latent}</b><span>{escape(label)}</span><small>{figure}</small>"
        found.append((f"latent-{record.latent}", head, record_body(record, score, here)))
    return fold_list(found, "latents")


def fold_list(folds: Iterable[tuple[str, str, str]], kind: str) -> str:
    """A list of folds, each an id, a head and a body that are already HTML, of which there are so many of a kind.

    Hundreds load at once, for a closed fold is one line; a search looks into the closed ones too. One alone is open.
    """
    heads, bodies = [], []
    for name, head, body in folds:
        heads.append(f'<details id="{name}" data-fold><summary>{head}</summary><div></div></details>')
        bodies.append(body)
    packed = json.dumps(bodies, ensure_ascii=False).replace("<", "\\u003c")
    values = VALUES if any(COLOURED in body for body in bodies) else ""
    many = "" if len(bodies) > 1 else " hidden"
    return (
        f'<div class="find"{many}><label for="search">Search labels and texts</label>'
        '<input id="search" type="search" autocomplete="off"><output id="count" for="search"></output></div>'
        f'<p class="keys"{many}><kbd>/</kbd> search, <kbd>j</kbd> <kbd>k</kbd> next and previous, '
        f"<kbd>Enter</kbd> opens{values}.</p>"
        f'<div class="folds" data-kind="{kind}">{"".join(heads)}</div>'
        f'<script type="application/json" id="bodies">{packed}</script><script>{SCRIPT}</script>'
    )
