"""A few latents that cover a concept together, where one alone does not."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.directions import latent_group
from interp.features.ranking import Entries, Ranking
from interp.features.score import Bench, Score
from interp.sae import SAE
from probes import Logistic, best_threshold, detection

GAIN = 0.01  # of F1 on the searched half, or a further latent is not worth its place
ALIKE = 0.1  # cosine of decoder rows from which two latents write nearly the same
OWN = 0.05  # of the positives, or what a latent finds by itself is noise


@final
@dataclass(frozen=True)
class Group:
    """Latents with their weights, scored as one detector, and what `note` says of how they share the concept."""

    latents: tuple[int, ...]
    weights: tuple[float, ...]
    score: Score
    note: str

    def __str__(self) -> str:
        return f"{self.score}" + (f"\n{self.note}" if self.note else "")


@dataclass(frozen=True)
class Member:
    """One of the latents of a group: its activation on every row, and the threshold above which it counts as on."""

    latent: int
    column: Float[Tensor, "n"]
    threshold: float

    @property
    def on(self) -> Bool[Tensor, "n"]:
        """The rows on which it is on."""
        return self.column > self.threshold


def covering(sae: SAE, bench: Bench, entries: Entries, starts: Sequence[Score], most: int) -> Group | None:
    """The best group that grows from any of some latents, best first; None if none beats the best latent alone.

    A latent that fires on nearly everything can be the best alone, and is no start of a group: so several are tried.

    Example:
        ```python
        covering(sae, bench, entries, found.latents[:5], most=3)
        ```
    """
    grown = [_grown(sae, bench, entries, start, most) for start in starts if start.latent is not None]
    groups = [group for group in grown if group is not None]
    best = max(groups, key=lambda group: group.score.searched_f1, default=None)
    return best if best is not None and best.score.searched_f1 >= starts[0].searched_f1 + GAIN else None


def _grown(sae: SAE, bench: Bench, entries: Entries, start: Score, most: int) -> Group | None:
    """Greedily add to a latent the one that best finds what is still missed, up to `most`; None if none helps.

    All choices are made on the searched half: a latent is added by its F1 on the positives still missed against all
    negatives, the group is scored by the logistic weights of its latents, score = sum_i w_i f_i, and a latent stays if
    it raises that F1 by at least 0.01. The report is on the other half.
    """
    y, searched, n = bench.rows.y, bench.searched, len(bench.rows.y)
    assert start.latent is not None  # only probes have none
    members = [Member(start.latent, entries.column(start.latent, n), start.held_out.threshold)]
    best, weights, cut = start.searched_f1, torch.ones(1), start.held_out.threshold
    while len(members) < most:
        missed = searched & ~(y & torch.stack([m.on for m in members]).any(0))
        if not bool(y[missed].any()):
            break
        f1, thresholds = Ranking(entries.at(missed), sae.d_sae).best(y, int(y[missed].sum()))
        f1[[m.latent for m in members]] = -1.0
        new = int(f1.argmax())
        grown = [*members, Member(new, entries.column(new, n), float(thresholds[new]))]
        if float(f1[new]) <= 0:
            break
        w, threshold = _weighted(grown, y, searched)
        together = detection(_scores(grown, w)[searched], y[searched], threshold).f1
        if together < best + GAIN:
            break
        members, best, weights, cut = grown, together, w, threshold
    if len(members) == 1:
        return None
    latents = tuple(m.latent for m in members)
    name = "latents " + " + ".join(map(str, latents))
    alive = all(float(sae.max_activation[i]) > 0 for i in latents) and bool((weights > 0).all())
    direction = latent_group(sae, latents, weights.tolist()) if alive else None
    score = bench.score(name, _scores(members, weights), cut, None, direction)
    return Group(latents, tuple(weights.tolist()), score, note(sae, members, y & searched))


def note(sae: SAE, members: list[Member], positive: Bool[Tensor, "n"]) -> str:
    """Say whether the concept is split among latents, or one latent's firings are absorbed by another.

    Both show as latents that are on for different positives. Where the smaller one finds less than a third of what the
    larger does, and writes nearly the same (cosine of their decoder rows at least 0.1), it has probably absorbed the
    larger one's firings on a special case (Chanin et al. 2024, arXiv:2409.14507); otherwise the concept is split.

    Example:
        ```python
        note(sae, members, y)
        ```
    """
    sentences = []
    main, rows = members[0], sae.W_dec.detach().flatten(1)
    found = main.on & positive
    for other in members[1:]:
        theirs = other.on & positive
        alone = float((theirs & ~found).sum() / positive.sum())
        if alone < OWN:
            continue
        cosine = float(torch.cosine_similarity(rows[main.latent], rows[other.latent], dim=0))
        both = f"latent {other.latent} finds {alone:.0%} of the positives that latent {main.latent} misses"
        if int(theirs.sum()) * 3 < int(found.sum()) and cosine >= ALIKE:
            sentences.append(f"absorption: {both}, and writes nearly the same (cosine {cosine:.2f})")
        else:
            sentences.append(f"splitting: {both} (cosine {cosine:.2f})")
    return "; ".join(sentences)


def _scores(members: list[Member], weights: Float[Tensor, "..."]) -> Float[Tensor, "n"]:
    return torch.stack([m.column for m in members], 1) @ weights.to(members[0].column)


def _weighted(members: list[Member], y: Tensor, searched: Tensor) -> tuple[Tensor, float]:
    """Logistic weights of the members, the largest being 1, and the best threshold of their sum."""
    columns = torch.stack([m.column for m in members], 1)
    size = columns[searched].amax(0).clamp(min=1e-12)
    fitted = Logistic(C=10.0).fit(columns[searched] / size, y[searched])
    weights = fitted.coef_.float() / size
    weights = weights / weights.abs().max()
    return weights, best_threshold(_scores(members, weights)[searched], y[searched])
