"""What the hooks inside any mixture of experts share: rows that are tokens, logits, choices, and the shared experts."""

from collections.abc import Callable, Iterator, Mapping
from threading import local
from typing import Any, Final, final

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hooks.errors import InvalidArgument, WrongState
from hooks.taps import Edit, Hook

Slot = int | str
PRODUCTS: Final = frozenset(["linear", "matmul", "__matmul__", "mm"])


def block_hooks(site: Any, edit: Edit, make: Callable[[Any, Edit], Iterator[Hook]]) -> list[Hook]:
    """Return the hooks of a site in a mixture, whose rows are tokens, for an edit of [batch pos *d].

    The first is at the block: it notes the batch and the positions, and forgets what an interrupted pass has left.

    Examples:
        ```python
        block_hooks(model.tap(router_logits[3]).inside, edit, router_logits_hooks)
        ```
    """
    here, of = local(), site.mixture

    def note(_m: nn.Module, args: Any, kwargs: Any) -> None:
        here.shape = argument_at(args, kwargs, of.slot).shape[:2]
        site.end()

    def placed(a: Tensor) -> Tensor | None:
        changed = edit(a.unflatten(0, tuple(here.shape)))
        return None if changed is None else changed.reshape(a.shape)

    return [(True, of.block, note), *map(_unless_it_raised, make(site, placed))]


def _unless_it_raised(hook: Hook) -> Hook:
    """The hook, not called after a pass that raised, which gives nothing."""
    before, module, call = hook
    return hook if before else (before, module, lambda *passed: None if passed[-1] is None else call(*passed))


def router_logits_hooks(site: Any, edit: Edit) -> Iterator[Hook]:
    """Yield the hook that calls an edit with the logits of a router, and lets what is written there decide the choice.

    Examples:
        ```python
        [*router_logits_hooks(model.tap(router_logits[3]).inside, edit)]
        ```
    """
    of = site.mixture
    assert of.router is not None

    def after(router: nn.Module, args: Any, kwargs: Any, _: Any) -> Any:
        with _Logits(of.n_experts) as found:
            router.forward(*args, **kwargs)
        if found.logits is None:
            raise WrongState(f"{type(router).__name__} does not compute logits of {of.n_experts} experts")
        flat = found.logits.reshape(-1, of.n_experts)
        changed = edit(flat)
        if changed is None:
            return None
        with _Logits(of.n_experts, changed.reshape(found.logits.shape)):
            return router.forward(*args, **kwargs)

    yield False, of.router, after


def shared_out_hooks(site: Any, edit: Edit) -> Iterator[Hook]:
    """Yield the hook that calls an edit with what the shared experts add.

    Examples:
        ```python
        [*shared_out_hooks(model.tap(shared_out[3]).inside, edit)]
        ```
    """
    of = site.mixture
    assert of.shared is not None

    def after(_: nn.Module, args: Any, kwargs: Any, output: Tensor) -> Tensor | None:
        gate = 1.0 if of.gate is None else of.gate.forward(argument_at(args, kwargs, 0)).sigmoid()
        changed = edit((output * gate).reshape(-1, output.shape[-1]))
        return None if changed is None else changed.reshape(output.shape) / gate

    yield False, of.shared, after


def check_experts(choice: Float[Tensor, "n choice"], n_experts: int) -> None:
    """Raise where a written choice is of no experts.

    Raises:
        InvalidArgument: they are no whole numbers, or there are fewer experts.

    Examples:
        >>> check_experts(torch.tensor([[0.0, 3.0]]), 4)
    """
    odd = choice[(choice != choice.round()) | (choice < 0)]
    if len(odd):
        raise InvalidArgument(
            f"expert_choice is the numbers of experts, counted from 0, and {float(odd[0]):g} was written: write whole "
            "numbers"
        )
    if n_experts and not bool((choice < n_experts).all()):
        raise InvalidArgument(f"there are {n_experts} experts, counted from 0, and {int(choice.max())} was written")


def seen_by(
    value: Float[Tensor, "n choice d"], choice: Int[Tensor, "n choice"], expert: int | None
) -> Float[Tensor, "n *d"]:
    """Return what is of all experts that a token runs through, or of one: zeros at the tokens that it does not serve.

    Examples:
        >>> seen_by(torch.ones(1, 2, 1), torch.tensor([[3, 0]]), 2)
        tensor([[0.]])
    """
    return value if expert is None else torch.where((choice == expert)[..., None], value, 0).sum(dim=1)


def put_back(
    value: Float[Tensor, "n choice d"],
    choice: Int[Tensor, "n choice"],
    expert: int | None,
    changed: Float[Tensor, "..."],
) -> Float[Tensor, "n choice d"]:
    """Return what is written where each expert of a token has its own, of all of them or of one.

    Examples:
        >>> put_back(torch.zeros(1, 2, 1), torch.tensor([[3, 0]]), 0, torch.ones(1, 1)).flatten()
        tensor([0., 1.])
    """
    return changed if expert is None else torch.where((choice == expert)[..., None], changed[:, None], value)


def argument_at(args: tuple[Any, ...], kwargs: Mapping[str, Any], slot: Slot) -> Shaped[Tensor, "..."]:
    """Return the argument at a place, or of a name.

    Examples:
        >>> argument_at((torch.ones(1),), {"x": torch.zeros(1)}, "x")
        tensor([0.])
    """
    if isinstance(slot, int) and slot < len(args):
        return args[slot]
    return kwargs[slot] if isinstance(slot, str) else next(iter(kwargs.values()))


@final
class _Logits(TorchFunctionMode):
    """Notes the first product with a value for each expert inside the block, and puts others in its place."""

    def __init__(self, n_experts: int, value: Tensor | None = None) -> None:
        super().__init__()
        self.logits: Tensor | None = None
        self._n_experts, self._value = n_experts, value

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        made = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") not in PRODUCTS or self.logits is not None:
            return made
        if made.shape[-1] != self._n_experts:
            return made
        self.logits = made
        return made if self._value is None else self._value.to(made)
