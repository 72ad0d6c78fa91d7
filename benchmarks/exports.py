"""Exports read by the tools they are for: each one's result next to ours, the whole effect, and a wrong layer.

    python benchmarks/exports.py --peers FOLDER --llama-cpp PYTHON

The bundled model is steered and edited, and small dictionaries are written. The other tool's own code reads the files
and computes with them. `shifted` is the difference with the vector one layer away: a right count of layers is far below
it. `--peers` is where tools are that this project does not install (`pip install --target FOLDER --no-deps repeng
steering-vectors sae-dashboard dictionary_learning eai-sparsify`); a tool that is missing says so. `--llama-cpp` is the
python of an environment with llama.cpp (`llama_cpp_client.py` says which packages); it steers and edits a Llama, in
`--llama`. The script of hooks runs in a process that cannot import this library. Writes
benchmarks/results/exports.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import types
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks import exports_llama_cpp  # noqa: E402
from benchmarks.timing import write  # noqa: E402
from hooks import Direction, Model, intervene, load  # noqa: E402
from hooks.interventions import add  # noqa: E402
from hooks.position import everywhere, special  # noqa: E402
from hooks.site import resid_post  # noqa: E402
from interp.export import (  # noqa: E402
    read_gguf_vector,
    to_dictionary_learning,
    to_gguf_vector,
    to_hook_script,
    to_layer_tensors,
    to_neuronpedia,
    to_peft,
    to_sparsify,
)
from interp.export.client import largest_difference, own_logits, plain_logits  # noqa: E402
from interp.features import index  # noqa: E402
from interp.memory import Edit, Fact  # noqa: E402
from interp.memory.editing.change import LowRank  # noqa: E402
from interp.sae import JumpReLU, Standard, TopK  # noqa: E402
from interp.steering import Recipe, SteeredModel  # noqa: E402

PROMPTS = ["The Golden Gate Bridge is located in", "Fog over the bay"]
LAYER, DOSE = 3, 2.0


@dataclass(frozen=True)
class Row:
    """One export: how far its reader is from us, the whole effect, and the difference with a wrong layer."""

    tool: str
    what: str
    difference: float | None = None
    effect: float | None = None
    shifted: float | None = None
    why: str = ""


def recipe(model: Model) -> Recipe:
    """A recipe along a random direction."""
    vector = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0))
    return Recipe(Direction(vector, resid_post[LAYER], "random", 8.0, model.fingerprint), "add", DOSE)


def ours(model: Model) -> list[Tensor]:
    """Our logits with the vector added at every token, as the other tools add it."""
    one = recipe(model)
    vector = one.direction.unit * one.direction.scale * one.dose
    with intervene(model, {resid_post[LAYER]: add(vector, at=everywhere | special)}):
        return own_logits(model, PROMPTS)


def compared(model: Model, tool: str, what: str, steered: Callable[[int], list[Tensor]]) -> Row:
    """A row of a steering: at the layer the file says, and one further."""
    expected, plain = ours(model), own_logits(model, PROMPTS)
    right, wrong = (largest_difference(steered(shift), expected) for shift in (0, 1))
    return Row(tool, what, right, largest_difference(plain, expected), wrong)


def repeng(model: Model, folder: Path) -> Row:
    """repeng reads the control vector and steers with it at coefficient 1."""
    if not hasattr(np, "float_"):
        np.float_ = np.float64  # type: ignore[attr-defined]  # repeng 0.4 is of before NumPy 2
    from repeng import ControlModel, ControlVector  # pyright: ignore[reportMissingImports]

    to_gguf_vector(model, [recipe(model)], folder / "v.gguf", prompts=PROMPTS)
    read = ControlVector.import_gguf(folder / "v.gguf")

    def steered(shift: int) -> list[Tensor]:
        moved = ControlVector(read.model_type, {layer + shift: np.array(v) for layer, v in read.directions.items()})
        wrapped = ControlModel(model.hf, list(moved.directions))
        try:
            wrapped.set_control(moved)
            return plain_logits(wrapped, model, PROMPTS)
        finally:
            wrapped.unwrap()

    return compared(model, "repeng", "control vector", steered)


def steering_vectors(model: Model, folder: Path) -> Row:
    """steering-vectors takes the tensors by layer and steers with them at multiplier 1."""
    from safetensors.torch import load_file
    from steering_vectors import SteeringVector  # pyright: ignore[reportMissingImports]

    to_layer_tensors(model, [recipe(model)], folder / "v.safetensors", prompts=PROMPTS)
    held = {int(name.rpartition(".")[2]): vector for name, vector in load_file(folder / "v.safetensors").items()}

    def steered(shift: int) -> list[Tensor]:
        with SteeringVector({layer + shift: v for layer, v in held.items()}, "decoder_block").apply(model.hf):
            return plain_logits(model.hf, model, PROMPTS)

    return compared(model, "steering-vectors", "vectors by layer", steered)


def back(model: Model, folder: Path) -> Row:
    """A control vector that repeng wrote steers here as it does there."""
    if not hasattr(np, "float_"):
        np.float_ = np.float64  # type: ignore[attr-defined]
    from repeng import ControlVector  # pyright: ignore[reportMissingImports]

    one = recipe(model)
    vector = (one.direction.unit * one.direction.scale * one.dose).numpy()
    ControlVector("gpt2", {LAYER: vector.astype(np.float32)}).export_gguf(folder / "theirs.gguf")
    read = read_gguf_vector(folder / "theirs.gguf")[LAYER]

    def steered(shift: int) -> list[Tensor]:
        with intervene(model, {resid_post[LAYER + shift]: add(read, at=everywhere | special)}):
            return own_logits(model, PROMPTS)

    return compared(model, "repeng", "its own control vector, read here", steered)


def peft(model: Model, folder: Path) -> Row:
    """peft loads the adapter of an edit."""
    import peft as library

    random = torch.Generator().manual_seed(0)
    parts = [0.1 * torch.randn(2, width, generator=random) for width in (model.d_mlp, 10 * model.d_model)]
    fact = Fact("Golden Gate Bridge", "The {} is located in", "San Francisco", "Paris")
    change = LowRank(LAYER, parts[0], 10 * parts[1][:, : model.d_model])
    report = to_peft(model, Edit((fact,), "by hand", (change,), model.fingerprint), folder / "adapter", prompts=PROMPTS)
    return Row(f"peft {library.__version__}", "LoRA adapter of an edit", report.difference, report.effect)


def dictionary_learning(_: Model, folder: Path) -> Row:
    """dictionary_learning's own loader reads what was written for it."""
    for name in ("nnsight", "zstandard"):  # its data loading, which no dictionary needs
        module = types.ModuleType(name)
        module.LanguageModel = object  # type: ignore[attr-defined]
        sys.modules.setdefault(name, module)
    from dictionary_learning.utils import load_dictionary  # pyright: ignore[reportMissingImports]

    worst, reach, x = 0.0, 0.0, torch.randn(64, 16, generator=torch.Generator().manual_seed(1))
    for number, sae in enumerate((Standard(16, 64), JumpReLU(16, 64), TopK(16, 64, 4))):
        random = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for parameter in sae.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=random).abs_())
        to_dictionary_learning(sae, folder / f"trainer_{number}")
        theirs, _config = load_dictionary(str(folder / f"trainer_{number}"), "cpu")
        with torch.no_grad():
            worst = max(worst, float((theirs.encode(x) - sae.encode(x)).abs().max()))
            reach = max(reach, float(sae.encode(x).abs().max()))
    return Row("dictionary_learning", "three architectures: latents", worst, reach)


def sparsify(_: Model, folder: Path) -> Row:
    """sparsify's own loader reads what was written for it."""
    from sparsify import SparseCoder  # pyright: ignore[reportMissingImports]

    sae, x = TopK(16, 64, 4), torch.randn(64, 16, generator=torch.Generator().manual_seed(1))
    to_sparsify(sae, folder / "layers.3")
    theirs = SparseCoder.load_from_disk(folder / "layers.3")
    with torch.no_grad():
        given = theirs(x).sae_out
    return Row("sparsify", "TopK: reconstructions", float((given - sae(x)).abs().max()), float(sae(x).abs().max()))


def saedashboard(model: Model, folder: Path) -> Row:
    """SAEDashboard's own classes take every field of every feature, and give it back."""
    from sae_dashboard.neuronpedia.neuronpedia_dashboard import NeuronpediaDashboardBatch  # pyright: ignore[reportMissingImports]

    sae = TopK(model.d_model, 32, 4)
    sae.site = resid_post[LAYER]
    made = index(sae, model, PROMPTS * 4, folder / "index", top=3, sampled=2)
    report = to_neuronpedia(made, folder / "np", model_id="landmark", sae_set="example", layer=LAYER)
    lost = 0
    for file in report.files:
        written = json.loads(file.read_text("utf-8"))
        lost += NeuronpediaDashboardBatch(**written).to_dict() != written
    return Row("sae-dashboard", "32 features, field by field", float(lost), float(len(report.files)))


CLEAN = """
import json, runpy, sys
import torch
for name in ("hooks", "interp", "probes"):
    sys.modules[name] = None  # importing it fails
script, folder, texts, out = sys.argv[1:]
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(folder)
runpy.run_path(script)["steer"](model)
with torch.no_grad():
    torch.save([model(input_ids=torch.tensor([ids])).logits[0] for ids in json.loads(texts)], out)
"""
"""Logits with a script's hooks, in a process of its own."""


def hook_script(model: Model, folder: Path) -> Row:
    """The script's `steer`, in a process that cannot import this library, on the model's plain folder."""
    from safetensors.torch import load_file, save_file

    model.hf.save_pretrained(folder / "model")
    to_hook_script(model, [recipe(model)], folder / "v.py", prompts=PROMPTS)
    (folder / "moved.py").write_text((folder / "v.py").read_text("utf-8"), encoding="utf-8")
    vectors = load_file(folder / "v.safetensors")
    moved = {name.replace(f".{LAYER}", f".{LAYER + 1}"): vector for name, vector in vectors.items()}
    save_file(moved, folder / "moved.safetensors")
    texts = json.dumps([model.tokens(prompt).ids[0].tolist() for prompt in PROMPTS])

    def steered(script: str) -> list[Tensor]:
        own = [sys.executable, "-I", "-c", CLEAN, folder / script, folder / "model", texts, folder / "out.pt"]
        subprocess.run(own, check=True, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"})
        return torch.load(folder / "out.pt")

    plain = own_logits(model, PROMPTS)
    with SteeredModel(model, recipe(model)).steer():
        expected = own_logits(model, PROMPTS)
    right, wrong = (largest_difference(steered(script), expected) for script in ("v.py", "moved.py"))
    return Row("a clean process", "script of hooks", right, largest_difference(plain, expected), wrong)


def llama_cpp(what: str, python: Path | None, llama: Path, _: Model, __: Path) -> Row:
    """llama.cpp loads a control vector, or an adapter, and computes with it."""
    name = {"control_vector": "control vector", "adapter": "LoRA adapter of an edit, as GGUF"}[what]
    if python is None:
        raise ImportError("give --llama-cpp")
    found = getattr(exports_llama_cpp, what)(load(llama), python)
    said = f"without it {found.plain:.1g}; {found.greedy} of {len(exports_llama_cpp.PROMPTS)} continuations the same"
    return Row("llama.cpp", name, found.difference, found.effect, found.shifted, said)


TOOLS = (repeng, back, steering_vectors, hook_script, peft, dictionary_learning, sparsify, saedashboard)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, nargs="*", default=[], help="where tools are that are not installed")
    parser.add_argument("--llama-cpp", type=Path, help="python of an environment that has llama.cpp")
    parser.add_argument(
        "--llama", type=Path, default=Path("../shared/models/stories260K"), help="a small Llama's folder"
    )
    given = parser.parse_args()
    sys.path.extend(str(folder) for folder in given.peers)
    warnings.simplefilter("ignore")
    model, rows = load("landmark"), []
    of_llama = [partial(llama_cpp, what, given.llama_cpp, given.llama) for what in ("control_vector", "adapter")]
    for tool in (*TOOLS, *of_llama):
        with tempfile.TemporaryDirectory() as folder:
            try:
                rows.append(tool(model, Path(folder)))
            except ImportError as error:
                rows.append(Row(getattr(tool, "__name__", "llama.cpp"), "", why=f"not installed: {error}"))
        row = rows[-1]
        print(
            f"{row.tool:22} {row.what:36} {row.difference} of {row.effect}, shifted {row.shifted} {row.why}", flush=True
        )
    write("exports", "python benchmarks/exports.py --peers FOLDER --llama-cpp PYTHON", [asdict(row) for row in rows])


if __name__ == "__main__":
    main()
