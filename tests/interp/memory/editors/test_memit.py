"""MEMIT and PMET over three layers: what is written adds up to δ exactly, each layer writing its share of the rest."""

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from typing import Any

import pytest
import torch
from torch import Tensor

from hooks import Model, Site, capture
from hooks.site import mlp_act, mlp_out, resid_post
from interp.memory import Edit, Fact, Search, covariances, memit, pmet
from interp.memory.editing import multi_layer
from interp.memory.editing.change import balance_weights
from interp.memory.editing.covariance import Covariance
from interp.memory.editing.multi_layer import tokenise_groups
from interp.memory.editing.value_search import SearchState, Statements, ValueSearchResult, _flat
from interp.memory.editors import memit as memit_file
from interp.memory.editors import pmet as pmet_file

pytestmark = pytest.mark.usefixtures("unchecked")
FACT = Fact("Rome", "so {} is", "b", "a")
TEXTS = [f"some words {i} to read here" for i in range(40)]
PRESERVE, CONTEXTS = ("so {} was", "{} is a"), ("", "one. ")


@dataclass
class Planted:
    """A model, what is read of one fact, and a δ that no search had to find."""

    model: Model
    covariances: tuple[Covariance, ...]
    said: Statements
    delta: Tensor

    def state(self, site: Site) -> Tensor:
        return capture(self.model, self.said.tokens, [site]).flat(site, self.said.at)[self.said.alike].double()

    def weights(self, layer: int) -> Tensor:
        k = self.state(mlp_act[layer])
        return balance_weights(k, self.covariances[layer].solve(k))

    def edit(self, editor: Callable[..., Edit]) -> Edit:
        how = {"token": "last subject", "contexts": CONTEXTS, "preserve": PRESERVE}
        return editor(self.model, FACT, covariance=self.covariances, ridge=1e-9, **how)

    def moved(self, site: Site, edits: list[Edit], layer: int) -> Tensor:
        """How far the site moves in the mean that layer writes by, with some changes in place."""
        before = self.state(site)
        for edit in edits[:-1]:
            edit.apply(self.model)
        w = self.weights(layer)
        edits[-1].apply(self.model)
        after = self.state(site)
        for edit in edits:
            edit.undo(self.model)
        return w @ (after - before)


@pytest.fixture(params=[(memit_file, resid_post), (pmet_file, mlp_out)], ids=["memit", "pmet"])
def planted(request: Any, fresh: Callable[..., Model], monkeypatch: pytest.MonkeyPatch) -> tuple[Planted, Any, Any]:
    editor_file, sites = request.param
    model = fresh("gpt2")
    cs = covariances(model, TEXTS, (0, 1, 2), batch_size=8)
    (said,) = tokenise_groups(model, [(FACT,)], CONTEXTS, PRESERVE, "last subject")
    delta = torch.randn(model.d_model, generator=torch.Generator().manual_seed(1))
    found = [ValueSearchResult({sites[2]: delta}, probability=0.9, kl=0.0, steps=1)]
    monkeypatch.setattr(multi_layer, "search_targets", lambda *_, **__: found)
    monkeypatch.setattr(multi_layer, "measure_and_check", lambda _, edit, *__, **___: edit)
    return Planted(model, cs, said, delta.double()), editor_file, sites[2]


def _layers(edit: Edit) -> list[Edit]:
    return [Edit(edit.facts, f"layer {u.layer}", (u,), edit.fingerprint) for u in edit.weights]


@pytest.mark.filterwarnings("ignore:keys of:UserWarning")
@pytest.mark.filterwarnings("ignore:.*the covariance cannot have full rank:UserWarning")
@pytest.mark.filterwarnings("ignore:.*is edited to both:UserWarning")
def test_three_layers_together_move_the_target_site_by_exactly_delta(planted: tuple) -> None:
    world, editor_file, site = planted
    editor = memit if editor_file is memit_file else pmet
    edits = _layers(world.edit(editor))
    assert [update.weights[0].layer for update in edits] == [0, 1, 2]
    moved = world.moved(site, edits, 2)
    assert torch.allclose(moved, world.delta, rtol=0, atol=1e-3 * float(world.delta.norm()))


@pytest.mark.filterwarnings("ignore:keys of:UserWarning")
@pytest.mark.filterwarnings("ignore:.*the covariance cannot have full rank:UserWarning")
def test_each_layer_writes_its_share_of_what_is_still_missing(planted: tuple) -> None:
    world, editor_file, site = planted
    editor, share = (memit, lambda n: n) if editor_file is memit_file else (pmet, sqrt)
    edit = world.edit(editor)
    edits, moved = _layers(edit), torch.zeros_like(world.delta)
    for number, update in enumerate(edit.weights):
        if number:
            before = world.state(site)
            for one in edits[:number]:
                one.apply(world.model)
            moved = world.weights(number) @ (world.state(site) - before)
            for one in edits[:number]:
                one.undo(world.model)
        written = (update.at.double() @ update.delta)[0]
        missing = (world.delta - moved) / share(3 - number)
        assert torch.allclose(written, missing, rtol=0, atol=1e-3 * float(world.delta.norm()))


@pytest.mark.parametrize(
    ("said", "nll", "kl", "loss", "stops"),
    [
        (False, 0.4, 0.005, 0.4 + 5 * 0.005 + 0.1 * 2.0, False),
        (True, 0.4, 0.005, 0.04 + 5 * 0.005 + 0.1 * 2.0, True),
        (True, 0.7, 0.005, 0.07 + 5 * 0.005 + 0.1 * 2.0, False),  # p = e^-0.7 is below a half
        (True, 0.4, 0.011, 0.04 + 5 * 0.011 + 0.1 * 2.0, False),
    ],
)
def test_pmets_loss_weighs_what_is_said_already_by_a_tenth_and_stops_where_it_is_likely_and_little_else_moved(
    said: bool, nll: float, kl: float, loss: float, stops: bool
) -> None:
    state = SearchState(torch.tensor(nll), torch.tensor(kl), torch.tensor(2.0), said)
    found, enough = pmet_file.pmet_loss(state, Search(kl=5.0, decay=0.1))
    assert (float(found), enough) == (pytest.approx(loss), stops)


@pytest.mark.parametrize(
    ("losses", "nll", "said", "flat"),
    [
        ([1.0] * 16, 0.2, True, True),
        ([1.0] * 15, 0.2, True, False),  # too few steps to say
        ([1.0] * 16, 0.26, True, False),  # not within five times of the loss at which it ends
        ([1.0] * 16, 0.2, False, False),
        ([1.0] * 5 + [0.96] * 15, 0.2, True, True),  # fallen by less than a twentieth
        ([1.0] * 5 + [1.0] * 14 + [0.94], 0.2, True, False),
        ([0.5] + [1.0] * 20, 0.2, True, True),
    ],
)
def test_a_search_is_flat_where_the_least_loss_of_fifteen_steps_is_not_a_twentieth_below_the_least_before(
    losses: list[float], nll: float, said: bool, flat: bool
) -> None:
    state = SearchState(torch.tensor(nll), torch.tensor(0.0), torch.tensor(0.0), said)
    assert _flat(losses, state, Search(stop=0.05)) is flat
