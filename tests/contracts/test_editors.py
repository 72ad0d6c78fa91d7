"""One table of laws for every editor of facts: it says the fact, undoes bit for bit, travels, and leaves no trace."""

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from hooks import Model, capture
from hooks.errors import EditRefused
from hooks.site import mlp_act, mlp_out, resid_post
from interp.common.texts import begins_with
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
from interp.memory.editing.keys import capture_means
from interp.memory.editing.multi_layer import choose_search
from interp.memory.editing.value_search import search_value, tokenise_statements
from interp.memory.editors.alphaedit import collect_keys
from interp.memory.editors.registry import make_editors
from interp.memory.evaluation.control import make_control
from tests.contracts.words import sentences, taught, untaught

pytestmark = pytest.mark.usefixtures("unchecked")

ROME, LIMA = Fact("Rome", "{} is in", "Italy", "Peru"), Fact("Lima", "{} is in", "Peru", "Japan")
YORK = Fact("New York", "{} speaks", "Dutch", "Norse")
SEARCH = Search(learning_rate=0.3, clamp=30.0, kl=0.0, decay=0.0, stop=0.01)
HOW = {"token": "last prompt", "contexts": ("",), "preserve": ("they say {}",), "search": SEARCH}
PMET = {"preserve": ("{} speaks",), "search": Search(learning_rate=0.3, clamp=30.0, kl=0.0, decay=0.0)}
Editor = Callable[[Model, object, tuple[Covariance, ...]], Edit]

WEIGHTS: dict[str, Editor] = {
    "ft_l": lambda m, f, _: ft_l(m, f, layer=1, bound=2.0, learning_rate=0.1),
    "rome": lambda m, f, c: rome(m, f, covariance=c[0], **HOW),
    "emmet": lambda m, f, c: emmet(m, f, covariance=c[0], **HOW),
    "memit": lambda m, f, c: memit(m, f, covariance=c, **HOW),
    "alphaedit": lambda m, f, c: alphaedit(m, f, covariance=c[0], energy=0.3, **HOW),
}
RIVALS: dict[str, Editor] = {
    "grace": lambda m, f, _: grace(m, f, layer=1, preserve=("they say {}",), search=SEARCH),
    "knn_memory": lambda m, f, _: knn_memory(m, f, radius=0.02),
    "in_context": lambda m, f, _: in_context(m, f),
}
EDITORS = WEIGHTS | RIVALS
SAYING = [name for name in EDITORS if name != "in_context"]  # so small a model does not follow what it reads
EXACT = ["rome", "emmet"]


class World:
    """A taught model, the covariances of its first two layers, and every edit of one fact."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.covariances = covariances(model, sentences(), (0, 1), batch_size=200)
        self.made: dict[str, Edit] = {}

    def edit(self, name: str) -> Edit:
        if name not in self.made:
            self.made[name] = EDITORS[name](self.model, ROME, self.covariances)
        return self.made[name]

    @torch.no_grad()
    def logits(self) -> torch.Tensor:
        return self.model.run(["Rome is in", "well . Oslo is in Norway"])

    def weights(self) -> list[torch.Tensor]:
        return [p.detach().clone() for p in self.model.hf.parameters()]

    def hooks(self) -> int:
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in self.model.hf.modules())


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def world(request: pytest.FixtureRequest) -> World:
    return World(taught(request.param))


def said(model: Model, fact: Fact) -> bool:
    return begins_with(str(model.generate(fact.text, max_new_tokens=3)), fact.new)


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


@pytest.mark.filterwarnings("ignore:keys of:UserWarning")
def test_a_stack_of_all_editors_made_and_undone_in_any_order_leaves_what_the_rest_alone_gives(world: World) -> None:
    names = ("rome", "memit", "grace", "in_context")
    logits, alone, together = world.logits(), {}, []
    for name in names:
        with world.edit(name).applied(world.model):
            alone[name] = world.logits()
    for order in permutations(names):
        for name in order:
            world.edit(name).apply(world.model)
        together.append(world.logits())
        for name in order[:-1]:
            world.edit(name).undo(world.model)
        assert torch.equal(world.logits(), alone[order[-1]])
        world.edit(order[-1]).undo(world.model)
        assert torch.equal(world.logits(), logits)
    assert all(torch.equal(one, together[0]) for one in together)


def test_a_second_text_before_every_other_and_one_that_does_not_fit_are_refused(world: World) -> None:
    hooks, second = world.hooks(), in_context(world.model, LIMA)
    with world.edit("in_context").applied(world.model):
        with pytest.raises(
            EditRefused, match="reads .Rome is in. and so on before every text already, and .* undo that in_con"
        ):
            second.apply(world.model)
        with pytest.raises(ValueError, match="where another edit is searched, undo this one first"):
            EDITORS["rome"](world.model, LIMA, world.covariances)
    with pytest.raises(EditRefused, match="81 tokens do not fit into the context of 48"):
        in_context(world.model, ROME, repeats=20)
    assert world.hooks() == hooks


@pytest.mark.filterwarnings("ignore:keys of:UserWarning")
def test_a_fact_is_written_into_a_layer_whose_codebook_answers_elsewhere(world: World) -> None:
    with world.edit("grace").applied(world.model):
        edit = rome(world.model, YORK, covariance=world.covariances[1], **HOW)
        with edit.applied(world.model):
            assert said(world.model, YORK) and said(world.model, ROME)


@pytest.mark.parametrize("name", ["rome", "memit"])
def test_of_the_keys_of_earlier_edits_all_but_those_written_again_are_kept(world: World, name: str) -> None:
    edit = EDITORS[name](world.model, [ROME, YORK], world.covariances)
    d_mlp, (at, *more) = world.model.d_mlp, [u.at for u in edit.weights if u.layer == 0]
    rome_s, york_s = torch.cat([at, *more]).double()
    for token, names in (("last subject", ("Rome", "New York")), ("last prompt", (ROME.text, YORK.text))):
        assert torch.equal(collect_keys([edit], 0, d_mlp, token, {names[0]}), york_s[None])
        assert torch.equal(collect_keys([edit], 0, d_mlp, token, {names[1]}), rome_s[None])
        assert (
            len(collect_keys([edit], 0, d_mlp, token, {"Oslo"})) == 2
            and len(collect_keys([edit], 2, d_mlp, token, set())) == 0
        )


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
def test_any_other_model_is_refused(world: World, name: str) -> None:
    other = untaught(world.model.hf.config.model_type)
    with pytest.raises(ValueError, match="this edit was made for model .* make the edit again on this model"):
        world.edit(name).apply(other)


@pytest.mark.parametrize("name", [name for name in SAYING if name != "ft_l"])
def test_several_facts_at_once_are_all_said(world: World, name: str) -> None:
    edit = EDITORS[name](world.model, [ROME, YORK], world.covariances)
    assert edit.facts == (ROME, YORK) and edit.measured["edited_share"] == 1.0
    with edit.applied(world.model):
        assert said(world.model, ROME) and said(world.model, YORK)


@pytest.mark.parametrize("name", EDITORS)
def test_no_facts_and_contradicting_facts_are_refused(world: World, name: str) -> None:
    with pytest.raises(ValueError, match="no facts were given to edit: give at least one Fact"):
        EDITORS[name](world.model, [], world.covariances)
    with pytest.raises(ValueError, match="'Rome is in' is to be both 'Peru' and 'Japan': give one of them"):
        EDITORS[name](world.model, [ROME, Fact("Rome", "{} is in", "Italy", "Japan")], world.covariances)


@pytest.mark.parametrize("name", EDITORS)
def test_the_control_writes_something_else_of_the_same_size_at_the_same_place(world: World, name: str) -> None:
    edit, spoilt = world.edit(name), make_control(world.edit(name))
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
    ids = world.model.tokens("Rome is in").ids
    with world.edit(name).applied(world.model), torch.no_grad():
        assert torch.equal(plain(ids).logits, world.model.hf(ids).logits)


@pytest.mark.parametrize("name", RIVALS)
def test_what_changes_no_weight_cannot_be_merged(world: World, name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"an edit by {name} changes no weight, so it cannot be merged"):
        merge(world.model, [world.edit(name)], tmp_path)


def test_pmet_says_the_fact_or_is_refused_where_the_half_left_to_attention_is_what_states_it(world: World) -> None:
    def edited() -> Edit:
        return pmet(world.model, ROME, covariance=world.covariances[1], **HOW | PMET)

    if world.model.hf.config.model_type == "gpt2":
        with pytest.raises(RuntimeError, match=r"the pmet edit in place .* still does not say 'Peru' after 'Rome is"):
            edited()
    else:
        with edited().applied(world.model):
            assert said(world.model, ROME)
        assert not said(world.model, ROME)


def test_emmet_of_one_fact_is_rome(world: World) -> None:
    (one,), (other,) = world.edit("emmet").updates, world.edit("rome").updates
    assert torch.allclose(one.delta, other.delta, rtol=1e-9, atol=1e-12)


def test_memit_at_one_layer_tends_to_emmet_as_the_ridge_falls(world: World) -> None:
    c = world.covariances[1]
    facts, how = [ROME, YORK], HOW
    exact = emmet(world.model, facts, covariance=c, ridge=0.0, **how).updates[0].key
    gaps = [
        float(
            (memit(world.model, facts, covariance=c, ridge=ridge, **how).updates[0].key - exact).norm() / exact.norm()
        )
        for ridge in (1e-2, 1e-8)
    ]
    assert gaps[0] > 1e4 * gaps[1] and gaps[1] < 1e-5


def test_alphaedit_leaves_the_outputs_at_preserved_keys(world: World) -> None:
    texts = ["Oslo is in", "they say so"]
    kept = capture(world.model, texts, [mlp_act[1]]).flat(mlp_act[1]).double()
    planted = Covariance(kept.T @ kept / len(kept), 0.0, 1, len(kept), world.model.fingerprint)
    edit = alphaedit(world.model, ROME, covariance=planted, energy=0.0, **HOW)
    (update,) = edit.weights
    moved = kept @ update.delta
    assert moved.norm() <= 1e-6 * update.delta.norm() * kept.norm()
    key = update.at.double()
    assert (key @ update.delta).norm() > 0.5 * update.value.norm()


@pytest.mark.parametrize("name", ["grace", "knn_memory"])
def test_a_memory_far_from_its_keys_changes_no_bit(world: World, name: str) -> None:
    with torch.no_grad():
        before = world.model.run("they say so . and well")
        with world.edit(name).applied(world.model):
            assert torch.equal(world.model.run("they say so . and well"), before)


def test_a_preamble_is_read_as_if_it_came_before_the_text(world: World) -> None:
    model, texts = world.model, ["Rome is in", "well . Oslo is in Norway"]
    (ids,) = model.tokens(f"{ROME.text} {ROME.new}.").ids
    with torch.no_grad(), world.edit("in_context").applied(model):
        batch = model.tokens(texts)
        message = model.run(batch)
        generated = model.generate(texts, max_new_tokens=6)
    for row, text in enumerate(texts):
        own = model.tokens(text).ids[0, 1:]  # its beginning-of-text token does not come twice
        with torch.no_grad():
            whole = model.hf(torch.cat([ids, own])[None]).logits[0, len(ids) :]
        assert torch.allclose(message[row][batch.content[row]], whole, atol=1e-4)
        assert model.generate(f"{ROME.text} {ROME.new}. {text}", max_new_tokens=6) == generated[row]


def test_fine_tuning_stays_within_its_bound(world: World) -> None:
    unit = float(world.model.w_out(1).detach().float().square().mean().sqrt())
    edit = ft_l(world.model, ROME, layer=1, bound=1.5, learning_rate=0.2, steps=100)
    largest = float(edit.weights[0].delta.abs().max()) / unit
    assert 1.0 < largest <= 1.5 * (1 + 1e-6)
    with pytest.raises(RuntimeError, match=r"the ft_l edit in place .* still does not say 'Peru' after 'Rome is in'"):
        ft_l(world.model, ROME, layer=1, bound=1e-3, learning_rate=1e-3)


def test_the_first_step_of_a_search_is_the_rate_times_what_the_site_holds(world: World) -> None:
    for site in (mlp_out[0], resid_post[1]):
        ((v,),) = capture_means(world.model, [ROME], [""], [site], "last prompt")
        said = tokenise_statements(world.model, [ROME], [""], ["{} speaks"], "last prompt")
        found = search_value(world.model, said, {site: v}, Search(steps=1, learning_rate=0.03, stop=0.0))
        assert float(found.deltas[site].norm() / v.norm()) == pytest.approx(0.03, rel=1e-3)


@pytest.mark.parametrize("name", ["emmet", "memit", "pmet", "alphaedit"])
def test_what_is_written_at_one_key_is_searched_shorter_the_more_keys_there_are(
    world: World, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = EDITORS.get(name, lambda m, f, c: pmet(m, f, covariance=c[1], **HOW | PMET))
    spread = name in ("memit", "pmet")
    module = import_module("interp.memory.editing.multi_layer" if spread else f"interp.memory.editors.{name}")
    asked: list[int] = []

    def unsaid(n: int) -> Search:
        asked.append(n)
        raise InterruptedError

    monkeypatch.setattr(module, "choose_search", unsaid)
    monkeypatch.setitem(HOW, "search", None)
    monkeypatch.setitem(PMET, "search", None)
    for facts in (ROME, [ROME, LIMA, YORK]):
        with pytest.raises(InterruptedError):
            usual(world.model, facts, world.covariances)
    assert asked == [1, 3]


def test_the_keys_of_earlier_edits_count_among_those_that_are_written(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def message(n: int) -> Search:
        raise InterruptedError(n)

    monkeypatch.setattr(import_module("interp.memory.editors.alphaedit"), "choose_search", message)
    c, made = world.covariances[0], world.edit("alphaedit")
    with pytest.raises(InterruptedError, match="2"):
        alphaedit(world.model, LIMA, covariance=c, earlier=[made], token="last prompt", contexts=("",), preserve=["{}"])


def test_of_a_hundred_keys_each_is_changed_less_than_of_one_and_still_says_its_fact(world: World) -> None:
    ((v,),) = capture_means(world.model, [ROME], [""], [resid_post[1]], "last prompt")
    said = tokenise_statements(world.model, [ROME], [""], ["{} speaks"], "last prompt")
    found = [
        search_value(world.model, said, {resid_post[1]: v}, replace(SEARCH, decay=choose_search(n).decay, stop=0.0))
        for n in (1, 100)
    ]
    one, hundred = (float(f.deltas[resid_post[1]].norm()) for f in found)
    assert hundred < 0.9 * one and all(f.probability > 0.5 for f in found)
    assert [choose_search(n).decay for n in (1, 50, 100, 500)] == [Search().decay, 0.5, 1.0, 1.0]


def test_a_codebooks_value_is_searched_for_its_object_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Search] = []
    module = import_module("interp.memory.editors.grace")
    monkeypatch.setattr(module, "search_value", lambda m, said, v, s: asked.append(s) or search_value(m, said, v, s))
    edit = grace(world.model, ROME, layer=1, preserve=("they say {}",))
    assert (asked[0].kl, asked[0].decay) == (0.0, 0.0)
    with edit.applied(world.model):
        assert said(world.model, ROME)


@pytest.mark.parametrize(("new", "before_last"), [("Peru", 1), ("New York", 2)])
def test_a_codebook_is_where_every_token_of_the_object_can_be_reached(
    world: World, new: str, before_last: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def message(_model: Model, _facts: object, _contexts: object, layer: int, _token: str) -> None:
        raise InterruptedError(layer)

    module, last = import_module("interp.memory.editors.grace"), world.model.n_layers - 1
    monkeypatch.setattr(module, "locate_known_facts", lambda *_, **__: SimpleNamespace(layer=last))
    monkeypatch.setattr(module, "capture_keys_and_values", message)
    with pytest.raises(InterruptedError, match=str(world.model.n_layers - before_last)):
        grace(world.model, replace(ROME, new=new), preserve=("they say {}",))
    made, _ = make_editors(world.model, ["grace"], [replace(ROME, new=new)])
    with pytest.raises(InterruptedError, match=str(world.model.n_layers - before_last)):
        made["grace"](world.model, ROME)
