"""What TopK, BatchTopK and Matryoshka share: latents kept by rank, and their gradients written out sparsely."""

from abc import ABC, abstractmethod
from functools import reduce
from itertools import accumulate
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import linear

from interp.sae.initial import random_rows
from interp.sae.median import geometric_median
from interp.sae.parallel import variance
from interp.sae.sae import SAE, Step
from interp.sae.sparse import Transposed, largest_per_latent, row_dots, times_rows, total_per_latent

Gradients = tuple[Float[Tensor, "latent d_model"], Float[Tensor, "latent d_model"], Float[Tensor, "latent"]]


class KSparse(SAE, ABC):
    """Latents kept by rank reconstruct x, once for each of some nested prefixes; the dead learn from what is left.

        pre   = (x - b_dec) W_enc + b_enc,        f = ReLU(pre) where `select` keeps it, else 0
        x_m   = f_{1..m} W_dec,1..m + b_dec,      e = x - x_{d_sae}
        L     = sum_m E||x - x_m||^2 / V  +  alpha E||e - e_hat||^2 / V_e,        e_hat = f_aux W_dec

    m runs over `widths`, of which the last is d_sae. V = E||x - E x||^2 is measured once, on the sample given to
    `initialise`; V_e is the same for e, on each batch. f_aux keeps the `k_aux` largest of the dead latents (Gao et
    al. 2024, appendix A.2); e and V_e are held constant in the last term, which is 0 where no latent is dead. Rows
    of W_dec have unit norm and W_enc starts as its transpose. One batch costs one dense product, the encoder's;
    all the others are sparse.
    """

    unit_norm_decoder: ClassVar[bool] = True
    centred: ClassVar[bool] = True

    def __init__(
        self, d_in: int, d_sae: int, k: float | int, *, k_aux: int | None, aux_coefficient: float | int, seed: int
    ) -> None:
        super().__init__(d_in, d_sae)
        if not 1 <= k <= d_sae:
            raise ValueError(f"k is {k}; it must lie between 1 and d_sae = {d_sae}.")
        self.k, self.aux_coefficient = k, aux_coefficient
        self.k_aux = max(1, d_in // 2) if k_aux is None else k_aux
        self.widths: tuple[int, ...] = (d_sae,)
        rows = random_rows(d_sae, d_in, seed)
        self.W_dec = nn.Parameter(rows)
        # A view of a (latent, d_model) block: the sparse gradient comes out in that order.
        self.W_enc = nn.Parameter(rows.clone().T)
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.b_dec = nn.Parameter(torch.zeros(d_in))
        self.register_buffer("variance", torch.ones(()))

    @abstractmethod
    def select(self, pre: Float[Tensor, "n latent"]) -> tuple[Float[Tensor, "n ..."], Int[Tensor, "n ..."]]:
        """The latents that training keeps: values after the ReLU, and their indices; 0 in spare places."""

    def follow(self, values: Float[Tensor, "n ..."]) -> None:  # noqa: B027
        """Learn what inference needs to know of the values that training kept: nothing, where the two select alike."""

    def settings(self) -> dict[str, Any]:
        """`k`, `k_aux` and `aux_coefficient`."""
        return {"k": self.k, "k_aux": self.k_aux, "aux_coefficient": self.aux_coefficient}

    @torch.no_grad()
    def initialise(self, rows: Float[Tensor, "n d_model"]) -> None:
        """Set V to the sample's variance E||x - E x||^2, and b_dec, if it is still 0, to its geometric median."""
        self.get_buffer("variance").copy_(self.variance_of(rows))
        if not bool(self.b_dec.any()):
            self.b_dec.copy_(geometric_median(self.checked(rows)))

    def loss(self, rows: Float[Tensor, "n d_model"], dead: Bool[Tensor, "latent"]) -> Step:
        """L as the equation says it, every matrix dense; `gradients` is its fast equal."""
        pre = self.pre(rows)
        values, indices = self.select(pre)
        f = torch.zeros_like(pre).scatter(1, indices, values)
        V = self.get_buffer("variance")
        errors = [(rows - f[:, :m] @ self.W_dec[:m] - self.b_dec) for m in self.widths]
        loss = torch.stack([e.pow(2).sum(1).mean() / V for e in errors]).sum()
        squared_error, e = errors[-1].pow(2).sum(1).mean(), errors[-1].detach()
        V_e = variance(e)
        if bool(dead.any()) and self.aux_coefficient and V_e > 0:
            top = torch.where(dead, pre, -torch.inf).topk(min(self.k_aux, int(dead.sum())), dim=1)
            f_aux = torch.zeros_like(pre).scatter(1, top.indices, top.values.relu())
            loss = loss + self.aux_coefficient * (e - f_aux @ self.W_dec).pow(2).sum(1).mean() / V_e
        return Step.of(loss, squared_error, f)

    @torch.no_grad()
    def gradients(self, rows: Float[Tensor, "n d_model"], dead: Bool[Tensor, "latent"]) -> Step:
        """Fill `.grad` with the exact gradient of L on this batch and return what the batch did."""
        centred = rows - self.b_dec
        pre = linear(centred, self.W_enc.T, self.b_enc)
        values, indices = self.select(pre)
        self.follow(values)
        groups = self._groups(values, indices)
        errors = self._errors(centred, groups, indices)
        squares = torch.stack([e.pow(2).sum(1).mean() for e in errors])
        V = self.get_buffer("variance")
        g = [e * (-2 / (len(rows) * V)) for e in errors]  # dL/dx_m
        for_latents = _backward(g, groups, indices, centred, self.W_dec)
        aux_loss, for_dead = self._auxiliary(errors[-1], centred, pre, dead)
        W_dec, W_enc, b_enc = (a if b is None else a + b for a, b in zip(for_latents, for_dead, strict=True))
        self.W_dec.grad, self.W_enc.grad, self.b_enc.grad = W_dec, W_enc.T, b_enc
        self.b_dec.grad = reduce(torch.add, g).sum(0) - self.W_enc @ b_enc  # b_dec is added to x_hat and taken from x
        loss = squares.sum() / V + aux_loss
        largest = largest_per_latent(values, indices, self.d_sae)
        return Step(loss, squares[-1], (values > 0).sum() / len(rows), largest)

    def pre(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n latent"]:
        """What is ranked: (x - b_dec) W_enc + b_enc."""
        return linear(x - self.b_dec, self.W_enc.T, self.b_enc)

    def _groups(self, values: Tensor, indices: Tensor) -> list[Tensor]:
        """The values of each prefix that the one before it lacks; themselves, where there is one prefix only."""
        if len(self.widths) == 1:
            return [values]
        starts = (0, *self.widths[:-1])
        return [values * ((indices >= a) & (indices < b)) for a, b in zip(starts, self.widths, strict=True)]

    def _errors(self, centred: Tensor, groups: list[Tensor], indices: Tensor) -> list[Tensor]:
        """x - x_m for each prefix."""
        errors, left = [], centred
        for group in groups:
            left = left - times_rows(group, indices, self.W_dec)
            errors.append(left)
        return errors

    def _auxiliary(
        self, e: Tensor, centred: Tensor, pre: Tensor, dead: Tensor
    ) -> tuple[Tensor, Gradients | tuple[None, None, None]]:
        """The term alpha E||e - e_hat||^2 / V_e and its gradients, e_hat being what the dead latents make of e."""
        latents = dead.nonzero().flatten()
        e_variance = variance(e)
        if not len(latents) or not self.aux_coefficient or e_variance == 0:
            return e.new_zeros(()), (None, None, None)
        values, places = pre[:, latents].topk(min(self.k_aux, len(latents)), sorted=False)
        values.relu_()
        indices = latents[places]
        left = e - times_rows(values, indices, self.W_dec)
        scale = self.aux_coefficient / e_variance
        gradients = _backward([left * (-2 * scale / len(e))], [values], indices, centred, self.W_dec)
        return scale * left.pow(2).sum(1).mean(), gradients


def _backward(g: list[Tensor], groups: list[Tensor], indices: Tensor, centred: Tensor, W_dec: Tensor) -> Gradients:
    """Gradients of W_dec, of W_enc transposed and of b_enc, from g, the loss's gradient at each prefix's decoding.

    A latent takes part in every prefix that holds it, so what it gets is the sum of theirs.
    """
    d_sae = len(W_dec)
    by_latent = Transposed(indices, d_sae)
    onward, for_W_dec, g_values = [*accumulate(reversed(g))], [], []
    for group, g_m in zip(reversed(groups), onward, strict=True):
        for_W_dec.append(by_latent.times(group, g_m))
        g_values.append(row_dots(g_m, indices, W_dec) * (group > 0))
    total = reduce(torch.add, g_values)
    return (
        reduce(torch.add, for_W_dec),
        by_latent.times(total, centred),
        total_per_latent(total, indices, d_sae),
    )
