"""What each expert adds to the stream, and what is lost without it or with another one in its place."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hooks import Intervention, Model, capture, intervene
from hooks.border import Natural
from hooks.errors import InvalidArgument
from hooks.interventions import apply
from hooks.position import everywhere, special
from hooks.site import Site, expert_choice, expert_out, expert_weights, mlp_out, router_logits
from hooks.summary import summarise
from interp.common.statistics import Estimate, mean_with_interval

FAR = 1e4
"""How far below all others the logit of an expert that is left out is put."""


@dataclass(frozen=True, eq=False)
class Contributions:
    """What experts add, w_e E_e(x).

    Attributes:
        norm: the mean length of what each expert adds where it serves; NaN where it serves no token.
        share: of the sum of all lengths.
        worst: the largest difference between Σ_e w_e E_e(x) and the block's output, relative to its mean length.
    """

    norm: Float[Tensor, "expert"]
    share: Float[Tensor, "expert"]
    worst: float

    __repr__ = summarise


@torch.no_grad()
def measure_contributions(model: Model, texts: Sequence[str], layer: int) -> Contributions:
    """Measure what each expert of a layer adds, and that the sum is what the block gives.

    With shared experts `worst` is what these add, and not small.

    Cost: one forward pass over the texts.

    Examples:
        ```python
        measure_contributions(model, texts, 2).share
        ```
    """
    sites = (expert_choice[layer], expert_weights[layer], expert_out[layer], mlp_out[layer], router_logits[layer])
    acts = capture(model, list(texts), sites, batch_size=len(texts))
    real = acts.tokens.content
    choice, w, out, whole, logits = (acts[site][real].double() for site in sites)
    added = torch.einsum("nk,nkd->nkd", w, out)
    length, E = added.norm(dim=-1), logits.shape[-1]
    one = F.one_hot(choice.long(), E).double()
    total = torch.einsum("nk,nke->e", length, one)
    worst = (added.sum(1) - whole).norm(dim=1).max() / whole.norm(dim=1).mean()
    return Contributions(total / one.sum((0, 1)), total / total.sum(), float(worst))


def ablate_experts(layer: int, experts: Sequence[int]) -> dict[Site, Intervention]:
    """An intervention that leaves experts of a layer out of the choice: their logits are put far below all others.

    Weights and choice are made from the changed logits; to change what a block's router returns as logits would do
    nothing in today's implementations.

    Raises:
        InvalidArgument: no experts.

    Examples:
        ```python
        with intervene(model, ablate_experts(2, [5])): ...
        ```
    """
    if not experts:
        raise InvalidArgument("no experts were given: name at least one")
    gone = list(experts)

    def leave_out(a: Float[Tensor, "n expert"]) -> Float[Tensor, "n expert"]:
        a = a.clone()
        a[:, gone] = a.min() - FAR
        return a

    return {router_logits[layer]: apply(leave_out, everywhere | special)}


def force_expert(layer: int, expert: int, margin: float = 1.0) -> dict[Site, Intervention]:
    """An intervention that puts an expert first for every token: s_e ← max s + margin, s the log-probabilities.

    As SteerMoE activates an expert; a negative margin takes it out: s_e ← min s + margin.

    Examples:
        ```python
        with intervene(model, force_expert(2, 5)) as receipt: ...
        ```
    """

    def force(a: Float[Tensor, "n expert"]) -> Float[Tensor, "n expert"]:
        s = a.log_softmax(-1)
        edge = s.amax(-1) if margin > 0 else s.amin(-1)
        s[:, expert] = edge + margin
        return s

    return {router_logits[layer]: apply(force, everywhere | special)}


@dataclass(frozen=True)
class Ablation:
    """What leaving an expert out costs, by label, in nats per token, next to another expert of nearly its load.

    Attributes:
        expert: left out.
        other: the control.
        cost: by label, with an interval over texts.
        control: the same for the other.
    """

    expert: int
    other: int
    cost: dict[str, Estimate]
    control: dict[str, Estimate]

    __repr__ = summarise

    def __str__(self) -> str:
        rows = [f"  {name:<24} {e.value:+.4f} ({e.low:+.4f}, {e.high:+.4f})  {self.control[name].value:+.4f}"
                for name, e in self.cost.items()]  # fmt: skip
        return "\n".join([f"without expert {self.expert}; next to it without expert {self.other}:", *rows])


def measure_ablation(
    model: Model,
    texts: Sequence[str],
    labels: Sequence[str],
    layer: int,
    expert: int,
    load: Float[Tensor, "expert"],
    seed: Natural = 0,
) -> Ablation:
    """Measure what leaving an expert out costs the texts of each label, next to the expert whose load is nearest.

    Args:
        model: a mixture.
        texts: of several labels.
        labels: one for each.
        layer: of the expert.
        expert: its number.
        load: as `measure_usage` gives it.
        seed: of the bootstrap.

    Raises:
        InvalidArgument: another number of labels than of texts.

    Cost: three forward passes over the texts.

    Examples:
        ```python
        measure_ablation(model, texts, genres, 2, 5, measure_usage(routing).load)
        ```
    """
    if len(labels) != len(texts):
        raise InvalidArgument(f"{len(labels)} labels for {len(texts)} texts: give one for each")
    apart = (load - load[expert]).abs()
    apart[expert] = float("inf")
    other = int(apart.argmin())
    plain = _losses(model, texts, {})
    found: list[dict[str, Estimate]] = []
    for one in (expert, other):
        more = _losses(model, texts, ablate_experts(layer, [one])) - plain
        by = {name: more[torch.tensor([label == name for label in labels])] for name in sorted({*labels})}
        found.append({name: mean_with_interval(rows, seed) for name, rows in by.items()})
    return Ablation(expert, other, found[0], found[1])


@torch.no_grad()
def _losses(model: Model, texts: Sequence[str], changes: Mapping[Site, Intervention]) -> Float[Tensor, "example"]:
    """The mean loss of each text."""
    found = []
    for i in range(0, len(texts), 32):
        tokens = model.tokens(list(texts[i : i + 32]))
        with intervene(model, {**changes}) if changes else nullcontext():
            logits = model.run(tokens)
        nll = F.cross_entropy(logits[:, :-1].float().transpose(1, 2), tokens.ids[:, 1:], reduction="none")
        real = tokens.content[:, 1:]
        found.append((nll * real).sum(1) / real.sum(1))
    return torch.cat(found).double().cpu()
