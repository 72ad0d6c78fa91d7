"""The file of a track: of whose weights and by which metrics its figures are."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from hooks import Model, load
from hooks.errors import WrongModel
from interp.common.statistics import Estimate
from interp.emergence import read_track, track
from interp.emergence.identity import digest_of_metric
from tests.conftest import tiny_hf, tiny_tokenizer

QUIET: dict[str, Any] = {"progress": False}


def save(folder: Path, factor: float) -> dict[int, str]:
    """Checkpoints whose embeddings have norms in a ratio of `factor`, always in the same folders."""
    hf = tiny_hf("gpt2", seed=1)
    with torch.no_grad():
        hf.transformer.wte.weight.mul_(factor)
    for step in (1, 2, 3, 4):
        hf.save_pretrained(folder / f"c{step}")
        tiny_tokenizer().save_pretrained(folder / f"c{step}")
    return {step: str(folder / f"c{step}") for step in (1, 2, 3, 4)}


def norm(model: Model, times: float = 1.0) -> dict[str, Estimate]:
    return {"norm": Estimate(times * float(model.hf.transformer.wte.weight.detach().norm()), 0.0, 1e9, 1)}


def test_checkpoints_trained_again_into_the_same_folders_are_measured_again(tmp_path: Path) -> None:
    file = tmp_path / "track.json"
    first = track(save(tmp_path, 1.0), {"": norm}, file=file, **QUIET).values("norm")
    again = track(save(tmp_path, 5.0), {"": norm}, file=file, **QUIET).values("norm")
    assert torch.allclose(again, 5 * first, rtol=1e-5)
    assert torch.equal(read_track(file).values("norm"), again)


def test_a_model_whose_weights_changed_since_it_was_loaded_is_measured_again(tmp_path: Path) -> None:
    models = {i: load(tiny_hf("gpt2", seed=i), tiny_tokenizer(), check=False) for i in (1, 2)}
    first = track(models, {"": norm}, file=tmp_path / "track.json", **QUIET).values("norm")
    with torch.no_grad():
        models[2].hf.transformer.wte.weight.mul_(2.0)
    again = track(models, {"": norm}, file=tmp_path / "track.json", **QUIET).values("norm")
    assert again[0] == first[0] and float(again[1] / first[1]) == pytest.approx(2.0, rel=1e-5)


def of_words(words: list[str]) -> Callable[[Model], dict[str, Estimate]]:
    return lambda _: {"norm": Estimate(float(len("".join(words))), 0.0, 1e9, 1)}


@dataclass(frozen=True)
class Scaled:
    """A metric that is an object."""

    times: float

    def __call__(self, model: Model) -> dict[str, Estimate]:
        return norm(model, self.times)


def test_another_metric_under_the_same_name_or_other_names_are_refused_and_leave_the_file(tmp_path: Path) -> None:
    models, file = save(tmp_path, 1.0), tmp_path / "track.json"
    for metric, other in (
        (norm, of_words(["fog"])),
        (of_words(["fog"]), of_words(["sea"])),
        (partial(norm, times=2.0), partial(norm, times=3.0)),
        (Scaled(2.0), Scaled(3.0)),
        (lambda model: norm(model), lambda model: norm(model, 2.0)),
    ):
        track(models, {"": metric}, file=file, **QUIET)
        before = file.read_bytes()
        with pytest.raises(WrongModel, match=r"the metric '' in .* has other code or other arguments"):
            track(models, {"": other}, file=file, **QUIET)
        with pytest.raises(WrongModel, match=r"holds the metrics \[''\], and \['other'\] are asked for"):
            track(models, {"other": metric}, file=file, **QUIET)
        assert file.read_bytes() == before
        file.unlink()


def test_a_metric_made_again_is_the_same(tmp_path: Path) -> None:
    models, file = save(tmp_path, 1.0), tmp_path / "track.json"
    for make in (lambda: of_words(["fog"]), lambda: partial(norm, times=2.0), lambda: Scaled(2.0)):
        first = track(models, {"": make()}, file=file, **QUIET)
        before = file.stat().st_mtime_ns
        assert track(models, {"": make()}, file=file, **QUIET).metrics == first.metrics
        assert file.stat().st_mtime_ns == before
        file.unlink()


def test_steps_that_are_not_asked_for_stay_in_the_file_unless_the_folders_were_trained_again(tmp_path: Path) -> None:
    models, file = save(tmp_path, 1.0), tmp_path / "track.json"
    first, others = ({step: models[step] for step in steps} for steps in ((1, 2, 3), (1, 4)))
    track(first, {"": norm}, file=file, **QUIET)
    assert track(others, {"": norm}, file=file, **QUIET).steps == (1, 4)
    assert read_track(file).steps == (1, 2, 3, 4)
    save(tmp_path, 2.0)
    track(others, {"": norm}, file=file, **QUIET)
    assert read_track(file).steps == (1, 4)


def test_a_file_that_does_not_say_by_which_functions_is_read_and_not_gone_on_with(tmp_path: Path) -> None:
    from hooks.json_file import write_json
    from interp.emergence.track import KIND

    models, file = save(tmp_path, 1.0), tmp_path / "track.json"
    found = track(models, {"": norm}, file=file, **QUIET)
    old = json.loads(file.read_text(encoding="utf-8"))["content"]
    del old["definitions"]
    write_json(file, KIND, old)
    assert read_track(file).metrics == found.metrics
    with pytest.raises(WrongModel, match="has other code or other arguments"):
        track(models, {"": norm}, file=file, **QUIET)


def test_a_function_that_holds_itself_has_a_digest() -> None:
    def counted(n: int) -> int:
        return n and counted(n - 1)

    def other(n: int) -> int:
        return n and other(n - 2)

    assert digest_of_metric(counted) == digest_of_metric(counted) != digest_of_metric(other)
