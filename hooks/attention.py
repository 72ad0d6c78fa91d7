"""Attention's pattern: read next to the kernel that computes without it, or by the attention that returns it.

A fused kernel gives z = softmax(q kᵀ s + mask) v without the pattern. `KernelAccessor` waits for the kernel's call
inside one attention module, computes the pattern from the q and k, the mask and the scale s that the kernel is given,

    pattern = softmax(q kᵀ s + mask), in float32 or better,

and lets the kernel compute what flows on: every other site keeps its every bit. Where a module has no such kernel
(`eager`, FlashAttention, flex_attention) the pattern is what the module returns under eager attention, and where the
model does not run that by itself, the pass that is asked for a pattern does, `eager_attention`: it then rounds
differently, in bfloat16 by half a percent.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from threading import local
from typing import Any, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hooks.errors import WrongState
from hooks.huggingface import HFModel
from hooks.site import PATTERNS
from hooks.taps import Edit, Hook, Tap
from hooks.temporary import Temporary

_HIDDEN = -torch.inf


def pattern_of(
    query: Float[Tensor, "batch head pos d_head"],
    key: Float[Tensor, "batch _ _ d_head"],
    value: Float[Tensor, "batch _ _ _"] | None = None,
    attn_mask: Shaped[Tensor, "..."] | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Float[Tensor, "batch head pos _"]:
    """Return softmax(q kᵀ s + mask), the weights with which `scaled_dot_product_attention` averages the values.

    It takes what that takes. Rows that see nothing are zeros, as there.

    Args:
        query, key, value: as the kernel is given them; the values are not read.
        attn_mask: what is added to the scores, or, of truth values, where a query sees a key.
        dropout_p: not read: the pattern is what it is before dropout.
        is_causal: whether query i sees the keys up to i.
        scale: s, by default 1 / √d_head.
        enable_gqa: whether several heads share a key.

    Examples:
        >>> pattern_of(torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 2, 4), is_causal=True)
        tensor([[[[1.0000, 0.0000],
                  [0.5000, 0.5000]]]])
    """
    del value, dropout_p
    exact = torch.promote_types(query.dtype, torch.float32)
    if enable_gqa:
        key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    s = query.shape[-1] ** -0.5 if scale is None else scale
    scores = torch.einsum("...qd,...kd->...qk", query.to(exact), key.to(exact)) * s
    if is_causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~seen, _HIDDEN)
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, _HIDDEN) if attn_mask.dtype == torch.bool else scores + attn_mask
    blind = (scores == _HIDDEN).all(dim=-1, keepdim=True)
    return scores.softmax(dim=-1).masked_fill(blind, 0.0).to(query.dtype)


_OPEN = local()
"""The kernels that each thread waits for, by the module that is to call them."""


@final
@dataclass(frozen=True)
class KernelAccessor:
    """How the pattern of one attention module is read: at the kernel that it calls.

    Attributes:
        module: the attention module.
        kind: of attention that the model's configuration named when the kernel was met.
    """

    module: nn.Module
    kind: str

    def hooks(self, edit: Edit) -> list[Hook]:
        """Return the hooks that call an edit with the pattern, [batch head pos key]."""
        return self.watching(lambda call: edit(call.pattern))

    def watching(self, watch: "Callable[[KernelCall], object]") -> list[Hook]:
        """Return the hooks that call `watch` as the module calls its kernel, before the kernel runs."""
        entered = local()

        def enter(_m: nn.Module, _a: Any, _k: Any) -> None:
            kernel = _open().get(self.module)
            if kernel is None:
                kernel = _open()[self.module] = _Kernel()
                kernel.__enter__()
            kernel.watches.append(watch)
            entered.kernel = kernel

        def leave(_m: nn.Module, _a: Any, _k: Any, _o: Any) -> None:
            kernel = vars(entered).pop("kernel", None)
            if kernel is not None and kernel is _open().get(self.module):
                kernel.watches.remove(watch)
                if not kernel.watches:
                    self.end()

        return [(True, self.module, enter), (False, self.module, leave)]

    def end(self) -> None:
        """Take back what a call of the module, ended or interrupted, has begun in this thread."""
        kernel = _open().pop(self.module, None)
        if kernel is not None:
            kernel.__exit__(None, None, None)


def _open() -> "dict[nn.Module, _Kernel]":
    return vars(_OPEN).setdefault("kernels", {})


@final
@dataclass(frozen=True, eq=False)
class KernelCall:
    """One call of a kernel of attention: the pattern, and what else it was given."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @cached_property
    def pattern(self) -> Float[Tensor, "batch head pos _"]:
        """Its pattern."""
        return pattern_of(*self.args, **self.kwargs)

    def output(self) -> Float[Tensor, "batch head pos _"]:
        """What the kernel gives."""
        return F.scaled_dot_product_attention(*self.args, **self.kwargs)

    def average(self) -> Float[Tensor, "batch head pos _"]:
        """What it should give, Σ_key pattern v."""
        value = self.args[2] if len(self.args) > 2 else self.kwargs["value"]
        value = value.repeat_interleave(self.pattern.shape[1] // value.shape[1], dim=1)
        return torch.einsum("bhqk,bhkd->bhqd", self.pattern.to(value.dtype), value)


@final
class _Kernel(TorchFunctionMode):
    """Notes the first call of a kernel of attention inside the block."""

    def __init__(self) -> None:
        super().__init__()
        self.watches: list[Callable[[KernelCall], object]] = []
        self._met = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        if func is F.scaled_dot_product_attention and not self._met:
            self._met = True
            call = KernelCall(args, kwargs or {})
            for watch in self.watches:
                watch(call)
        return func(*args, **(kwargs or {}))


@contextmanager
def every_kernel(note: Callable[[Float[Tensor, "batch head pos _"]], object]) -> Iterator[None]:
    """Call `note` with what each kernel of attention gives inside the block, [batch head pos d_value].

    Examples:
        ```python
        with every_kernel(given.append):
            model.run("Fog")
        ```
    """
    with _Outputs(note):
        yield


@final
class _Outputs(TorchFunctionMode):
    def __init__(self, note: Callable[[Tensor], object]) -> None:
        super().__init__()
        self._note = note

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        output = func(*args, **(kwargs or {}))
        if func is F.scaled_dot_product_attention:
            self._note(output)
        return output


def check_kernels(hf: HFModel, taps: Iterable[Tap]) -> None:
    """Raise where a model no longer calls the kernel at which its patterns were found.

    Raises:
        WrongState: its kind of attention was changed after it was loaded.

    Examples:
        ```python
        check_kernels(model.hf, [model.tap(pattern[0])])
        ```
    """
    kernels = [tap.inside for tap in taps if isinstance(tap.inside, KernelAccessor)]
    before = [one.kind for one in kernels if one.kind != kind_of_attention(hf)]
    if before:
        raise WrongState(
            f"patterns of this model are read at the kernel of attention it had when it was loaded, '{before[0]}', and "
            f"its attention is '{kind_of_attention(hf)}' now: load it again, load(model.hf, model.tokenizer)"
        )


def kind_of_attention(hf: HFModel) -> str:
    """Return the kind of attention that a model's configuration names, which a class of its own may not follow.

    It is empty for a module without a configuration.

    Examples:
        ```python
        kind_of_attention(model.hf)  # 'sdpa'
        ```
    """
    config: Any = getattr(hf, "config", None)
    if config is None:
        return ""
    return getattr(config.get_text_config(), "_attn_implementation", None) or config._attn_implementation


def needs_eager(taps: Iterable[Tap]) -> bool:
    """Return whether the pass must run eager attention for some sites: patterns that no kernel is asked for.

    Examples:
        ```python
        needs_eager([model.tap(pattern[0])])
        ```
    """
    return any(tap.site.name in PATTERNS and tap.inside is None for tap in taps)


@contextmanager
def eager_attention(hf: HFModel) -> Iterator[None]:
    """Run the attention that computes its pattern, and put back the one there was.

    Examples:
        ```python
        with eager_attention(model.hf):
            ...
        ```
    """
    was = hf.config._attn_implementation
    with Temporary() as changes:
        changes.make(partial(_use_attention, hf, "eager"), partial(_use_attention, hf, was))
        yield


def _use_attention(hf: HFModel, kind: str) -> None:
    if hf._can_set_attn_implementation():
        hf.set_attn_implementation(kind)
    else:  # such a model reads its configuration at each pass
        hf.config._attn_implementation = kind
