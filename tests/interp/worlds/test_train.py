"""A world's training: it goes on where it was broken off, learns, and keeps its checkpoints."""

from pathlib import Path

import pytest
import torch

from hooks.disk import read_pickled
from hooks.errors import InvalidArgument, MissingFile, UnknownName
from interp.worlds import checkpoints, load_world, train, world
from interp.worlds.train import WORLDS


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train(folder, "clock", steps=4)
    train(folder, "clock", steps=12)
    return folder


def test_a_run_in_parts_ends_with_the_bits_of_one_in_one_go(small: Path, tmp_path: Path) -> None:
    train(tmp_path, "clock", steps=12)
    first, second = (read_pickled(folder / "state.pt", "")["model"] for folder in (small, tmp_path))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_checkpoints_begin_untrained_and_are_spaced_by_logarithms(small: Path) -> None:
    assert list(checkpoints(small))[:3] == [0, 4, 5]
    assert all((folder / "config.json").exists() for folder in checkpoints(small).values())


def test_a_folder_of_another_run_is_refused(small: Path) -> None:
    with pytest.raises(InvalidArgument, match="seed=0, and seed=1 was asked for"):
        train(small, "clock", seed=1)


def test_names_that_are_none_are_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="clock"):
        world("clocks")
    with pytest.raises(MissingFile, match="interp worlds train"):
        load_world("listss")
    with pytest.raises(InvalidArgument, match="no checkpoints"):
        checkpoints(tmp_path)


@pytest.mark.parametrize("name", ["induction-1", "segments"])
def test_the_feed_forward_layers_of_induction_are_zeros_and_are_not_trained(name: str) -> None:
    model = WORLDS[name].build(0)
    inside = [p for name, p in model.named_parameters() if ".mlp." in name]
    assert inside and not any(p.requires_grad or bool(p.any()) for p in inside)
