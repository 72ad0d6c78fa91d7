"""ROME on a tiny model: the new object is generated, the layer's output changes by exactly δ, and all undoes."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from hooks import Model, capture
from hooks.errors import InvalidArgument
from hooks.site import mlp_act, mlp_out
from interp.common.completion import score, tokens_after
from interp.common.texts import begins_with
from interp.memory import Case, Covariance, Edit, Fact, Query, Search, audit, covariance, prefixes, rome, scorecard
from interp.memory.editing.change import LowRank, balance_weights, solve_least_change
from interp.memory.editing.checks import measure_and_check
from interp.memory.editing.keys import capture_keys_and_values, check_output
from interp.memory.editing.value_search import SearchState, find_edit_end, search_value, tokenise_statements
from interp.memory.evaluation.control import make_control
from interp.memory.facts.fact import extract_answer, last_token_before, last_token_of

pytestmark = pytest.mark.usefixtures("unchecked")

FACT = Fact("Rome", "so {} is", "b", "a")
CONTEXTS = ("", "one. ", "and two. ")
HOW = {"token": "last subject", "contexts": CONTEXTS, "preserve": ("so {} was",)}
TEXTS = [f"some words {i} to read here" for i in range(40)]
SEARCH = Search(steps=200, learning_rate=0.3, clamp=20.0, kl=0.0, decay=0.0)
OBJECTS = {"Rome": "b", "Oslo": "b", "Lima": "a", "Bern": "a"}


def taught(model: Model) -> Model:
    """Two hundred steps on four sentences in each context, so that the model has facts to edit."""
    message = [f"so {subject} is {said}" for subject, said in OBJECTS.items()]
    tokens = model.tokens([context + text for context in CONTEXTS for text in message])
    adam = torch.optim.Adam(model.hf.parameters(), lr=3e-3)
    with torch.enable_grad():
        for _ in range(200):
            loss = torch.nn.functional.cross_entropy(
                model.run(tokens)[:, :-1].flatten(0, 1), tokens.ids[:, 1:].flatten()
            )
            adam.zero_grad()
            loss.backward()
            adam.step()
    return model.hf.zero_grad() or model


@pytest.fixture(scope="module")
def edited(fresh: Callable) -> tuple[Model, Edit, Covariance]:
    model = taught(fresh("gpt2"))
    c = covariance(model, TEXTS, 1, batch_size=8)
    return model, rome(model, FACT, layer=1, covariance=c, **HOW, search=SEARCH), c


def test_the_new_object_is_generated_with_the_edit_and_not_without(edited: tuple) -> None:
    model, edit, _ = edited
    assert begins_with(model.generate(FACT.text, max_new_tokens=2), "b")
    before = score(model, [FACT.text], ["a"])
    with edit.applied(model):
        assert begins_with(model.generate(FACT.text, max_new_tokens=2), "a")
        assert score(model, [FACT.text], ["a"]).exp() > 0.5 > before.exp()


def test_the_mean_output_at_the_subject_changes_by_delta_exactly(edited: tuple) -> None:
    model, edit, c = edited
    templates = [*(context + FACT.prompt for context in CONTEXTS), *HOW["preserve"]]
    prompts, at = [template.format("Rome") for template in templates], last_token_of("Rome", templates)

    keys = capture(model, prompts, [mlp_act[1]]).flat(mlp_act[1], at)
    w = balance_weights(keys, c.solve(keys))

    def mean_output() -> torch.Tensor:
        return w @ capture(model, prompts, [mlp_out[1]]).flat(mlp_out[1], at).double()

    before = mean_output()
    with edit.applied(model):
        after = mean_output()
    assert torch.allclose(after - before, edit.updates[0].value[0], atol=1e-4)
    assert torch.linalg.matrix_rank(edit.updates[0].delta) == 1


def test_the_scorecard_sees_nothing_before_and_everything_that_moved_after(edited: tuple) -> None:
    model, edit, _ = edited
    before = model.w_out(1).detach().clone()
    card = scorecard(
        model,
        edit,
        paraphrases=["so {} is"],
        neighbours=[Query("so Oslo is", "b")],
        others=[Query("now Rome has", "b")],
        texts=TEXTS[:4],
    )
    assert card.before.neighbours_unchanged.value == card.before.others_unchanged.value == 1.0
    assert card.before.kl == 0.0 and card.before.perplexity_ratio == 1.0
    assert card.before.efficacy_exact.value == 0.0
    assert card.after.efficacy_preferred.value == card.after.paraphrase_preferred.value == 1.0
    assert card.after.kl > 0.0
    assert torch.equal(model.w_out(1), before)
    table = card.to_pandas().set_index(["state", "measure"])
    assert len(table) == 3 * 11 and table.loc[("after", "kl"), "value"] == card.after.kl
    assert table.loc[("control", "others_unchanged"), "n"] == 1
    assert repr(card).startswith("Scorecard(efficacy_exact 1.00 (control ")


def test_the_control_edit_has_the_same_key_and_norm_and_another_value(edited: tuple) -> None:
    _, edit, _ = edited
    (update,), (spoilt,) = edit.updates, make_control(edit).updates
    assert torch.equal(update.key, spoilt.key)
    assert torch.isclose(update.value.norm(), spoilt.value.norm())
    assert torch.nn.functional.cosine_similarity(update.value, spoilt.value).abs() < 0.7


def test_a_target_out_of_reach_is_an_error_that_says_what_was_reached(edited: tuple) -> None:
    model, _, c = edited
    with pytest.raises(RuntimeError, match=r"reached 'a' with probability 0\.\d+ only, after 1 steps at layer 1"):
        rome(model, FACT, layer=1, covariance=c, **HOW, search=Search(steps=1, learning_rate=1e-4))


def test_the_covariance_of_another_layer_is_refused(edited: tuple) -> None:
    model, _, c = edited
    with pytest.raises(ValueError, match=r"the covariances are of layers .1., .* call covariances\(model, data, .0.\)"):
        rome(model, FACT, layer=0, covariance=c, contexts=CONTEXTS)


def test_an_empty_list_is_refused_by_the_scorecard(edited: tuple) -> None:
    model, edit, _ = edited
    with pytest.raises(ValueError, match="neighbours is empty"):
        scorecard(model, edit, paraphrases=["so {} is"], neighbours=[], others=[Query("a", "b")], texts=TEXTS)


def test_one_text_is_no_list_of_texts_to_a_scorecard(edited: tuple) -> None:
    model, edit, _ = edited
    asked = {"neighbours": [Query("so Oslo is", "b")], "others": [Query("now Rome has", "b")]}
    with pytest.raises(InvalidArgument, match="give a list of at least one text"):
        scorecard(model, edit, paraphrases=["so {} is"], **asked, texts=TEXTS[0])
    with pytest.raises(InvalidArgument, match="give a list of at least one paraphrase"):
        scorecard(model, edit, paraphrases="so {} is", **asked, texts=TEXTS)


def test_the_scorecard_of_an_edit_is_the_audit_of_its_one_case(edited: tuple) -> None:
    model, edit, _ = edited
    near = (Query("so Oslo is", "b"), Query("so Rome is", "b"))
    card = scorecard(
        model, edit, paraphrases=["so {} is", "now {} is"], neighbours=near, others=[Query("now Rome has", "b")],
        texts=TEXTS[:4],
    )  # fmt: skip
    case = Case(edit.facts[0], ("so Rome is", "now Rome is"), near)
    found = audit(model, [case], {"rome": lambda _model, _fact: edit}, TEXTS[:4], n_generated=4).table
    for column, name in ((card.before, "unedited"), (card.after, "rome"), (card.control, "rome control")):
        row = {measure: e.value for measure, e in found[name].items()}
        assert column.efficacy_exact.value == row["efficacy said"]
        assert column.efficacy_preferred.value == row["efficacy"]
        assert column.paraphrase_exact.value == row["paraphrase said"]
        assert column.paraphrase_preferred.value == row["paraphrase"]
        assert column.neighbours_preferred.value == row["neighbours true over new"]
        assert column.kl == row["drift"] and column.perplexity_ratio == row["perplexity"]


def test_contexts_are_in_the_models_own_words_and_the_first_is_empty(gpt2: Model) -> None:
    found = prefixes(gpt2, n=3)
    assert found[0] == "" and len(found) == 3
    assert found == prefixes(gpt2, n=3)


def test_the_last_subject_token_is_found_with_padding_contexts_and_the_subject_written_again(
    gpt2: Model, padded_left: Callable
) -> None:
    for model in (gpt2, padded_left(gpt2)):
        tokens = model.tokens(["York is in New York", "Yorkers, so York is"])
        mask = last_token_of("York", ["{} is in", "Yorkers, so {} is"]).mask(tokens)
        assert mask.sum(1).tolist() == [1, 1]
        assert tokens.offsets[mask][:, 1].tolist() == [len("York"), len("Yorkers, so York")]


def test_a_prompt_can_be_edited_at_its_own_last_token(edited: tuple) -> None:
    model, _, c = edited
    search = replace(SEARCH, learning_rate=0.1, steps=600)
    edit = rome(model, FACT, covariance=c, token="last prompt", contexts=[""], search=search)
    at = last_token_before([find_edit_end("last prompt", FACT)])
    before = capture(model, FACT.text, [mlp_act[1]]).flat(mlp_act[1], at)
    assert torch.allclose(before @ edit.updates[0].key[0].float(), torch.ones(1), atol=1e-4)
    with edit.applied(model):
        assert begins_with(model.generate(FACT.text, max_new_tokens=2), "a")


def test_preserving_a_continuation_keeps_it_closer_to_what_it_was(edited: tuple) -> None:
    model, _, _ = edited
    said = tokenise_statements(model, [FACT], CONTEXTS, ["so {} is not", "when {} was"])
    _, (v,) = capture_keys_and_values(model, [FACT], CONTEXTS, 1, "last subject")
    free, held = (
        search_value(model, said, {mlp_out[1]: v}, Search(30, 0.2, kl=kl, decay=0.0, clamp=20.0, stop=0.0))
        for kl in (0.0, 3.0)
    )
    assert held.kl < 0.5 * free.kl


@pytest.mark.parametrize("ever", [True, False])
def test_a_search_that_runs_out_of_steps_gives_the_best_of_those_that_say_it_or_the_last(
    edited: tuple, ever: bool
) -> None:
    model, _, _ = edited
    said = tokenise_statements(model, [FACT], CONTEXTS, ["so {} is not", "when {} was"])
    _, (v,) = capture_keys_and_values(model, [FACT], CONTEXTS, 1, "last subject")
    seen: list[tuple[bool, float, float]] = []

    def watched(state: SearchState, search: Search) -> tuple[torch.Tensor, bool]:
        loss = state.nll + search.kl * state.kl + 10.0 * (len(seen) > 70)
        seen.append((state.said, float(loss.detach()), float(state.kl.detach())))
        return loss, False

    search = Search(80 if ever else 1, 0.6, kl=1.0, clamp=20.0, stop=0.0)
    found = search_value(model, said, {mlp_out[1]: v}, search, watched)
    stating = [step for step, (says, _, _) in enumerate(seen) if says]
    best = min(stating, key=lambda step: seen[step][1]) if stating else len(seen) - 1
    assert bool(stating) == ever and (not ever or best < len(seen) - 1)
    assert found.steps == best and found.kl == seen[best][2]


def test_the_probability_of_a_search_is_the_mean_over_contexts_of_that_of_the_object(edited: tuple) -> None:
    model, _, _ = edited
    _, (v,) = capture_keys_and_values(model, [FACT], CONTEXTS, 1, "last subject")
    said = tokenise_statements(model, [FACT], CONTEXTS, ["{} is a"])
    found = search_value(model, said, {mlp_out[1]: v}, Search(steps=1), lambda state, _: (state.nll, True))
    log_p = score(model, [context + FACT.text for context in CONTEXTS], [FACT.new] * len(CONTEXTS))
    assert found.steps == 0 and found.kl == pytest.approx(0, abs=1e-6)
    assert found.probability == pytest.approx(float(log_p.exp().mean()), rel=1e-3)


def test_the_search_leaves_no_gradient_and_every_weight_as_trainable_as_it_was(edited: tuple) -> None:
    model, _, _ = edited
    model.hf.transformer.wpe.weight.requires_grad_(False)
    try:
        _, (v,) = capture_keys_and_values(model, [FACT], CONTEXTS, 1, "last subject")
        search_value(model, tokenise_statements(model, [FACT], CONTEXTS, ["{} is a"]), {mlp_out[1]: v}, Search(steps=1))
        frozen = [name for name, p in model.hf.named_parameters() if not p.requires_grad]
        assert frozen == ["transformer.wpe.weight"]
    finally:
        model.hf.transformer.wpe.weight.requires_grad_(True)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt_neox", "gemma2"])
def test_other_families_are_edited_at_what_their_output_projection_writes(family: str, fresh: Callable) -> None:
    model = fresh(family)
    k, v = capture_keys_and_values(model, [FACT], CONTEXTS, 1, "last subject")
    delta = torch.randn(1, model.d_model).double()
    update = LowRank(1, solve_least_change(k, k), delta)
    edit = Edit((FACT,), "rome", (update,), model.fingerprint)
    with edit.applied(model):
        moved = capture_keys_and_values(model, [FACT], CONTEXTS, 1, "last subject")[1] - v
    assert torch.allclose(moved.double(), delta, atol=1e-4, rtol=1e-4)


def test_editors_of_what_a_layer_adds_refuse_a_family_that_normalises_it(fresh: Callable) -> None:
    with pytest.raises(ValueError, match=r"mlp_out.1 of .* differs by .* from what its output projection gives"):
        gemma = fresh("gemma2")
        check_output(gemma, tokenise_statements(gemma, [FACT], CONTEXTS, ["{} is a"]), 1)


def test_an_unknown_token_to_edit_and_a_template_without_place_are_refused(edited: tuple) -> None:
    model, _, c = edited
    with pytest.raises(ValueError, match="token='subject': choose 'last subject' or 'last prompt'"):
        rome(model, FACT, covariance=c, token="subject", contexts=CONTEXTS)
    with pytest.raises(ValueError, match="template='it is a' has 0 places for the subject: write {} once"):
        rome(model, FACT, covariance=c, token="last subject", contexts=CONTEXTS, preserve=["it is a"])
    with pytest.raises(ValueError, match="0 contexts and 1 preserved templates: give at least one of each"):
        rome(model, FACT, covariance=c, token="last subject", contexts=[], preserve=["{} is a"])


def test_an_edit_that_works_in_the_search_but_not_in_the_weights_is_refused(edited: tuple) -> None:
    model, edit, _ = edited
    nothing = replace(edit, updates=(replace(edit.updates[0], value=edit.updates[0].value * 0),))
    with pytest.raises(
        RuntimeError, match=r"still does not say 'a' after 'so Rome is' \(0 of 1 facts are said\): it has probability 0"
    ):
        measure_and_check(model, nothing)


def test_the_drift_is_the_mean_kl_and_the_ratio_of_perplexities_of_the_texts(edited: tuple) -> None:
    model, edit, _ = edited
    card = scorecard(
        model, edit, paraphrases=["so {} is"], neighbours=[Query("so Oslo is", "b"), Query("so Rome is", "b")],
        others=[Query("so Rome is", "b"), Query("so Lima is", "a")], texts=TEXTS[:3],
    )  # fmt: skip
    kl, nll = [], []
    for text in TEXTS[:3]:
        ids = model.tokens(text).ids
        with torch.no_grad():
            before = model.hf(ids).logits[0, :-1].log_softmax(-1)
            with edit.applied(model):
                after = model.hf(ids).logits[0, :-1].log_softmax(-1)
        kl.append((before.exp() * (before - after)).sum(-1))
        nll.append((before - after).gather(1, ids[0, 1:, None]).flatten())
    assert card.after.kl == pytest.approx(float(torch.cat(kl).mean()), rel=1e-3)
    assert card.after.perplexity_ratio == pytest.approx(float(torch.cat(nll).mean().exp()), rel=1e-4)
    # the edited prompt itself, among its neighbours and others, is the one answer of two that moves
    assert card.after.neighbours_unchanged.value <= 0.5 and card.after.others_unchanged.value <= 0.5
    assert card.after.neighbours_unchanged.n == 2


def test_the_log_probability_of_an_answer_is_the_mean_over_its_tokens_given_the_true_ones(gpt2: Model) -> None:
    ids = gpt2.tokens("so Rome is in Ulm").ids
    with torch.no_grad():
        each = gpt2.hf(ids).logits[0].log_softmax(-1)[torch.arange(13, 17), ids[0, 14:18]]
    assert torch.allclose(score(gpt2, ["so Rome is in", "so"], ["Ulm", "x"])[0], each.mean(), atol=1e-5)


def test_an_empty_answer_or_a_space_at_the_end_of_a_prompt_is_refused(gpt2: Model) -> None:
    with pytest.raises(ValueError, match="answer '': give a text without spaces around it"):
        score(gpt2, ["Rome is in"], [""])
    with pytest.raises(ValueError, match="prompt 'Rome is in ': give a text without spaces around it"):
        score(gpt2, ["Rome is in "], ["Italy"])


def test_a_token_across_the_end_of_the_prompt_is_refused(gpt2: Model) -> None:
    tokens = replace(gpt2.tokens("ab"), offsets=torch.tensor([[[0, 0], [0, 2], [2, 2]]]))
    with pytest.raises(ValueError, match="one token holds both the end of the prompt and the start of the answer"):
        tokens_after(tokens, [1])


def test_an_answer_is_a_whole_word_and_ends_at_punctuation() -> None:
    assert begins_with(" Paris, of course", "Paris") and not begins_with(" Parisian", "Paris")
    assert extract_answer(" San Francisco. It") == "San Francisco"
