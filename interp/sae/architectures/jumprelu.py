"""The JumpReLU sparse autoencoder: each latent has a threshold, learnt through straight-through gradients."""

import math
from typing import Any, ClassVar, Final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hooks.errors import InvalidArgument, nearest
from interp.sae.architectures.chunked_gradients import (
    BatchSums,
    Chunk,
    encode_chunks,
    encode_dense_chunks,
    sum_of_squares,
    zero_where_off,
)
from interp.sae.architectures.initialisation import random_rows
from interp.sae.architectures.objective import Objective, Step
from interp.sae.architectures.sae import SAE, check_positive, weight
from interp.sae.numerics.ranking import Encoder

PENALTIES: Final = ("step", "tanh", "quadratic")


class JumpReLU(SAE):
    """Latents above their thresholds pass whole, the others not at all (Rajamanoharan et al. 2024b).

        z     = x W_enc + b_enc,        f = z 1[z > theta],        x_hat = f W_dec + b_dec
        L     = E||x - x_hat||^2  +  lambda E s(f)

    with s one of three penalties: "step" is ||f||_0 = sum_i 1[z_i > theta_i]; "quadratic" is (2 / L0*) (||f||_0 -
    L0*)^2, L0* being `target_l0` (Gemma Scope 2); "tanh" is sum_i tanh(c f_i ||W_dec,i||), c being `tanh_scale`
    (Anthropic, January 2025). Thresholds are learnt by the straight-through derivatives of `jump` and `step`, with
    kernels of width `bandwidth` about the threshold, in units of z. They stay at or above 0, and in float32. The
    paper's bandwidth and first threshold are 0.001, for E||x||^2 = 1; the defaults here are those of SAELens. Adam's
    first beta is 0, as in the paper.

    `coefficient` is lambda. Where `pre_act_coefficient`, lambda_P, is above 0, dead latents are lifted by a further
    term of L, lambda_P E sum_dead ReLU(theta_i - z_i) ||W_dec,i||; Anthropic takes lambda_P = 3e-6.

    ```python
    train(JumpReLU(d_in=256, d_sae=2048, penalty="quadratic", target_l0=32), source, lr=7e-5)
    ```
    """

    architecture: ClassVar[str] = "jumprelu"
    threshold: Float[Tensor, "latent"]

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        *,
        penalty: str = "step",
        coefficient: float | int = 1.0,
        bandwidth: float | int = 0.05,
        initial_threshold: float | int = 0.01,
        target_l0: float | int | None = None,
        tanh_scale: float | int = 4.0,
        pre_act_coefficient: float | int = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(d_in, d_sae)
        if penalty not in PENALTIES:
            raise InvalidArgument(f"no penalty is called '{penalty}'; did you mean {nearest(penalty, PENALTIES)}?")
        if (penalty == "quadratic") != (target_l0 is not None) or not 0 < (target_l0 or 1) <= d_sae:
            raise InvalidArgument(
                f"penalty is '{penalty}' and target_l0 {target_l0}: the quadratic penalty, and it alone, needs a "
                f"target_l0 between 0 and d_sae = {d_sae}"
            )
        check_positive("tanh_scale", tanh_scale)
        if not (0 < bandwidth < math.inf and 0 <= initial_threshold < math.inf):
            raise InvalidArgument(
                f"bandwidth is {bandwidth} and initial_threshold {initial_threshold}: give finite numbers, a bandwidth "
                "above 0 and a threshold of at least 0"
            )
        self.penalty, self.coefficient, self.bandwidth, self.initial_threshold = (
            penalty,
            weight("coefficient", coefficient),
            bandwidth,
            initial_threshold,
        )
        self.target_l0, self.tanh_scale = target_l0, tanh_scale
        self.pre_act_coefficient = weight("pre_act_coefficient", pre_act_coefficient)
        self.W_dec = nn.Parameter(random_rows(d_sae, d_in, seed))
        self.W_enc = nn.Parameter(self.W_dec.detach().T.clone())
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.b_dec = nn.Parameter(torch.zeros(d_in))
        self.threshold = nn.Parameter(torch.full((d_sae,), initial_threshold))

    def encode(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n latent"]:
        """The latents f = z 1[z > theta], z = x W_enc + b_enc."""
        z = self._input(x) @ self.W_enc + self.b_enc
        return jump(z, self.threshold, self.bandwidth)

    def settings(self) -> dict[str, Any]:
        """What the constructor takes, the sizes and the seed apart."""
        names = ("penalty", "coefficient", "bandwidth", "initial_threshold", "target_l0", "tanh_scale")
        return {name: getattr(self, name) for name in (*names, "pre_act_coefficient")}

    def objective(self) -> "JumpReLUObjective":
        """Squared error and a penalty that reaches thresholds."""
        return JumpReLUObjective(self)

    def _apply(self, fn: Any, recurse: bool = True) -> "JumpReLU":  # a step of ~lr is lost on a threshold in bfloat16
        super()._apply(fn, recurse)
        self.threshold.data = self.threshold.data.float()
        return self


class JumpReLUObjective(Objective[JumpReLU]):
    """L = E||x - x_hat||^2 + lambda E s(f), and the lift of dead latents, as `JumpReLU` says."""

    betas: ClassVar[tuple[float, float]] = (0.0, 0.999)

    def loss(self, rows: Float[Tensor, "n d_model"], dead: Bool[Tensor, "latent"]) -> Step:
        """E||x - x_hat||^2 + lambda E s(f), and the lift of dead latents."""
        sae = self.sae
        z = rows @ sae.W_enc + sae.b_enc
        f = jump(z, sae.threshold, sae.bandwidth)
        squared_error = (rows - sae.decode(f)).pow(2).sum(1).mean()
        loss = squared_error + self.sparsity_share * sae.coefficient * self._sparsity(z, f).mean()
        if sae.pre_act_coefficient and bool(dead.any()):
            below = (sae.threshold - z).relu() * dead
            loss = loss + sae.pre_act_coefficient * (below @ sae.W_dec.norm(dim=1)).mean()
        return Step.of(loss, squared_error, f)

    @torch.no_grad()
    def gradients(self, rows: Float[Tensor, "n d_model"], dead: Bool[Tensor, "latent"]) -> Step:
        """Fill `.grad` with the exact gradient of the loss on this batch and return what the batch did.

        dL/dz = dL/df where z > theta; dL/dtheta sums -(theta dL/df + dL/dH) / epsilon over z within epsilon / 2 of
        theta, epsilon being the bandwidth. The lift of dead latents adds -c to dL/dz and c to dL/dtheta where
        z < theta, c = lambda_P ||W_dec,i|| / n.
        """
        sae = self.sae
        n, theta, sums = len(rows), sae.threshold.to(rows.dtype), BatchSums(rows, sae.d_sae)
        W_dec, W_enc, b_dec = torch.zeros_like(sae.W_dec), torch.zeros_like(sae.W_enc.T), torch.zeros_like(sae.b_dec)
        b_enc, for_theta, for_norms = (torch.zeros_like(sae.b_enc) for _ in range(3))
        norms = sae.W_dec.norm(dim=1)
        lift = sae.pre_act_coefficient / n * dead if sae.pre_act_coefficient and bool(dead.any()) else None
        by, floor = Encoder(sae.W_enc.T, sae.b_enc), theta - sae.bandwidth / 2
        for at, z in encode_chunks(rows, by, floor) if lift is None else encode_dense_chunks(rows, by):
            x, above = rows[at], z.values - z.of(theta)
            f = zero_where_off(z.values, above)
            error = z.times(f, sae.W_dec).add_(sae.b_dec).sub_(x)
            sums.add(z, f, error)
            g = error.mul_(2 / n)
            for_f = z.dots(g, sae.W_dec)
            for_step = self._penalise(z, f, norms, n, sums, for_f, for_norms)
            below = None if lift is None else above.clamp(max=0)
            near = above.abs_().lt_(sae.bandwidth / 2)
            for_theta += (z.total(near * for_f) * theta + z.total(near.mul_(for_step))) / -sae.bandwidth
            for_z = zero_where_off(for_f, f)
            if lift is not None and below is not None:
                short = z.total(below)
                sums.loss = sums.loss - short @ (lift * norms)
                for_norms -= lift * short
                raised = below.lt_(0)
                for_theta += lift * norms * z.total(raised)
                for_z -= lift * norms * raised
            z.add_transposed(W_dec, f, g)
            z.add_transposed(W_enc, for_z, x)
            b_enc += z.total(for_z)
            b_dec += g.sum(0)
        W_dec.addcmul_(sae.W_dec, (for_norms / norms)[:, None])
        sae.W_dec.grad, sae.W_enc.grad, sae.b_enc.grad, sae.b_dec.grad = W_dec, W_enc.T, b_enc, b_dec
        sae.threshold.grad = for_theta.to(sae.threshold.dtype)
        return sums.step()

    @torch.no_grad()
    def constrain(self) -> None:
        """Keep thresholds at or above 0: with one below 0, negative latents would pass."""
        self.sae.threshold.clamp_(min=0)

    def _penalise(
        self, z: Chunk, f: Tensor, norms: Tensor, n: int, sums: BatchSums, for_f: Tensor, for_norms: Tensor
    ) -> Tensor:
        """Add a chunk's penalty to the loss, and its gradients to those of f and of norms; returns dL/dH(z - theta)."""
        sae = self.sae
        weight = self.sparsity_share * sae.coefficient / n
        if sae.penalty == "tanh":
            saturated = (f * z.of(sae.tanh_scale * norms)).tanh_()
            sums.loss = sums.loss + weight * saturated.sum()
            slope = saturated.pow_(2).neg_().add_(1).mul_(weight * sae.tanh_scale)
            for_norms += z.total(slope * f)
            for_f += slope.mul_(z.of(norms))
            return f.new_zeros(())
        if sae.target_l0 is None:
            sums.loss = sums.loss + weight * f.count_nonzero().to(f.dtype)
            return f.new_tensor(weight)
        excess = z.per_row((f > 0).to(f.dtype)) - sae.target_l0
        sums.loss = sums.loss + weight * 2 / sae.target_l0 * sum_of_squares(excess)
        return z.by_row(excess * (weight * 4 / sae.target_l0))

    def _sparsity(self, z: Float[Tensor, "n latent"], f: Float[Tensor, "n latent"]) -> Float[Tensor, "n"]:
        """s(f) of each row."""
        sae = self.sae
        if sae.penalty == "tanh":
            return (sae.tanh_scale * f * sae.W_dec.norm(dim=1)).tanh().sum(1)
        l0 = step(z, sae.threshold, sae.bandwidth).sum(1)
        if sae.target_l0 is None:
            return l0
        return 2 / sae.target_l0 * (l0 - sae.target_l0).pow(2)


def step(
    z: Float[Tensor, "*n latent"], threshold: Float[Tensor, "latent"], bandwidth: float
) -> Float[Tensor, "*n latent"]:
    """The step H(z - theta), with dH/dtheta = -K((z - theta) / epsilon) / epsilon, and dH/dz = 0.

    K is 1 on (-1/2, 1/2) and 0 outside, so the mean of dH/dtheta over rows estimates minus the density of z at theta
    (Rajamanoharan et al. 2024b, equations 11 and 12). Give z from before the jump: after it, the lower half of the
    kernel would be lost.
    """
    return _Step.apply(z, threshold, bandwidth)  # pyright: ignore[reportReturnType]


def jump(
    z: Float[Tensor, "*n latent"], threshold: Float[Tensor, "latent"], bandwidth: float
) -> Float[Tensor, "*n latent"]:
    """JumpReLU(z) = z H(z - theta), with df/dtheta = -(theta / epsilon) K((z - theta) / epsilon), and df/dz = H."""
    return _Jump.apply(z, threshold, bandwidth)  # pyright: ignore[reportReturnType]


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, threshold: Tensor, bandwidth: float | int) -> Tensor:
        ctx.save_for_backward(z, threshold)
        ctx.bandwidth = bandwidth
        return (z > threshold).to(z.dtype)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[None, Tensor, None]:
        z, threshold = ctx.saved_tensors
        near = ((z - threshold) / ctx.bandwidth).abs() < 0.5
        return None, (near * outer[0]).flatten(0, -2).sum(0).to(threshold.dtype) / -ctx.bandwidth, None


class _Jump(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, threshold: Tensor, bandwidth: float | int) -> Tensor:
        ctx.save_for_backward(z, threshold)
        ctx.bandwidth = bandwidth
        return z * (z > threshold)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, Tensor, None]:
        z, threshold = ctx.saved_tensors
        near = ((z - threshold) / ctx.bandwidth).abs() < 0.5
        total = (near * outer[0]).flatten(0, -2).sum(0).to(threshold.dtype)
        return (z > threshold) * outer[0], total * threshold / -ctx.bandwidth, None
