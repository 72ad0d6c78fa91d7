"""Views: what of a module's tensor is a site's value, and the tensor again with that value changed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hooks.offload import place_of
from hooks.summary import summarise
from hooks.temporary import grad_mode
from hooks.weights import has_weight, shape_of

Derive = Callable[[Float[Tensor, "*n d_model"]], Float[Tensor, "*n 1"]]


@final
@dataclass(frozen=True)
class View:
    """What of a tensor is a site's value: some features of the last axis, times a factor, split into heads.

    Attributes:
        rows: which features of the last axis are the site's; None for all.
        factor: what the model multiplies the tensor by before it is used, a number or one for each feature.
        heads: how many heads the last axis holds, when it is to be split.
        derive: for a value computed from the tensor and not part of it, which can be read and not written.
    """

    rows: Int[Tensor, "n"] | None = None
    factor: float | Float[Tensor, "..."] = 1.0
    heads: int | None = None
    derive: Derive | None = None

    __repr__ = summarise

    def read(self, raw: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return the site's value in a tensor.

        Examples:
            >>> import torch
            >>> View(heads=2).read(torch.arange(4.0))
            tensor([[0., 1.],
                    [2., 3.]])
        """
        if self.derive is not None:
            return self.derive(raw)
        value = raw if _is_one(self.factor) else raw * self.factor
        value = value if self.rows is None else value.index_select(-1, self.rows)
        return value if self.heads is None else value.unflatten(-1, (self.heads, -1))

    def write(self, raw: Float[Tensor, "..."], value: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return the tensor in which the site has another value.

        Examples:
            >>> import torch
            >>> View(torch.tensor([1])).write(torch.zeros(3), torch.ones(1))
            tensor([0., 1., 0.])
        """
        value = value if _is_one(self.factor) else value / self.factor
        value = value if self.heads is None else value.flatten(-2)
        return value if self.rows is None else raw.index_copy(-1, self.rows, value)


def _is_one(factor: float | Tensor) -> bool:
    return not isinstance(factor, Tensor) and factor == 1.0


def norm_scale(norm: nn.Module) -> Derive:
    """Return the function that computes, in float32 or better, the divisor of a normalisation from its input.

    LayerNorm divides by sqrt(mean((x - mean(x))^2) + eps), RMSNorm by sqrt(mean(x^2) + eps).

    Examples:
        ```python
        norm_scale(nn.LayerNorm(8))(torch.randn(1, 3, 8)).shape  # 1 3 1
        ```
    """
    eps = getattr(norm, "eps", None) or getattr(norm, "variance_epsilon", None) or _eps_without_weights(norm)
    centred = _ignores_the_mean(norm)

    def scale(x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n 1"]:
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        x = x - x.mean(dim=-1, keepdim=True) if centred else x
        return (x.square().mean(dim=-1, keepdim=True) + eps).sqrt()

    return scale


@grad_mode(False)
def _ignores_the_mean(norm: nn.Module) -> bool:
    """Tell LayerNorm from RMSNorm by what it does: LayerNorm does not see a constant added to its input."""
    x = _ramp(norm)
    plain, shifted = norm(x).float(), norm(x + 1.0).float()
    return bool((plain - shifted).norm() < 0.1 * plain.norm())


@grad_mode(False)
def _eps_without_weights(norm: nn.Module) -> float:
    """OLMo's norm does not say its eps, and has no weights: var / (var + eps) is the variance of what it gives."""
    if any(True for _ in norm.parameters()):
        return 0.0
    x = 1e-2 * _ramp(norm)
    var = x.var(correction=0)
    return float(var / norm(x).var(correction=0) - var)


def _ramp(norm: nn.Module) -> Float[Tensor, "d_model"]:
    """From -1 to 1, in the width and precision of a norm; one without weights says its width or takes any."""
    if not has_weight(norm):
        return torch.linspace(-1.0, 1.0, vars(norm).get("normalized_shape", (64,))[-1])
    device, dtype = place_of(norm)
    return torch.linspace(-1.0, 1.0, shape_of(norm)[-1], dtype=dtype, device=device)
