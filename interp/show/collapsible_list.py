"""Many latents or memories on one page, each a fold whose body is made when it is opened, with search and keys."""

import json
from collections.abc import Iterable
from typing import TypeAlias

from markupsafe import Markup

from interp.features import Record, Score
from interp.show.html import read_source, render
from interp.show.latent import record_body

COLOURED = 'class="t"'  # as the tokens of parts.html are marked
Fold: TypeAlias = tuple[Record, str, Score | None]
"""A latent, its label, and what a search found of it."""


def latent_list(latents: Iterable[Fold]) -> Markup:
    """The folds of some latents with their search box and script: one such list to a page."""
    listed, folds = list(latents), []
    here = {record.latent for record, _, _ in listed}
    for record, label, score in listed:
        figure = f"F1 {score.held_out.f1:.2f}" if score else f"{record.evidence.firing_rate:.2%} of tokens"
        head = render("head.html", number=record.latent, mark="", text=label, figure=figure)
        folds.append((f"latent-{record.latent}", head, record_body(record, score, here)))
    return collapsible_list(folds, "latents")


def collapsible_list(folds: Iterable[tuple[str, Markup, Markup]], kind: str) -> Markup:
    """A list of folds, each an id, a head and a body, of which there are so many of a kind.

    Hundreds load at once, for a closed fold is one line; a search looks into the closed ones too. One alone is open.
    """
    listed = [*folds]
    bodies = [body for _, _, body in listed]
    packed = json.dumps(bodies, ensure_ascii=False).replace("<", "\\u003c")
    return render(
        "collapsible_list.html",
        heads=[(name, head) for name, head, _ in listed],
        kind=kind,
        coloured=any(COLOURED in body for body in bodies),
        bodies=Markup(packed),
        script=read_source("collapsible_list.js"),
    )
