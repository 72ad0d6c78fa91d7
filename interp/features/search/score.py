"""The score of one detector on the half it was not chosen on, with its bootstrap interval."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hooks import Direction
from hooks.border import Natural
from hooks.errors import InvalidArgument
from interp.common.at_once import estimates_at_once
from interp.common.statistics import Estimate, draw_groups, mean_share, percentile_ends
from interp.features.search.concept import Concept
from interp.features.search.ranking import Ranking
from interp.features.search.rows import Rows, draw_exchanges
from probes import Detection, detection

RESAMPLES = 1000


@final
@dataclass(frozen=True)
class Score:
    """How well one detector finds the concept on the half it was not chosen on.

    `held_out` has its threshold (chosen on the searched half), precision, recall, F1 and AUROC; `interval` is the
    95 % bootstrap interval of that F1 over groups, widened by Wilson's where precision or recall is all or none, which
    no draw of the groups changes; `recall_by_form` the share found of each form of mention.
    `latent` is None for a probe, `direction` None for a latent whose autoencoder does not know its maximum and for a
    group whose latents write to different layers. `by_group` counts, for each group of texts of that half, the rows
    found rightly, found, and positive: detectors are compared on the same groups.
    """

    name: str
    latent: int | None
    direction: Direction | None
    searched_f1: float
    held_out: Detection
    interval: tuple[float, float]
    recall_by_form: dict[str, float]
    by_group: Float[Tensor, "_ 3"] = field(default_factory=lambda: torch.zeros(0, 3), repr=False, compare=False)

    def as_row(self) -> dict[str, str | float]:
        """Its figures by name."""
        d, (low, high) = self.held_out, self.interval
        forms = {f"recall, {form}": recall for form, recall in self.recall_by_form.items()}
        return {
            "detector": self.name,
            "searched F1": self.searched_f1,
            "F1": d.f1,
            "F1, low": low,
            "F1, high": high,
            "precision": d.precision,
            "recall": d.recall,
            "AUROC": d.auroc,
        } | forms

    def __str__(self) -> str:
        d, (low, high) = self.held_out, self.interval
        forms = "".join(f", {form} {recall:.2f}" for form, recall in self.recall_by_form.items())
        return (
            f"{self.name:<20} F1 {d.f1:.3f} [{low:.3f}, {high:.3f}] (searched half {self.searched_f1:.3f}), "
            f"precision {d.precision:.3f}, recall {d.recall:.3f}{forms}, AUROC {d.auroc:.3f}"
        )


@dataclass(frozen=True)
class Evaluation:
    """The labelled rows of a concept; `half` is True on those to search and False on those to report on."""

    concept: Concept
    rows: Rows
    half: Bool[Tensor, "n"]
    seed: int

    @property
    def searched(self) -> Bool[Tensor, "n"]:
        """The rows on which latents are ranked and thresholds chosen."""
        return self.half & ~self.rows.apart

    @property
    def reported(self) -> Bool[Tensor, "n"]:
        """The rows on which what was chosen is measured."""
        return ~self.half & ~self.rows.apart

    def counts(self, kept: Bool[Tensor, "n"]) -> tuple[int, int]:
        """How many rows are kept, and how many of them are positive."""
        return int(kept.sum()), int(self.rows.y[kept].sum())

    def score(
        self, name: str, scores: Float[Tensor, "n"], threshold: float, latent: int | None, direction: Direction | None
    ) -> Score:
        """Measure a detector that has one score per row and a threshold chosen on the searched half."""
        y, searched, reported, other_half = self.rows.y, self.searched, self.reported, ~self.half
        found = scores > threshold
        by_group = self._count(found)
        return Score(
            name=name,
            latent=latent,
            direction=direction,
            searched_f1=detection(scores[searched], y[searched], threshold).f1,
            held_out=detection(scores[reported], y[reported], threshold),
            interval=self._interval(by_group),
            recall_by_form={
                form: float(found[at][other_half[at]].double().mean())
                for form, at in self.rows.forms.items()
                if bool(other_half[at].any())
            },
            by_group=by_group,
        )

    def null(self, ranking: Ranking, permutations: int) -> Float[Tensor, "n"]:
        """The highest F1 of any latent on the searched half, for labels exchanged at random again and again."""
        generator = torch.Generator().manual_seed(self.seed)
        searched = self.searched
        drawn = draw_exchanges(self.rows, self.half, permutations, generator)
        return torch.tensor([ranking.highest(y, int(y[searched].sum())) for y in drawn])

    def _count(self, found: Bool[Tensor, "n"]) -> Float[Tensor, "_ 3"]:
        """Of each group of the reported half, the rows found rightly, found, and positive."""
        names = {group: i for i, group in enumerate(dict.fromkeys(self.concept.groups))}
        of_text = torch.tensor([names[group] for group in self.concept.groups])
        kept = self.reported
        groups, group = of_text[self.rows.text[kept]].unique(return_inverse=True)
        y, found = self.rows.y[kept], found[kept]
        counts = torch.stack([y & found, found, y], 1).double()  # F1 = 2 TP / (detected + positive)
        return counts.new_zeros(len(groups), 3).index_add_(0, group, counts)

    def _interval(self, totals: Float[Tensor, "_ 3"]) -> tuple[float, float]:
        """Middle 95 % of F1 when the groups of the reported half are drawn again, with replacement."""
        low, high = percentile_ends(_f1_of(draw_groups(len(totals), RESAMPLES, self.seed) @ totals))
        precision, recall = (_of_groups(totals[:, 0], totals[:, column]) for column in (1, 2))
        least, most = (_f1(*(ends[i] for ends in (precision, recall))) for i in (0, 1))
        return min(float(low), least), max(float(high), most)


def compare_scores(one: Score, other: Score, *, seed: Natural = 0) -> Estimate:
    """F1 of one detector less that of another of the same search, with its 95 % bootstrap interval over groups.

    Both are measured on the same groups drawn again: what is hard for both is no difference between them, which
    intervals of each alone do not know. Of several comparisons some interval misses more often than one in twenty:
    take `compare_all_scores`.

    Raises:
        InvalidArgument: scores of other rows, or without the counts of their groups.

    Examples:
        ```python
        compare_scores(found.baselines[1], found.best)  # the logistic probe less the best latent
        ```
    """
    return compare_all_scores([one], other, seed=seed)[0]


def compare_all_scores(several: Sequence[Score], other: Score, *, seed: Natural = 0) -> tuple[Estimate, ...]:
    """As `compare_scores` of each with the other, in intervals that with 95 % hold all the differences at once.

    A statement about the one that does best holds, too: the intervals are `value ± c se` with c the 95 % quantile of
    the largest deviation of any, in its standard errors (sup-t: Montiel Olea and Plagborg-Møller 2019).

    Raises:
        InvalidArgument: as `compare_scores`; none to compare.

    Examples:
        ```python
        compare_all_scores(found.baselines, found.best)  # every baseline less the best latent
        ```
    """
    counts = [one.by_group for one in (*several, other)]
    if not several:
        raise InvalidArgument("no scores were given to compare: give at least one")
    for one in several:
        if not _is_alike(one.by_group, other.by_group):
            raise InvalidArgument(
                f"{one.name} and {other.name} were not scored on the same texts: take two of one search"
            )
    times = draw_groups(len(counts[-1]), RESAMPLES, seed)
    drawn = torch.stack([_f1_of(times @ of) for of in counts], 1)
    value = torch.stack([_f1_of(of.sum(0)) for of in counts])
    return estimates_at_once(value[:-1] - value[-1], drawn[:, :-1] - drawn[:, -1:], len(counts[-1]))


def _is_alike(one: Float[Tensor, "_ 3"], other: Float[Tensor, "_ 3"]) -> bool:
    """Whether two have counts of the same groups."""
    return len(one) > 0 and one.shape == other.shape and bool((one[:, 2] == other[:, 2]).all())


def _f1_of(counts: Float[Tensor, "... 3"]) -> Float[Tensor, "..."]:
    """2 TP / (detected + positive) of counts of the three."""
    hits, detected, positive = counts.unbind(-1)
    return 2 * hits / (detected + positive).clamp(min=1)


def _of_groups(hits: Float[Tensor, "n"], of: Float[Tensor, "n"]) -> tuple[float, float]:
    """The share of hits, twice; where it is all or none, with the far end of Wilson's interval over the groups."""
    among = of > 0
    if not bool(among.any()):
        return 0.0, 1.0
    share = float(hits.sum() / of.sum())
    if 0 < share < 1:
        return share, share
    ends = mean_share(hits[among] / of[among])
    return ends.low, ends.high


def _f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
