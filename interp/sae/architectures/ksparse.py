"""What TopK, BatchTopK and Matryoshka share: latents kept by rank, and their gradients written out sparsely."""

from abc import ABC, abstractmethod
from itertools import accumulate, pairwise
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import linear

from hooks.errors import InvalidArgument
from interp.sae.architectures.chunked_gradients import sum_of_squares
from interp.sae.architectures.initialisation import random_rows
from interp.sae.architectures.objective import Objective, Step, measure_variance
from interp.sae.architectures.sae import SAE, convert_rows, weight
from interp.sae.data.distributed import batch_variance
from interp.sae.numerics.median import geometric_median
from interp.sae.numerics.ranking import Encoder, ExactRanking, Ranking
from interp.sae.numerics.sparse import Code, split_columns

Gradients = tuple[Float[Tensor, "latent d_model"], Float[Tensor, "latent d_model"], Float[Tensor, "latent"]]


def check_kept(k: float | int, k_aux: int | None, d_in: int, d_sae: int) -> int:
    """Check how many latents are kept, and return how many dead ones learn at once: half of `d_in` unless given.

    Raises:
        InvalidArgument: k is not between 1 and d_sae, or k_aux is less than 1.

    Examples:
        >>> check_kept(k=4, k_aux=None, d_in=16, d_sae=64)
        8
    """
    if not 1 <= k <= d_sae:
        raise InvalidArgument(f"k is {k}; it must be between 1 and d_sae = {d_sae}")
    if k_aux is not None and not k_aux >= 1:
        raise InvalidArgument(f"k_aux is {k_aux}; give at least 1, or aux_coefficient=0 for no auxiliary loss")
    return max(1, d_in // 2) if k_aux is None else k_aux


class KSparse(SAE, ABC):
    """Latents kept by rank reconstruct x, once for each of some nested prefixes; the dead learn from what is left.

        pre   = (x - b_dec) W_enc + b_enc,        f = ReLU(pre) where `code` keeps it, else 0
        x_m   = f_{1..m} W_dec,1..m + b_dec,      e = x - x_{d_sae}
        L     = sum_m E||x - x_m||^2 / V  +  alpha E||e - e_hat||^2 / V_e,        e_hat = f_aux W_dec

    m runs over `widths`, of which the last is d_sae. V = E||x - E x||^2 is measured once, on the sample given to
    `initialise`; V_e is the same for e, on each batch. f_aux keeps the `k_aux` largest of the dead latents (Gao et
    al. 2024, appendix A.2); e and V_e are held constant in the last term, which is 0 where no latent is dead. Rows
    of W_dec have unit norm and W_enc starts as its transpose. One batch costs one dense product, the encoder's;
    all the others are sparse.
    """

    centred: ClassVar[bool] = True

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        k: float | int,
        *,
        k_aux: int | None = None,
        aux_coefficient: float | int = 1 / 32,
        seed: int = 0,
    ) -> None:
        super().__init__(d_in, d_sae)
        self.k_aux = check_kept(k, k_aux, d_in, d_sae)
        self.k, self.aux_coefficient = k, weight("aux_coefficient", aux_coefficient)
        self.widths: tuple[int, ...] = (d_sae,)
        self.ranking: Ranking = ExactRanking()
        rows = random_rows(d_sae, d_in, seed)
        self.W_dec = nn.Parameter(rows)
        # A view of a (latent, d_model) block: the sparse gradient comes out in that order.
        self.W_enc = nn.Parameter(rows.clone().T)
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.b_dec = nn.Parameter(torch.zeros(d_in))
        self.register_buffer("variance", torch.ones(()))

    def settings(self) -> dict[str, Any]:
        """`k`, `k_aux` and `aux_coefficient`."""
        return {"k": self.k, "k_aux": self.k_aux, "aux_coefficient": self.aux_coefficient}

    def pre(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n latent"]:
        """What is ranked: (x - b_dec) W_enc + b_enc."""
        return linear(x - self.b_dec, self.W_enc.T, self.b_enc)

    @property
    def encoder(self) -> Encoder:
        """The map from x - b_dec to what is ranked."""
        return Encoder(self.W_enc.T, self.b_enc)


K = TypeVar("K", bound=KSparse)


class KSparseObjective(Objective[K], ABC):
    """L of `KSparse`: nested reconstructions in units of V, and the auxiliary loss of the dead latents."""

    unit_norm_decoder: ClassVar[bool] = True

    @abstractmethod
    def code(self, centred: Float[Tensor, "n d_model"]) -> Code:
        """The latents that training keeps of x - b_dec, their values after the ReLU."""

    def follow(self, values: Float[Tensor, "n ..."]) -> None:  # noqa: B027
        """Learn what inference needs to know of the values that training kept: nothing, where the two select alike."""

    @torch.no_grad()
    def initialise(self, rows: Float[Tensor, "n d_model"]) -> None:
        """Set V to the sample's variance E||x - E x||^2, and b_dec, if it is still 0, to its geometric median."""
        sae = self.sae
        sae.get_buffer("variance").copy_(measure_variance(sae, rows))
        if not bool(sae.b_dec.any()):
            sae.b_dec.copy_(geometric_median(convert_rows(sae, rows)))

    def loss(self, rows: Float[Tensor, "n d_model"], dead: Bool[Tensor, "latent"]) -> Step:
        """L as the equation says it, every matrix dense; `gradients` is its fast equal."""
        sae = self.sae
        pre = sae.pre(rows)
        with torch.no_grad():
            code = self.code(rows - sae.b_dec)
        f = pre.relu() * torch.zeros_like(pre).index_put((code.rows, code.latents), pre.new_ones(()))
        V = sae.get_buffer("variance")
        errors = [(rows - f[:, :m] @ sae.W_dec[:m] - sae.b_dec) for m in sae.widths]
        loss = torch.stack([e.pow(2).sum(1).mean() / V for e in errors]).sum()
        squared_error, e = errors[-1].pow(2).sum(1).mean(), errors[-1].detach()
        V_e = batch_variance(e)
        if bool(dead.any()) and sae.aux_coefficient and V_e > 0:
            top = torch.where(dead, pre, -torch.inf).topk(min(sae.k_aux, int(dead.sum())), dim=1)
            f_aux = torch.zeros_like(pre).scatter(1, top.indices, top.values.relu())
            loss = loss + sae.aux_coefficient * (e - f_aux @ sae.W_dec).pow(2).sum(1).mean() / V_e
        return Step.of(loss, squared_error, f)

    @torch.no_grad()
    def gradients(self, rows: Float[Tensor, "n d_model"], dead: Bool[Tensor, "latent"]) -> Step:
        """Fill `.grad` with the exact gradient of L on this batch and return what the batch did."""
        sae = self.sae
        centred = rows - sae.b_dec
        code = self.code(centred)
        self.follow(code.values)
        parts, errors, W_dec = split_columns(code, sae.widths), [centred], sae.W_dec.split(self._sizes())
        for part, W in zip(parts, W_dec, strict=True):
            errors.append(errors[-1] - part.decode(W))
        errors, V = errors[1:], sae.get_buffer("variance")
        missed = torch.stack([sum_of_squares(e) / len(e) for e in errors])
        onward = [g * (-2 / (len(rows) * V)) for g in accumulate(reversed(errors))][::-1]  # later x_m hold it too
        found = [backward(g, part, centred, W) for g, part, W in zip(onward, parts, W_dec, strict=True)]
        whole = found[0] if len(found) == 1 else (torch.cat(pieces) for pieces in zip(*found, strict=True))
        sae.W_dec.grad, for_W_enc, sae.b_enc.grad = whole
        aux_loss = self._auxiliary(errors[-1], centred, dead, for_W_enc)
        sae.W_enc.grad = for_W_enc.T
        sae.b_dec.grad = onward[0].sum(0) - sae.W_enc @ sae.b_enc.grad  # b_dec is added to x_hat and taken from x
        loss = missed.sum() / V + aux_loss
        return Step(loss, missed[-1], (code.values > 0).sum() / len(rows), code.most(code.values))

    def _sizes(self) -> list[int]:
        return [b - a for a, b in pairwise((0, *self.sae.widths))]

    def _auxiliary(self, e: Tensor, centred: Tensor, dead: Tensor, for_W_enc: Tensor) -> Tensor:
        """The term alpha E||e - e_hat||^2 / V_e, e_hat being what the dead latents make of e; adds its gradients."""
        sae = self.sae
        latents = dead.nonzero().flatten()
        e_variance = batch_variance(e)
        if not len(latents) or not sae.aux_coefficient or e_variance == 0:
            return e.new_zeros(())
        code = sae.ranking.of_rows(
            centred, Encoder(sae.W_enc.T[latents], sae.b_enc[latents]), min(sae.k_aux, len(latents))
        )
        code.values.relu_()
        W_dec = sae.W_dec[latents]
        left = e - code.decode(W_dec)
        scale = sae.aux_coefficient / e_variance
        found = backward(left * (-2 * scale / len(e)), code, centred, W_dec)
        for whole, part in zip((sae.W_dec.grad, for_W_enc, sae.b_enc.grad), found, strict=True):
            assert whole is not None
            whole.index_add_(0, latents, part)
        return scale * sum_of_squares(left) / len(left)


def backward(
    g: Float[Tensor, "n d_model"], code: Code, x: Float[Tensor, "n d_model"], W_dec: Float[Tensor, "latent d_model"]
) -> Gradients:
    """Gradients of W_dec, of W_enc transposed and of b_enc, from g, the loss's gradient at a decoding of ReLU latents.

    Examples:
        ```python
        W_dec.grad, W_enc.grad, b_enc.grad = backward(g, code, x, W_dec)
        ```
    """
    for_values = code.dots(g, W_dec).mul_(code.values > 0)
    return code.transposed_times(code.values, g), code.transposed_times(for_values, x), code.total(for_values)
