"""Backward rules: changes of a model's gradient, none of which changes a value."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hooks import Model
from hooks.errors import InvalidArgument
from hooks.norms import Part, norm_after, norm_before
from hooks.site import Site, attn_out, mlp_out
from interp.circuits.edges.norm import Norm, norm_of

_NORMS_OF_QK = tuple(f"{of}_{norm}" for of in ("q", "k", "query", "key") for norm in ("norm", "layernorm"))
_ACTIVATIONS = ("act", "act_fn", "activation_fn", "activation", "activation_func")
_ATTENTION = "interp_backward_rules"


@dataclass(frozen=True)
class BackwardRules:
    """Which rules hold in a backward pass.

    Attributes:
        norms_held: the divisor of every norm is a constant: of the stream's, and of those of queries and keys.
        activations_identity: the derivative of an activation is phi(x) / x. Of a ReLU it is that already.
        gates_halved: each factor of gate * value gets half of its gradient, so that the two are not counted twice.
        patterns_held: attention patterns are constants.
        temperature: of the softmax that the gradient goes through; 1 is the model's own.
        attention_split: pattern and values each get half of their gradient, queries and keys a quarter.
    """

    norms_held: bool = False
    activations_identity: bool = False
    gates_halved: bool = False
    patterns_held: bool = False
    temperature: float = 1.0
    attention_split: bool = False

    @property
    def attention(self) -> bool:
        """Whether the gradient of attention is changed."""
        return self.patterns_held or self.attention_split or self.temperature != 1.0

    @contextmanager
    def apply(self, model: Model) -> Iterator[None]:
        """Inside the block, the gradients of a model are those of the rules.

        Raises:
            InvalidArgument: a norm whose divisor is not known, or attention that cannot be replaced.

        Examples:
            ```python
            with BackwardRules(norms_held=True).apply(model):
                ...
            ```
        """
        with ExitStack() as stack:
            for layer in range(model.n_layers):
                for hook in _hooks_of_block(self, model, layer):
                    stack.callback(hook.remove)
            if self.norms_held and model.final_norm is not None:
                stack.callback(_hold_norm(norm_of(model.final_norm, model.d_model)).remove)
            if self.attention:
                stack.enter_context(_attention_by(self, model))
            yield


def _hooks_of_block(rules: BackwardRules, model: Model, layer: int) -> Iterator[Any]:
    part = model.parts(layer)
    if rules.norms_held:
        for module in dict.fromkeys(_norms_around(model, layer)):
            yield _hold_norm(norm_of(module, model.d_model))
        for name in _NORMS_OF_QK:
            module = getattr(part.get("attn"), name, None)
            if isinstance(module, nn.Module) and (weight := getattr(module, "weight", None)) is not None:
                yield _hold_norm(norm_of(module, weight.shape[-1]))
    if rules.activations_identity:
        mlp = part.get("mlp")
        for name, module in [] if mlp is None else mlp.named_modules():
            if name.rpartition(".")[2] in _ACTIVATIONS:
                yield module.register_forward_hook(_identity_rule)
    if rules.gates_halved and "mlp.out" in part and ("mlp.gate" in part or "mlp.gate_up" in part):
        yield part["mlp.out"].register_forward_pre_hook(lambda _m, args: (halve_gradient(args[0]), *args[1:]))


def _norms_around(model: Model, layer: int) -> Iterator[nn.Module | None]:
    parts: tuple[tuple[Part, Site], ...] = (("attn", attn_out[layer]), ("mlp", mlp_out[layer]))
    for part, added in parts:
        if added in model.taps:
            yield from (norm_before(model, layer, part), norm_after(model, layer, part))


def halve_gradient(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """x, with half of its gradient."""
    half = x / 2
    return half + (x - half).detach()


def _same_value(y: Tensor, line: Tensor) -> Tensor:
    """The value of y with the gradient of a line."""
    return y.detach() + (line - line.detach())


def _hold_norm(norm: Norm) -> Any:
    def hook(_: nn.Module, args: tuple[Any, ...], y: Tensor) -> Tensor:
        x = args[0]
        return _same_value(y, norm.linear(x, norm.scale(x.detach())))

    if norm.module is None:
        return nn.Identity().register_forward_hook(lambda *_: None)
    if norm.gain is None:
        norm.scale(torch.zeros(1))
    return norm.module.register_forward_hook(hook)


def _identity_rule(module: nn.Module, args: tuple[Any, ...], y: Tensor) -> Tensor:
    x = args[0].detach()
    away = torch.where(x.abs() < 1e-4, torch.full_like(x, 1e-4), x)
    return _same_value(y, module.forward(away) / away * args[0])


@contextmanager
def _attention_by(rules: BackwardRules, model: Model) -> Iterator[None]:
    """Run attention through one function of ours, whose values are those of the model's own."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    hf = model.hf
    if not hf._can_set_attn_implementation():
        raise InvalidArgument(
            f"{type(hf).__name__} does not let its attention be replaced, so its gradient cannot follow these rules: "
            "take relp() with patterns free, or eap_ig()"
        )
    AttentionInterface.register(_ATTENTION, _attend(rules))
    AttentionMaskInterface.register(_ATTENTION, eager_mask)
    was = hf.config._attn_implementation
    hf.set_attn_implementation(_ATTENTION)
    try:
        yield
    finally:
        hf.set_attn_implementation(was)


def _attend(rules: BackwardRules) -> Callable[..., tuple[Tensor, Tensor]]:
    def attend(
        _module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        scaling: float | None = None,
        softcap: float | None = None,
        **_: Any,
    ) -> tuple[Tensor, Tensor]:
        shared = query.shape[1] // key.shape[1]
        key, value = (x.repeat_interleave(shared, dim=1) if shared > 1 else x for x in (key, value))
        scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
        scores = scores if not softcap else (scores / softcap).tanh() * softcap
        if rules.attention_split:
            scores = halve_gradient(scores)  # of the half of the pattern's gradient, so that q and k get a quarter
        scores = scores if attention_mask is None else scores + attention_mask[..., : key.shape[-2]]
        pattern = scores.softmax(-1, dtype=torch.promote_types(torch.float32, scores.dtype)).to(value.dtype)
        if rules.patterns_held:
            pattern = pattern.detach()
        elif rules.temperature != 1.0:
            pattern = _same_value(pattern, _pull_back_softmax(scores, rules.temperature))
        z = pattern @ value
        z = halve_gradient(z) if rules.attention_split else z
        return z.transpose(1, 2).contiguous(), pattern

    return attend


def _pull_back_softmax(scores: Tensor, temperature: float) -> Tensor:
    """J s with J the Jacobian diag(p) - p pᵀ of the softmax at another temperature, p = softmax(s / temperature)."""
    p = (scores.detach() / temperature).softmax(-1)
    finite = scores.masked_fill(p == 0, 0.0)
    return p * (finite - (p * finite).sum(-1, keepdim=True))
