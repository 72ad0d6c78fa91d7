"""How evenly experts are used, how often neighbours share one, which are used together, and when that is settled."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hooks.errors import InvalidArgument
from hooks.summary import summarise
from interp.common.statistics import Estimate, share_over_groups
from interp.experts.routing import Routing


@dataclass(frozen=True, eq=False)
class Usage:
    """How the experts of one layer are used.

    Attributes:
        load: the share of all choices that each expert gets.
        entropy: of the load, in bits; log2 of the number of experts if even.
        balance: E Σ_e f_e P_e of this layer alone, 1 if even; pooled over layers, collapsed layers would pass.
        router_entropy: the mean entropy of the router's probabilities, in bits.
        repetition: the share of tokens whose first expert is that of the token before, in the same text.
        repetition_chance: the same for tokens in another order: Σ of squared shares of first experts.
        together: N(i, j) / N(i), of all pairs of experts of a token, whatever their ranks.
    """

    load: Float[Tensor, "expert"]
    entropy: float
    balance: float
    router_entropy: float
    repetition: Estimate
    repetition_chance: float
    together: Float[Tensor, "expert expert"]

    __repr__ = summarise


def measure_usage(routing: Routing) -> Usage:
    """Measure load, balance, repetition and co-activation of a layer.

    Co-activation counts every pair of a token's experts; counting only those next to each other in rank, as one
    published script does, sees 7 of 28 pairs at top-8. Repetition is after Jiang et al. 2024, arXiv:2401.04088.

    Raises:
        InvalidArgument: no two tokens of one text.

    Examples:
        ```python
        measure_usage(capture_routing(model, texts)[0]).load
        ```
    """
    E, k = routing.n_experts, routing.choice.shape[1]
    used = _mark_used(routing)
    load = used.sum(0) / used.sum()
    first, same_text = routing.choice[:, 0], routing.document[1:] == routing.document[:-1]
    if not bool(same_text.any()):
        raise InvalidArgument("no text has two tokens that are read: give longer texts")
    counts = torch.bincount(first, minlength=E).double()
    both = used.T @ used
    return Usage(
        load,
        _bits(load),
        float(E * (load * routing.p.double().mean(0)).sum()),
        float(torch.special.entr(routing.p.double()).sum(1).mean() / torch.log(torch.tensor(2.0))),
        share_over_groups((first[1:] == first[:-1])[same_text], routing.document[1:][same_text]),
        float((counts / counts.sum()).square().sum()),
        (both - torch.diag(used.sum(0))) / used.sum(0)[:, None].clamp(min=1) if k > 1 else torch.zeros_like(both),
    )


def _mark_used(routing: Routing) -> Float[Tensor, "n expert"]:
    return torch.nn.functional.one_hot(routing.choice, routing.n_experts).sum(1).clamp(max=1).double()


def _bits(p: Float[Tensor, "n"]) -> float:
    return float(torch.special.entr(p).sum() / torch.log(torch.tensor(2.0)))


@dataclass(frozen=True)
class Saturation:
    """How much of the last checkpoint's routing is there at each step: the mean of |E_t ∩ E_T| / k.

    Attributes:
        by_step: with an interval over texts.
        chance: k / E, that of independent routers with even loads.
    """

    by_step: dict[int, Estimate]
    chance: float

    __repr__ = summarise


def measure_saturation(routings: Mapping[int, Routing]) -> Saturation:
    """Measure when the routing of a layer is settled (Muennighoff et al. 2024, arXiv:2409.02060).

    Every choice of the one is compared with every choice of the other, not rank by rank.

    Raises:
        InvalidArgument: fewer than two steps, or routings of other tokens.

    Examples:
        ```python
        measure_saturation({step: capture_routing(load(m), texts)[2] for step, m in checkpoints(run).items()})
        ```
    """
    steps = sorted(routings)
    if len(steps) < 2 or any(not torch.equal(routings[s].ids, routings[steps[-1]].ids) for s in steps):
        raise InvalidArgument(f"routings of {len(steps)} steps: give two or more, all of the same tokens")
    last = routings[steps[-1]]
    k = last.choice.shape[1]
    by_step = {}
    for step in steps:
        met = (routings[step].choice[:, :, None] == last.choice[:, None, :]).any(2)
        by_step[step] = share_over_groups(met.flatten(), last.document.repeat_interleave(k))
    return Saturation(by_step, k / last.n_experts)
