"""Inside a mixture that runs every expert over every token, weighed before it is read (Llama-4).

The router gives each expert a score, zero where it is not chosen. The module of experts is called once with the rows
score_e x, all tokens for the first expert, then all for the second, and what it gives is added over experts:

    Σ_e E_e(score_e x) = Σ_k expert_weights_k expert_out_k,   expert_out_k = E_{choice_k}(w_k x) / w_k

so that the sum reads as that of any other mixture. `expert_act` is what the output projection reads, act(w_k x).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from threading import local
from typing import Any, Final, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hooks.errors import WrongState
from hooks.mixture_hooks import (
    Slot,
    block_hooks,
    check_experts,
    put_back,
    router_logits_hooks,
    seen_by,
    shared_out_hooks,
)
from hooks.taps import Edit, Hook

_PRODUCTS: Final = frozenset(["bmm", "matmul", "__matmul__"])


@final
@dataclass(frozen=True, eq=False)
class DenseMixture:
    """The experts of one block.

    Attributes:
        experts: the module that is called with a row for each expert and token.
        router: the module that gives the scores.
        part: which part of its output they are; None where it gives nothing else.
        n_experts: how many experts there are.
        n_chosen: k.
        shared: the module of the shared experts; None without.
        block: the block, and which of its arguments is the stream [batch pos d].
        slot: that argument.
    """

    experts: nn.Module
    router: nn.Module
    part: Slot | None
    n_experts: int
    n_chosen: int
    shared: nn.Module | None
    block: nn.Module
    slot: Slot
    flow: local = field(default_factory=local)
    gate: None = None
    factor: float = 1.0

    def scores(self, output: Any) -> Float[Tensor, "n expert"]:
        """Return the scores in what the router gives."""
        return output if self.part is None else output[self.part]

    def memories(self, args: Any, kwargs: Any) -> Float[Tensor, "expert n d_expert"]:
        """Return what the output projection of every expert reads."""
        with _Batched(self.n_experts) as products:
            self.experts.forward(*args, **kwargs)
        if len(products.inputs) < 2:
            raise WrongState(f"{type(self.experts).__name__} does not multiply expert by expert: use expert_out")
        return products.inputs[-1]

    def written(self, args: Any, kwargs: Any, act: Float[Tensor, "expert n d_expert"]) -> Float[Tensor, "..."]:
        """Return what the module gives for other inputs of its output projections."""
        with _Batched(self.n_experts) as products:
            self.experts.forward(*args, **kwargs)
        with _Batched(self.n_experts, len(products.inputs) - 1, act):
            return self.experts.forward(*args, **kwargs)


@final
@dataclass(frozen=True, eq=False)
class DenseMixtureAccessor:
    """How the tensor of one site of such a mixture is read and written.

    Attributes:
        mixture: the mixture.
        name: of the site.
        expert: which expert the site is of; None for all that a token runs through, [batch pos k d].
    """

    mixture: DenseMixture
    name: str
    expert: int | None = None

    def hooks(self, edit: Edit) -> list[Hook]:
        """Return the hooks that call an edit with the site's tensor, [batch pos *d]."""
        return block_hooks(self, edit, _HOOKS[self.name])

    def end(self) -> None:
        """Forget what an interrupted pass has noted and written."""
        self.mixture.flow.scores = self.mixture.flow.act = None
        self.mixture.flow.routed = self.mixture.flow.given = False


def _logits(site: DenseMixtureAccessor, edit: Edit) -> Iterator[Hook]:
    def first(a: Tensor) -> Tensor | None:
        changed = edit(a)
        if changed is not None and site.mixture.flow.routed:
            raise WrongState("router_logits was written after what follows from it in the same block: name it first")
        return changed

    return router_logits_hooks(site, first)


def _routed(site: DenseMixtureAccessor, edit: Edit) -> Iterator[Hook]:
    """The weights, or the choice, in the scores that the router gives."""
    of, is_choice = site.mixture, site.name == "expert_choice"

    def after(_m: nn.Module, _a: Any, _k: Any, output: Any) -> Any:
        scores = of.scores(output)
        weights, choice = scores.topk(of.n_chosen)
        changed = edit(choice.float() if is_choice else weights)
        if changed is None:
            return None
        if is_choice:
            check_experts(changed, of.n_experts)
        choice, weights = (changed.long(), weights) if is_choice else (choice, changed)
        of.flow.scores = torch.zeros_like(scores).scatter(1, choice, weights.to(scores))
        of.flow.routed = True
        return of.flow.scores if of.part is None else _with_part(output, of.part, of.flow.scores)

    yield False, of.router, after


def _inside(site: DenseMixtureAccessor, edit: Edit) -> Iterator[Hook]:
    of, flow = site.mixture, site.mixture.flow

    def note(_m: nn.Module, _a: Any, _k: Any, output: Any) -> None:
        flow.scores = of.scores(output)

    def after(_m: nn.Module, args: Any, kwargs: Any, output: Tensor) -> Tensor | None:
        weights, choice = flow.scores.topk(of.n_chosen)
        full = output.unflatten(0, (of.n_experts, -1))
        is_act = site.name == "expert_act"
        held = full if not is_act else of.memories(args, kwargs) if flow.act is None else flow.act
        value = _chosen(held, choice)
        by = 1 if is_act else torch.where(weights == 0, 1, weights)[..., None].to(value)
        changed = edit(seen_by(value / by, choice, site.expert))
        if changed is None:
            return None
        if is_act and flow.given:
            raise WrongState("expert_act was written after expert_out of the same block: name expert_act first")
        made = _put(held, choice, put_back(value / by, choice, site.expert, changed) * by)
        flow.act, flow.given = (made, flow.given) if is_act else (flow.act, True)
        return of.written(args, kwargs, made) if is_act else made.reshape(output.shape)

    yield False, of.router, note
    yield False, of.experts, after


_HOOKS: Final[Mapping[str, Callable[[DenseMixtureAccessor, Edit], Iterator[Hook]]]] = {
    "router_logits": _logits,
    "expert_choice": _routed,
    "expert_weights": _routed,
    "expert_act": _inside,
    "expert_out": _inside,
    "shared_out": shared_out_hooks,
}


def _chosen(full: Float[Tensor, "expert n d"], choice: Int[Tensor, "n choice"]) -> Float[Tensor, "n choice d"]:
    return full[choice, torch.arange(full.shape[1], device=full.device)[:, None]]


def _put(full: Float[Tensor, "expert n d"], choice: Int[Tensor, "n choice"], value: Tensor) -> Tensor:
    """All experts' values with those of a token's own replaced."""
    places = (choice, torch.arange(full.shape[1], device=full.device)[:, None])
    return full.index_put(places, value.to(full))


def _with_part(output: Any, part: Slot, value: Tensor) -> Any:
    return type(output)(value if at == part else one for at, one in enumerate(output))


@final
class _Batched(TorchFunctionMode):
    """Notes what each product of all experts at once reads inside the block, and puts another in place of one."""

    def __init__(self, n_experts: int, number: int | None = None, value: Tensor | None = None) -> None:
        super().__init__()
        self.inputs: list[Tensor] = []
        self._n_experts, self._number, self._value = n_experts, number, value

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        named = getattr(func, "__name__", "") in _PRODUCTS and args
        if named and args[0].ndim == 3 and len(args[0]) == self._n_experts:
            args = (self._value, *args[1:]) if len(self.inputs) == self._number else args
            self.inputs.append(args[0])
        return func(*args, **(kwargs or {}))
