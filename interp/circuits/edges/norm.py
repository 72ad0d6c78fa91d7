"""A norm of the residual stream in closed form: its divisor, what it does when that is held, and its gradient."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hooks.errors import InvalidArgument
from hooks.offload import place_of
from hooks.view import norm_scale


@dataclass(frozen=True, eq=False)
class Norm:
    """y = g * c(x) / s(x) + b, with c the identity (RMSNorm) or x - mean(x) (LayerNorm). Made by `norm_of`.

    Attributes:
        module: the norm itself, or None where the stream is read as it is.
        gain: g; None where this norm is not of that form, so that only its module knows what it does.
        centred: whether c subtracts the mean.
        divisor: s.
    """

    module: nn.Module | None
    gain: Float[Tensor, "d_model"] | None
    centred: bool
    divisor: Callable[[Tensor], Tensor] | None

    def __call__(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n d_model"]:
        """Apply it, without the hooks of its module."""
        return x if self.module is None else self.module.forward(x)

    def scale(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n 1"]:
        """Return s(x).

        Raises:
            InvalidArgument: a norm that is not of the form above.

        Examples:
            ```python
            norm.scale(x)
            ```
        """
        if self.divisor is None or self.gain is None:
            raise InvalidArgument(
                f"{type(self.module).__name__} is no LayerNorm or RMSNorm, so its divisor cannot be held: take a slope "
                "without that rule, such as eap_ig()"
            )
        return self.divisor(x).to(x)

    def linear(self, e: Float[Tensor, "*n d_model"], s: Float[Tensor, "... 1"]) -> Float[Tensor, "*n d_model"]:
        """Return g * c(e) / s: what the norm makes of a part of its input while its divisor is held at s.

        Examples:
            ```python
            norm.linear(part, norm.scale(whole))
            ```
        """
        assert self.gain is not None
        return self.gain.to(e) * self._centre(e) / s

    def share_change(
        self, here: Float[Tensor, "*n head d_model"], there: Float[Tensor, "*n head d_model"]
    ) -> Float[Tensor, "*n head d_model"]:
        """Return what each part's change does to the norm of the sum of all parts, y in one run and y' in another.

        With Δ the change of a part, ȳ = (y + y') / 2 and 1/s' - 1/s = -(s'² - s²) / (s s' (s + s')), where s'² - s² is
        2 mean(c(ȳ) c(Δ)), summed over parts:

            g (c(Δ) (1/s + 1/s') / 2 - c(ȳ) 2 mean(c(ȳ) c(Δ)) / (s s' (s + s')))

        The parts sum to all of norm(y') - norm(y), and as y' nears y each nears the norm's Jacobian at y times its Δ.

        Raises:
            InvalidArgument: a norm that is not of the form above.

        Examples:
            ```python
            norm.share_change(heads, heads_of_another_run)
            ```
        """
        y, other = here.sum(-2, keepdim=True), there.sum(-2, keepdim=True)
        s, s_other = self.scale(y), self.scale(other)
        delta, mid = self._centre(there - here), self._centre((y + other) / 2)
        grows = 2 * (mid * delta).mean(-1, keepdim=True)
        assert self.gain is not None
        plain, divided = delta * (1 / s + 1 / s_other) / 2, mid * grows / (s * s_other * (s + s_other))
        return self.gain.to(delta) * (plain - divided)

    def pull_back(
        self, x: Float[Tensor, "*n d_model"], slope: Float[Tensor, "..."], *, held: bool = False
    ) -> Float[Tensor, "..."]:
        """Return the gradient at the norm's input x of what has this slope at its output.

        With n = c(x) / s and u = g * slope: (c(u) - n mean(n u)) / s, and c(u) / s with the divisor held.
        `slope` may have further axes before those of x.

        Examples:
            ```python
            norm.pull_back(x, torch.ones_like(x))
            ```
        """
        if self.module is None:
            return slope
        if self.gain is None and not held:
            return self._by_autograd(x, slope)
        s = self.scale(x)
        u = self.gain.to(slope) * slope if self.gain is not None else slope
        if held:
            return self._centre(u) / s
        n = self._centre(x) / s
        return (self._centre(u) - n * (n * u).mean(-1, keepdim=True)) / s

    def _centre(self, x: Tensor) -> Tensor:
        return x - x.mean(-1, keepdim=True) if self.centred else x

    def _by_autograd(self, x: Tensor, slope: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().expand(slope.shape).requires_grad_()
            return torch.autograd.grad(self(x), x, slope)[0]


@torch.no_grad()
def norm_of(module: nn.Module | None, d_model: int) -> Norm:
    """Return the closed form of a norm module, checked against what it gives.

    Examples:
        ```python
        norm_of(nn.LayerNorm(8), 8).centred  # True
        ```
    """
    if module is None or isinstance(module, nn.Identity):
        return Norm(None, None, centred=False, divisor=None)
    x = torch.randn(8, d_model, generator=torch.Generator().manual_seed(0)).to(*place_of(module))
    zero = module.forward(torch.zeros_like(x))
    divisor = norm_scale(module)
    for centred in (True, False):
        c = x - x.mean(-1, keepdim=True) if centred else x
        largest = c.abs().argmax(0, keepdim=True)
        gain = ((module.forward(x) - zero) * divisor(x) / c).gather(0, largest)[0]
        said = gain * c / divisor(x) + zero
        if torch.allclose(said.to(x), module.forward(x), rtol=2e-2 if x.dtype.itemsize < 4 else 1e-4, atol=1e-4):
            return Norm(module, gain, centred, divisor)
    return Norm(module, None, centred=False, divisor=None)
