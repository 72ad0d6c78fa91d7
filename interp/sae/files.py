"""Saving and loading in SAELens's on-disk format: `cfg.json` and `sae_weights.safetensors` in a folder."""

import json
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file

from hooks import Site
from hooks.errors import nearest
from interp.sae.sae import SAE
from interp.sae.topk import TopK

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
FORMAT = "6.54.0"  # the SAELens version whose format this is
ARCHITECTURES: Final[dict[str, type[SAE]]] = {kind.architecture: kind for kind in (TopK,)}


def save(sae: SAE, folder: str | Path) -> Path:
    """Write an autoencoder as SAELens would; `sae_lens.SAE.load_from_disk(folder)` reads it.

    What SAELens has no place for (largest activations, site, the model's fingerprint, the data) goes into the
    configuration's metadata, which it keeps and ignores. Returns the folder.

    Example:
        ```python
        save(sae, "golden_gate_sae")
        ```
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config, weights = sae.to_saelens()
    metadata: dict[str, Any] = {
        "sae_lens_version": FORMAT,
        "sae_lens_training_version": None,
        "model_name": sae.model_name,
        "hook_name": sae.site.transformer_lens_name if sae.site else None,
        "fingerprint": sae.fingerprint,
        "dataset": sae.dataset,
        "max_activation": sae.max_activation.tolist(),
    }
    common = {
        "architecture": sae.architecture,
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": str(sae.W_dec.dtype).removeprefix("torch."),
        "device": "cpu",
        "normalize_activations": "none",
        "reshape_activations": _reshaping(sae.site),
        "metadata": metadata,
    }
    (folder / CONFIG).write_text(json.dumps(common | config, indent=1), encoding="utf-8")
    save_file({name: weight.cpu().contiguous() for name, weight in weights.items()}, folder / WEIGHTS)
    return folder


def _reshaping(site: Site | None) -> str:
    """SAELens's word for activations that have a head axis: the last part of the name of the site `z`."""
    return site.transformer_lens_name.rpartition(".")[2] if site is not None and site.name == "z" else "none"


def load(folder: str | Path) -> SAE:
    """Read an autoencoder that `save`, or SAELens, wrote; the same latents and reconstructions, in float32.

    Raises:
        FileNotFoundError: the folder lacks one of the two files.
        ValueError: an architecture or an input normalisation that is not implemented here.

    Example:
        ```python
        sae = load("golden_gate_sae")
        sae.site, sae.d_sae
        ```
    """
    folder = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder} has no {name}: a saved autoencoder is a folder of {CONFIG} and {WEIGHTS}."
            )
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    architecture, normalised = config.get("architecture", "standard"), config.get("normalize_activations", "none")
    if architecture not in ARCHITECTURES:
        known = nearest(architecture, ARCHITECTURES)
        raise ValueError(f"{folder} holds a '{architecture}' autoencoder; those read here are {known}.")
    if normalised != "none":
        raise ValueError(
            f"{folder} normalises its input by '{normalised}'; fold that into the weights with SAELens and save again."
        )
    sae = ARCHITECTURES[architecture].from_saelens(config, load_file(folder / WEIGHTS))
    _remember(sae, config.get("metadata") or {})
    return sae


def _remember(sae: SAE, metadata: dict[str, Any]) -> None:
    """Put back what the metadata says of the autoencoder's origin."""
    hook_name = metadata.get("hook_name")
    sae.site = Site.parse(hook_name) if hook_name else None
    sae.model_name, sae.fingerprint = metadata.get("model_name"), metadata.get("fingerprint")
    sae.dataset = metadata.get("dataset") or metadata.get("dataset_path")
    if (largest := metadata.get("max_activation")) is not None:
        sae.max_activation.copy_(torch.tensor(largest))
