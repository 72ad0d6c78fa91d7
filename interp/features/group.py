"""A few latents that cover a concept together, where one alone does not."""

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


def covering(sae: SAE, bench: Bench, entries: Entries, first: int, threshold: float, most: int) -> Group | None:
    """Greedily add to the best latent the one that best finds what is still missed, up to `most`; None if none helps.

    All choices are made on the searched half: a latent is added by its F1 on the positives still missed against all
    negatives, the group is scored by the logistic weights of its latents, score = sum_i w_i f_i, and a latent stays if
    it raises that F1 by at least 0.01. The report is on the other half.

    Example:
        ```python
        covering(sae, bench, entries, first=17, threshold=0.4, most=3)
        ```
    """
    y, searched, n = bench.rows.y, bench.searched, len(bench.rows.y)
    members = [Member(first, entries.column(first, n), threshold)]
    best = detection(members[0].column[searched], y[searched], threshold).f1
    weights, cut = torch.ones(1), threshold
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
