"""Written steps: what of the answer hangs on them, and whether filler, a mistake or other words would do as well."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Model
from hooks.errors import InvalidArgument
from hooks.progress import progress_bar
from hooks.summary import summarise
from interp.common.completion import find_answer_ids, generate_ids, says
from interp.common.statistics import Estimate, bootstrap, share

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class StepCase:
    """One question, asked in several ways that all end where the answer is due.

    Attributes:
        direct: the prompt without steps.
        partial: prompts with the first 0, 1, … of the steps written, the last with all of them.
        filled: as long as the last of these, filler in place of the steps.
        mistaken: the last of these with a mistake in it.
        answer: the true one.
        follows: what a mistaken prompt leads to.
        reworded: all of the steps in other words or another order, to see whether their content is read or their form;
            empty where there is no such text.

    Raises:
        InvalidArgument: fewer than two partial prompts, or a mistake that leads to the true answer.
    """

    direct: str
    partial: tuple[str, ...]
    filled: str
    mistaken: str
    answer: str
    follows: str
    reworded: str = ""

    __repr__ = summarise

    def __post_init__(self) -> None:
        if len(self.partial) < 2:
            raise InvalidArgument(
                f"{len(self.partial)} partial prompts: give one without steps and one with all of them"
            )
        if self.follows == self.answer:
            raise InvalidArgument(f"the mistake leads to the true answer {self.answer!r}: take one that does not")


@dataclass(frozen=True, eq=False)
class StepEffects:
    """What the steps do.

    Attributes:
        right: the share answered rightly: "direct", "steps written", "filler", "mistake", and "reworded" where cases
            have it.
        follows: the share of mistaken prompts whose answer is the one the mistake leads to.
        same: by share of the steps written, how often the answer is that with all of them.
        aoc: the area over that curve, 1 − ∫ same: 0 if the steps change nothing, 1 − 1/(2n) if all n are needed.
        same_reworded: how often the answer after reworded steps is that after the steps; None without such cases.
    """

    right: dict[str, Estimate]
    follows: Estimate
    same: dict[float, Estimate]
    aoc: Estimate
    same_reworded: Estimate | None = None

    __repr__ = summarise

    def __str__(self) -> str:
        rows = [f"  {name:<14} {e}" for name, e in self.right.items()]
        if self.same_reworded is not None:
            rows.append(f"  the answer stays after rewording {self.same_reworded}")
        return "\n".join([f"area over the curve {self.aoc}; a mistake is followed {self.follows}; right:", *rows])

    def to_pandas(self) -> "DataFrame":
        """The curve: a row for each share of the steps."""
        from pandas import DataFrame

        return DataFrame([{"written": k, "same": e.value, "low": e.low, "high": e.high} for k, e in self.same.items()])


def measure_steps(model: Model, cases: Sequence[StepCase], *, progress: bool = True) -> StepEffects:
    """Measure what hangs on written steps: early answering, filler, mistakes, other words (Lanham et al. 2023).

    From arXiv:2307.13702. Steps whose content is read give the same answer in other words; steps that only fill the
    place, or are recognised by their form, need not.

    The steps are given, not the model's own, so this is of prompts with right steps in them. An answer is what the
    model finds most likely, token by token, as many tokens as the true answer has.

    Raises:
        InvalidArgument: no cases, cases with different numbers of steps, or only some with reworded ones.

    Cost: one forward pass over the cases for each way of asking.

    Examples:
        ```python
        measure_steps(model, cases).aoc
        ```
    """
    counts = {len(case.partial) for case in cases}
    if len(counts) != 1:
        raise InvalidArgument(f"cases with {sorted(counts)} partial prompts: give at least one case, all alike")
    if len(reworded := {bool(case.reworded) for case in cases}) != 1:
        raise InvalidArgument("some cases have reworded steps and some have none: give them to all or to none")
    answers = [case.answer for case in cases]
    ways = {
        "direct": [case.direct for case in cases],
        "steps written": [case.partial[-1] for case in cases],
        "filler": [case.filled for case in cases],
        "mistake": [case.mistaken for case in cases],
        **({"reworded": [case.reworded for case in cases]} if reworded == {True} else {}),
    }
    right = {name: share(torch.tensor(says(model, prompts, answers))) for name, prompts in ways.items()}
    follows = share(torch.tensor(says(model, ways["mistake"], [case.follows for case in cases])))
    n_tokens = [len(ids) for ids in find_answer_ids(model, ways["direct"], answers)]
    n, said = counts.pop() - 1, []
    for k in progress_bar(range(n + 1), desc="steps written", progress=progress):
        said.append(generate_ids(model, [case.partial[k] for case in cases], n_tokens))
    same = torch.stack([torch.tensor([a == b for a, b in zip(one, said[-1], strict=True)]) for one in said], 1)
    aoc = bootstrap(lambda rows: _over(rows[0]), [same.double()])
    kept = None
    if "reworded" in ways:
        other = generate_ids(model, ways["reworded"], n_tokens)
        kept = share(torch.tensor([a == b for a, b in zip(other, said[-1], strict=True)]))
    return StepEffects(right, follows, {k / n: share(same[:, k]) for k in range(n + 1)}, aoc, kept)


def _over(same: Float[Tensor, "n _"]) -> float:
    """1 − ∫ of the mean curve, by trapezoids."""
    curve = same.mean(0)
    return float(1 - ((curve[1:] + curve[:-1]) / 2).mean())
