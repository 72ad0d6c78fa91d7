"""Reading what other libraries save: folders of dictionary_learning and of sparsify."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Site
from hooks.disk import read_bytes, read_foreign, read_pickled
from hooks.errors import InvalidArgument, MissingFile, nearest
from hooks.json_file import parse_object
from hooks.tensor_file import read_weights
from interp.sae.architectures.sae import SAE
from interp.sae.architectures.sparse_coder import SparseCoder
from interp.sae.io.files import CURE
from interp.sae.io.saelens import from_saelens

Weights = Mapping[str, Float[Tensor, "..."]]
PARTS: Final = {"mlp": "mlp_out", "attn": "attn_out", "attention": "attn_out", "self_attn": "attn_out"}
HOOKPOINT: Final = re.compile(r"(?:.*\.)?(?:layers|h|blocks)\.(\d+)(?:\.(mlp|attn|attention|self_attn))?")


def load_dictionary_learning(folder: str | Path) -> SAE:
    """Read a folder of dictionary_learning, `ae.pt` and `config.json`: the latents and reconstructions of its loader.

    The classes read are AutoEncoder, AutoEncoderNew, GatedAutoEncoder, JumpReluAutoEncoder, AutoEncoderTopK,
    BatchTopKSAE and MatryoshkaBatchTopKSAE. Its loader gives the decoder rows of an AutoEncoder unit norm, and so
    measures its latents in units of x; those of the others it leaves as they are. The site is the residual stream
    after the layer named, or None for another submodule.

    Raises:
        MissingFile: one of the two files is missing.
        DamagedFile: one of them is torn, changed, or not what its library writes.
        InvalidArgument: another class.

    Examples:
        ```python
        sae = load_dictionary_learning("saes/trainer_0")
        ```
    """
    file = _there(folder, "config.json")
    config = parse_object(read_bytes(file), file, CURE).get("trainer")
    stored = read_pickled(_there(folder, "ae.pt"), CURE)
    return read_foreign(folder, CURE, lambda: _of_dictionary_learning(folder, config, stored))


def _of_dictionary_learning(folder: str | Path, config: Any, stored: Any) -> SAE:
    name = config["dict_class"]
    if name not in _READERS:
        raise InvalidArgument(f"{folder} holds a '{name}'; those read here are {nearest(name, _READERS)}")
    entries, weights = _READERS[name](config, stored)
    sae = from_saelens({"normalize_activations": "none"} | entries, weights, str(folder))
    sae.model_name = config.get("lm_name")
    submodule, layer = config.get("submodule_name") or "", config.get("layer")
    if layer is not None and (not submodule or submodule.startswith("resid_post")):
        sae.site = Site("resid_post", int(layer))
    return sae


def load_sparsify(folder: str | Path) -> SAE:
    """Read a folder of sparsify, `cfg.json` and `sae.safetensors`: the same latents and reconstructions.

    Sites are known by their folders there: `layers.5` is the residual stream after block 5, `layers.5.mlp` what its
    feed-forward layer writes, and of a transcoder what it reads and writes; another name leaves them empty. An
    autoencoder that keeps the k largest is a `TopK`; transcoders, and those with groups or a linear path, are read as
    `SparseCoder`.

    Raises:
        MissingFile: one of the two files is missing.
        DamagedFile: one of them is torn, changed, or not what its library writes.
        InvalidArgument: an activation other than "topk" and "groupmax".

    Examples:
        ```python
        sae = load_sparsify("sae-pythia-160m-32k/layers.5")
        ```
    """
    file = _there(folder, "cfg.json")
    config = parse_object(read_bytes(file), file, CURE)
    stored = read_weights(_there(folder, "sae.safetensors"), CURE)
    return read_foreign(folder, CURE, lambda: _of_sparsify(folder, config, stored))


def _of_sparsify(folder: str | Path, config: Mapping[str, Any], stored: Weights) -> SAE:
    activation, transcodes = config.get("activation", "topk"), bool(config.get("transcode"))
    if activation not in ("topk", "groupmax"):
        raise InvalidArgument(
            f"{folder} holds a coder with activation '{activation}'; of sparsify's, those read here are 'topk' and "
            "'groupmax'"
        )
    weights = {
        "W_enc": stored["encoder.weight"].T,
        "b_enc": stored["encoder.bias"],
        "W_dec": stored["W_dec"],
        "b_dec": stored["b_dec"],
    }
    skip = "W_skip" in stored
    if not (transcodes or skip) and activation == "topk":
        entries: dict[str, Any] = {"architecture": "topk", "k": config["k"]}
    else:
        settings = {"activation": activation, "k": config["k"], "skip": skip}
        settings |= {"d_out": len(stored["b_dec"])} if transcodes else {}
        weights |= {"W_skip": stored["W_skip"]} if skip else {}
        entries = _coder(settings, centred=not transcodes)
    sae = from_saelens(entries, weights, str(folder))
    sae.sites = _hookpoint(Path(folder).name, transcodes)
    return sae


def _hookpoint(name: str, transcodes: bool) -> tuple[Site, ...]:
    """The sites that sparsify's name of a submodule means."""
    found = HOOKPOINT.fullmatch(name)
    if found is None:
        return ()
    layer, part = int(found[1]), found[2]
    if not transcodes:
        return (Site(PARTS[part] if part else "resid_post", layer),)
    if part == "mlp":
        return (Site("mlp_in", layer), Site("mlp_out", layer))
    return () if part else (Site("resid_pre", layer), Site("resid_post", layer))


def _coder(settings: dict[str, Any], *, centred: bool) -> dict[str, Any]:
    """The configuration of a `SparseCoder` with these settings."""
    kind = SparseCoder.architecture
    return {"architecture": kind, "apply_b_dec_to_input": centred, "metadata": {"settings": settings}}


def _there(folder: str | Path, name: str) -> Path:
    path = Path(folder) / name
    if not path.is_file():
        raise MissingFile(f"{folder} has no {name}: it is not a folder that this library saved")
    return path


def _linear(stored: Weights, bias: str, b_enc: Tensor) -> dict[str, Tensor]:
    """Weights held as torch's linear layers hold them, transposed."""
    return {
        "W_enc": stored["encoder.weight"].T,
        "W_dec": stored["decoder.weight"].T,
        "b_dec": stored[bias],
        "b_enc": b_enc,
    }


def _standard(_: Mapping[str, Any], stored: Weights) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """AutoEncoder, whose loader normalises the decoder; AutoEncoderNew, whose loader does not."""
    normalised = "bias" in stored
    weights = _linear(stored, "bias" if normalised else "decoder.bias", stored["encoder.bias"])
    norm = weights["W_dec"].norm(dim=1)
    if normalised and not norm.allclose(torch.ones_like(norm)):
        weights["W_enc"], weights["b_enc"] = weights["W_enc"] * norm, weights["b_enc"] * norm
        weights["W_dec"] = weights["W_dec"] / norm[:, None]
    return {"architecture": "standard", "apply_b_dec_to_input": normalised}, weights


def _convert_gated(_: Mapping[str, Any], stored: Weights) -> tuple[dict[str, Any], dict[str, Tensor]]:
    weights = _linear(stored, "decoder_bias", stored["gate_bias"])
    weights = {name: weights[name] for name in ("W_enc", "W_dec", "b_dec")}
    weights |= {"b_gate": stored["gate_bias"], "b_mag": stored["mag_bias"], "r_mag": stored["r_mag"]}
    return {"architecture": "gated", "apply_b_dec_to_input": True}, weights


def _jumprelu(_: Mapping[str, Any], stored: Weights) -> tuple[dict[str, Any], dict[str, Tensor]]:
    weights = {name: stored[name] for name in ("W_enc", "b_enc", "threshold", "W_dec", "b_dec")}
    return {"architecture": "jumprelu", "apply_b_dec_to_input": False}, weights


def _topk(config: Mapping[str, Any], stored: Weights) -> tuple[dict[str, Any], dict[str, Tensor]]:
    return {"architecture": "topk", "k": config["k"]}, _linear(stored, "b_dec", stored["encoder.bias"])


def _batch_topk(config: Mapping[str, Any], stored: Weights) -> tuple[dict[str, Any], dict[str, Tensor]]:
    weights = _linear(stored, "b_dec", stored["encoder.bias"])
    return _threshold_settings("batchtopk", {"k": config["k"]}), _with_threshold(weights, stored)


def _matryoshka(config: Mapping[str, Any], stored: Weights) -> tuple[dict[str, Any], dict[str, Tensor]]:
    weights = {name: stored[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    widths = torch.as_tensor(stored["group_sizes"]).cumsum(0).tolist()
    settings = {"k": config["k"], "widths": widths}
    return _threshold_settings("matryoshka_batchtopk", settings), _with_threshold(weights, stored)


def _threshold_settings(architecture: str, settings: dict[str, Any]) -> dict[str, Any]:
    return {"architecture": "jumprelu", "metadata": {"training_architecture": architecture, "settings": settings}}


def _with_threshold(weights: dict[str, Tensor], stored: Weights) -> dict[str, Tensor]:
    """One threshold for all latents; below 0 it was never learnt, and every positive latent passes."""
    return weights | {"threshold": stored["threshold"].expand(weights["b_enc"].shape)}


_Reader = Callable[[Mapping[str, Any], Weights], tuple[dict[str, Any], dict[str, Tensor]]]
_READERS: Final[dict[str, _Reader]] = {
    "AutoEncoder": _standard,
    "AutoEncoderNew": _standard,
    "GatedAutoEncoder": _convert_gated,
    "JumpReluAutoEncoder": _jumprelu,
    "AutoEncoderTopK": _topk,
    "BatchTopKSAE": _batch_topk,
    "MatryoshkaBatchTopKSAE": _matryoshka,
}
