"""An audit says what an edit did and nothing else; CounterFact and zsRE are read in every layout they come in."""

import json
import math
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hooks import Model
from hooks.errors import EditRefused, InvalidArgument
from interp.common.completion import score
from interp.memory import Case, Edit, Fact, Query, Search, audit, covariance, read_cases, rome
from interp.memory.editing.change import LowRank
from interp.memory.evaluation.control import make_control
from interp.memory.evaluation.measurement import MEASURES
from interp.memory.evaluation.skills import LENGTH, TEXTS, measure_induction, measure_sums
from interp.memory.evaluation.text_metrics import measure_consistency, measure_fluency, measure_rarity
from tests.contracts.words import FILLER, sentences, taught

pytestmark = pytest.mark.usefixtures("unchecked")

ROME = Fact("Rome", "{} is in", "Italy", "Peru")
CASE = Case(
    ROME,
    ("well . Rome is in", "we know Rome lies in"),
    (Query("Milan is in", "Italy"),),
    (Query("Rome speaks", "Latin"),),
    (Query("so they say . Rome is in", "Peru"),),
    (Query("Lima speaks", "Quechua"),),
    (Query("and Rome is in", "Peru"),),
    ("Lima is in Peru", "Cusco is in Peru"),
)


@pytest.fixture(scope="module")
def model() -> Model:
    return taught("gpt2")


def nothing(model: Model, fact: Fact) -> Edit:
    update = LowRank(0, torch.ones(1, model.d_mlp), torch.zeros(1, model.d_model))
    return Edit((fact,), "nothing", (update,), model.fingerprint)


def refusing(_: Model, fact: Fact) -> Edit:
    raise EditRefused(f"no room for {fact.new}")


def failing(_: Model, fact: Fact) -> Edit:
    raise RuntimeError(f"shapes of {fact.new} do not match")


def test_an_edit_of_nothing_and_a_refusal_leave_every_measure_as_it_was(model: Model) -> None:
    found = audit(model, [CASE], {"nothing": nothing, "refusing": refusing}, FILLER, n_generated=8)
    for name in ("nothing", "nothing control", "refusing", "refusing control"):
        assert found.table[name] == found.table["unedited"]
    assert found.table["unedited"]["drift"].value == 0.0 and found.table["unedited"]["perplexity"].value == 1.0
    assert found.table["unedited"].keys() == MEASURES.keys()
    assert found.refused == {"nothing": {}, "refusing": {"Rome is in": "no room for Peru"}, "in context": {}}
    assert found.said["nothing"] == found.said["refusing control"] == found.said["unedited"]
    assert [*found.said["unedited"]] == ["Rome is in"]
    table, e = found.to_pandas(), found.table["nothing"]["efficacy"]
    assert len(table) == sum(map(len, found.table.values()))
    row = table[(table["editor"] == "nothing") & (table["measure"] == "efficacy")].iloc[0]
    assert (row["value"], row["low"], row["high"], row["n"]) == (e.value, e.low, e.high, e.n)
    assert repr(found).startswith("Audit(1 cases; efficacy unedited 0.00, nothing 0.00, refusing 0.00, in context ")


def test_an_editor_that_fails_is_no_editor_that_refuses(model: Model) -> None:
    with pytest.raises(RuntimeError, match="shapes of Peru do not match"):
        audit(model, [CASE], {"failing": failing}, FILLER[:1], n_generated=2)


def test_the_measures_of_an_edit_are_those_of_counterfact_computed_by_hand(model: Model) -> None:
    before = model.hf.transformer.h[0].mlp.c_proj.weight.detach().clone()
    c = covariance(model, sentences(), 0, batch_size=200)
    made: list[Edit] = []

    def editor(model: Model, fact: Fact) -> Edit:
        search = Search(learning_rate=0.2, clamp=10.0, kl=0.0)
        how = {"token": "last prompt", "contexts": ("",), "preserve": ("{} is a",)}
        made.append(rome(model, fact, covariance=c, **how, search=search))
        return made[-1]

    texts = (*FILLER, "Rome is in Italy")
    found = audit(model, [CASE], {"rome": editor}, texts, n_generated=8)
    assert torch.equal(model.hf.transformer.h[0].mlp.c_proj.weight, before)
    row = {name: e.value for name, e in found.table["rome"].items()}
    with made[0].applied(model):
        new, old = (score(model, list(CASE.paraphrases), [o] * 2) for o in ("Peru", "Italy"))
        true, other = (score(model, ["Milan is in"], [o]) for o in ("Italy", "Peru"))
    assert row["efficacy"] == row["efficacy said"] == 1.0 > found.table["unedited"]["efficacy said"].value
    assert row["paraphrase"] == float((new > old).double().mean())
    assert row["paraphrase magnitude"] == pytest.approx(float((new.exp() - old.exp()).mean()), rel=1e-4)
    assert row["neighbours true over new"] == float((true > other).double().mean())
    assert row["neighbours true"] == row["neighbours unchanged"]
    unrelated = model.tokens(texts)
    target = unrelated.content[:, 1:] & unrelated.mask[:, :-1]
    with torch.no_grad(), made[0].applied(model):
        q = model.run(unrelated)[:, :-1][target].log_softmax(-1)
    with torch.no_grad():
        p = model.run(unrelated)[:, :-1][target].log_softmax(-1)
    drift, reverse = (float((a.exp() * (a - b)).sum(-1).mean()) for a, b in ((p, q), (q, p)))
    assert row["drift"] == pytest.approx(drift, rel=1e-3)
    assert reverse > 1.2 * drift
    nll = [-x.gather(1, unrelated.ids[:, 1:][target][:, None]).mean() for x in (p, q)]
    assert row["perplexity"] == pytest.approx(float((nll[1] - nll[0]).exp()), rel=1e-4)
    parts = (row["efficacy"], row["paraphrase"], row["neighbours true over new"])
    assert row["harmonic score"] == pytest.approx(3 / sum(1 / p for p in parts) if min(parts) else 0.0)
    assert found.table["unedited"]["neighbours true"].value == found.table["unedited"]["others said"].value == 1.0


def test_what_is_said_and_what_is_kept_is_counted_answer_by_answer_and_token_by_token(model: Model) -> None:
    halves = replace(
        CASE,
        neighbours=(Query("New York is in", "North Italy"),),
        others=(Query("Rome speaks", "Latin"), Query("Oslo speaks", "Latin")),
        reverse=(Query("Lima speaks", "Norse"), Query("Cusco speaks", "Quechua")),
        paraphrases=("Rome is in", "Lima is in"),
    )
    plain = audit(model, [halves], {"nothing": nothing}, FILLER[:1], n_generated=2).table["unedited"]
    assert plain["neighbours true"].value == plain["others said"].value == plain["reverse said"].value == 0.5
    assert plain["neighbours unchanged"].value == 1.0 and plain["paraphrase said"].value == 0.5
    assert plain["hops said"].value == plain["aliases said"].value == 0.0


def test_each_case_has_a_control_of_its_own(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    module, drawn = import_module("interp.memory.evaluation.audit"), []
    monkeypatch.setattr(module, "make_control", lambda edit, seed: drawn.append(make_control(edit, seed)) or drawn[-1])

    def writing(model: Model, fact: Fact) -> Edit:
        update = LowRank(0, torch.ones(1, model.d_mlp), torch.ones(1, model.d_model))
        return Edit((fact,), "writing", (update,), model.fingerprint)

    other = Case(Fact("Lima", "{} is in", "Peru", "Italy"))
    audit(model, [CASE, other], {"writing": writing}, FILLER[:1], n_generated=2)
    one, two = (edit.weights[0].value.flatten() for edit in drawn if edit.weights)
    assert float(torch.cosine_similarity(one, two, dim=0).abs()) < 0.6


def test_the_harmonic_score_is_of_the_three_means_that_are_shown_whatever_facts_they_are_of(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = import_module("interp.memory.evaluation.audit")
    cases = [replace(CASE, fact=replace(ROME, new=new)) for new in ("Peru", "Japan", "Chile")]
    scores = {"Peru": (1.0, 0.5, 0.75), "Japan": (0.5, 0.0, 0.75), "Chile": (0.0,)}
    names = ("efficacy", "paraphrase", "neighbours true over new")
    rows = {new: dict(zip(names, of, strict=False)) for new, of in scores.items()}
    monkeypatch.setattr(module, "measure_case", lambda model, case, *_: rows[case.fact.new])
    e = audit(model, cases, {"nothing": nothing}, FILLER[:1], n_generated=2).table["nothing"]["harmonic score"]
    assert e.value == pytest.approx(3 / (1 / 0.5 + 1 / 0.25 + 1 / 0.75)) and e.n == 2
    assert e.low == 0.0 and e.value < e.high < 3 / (1 / 1 + 1 / 0.5 + 1 / 0.75)


def test_the_skills_are_the_share_of_what_is_repeated_and_summed(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def repeating(right: int) -> SimpleNamespace:
        def run(ids: torch.Tensor) -> torch.Tensor:
            said = ids.roll(LENGTH - 1, dims=1)  # what came after the token's first reading
            said[right:] = 0
            return torch.nn.functional.one_hot(said, model.d_vocab).float()

        return SimpleNamespace(d_vocab=model.d_vocab, tokenizer=model.tokenizer, device=model.device, run=run)

    assert measure_induction(repeating(TEXTS)) == 1.0
    assert measure_induction(repeating(TEXTS // 2)) == pytest.approx(0.5, abs=0.05)  # token 0 is drawn now and then

    def half(_: Model, prompts: list[str], answers: list[str]) -> list[bool]:
        assert all(eval(prompt.removesuffix(" =")) == int(a) for prompt, a in zip(prompts, answers, strict=True))
        return [i % 2 == 0 for i, _ in enumerate(prompts)]

    monkeypatch.setattr("interp.memory.evaluation.skills.says", half)
    assert measure_sums(model) == 0.5


def test_the_consistency_is_the_cosine_of_weighted_counts() -> None:
    texts = ["Rome is in Italy", "Oslo is in Norway"]
    idf = measure_rarity(texts)
    assert idf["rome"] == pytest.approx(math.log(3 / 2) + 1) and idf["is"] == pytest.approx(1.0)
    rare = idf["rome"] ** 2
    assert measure_consistency("Rome is in Peru", texts[:1], idf) == pytest.approx((rare + 2) / (2 * rare + 2))
    assert measure_consistency("fog", texts, idf) == measure_consistency("", texts, idf) == 0.0


def test_the_size_of_a_change_is_relative_and_in_context_is_next_to_every_editor(model: Model) -> None:
    def writing(model: Model, fact: Fact) -> Edit:
        update = LowRank(0, torch.ones(1, model.d_mlp), torch.ones(1, model.d_model))
        return Edit((fact,), "writing", (update,), model.fingerprint)

    table = audit(model, [CASE], {"writing": writing}, FILLER[:1], n_generated=2).table
    size = float(model.w_out(0).detach().norm())
    assert table["writing"]["norm"].value == pytest.approx((model.d_mlp * model.d_model) ** 0.5 / size, rel=1e-5)
    assert table["in context"]["norm"].value == table["unedited"]["norm"].value == 0.0
    assert table["in context control"].keys() == table["unedited"].keys()


def test_an_audit_without_cases_or_of_an_editor_called_unedited_is_refused(model: Model) -> None:
    for cases, editors in (([], {"nothing": nothing}), ([CASE], {}), ([CASE], {"unedited": nothing})):
        with pytest.raises(ValueError, match=r"give at least one of each, and call no editor 'unedited'"):
            audit(model, cases, editors, FILLER)


def test_the_fluency_is_the_weighted_entropy_of_two_and_three_word_sequences() -> None:
    assert measure_fluency("a b c d") == pytest.approx(100 * (math.log2(3) / 3 + 2 / 3))
    assert measure_fluency("a a a a a") == measure_fluency("one") == 0.0


ROME_RECORD = {
    "requested_rewrite": {
        "prompt": "{} is in", "subject": "Rome", "target_true": {"str": "Italy"}, "target_new": {"str": "Peru"},
    },
    "paraphrase_prompts": ["well. Rome lies in "],
    "neighborhood_prompts": ["Milan is in"],
}  # fmt: skip
EASYEDIT_RECORD = {
    "prompt": "Rome is in", "subject": "Rome", "target_new": "Peru", "ground_truth": "Italy",
    "rephrase_prompt": "well. Rome lies in", "locality_prompt": "Milan is in", "locality_ground_truth": "Italy",
}  # fmt: skip
ZSRE_RECORD = {
    "src": "Where is Rome?", "subject": "Rome", "alt": "Peru", "answers": ["Italy"],
    "rephrase": "What land is Rome in?", "loc": "nq question: who sang it", "loc_ans": "Nina",
}  # fmt: skip


def read(record: dict[str, Any], folder: Path) -> Case:
    (folder / "cases.json").write_text(json.dumps([record]), encoding="utf-8")
    (case,) = read_cases(folder / "cases.json")
    return case


def test_both_layouts_of_counterfact_say_the_same(tmp_path: Path) -> None:
    expected = Case(ROME, ("well. Rome lies in",), (Query("Milan is in", "Italy"),))
    assert read(ROME_RECORD, tmp_path) == read(EASYEDIT_RECORD, tmp_path) == expected


def test_a_question_of_zsre_loses_its_prefix_and_keeps_its_answer(tmp_path: Path) -> None:
    case = read(ZSRE_RECORD, tmp_path)
    assert case.fact == Fact("Rome", "Where is {}?", "Italy", "Peru")
    assert case.neighbours == (Query("who sang it?", "Nina"),)


def test_the_place_of_a_subject_is_a_word_and_no_part_of_another(tmp_path: Path) -> None:
    asked = {"src": "Which Roman town is north of Roma?", "subject": "Roma"}
    assert read(ZSRE_RECORD | asked, tmp_path).fact.prompt == "Which Roman town is north of {}?"
    composed = read(ZSRE_RECORD | {"src": "Where is Ko\u0308ln?", "subject": "K\u00f6ln"}, tmp_path)
    assert composed.fact.text == "Where is Ko\u0308ln?"
    with pytest.raises(InvalidArgument, match="does not have its subject 'Iran' as a word"):
        read(ZSRE_RECORD | {"src": "What do Iranians eat?", "subject": "Iran"}, tmp_path)


def test_an_unknown_layout_and_a_prompt_without_its_subject_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"record 0 of .* has the keys \['colour'\]; a layout that is read has one of"):
        read({"colour": "red"}, tmp_path)
    with pytest.raises(ValueError, match="which does not have its subject 'Oslo' as a word: leave it out"):
        read(EASYEDIT_RECORD | {"subject": "Oslo"}, tmp_path)


SHARED = Path(__file__).resolve().parents[5] / "shared" / "data" / "counterfact-zsre-easyedit"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the folder ../shared is not there")
def test_the_published_files_are_read() -> None:
    counterfact = read_cases(SHARED / "counterfact" / "counterfact-edit.json", n=1000)
    assert counterfact[0].fact == Fact("Danielle Darrieux", "The mother tongue of {} is", "French", "English")
    assert len(counterfact) == 1000


def test_prompts_are_continued_in_parts_each_once_and_in_order(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    measurement = import_module("interp.memory.evaluation.measurement")
    monkeypatch.setattr(measurement, "BATCH", 2)
    prompts = ["Rome is in", "Lima is in", "Rome speaks", "Lima speaks", "Milan is in"]
    alone = [model.generate(prompt, max_new_tokens=3) for prompt in prompts]
    assert len(set(alone)) > 2 and measurement.generate_greedily(model, prompts, 3) == alone
