"""Inside a mixture of experts: which experts each token runs through, how much each counts, and what each computes.

Where a block calls `experts(x, choice, weights)`, with x [token d] and for each token its k experts and their weights
[token k], what that gives is

    Σ_k weights_k E_{choice_k}(x)

and an expert is E_e(x) = W_out act_e(x) (+ b). Every E_e is had by asking the model's own module for one expert with
weight 1, so that packed weights, loops over modules, biases and clamps are the model's. What is written inside is added
to what the module gave: output + Σ_k weights_k (E'_k - E_k), so that a token that is not written keeps its every bit.

`expert_choice` is given as floats that are whole numbers, as every site is.

The router makes the choice out of its logits within one module. What is written at the logits runs that module again
with the product replaced, so that weights and choice follow.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from threading import local
from typing import Any, Final, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hooks.errors import UnknownSite, WrongState
from hooks.mixture_hooks import (
    PRODUCTS,
    Slot,
    argument_at,
    block_hooks,
    check_experts,
    put_back,
    router_logits_hooks,
    seen_by,
    shared_out_hooks,
)
from hooks.taps import Edit, Hook, Tap


@final
@dataclass(frozen=True, eq=False)
class Mixture:
    """The experts of one block.

    Attributes:
        experts: the module that is called with x, choice and weights.
        slots: which arguments these are, in this order.
        router: the module that makes the choice; None where none does alone.
        n_experts: how many experts the router knows.
        n_chosen: k.
        shared: the module of the shared experts; None without.
        gate: the module whose sigmoid multiplies what the shared experts give; None where nothing does.
        factor: what the sum over the experts is multiplied by before that of the shared ones is added.
        block: the block, and which of its arguments is the stream [batch pos d].
        slot: that argument.
    """

    experts: nn.Module
    slots: tuple[Slot, Slot, Slot]
    router: nn.Module | None
    n_experts: int
    n_chosen: int
    shared: nn.Module | None
    gate: nn.Module | None
    factor: float
    block: nn.Module
    slot: Slot
    flow: local = field(default_factory=local)

    def outputs(self, args: Any, kwargs: Any) -> Float[Tensor, "n choice d_model"]:
        """Return what each chosen expert gives, E_{choice_k}(x)."""
        x, choice, weights = (argument_at(args, kwargs, slot) for slot in self.slots)
        rows = x.reshape(-1, x.shape[-1]).repeat_interleave(self.n_chosen, dim=0)
        one, full = choice.reshape(-1, 1), torch.ones_like(weights.reshape(-1, 1))
        try:
            alone = self._alone(args, kwargs, rows, one, full, loop=False)
        except ValueError:  # a module that takes no choice of one (Longcat): the same expert twice, once for nothing
            twice = torch.cat([full, torch.zeros_like(full)], dim=1)
            alone = self._alone(args, kwargs, rows, one.repeat(1, 2), twice, loop=False)
        return alone.unflatten(0, (-1, self.n_chosen))

    def memories(self, args: Any, kwargs: Any) -> Float[Tensor, "n choice d_expert"]:
        """Return what each chosen expert's output projection reads, act_{choice_k}(x)."""
        return self._by_expert(args, kwargs, lambda products, _: products.inputs[-1])

    def written(
        self, args: Any, kwargs: Any, act: Float[Tensor, "n choice d_expert"]
    ) -> Float[Tensor, "n choice d_model"]:
        """Return what each chosen expert gives for other inputs of its output projection."""
        x, choice, _ = (argument_at(args, kwargs, slot) for slot in self.slots)
        flat, x = act.flatten(0, 1), x.reshape(-1, x.shape[-1]).repeat_interleave(self.n_chosen, dim=0)

        def last(products: _Products, rows: Tensor) -> Tensor:
            expert = int(choice.reshape(-1)[rows[0]])
            with _Products(len(rows), len(products.inputs) - 1, flat[rows]):
                return self._of(args, kwargs, expert, x[rows])

        return self._by_expert(args, kwargs, last)

    def _by_expert(self, args: Any, kwargs: Any, of: "Callable[[_Products, Tensor], Tensor]") -> Tensor:
        x, choice, _ = (argument_at(args, kwargs, slot) for slot in self.slots)
        x, flat = x.reshape(-1, x.shape[-1]).repeat_interleave(self.n_chosen, dim=0), choice.reshape(-1)
        made: list[Tensor] = []
        order: list[Tensor] = []
        for expert in flat.unique().tolist():
            rows = (flat == expert).nonzero()[:, 0]
            with _Products(len(rows)) as products:
                self._of(args, kwargs, expert, x[rows])
            if len(products.inputs) < 2:
                raise WrongState(
                    f"{type(self.experts).__name__} does not multiply matrix by matrix, so what its experts' output "
                    "projections read is unknown: use expert_out"
                )
            made.append(of(products, rows))
            order.append(rows)
        place = torch.cat(order)
        return torch.cat(made)[place.argsort()].unflatten(0, (-1, self.n_chosen))

    def _of(self, args: Any, kwargs: Any, expert: int, rows: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_model"]:
        _, choice, weights = (argument_at(args, kwargs, slot) for slot in self.slots)
        one = torch.full((len(rows), 1), expert, dtype=choice.dtype, device=choice.device)
        return self._alone(args, kwargs, rows, one, torch.ones_like(one, dtype=weights.dtype), loop=True)

    def _alone(self, args: Any, kwargs: Any, x: Tensor, choice: Tensor, weights: Tensor, loop: bool) -> Tensor:
        """What the module gives for other arguments; `loop`: by its own loop over experts, not by a fused kernel."""
        for slot, value in zip(self.slots, (x, choice, weights), strict=True):
            args, kwargs = _replaced(args, kwargs, slot, value)
        plain = getattr(type(self.experts).forward, "__wrapped__", None)
        if loop and plain is not None and "forward" not in vars(self.experts):
            return plain(self.experts, *args, **kwargs)
        return self.experts.forward(*args, **kwargs)


@final
@dataclass(frozen=True, eq=False)
class ExpertAccessor:
    """How the tensor of one site of a mixture is read and written.

    Attributes:
        mixture: the mixture.
        name: of the site.
        expert: which expert the site is of; None for all that a token runs through, [batch pos k d].
    """

    mixture: Mixture
    name: str
    expert: int | None = None

    def hooks(self, edit: Edit) -> list[Hook]:
        """Return the hooks that call an edit with the site's tensor, [batch pos *d]."""
        return block_hooks(self, edit, _HOOKS[self.name])

    def end(self) -> None:
        """Forget what an interrupted pass has written."""
        self.mixture.flow.act = self.mixture.flow.out = None


def of_expert(tap: Tap, expert: int) -> Tap:
    """Return the tap of what one expert reads or gives, [batch pos d], zeros at the tokens that it does not serve.

    Raises:
        InvalidArgument: there is no such expert.

    Examples:
        ```python
        of_expert(model.tap(expert_out[3]), 5).shape
        ```
    """
    inside: Any = tap.inside  # `ExpertAccessor`, or `DenseMixtureAccessor`
    n_experts = inside.mixture.n_experts
    if n_experts and not 0 <= expert < n_experts:
        raise UnknownSite(f"{tap.site} has no expert {expert}: it has {n_experts}, so the last is {n_experts - 1}")
    site = replace(tap.site, expert=expert)
    return replace(tap, site=site, shape=tap.shape[1:], inside=replace(inside, expert=expert))


def _argument(site: ExpertAccessor, edit: Edit) -> Iterator[Hook]:
    of, is_choice = site.mixture, site.name == "expert_choice"
    slot = of.slots[1 if is_choice else 2]

    def before(_: nn.Module, args: Any, kwargs: Any) -> Any:
        given = argument_at(args, kwargs, slot)
        flat = given.reshape(-1, of.n_chosen)
        changed = edit(flat.float() if is_choice else flat)
        if changed is None:
            return None
        if is_choice:
            check_experts(changed, of.n_experts)
        return _replaced(args, kwargs, slot, changed.to(given.dtype).reshape(given.shape))

    yield True, of.experts, before


def _inside(site: ExpertAccessor, edit: Edit) -> Iterator[Hook]:
    of, here = site.mixture, site.mixture.flow

    def before(_m: nn.Module, _a: Any, _k: Any) -> None:
        here.act = here.out = None

    def after(_m: nn.Module, args: Any, kwargs: Any, output: Tensor) -> Tensor | None:
        choice = argument_at(args, kwargs, of.slots[1]).reshape(-1, of.n_chosen)
        value = _held(of, args, kwargs, site.name)
        changed = edit(seen_by(value, choice, site.expert))
        if changed is None:
            return None
        changed = put_back(value, choice, site.expert, changed)
        if site.name == "expert_act" and here.out is not None and here.act is None:
            raise WrongState("expert_act was written after expert_out of the same block: name expert_act first")
        was = _held(of, args, kwargs, "expert_out")
        if site.name == "expert_act":
            here.act, changed = changed, of.written(args, kwargs, changed)
        here.out = changed
        weights = argument_at(args, kwargs, of.slots[2]).reshape(-1, of.n_chosen)
        added = torch.einsum("tk,tkd->td", weights.to(changed.dtype), changed - was)
        return output + added.reshape(output.shape).to(output.dtype)

    yield True, of.experts, before
    yield False, of.experts, after


_HOOKS: Final[Mapping[str, Callable[[ExpertAccessor, Edit], Iterator[Hook]]]] = {
    "router_logits": router_logits_hooks,
    "expert_choice": _argument,
    "expert_weights": _argument,
    "expert_act": _inside,
    "expert_out": _inside,
    "shared_out": shared_out_hooks,
}


def _held(of: Mixture, args: Any, kwargs: Any, name: str) -> Tensor:
    """What the experts read or give now, with what was written before in this call."""
    if name == "expert_act":
        return of.memories(args, kwargs) if of.flow.act is None else of.flow.act
    return of.outputs(args, kwargs) if of.flow.out is None else of.flow.out


@final
class _Products(TorchFunctionMode):
    """Notes what each product of some rows and a matrix reads inside the block, and puts another in place of one."""

    def __init__(self, n_rows: int, number: int | None = None, value: Tensor | None = None) -> None:
        super().__init__()
        self.inputs: list[Tensor] = []
        self._n_rows, self._number, self._value = n_rows, number, value

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        if getattr(func, "__name__", "") in PRODUCTS and args and len(args[0]) == self._n_rows:
            args = (self._value, *args[1:]) if len(self.inputs) == self._number else args
            self.inputs.append(args[0])
        return func(*args, **(kwargs or {}))


def _replaced(args: tuple[Any, ...], kwargs: dict[str, Any], slot: Slot, value: Tensor) -> tuple[Any, dict[str, Any]]:
    """The arguments of a call with one of them replaced."""
    if isinstance(slot, int):
        return (*args[:slot], value, *args[slot + 1 :]), kwargs
    return args, {**kwargs, slot: value}
