"""What is kept as a model's own is not made while a block of interventions changes what the model computes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hooks import Model, check, harvest, intervene
from hooks.errors import WrongState
from hooks.interventions import add
from hooks.site import resid_post
from interp import features, sae
from interp.common.statistics import Estimate
from interp.emergence import track
from interp.lenses import tune
from interp.memory.editing.covariance import covariance
from interp.sae import Checkpoint, TopK, across, activations_of, drop_registers

SITE = resid_post[1]
TEXTS = [f"fog {number} over the bay" for number in range(12)]
QUIET: dict[str, Any] = {"progress": False}


def dictionary(model: Model) -> TopK:
    made = TopK(model.d_model, 16, k=4)
    made.site, made.fingerprint = SITE, model.fingerprint
    return made


def learn(source: sae.Source, made: sae.SAE, folder: Path) -> object:
    how: dict[str, Any] = {"tokens": 100, "batch_size": 20, "buffer": 60}
    return sae.train(made, source, checkpoint=Checkpoint(folder, 50), **how, **QUIET)


def norm(model: Model) -> dict[str, Estimate]:
    return {"norm": Estimate(float(model.run("fog").detach().norm()), 0.0, 1e9, 1)}


KEPT: dict[str, Callable[[Model, Path], object]] = {
    "check": lambda model, _: check(model),
    "harvest": lambda model, at: harvest(model, TEXTS, [SITE], at, **QUIET),
    "covariance": lambda model, at: covariance(model, TEXTS, 1, cache=at, **QUIET),
    "index": lambda model, at: features.index(dictionary(model), model, TEXTS, at, **QUIET),
    "tune": lambda model, at: tune(model, TEXTS, steps=2, checkpoint=at, **QUIET),
    "train": lambda model, at: learn(activations_of(model, TEXTS, SITE), dictionary(model), at),
    "train, some rows": lambda model, at: learn(
        drop_registers(activations_of(model, TEXTS, SITE)), dictionary(model), at
    ),
    "train, of several sites": lambda model, at: learn(
        across([(model, resid_post[0]), (model, SITE)], TEXTS), sae.Crosscoder(model.d_model, 16, n_layers=2), at
    ),
    "track": lambda model, at: track({1: model, 2: model}, {"": norm}, file=at, **QUIET),
}


@pytest.mark.filterwarnings("ignore:.* tokens for .* keys")
@pytest.mark.parametrize("keep", KEPT.values(), ids=[*KEPT])
def test_what_is_kept_as_a_models_own_is_refused_inside_a_block_and_leaves_no_file(
    keep: Callable[[Model, Path], object], gpt2: Model, tmp_path: Path
) -> None:
    with intervene(gpt2, {resid_post[0]: add(torch.ones(gpt2.d_model))}):
        gpt2.run("fog")
        with pytest.raises(WrongState, match=r"a block of interventions is open at resid_post\.0, and .*: .* outside"):
            keep(gpt2, tmp_path / "kept")
        assert not (tmp_path / "kept").exists()
        if keep is not KEPT["check"]:
            with gpt2.running.at_rest():
                keep(gpt2, tmp_path / "kept")
    keep(gpt2, tmp_path / "kept")
