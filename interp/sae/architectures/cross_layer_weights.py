"""The weights of a cross-layer transcoder: how decoders to several layers share one matrix, and what they write."""

from abc import ABC

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hooks import Site
from hooks.errors import InvalidArgument, OutOfRange
from interp.sae.architectures.sae import SAE, check_count


class CrossLayerWeights(SAE, ABC):
    """Weights W_enc^l, b_enc^l, theta^l, b_dec^l and W_skip^l of each layer, and W_dec^{i->l} of each and later ones.

    `W_dec` holds the decoders of layer 0's latents, then those of layer 1's, and so on. The rows of one latent
    follow each other, one for each layer that it writes to; `decoders` takes them apart. Encoder rows begin with norm
    1, decoders as they were drawn, all else at 0.
    `CrossLayerTranscoder` scales the decoders and sets what training reads.
    """

    transcodes: bool = True
    threshold: Float[Tensor, "layer latent"]
    k: float | int | None
    bandwidth: float | int
    tanh_scale: float | int
    coefficient: float | int
    pre_act_coefficient: float | int

    def __init__(self, d_in: int, d_sae: int, n_layers: int, *, reach: int | None, skip: bool, seed: int) -> None:
        super().__init__(d_in, d_sae)
        check_count("n_layers", n_layers)
        check_count("reach", n_layers if reach is None else reach)
        if d_sae % n_layers:
            raise InvalidArgument(
                f"d_sae is {d_sae} and n_layers {n_layers}: every layer has equally many latents of its own, so give a "
                f"d_sae of {max(1, round(d_sae / n_layers)) * n_layers} or another multiple of {n_layers}"
            )
        self.n_layers, self.reach, self.skip = n_layers, reach, skip
        self.row_shape = (2 * n_layers, d_in)
        random, per_layer = torch.Generator().manual_seed(seed), d_sae // n_layers
        encoders = torch.randn(n_layers, per_layer, d_in, generator=random)
        self.W_enc = nn.Parameter(encoders / encoders.norm(dim=2, keepdim=True))
        self.W_dec = nn.Parameter(torch.randn(per_layer * sum(self.widths), d_in, generator=random))
        self.b_enc = nn.Parameter(torch.zeros(n_layers, per_layer))
        self.b_dec = nn.Parameter(torch.zeros(n_layers, d_in))
        self.threshold = nn.Parameter(torch.zeros(n_layers, per_layer))
        self.W_skip = nn.Parameter(torch.zeros(n_layers, d_in, d_in)) if skip else None

    @property
    def read_sites(self) -> tuple[Site, ...]:
        """What the layers read."""
        return self.sites[: self.n_layers]

    @property
    def written_sites(self) -> tuple[Site, ...]:
        """What the layers write."""
        return self.sites[self.n_layers :]

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
        """The decoders of each layer's latents, to that layer and later ones: views of `W_dec`, or of what is given."""
        W, parts = self.W_dec if of is None else of, [self.per_layer * width for width in self.widths]
        return tuple(D.view(self.per_layer, width, -1) for D, width in zip(W.split(parts), self.widths, strict=True))

    def decoder(self, source: int, target: int) -> Float[Tensor, "latent d_model"]:
        """W_dec^{source->target}.

        Raises:
            OutOfRange: latents of that layer do not write there.
        """
        self._check_target(source, target)
        return self.decoders()[source][:, target - source]

    def _check_target(self, source: int, target: int) -> None:
        if not 0 <= source < self.n_layers:
            raise OutOfRange(f"layer {source} does not exist; this transcoder has layers 0 to {self.n_layers - 1}")
        if not source <= target < source + self.widths[source]:
            raise OutOfRange(
                f"latents of layer {source} do not write to layer {target}: they write to layers {source} to "
                f"{source + self.widths[source] - 1}"
            )

    def _rows(self, local: Int[Tensor, "n"]) -> Float[Tensor, "n layer d_model"]:
        """All that each latent writes, layer by layer; 0 where it does not write."""
        rows = self.W_dec.new_zeros(len(local), self.n_layers, self.d_in)
        for i, D in enumerate(self.decoders(self.W_dec.detach())):
            at = (local // self.per_layer == i).nonzero().flatten()
            rows[at, i : i + D.shape[1]] = D[local[at] % self.per_layer]
        return rows

    def _rows_at(self, site: Site) -> Float[Tensor, "_ d_model"]:
        """What each latent that this process holds writes to one layer; 0 where it does not write there."""
        if site not in self.written_sites:
            raise InvalidArgument(f"this transcoder does not know that it writes at {site}: its sites are {self.sites}")
        at, nothing = self.written_sites.index(site), self.W_dec.new_zeros(self.per_layer, self.d_in)
        parts = [D[:, at - i] if 0 <= at - i < D.shape[1] else nothing for i, D in enumerate(self.decoders())]
        return torch.cat(parts).detach()

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

    def decode(self, f: Float[Tensor, "*n latent"]) -> Float[Tensor, "*n layer d_model"]:
        """What latents write to each layer, and b_dec; the linear path is left out, as it needs x."""
        a = f.unflatten(-1, (self.n_layers, self.per_layer))
        written = [torch.einsum("...f,fld->...ld", a[..., i, :], D) for i, D in enumerate(self.decoders())]
        layers = [
            torch.stack([written[i][..., to - i, :] for i in range(to + 1) if to - i < self.widths[i]]).sum(0)
            for to in range(self.n_layers)
        ]
        return torch.stack(layers, dim=-2) + self.b_dec

    def skip_path(self, x: Float[Tensor, "*n layer d_model"]) -> Float[Tensor, "*n layer d_model"]:
        """x^l W_skip^l; 0 where there is no such path."""
        return torch.zeros_like(x) if self.W_skip is None else torch.einsum("...ld,lde->...le", x, self.W_skip)
