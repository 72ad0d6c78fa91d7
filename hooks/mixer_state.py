"""The state of a mixer of tokens: what a recurrent layer holds after each token of a text.

A state-space or linear-attention layer computes over a whole text without showing its state. It does fill the cache
that decoding goes on from, so that the state after token t is

    state_t = what the cache holds after the mixer has read its inputs up to t,

and that is what the mixer, asked again without its hooks, is asked for at every token. Nothing that flows changes. What
is written inside the mixer would not be in it, so such a pass is refused.
"""

import inspect
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hooks.errors import WrongState
from hooks.huggingface import HFModel
from hooks.taps import Edit, Hook
from hooks.temporary import grad_mode

_CACHES: Final = ("cache_params", "past_key_values")
_CLOSE: Final = {torch.float64: 1e-8, torch.float32: 1e-4}
"""By how much a mixer that fills a cache may differ from one that does not."""
Slot = int | str


@final
@dataclass(frozen=True, eq=False)
class MixerAccessor:
    """How the state of one mixer is read.

    Attributes:
        hf: the model, which says what its cache is like.
        module: the mixer.
        slot: which of its arguments it reads tokens from.
    """

    hf: HFModel
    module: nn.Module
    slot: Slot

    def hooks(self, edit: Edit) -> list[Hook]:
        """Return the hook that calls an edit with the states, [batch pos *d], after the mixer."""

        def after(_m: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if output is not None:
                edit(self.states(args, kwargs, _first(output)))

        return [(False, self.module, after)]

    def end(self) -> None:
        """Take nothing back: an interrupted pass has begun nothing."""

    @grad_mode(False)
    def states(
        self, args: Any, kwargs: Any, given: Float[Tensor, "..."] | None = None
    ) -> Float[Tensor, "batch pos *d"]:
        """Return the state after each token of a call.

        Args:
            args, kwargs: of the call.
            given: what the call gave, with which what it gives without its hooks is compared.

        Raises:
            WrongState: the two differ, or the mixer keeps no such state.

        Cost: a call of the mixer for each token, each over the tokens up to it.
        """
        n_pos = (args[self.slot] if isinstance(self.slot, int) else kwargs[self.slot]).shape[1]
        made, outputs = zip(*(self._read_up_to(args, kwargs, n_pos, end + 1) for end in range(n_pos)), strict=True)
        if given is not None and not _is_close(outputs[-1], given):
            raise WrongState(
                f"something was written inside {type(self.module).__name__}, and its state would not show it: write at "
                "mixer_in, or read mixer_state in a pass of its own"
            )
        return torch.stack(made, dim=1)

    @grad_mode(False)
    def shape(self, args: Any, kwargs: Any, n_pos: int) -> tuple[int, ...]:
        """Return the shape of the state after one token.

        Raises:
            WrongState: the mixer keeps no such state.

        Cost: a call of the mixer over one token.
        """
        return tuple(self._read_up_to(args, kwargs, n_pos, 1)[0].shape[1:])

    def _read_up_to(self, args: Any, kwargs: Any, n_pos: int, end: int) -> tuple[Tensor, Tensor]:
        """The state after so many tokens, and what the mixer gives for them."""
        cache = _new_cache(self.hf)
        short, named = _up_to(args, kwargs, n_pos, end, self.module, cache)
        output = _without_hooks(self.module).forward(*short, **named)
        return _state_in(cache), _first(output)


def keeps_state(module: nn.Module) -> bool:
    """Return whether a module takes a cache, in which it may keep a state.

    Examples:
        >>> keeps_state(nn.Linear(2, 2))
        False
    """
    return _cache_argument(module) is not None


def _cache_argument(module: nn.Module) -> str | None:
    named = inspect.signature(type(module).forward).parameters
    return next((name for name in _CACHES if name in named), None)


def _new_cache(hf: HFModel) -> Any:
    from transformers import DynamicCache

    return DynamicCache(config=hf.config.get_text_config(decoder=True))


def _state_in(cache: Any) -> Tensor:
    """The one recurrent state that a mixer has left in a cache."""
    held = (getattr(layer, "recurrent_states", None) for layer in cache.layers)
    found = [one for states in held if isinstance(states, dict) for one in states.values() if isinstance(one, Tensor)]
    if len(found) != 1:
        raise WrongState(f"a mixer that keeps one state was expected, and {len(found)} are in its cache")
    return found[0]


def _up_to(
    args: Any, kwargs: Mapping[str, Any], n_pos: int, end: int, module: nn.Module, cache: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call with the tokens up to one, and a cache."""

    def cut(one: Any) -> Any:
        in_order = isinstance(one, Tensor) and one.ndim > 1 and one.shape[1] == n_pos
        return one[:, :end] if in_order else one

    name = _cache_argument(module)
    assert name is not None
    place = [*inspect.signature(type(module).forward).parameters].index(name) - 1  # without self
    short, named = [cut(one) for one in args], {key: cut(one) for key, one in kwargs.items()}
    if place < len(short):
        short[place] = cache
        return tuple(short), named
    return tuple(short), named | {name: cache}


def _without_hooks(module: nn.Module) -> nn.Module:
    """The same module, its weights shared, with no hooks on any of its parts."""
    bare = copy(module)
    none = {name: type(held)() for name, held in vars(module).items() if name.endswith("_hooks") and held}
    parts = {name: part and _without_hooks(part) for name, part in module._modules.items()}
    vars(bare).update(none, _modules=parts)
    return bare


def _is_close(one: Tensor, other: Tensor) -> bool:
    allowed = _CLOSE.get(other.dtype, 3e-2)
    return bool((one - other).float().norm() <= allowed * other.float().norm() + 1e-30)


def _first(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]
