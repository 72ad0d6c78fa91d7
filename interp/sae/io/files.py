"""Saving and loading in SAELens's on-disk format: `cfg.json` and `sae_weights.safetensors` in a folder."""

import json
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from typing_extensions import TypedDict

from hooks import Site
from hooks.disk import Record, check_record, read_bytes, read_foreign, record_file, write_text
from hooks.errors import MissingFile
from hooks.json_file import Kind, parse_object, read_json, write_json
from hooks.tensor_file import read_weights, save_tensors
from interp.sae.architectures.sae import SAE, check_whole, fold_normalisation
from interp.sae.io.saelens import THRESHOLDED, from_saelens, saelens_architecture, saelens_settings

CONFIG, WEIGHTS, SCALER = "cfg.json", "sae_weights.safetensors", "activation_scaler.json"
CHECKSUMS = "checksums.json"
CURE: Final = "put it back from a copy, or download or save it again"
WHITENING = "activation_whitening.safetensors"
FORMAT = "6.54.0"  # the SAELens version whose format this is


class Checksums(TypedDict):
    """What a third file, which SAELens does not read, says: the size and checksum of the other two."""

    files: dict[str, Record]


KIND: Final = Kind("interp.sae", "checksums of an autoencoder", "save", Checksums)


def save(sae: SAE, folder: str | Path) -> Path:
    """Write an autoencoder as SAELens would; `sae_lens.SAE.load_from_disk(folder)` reads it.

    A normalisation is folded into the weights first. BatchTopK and Matryoshka are written as JumpReLU, which is what
    they are after training. What SAELens has no place for (settings of training, largest activations, sites, the
    model's fingerprint, the data) goes into the configuration's metadata, which it keeps and ignores. A crosscoder
    is written in the same two files, but SAELens has no such architecture. Returns the folder.

    Examples:
        ```python
        save(sae, "golden_gate_sae")
        ```
    """
    check_whole(sae, "this format, one file of weights (save_shards writes a file for each process),")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sae = fold_normalisation(sae)
    weights: dict[str, Tensor] = dict(sae.named_parameters())
    if sae.architecture in THRESHOLDED:
        weights["threshold"] = sae.get_buffer("threshold")
    if sae.architecture == "temporal" and "encoder" in weights:
        weights["W_enc"] = weights.pop("encoder")
    save_tensors(folder / WEIGHTS, weights)
    write_text(folder / CONFIG, json.dumps(_config(sae), indent=1))
    write_json(folder / CHECKSUMS, KIND, {"files": {name: record_file(folder / name) for name in (CONFIG, WEIGHTS)}})
    return folder


def _config(sae: SAE) -> dict[str, Any]:
    settings = sae.settings()
    metadata: dict[str, Any] = {
        "sae_lens_version": FORMAT,
        "sae_lens_training_version": None,
        "training_architecture": sae.architecture,
        "settings": settings,
        "model_name": sae.model_name,
        "hook_name": sae.site.transformer_lens_name if sae.site else None,
        "hook_name_out": sae.sites[-1].transformer_lens_name if sae.sites and sae.transcodes else None,
        "sites": [site.transformer_lens_name for site in sae.sites],
        "fingerprint": sae.fingerprint,
        "dataset": sae.dataset,
        "max_activation": sae.max_activation.tolist(),
    }
    return {
        "architecture": saelens_architecture(sae),
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": str(sae.W_dec.dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": sae.centred,
        "normalize_activations": sae.row_norm.kind if sae.row_norm else "none",
        "reshape_activations": _reshape_word(sae.site),
        **saelens_settings(sae),
        "metadata": metadata,
    }


def _reshape_word(site: Site | None) -> str:
    """SAELens's word for activations that have a head axis: the last part of the name of the site `z`."""
    return site.transformer_lens_name.rpartition(".")[2] if site is not None and site.name == "z" else "none"


def load(folder: str | Path, *, site: Site | None = None) -> SAE:
    """Read an autoencoder that `save`, or SAELens, wrote; the same latents and reconstructions, in float32.

    A checkpoint of SAELens's trainer is read too: what its activations were scaled or whitened by, which is in a file
    next to it, becomes part of the weights, as SAELens does at the end of training.

    Args:
        folder: where the two files are.
        site: where it reads, for a file that says nothing of it, or a name that no site here has.

    Raises:
        MissingFile: the folder lacks one of the two files.
        DamagedFile: weights that are not finite floating-point numbers, or of another shape than the file says.
        InvalidArgument: an architecture or an input normalisation that is not implemented here.

    Examples:
        ```python
        sae = load("golden_gate_sae")
        sae.site, sae.d_sae
        ```
    """
    folder = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise MissingFile(f"{folder} has no {name}: a saved autoencoder is a folder of {CONFIG} and {WEIGHTS}")
    if (folder / CHECKSUMS).exists():
        for name, recorded in read_json(folder / CHECKSUMS, KIND)["files"].items():
            check_record(folder / name, recorded, f"{CURE}; if you changed it yourself, remove {CHECKSUMS}")
    config = parse_object(read_bytes(folder / CONFIG), folder / CONFIG, CURE)
    weights = read_weights(folder / WEIGHTS, CURE) | _scaler(folder)
    return read_foreign(folder, CURE, lambda: from_saelens(config, weights, str(folder), site=site))


def _scaler(folder: Path) -> dict[str, Tensor]:
    """What a checkpoint's activations were scaled or whitened by, under names that no weight has."""
    path = folder / SCALER
    if not path.is_file():
        return {}
    factor = parse_object(read_bytes(path), path, CURE).get("scaling_factor")
    found = {} if factor is None else read_foreign(path, CURE, lambda: {"scaler.factor": torch.tensor(float(factor))})
    whitening = folder / WHITENING
    if whitening.is_file():
        found |= {f"scaler.{name}": tensor for name, tensor in read_weights(whitening, CURE).items()}
    return found
