"""ROME on a tiny model: the new object is generated, the layer's output changes by exactly δ, and all undoes."""

from collections.abc import Callable

import pytest
import torch

from hooks import Model, capture
from hooks.site import mlp_out
from interp.memory import Covariance, Edit, Fact, Query, Search, covariance, prefixes, rome, scorecard
from interp.memory.completion import score
from interp.memory.fact import answer_in, answered, last_token_of
from interp.memory.scorecard import control

FACT = Fact("Rome", "so {} is", "b", "a")
CONTEXTS = ("", "one. ", "and two. ")
TEXTS = [f"some words {i} to read here" for i in range(40)]
SEARCH = Search(steps=100, learning_rate=0.2, clamp=20.0, kl=0.0, decay=0.0)
OBJECTS = {"Rome": "b", "Oslo": "b", "Lima": "a", "Bern": "a"}


def taught(model: Model) -> Model:
    """Two hundred steps on four sentences, so that the model has facts to edit."""
    tokens = model.tokens([f"so {subject} is {told}" for subject, told in OBJECTS.items()])
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
    return model, rome(model, FACT, layer=1, covariance=c, contexts=CONTEXTS, search=SEARCH), c


def test_the_new_object_is_generated_with_the_edit_and_not_without(edited: tuple) -> None:
    model, edit, _ = edited
    assert answered(model.generate(FACT.text, max_new_tokens=2), "b")
    before = score(model, [FACT.text], ["a"])
    with edit.applied(model):
        assert answered(model.generate(FACT.text, max_new_tokens=2), "a")
        assert score(model, [FACT.text], ["a"]).exp() > 0.5 > before.exp()


def test_the_mean_output_at_the_subject_changes_by_delta_exactly(edited: tuple) -> None:
    model, edit, _ = edited
    at = last_token_of("Rome")
    prompts = [context + FACT.text for context in CONTEXTS]

    def mean_output() -> torch.Tensor:
        return capture(model, prompts, [mlp_out[1]]).flat(mlp_out[1], at).mean(0).double()

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


def test_the_control_edit_has_the_same_key_and_norm_and_another_value(edited: tuple) -> None:
    _, edit, _ = edited
    (update,), (spoilt,) = edit.updates, control(edit).updates
    assert torch.equal(update.key, spoilt.key)
    assert torch.isclose(update.value.norm(), spoilt.value.norm())
    assert torch.nn.functional.cosine_similarity(update.value, spoilt.value).abs() < 0.7


def test_a_target_out_of_reach_is_an_error_that_says_what_was_reached(edited: tuple) -> None:
    model, _, c = edited
    with pytest.raises(RuntimeError, match=r"reached 'a' with probability 0\.\d+ only, after 1 steps at layer 1"):
        rome(model, FACT, layer=1, covariance=c, contexts=CONTEXTS, search=Search(steps=1, learning_rate=1e-4))


def test_the_covariance_of_another_layer_is_refused(edited: tuple) -> None:
    model, _, c = edited
    with pytest.raises(ValueError, match=r"the covariance is of layer 1 .* call covariance\(model, data, 0\)"):
        rome(model, FACT, layer=0, covariance=c, contexts=CONTEXTS)


def test_an_empty_list_is_refused_by_the_scorecard(edited: tuple) -> None:
    model, edit, _ = edited
    with pytest.raises(ValueError, match="neighbours is empty"):
        scorecard(model, edit, paraphrases=["so {} is"], neighbours=[], others=[Query("a", "b")], texts=TEXTS)


def test_contexts_are_in_the_models_own_words_and_the_first_is_empty(gpt2: Model) -> None:
    found = prefixes(gpt2, n=3)
    assert found[0] == "" and len(found) == 3
    assert found == prefixes(gpt2, n=3)


def test_the_last_subject_token_is_found_with_padding_and_contexts(gpt2: Model) -> None:
    tokens = gpt2.tokens(["so Rome is", "Rome, then so Rome is"])
    mask = last_token_of("Rome").mask(tokens)
    ends = [int(tokens.offsets[i][mask[i]][0, 1]) for i in range(2)]
    assert ends == [len("so Rome"), len("Rome, then so Rome")]


def test_an_answer_is_a_whole_word_and_ends_at_punctuation() -> None:
    assert answered(" Paris, of course", "Paris") and not answered(" Parisian", "Paris")
    assert answer_in(" San Francisco. It") == "San Francisco"
