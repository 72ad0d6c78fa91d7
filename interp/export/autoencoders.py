"""Autoencoders and transcoders in the files of dictionary_learning, sparsify and circuit-tracer.

SAELens's own files are those that `interp.sae.io.files.save` writes, and circuit-tracer's for cross-layer transcoders
are those of `save_cross_layer`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor

from hooks.disk import check_new_folder, write_file, write_folder, write_text
from hooks.errors import InvalidArgument
from hooks.tensor_file import save_tensors
from interp.export.report import ExportReport, check_difference
from interp.sae import SAE, BatchTopK, JumpReLU, MatryoshkaBatchTopK, SparseCoder, Standard, TopK
from interp.sae.architectures.sae import fold_normalisation
from interp.sae.architectures.transcoder import TranscoderBase
from interp.sae.io.other_libraries import load_dictionary_learning, load_sparsify
from interp.sae.io.transcoder_files import load_transcoders

ROWS: Final = 64
Weights = dict[str, Float[Tensor, "..."]]


def to_dictionary_learning(sae: SAE, folder: str | Path) -> ExportReport:
    """Write an autoencoder as dictionary_learning does, `ae.pt` and `config.json`; its `load_dictionary` reads it.

    `Standard` becomes AutoEncoderNew, `TopK` AutoEncoderTopK, and `JumpReLU`, `BatchTopK` and Matryoshka's, all with
    thresholds, JumpReluAutoEncoder. A normalisation is folded in first.

    Raises:
        InvalidArgument: another architecture, or a folder that holds something.
        WrongState: what is read back computes something else.

    Cost: the encoding of 64 rows, twice.

    Examples:
        ```python
        to_dictionary_learning(sae, "saes/trainer_0")
        ```
    """
    made = fold_normalisation(sae)
    name, weights = _of_dictionary_learning(made)
    trainer = {"dict_class": name, "activation_dim": made.d_in, "dict_size": made.d_sae, "lm_name": sae.model_name}
    if isinstance(made, TopK):
        trainer["k"] = made.k
    if made.site is not None and made.site.name == "resid_post":
        trainer |= {"layer": made.site.layer, "submodule_name": f"resid_post_layer_{made.site.layer}"}
    config = json.dumps({"trainer": trainer, "buffer": {}}, indent=2)
    files = _write(folder, {"ae.pt": partial(_save_pickle, weights), "config.json": partial(_save_text, config)})
    return _compare(made, load_dictionary_learning(folder), f"{sae.architecture} as {name}", files)


def to_sparsify(sae: SAE, folder: str | Path) -> ExportReport:
    """Write a TopK autoencoder as sparsify does, `cfg.json` and `sae.safetensors`; its `load_from_disk` reads it.

    sparsify knows the site by the folder's name, such as `layers.5`.

    Raises:
        InvalidArgument: another architecture, or a folder that holds something.
        WrongState: what is read back computes something else.

    Cost: the encoding of 64 rows, twice.

    Examples:
        ```python
        to_sparsify(sae, "saes/layers.5")
        ```
    """
    made = fold_normalisation(sae)
    if not isinstance(made, TopK):
        raise InvalidArgument(
            f"sparsify's autoencoders keep the k largest latents, and this is a {sae.architecture}: take TopK, or "
            "to_dictionary_learning"
        )
    weights = {
        "encoder.weight": made.W_enc.T,
        "encoder.bias": made.b_enc,
        "W_dec": made.W_dec,
        "b_dec": made.b_dec,
    }
    config = {"activation": "topk", "num_latents": made.d_sae, "k": made.k, "d_in": made.d_in, "transcode": False}
    text = json.dumps(config, indent=2)
    files = _write(folder, {"sae.safetensors": partial(_save_weights, weights), "cfg.json": partial(_save_text, text)})
    return _compare(made, load_sparsify(folder), "a TopK autoencoder for sparsify", files)


def to_circuit_tracer(transcoders: Sequence[SAE], folder: str | Path, *, scan: str) -> ExportReport:
    """Write transcoders of all layers as circuit-tracer does: `layer_0.safetensors` and so on, and `config.yaml`.

    Args:
        transcoders: one per layer from the first on, all from the same site to the same site of their layers, with a
            ReLU or thresholds, with or without a linear path.
        folder: where to write; new or empty.
        scan: what circuit-tracer calls the set.

    Raises:
        InvalidArgument: none, one that is no transcoder or keeps k latents, sites that differ; a folder that holds
            something.
        WrongState: what is read back computes something else.

    Cost: the encoding of 64 rows a layer, twice.

    Examples:
        ```python
        to_circuit_tracer(transcoders, "my-transcoders", scan="me/my-transcoders")
        ```
    """
    if not transcoders:
        raise InvalidArgument("no transcoders were given to write: give one per layer")
    made = [fold_normalisation(one) for one in transcoders]
    hooks = _hooks(made)
    lines = ["model_kind: transcoder_set", f"scan: {json.dumps(scan)}"]
    lines += [f"{name}: {hook}" for name, hook in hooks.items()]
    layers = {
        f"layer_{layer}.safetensors": partial(_save_weights, _of_circuit_tracer(one, layer))
        for layer, one in enumerate(made)
    }
    files = _write(folder, layers | {"config.yaml": partial(_save_text, "\n".join(lines) + "\n")})
    what = f"{len(made)} transcoders for circuit-tracer"
    reports = [_compare(one, read, what, files) for one, read in zip(made, load_transcoders(folder), strict=True)]
    return max(reports, key=lambda report: report.difference or 0.0)


def _write(folder: str | Path, files: Mapping[str, Callable[[Path], None]]) -> tuple[Path, ...]:
    """Write a new folder, each file by its function, and return the files' paths."""
    check_new_folder(folder)
    with write_folder(folder) as place:
        for name, write in files.items():
            write(place / name)
    return tuple(Path(folder) / name for name in files)


def _save_weights(weights: Weights, path: Path) -> None:
    save_tensors(path, weights)


def _save_pickle(weights: Weights, path: Path) -> None:
    with write_file(path) as file:
        torch.save(weights, file)


def _save_text(text: str, path: Path) -> None:
    write_text(path, text)


def _of_dictionary_learning(sae: SAE) -> tuple[str, Weights]:
    """The class that has this autoencoder's equation there, and its weights by their names."""
    for kind, name, weights in _CLASSES:
        if type(sae) is kind:
            return name, {key: tensor.detach().clone().contiguous() for key, tensor in weights(sae).items()}
    known = ", ".join(kind.__name__ for kind, _, _ in _CLASSES)
    raise InvalidArgument(f"dictionary_learning has no class for a {type(sae).__name__}: give one of {known}")


def _standard(sae: Any) -> Weights:
    return {
        "encoder.weight": sae.W_enc.T,
        "encoder.bias": sae.b_enc,
        "decoder.weight": sae.W_dec.T,
        "decoder.bias": sae.b_dec,
    }


def _top_k(sae: Any) -> Weights:
    return {
        "encoder.weight": sae.W_enc.T,
        "encoder.bias": sae.b_enc,
        "decoder.weight": sae.W_dec.T,
        "b_dec": sae.b_dec,
        "k": torch.tensor(sae.k, dtype=torch.int),
        "threshold": torch.tensor(-1.0),
    }


def _jump_relu(sae: Any) -> Weights:
    names = ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")
    return {name: getattr(sae, name) for name in names}


def _centred_jump_relu(sae: Any) -> Weights:
    """(x - b_dec) W_enc + b_enc is x W_enc + (b_enc - b_dec W_enc)."""
    b = sae.b_enc.double() - sae.b_dec.double() @ sae.W_enc.double()
    return _jump_relu(sae) | {"b_enc": b.to(sae.b_enc)}


_CLASSES: Final[tuple[tuple[type[SAE], str, Callable[[Any], Weights]], ...]] = (
    (Standard, "AutoEncoderNew", _standard),
    (TopK, "AutoEncoderTopK", _top_k),
    (JumpReLU, "JumpReluAutoEncoder", _jump_relu),
    (BatchTopK, "JumpReluAutoEncoder", _centred_jump_relu),
    (MatryoshkaBatchTopK, "JumpReluAutoEncoder", _centred_jump_relu),
)


def _of_circuit_tracer(sae: SAE, layer: int) -> Weights:
    """Its weights with a row for each latent, the linear path as what multiplies from the left."""
    transcodes = isinstance(sae, TranscoderBase) or isinstance(sae, SparseCoder) and sae.transcodes
    if not transcodes or getattr(sae, "activation", "relu") not in ("relu", "jumprelu"):
        raise InvalidArgument(
            f"layer {layer} is {sae!r}, and circuit-tracer reads transcoders with a ReLU or thresholds: give "
            "Transcoder, SkipTranscoder, or one that was read with load_transcoder"
        )
    weights: Weights = {"W_enc": sae.W_enc.T, "W_dec": sae.W_dec, "b_enc": sae.b_enc, "b_dec": sae.b_dec}
    if isinstance(threshold := getattr(sae, "threshold", None), Tensor):
        weights["activation_function.threshold"] = threshold
    if isinstance(skip := getattr(sae, "W_skip", None), Tensor):
        weights["W_skip"] = skip
    return {name: tensor.detach() for name, tensor in weights.items()}


def _hooks(transcoders: Sequence[SAE]) -> dict[str, str]:
    """The names in a block of what all transcoders read and write, by circuit-tracer's settings."""
    named = set()
    for layer, one in enumerate(transcoders):
        if len(one.sites) != 2 or any(site.layer != layer for site in one.sites):
            raise InvalidArgument(
                f"the transcoder of layer {layer} has sites {[str(site) for site in one.sites]}: give one for each "
                "layer from the first on, with the site it reads and the site it writes"
            )
        named.add(tuple(site.transformer_lens_name.partition(".")[2].partition(".")[2] for site in one.sites))
    if len(named) > 1:
        raise InvalidArgument(f"these transcoders read and write at {sorted(named)}: all must use the same places")
    return dict(zip(("feature_input_hook", "feature_output_hook"), named.pop(), strict=True))


@torch.no_grad()
def _compare(ours: SAE, read: SAE, what: str, files: tuple[Path, ...]) -> ExportReport:
    """The report with the largest difference of reconstructions of random rows, next to how far they reach."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, ours.d_in, generator=random).to(ours.b_dec)
    given, theirs = ours(x), read(x)
    spread = float((given - given.mean(0)).abs().max())
    report = ExportReport(what, files, "our reader of its files", float((given - theirs).abs().max()), spread)
    check_difference(report)
    return report
