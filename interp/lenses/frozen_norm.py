"""The final norm as a linear map: with its divisor held at what it was, or along its slope."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import Model
from hooks.direction import wide
from hooks.errors import InvalidArgument
from hooks.summary import summarise
from hooks.view import norm_scale
from interp.circuits.norm_gain import divides, norm_gain
from interp.common.unembedding import output_rows


@dataclass(frozen=True, eq=False)
class Reader:
    """An affine map from the last stream x to a logit, exact at x: logit = g . x + constant, one per text.

    Attributes:
        norm: "frozen" or "linearised".
        g: what each part of the stream is multiplied by.
        constant: what is left: biases, and for a linearised norm its curvature.
        logit: the logit itself.
    """

    norm: str
    g: Float[Tensor, "example d_model"]
    constant: Float[Tensor, "example"]
    logit: Float[Tensor, "example"]

    __repr__ = summarise


Norm: TypeAlias = Callable[[Model, Float[Tensor, "example d_model"], Int[Tensor, "example"]], Reader]


@torch.no_grad()
def freeze_norm(model: Model, x: Float[Tensor, "example d_model"], tokens: Int[Tensor, "example"]) -> Reader:
    """Hold the divisor s of the norm at s(x): logit = U_t N(x) / s(x) + constant, N being linear.

    N is the norm's gain (`norm_gain`), centred if the norm centres. The constant is U_t norm(0) + b_t.
    A part's share is what it adds if the stream's length stays.

    Raises:
        InvalidArgument: a head that is no linear map, or caps its logits.
    """
    U, b = _rows(model, tokens)
    norm = model.final_norm
    if norm is None or not divides(norm):
        g, constant = U, b
    else:
        nothing = norm(torch.zeros_like(x[:1]))[0]
        g = torch.einsum("nd,ed->ne", U, norm_gain(norm, model.d_model).to(U)) / norm_scale(norm)(x).to(U)
        constant = U @ nothing.to(U) + b
    return Reader("frozen", g, constant, _logit(model, x, tokens))


def linearise_norm(model: Model, x: Float[Tensor, "example d_model"], tokens: Int[Tensor, "example"]) -> Reader:
    """Follow the slope of the whole map at x: g = d logit / d x, constant = logit - g . x.

    A part's share is what a little more of it does, the stream's length growing with it; since the norm undoes a
    change of length, the shares of all parts sum to almost nothing, and the constant to almost all.

    Raises:
        InvalidArgument: a head that is no linear map, or caps its logits.
    """
    with torch.inference_mode(False), torch.enable_grad():
        leaf = x.detach().clone().requires_grad_()
        said = _logit(model, leaf, tokens)
        (g,) = torch.autograd.grad(said.sum(), leaf)
    g = g.to(said)
    return Reader("linearised", g, (said - (g * x).sum(-1)).detach(), said.detach())


def _logit(model: Model, x: Tensor, tokens: Tensor) -> Tensor:
    """The logits of x, one token each; `InvalidArgument` where they are not the plain linear map's."""
    if getattr(model.hf.config.get_text_config(), "final_logit_softcapping", None) is not None:
        raise InvalidArgument(
            f"the logits of {model.name} are capped, so they are no sum of parts: attribute a model without a cap"
        )
    U, b = _rows(model, tokens)
    y = x if model.final_norm is None else model.final_norm(x)
    return (U * y).sum(-1) + b


def _rows(model: Model, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """`output_rows` in float32 at least: what a half-precision model writes is summed exactly."""
    U, b = output_rows(model, tokens)
    return wide(U), wide(b)
