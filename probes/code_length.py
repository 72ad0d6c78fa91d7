"""Online code length: how few bits a probe needs to send the labels, which counts effort as well as accuracy."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from math import log
from typing import Any, final

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn.functional import softplus

from hooks.border import Natural, Share
from hooks.errors import InvalidArgument, InvalidType
from hooks.summary import summarise
from probes.arrays import Array, Table, floats
from probes.checks import check_rows
from probes.folds import exchange_labels, number_groups
from probes.labels import convert_truth
from probes.linear import Linear
from probes.log_odds import LogOdds
from probes.probe import Probe

PORTIONS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)


@final
@dataclass(frozen=True)
class CodeLength:
    """The bits that send the labels, and those that send labels shuffled over the same rows.

    `uniform` is one bit per label. `compression` is uniform / bits: 1 when nothing was learnt. Of the portions, `ends`
    are the rows known after each, and `bits_per_portion` what each cost.
    """

    bits: float
    shuffled_bits: float
    uniform: float
    ends: tuple[int, ...]
    bits_per_portion: tuple[float, ...]

    __repr__ = summarise

    @property
    def compression(self) -> float:
        """How many times shorter than one bit per label."""
        return self.uniform / self.bits

    def __str__(self) -> str:
        return (
            f"{self.bits:.1f} bits for {self.uniform:.0f} labels, compression {self.compression:.2f} "
            f"(shuffled labels: {self.shuffled_bits:.1f} bits, {self.uniform / self.shuffled_bits:.2f})"
        )


def online_code(
    probe: Probe,
    x: Float[Array, "n d_model"] | Table,
    y: Shaped[Array, "n"] | Table,
    portions: Sequence[Share] = PORTIONS,
    seed: Natural = 0,
    groups: Sequence[object] | Any | None = None,
) -> CodeLength:
    """L = t_1 - sum_i sum over rows t_i to t_{i+1} of log2 p_i(y), p_i fitted to the first t_i (Voita and Titov 2020).

    Rows are taken in a seeded random order. Rows of one group, such as tokens of one sentence, come together and are
    sent in one portion, so that no label is learnt from a row that shares it; a portion ends with its last group, and
    labels are shuffled as the groups allow. Each row is its own group by default.

    A probe's score is read as log-odds, so it must be one, and be learnable from few rows: `Logistic`, `MLP`. Portions
    until both classes have been seen cost one bit per label.

    Cost:
        Two fits per portion. The probe given stays as it was.

    Raises:
        InvalidArgument: NaN or infinity, lengths that differ, labels all alike, portions that do not rise to 1, or a
            missing group.
        InvalidType: a linear probe whose scores are no log-odds.

    Examples:
        ```python
        print(online_code(Logistic(C=0.1), x, y, groups=sentence_of_each_token))
        ```
    """
    rows, labels = floats(x), convert_truth(y)
    check_rows(rows, labels)
    if isinstance(probe, Linear) and not isinstance(probe, LogOdds):
        raise InvalidType(
            f"the scores of a {probe.name} are no log-odds, so they say nothing in bits: take Logistic(), or another "
            "probe with predict_proba"
        )
    if not portions or list(portions) != sorted(set(portions)) or portions[0] <= 0 or portions[-1] != 1:
        raise InvalidArgument(f"portions are {tuple(portions)}; they must rise from above 0 to 1, as in PORTIONS")
    group = number_groups(groups, len(labels))
    g = torch.Generator().manual_seed(seed)
    place = torch.randperm(int(group.max()) + 1, generator=g).argsort()[group]
    order = place.argsort(stable=True)
    last = place[order].bincount().cumsum(0)  # the rows known after each group
    known = torch.tensor([max(1, round(p * len(labels))) for p in portions])
    ends = last[torch.searchsorted(last, known)].unique().tolist()
    shuffled = labels[order]
    if groups is None:
        shuffled = shuffled[torch.randperm(len(labels), generator=g)]
    else:
        shuffled = exchange_labels(shuffled, group[order], seed)
    rows, labels = rows[order], labels[order]
    bits, without = (_bits(probe, rows, y, ends) for y in (labels, shuffled))
    return CodeLength(sum(bits), sum(without), float(len(labels)), tuple(ends), tuple(bits))


def _bits(probe: Probe, x: Tensor, y: Tensor, ends: Sequence[int]) -> list[float]:
    """What each portion costs, given all before it."""
    spent = [float(ends[0])]
    for known, end in zip(ends[:-1], ends[1:], strict=True):
        seen = y[:known]
        if bool(seen.all()) or not bool(seen.any()):
            spent.append(float(end - known))
            continue
        fitted = deepcopy(probe).fit(x[:known], seen)
        score = fitted.decision_function(x[known:end]).double()
        spent.append(float(softplus(torch.where(y[known:end], -score, score)).sum()) / log(2))
    return spent
