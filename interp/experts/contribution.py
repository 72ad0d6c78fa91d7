"""What each expert adds to the stream, and what is lost without it or with another one in its place."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hooks import Intervention, Model, capture, intervene
from hooks.border import Count, Natural
from hooks.errors import InvalidArgument
from hooks.interventions import apply
from hooks.position import everywhere, special
from hooks.progress import progress_bar
from hooks.site import Site, expert_choice, expert_out, expert_weights, mlp_out, router_logits
from hooks.summary import summarise
from interp.common.completion import mean_losses
from interp.common.statistics import Estimate, mean_with_interval

if TYPE_CHECKING:
    from pandas import DataFrame

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
        rows = [f"  {name:<24} {e:+.4f}  {self.control[name].value:+.4f}"
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
        InvalidArgument: another number of labels than of texts, or a text without a token to predict.

    Cost: three forward passes over the texts.

    Examples:
        ```python
        measure_ablation(model, texts, genres, 2, 5, measure_usage(routing).load)
        ```
    """
    _check_labels(texts, labels)
    other = _nearest_load(load, expert)
    plain = _losses(model, texts, {})
    found = [
        _by_label(_losses(model, texts, ablate_experts(layer, [one])) - plain, labels, seed) for one in (expert, other)
    ]
    return Ablation(expert, other, found[0], found[1])


@dataclass(frozen=True, eq=False)
class AblationMatrix:
    """What leaving out each expert of a layer costs the texts of each label, next to one of nearly its load.

    Attributes:
        layer: of the experts.
        rows: for each expert, what is lost without it and without the other.
        p: for each expert, how often labels permuted over texts make as large a difference between one label and all
            texts, of the cost less the other's; of E experts, ask for p ≤ 0.05 / E.
        dearest: the label that this difference is largest of.
    """

    layer: int
    rows: tuple[Ablation, ...]
    p: Float[Tensor, "expert"]
    dearest: tuple[str, ...]

    __repr__ = summarise

    def __str__(self) -> str:
        names, lines = [*self.rows[0].cost], [f"layer {self.layer}, without each expert / without the other:"]
        for one in self.rows:
            costs = ", ".join(f"{n} {one.cost[n].value:+.3f} / {one.control[n].value:+.3f}" for n in names)
            lines.append(f"  {one.expert}: {costs}; {self.dearest[one.expert]}, p {float(self.p[one.expert]):.3f}")
        return "\n".join(lines)

    def to_pandas(self) -> "DataFrame":
        """A row for each expert and label."""
        from pandas import DataFrame

        return DataFrame(
            {
                "layer": self.layer,
                "expert": one.expert,
                "other": one.other,
                "label": label,
                "cost": cost.value,
                "low": cost.low,
                "high": cost.high,
                "control": one.control[label].value,
                "dearest": self.dearest[one.expert] == label,
                "p": float(self.p[one.expert]),
            }
            for one in self.rows
            for label, cost in one.cost.items()
        )


def measure_ablation_matrix(
    model: Model,
    texts: Sequence[str],
    labels: Sequence[str],
    layer: int,
    load: Float[Tensor, "expert"],
    *,
    permutations: Count = 999,
    seed: Natural = 0,
    progress: bool = True,
) -> AblationMatrix:
    """Measure what leaving out each expert of a layer costs the texts of each label, in nats per token.

    Each expert's control is the other whose load is nearest. Whether an expert serves one label more than others is
    tested over texts, whose labels are permuted: the statistic is the largest of √n_l (mean_l − mean of all) of the
    cost less the control's.

    Args:
        model: a mixture.
        texts: of several labels.
        labels: one for each.
        layer: of the experts.
        load: as `measure_usage` gives it.
        permutations: of the labels.
        seed: of these and of the bootstrap.
        progress: show a bar.

    Raises:
        InvalidArgument: another number of labels than of texts, or a text without a token to predict.

    Cost: a forward pass over the texts for each expert, and one more.

    Examples:
        ```python
        measure_ablation_matrix(model, texts, genres, 2, measure_usage(routing).load).p
        ```
    """
    _check_labels(texts, labels)
    plain, E = _losses(model, texts, {}), len(load)
    more = torch.stack(
        [
            _losses(model, texts, ablate_experts(layer, [e])) - plain
            for e in progress_bar(range(E), desc="experts left out", progress=progress)
        ]
    )
    others = [_nearest_load(load, e) for e in range(E)]
    rows = tuple(
        Ablation(e, o, _by_label(more[e], labels, seed), _by_label(more[o], labels, seed)) for e, o in enumerate(others)
    )
    names = sorted({*labels})
    apart = more - more[others]
    on = F.one_hot(torch.tensor([names.index(label) for label in labels]), len(names)).double()
    random = torch.Generator().manual_seed(seed)
    shuffled = [on[torch.randperm(len(on), generator=random)] for _ in range(permutations)]
    seen = _excess(apart, on)
    drawn = torch.stack([_excess(apart, one).amax(1) for one in shuffled])
    p = (1 + (drawn >= seen.amax(1) - 1e-12).sum(0)) / (1 + permutations)
    return AblationMatrix(layer, rows, p, tuple(names[i] for i in seen.argmax(1).tolist()))


def _excess(rows: Float[Tensor, "expert example"], on: Float[Tensor, "example _"]) -> Tensor:
    """√n_l (mean of the texts of a label − mean of all), of each expert."""
    n = on.sum(0)
    return n.sqrt() * ((rows @ on) / n - rows.mean(1, keepdim=True))


def _check_labels(texts: Sequence[str], labels: Sequence[str]) -> None:
    if len(labels) != len(texts):
        raise InvalidArgument(f"{len(labels)} labels for {len(texts)} texts: give one for each")


def _nearest_load(load: Float[Tensor, "expert"], expert: int) -> int:
    apart = (load - load[expert]).abs()
    apart[expert] = float("inf")
    return int(apart.argmin())


def _by_label(more: Float[Tensor, "example"], labels: Sequence[str], seed: int) -> dict[str, Estimate]:
    rows = {name: more[torch.tensor([label == name for label in labels])] for name in sorted({*labels})}
    return {name: mean_with_interval(of, seed) for name, of in rows.items()}


def _losses(model: Model, texts: Sequence[str], changes: Mapping[Site, Intervention]) -> Float[Tensor, "example"]:
    """The mean loss of each text."""
    with intervene(model, {**changes}) if changes else nullcontext():
        return mean_losses(model, texts)
