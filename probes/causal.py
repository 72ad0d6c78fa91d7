"""Does the model use what a probe reads? Effects of erasing, adding and reflecting a direction, and of random ones."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, final

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Direction, Intervention, Model, Position, capture, intervene
from hooks.border import Count, Natural
from hooks.errors import InvalidArgument
from hooks.interventions import apply
from hooks.position import everywhere
from hooks.progress import progress_bar
from hooks.statistics import percentile_ends
from hooks.summary import summarise

Behaviour: TypeAlias = Callable[[Model, Sequence[str]], Float[Tensor, "example"]]
Amount: TypeAlias = Callable[[Float[Tensor, "n"]], Float[Tensor, "n"]]


@final
@dataclass(frozen=True, eq=False)
class Effect:
    """What moving along a direction did to a behaviour, compared with moving as far along random ones.

    `size` is the mean absolute change of a text, `low` and `high` its 95 % bootstrap interval over texts; `change` is
    the mean with its sign, which erasing and reflecting leave near 0 where texts are on both sides. `random` holds the
    size for each random direction, `p_value` the share of directions, this one included, of at least this size.
    """

    size: float
    change: float
    low: float
    high: float
    random: Float[Tensor, "n"]
    p_value: float

    def __str__(self) -> str:
        return (
            f"by {self.size:.3f} ({self.low:.3f} to {self.high:.3f}), with sign {self.change:+.3f}; "
            f"{len(self.random)} random directions {self.random.mean().item():.3f}, p = {self.p_value:.3f}"
        )


@final
@dataclass(frozen=True, eq=False)
class CausalTest:
    """The behaviour as it is, and what erasing, adding and reflecting a direction does to it."""

    direction: Direction
    baseline: Float[Tensor, "example"]
    erased: Effect
    added: Effect
    reflected: Effect

    __repr__ = summarise

    @property
    def used(self) -> bool:
        """Whether erasing or reflecting changes the behaviour more than 95 % of random directions do (Bonferroni)."""
        return min(self.erased.p_value, self.reflected.p_value) <= 0.025

    def __str__(self) -> str:
        verdict = "uses" if self.used else "is not seen to use"
        return (
            f"{self.direction.source} at {self.direction.site}: the model {verdict} it "
            f"(behaviour {self.baseline.mean().item():+.3f}, {len(self.baseline)} texts)\n"
            f"  erased     {self.erased}\n  added      {self.added}\n  reflected  {self.reflected}"
        )


def logit_difference(yes: str | int, no: str | int) -> Behaviour:
    """The behaviour that prefers one answer to another: logit(yes) - logit(no) after the text, of their first tokens.

    An answer is a word, or the id of a token.

    Raises:
        InvalidArgument: when used on a model for which the answers begin alike, or one has no token.

    Examples:
        ```python
        does_it_matter(direction, model, texts, logit_difference(" true", " false"))
        ```
    """

    def behaviour(model: Model, texts: str | Sequence[str]) -> Float[Tensor, "example"]:
        first = [_first(model, answer) for answer in (yes, no)]
        if first[0] == first[1]:
            raise InvalidArgument(f"{yes!r} and {no!r} begin with one token: compare answers that begin differently")
        tokens = model.tokens([texts] if isinstance(texts, str) else list(texts))
        columns = torch.arange(tokens.ids.shape[1], device=tokens.ids.device)
        end = torch.where(tokens.mask, columns, -1).amax(1)
        with torch.no_grad():
            logits = model.run(tokens)[torch.arange(len(end), device=end.device), end]
        return logits[:, first[0]] - logits[:, first[1]]

    return behaviour


def does_it_matter(
    direction: Direction,
    model: Model,
    texts: str | Sequence[str],
    behaviour: Behaviour,
    *,
    at: Position = everywhere,
    draws: Count = 39,
    seed: Natural = 0,
    progress: bool = True,
) -> CausalTest:
    """Test whether the model uses a direction, or whether it can only be read.

    With u the unit direction and m the mean of a.u over the selected tokens: erasing is a - (a.u - m) u, reflecting
    a - 2 (a.u - m) u, adding a + scale u. A random direction r moves each token by the same amount along r in place
    of u, so that distance moved is no explanation.

    Cost:
        1 + 3 (1 + draws) runs of the behaviour, and one capture.

    Raises:
        InvalidArgument: a direction of another model, fewer than 39 draws (no share of them could then be below
            0.025), or a behaviour that is not one finite number per text.

    Examples:
        ```python
        print(does_it_matter(grid.direction, model, texts, logit_difference(" true", " false"), at=last))
        ```
    """
    if draws < 39:
        raise InvalidArgument(f"draws is {draws}; with fewer than 39 no p-value can reach 0.025")
    texts = [texts] if isinstance(texts, str) else list(texts)
    site, unit = direction.site, direction.unit
    values = capture(model, texts, [site]).flat(site, at).flatten(1)
    middle = float((values.float() @ unit.to(values.device).float()).mean())
    baseline = _measure(behaviour, model, texts)
    amounts: Mapping[str, Amount] = {
        "erased": lambda projection: middle - projection,
        "added": lambda projection: torch.full_like(projection, direction.scale),
        "reflected": lambda projection: 2 * (middle - projection),
    }
    g = torch.Generator().manual_seed(seed)
    others = torch.nn.functional.normalize(torch.randn(draws, len(unit), generator=g), dim=1)

    bar = progress_bar(total=3 * (1 + draws), desc="changes", progress=progress)

    def change(amount: Amount, along: Float[Tensor, "d_model"]) -> Float[Tensor, "example"]:
        with intervene(model, {site: _move_along(direction, amount, along, at)}):
            bar.update()
            return _measure(behaviour, model, texts) - baseline

    with bar:
        effects = {
            name: _effect(change(amount, unit), torch.stack([change(amount, r).abs().mean() for r in others]), seed)
            for name, amount in amounts.items()
        }
    return CausalTest(direction, baseline, **effects)


def _first(model: Model, answer: str | int) -> int:
    if isinstance(answer, int):
        if not 0 <= answer < model.d_vocab:
            raise InvalidArgument(f"{answer} is no token of {model.name}: ids are 0 to {model.d_vocab - 1}")
        return answer
    tokens = model.tokens(answer)
    content = tokens.ids[0, tokens.content[0]].tolist()
    if not content:
        raise InvalidArgument(f"the answer {answer!r} has no token: give a word")
    return content[0]


def _move_along(direction: Direction, amount: Amount, along: Tensor, at: Position) -> Intervention:
    """a + amount(a.u) r, the amount read along u and applied along r."""

    def move(a: Float[Tensor, "n *d"]) -> Float[Tensor, "n *d"]:
        flat = a.flatten(1)
        projection = flat @ direction.unit.to(flat)
        return (flat + torch.outer(amount(projection), along.to(flat))).view_as(a)

    return replace(apply(move, at), fingerprint=direction.fingerprint)


def _measure(behaviour: Behaviour, model: Model, texts: Sequence[str]) -> Float[Tensor, "example"]:
    value = behaviour(model, texts).detach().cpu()
    if value.shape != (len(texts),) or not bool(value.isfinite().all()):
        raise InvalidArgument(
            f"the behaviour gave shape {tuple(value.shape)} for {len(texts)} texts, or a number that is not finite: "
            "it must give one finite number per text"
        )
    return value


def _effect(change: Float[Tensor, "example"], random: Float[Tensor, "n"], seed: int) -> Effect:
    g = torch.Generator().manual_seed(seed)
    sizes = change.double().abs()
    drawn = sizes[torch.randint(len(change), (1000, len(change)), generator=g)].mean(1)
    low, high = percentile_ends(drawn).tolist()
    size, as_large = float(sizes.mean()), int((random.double() >= sizes.mean()).sum())
    return Effect(size, float(change.mean()), low, high, random, (1 + as_large) / (1 + len(random)))
