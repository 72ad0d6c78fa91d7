"""What is kept names what it was made of: the weights as they were then, and what changed the passes besides."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hooks import Activations, Model, capture, capture_gradients, intervene
from hooks.errors import WrongModel, WrongState
from hooks.fingerprint import fingerprint, fingerprint_now
from hooks.interventions import add
from hooks.site import resid_post
from interp.atlas import Atlas, link_neighbours, sample_activations, space_at, token_space
from interp.atlas.cells import cut_cells
from interp.atlas.sample import unit_rows
from interp.lenses import fit_jacobian, tune
from interp.memory.editing.covariance import covariance
from interp.sae import TopK, activations_of, train

SITE = resid_post[1]
TEXTS = [f"fog {number} over the bay" for number in range(12)]
QUIET: dict[str, Any] = {"progress": False}


def dictionary(model: Model) -> TopK:
    made = TopK(model.d_model, 16, k=4)
    train(made, activations_of(model, TEXTS, SITE), tokens=40, batch_size=20, buffer=60, **QUIET)
    return made


def atlas(model: Model) -> Atlas:
    sample = sample_activations(model, TEXTS, SITE, **QUIET)
    xy = sample.space.rows[:, :2].contiguous()
    cells = cut_cells(xy, unit_rows(sample.space), side=3, least=1)
    return Atlas(sample, xy, xy, link_neighbours(sample.space, 3), cells, 1)


MADE: dict[str, Callable[[Model], Any]] = {
    "capture": lambda model: capture(model, TEXTS, SITE),
    "capture in batches": lambda model: capture(model, TEXTS, SITE, batch_size=5),
    "gradients": lambda model: capture_gradients(model, "fog", SITE, lambda y: y[0, -1, 0]).activations,
    "covariance": lambda model: covariance(model, TEXTS, 1, **QUIET),
    "tuned lens": lambda model: tune(model, TEXTS, steps=1, **QUIET),
    "Jacobian lens": lambda model: fit_jacobian(model, TEXTS[:1], skip=1, **QUIET),
    "autoencoder": dictionary,
    "sample": lambda model: sample_activations(model, TEXTS, SITE, **QUIET).space,
    "space": lambda model: space_at(model, TEXTS, SITE, **QUIET),
    "token space": token_space,
}


@pytest.mark.filterwarnings("ignore:.* tokens for .* keys")
@pytest.mark.parametrize("make", MADE.values(), ids=[*MADE])
def test_what_is_made_bears_the_fingerprint_of_the_weights_that_made_it(
    make: Callable[[Model], Any], gpt2: Model
) -> None:
    assert make(gpt2).fingerprint == gpt2.fingerprint
    weight = gpt2.w_out(0)
    held = weight.clone()
    weight[0, 0] += 1.0
    try:
        changed = fingerprint(gpt2.hf)
        assert make(gpt2).fingerprint == changed != gpt2.fingerprint
    finally:
        weight.copy_(held)
    assert make(gpt2).fingerprint == gpt2.fingerprint


def test_a_weight_written_to_is_seen_without_reading_the_others_again(gpt2: Model) -> None:
    before, weight = fingerprint_now(gpt2.hf), gpt2.w_out(1)
    held = weight.clone()
    for change in (lambda: weight.mul_(2.0), lambda: weight.copy_(held)):
        change()
        assert fingerprint_now(gpt2.hf) == fingerprint(gpt2.hf)
    assert fingerprint_now(gpt2.hf) == before == gpt2.fingerprint


def test_activations_name_what_changed_the_pass_and_their_file_does(gpt2: Model, tmp_path: Path) -> None:
    assert capture(gpt2, TEXTS, SITE).changed_by == ()
    with intervene(gpt2, {resid_post[0]: add(torch.ones(gpt2.d_model))}):
        acts = capture(gpt2, TEXTS, SITE)
        with gpt2.running.at_rest():
            assert capture(gpt2, TEXTS, SITE).changed_by == ()
    acts.save(tmp_path / "acts.safetensors")
    for one in (acts, Activations.load(tmp_path / "acts.safetensors")):
        assert one.changed_by == ("add(at=everywhere) at resid_post.0",)
        assert "add(at=everywhere) at resid_post.0" in repr(one)


def test_an_atlas_of_steered_activations_says_so_in_its_file(gpt2: Model, tmp_path: Path) -> None:
    with intervene(gpt2, {resid_post[0]: add(torch.ones(gpt2.d_model))}):
        atlas(gpt2).save(tmp_path / "atlas")
    assert Atlas.load(tmp_path / "atlas").sample.space.changed_by == ("add(at=everywhere) at resid_post.0",)


def test_an_autoencoder_trained_inside_a_block_says_so_of_its_data(gpt2: Model) -> None:
    with intervene(gpt2, {resid_post[0]: add(torch.ones(gpt2.d_model))}):
        inside = dictionary(gpt2)
    assert (inside.dataset, dictionary(gpt2).dataset) == (
        "12 texts; changed by add(at=everywhere) at resid_post.0",
        "12 texts",
    )


@pytest.mark.filterwarnings("ignore:.* tokens for .* keys")
@pytest.mark.parametrize("kind", ["tuned lens", "Jacobian lens", "covariance"])
def test_what_was_made_inside_a_block_is_not_saved_as_the_models_own(kind: str, gpt2: Model, tmp_path: Path) -> None:
    with intervene(gpt2, {resid_post[0]: add(torch.ones(gpt2.d_model))}):
        lens = MADE[kind](gpt2)
    with pytest.raises(WrongState, match=r"made of passes that were changed by add\(at=everywhere\) at resid_post\.0"):
        lens.save(tmp_path / "lens")
    assert not (tmp_path / "lens").exists()


@pytest.mark.parametrize("kind", ["tuned lens", "Jacobian lens"])
def test_a_lens_of_edited_weights_is_read_under_the_edit_and_refused_without_it(
    kind: str, gpt2: Model, tmp_path: Path
) -> None:
    file, weight = tmp_path / "lens", gpt2.w_out(0)
    held = weight.clone()
    weight[0, 0] += 1.0
    try:
        lens = MADE[kind](gpt2)
    finally:
        weight.copy_(held)
    lens.save(file)
    with pytest.raises(WrongModel, match="was made with other weights"):
        type(lens).load(file, gpt2)
    weight[0, 0] += 1.0
    try:
        assert type(lens).load(file, gpt2).fingerprint == lens.fingerprint
    finally:
        weight.copy_(held)
