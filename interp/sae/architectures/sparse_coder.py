"""Autoencoders and transcoders of other libraries: one affine encoder, one of several activations, a linear path."""

from typing import Any, ClassVar, Final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hooks.errors import InvalidArgument, UnknownName, nearest
from interp.sae.architectures.sae import CHUNK, SAE, check_count

ACTIVATIONS: Final = ("relu", "jumprelu", "topk", "abstopk", "groupmax")
RANKED: Final = ("topk", "abstopk", "groupmax")
"""Those that keep k latents of each row."""


class SparseCoder(SAE):
    """What SAELens, sparsify, circuit-tracer and Gemma Scope train and this library only reads.

        z     = x W_enc + b_enc,        f = activation(z),        y_hat = f W_dec + b_dec  [+ x W_skip^T]

    with activation one of: "relu"; "jumprelu", z 1[z > theta]; "topk", the k largest, after a ReLU; "abstopk", the k
    largest in size, whose latents keep their signs (arXiv:2510.00404); "groupmax", the largest of each of k groups of
    neighbours, after a ReLU. It is an autoencoder, y = x, unless `d_out` is given: then a transcoder, whose rows of a
    source are [x, y]. `skip` adds W_skip. It cannot be trained here.

    ```python
    sae = load("their_abstopk")           # SparseCoder(d_in=768, d_sae=24576, activation='abstopk', k=32, ...)
    ```
    """

    architecture: ClassVar[str] = "sparse_coder"
    threshold: Float[Tensor, "latent"]

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        *,
        activation: str = "relu",
        k: int | None = None,
        d_out: int | None = None,
        skip: bool = False,
    ) -> None:
        super().__init__(d_in, d_sae)
        if activation not in ACTIVATIONS:
            raise UnknownName(
                f"no activation is called '{activation}'; did you mean {nearest(activation, ACTIVATIONS)}?"
            )
        if (activation in RANKED) != (k is not None) or not 1 <= (k or 1) <= d_sae:
            raise InvalidArgument(
                f"activation is '{activation}' and k {k}: {', '.join(RANKED)}, and they alone, need a k from 1 to "
                f"d_sae = {d_sae}"
            )
        if activation == "groupmax" and d_sae % (k or 1):
            raise InvalidArgument(f"d_sae is {d_sae} and k {k}: d_sae must be a multiple of k, for groups of one size")
        if d_out is not None:
            check_count("d_out", d_out)
        self.activation, self.k, self.skip = activation, k, skip
        self.transcodes, self.d_out = d_out is not None, d_in if d_out is None else d_out
        self.row_shape = (d_in + self.d_out,) if self.transcodes else (d_in,)
        self.W_enc, self.b_enc = nn.Parameter(torch.zeros(d_in, d_sae)), nn.Parameter(torch.zeros(d_sae))
        self.W_dec, self.b_dec = nn.Parameter(torch.zeros(d_sae, self.d_out)), nn.Parameter(torch.zeros(self.d_out))
        if activation == "jumprelu":
            self.threshold = nn.Parameter(torch.zeros(d_sae))
        if skip:
            self.W_skip = nn.Parameter(torch.zeros(self.d_out, d_in))

    def settings(self) -> dict[str, Any]:
        """`activation`, `k`, `d_out` of a transcoder, and `skip`."""
        d_out = self.d_out if self.transcodes else None
        return {"activation": self.activation, "k": self.k, "d_out": d_out, "skip": self.skip}

    def parts(self, rows: Float[Tensor, "n _"]) -> tuple[Float[Tensor, "n d_model"], Float[Tensor, "n _"]]:
        """What is read and what is to be written: of a transcoder's rows, the first `d_in` columns and the others."""
        if not self.transcodes:
            return rows, rows
        x, y = rows.split([self.d_in, self.d_out], dim=1)
        return x, y

    def encode(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n latent"]:
        """The latents f = activation(x W_enc + b_enc); of "abstopk" alone they may be below 0."""
        z = self._input(x) @ self.W_enc + self.b_enc
        if self.activation == "relu":
            return z.relu()
        if self.activation == "jumprelu":
            return z * (z > self.threshold)
        k = self.k or 1
        if self.activation == "groupmax":
            groups = z.relu().unflatten(-1, (k, -1))
            best = groups.max(-1, keepdim=True)
            return torch.zeros_like(groups).scatter(-1, best.indices, best.values).flatten(-2)
        best = (z.abs() if self.activation == "abstopk" else z).topk(k, dim=-1, sorted=False).indices
        values = z.gather(-1, best)
        return torch.zeros_like(z).scatter(-1, best, values if self.activation == "abstopk" else values.relu())

    def forward(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n _"]:
        """What is written for x: f W_dec + b_dec, and x W_skip^T where there is such a path."""
        return self._add_skip(super().forward(x), x)

    @torch.no_grad()
    def encode_sparse(self, x: Float[Tensor, "n d_model"]) -> tuple[Float[Tensor, "n ..."], Int[Tensor, "n ..."]]:
        """The latents as values and indices, those below 0 included; spare places hold value 0."""
        dense = [self.encode(rows) for rows in x.split(CHUNK)]
        width = max([1, *(int((f != 0).sum(1).max()) for f in dense if len(f))])
        indices = [f.abs().topk(width, sorted=False).indices for f in dense]
        return torch.cat([f.gather(1, at) for f, at in zip(dense, indices, strict=True)]), torch.cat(indices)

    @torch.no_grad()
    def reconstruct_sparse(
        self, x: Float[Tensor, "n d_model"], values: Float[Tensor, "n ..."], indices: Int[Tensor, "n ..."]
    ) -> Float[Tensor, "n _"]:
        """What is written for x, by latents that `encode_sparse` gave."""
        return self._add_skip(super().reconstruct_sparse(x, values, indices), x)

    def _add_skip(self, y_hat: Float[Tensor, "..."], x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return y_hat + self._convert(x, (self.d_in,)) @ self.W_skip.T if self.skip else y_hat
