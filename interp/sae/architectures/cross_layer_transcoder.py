"""The cross-layer transcoder: latents read at one feed-forward layer that write to it and to all later ones."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from hooks import Direction
from hooks.errors import InvalidArgument, OutOfRange
from interp.sae.architectures.batch_topk import RATE, set_threshold
from interp.sae.architectures.chunked_gradients import Chunk, encode_chunks, sum_of_squares, zero_where_off
from interp.sae.architectures.jumprelu import jump
from interp.sae.architectures.sae import SAE, Objective, Step, check_count, check_positive, measure_variance, weight
from interp.sae.data.distributed import any_process, current_process, kth_largest, minimum
from interp.sae.data.normalisation import Normalisation
from interp.sae.numerics.ranking import BLOCK, SAMPLE, Encoder, blocks, guess_threshold
from interp.sae.numerics.sparse import Code, times_rows
from interp.sae.numerics.top_k import places_above


class CrossLayerTranscoder(SAE):
    """Latents of every feed-forward layer, each of which writes to its own layer and to later ones (Ameisen 2025).

        z^l   = x^l W_enc^l^T + b_enc^l,        a^l = z^l 1[z^l > theta^l]
        y^l   = sum_{i <= l} a^i W_dec^{i->l} + b_dec^l  (+ x^l W_skip^l)
        L     = E sum_l ||y^l - y_hat^l||^2  +  lambda E sum_i tanh(c ||W_dec,i|| a_i)
                + lambda_P E sum_dead ReLU(theta_i - z_i) ||W_dec,i||

    x^l is what layer l reads and y^l what it writes, `[n 2*layer d_model]` in a source's row: all that is read, then
    all that is written, as `across` gives them. ||W_dec,i|| is the norm of a latent's decoders to all its layers
    together, E the mean over tokens. Thresholds learn as those of `JumpReLU` do. With `k` given, training keeps the n k
    largest latents of a batch of n tokens, of all layers together, there is no tanh, L is in units of the variance of
    y, and ||W_dec,i|| is 1 (BatchTopK); theta is then the mean over batches of the smallest latent kept, by the final
    weights. Latents are numbered through: the first d_sae / n_layers are layer 0's.

    Args:
        d_in: width of what a layer reads and writes.
        d_sae: latents of all layers together, as many for each.
        n_layers: feed-forward layers.
        k: latents per token, of all layers together; None for learnt thresholds.
        reach: to how many layers a latent writes, its own included; all later ones unless given. 1 makes
            transcoders of one layer each, trained together.
        coefficient: lambda; a trainer raises it from 0 (`Schedule.sparsity_warm_up`).
        bandwidth: of the kernels that thresholds learn through.
        initial_threshold: theta at the start.
        tanh_scale: c.
        pre_act_coefficient: lambda_P.
        skip: whether a linear path is learnt as well.
        seed: of the first weights.

    Examples:
        ```python
        places = [(model, site[i]) for site in (mlp_in, mlp_out) for i in range(model.n_layers)]
        clt = CrossLayerTranscoder(model.d_model, 8 * 2048, n_layers=8, k=64)
        train(clt, normalised(source := across(places, texts), rms_scaled(source)))
        ```
    """

    architecture: ClassVar[str] = "cross_layer_transcoder"
    transcodes: bool = True
    threshold: Float[Tensor, "layer latent"]

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        n_layers: int,
        *,
        k: float | int | None = None,
        reach: int | None = None,
        coefficient: float | int = 2.0,
        bandwidth: float | int = 1.0,
        initial_threshold: float | int = 0.03,
        tanh_scale: float | int = 4.0,
        pre_act_coefficient: float | int = 3e-6,
        skip: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(d_in, d_sae)
        check_count("n_layers", n_layers)
        check_count("reach", n_layers if reach is None else reach)
        if d_sae % n_layers:
            raise InvalidArgument(
                f"d_sae is {d_sae}; it must be a multiple of n_layers = {n_layers}: every layer's own"
            )
        if k is not None and not 0 < k <= d_sae:
            raise InvalidArgument(f"k is {k}; it must lie above 0 and not above d_sae = {d_sae}")
        check_positive("tanh_scale", tanh_scale)
        check_positive("bandwidth", bandwidth)
        self.n_layers, self.k, self.reach, self.skip = n_layers, k, reach, skip
        self.bandwidth, self.tanh_scale = bandwidth, tanh_scale
        self.initial_threshold = weight("initial_threshold", initial_threshold)
        self.coefficient = weight("coefficient", coefficient)
        self.pre_act_coefficient = weight("pre_act_coefficient", pre_act_coefficient)
        self.row_shape = (2 * n_layers, d_in)
        random, per_layer = torch.Generator().manual_seed(seed), d_sae // n_layers
        encoders = torch.randn(n_layers, per_layer, d_in, generator=random)
        self.W_enc = nn.Parameter(encoders / encoders.norm(dim=2, keepdim=True))
        self.W_dec = nn.Parameter(torch.randn(per_layer * sum(self.widths), d_in, generator=random))
        self.b_enc = nn.Parameter(torch.zeros(n_layers, per_layer))
        self.b_dec = nn.Parameter(torch.zeros(n_layers, d_in))
        self.threshold = nn.Parameter(torch.full((n_layers, per_layer), float(initial_threshold)), k is None)
        if k is not None:
            self.threshold.data.zero_()
        self.W_skip = nn.Parameter(torch.zeros(n_layers, d_in, d_in)) if skip else None
        self.register_buffer("variance", torch.ones(()))
        with torch.no_grad():
            for D in self.decoders():
                D /= D.flatten(1).norm(dim=1)[:, None, None] * (10 if k is None else 1)

    @property
    def per_layer(self) -> int:
        """Latents of one layer."""
        return self.d_sae // self.n_layers

    @property
    def widths(self) -> tuple[int, ...]:
        """To how many layers the latents of each layer write."""
        return tuple(min(self.reach or self.n_layers, self.n_layers - i) for i in range(self.n_layers))

    def decoders(
        self, of: Float[Tensor, "_ d_model"] | None = None
    ) -> tuple[Float[Tensor, "latent layer d_model"], ...]:
        """The decoders of each layer's latents, to that layer and those after it: parts of the memory of `W_dec`."""
        W, parts = self.W_dec if of is None else of, [self.per_layer * width for width in self.widths]
        return tuple(D.view(self.per_layer, width, -1) for D, width in zip(W.split(parts), self.widths, strict=True))

    def decoder(self, source: int, target: int) -> Float[Tensor, "latent d_model"]:
        """W_dec^{source->target}.

        Raises:
            OutOfRange: latents of that layer do not write there.
        """
        if not (0 <= source < self.n_layers and source <= target < source + self.widths[source]):
            raise OutOfRange(f"latents of layer {source} do not write to layer {target}: to their own and later ones")
        return self.decoders()[source][:, target - source]

    def norms(self) -> Float[Tensor, "layer latent"]:
        """||W_dec,i||, over a latent's decoders to all its layers together."""
        return torch.stack([D.flatten(1).norm(dim=1) for D in self.decoders()])

    def parts(
        self, rows: Float[Tensor, "n _ d_model"]
    ) -> tuple[Float[Tensor, "n layer d_model"], Float[Tensor, "n layer d_model"]]:
        """What the layers read, and what they write."""
        x, y = rows.split(self.n_layers, dim=1)
        return x, y

    def pre(self, x: Float[Tensor, "*n layer d_model"]) -> Float[Tensor, "*n layer latent"]:
        """z^l = x^l W_enc^l^T + b_enc^l."""
        return torch.einsum("...ld,lfd->...lf", x, self.W_enc) + self.b_enc

    def encode(self, x: Float[Tensor, "*n layer d_model"]) -> Float[Tensor, "*n latent"]:
        """The latents of all layers, those of layer 0 first: a = z 1[z > theta]."""
        return jump(self.pre(self._input(x)).flatten(-2), self.threshold.flatten(), self.bandwidth)

    def decode(self, f: Float[Tensor, "*n latent"]) -> Float[Tensor, "*n layer d_model"]:
        """What latents write to each layer, and b_dec; a linear path is not in it."""
        a = f.unflatten(-1, (self.n_layers, self.per_layer))
        written = [torch.einsum("...f,fld->...ld", a[..., i, :], D) for i, D in enumerate(self.decoders())]
        layers = [
            torch.stack([written[i][..., to - i, :] for i in range(to + 1) if to - i < self.widths[i]]).sum(0)
            for to in range(self.n_layers)
        ]
        return torch.stack(layers, dim=-2) + self.b_dec

    def skipped(self, x: Float[Tensor, "*n layer d_model"]) -> Float[Tensor, "*n layer d_model"]:
        """x^l W_skip^l; 0 where there is no such path."""
        return torch.zeros_like(x) if self.W_skip is None else torch.einsum("...ld,lde->...le", x, self.W_skip)

    def forward(self, x: Float[Tensor, "*n layer d_model"]) -> Float[Tensor, "*n layer d_model"]:
        """y_hat of what the layers read."""
        return self.decode(self.encode(x)) + self.skipped(self._input(x))

    @torch.no_grad()
    def encode_sparse(self, x: Float[Tensor, "n *d"]) -> tuple[Float[Tensor, "n ..."], Int[Tensor, "n ..."]]:
        """As for every autoencoder."""
        found = [super(CrossLayerTranscoder, self).encode_sparse(rows) for rows in x.split(BLOCK)]
        width = max(values.shape[1] for values, _ in found)
        values, indices = (
            torch.cat([nn.functional.pad(part[i], (0, width - part[i].shape[1])) for part in found]) for i in (0, 1)
        )
        return values, indices

    @torch.no_grad()
    def reconstruct_sparse(
        self, x: Float[Tensor, "n *d"], values: Float[Tensor, "n ..."], indices: Int[Tensor, "n ..."]
    ) -> Float[Tensor, "n ..."]:
        """The reconstruction by latents that `encode_sparse` gave."""
        y_hat = self.skipped(self._input(x)) + self.b_dec
        for i, D in enumerate(self.decoders()):
            local = indices - i * self.per_layer
            mine = (local >= 0) & (local < self.per_layer)
            written = times_rows(values * mine, local.clamp(0, self.per_layer - 1), D.flatten(1))
            y_hat[:, i : i + self.widths[i]] += written.view(len(x), -1, self.d_in)
        return y_hat

    def absorb(self, normalisation: Normalisation) -> None:
        """As for a transcoder, layer by layer; the normalisation is of rows [x, y]."""
        L = self.n_layers
        m, M, back = normalisation.doubles(self.W_dec.device)
        with torch.no_grad():
            W_enc = torch.einsum("lfe,lde->lfd", self.W_enc.double(), M[:L])
            self.W_enc.copy_(W_enc)
            self.b_enc.copy_(self.b_enc - torch.einsum("ld,lfd->lf", m[:L], W_enc))
            for i, D in enumerate(self.decoders()):
                D.copy_(torch.einsum("fld,lde->fle", D.double(), back[L + i : L + i + D.shape[1]]))
            b_dec = torch.einsum("ld,lde->le", self.b_dec.double(), back[L:]) + m[L:]
            if self.W_skip is not None:
                W_skip = M[:L] @ self.W_skip.double() @ back[L:]
                self.W_skip.copy_(W_skip)
                b_dec -= torch.einsum("ld,lde->le", m[:L], W_skip)
            self.b_dec.copy_(b_dec)

    def direction(self, latent: int, layer: int | None = None) -> Direction:
        """A latent as a direction of what a layer writes: of its own layer, or of the one given.

        Raises:
            OutOfRange: the latent does not exist, or does not write there.
            InvalidArgument: as for every autoencoder.
        """
        largest = self._largest(latent)
        own, number = divmod(latent, self.per_layer)
        at = own if layer is None else layer
        vector = self.decoder(own, at)[number].detach().clone()
        site = self.sites[self.n_layers + at]
        return Direction(vector, site, f"sae latent {latent}", largest * float(vector.norm()), self.fingerprint)

    def settings(self) -> dict[str, Any]:
        """All that the constructor takes."""
        names = ("n_layers", "k", "reach", "coefficient", "bandwidth", "initial_threshold", "tanh_scale")
        return {name: getattr(self, name) for name in (*names, "pre_act_coefficient", "skip")}

    def objective(self) -> "CrossLayerObjective":
        """Squared error with a tanh penalty, or with the largest of a batch."""
        return ThresholdObjective(self) if self.k is None else BatchObjective(self)

    def _input(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return self._checked(x, (self.n_layers, self.d_in))


class CrossLayerObjective(Objective[CrossLayerTranscoder], ABC):
    """The loss of `CrossLayerTranscoder`, its gradients written out: three sparse products for each layer."""

    @property
    def scale(self) -> float:
        """What the squared error is divided by."""
        return 1.0

    @abstractmethod
    def pieces(self, x: Float[Tensor, "n layer d_model"]) -> Iterator[tuple[slice, list[Chunk]]]:
        """Rows, and what training keeps of each layer's latents there; or somewhat more."""

    @abstractmethod
    def kept(self, x: Float[Tensor, "n layer d_model"]) -> Float[Tensor, "n layer latent"]:
        """The latents that training keeps, dense and differentiable."""

    def penalty(self, a: Float[Tensor, "n layer latent"]) -> Float[Tensor, ""]:
        """What is added to the squared error for the latents that are on."""
        return a.new_zeros(())

    def loss(self, rows: Float[Tensor, "n _ d_model"], dead: Bool[Tensor, "latent"]) -> Step:
        """The loss by autograd, over dense latents; `gradients` gives the same with their gradients written out."""
        sae = self.sae
        x, y = sae.parts(rows)
        a = self.kept(x)
        squared_error = (y - sae.decode(a.flatten(1)) - sae.skipped(x)).pow(2).sum((1, 2)).mean()
        loss = squared_error / self.scale + self.penalty(a)
        if sae.pre_act_coefficient:
            below = (sae.threshold - sae.pre(x)).relu() * dead.view(sae.n_layers, -1)
            loss = loss + sae.pre_act_coefficient * (below * sae.norms()).sum((1, 2)).mean()
        return Step.of(loss, squared_error, a.flatten(1))

    @torch.no_grad()
    def gradients(self, rows: Float[Tensor, "n _ d_model"], dead: Bool[Tensor, "latent"]) -> Step:
        """Fill `.grad` with the exact gradient of the loss on this batch and return what the batch did."""
        sae, n = self.sae, len(rows)
        sae.zero_grad()
        for parameter in sae.parameters():
            parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
        whole = sae.parts(rows)
        norms, for_norms = sae.norms(), torch.zeros_like(sae.b_enc)
        loss, squared_error, on = rows.new_zeros(3)
        largest = rows.new_zeros(sae.n_layers, sae.per_layer)
        for at, codes in self.pieces(whole[0]):
            x, y = (part[at] for part in whole)
            values = [self._switch(i, z) for i, z in enumerate(codes)]
            error = self._write(codes, [f for f, _ in values], x).sub_(y)
            squared_error = squared_error + sum_of_squares(error)
            g = error.mul_(2 / n / self.scale)
            _grad(sae.b_dec).add_(g.sum(0))
            if sae.W_skip is not None:
                _grad(sae.W_skip).add_(torch.einsum("nld,nle->lde", x, g))
            for i, (z, (f, above)) in enumerate(zip(codes, values, strict=True)):
                on = on + f.count_nonzero()
                largest[i] = torch.maximum(largest[i], z.most(f))
                loss = loss + self._add_layer(i, z, f, above, x[:, i].contiguous(), g, norms[i], for_norms[i], n)
        loss = loss + squared_error / n / self.scale + self._lift(whole[0], dead, norms, for_norms)
        for D, W, weigh in zip(sae.decoders(_grad(sae.W_dec)), sae.decoders(), for_norms / norms, strict=True):
            D.addcmul_(W, weigh[:, None, None])
        return Step(loss, squared_error / n, on / n, largest.flatten())

    def _switch(self, layer: int, z: Chunk) -> tuple[Tensor, Tensor | None]:  # noqa: ARG002
        """The values of latents that are kept, and by how much they lie above their thresholds where that is learnt."""
        return z.values, None

    def _penalise(
        self,
        z: Chunk,  # noqa: ARG002
        f: Tensor,
        norms: Float[Tensor, "latent"],  # noqa: ARG002
        n: int,  # noqa: ARG002
        for_f: Tensor,  # noqa: ARG002
        for_norms: Tensor,  # noqa: ARG002
    ) -> Float[Tensor, ""]:
        """The penalty of one layer's latents; its gradients are added to those of f and of norms."""
        return f.new_zeros(())

    def _write(
        self, codes: list[Chunk], values: list[Tensor], x: Float[Tensor, "n layer d_model"]
    ) -> Float[Tensor, "n layer d_model"]:
        """y_hat from sparse latents."""
        sae = self.sae
        y_hat = sae.skipped(x) + sae.b_dec
        for i, (z, f, D) in enumerate(zip(codes, values, sae.decoders(), strict=True)):
            y_hat[:, i : i + D.shape[1]] += z.times(f, D.flatten(1)).view(len(x), *D.shape[1:])
        return y_hat

    def _add_layer(
        self,
        layer: int,
        z: Chunk,
        f: Tensor,
        above: Tensor | None,
        x: Float[Tensor, "n d_model"],
        g: Float[Tensor, "n layer d_model"],
        norms: Float[Tensor, "latent"],
        for_norms: Float[Tensor, "latent"],
        n: int,
    ) -> Float[Tensor, ""]:
        """Add one layer's gradients, g being that by y_hat; returns its penalty."""
        sae = self.sae
        D = sae.decoders()[layer].flatten(1)
        g = g[:, layer : layer + sae.widths[layer]].flatten(1)
        for_f = z.dots(g, D)
        z.add_transposed(sae.decoders(_grad(sae.W_dec))[layer].view(D.shape), f, g)
        penalty = self._penalise(z, f, norms, n, for_f, for_norms)
        if above is not None:
            near = above.abs() < sae.bandwidth / 2
            for_theta = z.total(near * for_f) * sae.threshold[layer] / -sae.bandwidth
            _grad(sae.threshold)[layer] += for_theta
        for_z = zero_where_off(for_f, f)
        z.add_transposed(_grad(sae.W_enc)[layer], for_z, x)
        _grad(sae.b_enc)[layer] += z.total(for_z)
        return penalty

    def _lift(
        self, x: Float[Tensor, "n layer d_model"], dead: Bool[Tensor, "latent"], norms: Tensor, for_norms: Tensor
    ) -> Float[Tensor, ""]:
        """lambda_P E sum_dead ReLU(theta_i - z_i) ||W_dec,i||, with its gradients."""
        sae, loss = self.sae, x.new_zeros(())
        c = sae.pre_act_coefficient / len(x)
        for layer, silent in enumerate(dead.view(sae.n_layers, -1) if c else ()):
            latents = silent.nonzero().flatten()
            if not len(latents):
                continue
            z = x[:, layer] @ sae.W_enc[layer, latents].T + sae.b_enc[layer, latents]
            short = (sae.threshold[layer, latents] - z).relu_()
            own = norms[layer, latents]
            loss = loss + c * (short.sum(0) @ own)
            for_norms[layer, latents] += c * short.sum(0)
            for_z = (short > 0) * (c * own)
            _grad(sae.W_enc)[layer, latents] -= for_z.T @ x[:, layer]
            _grad(sae.b_enc)[layer, latents] -= for_z.sum(0)
            if sae.threshold.requires_grad:
                _grad(sae.threshold)[layer, latents] += for_z.sum(0)
        return loss


class ThresholdObjective(CrossLayerObjective):
    """Learnt thresholds, and lambda E sum_i tanh(c ||W_dec,i|| a_i)."""

    def pieces(self, x: Float[Tensor, "n layer d_model"]) -> Iterator[tuple[slice, list[Chunk]]]:
        """Blocks of rows, with all that lies near a threshold or above it."""
        sae = self.sae
        for start in range(0, len(x), BLOCK):
            rows = x[start : start + BLOCK]
            found = [
                next(iter(encode_chunks(rows[:, i].contiguous(), Encoder(sae.W_enc[i], sae.b_enc[i]), floor)))[1]
                for i, floor in enumerate(sae.threshold - sae.bandwidth / 2)
            ]
            yield slice(start, start + len(rows)), found

    def kept(self, x: Float[Tensor, "n layer d_model"]) -> Float[Tensor, "n layer latent"]:
        """a = z 1[z > theta]."""
        z = self.sae.pre(x)
        return jump(z.flatten(1), self.sae.threshold.flatten(), self.sae.bandwidth).view_as(z)

    def penalty(self, a: Float[Tensor, "n layer latent"]) -> Float[Tensor, ""]:
        """Lambda E sum_i tanh(c ||W_dec,i|| a_i)."""
        sae = self.sae
        return self.sparsity_share * sae.coefficient * (sae.tanh_scale * sae.norms() * a).tanh().sum((1, 2)).mean()

    def _switch(self, layer: int, z: Chunk) -> tuple[Tensor, Tensor]:
        """As `jump` does."""
        above = z.values - z.of(self.sae.threshold[layer])
        return zero_where_off(z.values, above), above

    def _penalise(
        self, z: Chunk, f: Tensor, norms: Float[Tensor, "latent"], n: int, for_f: Tensor, for_norms: Tensor
    ) -> Float[Tensor, ""]:
        """Tanh, with the gradients of both its factors."""
        weight, c = self.sparsity_share * self.sae.coefficient / n, self.sae.tanh_scale
        saturated = (f * z.of(c * norms)).tanh_()
        slope = (1 - saturated.square()) * (weight * c)
        for_norms += z.total(slope * f)
        for_f += slope * z.of(norms)
        return weight * saturated.sum()

    @torch.no_grad()
    def constrain(self) -> None:
        """Keep thresholds at or above 0."""
        self.sae.threshold.clamp_(min=0)


class BatchObjective(CrossLayerObjective):
    """The n k largest latents of a batch, of all layers together; theta follows the smallest that is kept."""

    @property
    def scale(self) -> float:
        """The variance of y."""
        return float(self.sae.get_buffer("variance"))

    @torch.no_grad()
    def initialise(self, rows: Float[Tensor, "n _ d_model"]) -> None:
        """Measure the variance of y, and set b_dec, if it is still 0, to its mean."""
        self.sae.get_buffer("variance").copy_(measure_variance(self.sae, rows))
        if not bool(self.sae.b_dec.any()):
            self.sae.b_dec.copy_(self.sae.parts(rows)[1].mean(0))

    def pieces(self, x: Float[Tensor, "n layer d_model"]) -> Iterator[tuple[slice, list[Chunk]]]:
        """All rows at once."""
        yield slice(0, len(x)), [*self.select(x)]

    @torch.no_grad()
    def select(self, x: Float[Tensor, "n layer d_model"]) -> list[Code]:
        """The floor(n k) largest positive entries of all layers' z; ties with the last are kept."""
        sae, n = self.sae, len(x)
        assert sae.k is not None
        by = [Encoder(W, b) for W, b in zip(sae.W_enc, sae.b_enc, strict=True)]
        inputs = [part.contiguous() for part in x.unbind(1)]
        sample = torch.cat([torch.addmm(e.b, part[:SAMPLE], e.W.T) for part, e in zip(inputs, by, strict=True)], dim=1)
        count = int(sae.k * n * current_process().world)
        for spare in (1.25, 4.0, math.inf):
            threshold = guess_threshold(sample, min(spare * sae.k, sae.d_sae))
            found = [_above(part, e, threshold) for part, e in zip(inputs, by, strict=True)]
            last = kth_largest(torch.cat([values for values, _ in found]), count)
            if not any_process((last < threshold) & (threshold != 0)):  # asked by all
                break
        kept = [(values[values >= last], places[values >= last]) for values, places in found]
        self.follow(torch.cat([values for values, _ in kept]))
        return [Code.at(values, places, n, sae.per_layer) for values, places in kept]

    def follow(self, values: Float[Tensor, "_"]) -> None:
        """Move theta towards the smallest latent kept; onto it, the first time."""
        theta = self.sae.threshold.data
        least = minimum(values.min() if len(values) else values.new_tensor(math.inf))
        if bool(least.isfinite()):
            theta.lerp_(least.to(theta), RATE if bool(theta.any()) else 1.0)

    @torch.no_grad()
    def settle(self, batches: Iterable[Float[Tensor, "n _ d_model"]]) -> None:
        """Set theta to the mean over these batches of the smallest latent kept."""
        kept = ([code.values for code in self.select(self.sae.parts(rows)[0])] for rows in batches)
        set_threshold(self.sae.threshold.data, (torch.cat(values) for values in kept))

    def kept(self, x: Float[Tensor, "n layer d_model"]) -> Float[Tensor, "n layer latent"]:
        """Z where it is among the n k largest."""
        z = self.sae.pre(x)
        k = self.sae.k
        assert k is not None
        last = z.detach().relu().flatten().topk(int(k * len(x))).values[-1]
        return z.relu() * (z >= last)

    @torch.no_grad()
    def constrain(self) -> None:
        """Put a latent's decoders back to norm 1, together."""
        for D in self.sae.decoders():
            D /= D.flatten(1).norm(dim=1)[:, None, None]


def _grad(parameter: Tensor) -> Tensor:
    """A parameter's gradient, which is there."""
    assert parameter.grad is not None
    return parameter.grad


def _above(x: Float[Tensor, "n d_model"], by: Encoder, threshold: float) -> tuple[Float[Tensor, "_"], Int[Tensor, "_"]]:
    """What of x W^T + b lies above a threshold: values, and places in the flattened matrix, which rise."""
    values, places = [], []
    for number, pre in enumerate(blocks(x, by)):
        found = places_above(pre, threshold)
        values.append(pre.flatten().index_select(0, found))
        places.append(found + number * BLOCK * len(by.W))
    return torch.cat(values), torch.cat(places)
