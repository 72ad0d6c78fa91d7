"""Reading transcoders of circuit-tracer and Gemma Scope: one file for each layer, or a folder of them."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

from hooks import Site
from hooks.errors import DamagedFile, InvalidArgument, MissingFile, UnknownSite
from hooks.site import attn_out, mlp_in, mlp_out, resid_mid, resid_post, resid_pre
from interp.sae.architectures.sae import SAE
from interp.sae.architectures.sparse_coder import SparseCoder
from interp.sae.io.saelens import from_saelens

NAMES: Final = {
    "w_enc": "W_enc",
    "w_dec": "W_dec",
    "activation_function.threshold": "threshold",
    "affine_skip_connection": "W_skip",
}
"""What the weights are called in Gemma Scope 2 and circuit-tracer, and here."""
PLACES: Final = (resid_pre, resid_mid, resid_post, attn_out, mlp_in, mlp_out)
CURE: Final = "get it again from where it was made"
LAYER: Final = re.compile(r"layer_(\d+)\.(?:safetensors|npz)")


def load_gemma_scope(path: str | Path, *, site: Site | None = None) -> SAE:
    """Read an autoencoder of Gemma Scope, a file such as `params.npz`: JumpReLU, as circuit-tracer and SAELens read it.

    Raises:
        MissingFile: there is no such file.
        DamagedFile: it is torn, or is not of these weights.

    Examples:
        ```python
        sae = load_gemma_scope("layer_20/width_16k/average_l0_71/params.npz", site=resid_post[20])
        ```
    """
    weights = _read_weights(path)
    config = {"architecture": "jumprelu", "apply_b_dec_to_input": False}
    return from_saelens(config, weights, str(path), site=site)


def load_transcoder(path: str | Path, *, sites: Sequence[Site] = ()) -> SAE:
    """Read the transcoder of one layer: Gemma Scope's (`.npz`, `.safetensors`) or circuit-tracer's (`.safetensors`).

        f = z 1[z > theta], z = x W_enc + b_enc;   ReLU(z) where the file holds no thresholds;   y_hat = f W_dec + b_dec

    and x W_skip^T is added where the file holds such a path.

    Args:
        path: the file.
        sites: what it reads, and what it writes.

    Raises:
        MissingFile: there is no such file.
        DamagedFile: it is torn, or is not of these weights.

    Examples:
        ```python
        load_transcoder("layer_5.safetensors", sites=(mlp_in[5], mlp_out[5]))
        ```
    """
    weights = _read_weights(path)
    settings = {
        "activation": "jumprelu" if "threshold" in weights else "relu",
        "d_out": len(weights["b_dec"]),
        "skip": "W_skip" in weights,
    }
    config: dict[str, Any] = {"architecture": SparseCoder.architecture, "apply_b_dec_to_input": False}
    config |= {"signed_thresholds": True, "metadata": {"settings": settings}}
    sae = from_saelens(config, weights, str(path))
    sae.sites = tuple(sites)
    return sae


def load_transcoders(folder: str | Path) -> tuple[SAE, ...]:
    """Read a folder of circuit-tracer: `layer_0.safetensors` and so on, in the order of layers.

    The sites are those that its `config.yaml` names (`feature_input_hook`, `feature_output_hook`), where there is one.
    A cross-layer transcoder, whose decoders write to several layers, is read by `load_cross_layer`.

    Raises:
        MissingFile: the folder holds no layer, or lacks one of those between the first and the last.
        InvalidArgument: cross-layer transcoders.

    Examples:
        ```python
        transcoders = load_transcoders("gemma-2-2b-transcoders")
        transcoders[5].sites                  # mlp_in.5, mlp_out.5
        ```
    """
    folder = Path(folder)
    if (folder / "W_enc_0.safetensors").is_file():
        raise InvalidArgument(f"{folder} holds a cross-layer transcoder: read it with load_cross_layer(folder)")
    files = {int(found[1]): path for path in folder.glob("layer_*") if (found := LAYER.fullmatch(path.name))}
    missing = sorted({*range(max(files, default=0) + 1)} - files.keys())
    if missing:
        raise MissingFile(f"{folder} has no file of layer {missing[0]}: circuit-tracer writes layer_0.safetensors on")
    hooks = _hooks(folder / "config.yaml")
    named = [tuple(_site(layer, hook) for hook in hooks) for layer in sorted(files)]
    return tuple(load_transcoder(files[layer], sites=named[layer]) for layer in sorted(files))


def _hooks(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        return ()
    import yaml

    try:
        config = yaml.safe_load(path.read_bytes()) or {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DamagedFile(f"{path} is damaged, it is no YAML ({str(error).splitlines()[0]}): {CURE}") from error
    if not isinstance(config, dict):
        raise DamagedFile(f"{path} is damaged, it holds a {type(config).__name__} and no settings: {CURE}")
    return tuple(str(config[name]) for name in ("feature_input_hook", "feature_output_hook") if name in config)


def _site(layer: int, hook: str) -> Site:
    """The site of a layer that a hook name without its block means."""
    for place in PLACES:
        if place[layer].transformer_lens_name.endswith(f".{hook}"):
            return place[layer]
    raise UnknownSite(
        f"'{hook}' of config.yaml is no site here; those of a transcoder are {', '.join(p.name for p in PLACES)}: read "
        "the files one by one with load_transcoder(path, sites=...)"
    )


def _read_weights(path: str | Path) -> dict[str, Float[Tensor, "..."]]:
    """The weights of a file under our names, the encoder as [d_in, latent]."""
    path = Path(path)
    if not path.is_file():
        raise MissingFile(f"there is no file {path}")
    try:
        if path.suffix == ".npz":
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                stored = {name: torch.from_numpy(file[name]) for name in file.files}
        else:
            stored = load_file(path)
    except Exception as error:
        raise DamagedFile(f"{path} cannot be read ({error}): {CURE}") from error
    return _in_our_names(stored, path)


def _in_our_names(stored: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    weights = {NAMES.get(name, name): tensor for name, tensor in stored.items()}
    if lost := sorted({"W_enc", "W_dec", "b_enc", "b_dec"} - weights.keys()):
        raise DamagedFile(f"{path} holds {sorted(stored)} and not {', '.join(lost)}: it is no transcoder's file")
    by_latent = "w_enc" not in stored and path.suffix != ".npz"  # circuit-tracer keeps a row for each latent
    if by_latent:
        weights["W_enc"] = weights["W_enc"].T
    if "affine_skip_connection" in stored:
        weights["W_skip"] = weights["W_skip"].T
    return weights
