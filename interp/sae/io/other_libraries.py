"""Reading what other libraries save: folders of dictionary_learning and of sparsify."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Site
from hooks.disk import parse_object, read_bytes, read_foreign, read_pickled
from hooks.errors import InvalidArgument, MissingFile, nearest
from hooks.tensor_file import read_weights
from interp.sae.architectures.sae import SAE
from interp.sae.io.files import CURE, built, check_weights

Weights = Mapping[str, Float[Tensor, "..."]]


def load_dictionary_learning(folder: str | Path) -> SAE:
    """Read a folder of dictionary_learning, `ae.pt` and `config.json`: the same latents and reconstructions.

    The classes read are AutoEncoder, AutoEncoderNew, GatedAutoEncoder, JumpReluAutoEncoder, AutoEncoderTopK,
    BatchTopKSAE and MatryoshkaBatchTopKSAE. Where the library measures latents in units of x, decoder norms move into
    the encoder. The site is the residual stream after the layer named, or None for another submodule.

    Raises:
        FileNotFoundError: one of the two files is missing.
        ValueError: another class.

    Example:
        ```python
        sae = load_dictionary_learning("saes/trainer_0")
        ```
    """
    file = _there(folder, "config.json")
    config = parse_object(read_bytes(file), file, CURE).get("trainer")
    stored = read_pickled(_there(folder, "ae.pt"), CURE)
    return read_foreign(folder, CURE, lambda: _of_dictionary_learning(folder, config, stored))


def _of_dictionary_learning(folder: str | Path, config: Any, stored: Any) -> SAE:
    check_weights(stored, str(folder))
    name = config["dict_class"]
    if name not in _READERS:
        raise InvalidArgument(f"{folder} holds a '{name}'; those read here are {nearest(name, _READERS)}.")
    entries, weights = _READERS[name](config, stored)
    sae = built({"normalize_activations": "none"} | entries, weights, str(folder))
    sae.model_name = config.get("lm_name")
    submodule, layer = config.get("submodule_name") or "", config.get("layer")
    if layer is not None and (not submodule or submodule.startswith("resid_post")):
        sae.site = Site("resid_post", int(layer))
    return sae


def load_sparsify(folder: str | Path) -> SAE:
    """Read a folder of sparsify, `cfg.json` and `sae.safetensors`: the same latents and reconstructions.

    Sites are known by their folders there, as in `layers.5`, which is the residual stream after block 5; another
    name leaves the site None.

    Raises:
        FileNotFoundError: one of the two files is missing.
        ValueError: a transcoder, or an activation other than "topk".

    Example:
        ```python
        sae = load_sparsify("sae-pythia-160m-32k/layers.5")
        ```
    """
    file = _there(folder, "cfg.json")
    config = parse_object(read_bytes(file), file, CURE)
    stored = read_weights(_there(folder, "sae.safetensors"), CURE)
    return read_foreign(folder, CURE, lambda: _of_sparsify(folder, config, stored))


def _of_sparsify(folder: str | Path, config: Mapping[str, Any], stored: Weights) -> SAE:
    check_weights(stored, str(folder))
    activation = config.get("activation", "topk")
    if activation != "topk" or config.get("transcode") or config.get("skip_connection"):
        kind = "a transcoder" if config.get("transcode") else f"an autoencoder with activation '{activation}'"
        raise InvalidArgument(f"{folder} holds {kind}; of sparsify's, those read here are autoencoders with 'topk'.")
    weights = {
        "W_enc": stored["encoder.weight"].T,
        "b_enc": stored["encoder.bias"],
        "W_dec": stored["W_dec"],
        "b_dec": stored["b_dec"],
    }
    sae = built({"architecture": "topk", "k": config["k"]}, weights, str(folder))
    part, _, number = Path(folder).name.rpartition(".")
    if part.endswith("layers") and number.isdigit():
        sae.site = Site("resid_post", int(number))
    return sae


def _there(folder: str | Path, name: str) -> Path:
    path = Path(folder) / name
    if not path.is_file():
        raise MissingFile(f"{folder} has no {name}: it is not a folder that this library saved.")
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
    centred = "bias" in stored
    weights = _linear(stored, "bias" if centred else "decoder.bias", stored["encoder.bias"])
    return {"architecture": "standard", "apply_b_dec_to_input": centred}, weights


def _gated(_: Mapping[str, Any], stored: Weights) -> tuple[dict[str, Any], dict[str, Tensor]]:
    weights = _linear(stored, "decoder_bias", stored["gate_bias"])
    norm = weights["W_dec"].norm(dim=1)
    weights = {
        "W_enc": weights["W_enc"] * norm,
        "W_dec": weights["W_dec"] / norm[:, None],
        "b_dec": weights["b_dec"],
        "b_gate": stored["gate_bias"] * norm,
        "b_mag": stored["mag_bias"] * norm,
        "r_mag": stored["r_mag"],
    }
    return {"architecture": "gated", "apply_b_dec_to_input": True}, weights


def _jumprelu(_: Mapping[str, Any], stored: Weights) -> tuple[dict[str, Any], dict[str, Tensor]]:
    norm = stored["W_dec"].norm(dim=1)
    weights = {name: stored[name] * norm for name in ("W_enc", "b_enc", "threshold")}
    weights |= {"W_dec": stored["W_dec"] / norm[:, None], "b_dec": stored["b_dec"]}
    return {"architecture": "jumprelu", "apply_b_dec_to_input": False}, weights


def _topk(config: Mapping[str, Any], stored: Weights) -> tuple[dict[str, Any], dict[str, Tensor]]:
    return {"architecture": "topk", "k": config["k"]}, _linear(stored, "b_dec", stored["encoder.bias"])


def _batch_topk(config: Mapping[str, Any], stored: Weights) -> tuple[dict[str, Any], dict[str, Tensor]]:
    weights = _linear(stored, "b_dec", stored["encoder.bias"])
    return _thresholded("batchtopk", {"k": config["k"]}), _with_threshold(weights, stored)


def _matryoshka(config: Mapping[str, Any], stored: Weights) -> tuple[dict[str, Any], dict[str, Tensor]]:
    weights = {name: stored[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    widths = torch.as_tensor(stored["group_sizes"]).cumsum(0).tolist()
    settings = {"k": config["k"], "widths": widths}
    return _thresholded("matryoshka_batchtopk", settings), _with_threshold(weights, stored)


def _thresholded(architecture: str, settings: dict[str, Any]) -> dict[str, Any]:
    return {"architecture": "jumprelu", "metadata": {"training_architecture": architecture, "settings": settings}}


def _with_threshold(weights: dict[str, Tensor], stored: Weights) -> dict[str, Tensor]:
    """One threshold for all latents; below 0 it was never learnt, and every positive latent passes."""
    return weights | {"threshold": stored["threshold"].expand(weights["b_enc"].shape)}


_Reader = Callable[[Mapping[str, Any], Weights], tuple[dict[str, Any], dict[str, Tensor]]]
_READERS: Final[dict[str, _Reader]] = {
    "AutoEncoder": _standard,
    "AutoEncoderNew": _standard,
    "GatedAutoEncoder": _gated,
    "JumpReluAutoEncoder": _jumprelu,
    "AutoEncoderTopK": _topk,
    "BatchTopKSAE": _batch_topk,
    "MatryoshkaBatchTopKSAE": _matryoshka,
}
