"""Every kind of file that is kept, damaged in seven ways: how many are refused by a `DamagedFile` that names the file.

python benchmarks/conformance_files.py
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hooks import Direction, Model, capture, harvest, load  # noqa: E402
from hooks.activations import Activations  # noqa: E402
from hooks.errors import DamagedFile, MissingFile  # noqa: E402
from hooks.site import resid_post  # noqa: E402
from hooks.store import ActivationStore  # noqa: E402
from interp import features, sae  # noqa: E402
from interp.features import FeatureIndex  # noqa: E402
from interp.lenses import JacobianLens, TunedLens  # noqa: E402
from interp.memory import Edit, Fact  # noqa: E402
from interp.memory.editing.change import LowRank  # noqa: E402
from interp.memory.editing.covariance import Covariance  # noqa: E402
from interp.steering import Recipe  # noqa: E402

TEXTS = ["Fog over the bay this morning.", "The bridge is in San Francisco.", "A tower in Paris.", "Rain.", "Sun."]
FLIPS = 24


@dataclass(frozen=True)
class FileKind:
    """One kind of file: its name, the file to damage, what reads it, and whether what was read is what was written."""

    name: str
    file: Path
    read: Callable[[], object]
    right: Callable[[Any], bool] = lambda _: False


def kept_files(model: Model, folder: Path) -> list[FileKind]:
    """Write one of each kind."""
    site = resid_post[1]
    direction = Direction(torch.ones(model.d_model), site, "by hand", 1.0, model.fingerprint)
    direction.save(folder / "direction.safetensors")
    Recipe(direction, "add", 1.0).save(folder / "recipe.safetensors")
    capture(model, TEXTS[:2], site).save(folder / "acts.safetensors")
    update = LowRank(1, torch.ones(1, model.d_mlp), torch.ones(1, model.d_model))
    fact = Fact("Anna", "{} lives in", "Paris", "Oslo")
    Edit((fact,), "rome", (update,), model.fingerprint).save(folder / "edit.safetensors")
    TunedLens.identity(model).save(folder / "tuned.safetensors")
    JacobianLens(model, {0: torch.eye(model.d_model)}, 1).save(folder / "jacobian.pt")
    Covariance(torch.eye(4), 0.1, 1, 10, model.fingerprint).save(folder / "covariance.safetensors")
    harvest(model, TEXTS, [site], folder / "store")
    dictionary = sae.TopK(model.d_model, 16, k=2)
    dictionary.site, dictionary.fingerprint = site, model.fingerprint
    sae.save(dictionary, folder / "sae")
    features.index(dictionary, model, TEXTS, folder / "index", top=2, sampled=2)
    train(folder / "run")
    state = next((folder / "run").glob("state-*.pt"))
    rows = next((folder / "run").glob("rows-*.pt"))
    column = next((folder / "store").glob("*.resid_post.1.bin"))
    store = folder / "store"

    def go_on() -> object:
        return train(folder / "run")

    return [
        FileKind(
            "direction", folder / "direction.safetensors", lambda: Direction.load(folder / "direction.safetensors")
        ),
        FileKind("recipe", folder / "recipe.safetensors", lambda: Recipe.load(folder / "recipe.safetensors")),
        FileKind("activations", folder / "acts.safetensors", lambda: Activations.load(folder / "acts.safetensors")),
        FileKind("edit", folder / "edit.safetensors", lambda: Edit.load(folder / "edit.safetensors")),
        FileKind(
            "tuned lens", folder / "tuned.safetensors", lambda: TunedLens.load(folder / "tuned.safetensors", model)
        ),
        FileKind(
            "Jacobian lens", folder / "jacobian.pt", lambda: JacobianLens.load(folder / "jacobian.pt", model), _is_eye
        ),
        FileKind(
            "covariance", folder / "covariance.safetensors", lambda: Covariance.load(folder / "covariance.safetensors")
        ),
        FileKind("store, manifest", store / "manifest.json", lambda: ActivationStore(store)),
        FileKind("store, settings", store / "settings.json", lambda: harvest(model, [*TEXTS, "More."], [site], store)),
        FileKind("store, column", column, lambda: ActivationStore(store).verify()),
        FileKind("autoencoder, weights", folder / "sae/sae_weights.safetensors", lambda: sae.load(folder / "sae")),
        FileKind("autoencoder, configuration", folder / "sae/cfg.json", lambda: sae.load(folder / "sae")),
        FileKind("feature index", folder / "index/index.json", lambda: FeatureIndex.open(folder / "index")),
        FileKind("feature index, table", folder / "index/latents.parquet", lambda: FeatureIndex.open(folder / "index")),
        FileKind("checkpoint", folder / "run/latest.json", go_on),
        FileKind("checkpoint, state", state, go_on),
        FileKind("checkpoint, buffer", rows, go_on),
    ]


def _is_eye(lens: JacobianLens) -> bool:
    """A bit of a zip archive that says nothing of the data, such as a date, may flip."""
    return [*lens.J] == [0] and torch.equal(lens.J[0], torch.eye(len(lens.J[0]))) and lens.n_prompts == 1


def train(folder: Path) -> object:
    """A short training with a checkpoint."""
    torch.manual_seed(0)
    x = torch.randn(600, 8)
    dictionary, source = sae.TopK(8, 16, k=2), sae.tensor_source(x)
    how = {"tokens": 2_000, "batch_size": 128, "buffer": 256, "progress": False}
    return sae.train(dictionary, source, checkpoint=sae.Checkpoint(folder, 500), **how)


def damages(file: Path, other: Path) -> list[tuple[str, bytes]]:
    """The ways a file is damaged, and the bytes it then has."""
    whole = file.read_bytes()
    places = torch.linspace(0, len(whole) - 1, FLIPS).long().tolist()
    found = [("flipped bit", _flipped(whole, place)) for place in places]
    found += [("truncated", whole[: len(whole) // 2]), ("emptied", b""), ("not JSON", b"fog over the bay")]
    found += [(f"{name} metadata", text) for name, text in (("null", b"null"), ("list", b"[1]"))]
    if file.suffix == ".safetensors":
        found[-2:] = [
            (name, _metadata(whole, text)) for name, text in (("null metadata", "null"), ("list metadata", "[1]"))
        ]
    return [*found, ("wrong kind", other.read_bytes())]


def _flipped(whole: bytes, place: int) -> bytes:
    changed = bytearray(whole)
    changed[place] ^= 1 << place % 8
    return bytes(changed)


def _metadata(whole: bytes, text: str) -> bytes:
    """A safetensors file with other metadata under each of its keys."""
    length = int.from_bytes(whole[:8], "little")
    header: dict[str, Any] = json.loads(whole[8 : 8 + length])
    header["__metadata__"] = dict.fromkeys(header.get("__metadata__", {"format": ""}), text)
    said = json.dumps(header).encode()
    said += b" " * (-len(said) % 8)
    return len(said).to_bytes(8, "little") + said + whole[8 + length :]


def outcome(kept: FileKind) -> str:
    """What reading a damaged file comes to."""
    try:
        found = kept.read()
    except (DamagedFile, MissingFile) as error:
        return "named" if kept.file.name.split(".")[0] in str(error) or str(kept.file) in str(error) else "not named"
    except Exception as error:
        return type(error).__name__
    return "read, as it was written" if kept.right(found) else "read without a word"


def measure_files(model: Model | None = None) -> dict[str, dict[str, int]]:
    """Return for each kind of file how many damages had each outcome."""
    model = load("landmark", check=False) if model is None else model
    figures: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        kinds = kept_files(model, folder)
        shutil.copytree(folder, folder.parent / f"{folder.name}-whole")
        whole = folder.parent / f"{folder.name}-whole"
        try:
            for number, kept in enumerate(kinds):
                counts = figures.setdefault(kept.name, {})
                for _, data in damages(
                    whole / kept.file.relative_to(folder), whole / kinds[number - 1].file.relative_to(folder)
                ):
                    kept.file.write_bytes(data)
                    if kept.name == "store, settings":
                        (folder / "store/manifest.json").unlink(missing_ok=True)
                    said = outcome(kept)
                    counts[said] = counts.get(said, 0) + 1
                    shutil.copytree(whole, folder, dirs_exist_ok=True)
        finally:
            shutil.rmtree(whole)
    return figures


def main() -> None:
    """Print the table."""
    figures = measure_files()
    total = sum(sum(counts.values()) for counts in figures.values())
    named = sum(counts.get("named", 0) for counts in figures.values())
    for name, counts in figures.items():
        print(f"{name:<28}" + ", ".join(f"{count} {said}" for said, count in sorted(counts.items())))
    same = sum(counts.get("read, as it was written", 0) for counts in figures.values())
    print(f"{total} files damaged: {named} named by DamagedFile, {same} read as they were written")


if __name__ == "__main__":
    main()
