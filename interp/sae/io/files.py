"""Saving and loading in SAELens's on-disk format: `cfg.json` and `sae_weights.safetensors` in a folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import TypedDict

from hooks import Site
from hooks.disk import (
    Kind,
    Record,
    check_record,
    parse_object,
    read_bytes,
    read_foreign,
    read_json,
    record,
    write_json,
    write_text,
)
from hooks.errors import DamagedFile, InvalidArgument, MissingFile, nearest
from hooks.tensor_file import read_weights, save_tensors
from interp.sae.architectures.registry import ARCHITECTURES
from interp.sae.architectures.sae import SAE, folded

CONFIG, WEIGHTS, CHECKSUMS = "cfg.json", "sae_weights.safetensors", "checksums.json"
CURE: Final = "put it back from a copy, or download or save it again"
COUNTS: Final = ("group_sizes", "k", "step", "num_tokens_since_fired")
"""What other libraries keep among their weights that counts something."""


class Checksums(TypedDict):
    """What the third file says: the size and checksum of the other two."""

    files: dict[str, Record]


KIND: Final = Kind("interp.sae", "checksums of an autoencoder", "save", Checksums)
FORMAT = "6.54.0"  # the SAELens version whose format this is
THRESHOLDED: Final = ("batchtopk", "matryoshka_batchtopk")
"""Architectures that SAELens knows after training as "jumprelu", the same function."""


def save(sae: SAE, folder: str | Path) -> Path:
    """Write an autoencoder as SAELens would; `sae_lens.SAE.load_from_disk(folder)` reads it.

    A normalisation is folded into the weights first. BatchTopK and Matryoshka are written as JumpReLU, which is what
    they are after training. What SAELens has no place for (settings of training, largest activations, sites, the
    model's fingerprint, the data) goes into the configuration's metadata, which it keeps and ignores. A crosscoder
    is written in the same two files, but SAELens has no such architecture. A third file, which SAELens does not read,
    holds the checksums of the two. Returns the folder.

    Example:
        ```python
        save(sae, "golden_gate_sae")
        ```
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sae = folded(sae)
    weights: dict[str, Tensor] = dict(sae.named_parameters())
    if sae.architecture in THRESHOLDED:
        weights["threshold"] = sae.get_buffer("threshold")
    save_tensors(folder / WEIGHTS, weights)
    write_text(folder / CONFIG, json.dumps(_config(sae), indent=1))
    write_json(folder / CHECKSUMS, KIND, {"files": {name: record(folder / name) for name in (CONFIG, WEIGHTS)}})
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
        "hook_name_out": sae.sites[-1].transformer_lens_name if sae.sites and "d_out" in settings else None,
        "sites": [site.transformer_lens_name for site in sae.sites],
        "fingerprint": sae.fingerprint,
        "dataset": sae.dataset,
        "max_activation": sae.max_activation.tolist(),
    }
    own = {"k": settings["k"], "rescale_acts_by_decoder_norm": False} if sae.architecture == "topk" else {}
    own |= {"d_out": settings["d_out"]} if "d_out" in settings else {}
    return {
        "architecture": "jumprelu" if sae.architecture in THRESHOLDED else sae.architecture,
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": str(sae.W_dec.dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": sae.centred,
        "normalize_activations": "none",
        "reshape_activations": _reshaping(sae.site),
        **own,
        "metadata": metadata,
    }


def _reshaping(site: Site | None) -> str:
    """SAELens's word for activations that have a head axis: the last part of the name of the site `z`."""
    return site.transformer_lens_name.rpartition(".")[2] if site is not None and site.name == "z" else "none"


def load(folder: str | Path) -> SAE:
    """Read an autoencoder that `save`, or SAELens, wrote; the same latents and reconstructions, in float32.

    Raises:
        MissingFile: the folder lacks one of the two files.
        DamagedFile: one of them is torn, changed, or no autoencoder; weights that are not finite or no floats.
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
            raise MissingFile(f"{folder} has no {name}: a saved autoencoder is a folder of {CONFIG} and {WEIGHTS}.")
    if (folder / CHECKSUMS).exists():
        for name, recorded in read_json(folder / CHECKSUMS, KIND)["files"].items():
            check_record(folder / name, recorded, f"{CURE}; if you changed it yourself, remove {CHECKSUMS}")
    config = parse_object(read_bytes(folder / CONFIG), folder / CONFIG, CURE)
    weights = read_weights(folder / WEIGHTS, CURE)
    return read_foreign(folder, CURE, lambda: built(config, weights, str(folder)))


def built(config: Mapping[str, Any], weights: Mapping[str, Float[Tensor, "..."]], where: str) -> SAE:
    """The autoencoder that a configuration and weights in SAELens's words describe; `where` is for errors.

    SAELens's options are folded into the weights. Where the encoder reads x - b_dec in the file and x here, or the
    reverse, its biases take up b_dec W_enc. With `rescale_acts_by_decoder_norm` latents are measured in units of x:
    each decoder row's norm moves into the encoder. A threshold below 0 becomes 0: those who write such let ReLU(z)
    1[z > theta] pass, which is the same.

    Raises:
        ValueError: an architecture or input normalisation that is not implemented here, or a missing setting.

    Example:
        ```python
        built(theirs.cfg.to_dict(), theirs.state_dict(), "theirs")
        ```
    """
    check_weights(weights, where)
    architecture, normalisation = config.get("architecture", "standard"), config.get("normalize_activations", "none")
    metadata = config.get("metadata") or {}
    if architecture not in ARCHITECTURES:
        known = nearest(architecture, ARCHITECTURES)
        raise InvalidArgument(f"{where} holds a '{architecture}' autoencoder; those read here are {known}.")
    if normalisation not in ("none", None):
        raise InvalidArgument(
            f"{where} normalises its input by '{normalisation}'; fold that into the weights with SAELens "
            "and save again."
        )
    activation = config.get("activation_fn_str") or config.get("activation_fn") or "relu"
    if (architecture == "standard" and activation != "relu") or config.get("finetuning_scaling_factor"):
        raise InvalidArgument(
            f"{where} is of an older format, with activation '{activation}' or a scale per latent beside its weights; "
            "load and save it with SAELens first."
        )
    trained_as = metadata.get("training_architecture")
    kind = ARCHITECTURES[trained_as if architecture == "jumprelu" and trained_as in THRESHOLDED else architecture]
    weights = _in_our_words(dict(weights), dict(config), kind)
    try:
        settings = metadata.get("settings") or _settings(
            kind.architecture, {**config, **(metadata.get("training_architecture_details") or {})}
        )
    except KeyError as missing:
        raise InvalidArgument(
            f"{where} does not say the {missing} of its '{architecture}' autoencoder, so it is of an older format; "
            "load and save it with SAELens first."
        ) from missing
    sae = kind(weights["W_enc"].shape[-2], weights["W_enc"].shape[-1], **settings)
    missing, unexpected = sae.load_state_dict(weights, strict=False)
    needed = {"threshold", *dict(sae.named_parameters())}
    if lost := sorted(needed & {*missing}) + unexpected:
        raise InvalidArgument(f"{where} does not hold the weights of a '{architecture}' autoencoder: see {lost}.")
    _remember(sae, where, metadata | {k: config[k] for k in ("hook_name", "model_name") if k in config})
    return sae


def _settings(architecture: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The constructor's settings of an autoencoder that SAELens trained."""
    if architecture == "topk":
        return {"k": int(config["k"])}
    if architecture == "batchtopk":
        return {"k": config["k"]}
    if architecture == "matryoshka_batchtopk":
        return {"k": config["k"], "widths": config["matryoshka_widths"]}
    if architecture in ("transcoder", "skip_transcoder"):
        return {"d_out": int(config["d_out"])}
    return {"n_layers": int(config["n_layers"])} if architecture == "crosscoder" else {}


def _in_our_words(weights: dict[str, Tensor], config: dict[str, Any], kind: type[SAE]) -> dict[str, Tensor]:
    """The weights of the same function, as this kind of autoencoder has it."""
    weights = {name: weight.detach().float().cpu() for name, weight in weights.items()}
    stored = config.get("apply_b_dec_to_input", True)
    if stored != kind.centred:
        shift = weights["b_dec"] @ weights["W_enc"] * (1 if kind.centred else -1)
        for name in ("b_enc", "b_gate"):
            if name in weights:
                weights[name] = weights[name] + shift
        if "b_mag" in weights:
            weights["b_mag"] = weights["b_mag"] + shift * weights["r_mag"].exp()
    if config.get("rescale_acts_by_decoder_norm", False):
        norm = weights["W_dec"].norm(dim=1)
        weights["W_enc"], weights["b_enc"] = weights["W_enc"] * norm, weights["b_enc"] * norm
        weights["W_dec"] = weights["W_dec"] / norm[:, None]
    if "threshold" in weights:
        weights["threshold"] = weights["threshold"].clamp(min=0)
    return weights


def _remember(sae: SAE, where: str, metadata: Mapping[str, Any]) -> None:
    """Put back what the metadata says of the autoencoder's origin."""
    read_and_written = (metadata.get("hook_name"), metadata.get("hook_name_out"))
    names = metadata.get("sites") or [name for name in read_and_written if name]
    sae.sites = tuple(Site.parse(name) for name in names)
    sae.model_name, sae.fingerprint = metadata.get("model_name"), metadata.get("fingerprint")
    sae.dataset = metadata.get("dataset") or metadata.get("dataset_path")
    if (largest := metadata.get("max_activation")) is not None:
        largest = torch.tensor(largest)
        if largest.shape != sae.max_activation.shape or not bool((largest >= 0).all()):
            raise DamagedFile(
                f"{where} tells largest activations of shape {list(largest.shape)}, and has {sae.d_sae} latents, whose "
                f"are at least 0: {CURE}"
            )
        sae.max_activation.copy_(largest)


def check_weights(weights: Mapping[str, Tensor], where: str) -> None:
    """Raise where weights are no floating point numbers, or not finite.

    Raises:
        DamagedFile: naming the first that is not.

    Example:
        ```python
        check_weights({"W_dec": torch.ones(4, 2)}, "golden_gate_sae")
        ```
    """
    for name, weight in weights.items():
        if name not in COUNTS and not weight.is_floating_point():
            raise DamagedFile(f"{where} holds {name} of {weight.dtype}, and weights are floating point: {CURE}")
        if not bool(weight.isfinite().all()):
            raise DamagedFile(f"{where} holds NaN or infinity in {name}: {CURE}")
