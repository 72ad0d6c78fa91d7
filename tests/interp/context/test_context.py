"""Each measure of the context on nets whose use of it is known, and on nets that do not use it."""

from collections import Counter
from dataclasses import replace
from random import Random

import pytest
import torch

from hooks import Model
from hooks.errors import InvalidArgument
from hooks.position import last
from hooks.site import resid_post, resid_pre
from interp.common.at_once import means_at_once, shares_apart
from interp.common.statistics import mean_with_interval, share
from interp.context import (
    CHANGES,
    Bridges,
    Conflict,
    PairTask,
    StepCase,
    attribute_conflict,
    back_patch,
    derange,
    find_function_vector,
    find_task_vector,
    measure_conflict,
    measure_context_score,
    measure_demonstrations,
    measure_head_effects,
    measure_steps,
    measure_transfer,
    patchscope,
    scale_heads,
    swap_bridges,
)
from interp.context.task import deal_pairs, demonstrate
from tests.interp.context.nets import LABELS, TASKS, X, copy_model, hop_model, previous_model, relation_model

FOREIGN = ["p", "q", "of", "is", *LABELS["b"]]


def test_a_derangement_leaves_no_label_right_where_a_shuffle_leaves_one_right_on_average() -> None:
    labels = ["a", "a", "b", "c", "d", "e", "f", "g"]
    rng = Random(0)
    right = [sum(x == y for x, y in zip(derange(labels, labels, rng), labels, strict=True)) for _ in range(300)]
    assert set(right) == {0}
    distinct = [str(i) for i in range(10)]
    shuffled = Counter(
        sum(x == y for x, y in zip(rng.sample(distinct, 10), distinct, strict=True)) for _ in range(4000)
    )
    assert abs(sum(k * v for k, v in shuffled.items()) / 4000 - 1) < 0.06 and abs(shuffled[0] / 4000 - 0.37) < 0.03
    assert all(x != "a" for x in derange(["a", "a", "a"], ["a", "b"], rng))
    with pytest.raises(InvalidArgument, match="all labels are 'a'"):
        derange(["a", "a"], ["a"], rng)


@pytest.mark.parametrize("change", CHANGES)
def test_a_prompt_shows_never_the_pair_it_asks_about_and_one_thing_is_changed(change: str) -> None:
    task = TASKS["a"]
    plain, _ = demonstrate(task, task.pairs[0], 4, "none", Random(1), FOREIGN)
    prompt, follows = demonstrate(task, task.pairs[0], 4, change, Random(1), FOREIGN)  # type: ignore[arg-type]
    assert prompt.endswith("x0 :") and "x0 : a0" not in prompt
    assert (prompt == plain) == (change == "none")
    assert (follows == "a0") == (change not in ("flipped labels", "other words as labels"))
    pairs = [one.split(" : ") for one in prompt.split(" ; ")[:-1]]
    if change == "no label right":
        assert all(dict(task.pairs)[x] != y for x, y in pairs)
    if change == "other order":
        assert sorted(prompt.split(" ; ")[:-1]) == sorted(plain.split(" ; ")[:-1])


def test_a_net_that_needs_right_pairs_pays_for_wrong_labels_and_not_for_their_order() -> None:
    found = measure_demonstrations(relation_model(), TASKS["a"], shots=4, n=24, words=FOREIGN)
    assert found.accuracy["none"].value == 1.0 == found.accuracy["other order"].value
    for change in ("no label right", "other words as labels", "other words as inputs", "inputs alone", "labels alone",
                   "no demonstrations"):  # fmt: skip
        assert found.cost[change].value == 1.0, change  # type: ignore[index]
    assert found.cost["other order"].high == 0.0
    assert "no label right" in str(found) and len(found.to_pandas()) == len(CHANGES)


def test_a_net_that_ignores_demonstrations_pays_nothing_in_every_cell() -> None:
    found = measure_demonstrations(relation_model(ignores=True), TASKS["a"], shots=4, n=24, words=FOREIGN)
    assert all(e.value == e.low == e.high == 0.0 for e in found.cost.values())


def test_the_head_that_brings_the_relation_is_found_and_its_vector_does_without_demonstrations() -> None:
    model, (first, second) = relation_model(), TASKS["a"].halves()
    effects = measure_head_effects(model, TASKS["a"], shots=4, n=12, trials=8)
    assert effects.top(1)[0][:2] == (1, 0) and effects.values[1, 0] > 0.5
    assert effects.control.abs().max() < 0.05, "the mean of prompts whose labels are wrong brings nothing"
    vector = find_function_vector(model, TASKS["a"], [(1, 0)], layer=1, shots=4, n=12)
    other = find_function_vector(model, TASKS["b"], [(1, 0)], layer=1, shots=4, n=12)
    state = find_task_vector(model, TASKS["a"], layer=1, shots=4, n=12)
    found = measure_transfer(model, TASKS["a"], vector, [(1, 0)], others=[other], task_vector=state, shots=4, n=24).by
    assert found["function vector"].value == 1.0 == found["right demonstrations"].value
    for control in ("no demonstrations", "vector of random heads", "random vector of its length", other.source):
        assert found[control].value < 0.3, control
    assert first.pairs != second.pairs and not {*first.pairs} & {*second.pairs}


def test_a_function_vector_has_no_part_of_the_output_bias() -> None:
    model = relation_model()
    plain = find_function_vector(model, TASKS["a"], [(1, 0)], layer=1, shots=4, n=6).vector
    with torch.no_grad():
        model.hf.transformer.h[1].attn.c_proj.bias += 3.0
    assert torch.allclose(find_function_vector(model, TASKS["a"], [(1, 0)], layer=1, shots=4, n=6).vector, plain)


def _conflict() -> Conflict:
    said = [(x, LABELS["b"][i], LABELS["a"][i]) for i, x in enumerate(X)]
    return Conflict(tuple(f"{x} {c} ; {x}" for x, c, _ in said), tuple(s[1] for s in said), tuple(s[2] for s in said))


def test_context_wins_by_the_head_that_copies_and_memory_wins_once_it_is_scaled_to_nothing() -> None:
    model, conflict = copy_model(), _conflict()
    assert measure_conflict(model, conflict).context.value == 1.0
    found = attribute_conflict(model, conflict)
    assert found.top(1)[0][:2] == (1, 0) and found.values[1, 0] == pytest.approx(10.0, rel=1e-3)
    scaled = scale_heads(model, conflict, [(1, 0)], (0.0, 1.0))
    assert scaled["heads"][0.0].memory.value == 1.0 and scaled["heads"][1.0].context.value == 1.0


def test_a_first_token_that_every_answer_has_says_nothing_of_the_answer(gpt2: Model) -> None:
    task = PairTask("letters", (("a", "k"), ("b", "l"), ("c", "m")))
    assert gpt2.tokens("a : k").ids.shape[1] == 6, "a space is a token of its own"
    with pytest.raises(InvalidArgument, match="the first token of '.' is ' ', white space alone"):
        measure_head_effects(gpt2, task, shots=1, n=2, trials=2)
    with pytest.raises(InvalidArgument, match="white space alone"):
        attribute_conflict(gpt2, Conflict(("a :", "b :"), ("k", "l"), ("m", "n")))
    prompts, bridges = ["a is", "b is", "c is"], ["k", "l", "m"]
    with pytest.raises(InvalidArgument, match="white space alone"):
        swap_bridges(gpt2, prompts, ["a", "b", "c"], bridges, ["p", "q", "r"])


def test_a_prompt_that_says_what_the_weights_say_is_no_conflict() -> None:
    with pytest.raises(InvalidArgument, match="that is no conflict"):
        Conflict(("x0 a0 ; x0",), ("a0",), ("a0",))


def _cases() -> list[StepCase]:
    return [
        StepCase(f"x{i} is", (f"x{i} is", f"x{i} x{(i + 1) % 6} is", f"x{i} x{(i + 1) % 6} x{(i + 2) % 6} is"),
                 f"x{i} : : is", f"x{i} x{(i + 1) % 6} x{(i + 3) % 6} is", f"a{(i + 2) % 6}", f"a{(i + 3) % 6}")
        for i in range(6)
    ]  # fmt: skip


def test_the_area_over_the_curve_is_that_of_a_net_that_needs_the_last_step_and_0_of_one_that_needs_none() -> None:
    needs, ignores = (measure_steps(previous_model(constant=c), _cases()) for c in (False, True))
    assert needs.aoc.value == pytest.approx(1 - 1 / 4) and ignores.aoc.value == 0.0
    assert needs.right["steps written"].value == 1.0 == needs.follows.value
    assert needs.right["filler"].value == 0.0 == needs.right["direct"].value
    assert ignores.follows.value < 0.5


def test_a_net_that_reads_the_last_step_keeps_its_answer_when_the_others_are_reworded_and_only_then() -> None:
    kept, lost = [], []
    for i, case in enumerate(_cases()):
        last = case.partial[-1].split()[-2]
        kept.append(replace(case, reworded=f"x{i} : x{(i + 4) % 6} {last} is"))
        lost.append(replace(case, reworded=f"x{i} {last} x{(i + 4) % 6} is"))
    found = measure_steps(previous_model(constant=False), kept)
    assert found.same_reworded is not None and found.same_reworded.value == 1.0 == found.right["reworded"].value
    other = measure_steps(previous_model(constant=False), lost)
    assert other.same_reworded is not None and other.same_reworded.value == 0.0 == other.right["reworded"].value
    assert "stays after rewording" in str(found)
    plain = measure_steps(previous_model(constant=False), _cases())
    assert plain.same_reworded is None and "reworded" not in plain.right
    with pytest.raises(InvalidArgument, match="to all or to none"):
        measure_steps(previous_model(constant=False), [kept[0], _cases()[1]])


def test_an_answer_is_compared_as_far_as_its_own_case_asks_whatever_the_other_cases_ask() -> None:
    """The net goes on with what came after the same word before: after the answer, each prompt with something else."""
    ways = [("x{0} b{0} ; x{0}", "x{0} b{0} p ; x{0}", "x{0} b{0} q ; x{0}")] * 6
    texts = [[way.format(i) for way in each] for i, each in enumerate(ways)]
    cases = [StepCase(*(a, (a, b), a, a, f"b{i}", "p", c)) for i, (a, b, c) in enumerate(texts)]
    long = StepCase("x0 b1 ; x0", ("x0 b1 ; x0",) * 2, "x0", "x1", "b1 ; x0", "p", "x0 b1 ; x0")
    for given in (cases, [*cases, long]):
        found = measure_steps(copy_model(), given)
        assert found.same[0.0].value == 1.0 and found.aoc.value == 0.0
        assert found.same_reworded is not None and found.same_reworded.value == 1.0
    lengthy = [replace(case, answer=f"b{i} p") for i, case in enumerate(cases)]
    assert measure_steps(copy_model(), lengthy).same[0.0].value == 0.0, "two tokens of each are not the same"


def test_prompts_of_one_pair_are_one_case_and_bare_prompts_are_asked_once_each() -> None:
    model, task = relation_model(ignores=True), TASKS["a"]
    vector = find_function_vector(model, task, [(1, 0)], layer=1, shots=4, n=6)
    found = measure_transfer(model, task, vector, [(1, 0)], shots=4, n=60).by
    assert {name: one.n for name, one in found.items()} == dict.fromkeys(found, 6)
    assert found["no demonstrations"] == share(torch.ones(6, dtype=torch.bool))
    some = measure_transfer(model, task, vector, [(1, 0)], shots=4, n=4).by
    assert {one.n for one in some.values()} == {4}
    changed = measure_demonstrations(model, task, shots=4, n=60, words=FOREIGN)
    for of in (changed.accuracy, changed.cost, changed.log_p, changed.followed):
        assert {one.n for one in of.values()} == {6}
    assert changed.accuracy["no demonstrations"] == share(torch.ones(6, dtype=torch.bool))


def test_no_pair_is_asked_about_again_before_all_were() -> None:
    dealt = deal_pairs(TASKS["a"], 15, seed=3)
    assert sorted(dealt[:6]) == sorted(dealt[6:12]) == [*range(6)] and dealt[12:] == dealt[:3]
    assert len({tuple(deal_pairs(TASKS["a"], 6, seed)) for seed in range(5)}) > 1


def _hops(kind: str, component: str = "whole"):  # noqa: ANN202
    prompts = [f"of x{i} is" for i in range(6)]
    bridges, answers = ([LABELS[r][i % 3] for i in range(6)] for r in "ab")
    return swap_bridges(hop_model(kind), prompts, list(X), bridges, answers, component=component)  # type: ignore[arg-type]


@pytest.mark.parametrize("component", ["whole", "read"])
def test_swapping_a_bridge_that_is_used_gives_the_partners_answer_always(component: str) -> None:
    found = _hops("used", component)
    assert found.swapped[0].value == 1.0 and found.third[0].value == 0.0 and found.kept.value == 1.0
    assert found.verdict == "read and used"


def test_a_bridge_that_a_lens_reads_and_nothing_uses_is_called_readable_not_used() -> None:
    found = _hops("shortcut", "read")
    assert min(e.value for e in found.read.values()) > 0.5 and min(e.low for e in found.read.values()) > 0
    assert max(e.value for e in found.swapped.values()) == 0.0 and found.verdict == "readable, not used"
    assert _hops("shortcut", "whole").swapped[0].value == 1.0, "the whole state holds the stored answer, too"


def test_a_bridge_is_used_where_the_swap_does_more_than_the_control_on_the_same_prompts() -> None:
    """Ten of 20 with the partner's state, and four with a third's, all of them among the ten: by intervals of each
    alone, 0.30 to 0.70 and 0.08 to 0.42, that could be chance; six prompts of 20 say that it is not."""
    at = torch.arange(20)
    swapped, third = at < 10, at < 4
    read, more = {0: mean_with_interval(torch.zeros(20))}, {0: shares_apart(swapped, third)[0]}
    found = Bridges(read, {0: share(swapped)}, {0: share(third)}, more, share(at < 20))
    assert found.swapped[0].low < found.third[0].high and found.verdict == "used, not readable"
    among_ten = replace(found, more={0: shares_apart(swapped, (at >= 6) & (at < 16))[0]})
    assert among_ten.verdict == "neither"
    more = _hops("used").more[0]
    assert more.value == 1.0 and 0 < more.low < 0.5 and more.n == 6


def test_layers_that_a_lens_reads_by_chance_alone_are_called_readable_once_in_twenty() -> None:
    """A lead of chance, in 12 layers: by intervals of each layer some layer is above 0 in one of five."""
    found, each = [], []
    for seed in range(100):
        leads = torch.randn(20, 12, generator=torch.Generator().manual_seed(seed))
        nothing = dict.fromkeys(range(12), share(torch.zeros(20, dtype=torch.bool)))
        apart = dict(enumerate(shares_apart(torch.zeros(20, 12) > 0, torch.zeros(20, 12) > 0)))
        read = dict(enumerate(means_at_once(leads, seed=seed)))
        found.append(Bridges(read, nothing, nothing, apart, nothing[0]).verdict == "readable, not used")
        each.append(any(means_at_once(column[:, None], seed=seed)[0].low > 0 for column in leads.T))
    assert sum(each) > 0.15 * 100 and sum(found) <= 0.08 * 100


def test_a_bridge_that_comes_too_late_is_rescued_by_patching_it_back_and_not_by_another_prompts_state() -> None:
    prompts = [f"of x{i} is" for i in range(6)] + [f": of x{i} is" for i in range(6)]
    answers = [LABELS["b"][i % 3] for i in range(6)] * 2
    found = back_patch(hop_model("late"), prompts, [*X, *X], answers)
    assert found.failed.value == 1.0 and (found.source, found.target) == (1, 0)
    assert found.rescued.value == 1.0 == found.any_pair.value and found.other.value == 0.0
    assert found.more.value == 1.0 and found.more.low > 0
    with pytest.raises(InvalidArgument, match="1 of the prompts are there more than once"):
        back_patch(hop_model("late"), [*prompts[:3], prompts[0]], [*X[:3], X[0]], [*answers[:3], answers[0]])
    with pytest.raises(InvalidArgument, match="nothing to rescue"):
        back_patch(hop_model("used"), prompts, [*X, *X], answers)


def test_a_repeat_is_predicted_better_than_its_first_time_and_a_shuffle_is_not() -> None:
    ids = torch.stack([torch.randperm(16, generator=torch.Generator().manual_seed(i))[:10] + 6 for i in range(12)])
    ids = torch.cat([torch.zeros(12, 1, dtype=torch.long), ids, ids], 1)
    found = measure_context_score(copy_model(), ids, early=6, late=18)
    assert found.score.high < -3 and found.shuffled.low > found.score.high
    with pytest.raises(InvalidArgument, match="places in order"):
        measure_context_score(copy_model(), ids, early=6, late=60)


def test_a_state_put_into_another_prompt_says_what_it_says_at_home() -> None:
    model = copy_model()
    found = patchscope(model, "x2", resid_pre[1], "p q x4", max_new_tokens=1)
    assert found.said[0][0].strip() == "a2" and found.unpatched[0][0].strip() == "a4" and found.text.strip() == "a2"
    with pytest.raises(InvalidArgument, match="select one each"):
        patchscope(model, "x2", resid_post[0], at=~last)


def test_tasks_of_too_few_pairs_or_the_same_input_twice_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="at least two pairs"):
        PairTask("t", (("a", "b"),))
