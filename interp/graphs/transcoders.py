"""What takes the place of feed-forward layers in a graph: features that read at one layer and write to one or more."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Model, Site
from hooks.errors import InvalidArgument, MissingFile, WrongModel
from hooks.fingerprint import is_of
from hooks.site import mlp_act, mlp_in, mlp_out, resid_mid
from hooks.summary import summarise
from hooks.weights import bias_of, matrix_of
from interp.sae import SAE, CrossLayerTranscoder, fold_normalisation, load, load_cross_layer, load_transcoders
from interp.sae.architectures.jumprelu import jump


@dataclass(frozen=True, eq=False)
class LayerTranscoder:
    """The features that read at one layer.

        z = x W_encᵀ + b_enc,    a = encode(x);    y_m = Σ_l a_l W_dec_l→m + b_dec_m + x_m W_skip_mᵀ

    Attributes:
        layer: where they read.
        reads: the site of x: `mlp_in`, or the stream before the norm of the feed-forward layer.
        encode: from x to activations.
        W_enc: encoders, a row for each feature.
        b_enc: their biases.
        W_dec: decoders, by the layer whose feed-forward output they write to.
        b_dec: what is written to this layer's output whatever is read.
        W_skip: the linear path of this layer, output by input, or None.
    """

    layer: int
    reads: Site
    encode: Callable[[Float[Tensor, "n d_model"]], Float[Tensor, "n latent"]]
    W_enc: Float[Tensor, "latent d_model"]
    b_enc: Float[Tensor, "latent"]
    W_dec: Mapping[int, Float[Tensor, "latent d_model"]]
    b_dec: Float[Tensor, "d_model"]
    W_skip: Float[Tensor, "d_model d_model"] | None = None


@dataclass(frozen=True, eq=False)
class Transcoders:
    """What takes the place of a model's feed-forward layers. Made by `per_layer`, `cross_layer` or `neurons`.

    A layer without features stays whole in the error.

    Attributes:
        name: how it prints.
        layers: the features of each layer that has some, by layer.
    """

    name: str
    layers: Mapping[int, LayerTranscoder]

    __repr__ = summarise

    @property
    def crosses(self) -> bool:
        """Whether some feature writes to another layer than it reads at."""
        return any(set(one.W_dec) != {layer} for layer, one in self.layers.items())

    def writers(self, layer: int) -> tuple[int, ...]:
        """Return the layers whose features write to the feed-forward output of a layer.

        Examples:
            ```python
            transcoders.writers(3)  # (3,) of per-layer transcoders, (0, 1, 2, 3) of cross-layer ones
            ```
        """
        return tuple(source for source, one in self.layers.items() if layer in one.W_dec)


def per_layer(model: Model, transcoders: Sequence[SAE]) -> Transcoders:
    """Return transcoders, or skip transcoders, that each replace their own feed-forward layer.

    Args:
        model: the model that they were trained on.
        transcoders: with `sites` (`mlp_in[l]` or the stream there, and `mlp_out[l]`), at most one for each layer.

    Raises:
        InvalidArgument: none; two of one layer; an autoencoder; sites that are unknown or no feed-forward layer's; rows
            normalised one by one, which no linear path goes through.
        WrongModel: trained on other weights.

    Examples:
        ```python
        attribution_graph(model, per_layer(model, load_transcoders("transcoders")), "The bridge is in")
        ```
    """
    if not transcoders:
        raise InvalidArgument("no transcoders were given: give at least one, trained on pairs_of(mlp_in, mlp_out)")
    found: dict[int, LayerTranscoder] = {}
    for one in transcoders:
        layer = _one_layer(model, one)
        if layer.layer in found:
            raise InvalidArgument(f"two transcoders write to layer {layer.layer}: give one for each layer")
        found[layer.layer] = layer
    kinds = sorted({one.architecture for one in transcoders})
    return Transcoders(f"{len(found)} {' and '.join(kinds)}", dict(sorted(found.items())))


def _one_layer(model: Model, sae: SAE) -> LayerTranscoder:
    if not sae.transcodes:
        raise InvalidArgument(
            f"a {type(sae).__name__} is no transcoder: a graph needs what reads mlp_in, writes mlp_out"
        )
    if len(sae.sites) != 2:
        raise InvalidArgument(
            f"this {type(sae).__name__} does not know where it reads and writes: set its sites, such as "
            "(mlp_in[3], mlp_out[3])"
        )
    if sae.row_norm is not None:
        raise InvalidArgument(f"this {type(sae).__name__} normalises each row by itself, so no linear path reads it")
    _check_weights(model, sae)
    read, layer = sae.sites[0], _layer_of(sae.sites[1])
    check_reads(model, layer, read)
    sae = fold_normalisation(sae)
    W = {name: value.detach() for name, value in sae.named_parameters()}
    return LayerTranscoder(
        layer, read, sae.encode, W["W_enc"].T, W["b_enc"], {layer: W["W_dec"]}, W["b_dec"], W.get("W_skip")
    )


def _check_weights(model: Model, sae: SAE) -> None:
    if not is_of(model, sae.fingerprint):
        raise WrongModel(f"this {type(sae).__name__} was trained on other weights than {model.name} has: load those")


def _layer_of(site: Site) -> int:
    """The layer whose feed-forward output a site is."""
    if site.layer is None or site != mlp_out[site.layer]:
        raise InvalidArgument(f"a transcoder of a graph writes to mlp_out, and this one writes to {site}")
    return site.layer


def check_reads(model: Model, layer: int, read: Site) -> None:
    """Raise unless a site is the input of a layer's feed-forward part, after its norm or before it.

    Raises:
        InvalidArgument: it is not.

    Examples:
        ```python
        check_reads(model, 3, mlp_in[3])
        ```
    """
    before = resid_mid[layer] if resid_mid[layer] in model.taps else Site("resid_pre", layer)
    if read not in (mlp_in[layer], before) or read not in model.taps:
        raise InvalidArgument(
            f"a transcoder of layer {layer} must read {mlp_in[layer]} or {before}, and this one reads {read}"
        )


def cross_layer(model: Model, transcoder: CrossLayerTranscoder) -> Transcoders:
    """Return the features of a cross-layer transcoder, each of which writes to its own layer and to later ones.

    Raises:
        InvalidArgument: sites that are unknown or no feed-forward layer's.
        WrongModel: trained on other weights.

    Examples:
        ```python
        attribution_graph(model, cross_layer(model, load("clt")), "The bridge is in")
        ```
    """
    n = transcoder.n_layers
    if len(transcoder.sites) != 2 * n:
        raise InvalidArgument(
            f"this transcoder of {n} layers does not know its sites: set mlp_in of each, then mlp_out"
        )
    _check_weights(model, transcoder)
    twin: SAE = fold_normalisation(transcoder)
    sites = transcoder.sites
    assert isinstance(twin, CrossLayerTranscoder)
    layers = [_layer_of(site) for site in sites[n:]]
    W = {name: value.detach() for name, value in twin.named_parameters()}
    found = {}
    for at, (layer, read) in enumerate(zip(layers, sites, strict=False)):
        check_reads(model, layer, read)
        W_dec = {layers[to]: twin.decoder(at, to).detach() for to in range(at, at + twin.widths[at])}
        encode = _above(W["W_enc"][at], W["b_enc"][at], W["threshold"][at])
        skip = W["W_skip"][at].T if "W_skip" in W else None
        found[layer] = LayerTranscoder(layer, read, encode, W["W_enc"][at], W["b_enc"][at], W_dec, W["b_dec"][at], skip)
    return Transcoders(f"a cross-layer transcoder of {n} layers", found)


def shuffle_decoders(transcoders: Transcoders, seed: int = 0) -> Transcoders:
    """Return transcoders whose features are the same and write what others write: the control of a graph's scores.

    Examples:
        ```python
        attribution_graph(model, shuffle_decoders(transcoders), text).completeness  # lower, or the scores mean nothing
        ```
    """
    random = torch.Generator().manual_seed(seed)
    layers = {}
    for layer, one in transcoders.layers.items():
        order = torch.randperm(len(one.W_enc), generator=random)
        layers[layer] = replace(one, W_dec={to: D[order.to(D.device)] for to, D in one.W_dec.items()})
    return Transcoders(f"{transcoders.name}, decoders shuffled", layers)


def _above(W_enc: Tensor, b_enc: Tensor, threshold: Tensor) -> Callable[[Tensor], Tensor]:
    def encode(x: Tensor) -> Tensor:
        return jump(x.to(W_enc) @ W_enc.T + b_enc, threshold, 1.0)

    return encode


def read_transcoders(model: Model, folder: str | Path) -> Transcoders:
    """Read what takes the place of a model's feed-forward layers from a folder, of whichever kind it holds.

    A cross-layer transcoder or one transcoder that `save` wrote; folders of such, one for each layer; or files of
    circuit-tracer, of either kind.

    Raises:
        MissingFile: there is none of these.
        InvalidArgument, WrongModel, DamagedFile: see `per_layer`, `cross_layer` and `interp.sae.load`.

    Examples:
        ```python
        attribution_graph(model, read_transcoders(model, "clt"), "The bridge is in")
        ```
    """
    folder = Path(folder)
    if (folder / "W_enc_0.safetensors").is_file():
        sites = [site[layer] for site in (mlp_in, mlp_out) for layer in range(model.n_layers)]
        return cross_layer(model, load_cross_layer(folder, sites=sites))
    if any(folder.glob("layer_*")) and not any(folder.glob("layer_*/cfg.json")):
        return per_layer(model, load_transcoders(folder))
    if (folder / "cfg.json").is_file():
        one = load(folder)
        return cross_layer(model, one) if isinstance(one, CrossLayerTranscoder) else per_layer(model, [one])
    found = sorted(path.parent for path in folder.glob("*/cfg.json"))
    if not found:
        raise MissingFile(
            f"no transcoders at '{folder}': give a folder that interp.sae.save wrote, a folder of such, or one of "
            "circuit-tracer's"
        )
    return per_layer(model, [load(path) for path in found])


def neurons(model: Model) -> Transcoders:
    """Return the neurons of a model with ReLU feed-forward layers as its features: an exact transcoder.

    Raises:
        InvalidArgument: gated layers, or another activation than ReLU, whose neurons are never off.

    Examples:
        ```python
        attribution_graph(known.model, neurons(known.model), known.task.clean)  # its errors are 0
        ```
    """
    found = {layer: _neurons(model, layer) for layer in range(model.n_layers) if mlp_act[layer] in model.taps}
    if not found:
        raise InvalidArgument(f"{model.name} has no feed-forward layers with neurons: give transcoders of them")
    return Transcoders("neurons", found)


@torch.no_grad()
def _neurons(model: Model, layer: int) -> LayerTranscoder:
    part, out = model.parts(layer), model.module(mlp_act[layer])
    first = part.get("mlp.in")
    if first is None or "mlp.gate" in part or "mlp.gate_up" in part:
        raise InvalidArgument(
            f"the feed-forward layers of {model.name} are gated: give transcoders of them, such as "
            "those of interp train-sae --architecture cross_layer_transcoder"
        )
    W_in, W_out = matrix_of(first).detach().T, matrix_of(out).detach()
    b_in, b_out = (
        W_in.new_zeros(size) if (b := bias_of(module)) is None else b.detach()
        for module, size in ((first, len(W_in)), (out, W_out.shape[1]))
    )
    probe = torch.linspace(-2.0, 2.0, 8, dtype=W_in.dtype, device=W_in.device)
    act = next((m for name, m in part["mlp"].named_modules() if "act" in name.rpartition(".")[2]), None)
    if act is None or not torch.equal(act(probe), probe.relu()):
        raise InvalidArgument(f"{model.name} has another activation than ReLU: give transcoders of its layers")
    encode = _above(W_in, b_in, torch.zeros_like(b_in))
    return LayerTranscoder(layer, mlp_in[layer], encode, W_in, b_in, {layer: W_out}, b_out)
