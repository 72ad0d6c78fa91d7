"""One table of laws for every editor of facts: it says the fact, undoes bit for bit, travels, and leaves no trace."""

from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import pytest
import torch

from hooks import Model, capture
from hooks.site import mlp_act
from interp.memory import (
    Covariance,
    Edit,
    Fact,
    Search,
    alphaedit,
    covariances,
    emmet,
    ft_l,
    grace,
    in_context,
    knn_memory,
    memit,
    merge,
    pmet,
    rome,
)  # fmt: skip
from interp.memory.fact import answered
from interp.memory.scorecard import control

ROME, BERN = Fact("Rome", "so {} is", "b", "a"), Fact("Bern", "so {} is", "a", "b")
OBJECTS = {"Rome": "b", "Oslo": "b", "Lima": "a", "Bern": "a"}
CONTEXTS = ("", "one. ", "and two. ")
TEXTS = [f"some words {i} to read here" for i in range(40)]
SEARCH = Search(steps=60, learning_rate=0.3, clamp=10.0, kl=0.0, decay=0.0)
HOW = {"contexts": CONTEXTS, "search": SEARCH}
Editor = Callable[[Model, object, tuple[Covariance, ...]], Edit]

WEIGHTS: dict[str, Editor] = {
    "ft_l": lambda m, f, _: ft_l(m, f, layer=1, bound=0.5, learning_rate=0.1),
    "rome": lambda m, f, c: rome(m, f, covariance=c[1], **HOW),
    "emmet": lambda m, f, c: emmet(m, f, covariance=c[1], **HOW),
    "memit": lambda m, f, c: memit(m, f, covariance=c, **HOW),
    "pmet": lambda m, f, c: pmet(m, f, covariance=c, **HOW),
    "alphaedit": lambda m, f, c: alphaedit(m, f, covariance=c, energy=0.3, **HOW),
}
BESIDE: dict[str, Editor] = {
    "grace": lambda m, f, _: grace(m, f, search=SEARCH),
    "knn_memory": lambda m, f, _: knn_memory(m, f, radius=0.02),
    "in_context": lambda m, f, _: in_context(m, f),
}
EDITORS = WEIGHTS | BESIDE
SAYING = [name for name in EDITORS if name != "in_context"]  # a model of three layers does not read its context


def taught(model: Model) -> Model:
    """A model that has learnt four sentences, and so has facts to edit."""
    tokens = model.tokens([f"so {subject} is {told}" for subject, told in OBJECTS.items()])
    adam = torch.optim.Adam(model.hf.parameters(), lr=3e-3)
    with torch.enable_grad():
        for _ in range(150):
            logits = model.run(tokens)[:, :-1].flatten(0, 1)
            loss = torch.nn.functional.cross_entropy(logits, tokens.ids[:, 1:].flatten())
            adam.zero_grad()
            loss.backward()
            adam.step()
    return model.hf.zero_grad() or model


class World:
    """A taught model, the covariances of its first two layers, and every edit of one fact."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.covariances = covariances(model, TEXTS, (0, 1), batch_size=40)
        self.made: dict[str, Edit] = {}

    def edit(self, name: str) -> Edit:
        if name not in self.made:
            self.made[name] = EDITORS[name](self.model, ROME, self.covariances)
        return self.made[name]

    @torch.no_grad()
    def logits(self) -> torch.Tensor:
        return self.model.run(["so Rome is", "one. so Bern is a"])

    def weights(self) -> list[torch.Tensor]:
        return [p.detach().clone() for p in self.model.hf.parameters()]

    def hooks(self) -> int:
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in self.model.hf.modules())


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def world(request: pytest.FixtureRequest, fresh: Callable) -> World:
    return World(taught(fresh(request.param)))


def said(model: Model, fact: Fact) -> bool:
    return answered(str(model.generate(fact.text, max_new_tokens=2)), fact.new)


@pytest.mark.parametrize("name", SAYING)
def test_the_new_object_is_generated_with_the_edit_and_the_old_one_without(world: World, name: str) -> None:
    edit = world.edit(name)
    assert not said(world.model, ROME)
    with edit.applied(world.model):
        assert said(world.model, ROME)
    assert not said(world.model, ROME)


@pytest.mark.parametrize("name", EDITORS)
def test_making_applying_and_undoing_an_edit_leaves_every_bit_and_no_hook(world: World, name: str) -> None:
    weights, logits, hooks = world.weights(), world.logits(), world.hooks()
    trainable = [p.requires_grad for p in world.model.hf.parameters()]
    world.made.pop(name, None)
    with world.edit(name).applied(world.model):
        assert not torch.equal(world.logits(), logits)
    assert torch.equal(world.logits(), logits) and world.hooks() == hooks
    assert all(torch.equal(a, b) for a, b in zip(weights, world.model.hf.parameters(), strict=True))
    assert [p.requires_grad for p in world.model.hf.parameters()] == trainable


@pytest.mark.filterwarnings("ignore:keys of 'Rome':UserWarning")
@pytest.mark.filterwarnings("ignore:the codebooks of 'Rome':UserWarning")
def test_a_stack_of_all_editors_undone_in_any_order_leaves_what_the_rest_alone_gives(world: World) -> None:
    names = ("rome", "memit", "grace")
    logits, alone = world.logits(), {}
    for name in names:
        with world.edit(name).applied(world.model):
            alone[name] = world.logits()
    for order in permutations(names):
        for name in names:
            world.edit(name).apply(world.model)
        world.edit(order[0]).undo(world.model)
        world.edit(order[1]).undo(world.model)
        assert torch.equal(world.logits(), alone[order[2]])
        world.edit(order[2]).undo(world.model)
        assert torch.equal(world.logits(), logits)


@pytest.mark.parametrize("name", EDITORS)
def test_an_edit_read_from_disk_does_bit_for_bit_what_was_written(world: World, name: str, tmp_path: Path) -> None:
    edit = world.edit(name)
    edit.save(tmp_path / "edit.safetensors")
    read = Edit.load(tmp_path / "edit.safetensors")
    assert (read.digest, read.facts, read.method) == (edit.digest, edit.facts, name)
    with edit.applied(world.model):
        logits = world.logits()
    with read.applied(world.model):
        assert torch.equal(world.logits(), logits)


@pytest.mark.parametrize("name", EDITORS)
def test_any_other_model_is_refused(world: World, name: str, fresh: Callable) -> None:
    other = fresh(world.model.hf.config.model_type, seed=9)
    with pytest.raises(ValueError, match="this edit was made for model .* make the edit again on this model"):
        world.edit(name).apply(other)


@pytest.mark.parametrize("name", SAYING)
def test_several_facts_at_once_are_all_said(world: World, name: str) -> None:
    edit = EDITORS[name](world.model, [ROME, BERN], world.covariances)
    assert edit.facts == (ROME, BERN) and edit.measured["edited_share"] == 1.0
    with edit.applied(world.model):
        assert said(world.model, ROME) and said(world.model, BERN)


@pytest.mark.parametrize("name", EDITORS)
def test_no_facts_and_contradicting_facts_are_refused(world: World, name: str) -> None:
    with pytest.raises(ValueError, match="no facts were given to edit: give at least one Fact"):
        EDITORS[name](world.model, [], world.covariances)
    with pytest.raises(ValueError, match="'so Rome is' is to be both 'a' and 'c': give one of them"):
        EDITORS[name](world.model, [ROME, Fact("Rome", "so {} is", "b", "c")], world.covariances)


@pytest.mark.parametrize("name", EDITORS)
def test_the_control_writes_something_else_of_the_same_size_at_the_same_place(world: World, name: str) -> None:
    edit, spoilt = world.edit(name), control(world.edit(name))
    assert spoilt.digest != edit.digest and spoilt.facts == edit.facts
    for one, other in zip(edit.updates, spoilt.updates, strict=True):
        assert type(one) is type(other)
        for field in ("key", "keys", "radius"):
            assert torch.equal(torch.as_tensor(getattr(one, field, 0)), torch.as_tensor(getattr(other, field, 0)))
        for field in ("value", "values"):
            sizes = [torch.as_tensor(getattr(u, field, torch.ones(1, 1))).double().norm(dim=1) for u in (one, other)]
            assert torch.allclose(*sizes, rtol=1e-5)


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_merged_folder_is_loaded_by_transformers_with_the_edit_in_its_weights(
    world: World, name: str, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    merge(world.model, [world.edit(name)], tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    ids = world.model.tokens("so Rome is").ids
    with world.edit(name).applied(world.model), torch.no_grad():
        assert torch.equal(plain(ids).logits, world.model.hf(ids).logits)


@pytest.mark.parametrize("name", BESIDE)
def test_what_changes_no_weight_cannot_be_merged(world: World, name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"a {name} edit changes no weight, so it cannot be merged"):
        merge(world.model, [world.edit(name)], tmp_path)


def test_emmet_of_one_fact_is_rome(world: World) -> None:
    (one,), (other,) = world.edit("emmet").updates, world.edit("rome").updates
    assert torch.allclose(one.delta, other.delta, rtol=1e-9, atol=1e-12)


def test_memit_at_one_layer_tends_to_emmet_as_the_ridge_falls(world: World) -> None:
    c = world.covariances[1]
    facts, how = [ROME, BERN], HOW | {"search": SEARCH}
    exact = emmet(world.model, facts, covariance=c, ridge=0.0, **how).updates[0].key
    gaps = [
        float(
            (memit(world.model, facts, covariance=c, ridge=ridge, **how).updates[0].key - exact).norm() / exact.norm()
        )
        for ridge in (1e-2, 1e-5, 1e-8)
    ]
    assert gaps[0] > 100 * gaps[1] > 1e4 * gaps[2] and gaps[2] < 1e-5


def test_alphaedit_leaves_the_outputs_at_preserved_keys(world: World) -> None:
    texts = ["Oslo has", "it was"]
    kept = capture(world.model, texts, [mlp_act[1]]).flat(mlp_act[1]).double()
    planted = Covariance(kept.T @ kept / len(kept), 0.0, 1, len(kept), world.model.fingerprint)
    edit = alphaedit(world.model, ROME, covariance=planted, energy=0.0, **HOW)
    (update,) = edit.weights
    moved = kept @ update.delta
    assert moved.norm() <= 1e-6 * update.delta.norm() * kept.norm()
    key = update.at.double()
    assert (key @ update.delta).norm() > 0.5 * update.value.norm()


def test_alphaedit_keeps_what_earlier_edits_wrote(world: World) -> None:
    c = world.covariances[1]
    first = alphaedit(world.model, ROME, covariance=c, energy=0.5, **HOW)
    with first.applied(world.model):
        blind, careful = (
            alphaedit(world.model, BERN, covariance=c, energy=0.5, earlier=earlier, **HOW) for earlier in ((), [first])
        )
    at = first.weights[0].at.double()
    assert (at @ careful.weights[0].delta).norm() < 0.2 * (at @ blind.weights[0].delta).norm()


@pytest.mark.parametrize("name", ["grace", "knn_memory"])
def test_a_memory_far_from_its_keys_changes_no_bit(world: World, name: str) -> None:
    with torch.no_grad():
        before = world.model.run("nothing like it was said 1234")
        with world.edit(name).applied(world.model):
            assert torch.equal(world.model.run("nothing like it was said 1234"), before)


def test_a_preamble_is_read_as_if_it_stood_before_the_text(world: World) -> None:
    model, texts = world.model, ["so Rome is", "one. so Bern is a"]
    (ids,) = model.tokens(f"{ROME.text} {ROME.new}.\n").ids
    with torch.no_grad(), world.edit("in_context").applied(model):
        batch = model.tokens(texts)
        told = model.run(batch)
        generated = model.generate(texts, max_new_tokens=6)
    for row, text in enumerate(texts):
        own = model.tokens(text).ids[0, 1:]  # its beginning-of-text token does not come twice
        with torch.no_grad():
            whole = model.hf(torch.cat([ids, own])[None]).logits[0, len(ids) :]
        assert torch.allclose(told[row][batch.content[row]], whole, atol=1e-4)
        assert model.generate(f"{ROME.text} {ROME.new}.\n{text}", max_new_tokens=6) == generated[row]
