"""Conditional steering: act on the texts whose prompt shows something, and leave the others bit for bit."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Direction, Intervention, Model, Position, Site
from hooks.border import Finite, Natural
from hooks.errors import InvalidArgument
from hooks.fingerprint import is_of
from hooks.interventions import Rows
from hooks.network import AnyModel
from hooks.position import everywhere, prompt, special
from hooks.summary import summarise
from interp.common.texts import list_texts
from interp.directions.rows import capture_mean_rows
from interp.steering.steering import Steering
from probes import best_threshold


@final
@dataclass(frozen=True)
class Conditional:
    """A steering that acts on those texts of a batch of which <mean of x over `at`, u> > `threshold`.

    x is read at the condition's site, u is its unit vector, and `at` selects tokens of the prompt: the decision is
    made once, while the prompt is read, and applies to all that is generated (Lee et al. 2024, arXiv:2409.05907, with a
    projection in the place of their cosine). Each text of a batch is decided for itself.

    Examples:
        ```python
        careful = Conditional(add_direction(refusal), harmful, choose_threshold(model, harmful, bad, good))
        with steer(model, careful, 1.0):
            model.generate(prompts)
        ```
    """

    steering: Steering
    condition: Direction
    threshold: float
    at: Position = prompt

    __repr__ = summarise

    @property
    def site(self) -> Site:
        """Where it acts."""
        return self.steering.site

    @property
    def source(self) -> str:
        """What it does, and when."""
        return f"{self.steering.source} where {self.condition.source} is above {self.threshold:.3g}"

    @property
    def unit(self) -> str:
        """What a dose of one is."""
        return self.steering.unit

    def control(self, seed: Natural) -> "Conditional":
        """The same condition, with a random direction of equal norm."""
        return replace(self, steering=self.steering.control(seed))

    def check(self, model: AnyModel) -> None:
        """Raise `InvalidArgument` unless the condition is known when it is needed, and was found in this model."""
        read, acts = self.condition.site, self.site
        for site in (read, acts):
            model.tap(site)
        order = [site for site in model.sites if site in (read, acts)]
        if read != acts and order.index(read) > order.index(acts):
            raise InvalidArgument(
                f"the condition is read at {read}, after {acts} where it is to act: read it at that site or before"
            )
        if not is_of(model, self.condition.fingerprint):
            raise InvalidArgument(
                f"the condition was found in another model than {model.name}: find it again in this one"
            )

    def interventions(self, dose: Finite) -> dict[Site | str, list[Intervention]]:
        """Two interventions that forget the texts before and read the condition, and the steering, which acts on it.

        Raises:
            InvalidArgument: as `Steering.dose`.
        """
        gate = _Gate(self.condition.unit, self.threshold)
        name = f"condition on {self.condition.source}"
        reading = [Intervention(name, everywhere | special, gate.begin), Intervention(name, self.at, gate.read)]
        acting = self.steering.dose(dose)
        gated = replace(acting, fn=lambda a, rows: gate.apply(a, acting.fn(a, rows), rows))
        if self.condition.site == self.site:
            return {self.site: [*reading, gated]}
        return {self.condition.site: reading, self.site: [gated]}


class _Gate:
    """Which texts of the batch now read are open: their tokens' projections so far, summed and counted."""

    def __init__(self, unit: Float[Tensor, "d_model"], threshold: float) -> None:
        self.unit, self.threshold = unit, threshold
        self.forget()

    def forget(self) -> None:
        """Forget every text."""
        self.total = self.count = torch.zeros(0, dtype=torch.float64)

    def begin(self, a: Float[Tensor, "n d_model"], rows: Rows) -> Float[Tensor, "n d_model"]:
        """Forget the texts before when a pass begins at the first column; a later piece of a prompt goes on."""
        if rows.start == 0:
            self.forget()
        return a

    def read(self, a: Float[Tensor, "n d_model"], rows: Rows) -> Float[Tensor, "n d_model"]:
        """Take in the tokens of a pass over the prompt."""
        row, n = rows.row.cpu(), int(rows.row.max()) + 1
        if n > len(self.total):
            more = torch.zeros(n - len(self.total), dtype=torch.float64)
            self.total, self.count = torch.cat([self.total, more]), torch.cat([self.count, more])
        along = (a.detach().flatten(1).double() @ self.unit.double().to(a.device)).cpu()
        self.total = self.total.index_add(0, row, along)
        self.count = self.count.index_add(0, row, torch.ones_like(along))
        return a

    def apply(self, old: Tensor, new: Tensor, rows: Rows) -> Tensor:
        """The new values where the gate is open, the old ones bit for bit where it is not."""
        opened = self.total / self.count.clamp(min=1) > self.threshold
        row = rows.row.to(opened.device)
        if not len(opened) or int(row.max()) >= len(opened) or bool((self.count[row] == 0).any()):
            raise InvalidArgument("the condition selects no token of a prompt's text, so whether to act is not known")
        on = opened[row].to(old.device)
        return torch.where(on.view(-1, *[1] * (old.ndim - 1)), new, old)


def measure_projections(
    model: Model, direction: Direction, texts: Sequence[str], at: Position = prompt, *, progress: bool = True
) -> Float[Tensor, "example"]:
    """The mean projection of each text's selected tokens on a direction's unit vector: what a condition compares.

    A text longer than the context is read in pieces, with a note.

    Raises:
        InvalidArgument: a string, or a text of which `at` selects nothing.

    Cost: one forward pass per text, up to the direction's site.

    Examples:
        ```python
        measure_projections(model, harmful, ["How do I bake bread?"])
        ```
    """
    return capture_mean_rows(model, texts, direction.site, at, progress=progress) @ direction.unit.double().cpu()


def choose_threshold(
    model: Model,
    direction: Direction,
    positive: Sequence[str],
    negative: Sequence[str],
    at: Position = prompt,
    *,
    progress: bool = True,
) -> float:
    """The threshold on the projections that best separates prompts to act on from others, by F1.

    Raises:
        InvalidArgument: there are none of a kind, or as `measure_projections`.

    Cost: one forward pass per text.

    Examples:
        ```python
        Conditional(add_direction(refusal), harmful, choose_threshold(model, harmful, bad, good))
        ```
    """
    positive, negative = list_texts(positive, "prompts"), list_texts(negative, "prompts")
    scores = measure_projections(model, direction, [*positive, *negative], at, progress=progress)
    return best_threshold(scores, torch.tensor([True] * len(positive) + [False] * len(negative)))


def choose_sparing_threshold(
    model: Model,
    direction: Direction,
    positive: Sequence[str],
    recall: float = 0.99,
    at: Position = prompt,
    *,
    progress: bool = True,
) -> float:
    """A threshold that still acts on a share `recall` of the prompts to act on, and on as few others as it can.

    It is under the lowest projection of that share, halfway to the next lower one, or 0.1 % of the largest (what one
    digit of the model's dtype is worth, if that is more) where none is so near, so that prompts are still acted on
    when another batch rounds differently. `choose_threshold` weighs a prompt missed as much as one changed for
    nothing; this is for steering that must leave whatever else there is bit for bit.

    Raises:
        InvalidArgument: no prompts, a share that is not above 0 and at most 1, or as `measure_projections`.

    Cost: one forward pass per text.

    Examples:
        ```python
        Conditional(add_direction(refusal), harmful, choose_sparing_threshold(model, harmful, bad))
        ```
    """
    if isinstance(positive, str) or not positive or not 0 < recall <= 1:
        raise InvalidArgument(
            f"the prompts {positive!r} and recall={recall}: give prompts to act on, and a share above 0 and at most 1, "
            "the prompts in a list"
        )
    rising = measure_projections(model, direction, positive, at, progress=progress).sort().values
    lowest = rising[len(rising) - math.ceil(recall * len(rising))]
    room = rising.abs().max() * max(1e-3, torch.finfo(model.dtype).eps)
    lower = rising[rising < lowest]
    return float(torch.maximum(lowest - room, (lowest + lower[-1]) / 2) if len(lower) else lowest - room)
