"""Autoencoders of other libraries, written by those libraries and read here: equal or not, and by how much.

    python benchmarks/conformance_sae.py --peers FOLDER

Each row makes one autoencoder with the library's own class, random weights and decoder rows of unequal norm, saves it
as that library does, reads it with `interp.sae`, and compares latents and reconstructions of 64 rows with those of the
library's own loader. Equal means within 1e-5 of the largest value. `--peers` is where libraries that this project does
not install are (`pip install --target FOLDER --no-deps dictionary_learning eai-sparsify circuit-tracer`); rows of a
library that is missing say so. Writes benchmarks/results/conformance_sae.json.
"""

import argparse
import json
import logging
import sys
import tempfile
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from interp.sae import (  # noqa: E402
    SAE,
    load,
    load_cross_layer,
    load_dictionary_learning,
    load_gemma_scope,
    load_sparsify,
    load_transcoder,
    save_cross_layer,
)

D, LATENTS, K, N, EQUAL = 16, 64, 4, 64, 1e-5
RESULTS = Path(__file__).parent / "results" / "conformance_sae.json"
NORMALISATIONS = ("layer_norm", "constant_norm_rescale", "expected_average_only_in", "covariance_whitening")
Pair = tuple[SAE, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], Tensor]


@dataclass(frozen=True)
class Row:
    """One format: whether it is equal, the largest difference of latents and reconstructions, or why it is not read."""

    library: str
    format: str
    equal: bool
    difference: float | None
    why: str = ""


def randomise(module: torch.nn.Module, seed: int = 0) -> Any:
    """No weight at a special value, decoder rows of norms from 0.5 to 2."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in module.named_parameters():
            p.copy_(
                0.3 * torch.randn(p.shape, generator=g)
                if "threshold" not in name
                else 0.3 * torch.rand(p.shape, generator=g)
            )
            if name.rpartition(".")[2] == "W_dec":
                p.mul_(torch.linspace(0.5, 2, len(p))[:, None])
    return module


def rows(*shape: int) -> Tensor:
    """Activations off the origin."""
    return torch.randn(*shape, D, generator=torch.Generator().manual_seed(9)) + 0.3


TEMPORAL: dict[str, Any] = {"n_heads": 2, "bottleneck_factor": 8, "kval_topk": K}
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "topk": [{"k": K}, {"k": K, "rescale_acts_by_decoder_norm": True}],
    "abstopk": [{"k": K}, {"k": K, "rescale_acts_by_decoder_norm": True}],
    "matching_pursuit": [{}, {"residual_threshold": 0.0, "stop_on_duplicate_support": False, "max_iterations": 5}],
    "temporal": [
        TEMPORAL | {"tied_weights": tied, "sae_diff_type": kind} for tied in (True, False) for kind in ("topk", "relu")
    ],
}


def saelens_formats(folder: Path) -> Iterator[tuple[str, Callable[[], Pair]]]:
    """Every architecture, option and normalisation of SAELens that its classes take, and its training checkpoints."""
    from sae_lens.registry import SAE_CLASS_REGISTRY

    for name in SAE_CLASS_REGISTRY:
        transcodes, temporal = "transcoder" in name, name == "temporal"
        usual = [{"d_out": 7}] if transcodes else [{}]
        normalisations = ["none", *NORMALISATIONS[:3], "constant_scalar_rescale" if temporal else NORMALISATIONS[3]]
        for options, centred, normalisation in product(
            OPTIONS.get(name, usual), [False] if transcodes else [True, False], normalisations
        ):
            given = {**options, "apply_b_dec_to_input": centred, "normalize_activations": normalisation}
            given |= {"activation_normalization_factor": 0.4} if normalisation == "constant_scalar_rescale" else {}
            said = ", ".join(f"{key}={value}" for key, value in given.items())
            yield f"{name} ({said})", partial(saelens_inference, folder, name, given)
    nested = {"matryoshka_widths": [10, 30, LATENTS]}
    for (name, options), rescaled, scaled in product(
        {"batchtopk": {}, "matryoshka_batchtopk": nested}.items(), (True, False), (False, True)
    ):
        given = {"k": 3.5, "rescale_acts_by_decoder_norm": rescaled, **options}
        said = f"{name} training checkpoint (rescale_acts_by_decoder_norm={rescaled}, scaled input={scaled})"
        yield said, partial(saelens_checkpoint, folder, name, given, scaled)


def saelens_inference(folder: Path, name: str, options: dict[str, Any]) -> Pair:
    """One of its architectures, saved and loaded by itself."""
    from sae_lens.registry import get_sae_class
    from sae_lens.saes.sae import SAE as Theirs

    kind, config = get_sae_class(name)
    theirs = randomise(kind(config(d_in=D, d_sae=LATENTS, **options)))
    path = Path(tempfile.mkdtemp(dir=folder))
    theirs.save_model(path)
    theirs = Theirs.load_from_disk(path)
    return load(path), theirs.encode, theirs, rows(4, 8) if name == "temporal" else rows(N)


def saelens_checkpoint(folder: Path, name: str, options: dict[str, Any], scaled: bool) -> Pair:
    """A checkpoint of its trainer, against what it saves for inference once training is over."""
    from sae_lens.registry import get_sae_training_class
    from sae_lens.saes.sae import SAE as Theirs

    kind, config = get_sae_training_class(name)
    options = options | ({"normalize_activations": "expected_average_only_in"} if scaled else {})
    theirs = randomise(kind(config(d_in=D, d_sae=LATENTS, **options)))
    theirs.topk_threshold.fill_(0.4)
    path = Path(tempfile.mkdtemp(dir=folder))
    theirs.save_model(path)
    (path / "activation_scaler.json").write_text(json.dumps({"scaling_factor": 0.7 if scaled else None}))
    if scaled:
        theirs.fold_activation_norm_scaling_factor(0.7)
    theirs.save_inference_model(path / "inference")
    inferring = Theirs.load_from_disk(path / "inference")
    return load(path), inferring.encode, inferring, rows(N)


def dictionary_learning_formats(folder: Path) -> Iterator[tuple[str, Callable[[], Pair]]]:
    """The classes of dictionary_learning's `load_dictionary`, without its language-model part."""
    for name in ("nnsight", "zstandard"):  # its data loading, which no dictionary needs
        if name not in sys.modules:
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].LanguageModel = object  # type: ignore[attr-defined]
            sys.modules[name].__spec__ = None
    from dictionary_learning import dictionary  # pyright: ignore[reportMissingImports]
    from dictionary_learning.trainers.batch_top_k import BatchTopKSAE  # pyright: ignore[reportMissingImports]
    from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE  # pyright: ignore[reportMissingImports]
    from dictionary_learning.trainers.top_k import AutoEncoderTopK  # pyright: ignore[reportMissingImports]

    made: dict[str, Callable[[], Any]] = {
        "AutoEncoder": lambda: dictionary.AutoEncoder(D, LATENTS),
        "AutoEncoderNew": lambda: dictionary.AutoEncoderNew(D, LATENTS),
        "GatedAutoEncoder": lambda: dictionary.GatedAutoEncoder(D, LATENTS),
        "JumpReluAutoEncoder": lambda: dictionary.JumpReluAutoEncoder(D, LATENTS),
        "AutoEncoderTopK": lambda: AutoEncoderTopK(D, LATENTS, K),
        "BatchTopKSAE": lambda: BatchTopKSAE(D, LATENTS, K),
        "MatryoshkaBatchTopKSAE": lambda: MatryoshkaBatchTopKSAE(D, LATENTS, K, [20, 44]),
    }

    def pair(name: str) -> Pair:
        theirs = randomise(made[name]())
        if "BatchTopK" in name:
            theirs.threshold.fill_(0.4)
        path = Path(tempfile.mkdtemp(dir=folder))
        torch.save(theirs.state_dict(), path / "ae.pt")
        (path / "config.json").write_text(json.dumps({"trainer": {"dict_class": name, "k": K}}))
        own = type(theirs).from_pretrained(path / "ae.pt")
        return load_dictionary_learning(path), own.encode, own, rows(N)

    for name in made:
        yield name, lambda name=name: pair(name)


def sparsify_formats(folder: Path) -> Iterator[tuple[str, Callable[[], Pair]]]:
    """Autoencoders and transcoders of sparsify, with either activation, with a linear path and without."""
    from sparsify.config import SparseCoderConfig  # pyright: ignore[reportMissingImports]
    from sparsify.sparse_coder import SparseCoder  # pyright: ignore[reportMissingImports]

    def pair(options: dict[str, Any]) -> Pair:
        theirs = randomise(SparseCoder(D, SparseCoderConfig(num_latents=LATENTS, k=K, **options)))
        path = Path(tempfile.mkdtemp(dir=folder))
        theirs.save_to_disk(path)
        theirs = SparseCoder.load_from_disk(path)

        def encode(x: Tensor) -> Tensor:
            found = theirs.encode(x)
            return torch.zeros(len(x), LATENTS).scatter(1, found.top_indices, found.top_acts)

        return load_sparsify(path), encode, lambda x: theirs(x).sae_out, rows(N)

    for activation in ("topk", "groupmax"):
        for transcode in (False, True):
            for skip in (False, True):
                options = {"activation": activation, "transcode": transcode, "skip_connection": skip}
                yield ", ".join(f"{k}={v}" for k, v in options.items()), lambda options=options: pair(options)


def circuit_tracer_formats(folder: Path) -> Iterator[tuple[str, Callable[[], Pair]]]:
    """Transcoders of one layer as circuit-tracer reads them: its own files, Gemma Scope's and Gemma Scope 2's."""
    import torch.nn.functional as F
    from circuit_tracer.transcoder import single_layer_transcoder as theirs_  # pyright: ignore[reportMissingImports]
    from circuit_tracer.transcoder.activation_functions import JumpReLU  # pyright: ignore[reportMissingImports]

    def own(jump: bool, skip: bool) -> Pair:
        activation = JumpReLU(torch.zeros(LATENTS)) if jump else F.relu
        made = theirs_.SingleLayerTranscoder(
            D, LATENTS, activation, 0, skip, dtype=torch.float32, device=torch.device("cpu")
        )
        path = str(Path(tempfile.mkdtemp(dir=folder)) / "layer_0.safetensors")
        randomise(made).to_safetensors(path)
        theirs = theirs_.load_relu_transcoder(path, 0, device=torch.device("cpu"))
        return load_transcoder(path), theirs.encode, theirs, rows(N)

    def weights(g: torch.Generator) -> dict[str, Tensor]:
        shapes = {"W_enc": (D, LATENTS), "W_dec": (LATENTS, D), "b_enc": (LATENTS,), "b_dec": (D,)}
        found = {name: 0.3 * torch.randn(*shape, generator=g) for name, shape in shapes.items()}
        return found | {"threshold": 0.3 * torch.rand(LATENTS, generator=g)}

    def arrays() -> dict[str, Any]:
        return {name: w.numpy() for name, w in weights(torch.Generator().manual_seed(0)).items()}

    def gemma_scope() -> Pair:
        path = Path(tempfile.mkdtemp(dir=folder)) / "params.npz"
        np.savez(path, **arrays())
        theirs = theirs_.load_gemma_scope_transcoder(str(path), 0, device=torch.device("cpu"))
        return load_transcoder(path), theirs.encode, theirs, rows(N)

    def gemma_scope_autoencoder() -> Pair:
        path = Path(tempfile.mkdtemp(dir=folder)) / "params.npz"
        np.savez(path, **arrays())
        theirs = theirs_.load_gemma_scope_transcoder(str(path), 0, device=torch.device("cpu"))
        return load_gemma_scope(path), theirs.encode, theirs, rows(N)

    def gemma_scope_2(skip: bool) -> Pair:
        from safetensors.torch import save_file

        w = {name.lower(): tensor for name, tensor in weights(torch.Generator().manual_seed(0)).items()}
        if skip:
            w["affine_skip_connection"] = torch.randn(D, D, generator=torch.Generator().manual_seed(1))
        path = str(Path(tempfile.mkdtemp(dir=folder)) / "params.safetensors")
        save_file(w, path)
        theirs = theirs_.load_gemma_scope_2_transcoder(path, 0, device=torch.device("cpu"))
        return load_transcoder(path), theirs.encode, theirs, rows(N)

    for jump in (False, True):
        for skip in (False, True):
            said = f"{'JumpReLU' if jump else 'ReLU'}, skip={skip}"
            yield said, lambda jump=jump, skip=skip: own(jump, skip)
    yield "Gemma Scope transcoder", gemma_scope
    yield "Gemma Scope autoencoder", gemma_scope_autoencoder
    yield "Gemma Scope 2 transcoder", lambda: gemma_scope_2(False)
    yield "Gemma Scope 2 transcoder, skip", lambda: gemma_scope_2(True)


def cross_layer_formats(folder: Path) -> Iterator[tuple[str, Callable[[], Pair]]]:
    """Cross-layer transcoders as circuit-tracer reads them: its own files, and ours."""
    from circuit_tracer.transcoder import cross_layer_transcoder as across_  # pyright: ignore[reportMissingImports]

    def cross_layer(jump: bool, ours_first: bool) -> Pair:
        n, cpu, f32 = 3, torch.device("cpu"), torch.float32
        path = tempfile.mkdtemp(dir=folder)
        kind = "jump_relu" if jump else "relu"
        made = randomise(across_.CrossLayerTranscoder(n, LATENTS, D, kind, lazy_decoder=False, dtype=f32, device=cpu))
        made.to_safetensors(path)
        if ours_first:
            save_cross_layer(load_cross_layer(path), path)
        theirs = across_.load_clt(path, dtype=f32, lazy_decoder=False, device=cpu)
        encode = lambda x: theirs.encode(x.transpose(0, 1)).transpose(0, 1).flatten(1)  # noqa: E731
        x = torch.randn(N, n, D, generator=torch.Generator().manual_seed(4))
        return load_cross_layer(path), encode, lambda x: theirs(x.transpose(0, 1)).transpose(0, 1), x

    for jump, ours_first in product((False, True), repeat=2):
        said = f"cross-layer {'JumpReLU' if jump else 'ReLU'}{', written here' if ours_first else ''}"
        yield said, partial(cross_layer, jump, ours_first)


LIBRARIES = {
    "SAELens": saelens_formats,
    "dictionary_learning": dictionary_learning_formats,
    "sparsify": sparsify_formats,
    "circuit-tracer": circuit_tracer_formats,
    "circuit-tracer, cross-layer": cross_layer_formats,
}


@torch.no_grad()
def compare(library: str, name: str, make: Callable[[], Pair]) -> Row:
    """One row of the table."""
    try:
        ours, encode, forward, x = make()
    except Exception as error:
        return Row(library, name, equal=False, difference=None, why=f"{type(error).__name__}: {error}")
    pairs = [(ours.encode(x), encode(x)), (ours(x), forward(x))]
    off = max(float((a - b).abs().max() / b.abs().max().clamp(min=1.0)) for a, b in pairs)
    alive = bool((pairs[0][1] != 0).any())
    return Row(library, name, equal=off <= EQUAL and alive, difference=off, why="" if alive else "no latent is on")


def measure(libraries: list[str]) -> list[Row]:
    """All rows; one that says why, for a library that cannot be imported."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for library in libraries:
            try:
                formats = [*LIBRARIES[library](Path(folder))]
            except ImportError as error:
                found.append(Row(library, "all", equal=False, difference=None, why=f"not installed: {error}"))
                continue
            found += [compare(library, name, make) for name, make in formats]
    return found


def main() -> None:
    """Print the table and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="a folder of libraries that this project does not install")
    parser.add_argument("--only", choices=LIBRARIES, help="one library")
    given = parser.parse_args()
    if given.peers is not None:
        sys.path.append(str(given.peers))
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    table = measure([given.only] if given.only else [*LIBRARIES])
    for row in table:
        off = "" if row.difference is None else f"{row.difference:.1e}"
        print(f"{row.library:20} {'equal' if row.equal else 'NOT':6} {off:8} {row.format} {row.why}")
    for library in LIBRARIES:
        own = [row for row in table if row.library == library]
        if own:
            print(f"{library}: {sum(row.equal for row in own)} of {len(own)} equal")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps([asdict(row) for row in table], indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
