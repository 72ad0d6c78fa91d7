"""What every sparse autoencoder is: latents, and a decoder of directions."""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hooks import Direction, Site
from hooks.errors import InvalidArgument, InvalidType, OutOfRange
from interp.sae.architectures.latent_share import LatentShare
from interp.sae.data.normalisation import Normalisation, RowNorm
from interp.sae.numerics.sparse import times_rows

if TYPE_CHECKING:
    from interp.sae.architectures.objective import Objective

CHUNK = 8192  # rows encoded at once, so that dense latents of a large input never exist together


class SAE(nn.Module, ABC):
    """A sparse autoencoder: latents f(x) >= 0, mostly 0, and a reconstruction x_hat = f W_dec + b_dec.

    An architecture says how it encodes, which constructor settings make it again, and which `Objective` trains it.
    After training it also knows where it belongs: `sites` (of what it reads, then of what else it reconstructs), the
    `model_name` and `fingerprint` of its model, the `dataset`, and `max_activation`, for every latent the largest
    value on training data: the unit of clamping. Where `normalisation` is set its weights read normalised
    activations; `fold_normalisation` gives the same function of activations as they are. Where `row_norm` is set each
    row is normalised by itself as it is read, and the reconstruction brought back. `row_shape` is the shape of a
    source's row, which holds what is read and what is to be reconstructed. `own` says which latents' weights this
    process holds: all, but where processes share them.
    """

    architecture: ClassVar[str]
    centred: ClassVar[bool] = False
    """Whether the encoder reads x - b_dec."""
    transcodes: bool = False
    """Whether it writes elsewhere than it reads."""
    sharded: ClassVar[bool] = False
    """Whether each of several processes holds some of the latents, and reads every row."""
    W_enc: Float[Tensor, "*d latent"]
    W_dec: Float[Tensor, "latent *d"]
    b_enc: Float[Tensor, "latent"]
    b_dec: Float[Tensor, "*d"]
    max_activation: Float[Tensor, "latent"]

    def __init__(self, d_in: int, d_sae: int) -> None:
        super().__init__()
        check_count("d_in", d_in)
        check_count("d_sae", d_sae)
        self.d_in, self.d_sae, self.d_out = d_in, d_sae, d_in
        self.row_shape: tuple[int, ...] = (d_in,)
        self.own = LatentShare(d_sae)
        self.sites: tuple[Site, ...] = ()
        self.model_name: str | None = None
        self.fingerprint: str | None = None
        self.dataset: str | None = None
        self.normalisation: Normalisation | None = None
        self.row_norm: RowNorm | None = None
        self.register_buffer("max_activation", torch.zeros(d_sae))

    @property
    def site(self) -> Site | None:
        """Where it reads: the first of its sites, or None where none is known."""
        return self.sites[0] if self.sites else None

    @site.setter
    def site(self, site: Site | None) -> None:
        self.sites = () if site is None else (site, *self.sites[1:])

    @property
    def read_sites(self) -> tuple[Site, ...]:
        """Where it reads: one site, or of a cross-layer transcoder one for each layer; empty where none is known."""
        return self.sites[:1]

    @property
    def written_sites(self) -> tuple[Site, ...]:
        """Where its latents write."""
        return self.sites[-1:]

    @abstractmethod
    def encode(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n latent"]:
        """The latents f(x), dense."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What the constructor was given next to `d_in` and `d_sae`, but for the seed."""

    def objective(self) -> "Objective[Any]":
        """What trains it: its loss, the loss's gradients, and the constraints on its weights.

        Raises:
            InvalidArgument: an architecture that is read from other libraries and not trained here.
        """
        raise InvalidArgument(
            f"a {type(self).__name__} is read from other libraries and not trained here: train a TopK, JumpReLU, "
            "Transcoder or another of `interp.sae`"
        )

    def parts(self, rows: Float[Tensor, "n *d"]) -> tuple[Float[Tensor, "n *d"], Float[Tensor, "n ..."]]:
        """What is read and what is to be reconstructed, of rows of a source: the same, for an autoencoder."""
        return rows, rows

    def decode(self, f: Float[Tensor, "*n latent"]) -> Float[Tensor, "*n d_model"]:
        """The reconstruction x_hat = f W_dec + b_dec."""
        return f @ self.W_dec + self.b_dec

    def forward(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n _"]:
        """The reconstruction of x: `decode(encode(x))`, back in x's own scale."""
        return self._restore(self.decode(self.encode(x)), x)

    @torch.no_grad()
    def encode_sparse(self, x: Float[Tensor, "n *d"]) -> tuple[Float[Tensor, "n ..."], Int[Tensor, "n ..."]]:
        """The latents as values and indices, as many per row as the fullest row needs; spare places hold value 0."""
        dense = [self.encode(rows) for rows in x.split(CHUNK)]
        width = max([1, *(int((f > 0).sum(1).max()) for f in dense if len(f))])
        kept = [f.topk(min(width, self.d_sae), sorted=False) for f in dense]
        return torch.cat([k.values for k in kept]), torch.cat([k.indices for k in kept])

    @torch.no_grad()
    def reconstruct_sparse(
        self, x: Float[Tensor, "n *d"], values: Float[Tensor, "n ..."], indices: Int[Tensor, "n ..."]
    ) -> Float[Tensor, "n ..."]:
        """The reconstruction of x by latents that `encode_sparse` gave; without building them densely."""
        decoded = times_rows(values, indices, self.W_dec.flatten(1))
        return self._restore(decoded.view(len(x), *self.W_dec.shape[1:]) + self.b_dec, x)

    def _absorb(self, normalisation: Normalisation) -> None:
        """Change the weights, so that what was a function of z = (x - m) M is the same function of x, and of y.

        W_enc <- M W_enc,  W_dec <- W_dec M^-1,  b_dec <- b_dec M^-1 + m; and where the encoder does not read
        x - b_dec, b_enc <- b_enc - m M W_enc. Latents, and so thresholds on them, stay what they are.
        """
        m, M, back = normalisation.doubles(self.W_dec.device)
        with torch.no_grad():
            W_enc = M @ self.W_enc.double()
            self.W_enc.copy_(W_enc)
            if not self.centred:
                self.b_enc.copy_(self.b_enc - m @ W_enc)
            self.W_dec.copy_(self.W_dec.double() @ back)
            self.b_dec.copy_(self.b_dec.double() @ back + m)

    def direction(self, latent: int) -> Direction:
        """Latent i as a direction: the vector W_dec[i], whose scale is the length it adds at its training maximum.

        Raises:
            OutOfRange: the latent does not exist.
            InvalidArgument: the autoencoder has no site or no largest activations yet, the latent never fired, or its
                weights read normalised activations.
        """
        largest = self._largest(latent)
        vector = decoder_rows(self, [latent])[0]
        scale = largest * float(vector.norm())
        return Direction(vector, self.sites[-1], f"sae latent {latent}", scale, self.fingerprint)

    def _largest(self, latent: int) -> float:
        """A latent's training maximum, having checked that it has one and that directions are in units of x."""
        if not 0 <= latent < self.d_sae:
            raise OutOfRange(f"latent {latent} does not exist; this autoencoder has latents 0 to {self.d_sae - 1}")
        if self.site is None:
            raise InvalidArgument(
                "this autoencoder has no site yet: train it on activations_of(model, data, site) first"
            )
        if not bool(self.max_activation.any()):
            raise InvalidArgument(
                "this autoencoder does not know its largest activations, the scale of its directions: measure them by "
                "sae.max_activation.copy_(evaluate(sae, source).max_activation)"
            )
        self.raw()
        if self.row_norm is not None:
            raise InvalidArgument(
                f"this autoencoder reads each row normalised by itself ({self.row_norm.kind}), so its latents have "
                f"no fixed length: take the unit vector sae.W_dec[{latent}] and choose a dose by measuring"
            )
        largest = float(self.max_activation[latent])
        if largest <= 0:
            raise InvalidArgument(f"latent {latent} never fired on the training data, so its direction has no scale")
        return largest

    def __repr__(self) -> str:
        given = {"d_in": self.d_in, "d_sae": self.d_sae} | self.settings()
        settings = ", ".join(f"{name}={value!r}" for name, value in given.items() if value is not None)
        at = f", at {' and '.join(map(str, self.sites))}" if self.sites else ""
        return f"{type(self).__name__}({settings}){at}"

    def raw(self) -> "SAE":
        """Itself, where its weights read activations as they are; `InvalidArgument` where they read normalised ones."""
        if self.normalisation is not None:
            raise InvalidArgument(
                f"the weights of this autoencoder{self._at()} read normalised activations: use "
                "fold_normalisation(sae), which is the same function of activations as they are"
            )
        return self

    def _input(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """What the encoder reads of activations: see `_convert`; each row normalised, where that is so."""
        x = self._convert(x, (self.d_in,))
        return x if self.row_norm is None else self.row_norm(x)

    def _restore(self, x_hat: Float[Tensor, "..."], x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """A reconstruction in the scale of the rows that were read."""
        return x_hat if self.row_norm is None or self.transcodes else self.row_norm.back(x_hat, x.to(x_hat.dtype))

    def _convert(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Activations in the autoencoder's own precision; refused where they are of another width, NaN or infinite."""
        if tuple(x.shape[-len(shape) :]) != shape:
            wanted, given = (" x ".join(map(str, s)) for s in (shape, x.shape[-len(shape) :]))
            raise InvalidArgument(f"this autoencoder reads {wanted} dimensions{self._at()}; it was given {given}")
        if not bool(x.isfinite().all()):
            row = int((~x.isfinite()).reshape(-1, *shape).flatten(1).any(1).nonzero()[0])
            raise InvalidArgument(f"activations{self._at()} hold NaN or infinity, first in row {row}")
        return x.to(self.W_dec.dtype)

    def _at(self) -> str:
        return f" at {self.site}" if self.site else ""

    def _rows(self, local: Int[Tensor, "n"]) -> Float[Tensor, "n *d"]:
        """W_dec of latents that this process holds, by their local numbers."""
        return self.W_dec.detach()[local]

    def _rows_at(self, site: Site) -> Float[Tensor, "_ *d"]:  # noqa: ARG002
        """What each latent that this process holds writes to one of the `written_sites`."""
        return self.W_dec.detach()

    def _join(self, own: Float[Tensor, "_ ..."]) -> Float[Tensor, "latent ..."]:
        """What belongs to all latents, from what each process has of its own."""
        return self.own.join(self._each(own))

    def _each(self, x: Float[Tensor, "..."]) -> list[Float[Tensor, "..."]]:
        """What each of the processes that share the latents has, by rank."""
        return [x]

    def _add_up(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The sum over the processes that share the latents."""
        return x


@torch.no_grad()
def decoder_rows(sae: SAE, latents: Sequence[int] | Int[Tensor, "n"]) -> Float[Tensor, "n *d"]:
    """W_dec of some latents, a copy; where processes share the latents in each of them, and no others are sent.

    Of a cross-layer transcoder `[n layer d_model]`, 0 where a latent does not write.

    Examples:
        ```python
        decoder_rows(sae, [17, 4])
        ```
    """
    local, mine = sae.own.locate(torch.as_tensor(latents, device=sae.W_dec.device).long())
    rows = sae._rows(local)
    return sae._add_up(rows * mine.view(-1, *[1] * (rows.ndim - 1)))


def check_whole(sae: SAE, use: str) -> None:
    """Check that this process holds all latents of an autoencoder, for what cannot do with less.

    Raises:
        InvalidType: processes share them.

    Examples:
        ```python
        check_whole(sae, "a map of a dictionary")
        ```
    """
    if len(sae.own) < sae.d_sae:
        raise InvalidType(
            f"this process holds {len(sae.own)} of {sae.d_sae} latents, and {use} needs all of them: "
            "take sae.whole(), where a host holds that"
        )


def fold_normalisation(sae: SAE) -> SAE:
    """The same function of activations as they are, for an autoencoder whose weights read normalised ones.

    With z = (x - m) M: latents f'(x) = f(z), and reconstructions x_hat'(x) = z_hat(z) M^-1 + m. Products are taken in
    float64 and rounded once. A copy; where nothing is normalised, an equal one.

    Examples:
        ```python
        train(sae, normalise_source(source, expected_norm(source)))
        fold_normalisation(sae).direction(17)
        ```
    """
    twin = copy.deepcopy(sae)
    if twin.normalisation is not None:
        twin._absorb(twin.normalisation)
        twin.normalisation = None
    return twin


def convert_rows(sae: SAE, rows: Float[Tensor, "n *d"]) -> Float[Tensor, "n *d"]:
    """Rows of a source in the autoencoder's precision.

    Raises:
        InvalidArgument: rows of another width, or that hold NaN or infinity.

    Examples:
        ```python
        x, y = sae.parts(convert_rows(sae, rows))
        ```
    """
    return sae._convert(rows, sae.row_shape)


def check_count(name: str, value: object) -> None:
    """Check that a number of dimensions, latents, rows or tokens is a whole number of at least 1.

    Raises:
        InvalidType: it is no whole number.
        InvalidArgument: it is below 1.

    Examples:
        >>> check_count("d_in", 256)
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InvalidType(f"{name} is {value!r}; it must be a whole number, at least 1")
    if value < 1:
        raise InvalidArgument(f"{name} is {value}; it must be at least 1")


def check_positive(name: str, value: float | int) -> None:
    """Check that a scale is finite and above 0.

    Raises:
        InvalidArgument: it is not.

    Examples:
        >>> check_positive("lr", 1e-3)
    """
    if not 0 < value < math.inf:
        raise InvalidArgument(f"{name} is {value}; it must be finite and above 0")


def weight(name: str, value: float | int) -> float | int:
    """The weight of a term of a loss; `InvalidArgument` unless it is finite and at least 0.

    Examples:
        >>> weight("coefficient", 5.0)
        5.0
    """
    if not 0 <= value < math.inf:
        raise InvalidArgument(f"{name} is {value}; the weight of a term of the loss must be finite and at least 0")
    return value
