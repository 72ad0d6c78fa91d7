"""A few latents that cover a concept together, where one alone does not."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hooks.errors import InvalidArgument
from interp.directions import latent_group
from interp.features.search.ranking import Entries, Ranking
from interp.features.search.score import Evaluation, Score
from interp.sae import SAE, decoder_rows
from probes import Logistic, best_threshold, detection

LIKELY = 20  # of the latents that are best alone, which a group may take in
STARTS = 5  # of them, from which such a group may grow
GAIN = 0.01  # of F1 on the searched half, or a further latent is not worth its place
ALIKE = 0.1  # cosine of decoder rows from which two latents write nearly the same
OWN = 0.05  # of the positives, or what a latent finds by itself is noise


Best = tuple[Float[Tensor, "latent"], Float[Tensor, "latent"]]
"""Each latent's highest F1 on the searched half, and the threshold that reaches it."""


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


def find_group(sae: SAE, bench: Evaluation, entries: Entries, best: Best, most: int) -> Group | None:
    """The best group that grows from any of the best latents; None if none beats the best latent alone.

    A latent that fires on nearly everything can be the best alone, and is no start of a group: so several are tried.

    Examples:
        ```python
        find_group(sae, bench, entries, ranking.best(y, positive), most=3)
        ```
    """
    f1, pool = best[0], _first(entries, best, LIKELY, len(bench.rows.y))
    grown = [_grown(sae, bench, entries, pool, start, f1, most) for start in [*pool.values()][:STARTS]]
    groups = [group for group in grown if group is not None]
    found = max(groups, key=lambda group: group.score.searched_f1, default=None)
    return found if found is not None and found.score.searched_f1 >= float(f1.max()) + GAIN else None


def _grown(
    sae: SAE, bench: Evaluation, entries: Entries, pool: Mapping[int, Member], start: Member, alone: Tensor, most: int
) -> Group | None:
    """Greedily add to a latent the one that does most for their F1 together, up to `most`; None if none helps.

    All choices are made on the searched half. Tried are the latents that are best alone, which separate the concept
    from what is like it, and those that best find the positives still missed. They are scored by their logistic
    weights,
    score = sum_i w_i f_i with all w_i > 0, and a latent stays if it raises that F1 by at least 0.01. The report is on
    the other half, the latent that is best alone named first.
    """
    y, searched = bench.rows.y, bench.searched
    members, reached, weights, cut = [start], float(alone[start.latent]), torch.ones(1), start.threshold
    while len(members) < most:
        others = {**pool, **_find_missed(sae, bench, entries, members)}
        larger = [[*members, other] for i, other in others.items() if all(i != m.latent for m in members)]
        tried = [(together, _fit_weights(together, y, searched)) for together in larger]
        positive = [(together, found) for together, found in tried if bool((found[0] > 0).all())]
        together, weighted = max(positive, key=lambda one: one[1][2], default=(members, (weights, cut, reached)))
        if weighted[2] < reached + GAIN:
            break
        members, (weights, cut, reached) = together, weighted
    if len(members) == 1:
        return None
    members.sort(key=lambda m: float(alone[m.latent]), reverse=True)
    weights, cut, _ = _fit_weights(members, y, searched)
    latents = tuple(m.latent for m in members)
    alive = all(float(sae.max_activation[i]) > 0 for i in latents)
    together = alive and len({sae.direction(i).site for i in latents}) == 1
    direction = latent_group(sae, latents, weights.tolist()) if together else None
    name = "latents " + " + ".join(map(str, latents))
    score = bench.score(name, _scores(members, weights), cut, None, direction)
    return Group(latents, tuple(weights.tolist()), score, describe_sharing(sae, members, y & searched))


def _find_missed(sae: SAE, bench: Evaluation, entries: Entries, members: list[Member]) -> dict[int, Member]:
    """The latents that best separate the positives which no member finds from all negatives."""
    y = bench.rows.y
    left = bench.searched & ~(y & torch.stack([m.on for m in members]).any(0))
    if not bool(y[left].any()):
        return {}
    return _first(entries, Ranking(entries.at(left), sae.d_sae).best(y, int(y[left].sum())), STARTS, len(y))


def _first(entries: Entries, best: Best, most: int, n: int) -> dict[int, Member]:
    """The latents of the highest F1 above 0 in falling order, `most` of them, with their activations on all n rows."""
    f1, thresholds = best
    falling = f1.argsort(descending=True, stable=True)[:most].tolist()
    return {i: Member(i, entries.column(i, n), float(thresholds[i])) for i in falling if float(f1[i]) > 0}


def describe_sharing(sae: SAE, members: list[Member], positive: Bool[Tensor, "n"]) -> str:
    """Say whether the concept is split among latents, or one latent's firings are absorbed by another.

    Both show as latents that are on for different positives. Where the smaller one finds less than a third of what the
    larger does, and writes nearly the same (cosine of their decoder rows at least 0.1), it has probably absorbed the
    larger one's firings on a special case (Chanin et al. 2024, arXiv:2409.14507); otherwise the concept is split.

    Examples:
        ```python
        describe_sharing(sae, members, y)
        ```
    """
    sentences = []
    main, rows = members[0], decoder_rows(sae, [m.latent for m in members]).flatten(1)
    found = main.on & positive
    for number, other in enumerate(members[1:], 1):
        theirs = other.on & positive
        alone = float((theirs & ~found).sum() / positive.sum())
        if alone < OWN:
            continue
        cosine = float(torch.cosine_similarity(rows[0], rows[number], dim=0))
        both = f"latent {other.latent} finds {alone:.0%} of the positives that latent {main.latent} misses"
        if int(theirs.sum()) * 3 < int(found.sum()) and cosine >= ALIKE:
            sentences.append(f"absorption: {both}, and writes nearly the same (cosine {cosine:.2f})")
        else:
            sentences.append(f"splitting: {both} (cosine {cosine:.2f})")
    return "; ".join(sentences)


def _scores(members: list[Member], weights: Float[Tensor, "..."]) -> Float[Tensor, "n"]:
    return torch.stack([m.column for m in members], 1) @ weights.to(members[0].column)


def _fit_weights(members: list[Member], y: Tensor, searched: Tensor) -> tuple[Tensor, float, float]:
    """Logistic weights of the members, the largest being 1, the best threshold of their sum, and its F1."""
    columns = torch.stack([m.column for m in members], 1)
    size = columns[searched].amax(0).clamp(min=1e-12)
    try:
        fitted = Logistic(C=10.0).fit(columns[searched] / size, y[searched])
    except InvalidArgument:  # they are as high on texts without the concept as on texts with it
        return torch.zeros(len(members)), 0.0, 0.0
    weights = torch.as_tensor(fitted.coef_).float() / size
    weights = weights / weights.abs().max()
    scores = _scores(members, weights)[searched]
    threshold = best_threshold(scores, y[searched])
    return weights, threshold, detection(scores, y[searched], threshold).f1
