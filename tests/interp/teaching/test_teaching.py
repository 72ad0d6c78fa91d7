"""A lesson holds inside its block and nowhere else; ways are compared with their controls on models that are known."""

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from hooks import Model, capture
from hooks.errors import EditRefused, InvalidArgument
from hooks.position import last
from hooks.site import resid_post
from interp.common.completion import score
from interp.directions import unembedding
from interp.memory import Case, Edit, Fact, Query, in_context, knn_memory
from interp.memory.editing.change import LowRank
from interp.memory.editors.grace import grace
from interp.steering import add_direction, steer
from interp.teaching import (
    COSTS,
    WAYS,
    Lesson,
    compare_ways,
    lesson_of_edit,
    lesson_of_passages,
    lesson_of_steering,
    make_ways,
)
from interp.teaching.lesson import find_saying_dose
from tests.contracts.words import FILLER, taught
from tests.interp.context.nets import copy_model

pytestmark = pytest.mark.usefixtures("unchecked")

ROME = Fact("Rome", "{} is in", "Italy", "Peru")
LIMA = Fact("Lima", "{} speaks", "Quechua", "Latin")
CASE = Case(ROME, ("we know Rome is in",), (Query("Milan is in", "Italy"),), (Query("Rome speaks", "Latin"),))


@pytest.fixture(scope="module")
def model() -> Model:
    return taught("gpt2")


def rank_one(model: Model, fact: Fact) -> Edit:
    random = torch.Generator().manual_seed(0)
    key, value = torch.randn(1, model.d_mlp, generator=random), torch.randn(1, model.d_model, generator=random)
    return Edit((fact,), "random", (LowRank(0, key, value),), model.fingerprint)


def test_every_way_is_undone_bit_for_bit_and_says_what_it_takes(model: Model) -> None:
    ways = {
        "edit": lambda m, f: lesson_of_edit(rank_one(m, f)),
        "store": lambda m, f: lesson_of_edit(knn_memory(m, f, radius=1e-3)),
        "codebook": lambda m, f: lesson_of_edit(grace(m, f, layer=0)),
        "context": lambda m, f: lesson_of_edit(in_context(m, f)),
        "steering": lesson_of_steering,
        "passage": lambda m, f: lesson_of_passages(m, f, ["Milan is in Italy ."]),
    }
    found = compare_ways(model, [CASE], ways, FILLER[:3])
    assert {name: e.value for name, e in found.undone.items()} == dict.fromkeys(ways, 1.0)
    assert not any(found.refused.values()) and found.n == 1
    assert found.costs["edit"]["bytes"].value == 4 * (model.d_mlp + model.d_model)
    assert found.costs["steering"]["bytes"].value == 4 * model.d_model
    assert found.costs["context"]["tokens"].value == len(model.tokens("Rome is in Peru.\n").ids[0])
    assert {k for row in found.costs.values() for k in row} == {*COSTS}
    assert found.table["store"]["efficacy said"].value == 1.0 > found.table["store control"]["efficacy said"].value
    assert found.table["store"]["neighbours unchanged"].value == 1.0 and found.table["store"]["drift"].value == 0.0
    assert "drift" not in found.table["passage"] and "drift" in found.table["context"]
    assert len(found.to_pandas()) > 50 and "untaught" in str(found)


def test_a_way_that_leaves_something_is_called_not_undone(model: Model) -> None:
    weight = model.hf.transformer.h[0].mlp.c_proj.weight
    kept = weight.detach().clone()

    @contextmanager
    def leaking(_: Model):
        with torch.no_grad():
            weight.add_(1e-3)
        yield

    def way(_: Model, fact: Fact) -> Lesson:
        return Lesson(fact, leaking, lambda _: Lesson(fact, leaking, lambda _: way(model, fact), 1), 1)

    try:
        assert compare_ways(model, [CASE], {"leak": way}, FILLER[:2]).undone["leak"].value == 0.0
    finally:
        with torch.no_grad():
            weight.copy_(kept)


def test_a_way_that_leaves_something_in_a_weight_that_no_prompt_reaches_is_called_not_undone(model: Model) -> None:
    weight = model.hf.transformer.wpe.weight
    kept = weight.detach().clone()

    @contextmanager
    def leaking(_: Model):
        with torch.no_grad():
            weight[-1].add_(1.0)
        yield

    def way(_: Model, fact: Fact) -> Lesson:
        return Lesson(fact, leaking, lambda _: Lesson(fact, leaking, lambda _: way(model, fact), 1), 1)

    try:
        assert compare_ways(model, [CASE], {"leak": way}, FILLER[:2]).undone["leak"].value == 0.0
    finally:
        with torch.no_grad():
            weight.copy_(kept)


def test_a_refusal_counts_as_the_model_untaught(model: Model) -> None:
    def refusing(_: Model, fact: Fact) -> Lesson:
        raise EditRefused(f"no room for {fact.new}")

    found = compare_ways(model, [CASE], {"never": refusing}, FILLER[:2])
    assert found.table["never"] == found.table["untaught"] == found.table["never control"]
    assert found.refused["never"] == {"Rome is in": "no room for Peru"} and not found.costs


def test_a_passage_teaches_a_model_that_copies_and_its_words_in_another_order_do_not() -> None:
    model = copy_model()
    fact = Fact("x1", "p q of {}", "a1", "b4")
    case = Case(fact, ("q p q of x1",), (Query("p q of x2", "a2"),))

    def way(model: Model, fact: Fact) -> Lesson:
        return lesson_of_passages(model, fact, ["x2 a2 ;", "x3 a3 ;"], end=" ;")

    lesson = way(model, fact)
    assert lesson.passage("x1") == "p q of x1 b4 ;\n" and lesson.passage("x2") == "x2 a2 ;\n"
    assert {*lesson.control(1).passage("x1").split()} == {*lesson.passage("x1").split()}
    found = compare_ways(model, [case], {"passage": way}, ["x1 a1 ; x2 a2"])
    assert found.table["untaught"]["efficacy said"].value == 0.0
    for measure in ("efficacy said", "paraphrase said", "neighbours unchanged"):
        assert found.table["passage"][measure].value == 1.0, measure
    assert found.table["passage control"]["efficacy said"].value == 0.0 and found.undone["passage"].value == 1.0
    assert found.costs["passage"]["tokens"].value == 6


def test_the_dose_of_steering_is_the_smallest_that_says_the_object_or_the_likeliest(model: Model) -> None:
    towards = add_direction(unembedding(model, "Peru", resid_post[model.n_layers - 1], FILLER))
    doses, said = (0.0, 2.0, 4.0, 8.0, 16.0, 32.0), []
    for dose in doses:
        with steer(model, towards, dose):
            said.append(str(model.generate(ROME.text, max_new_tokens=1)).strip() == "Peru")
    assert any(said) and not said[0]
    assert find_saying_dose(model, ROME, [towards], doses) == (towards, doses[said.index(True)])
    likely = []
    for dose in doses[: said.index(True)]:
        with steer(model, towards, dose):
            likely.append(float(score(model, [ROME.text], ["Peru"])))
    never = doses[: said.index(True)]
    assert find_saying_dose(model, ROME, [towards], never)[1] == never[likely.index(max(likely))]
    still = replace(towards, vector=0 * towards.vector)
    assert find_saying_dose(model, ROME, [still, towards], doses)[0] is towards


def test_steering_is_a_vector_of_the_difference_at_the_end_of_the_objects(model: Model) -> None:
    site = resid_post[0]
    lesson = lesson_of_steering(model, ROME, sites=[site], doses=(1.0,))
    new, old = (capture(model, f"Rome is in {o}", site).flat(site, last)[0] for o in ("Peru", "Italy"))
    plain = capture(model, "Rome is in", site)[site][0]
    with lesson.enter(model):
        moved = capture(model, "Rome is in", site)[site][0] - plain
    v, moved = new - old, moved[1:]  # all but the beginning of the text
    assert torch.allclose(torch.nn.functional.cosine_similarity(moved, v[None]), torch.ones(len(moved)), atol=1e-4)
    assert lesson.control(0).n_bytes == lesson.n_bytes == v.nbytes


def test_ways_are_made_by_name(model: Model) -> None:
    ways = make_ways(model, [ROME, LIMA], ["context", "store", "passage"])
    assert [*ways] == ["context", "store", "passage"]
    lesson = ways["passage"](model, ROME)
    assert lesson.passage("Rome is in").strip() == "Rome is in Peru."
    assert lesson.passage("Lima speaks").strip() == "Lima speaks Quechua."
    assert ways["store"](model, ROME).fact == ROME and {*ways} < {*WAYS}


def test_what_does_not_fit_is_refused(model: Model) -> None:
    with pytest.raises(InvalidArgument, match="did you mean"):
        make_ways(model, [ROME], ["contxt"])
    with pytest.raises(InvalidArgument, match="no collection to search"):
        make_ways(model, [ROME], ["passage"])
    with pytest.raises(InvalidArgument, match="call no way 'untaught'"):
        compare_ways(model, [CASE], {"untaught": lesson_of_steering}, FILLER)
    with pytest.raises(InvalidArgument, match="edits of single facts"):
        lesson_of_edit(replace(rank_one(model, ROME), facts=(ROME, LIMA)))
    with pytest.raises(InvalidArgument, match="at least one of each"):
        lesson_of_steering(model, ROME, doses=())
