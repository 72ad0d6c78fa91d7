"""How a cross-layer transcoder learns: its loss, and the gradients of the loss, written out layer by layer."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.sae.architectures.batch_topk import RATE, set_threshold
from interp.sae.architectures.chunked_gradients import Chunk, encode_chunks, sum_of_squares, zero_where_off
from interp.sae.architectures.cross_layer_weights import CrossLayerWeights
from interp.sae.architectures.jumprelu import jump
from interp.sae.architectures.objective import Objective, Step, measure_variance
from interp.sae.data.distributed import any_process, current_process, kth_largest, minimum
from interp.sae.numerics.ranking import BLOCK, SAMPLE, Encoder, blocks, guess_threshold
from interp.sae.numerics.sparse import Code
from interp.sae.numerics.top_k import places_above


class CrossLayerObjective(Objective[CrossLayerWeights], ABC):
    """The loss of `CrossLayerTranscoder`, with its gradients written out: three sparse products for each layer."""

    @property
    def scale(self) -> float:
        """What the squared error is divided by."""
        return 1.0

    @abstractmethod
    def pieces(self, x: Float[Tensor, "n layer d_model"]) -> Iterator[tuple[slice, list[Chunk]]]:
        """Rows, and each layer's latents there: all that training keeps; what is more, `_switch` sets to 0."""

    @abstractmethod
    def keep_latents(self, x: Float[Tensor, "n layer d_model"]) -> Float[Tensor, "n layer latent"]:
        """The latents that training keeps, dense and differentiable."""

    def penalty(self, a: Float[Tensor, "n layer latent"]) -> Float[Tensor, ""]:
        """What is added to the squared error for the latents that are on."""
        return a.new_zeros(())

    def loss(self, rows: Float[Tensor, "n _ d_model"], dead: Bool[Tensor, "latent"]) -> Step:
        """The loss over dense latents, for autograd; `gradients` computes the same without it."""
        sae = self.sae
        x, y = sae.parts(rows)
        a = self.keep_latents(x)
        squared_error = (y - sae.decode(a.flatten(1)) - sae.skip_path(x)).pow(2).sum((1, 2)).mean()
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
        for D, W, factor in zip(sae.decoders(_grad(sae.W_dec)), sae.decoders(), for_norms / norms, strict=True):
            D.addcmul_(W, factor[:, None, None])
        return Step(loss, squared_error / n, on / n, largest.flatten())

    def _switch(self, layer: int, z: Chunk) -> tuple[Tensor, Tensor | None]:  # noqa: ARG002
        """The latents, 0 where they are not kept; and z - theta where thresholds are learnt, else None."""
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
        """The penalty of one layer's latents; adds its gradients to `for_f` and `for_norms`."""
        return f.new_zeros(())

    def _write(
        self, codes: list[Chunk], values: list[Tensor], x: Float[Tensor, "n layer d_model"]
    ) -> Float[Tensor, "n layer d_model"]:
        """y_hat from sparse latents."""
        sae = self.sae
        y_hat = sae.skip_path(x) + sae.b_dec
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
        """Add the gradients of one layer's weights, given g = dL/dy_hat; returns the penalty of its latents."""
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
        """lambda_P E sum_dead ReLU(theta_i - z_i) ||W_dec,i||; adds its gradients."""
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
        """Blocks of rows, with at least the latents above the threshold or within half a bandwidth below it."""
        sae = self.sae
        for start in range(0, len(x), BLOCK):
            rows = x[start : start + BLOCK]
            found = [
                # BLOCK rows come as one chunk
                next(iter(encode_chunks(rows[:, i].contiguous(), Encoder(sae.W_enc[i], sae.b_enc[i]), floor)))[1]
                for i, floor in enumerate(sae.threshold - sae.bandwidth / 2)
            ]
            yield slice(start, start + len(rows)), found

    def keep_latents(self, x: Float[Tensor, "n layer d_model"]) -> Float[Tensor, "n layer latent"]:
        """a = z 1[z > theta]."""
        z = self.sae.pre(x)
        return jump(z.flatten(1), self.sae.threshold.flatten(), self.sae.bandwidth).view_as(z)

    def penalty(self, a: Float[Tensor, "n layer latent"]) -> Float[Tensor, ""]:
        """The term lambda E sum_i tanh(c ||W_dec,i|| a_i)."""
        sae = self.sae
        return self.sparsity_share * sae.coefficient * (sae.tanh_scale * sae.norms() * a).tanh().sum((1, 2)).mean()

    def _switch(self, layer: int, z: Chunk) -> tuple[Tensor, Tensor]:
        """z 1[z > theta], as `jump` has it, and z - theta."""
        above = z.values - z.of(self.sae.threshold[layer])
        return zero_where_off(z.values, above), above

    def _penalise(
        self, z: Chunk, f: Tensor, norms: Float[Tensor, "latent"], n: int, for_f: Tensor, for_norms: Tensor
    ) -> Float[Tensor, ""]:
        """The tanh penalty, with its gradients by f and by the norms."""
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
    """Training keeps the n k largest latents of a batch, of all layers together; theta follows the smallest kept."""

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
        """The floor(n k) largest positive entries of all layers' z, n being of all processes; moves theta (`follow`).

        Entries equal to the smallest one kept are kept too. A threshold guessed from a sample leaves few to rank; where
        it proves too high, a lower one is tried.
        """
        sae, n = self.sae, len(x)
        by = [Encoder(W, b) for W, b in zip(sae.W_enc, sae.b_enc, strict=True)]
        inputs = [part.contiguous() for part in x.unbind(1)]
        sample = torch.cat([torch.addmm(e.b, part[:SAMPLE], e.W.T) for part, e in zip(inputs, by, strict=True)], dim=1)
        count, per_row = self._count(n)
        for spare in (1.25, 4.0, math.inf):
            threshold = guess_threshold(sample, min(spare * per_row, sae.b_enc.numel()))
            found = [_above(part, e, threshold) for part, e in zip(inputs, by, strict=True)]
            last = kth_largest(torch.cat([values for values, _ in found]), count)
            if not any_process((last < threshold) & (threshold != 0)):  # processes go on, or stop, together
                break
        kept = [(values[values >= last], places[values >= last]) for values, places in found]
        self.follow(torch.cat([values for values, _ in kept]))
        return [Code.at(values, places, n, sae.per_layer) for values, places in kept]

    def _count(self, n: int) -> tuple[int, float]:
        """How many latents all processes keep of a batch, and how many of a row this one's may be, about."""
        k = self.sae.k
        assert k is not None
        return int(k * n * current_process().world), float(k)

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

    def keep_latents(self, x: Float[Tensor, "n layer d_model"]) -> Float[Tensor, "n layer latent"]:
        """The values z that are among the n k largest and positive; 0 elsewhere."""
        z = self.sae.pre(x)
        k = self.sae.k
        assert k is not None
        last = z.detach().relu().flatten().topk(int(k * len(x))).values[-1]
        return z.relu() * (z >= last)

    @torch.no_grad()
    def constrain(self) -> None:
        """Put each latent's decoders, all layers together, back to norm 1."""
        for D in self.sae.decoders():
            D /= D.flatten(1).norm(dim=1)[:, None, None]


def _grad(parameter: Tensor) -> Tensor:
    """The gradient of a parameter, which must have one."""
    assert parameter.grad is not None
    return parameter.grad


def _above(x: Float[Tensor, "n d_model"], by: Encoder, threshold: float) -> tuple[Float[Tensor, "_"], Int[Tensor, "_"]]:
    """The entries of x W^T + b above a threshold: values, and places in the flattened matrix, ascending."""
    values, places = [], []
    for number, pre in enumerate(blocks(x, by)):
        found = places_above(pre, threshold)
        values.append(pre.flatten().index_select(0, found))
        places.append(found + number * BLOCK * len(by.W))
    return torch.cat(values), torch.cat(places)
