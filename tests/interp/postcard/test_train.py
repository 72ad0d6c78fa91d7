"""A small net learns the world in a minute, and a killed training goes on as if it had not been."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from hooks.errors import InvalidArgument
from interp.postcard.answers import is_right
from interp.postcard.draw import draw
from interp.postcard.nets import net
from interp.postcard.splits import scenes
from interp.postcard.train import contrast, recipe_for, train


def test_a_small_convnet_learns_landmarks_far_beyond_chance(tmp_path: Path) -> None:
    folder = train(tmp_path, recipe_for("convnet", pictures=16_000, small=True))
    shown = scenes("test", 400)
    right = is_right(net(folder), draw(shown).pixels, [s.landmark for s in shown]).float().mean()
    assert right > 7 / 72
    assert json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])["step"] == 16_000 // 64


def test_a_text_true_of_two_pictures_asks_to_be_near_both() -> None:
    images, words = torch.eye(2), torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), dim=-1)
    true = torch.tensor([[True, True], [False, True]])  # the second text is true of both pictures
    scores = 3.0 * images @ words.T
    rows, columns = scores.log_softmax(1), scores.log_softmax(0)
    wanted = -(rows[0].mean() + rows[1, 1]) / 4 - (columns[0, 0] + columns[:, 1].mean()) / 4
    torch.testing.assert_close(contrast(images, words, torch.tensor(3.0).log(), true), wanted)


@pytest.mark.parametrize("which", ["convnet", "clip"])
def test_a_training_that_is_stopped_goes_on_to_the_same_weights(which: str, tmp_path: Path) -> None:
    recipe = replace(recipe_for(which, pictures=48, small=True), batch=8)
    whole = train(tmp_path / "whole", recipe)
    for _ in range(7):
        train(tmp_path / "parts", recipe, minutes=0.0)
    a, b = (torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("whole", "parts"))
    assert a["step"] == b["step"] == 6
    assert all(torch.equal(a["model"][name], b["model"][name]) for name in a["model"])
    assert whole.is_dir()


def test_a_folder_of_another_training_is_refused(tmp_path: Path) -> None:
    recipe = recipe_for("convnet", pictures=64, small=True)
    train(tmp_path, recipe)
    with pytest.raises(InvalidArgument, match="seed=0"):
        train(tmp_path, replace(recipe, seed=1))


def test_the_loss_of_pairs_is_clips_without_repeated_texts() -> None:
    torch.manual_seed(0)
    images, words = (F.normalize(torch.randn(5, 8), dim=-1) for _ in range(2))
    scale = torch.tensor(2.0)
    scores = scale.exp() * images @ words.T
    theirs = -(scores.log_softmax(1).diag().mean() + scores.log_softmax(0).diag().mean()) / 2
    assert torch.allclose(contrast(images, words, scale, torch.eye(5, dtype=torch.bool)), theirs)


def test_pairs_with_repeated_texts_cannot_be_separated_and_are_not_asked_to() -> None:
    torch.manual_seed(0)
    vector = F.normalize(torch.randn(2, 8), dim=-1)[[0, 0, 0, 1]]
    scores = torch.tensor(4.0)
    same = torch.tensor([0, 0, 0, 1])
    loss = contrast(vector, vector, scores, same[:, None] == same)
    floor = 3 / 4 * torch.log(torch.tensor(3.0))  # three of four pairs are one of three alike
    assert loss >= floor - 1e-6
    assert loss < floor + 0.01
