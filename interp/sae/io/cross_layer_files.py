"""Cross-layer transcoders in circuit-tracer's files, two for each layer, and in those of Gemma Scope 2."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Site
from hooks.disk import read_foreign
from hooks.errors import DamagedFile, InvalidArgument, MissingFile
from hooks.tensor_file import read_weights, save_tensors
from interp.sae.architectures.cross_layer_transcoder import CrossLayerTranscoder
from interp.sae.architectures.sae import fold_normalisation
from interp.sae.io.saelens import check_weights

CURE = "get it again from where it was made"


def save_cross_layer(clt: CrossLayerTranscoder, folder: str | Path) -> Path:
    """Write a cross-layer transcoder as circuit-tracer does, and return the folder; its `load_clt` reads it.

    For each layer i `W_enc_i.safetensors` holds W_enc_i, b_enc_i, b_dec_i and threshold_i, and `W_dec_i.safetensors`
    W_dec_i of shape (latents, layers from i on, d_model). A normalisation is folded in first.

    Raises:
        InvalidArgument: a linear path, for which these files have no place.

    Examples:
        ```python
        save_cross_layer(clt, "my-clt")
        ```
    """
    if clt.W_skip is not None:
        raise InvalidArgument("these files have no place for a linear path: use save(clt, folder)")
    folder, clt = Path(folder), fold_normalisation(clt)  # pyright: ignore[reportAssignmentType]
    folder.mkdir(parents=True, exist_ok=True)
    for i, D in enumerate(clt.decoders()):
        named = {"W_enc": clt.W_enc, "b_enc": clt.b_enc, "b_dec": clt.b_dec, "threshold": clt.threshold}
        layer = {f"{name}_{i}": tensor[i].detach().contiguous() for name, tensor in named.items()}
        save_tensors(folder / f"W_enc_{i}.safetensors", layer)
        whole = torch.nn.functional.pad(D.detach(), (0, 0, 0, clt.n_layers - i - D.shape[1]))
        save_tensors(folder / f"W_dec_{i}.safetensors", {f"W_dec_{i}": whole.contiguous()})
    return folder


def load_cross_layer(folder: str | Path, *, sites: Sequence[Site] = ()) -> CrossLayerTranscoder:
    """Read a cross-layer transcoder of circuit-tracer; a ReLU where its files hold no thresholds.

    Args:
        folder: where `W_enc_0.safetensors` and the others are.
        sites: all that it reads, and then all that it writes.

    Raises:
        MissingFile: a layer's file is missing.
        DamagedFile: a file is torn, or its weights have other shapes than the first layer's.

    Examples:
        ```python
        load_cross_layer("gemma-2-2b-clt").norms()
        ```
    """
    folder = Path(folder)
    n_layers = len([*folder.glob("W_enc_*.safetensors")])
    if not n_layers:
        raise MissingFile(f"{folder} has no W_enc_0.safetensors: circuit-tracer writes two files for each layer")
    files = [(folder / f"W_enc_{i}.safetensors", folder / f"W_dec_{i}.safetensors") for i in range(n_layers)]
    if lost := next((path for pair in files for path in pair if not path.is_file()), None):
        raise MissingFile(f"{folder} has no {lost.name}, and holds files of {n_layers} layers")
    layers = []
    for i, pair in enumerate(files):
        found = {name: tensor for path in pair for name, tensor in read_weights(path, CURE).items()}
        layers.append({name.removesuffix(f"_{i}"): tensor for name, tensor in found.items()})
    return read_foreign(folder, CURE, lambda: _make(layers, str(folder), sites))


def load_gemma_scope_layers(paths: Sequence[str | Path], *, sites: Sequence[Site] = ()) -> CrossLayerTranscoder:
    """Read a cross-layer transcoder of Gemma Scope 2: one file for each layer, in their order, the last included.

    Their w_dec holds decoders to all layers; those to earlier ones are not read. Their linear path is x W_skip.

    Args:
        paths: the files.
        sites: all that it reads, and then all that it writes.

    Raises:
        DamagedFile: a file is torn, or its weights have other shapes than the first layer's.

    Examples:
        ```python
        load_gemma_scope_layers([f"layer_{i}.safetensors" for i in range(26)])
        ```
    """
    layers = []
    for i, path in enumerate(paths):
        found = read_weights(Path(path), CURE)
        layer = {name: found[name] for name in ("b_enc", "b_dec", "threshold") if name in found}
        if not {"w_enc", "w_dec"} <= found.keys():
            raise DamagedFile(f"{path} holds {sorted(found)} and not w_enc and w_dec: it is no layer of Gemma Scope 2")
        layer |= {"W_enc": found["w_enc"].T, "W_dec": found["w_dec"][:, i:]}
        if "affine_skip_connection" in found:
            layer["W_skip"] = found["affine_skip_connection"]
        layers.append(layer)
    if not layers:
        raise MissingFile("no files were given: Gemma Scope 2 has one for each layer")
    return read_foreign(paths[0], CURE, lambda: _make(layers, str(paths[0]), sites))


def _make(
    layers: Sequence[Mapping[str, Float[Tensor, "..."]]], where: str, sites: Sequence[Site]
) -> CrossLayerTranscoder:
    if lost := sorted({"W_enc", "W_dec", "b_enc", "b_dec"} - layers[0].keys()):
        raise DamagedFile(f"{where} holds no {', '.join(lost)}: it is no cross-layer transcoder")
    (per_layer, d), n = layers[0]["W_enc"].shape, len(layers)
    clt = CrossLayerTranscoder(d, per_layer * n, n, skip="W_skip" in layers[0], initial_threshold=0.0)
    with torch.no_grad():
        for i, (layer, D) in enumerate(zip(layers, clt.decoders(), strict=True)):
            check_weights(layer, where)
            places = {"W_enc": clt.W_enc[i], "W_dec": D, "b_enc": clt.b_enc[i], "b_dec": clt.b_dec[i]}
            places |= {"threshold": clt.threshold[i]} if "threshold" in layers[0] else {}
            places |= {"W_skip": clt.W_skip[i]} if clt.W_skip is not None else {}
            for name, place in places.items():
                given = tuple(layer[name].shape) if name in layer else None
                if given != tuple(place.shape):
                    raise DamagedFile(
                        f"{where}: layer {i} of {n} holds {name} of shape {given}, and the others need "
                        f"{tuple(place.shape)}: {CURE}"
                    )
                place.copy_(layer[name])
    clt.sites = tuple(sites)
    return clt
