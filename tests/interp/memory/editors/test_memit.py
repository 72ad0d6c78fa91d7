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
from interp.memory import Edit, Fact, covariances, memit, pmet
from interp.memory.editing import multi_layer
from interp.memory.editing.change import balance_weights
from interp.memory.editing.covariance import Covariance
from interp.memory.editing.multi_layer import tokenise_groups
from interp.memory.editing.value_search import Found, Statements
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
    found = [Found({sites[2]: delta}, probability=0.9, kl=0.0, steps=1)]
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
