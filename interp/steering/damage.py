"""How far steered states leave what the model usually holds, and what that does to its predictions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Direction, Model, stream
from hooks.border import Finite, Share
from hooks.capture import read_rows
from hooks.errors import InvalidArgument
from hooks.position import everywhere
from hooks.progress import progress_bar
from interp.common.statistics import Estimate, mean_share, mean_with_interval
from interp.common.texts import list_texts, unique_texts
from interp.steering.conditional import Conditional
from interp.steering.steer import steer
from interp.steering.steering import Steering, add_direction

USUAL = 0.99


@final
@dataclass(frozen=True)
class Damage:
    """What a dose does on texts it is not meant for.

    `kl`: mean KL(p || p_steered) per token, in nats. `loss`: the rise of the mean next-token loss, in nats. `correct`:
    the change of the share of next tokens that are the model's first guess. `beyond`: the share of steered states
    whose distance from the mean exceeds what 99 % of the unsteered ones keep, which have `beyond_before`. Distance is
    Mahalanobis's, in the directions that hold 99 % of the variance. Intervals over texts.
    """

    dose: float
    kl: Estimate
    loss: Estimate
    correct: Estimate
    beyond: Estimate
    beyond_before: float

    def __str__(self) -> str:
        return (
            f"dose {self.dose:g}: KL {self.kl.value:.3f} nats, loss {self.loss.value:+.3f}, first guesses "
            f"{self.correct.value:+.1%}, beyond the usual {self.beyond.value:.1%} (unsteered {self.beyond_before:.1%})"
        )


@torch.no_grad()
def measure_damage(
    model: Model,
    what: Direction | Steering | Conditional,
    dose: Finite,
    texts: Sequence[str],
    *,
    progress: bool = True,
) -> Damage:
    """Measure predictions and states on texts, with a dose and without.

    The usual states are those of every second text, and are compared with those of the others. A text that is given
    twice counts once.

    Raises:
        InvalidArgument: fewer than four different texts, or a string.

    Cost: four forward passes per text.

    Examples:
        ```python
        print(measure_damage(model, direction, 4.0, held_out_texts))
        ```
    """
    texts = unique_texts(list_texts(texts))
    if len(texts) < 4:
        raise InvalidArgument(
            f"{len(texts)} different texts were given: give at least four, two of which say what is usual"
        )
    way = add_direction(what) if isinstance(what, Direction) else what
    before = [_predict(model, text) for text in progress_bar(texts, desc="unsteered", progress=progress)]
    usual = _Usual(_states(model, texts[::2], way))
    rest = list(texts[1::2])
    plain = [usual.outside(_states(model, [text], way)) for text in rest]
    with steer(model, way, dose):
        after = [_predict(model, text) for text in progress_bar(texts, desc="steered", progress=progress)]
        moved = [usual.outside(_states(model, [text], way)) for text in rest]
    rows = torch.tensor([_change(a, b, t) for a, b, t in zip(before, after, _targets(model, texts), strict=True)])
    kl, loss, correct = map(mean_with_interval, rows.T)
    return Damage(dose, kl, loss, correct, mean_share(_shares(moved)), float(_shares(plain).double().mean()))


def measure_normal_range(
    model: Model, direction: Direction, texts: Sequence[str], share: Share = USUAL, *, progress: bool = True
) -> tuple[float, float]:
    """The middle `share` of the projections that the tokens of some texts have on a direction's unit vector.

    Raises:
        InvalidArgument: a string or no texts, or a share that is not between 0 and 1.

    Cost: one forward pass per text.

    Examples:
        ```python
        cap_projection(direction, *measure_normal_range(model, direction, texts))
        ```
    """
    if not 0 < share < 1:
        raise InvalidArgument(f"the share is {share}: give a number between 0 and 1")
    read = stream(model, list_texts(texts), [direction.site], progress=progress)
    x = torch.cat([acts.flat(direction.site).flatten(1) for acts in read])
    along = (x @ direction.unit.to(x)).double().cpu()
    low, high = along.quantile(torch.tensor([(1 - share) / 2, (1 + share) / 2], dtype=torch.float64)).tolist()
    return low, high


class _Usual:
    """Mean, axes and the distance that 99 % of states keep."""

    def __init__(self, x: Float[Tensor, "n d_model"]) -> None:
        self.mean = x.mean(0)
        _, S, V = torch.linalg.svd(x - self.mean, full_matrices=False)
        kept = int((S.pow(2).cumsum(0) / S.pow(2).sum() < USUAL).sum()) + 1
        self.axes = V[:kept] * (len(x) - 1) ** 0.5 / S[:kept, None]
        self.most = float(self.distance(x).quantile(USUAL))

    def distance(self, x: Float[Tensor, "n d_model"]) -> Float[Tensor, "n"]:
        return ((x - self.mean) @ self.axes.T).norm(dim=1)

    def outside(self, x: Float[Tensor, "n d_model"]) -> Tensor:
        return self.distance(x) > self.most


def _states(model: Model, texts: Sequence[str], way: Steering | Conditional) -> Float[Tensor, "n d_model"]:
    rows = [acts.flat(way.site, at=everywhere).flatten(1) for acts in stream(model, list(texts), [way.site])]
    return torch.cat(rows).double().cpu()


def _shares(texts: Sequence[Tensor]) -> Float[Tensor, "n"]:
    return torch.tensor([float(outside.double().mean()) for outside in texts])


def _predict(model: Model, text: str) -> Float[Tensor, "n vocab"]:
    rows = [(tokens, model.run(tokens)) for tokens in read_rows(model, [text])]
    return torch.cat([log[:, :-1][tokens.predicted[:, 1:]] for tokens, log in rows]).double().log_softmax(-1).cpu()


def _targets(model: Model, texts: Sequence[str]) -> list[Tensor]:
    return [
        torch.cat([tokens.ids[:, 1:][tokens.predicted[:, 1:]] for tokens in read_rows(model, [text])]).cpu()
        for text in texts
    ]


def _change(before: Tensor, after: Tensor, targets: Tensor) -> tuple[float, float, float]:
    if not len(targets):
        raise InvalidArgument("a text of one token has no next token to predict: leave it out")
    kl = (before.exp() * (before - after)).sum(-1).mean()
    loss = (before - after).gather(1, targets[:, None]).mean()
    right = [(p.argmax(-1) == targets).double().mean() for p in (after, before)]
    return float(kl), float(loss), float(right[0] - right[1])
