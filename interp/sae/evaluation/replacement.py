"""A model whose feed-forward layers are replaced by a cross-layer transcoder, all of them or some."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Intervention, Site
from hooks.errors import InvalidArgument, OutOfRange
from hooks.interventions import apply
from interp.sae.architectures.cross_layer_transcoder import CrossLayerTranscoder


def replace_layers(clt: CrossLayerTranscoder, layers: Sequence[int] | None = None) -> dict[Site, Intervention]:
    """Interventions that put y_hat^l in the place of what the feed-forward layers l write; the errors are left out.

    Latents are read as the pass goes, from a stream that the replaced layers have written to. Special tokens and
    padding keep what the model writes. For one pass at a time.

    Args:
        clt: trained on `across` of what the layers read and write, and folded.
        layers: which are replaced; all unless given.

    Raises:
        InvalidArgument: it knows no sites, or its weights read normalised activations.
        OutOfRange: a layer that it does not have.

    Cost: one dense product with the encoder of each layer up to the last that is replaced.

    Examples:
        ```python
        with intervene(model, replace_layers(fold_normalisation(clt))):
            model.run(texts)
        ```
    """
    clt.raw()
    wanted = [*range(clt.n_layers)] if layers is None else [*layers]
    if odd := [layer for layer in wanted if not 0 <= layer < clt.n_layers]:
        raise OutOfRange(f"layers {odd} do not exist; this transcoder has layers 0 to {clt.n_layers - 1}")
    if len(clt.sites) != 2 * clt.n_layers:
        raise InvalidArgument(
            "this transcoder does not know what it reads and writes: set clt.sites, all that is read and then all that "
            "is written"
        )
    held: dict[int, Tensor] = {}
    reads, writes = clt.sites[: clt.n_layers], clt.sites[clt.n_layers :]
    made: dict[Site, Intervention] = {}
    for layer in range(max(wanted, default=-1) + 1):
        made[reads[layer]] = replace(apply(_reader(clt, layer, held)), fingerprint=clt.fingerprint)
        if layer in wanted:
            made[writes[layer]] = replace(apply(_writer(clt, layer, held)), fingerprint=clt.fingerprint)
    return made


def _reader(clt: CrossLayerTranscoder, layer: int, held: dict[int, Tensor]) -> Callable[[Tensor], Tensor]:
    """What keeps a layer's latents, and what its linear path adds, and leaves the activations as they are."""

    def read(x: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_model"]:
        with torch.no_grad():
            rows = x.to(clt.W_dec.dtype)
            z = rows @ clt.W_enc[layer].T + clt.b_enc[layer]
            held[layer] = z * (z > clt.threshold[layer])
            if clt.W_skip is not None:
                held[-1 - layer] = rows @ clt.W_skip[layer]
        return x

    return read


def _writer(clt: CrossLayerTranscoder, layer: int, held: dict[int, Tensor]) -> Callable[[Tensor], Tensor]:
    """What writes y_hat of a layer by the latents kept on the way."""

    def write(y: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_model"]:
        y_hat = clt.b_dec[layer] + held.get(-1 - layer, torch.zeros(()))
        for source in range(layer + 1):
            if layer < source + clt.widths[source]:
                y_hat = y_hat + held[source] @ clt.decoder(source, layer)
        return y_hat.to(y)

    return write
