"""Every file that is kept for later, with one bit of it flipped: what reads it refuses it and names the file.

Files of other libraries' formats, which hold no checksum, and logs that only people read are listed with their reason.
"""

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from hooks import Direction, Model, capture, harvest
from hooks.activations import Activations
from hooks.errors import DamagedFile
from hooks.json_file import write_json
from hooks.site import resid_post
from hooks.store import ActivationStore
from interp import emergence, features, sae
from interp.atlas import Atlas, Sample, Space, cut_cells, link_neighbours
from interp.common.statistics import Estimate
from interp.emergence.track import track
from interp.features import FeatureIndex
from interp.lenses import JacobianLens, TunedLens
from interp.memory import Edit, Fact
from interp.memory.editing.change import LowRank
from interp.memory.editing.covariance import Covariance
from interp.postcard.train import Recipe as NetRecipe
from interp.postcard.train import read_recipe, recipe_for
from interp.postcard.train import train as train_net
from interp.steering import Recipe
from interp.workbench.session import Session
from interp.worlds import train as train_world

SITE = resid_post[1]
TEXTS = ["Fog over the bay this morning.", "The bridge is in San Francisco.", "A tower in Paris.", "Rain.", "Sun."]


@dataclass(frozen=True)
class Kept:
    """A folder that holds one of each kind of file, and the model that they are of."""

    folder: Path
    model: Model

    def file(self, pattern: str) -> Path:
        """The first file of a kind."""
        return min(self.folder.glob(pattern))


def train_dictionary(folder: Path) -> object:
    torch.manual_seed(0)
    source = sae.tensor_source(torch.randn(600, 8))
    how = {"tokens": 2_000, "batch_size": 128, "buffer": 256, "progress": False}
    return sae.train(sae.TopK(8, 16, k=2), source, checkpoint=sae.Checkpoint(folder, 500), **how)


def recipe() -> NetRecipe:
    return replace(recipe_for("convnet", pictures=8, small=True), batch=8)


def keep_objects(folder: Path, model: Model) -> None:
    direction = Direction(torch.ones(model.d_model), SITE, "by hand", 1.0, model.fingerprint)
    direction.save(folder / "direction.safetensors")
    Recipe(direction, "add", 1.0).save(folder / "recipe.safetensors")
    capture(model, TEXTS[:2], SITE).save(folder / "acts.safetensors")
    update = LowRank(1, torch.ones(1, model.d_mlp), torch.ones(1, model.d_model))
    edit = Edit((Fact("Anna", "{} lives in", "Paris", "Oslo"),), "rome", (update,), model.fingerprint)
    edit.save(folder / "edit.safetensors")
    TunedLens.identity(model).save(folder / "tuned.safetensors")
    JacobianLens(model, {0: torch.eye(model.d_model)}, 1).save(folder / "jacobian.pt")
    Covariance(torch.eye(4), 0.1, 1, 10, model.fingerprint).save(folder / "covariance.safetensors")
    metric = {"": lambda _: {"loss": Estimate(1.0, 0.5, 1.5, 10)}}
    track({0: model, 1: model}, metric, file=folder / "track.json")
    rows, none = torch.eye(12), torch.zeros(12, dtype=torch.long)
    space, xy = Space(rows, tuple("abcdefghijkl"), site=SITE), rows[:, :2]
    atlas = Atlas(Sample(space, none, none), xy, xy, link_neighbours(space, 3), cut_cells(xy, rows, side=2, least=1), 1)
    atlas.save(folder / "atlas.safetensors")
    session = Session(model)
    session.edits["edit"] = edit
    (folder / "session").mkdir()
    session.write(folder / "session")


def keep_runs(folder: Path, model: Model) -> None:
    harvest(model, TEXTS, [SITE], folder / "store")
    dictionary = sae.TopK(model.d_model, 16, k=2)
    dictionary.site, dictionary.fingerprint = SITE, model.fingerprint
    sae.save(dictionary, folder / "sae")
    features.index(dictionary, model, TEXTS, folder / "index", top=2, sampled=2)
    train_dictionary(folder / "dictionary")
    train_world(folder / "world", "clock", steps=1)
    train_net(folder / "net", recipe())


@pytest.fixture(scope="module")
def kept(gpt2: Model, tmp_path_factory: pytest.TempPathFactory) -> Kept:
    folder = tmp_path_factory.mktemp("kept")
    keep_objects(folder, gpt2)
    keep_runs(folder, gpt2)
    return Kept(folder, gpt2)


def restore_session(kept: Kept) -> object:
    return Session(kept.model, folder=kept.folder / "session")


READERS: dict[str, Callable[[Kept], object]] = {
    "direction.safetensors": lambda kept: Direction.load(kept.folder / "direction.safetensors"),
    "recipe.safetensors": lambda kept: Recipe.load(kept.folder / "recipe.safetensors"),
    "acts.safetensors": lambda kept: Activations.load(kept.folder / "acts.safetensors"),
    "edit.safetensors": lambda kept: Edit.load(kept.folder / "edit.safetensors"),
    "tuned.safetensors": lambda kept: TunedLens.load(kept.folder / "tuned.safetensors", kept.model),
    "jacobian.pt": lambda kept: JacobianLens.load(kept.folder / "jacobian.pt", kept.model),
    "covariance.safetensors": lambda kept: Covariance.load(kept.folder / "covariance.safetensors"),
    "atlas.safetensors": lambda kept: Atlas.load(kept.folder / "atlas.safetensors"),
    "track.json": lambda kept: emergence.read_track(kept.folder / "track.json"),
    "session/session.json": restore_session,
    "session/*.safetensors": restore_session,
    "store/manifest.json": lambda kept: ActivationStore(kept.folder / "store"),
    "store/settings.json": lambda kept: ActivationStore(kept.folder / "store").verify(),
    "store/*.bin": lambda kept: ActivationStore(kept.folder / "store").verify(),
    "sae/*": lambda kept: sae.load(kept.folder / "sae"),
    "index/*": lambda kept: FeatureIndex.open(kept.folder / "index"),
    "dictionary/*": lambda kept: train_dictionary(kept.folder / "dictionary"),
    "world/state.pt": lambda kept: train_world(kept.folder / "world", "clock", steps=1),
    "net/state.pt": lambda kept: train_net(kept.folder / "net", recipe()),
    "net/recipe.json": lambda kept: read_recipe(kept.folder / "net"),
}
NOT_CHECKED = {
    "**/.lock": "empty: what holds it is the system",
    "world/step_*/*": "transformers' files, which hold no checksum; results name the fingerprint of the weights",
    "world/model/*": "the same",
    "net/model/*": "the same",
    "*/log.jsonl": "a log for people: no result is made of it, and a line that cannot be read is named",
}


def kinds() -> list[str]:
    return [*READERS]


@pytest.mark.parametrize("kind", kinds())
def test_one_flipped_bit_is_found_and_its_file_named(kind: str, kept: Kept) -> None:
    for file in sorted(path for path in kept.folder.glob(kind) if path.name != ".lock"):
        whole = file.read_bytes()
        part = 1 if file.suffix == ".pt" and "dictionary" not in kind else 5  # a date in an archive says nothing
        for place in [(2 * i + 1) * len(whole) // (2 * part) for i in range(part)]:
            damaged = bytearray(whole)
            damaged[place] ^= 4
            file.write_bytes(damaged)
            try:
                with pytest.raises(DamagedFile, match=re.escape(file.name)):
                    READERS[kind](kept)
            finally:
                file.write_bytes(whole)
    READERS[kind](kept)


def test_every_file_that_is_written_is_read_with_its_checksum_or_has_its_reason(kept: Kept) -> None:
    known = {path for pattern in [*READERS, *NOT_CHECKED] for path in kept.folder.glob(pattern)}
    files = {path for path in kept.folder.rglob("*") if path.is_file()}
    assert sorted(path.relative_to(kept.folder).as_posix() for path in files - known) == []


def test_settings_of_another_harvest_are_no_settings_of_this_store(kept: Kept, tmp_path: Path) -> None:
    harvest(kept.model, TEXTS, [resid_post[2]], tmp_path / "other")
    store = Path(shutil.copytree(kept.folder / "store", tmp_path / "store"))
    ActivationStore(store).verify()
    shutil.copy(tmp_path / "other" / "settings.json", store)
    with pytest.raises(DamagedFile, match=r"settings\.json of the store at .* does not say what manifest\.json says"):
        ActivationStore(store).verify()
    (store / "settings.json").unlink()
    with pytest.raises(DamagedFile, match=r"settings\.json of the store at .* is missing"):
        ActivationStore(store).verify()
    harvest(kept.model, TEXTS, [SITE], store)


def test_a_state_of_something_else_is_named(kept: Kept, tmp_path: Path) -> None:
    for name, again in (
        ("world", lambda: train_world(tmp_path / "world", "clock", steps=1)),
        ("net", lambda: train_net(tmp_path / "net", recipe())),
    ):
        shutil.copytree(kept.folder / name, tmp_path / name)
        for other in ([1, 2], {"step": 3}):
            torch.save(other, tmp_path / name / "state.pt")
            with pytest.raises(DamagedFile, match=r"state\.pt is no state of a training, it holds (a list|no )"):
                again()


def test_a_recipe_of_a_net_of_another_kind_is_named(kept: Kept, tmp_path: Path) -> None:
    from hooks.json_file import Kind

    write_json(tmp_path / "recipe.json", Kind("fog", "fog", "fog", dict), {})
    with pytest.raises(DamagedFile, match=r"recipe\.json holds no recipe of a net"):
        read_recipe(tmp_path)
    assert read_recipe(kept.folder / "net") == recipe()
