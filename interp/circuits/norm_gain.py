"""The gain of a norm: the linear map that it is while its divisor is held."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hooks.offload import place_of
from hooks.view import norm_scale


def divides(norm: nn.Module | None) -> bool:
    """Whether there is a norm that divides a stream; an identity, as small models have in its place, does not.

    Examples:
        >>> divides(nn.LayerNorm(4)), divides(nn.Identity()), divides(None)
        (True, False, False)
    """
    return norm is not None and not isinstance(norm, nn.Identity)


@torch.no_grad()
def norm_gain(norm: nn.Module | None, d_model: int) -> Float[Tensor, "d_model d_model"]:
    """What a norm does to a stream but for its divisor: N(e) = (norm(e) - norm(0)) s(e), for unit vectors e.

    Row e is N(e). N is linear: x N / s(x) + norm(0) is norm(x). Without a norm, or with an identity, N(e) = e.
    """
    if norm is None or not divides(norm):
        return torch.eye(d_model)
    unit = torch.eye(d_model).to(*place_of(norm))
    return (norm(unit) - norm(torch.zeros_like(unit))) * norm_scale(norm)(unit).to(unit)
