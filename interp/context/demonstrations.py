"""What of the demonstrations matters: labels, inputs, format or order, each changed alone, in the same prompts."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool
from torch import Tensor

from hooks import Model
from hooks.border import Count, Natural
from hooks.errors import InvalidArgument
from hooks.progress import progress_bar
from hooks.summary import summarise
from interp.common.completion import says, score
from interp.common.statistics import Estimate, mean_over_groups, share_over_groups
from interp.context.task import CHANGES, Change, PairTask, deal_pairs, demonstrate

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class DemonstrationEffects:
    """How often the true label is said after demonstrations of which one thing is changed.

    Attributes:
        task: its name.
        shots: demonstrations in a prompt.
        accuracy: by change, the share of prompts whose whole label is said.
        cost: by change, how much lower that is than with nothing changed, prompt by prompt.
        log_p: by change, the mean log-probability of the true label, nats per token.
        followed: by change, the share that says the answer the demonstrations lead to, where it is not the true one.

    Intervals are over the pairs asked about: prompts of one pair are one case.
    """

    task: str
    shots: int
    accuracy: dict[Change, Estimate]
    cost: dict[Change, Estimate]
    log_p: dict[Change, Estimate]
    followed: dict[Change, Estimate]

    __repr__ = summarise

    def __str__(self) -> str:
        lines = [f"{self.task}, {self.shots} demonstrations: says the label, costs, follows"]
        for change, said in self.accuracy.items():
            follows = f"  follows {self.followed[change].value:.2f}" if change in self.followed else ""
            cost = self.cost[change]
            lines.append(f"  {change:<22} {said.value:.2f}  {cost:+.2f}{follows}")
        return "\n".join(lines)

    def to_pandas(self) -> "DataFrame":
        """A row for each change."""
        from pandas import DataFrame

        rows = [
            {"change": change, "accuracy": said.value, "low": said.low, "high": said.high,
             "cost": self.cost[change].value, "cost_low": self.cost[change].low, "cost_high": self.cost[change].high,
             "log_p": self.log_p[change].value}
            for change, said in self.accuracy.items()
        ]  # fmt: skip
        return DataFrame(rows)


def measure_demonstrations(
    model: Model,
    task: PairTask,
    *,
    shots: Count = 8,
    n: Count = 100,
    words: Sequence[str] = (),
    changes: Sequence[Change] = (),
    seed: Natural = 0,
    progress: bool = True,
) -> DemonstrationEffects:
    """Measure what each change of the demonstrations costs, in prompts that are the same otherwise.

    After Min et al. 2022, arXiv:2202.12837, with labels of which none is right next to labels drawn at random, of which
    one of each prompt is right on average. The whole label counts, not its first token.

    Args:
        model: a causal language model.
        task: its pairs are asked about and shown; no prompt shows the pair that it asks about.
        shots: demonstrations in a prompt.
        n: prompts; no pair is asked about again before all were.
        words: put in for labels and inputs where other words are; without them these changes are left out.
        changes: which; all by default.
        seed: of the draw.
        progress: show a bar.

    Raises:
        InvalidArgument: as many demonstrations as pairs, or more.

    Cost: two forward passes over n prompts for each change.

    Examples:
        ```python
        measure_demonstrations(load_world("lists"), task, words=["tea", "sand"])
        ```
    """
    if shots >= len(task.pairs):
        raise InvalidArgument(f"{shots} demonstrations were asked for and the task has {len(task.pairs)} pairs: fewer")
    wanted: list[Change] = [c for c in (changes or CHANGES) if words or not c.startswith("other words")]
    said: dict[Change, Bool[Tensor, n]] = {}
    log_p: dict[Change, Estimate] = {}
    followed: dict[Change, Estimate] = {}
    every: tuple[Change, ...] = ("none", *wanted)
    group = torch.tensor(deal_pairs(task, n, seed))
    asked = [task.pairs[i] for i in group.tolist()]
    for change in progress_bar(dict.fromkeys(every), desc="changes", progress=progress):
        made = [
            demonstrate(task, pair, shots, change, Random(f"{seed} {i} shown"), words) for i, pair in enumerate(asked)
        ]
        prompts, labels = [prompt for prompt, _ in made], [y for _, y in asked]
        said[change] = torch.tensor(says(model, prompts, labels))
        log_p[change] = mean_over_groups(score(model, prompts, labels).double().cpu(), group)
        if any(led != y for (_, led), y in zip(made, labels, strict=True)):
            follows = torch.tensor(says(model, prompts, [led for _, led in made]))
            followed[change] = share_over_groups(follows, group)
    cost: dict[Change, Estimate] = {
        c: mean_over_groups(said["none"].double() - of.double(), group) for c, of in said.items()
    }
    accuracy: dict[Change, Estimate] = {c: share_over_groups(of, group) for c, of in said.items()}
    return DemonstrationEffects(task.name, shots, accuracy, cost, log_p, followed)
