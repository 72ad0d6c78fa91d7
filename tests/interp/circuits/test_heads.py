"""Detectors on a circuit made by hand score one where it does what they look for, and nothing elsewhere."""

from typing import Any

import pytest
import torch

from hooks import Model, load
from interp.circuits.heads import copying, duplicate_token, induction, previous_token
from interp.circuits.heads.repeated import repeated
from interp.circuits.heads.scores import attention_between
from tests.interp.circuits.handmade import induction_gpt2
from tests.toys import TOYS, toy

TOY = "grokking-induction-head-infinite"


@pytest.fixture(scope="module")
def circuit(tokenizer: Any) -> Model:
    return induction_gpt2(tokenizer)


def test_an_induction_circuit_scores_one_at_the_token_after_the_earlier_occurrence_and_nothing_beside(
    circuit: Model,
) -> None:
    found = induction(circuit, length=18, n=4)
    torch.testing.assert_close(found.values, torch.tensor([[0.0], [1.0]]), rtol=0, atol=1e-4)
    assert float(found.control[1]) < 0.1
    said = repeated(circuit, length=18, n=4)
    queries = said.start + torch.arange(18, 35)
    for offset in (-1, 0, 2):
        beside = attention_between(circuit, said.tokens, queries, queries - 18 + offset)
        assert float(beside[1]) < 1e-4
    torch.testing.assert_close(duplicate_token(circuit, length=18, n=4).values, torch.zeros(2, 1), rtol=0, atol=1e-4)


def test_its_first_head_is_a_previous_token_head(circuit: Model) -> None:
    found = previous_token(circuit, length=18, n=4)
    torch.testing.assert_close(found.values[0], torch.ones(1), rtol=0, atol=1e-4)
    assert float(found.control[0]) < 1e-4 and float(found.values[1]) < 0.2
    assert found.top(1) == ((0, 0, pytest.approx(1.0, abs=1e-4)),)
    assert str(found).splitlines()[:2] == ["previous token: layer.head, score, control", "  0.0    1.000   0.000"]


def test_the_circuit_says_each_next_token_of_a_repetition(circuit: Model) -> None:
    said = repeated(circuit, length=18, n=4)
    logits = circuit.run(said.tokens)
    assert torch.equal(logits[:, 19:-1].argmax(-1), said.tokens.ids[:, 20:])


def test_a_head_that_writes_what_it_reads_copies_and_its_negative_suppresses(tokenizer: Any) -> None:
    for copies in (1.0, -1.0):
        found = copying(induction_gpt2(tokenizer, copies))
        assert float(found.values[1]) == pytest.approx(copies, abs=0.05)
        assert abs(float(found.control[1])) < 0.4


def test_the_copying_score_is_that_of_all_eigenvalues_over_the_vocabulary(gpt2: Model) -> None:
    """Against the matrix over the whole vocabulary, from GPT-2's weights by name."""
    w = {name: weight.detach().double() for name, weight in gpt2.hf.state_dict().items()}
    centre = torch.eye(32, dtype=torch.float64) - 1 / 32
    found = copying(gpt2)
    for layer in (0, 2):
        block = f"transformer.h.{layer}"
        V = w[f"{block}.attn.c_attn.weight"][:, 64:].unflatten(1, (4, 8))
        W_O = w[f"{block}.attn.c_proj.weight"].unflatten(0, (4, 8))
        for head in range(4):
            M = w["transformer.wte.weight"] @ centre * 1.0
            M = M @ torch.diag(w[f"{block}.ln_1.weight"]) @ V[:, head] @ W_O[head]
            M = M @ centre @ torch.diag(w["transformer.ln_f.weight"]) @ w["lm_head.weight"].T
            eigenvalues = torch.linalg.eigvals(M)
            expected = eigenvalues.real.sum() / eigenvalues.abs().sum()
            assert float(found.values[layer, head]) == pytest.approx(float(expected), abs=1e-3)


def test_every_family_has_its_heads_scored_between_none_and_all(decoder: Model) -> None:
    for detect in (induction, previous_token, duplicate_token):
        found = detect(decoder, length=12, n=3)
        assert found.values.shape == found.control.shape == (3, 4)
        assert bool(((found.values >= 0) & (found.values <= 1)).all())
    assert bool((copying(decoder).values.abs() <= 1 + 1e-4).all())


def test_a_random_model_scores_no_more_on_repetition_than_without(gpt2: Model) -> None:
    found = induction(gpt2, length=30, n=8)
    assert float((found.values - found.control).abs().max()) < 0.1


def test_no_token_is_drawn_twice_and_none_is_special(gpt2: Model) -> None:
    said = repeated(gpt2, length=30, n=5, seed=1)
    ids = said.tokens.ids
    assert said.start == 1 and bool((ids[:, 0] == 256).all()) and bool((ids[:, 1:] != 256).all())
    assert torch.equal(ids[:, 1:31], ids[:, 31:]) and torch.equal(ids[:, :31], said.fresh.ids[:, :31])
    assert all(len(set(row)) == 60 for row in said.fresh.ids[:, 1:].tolist())
    with pytest.raises(ValueError, match="a vocabulary of 400; .* has 256: give a smaller length"):
        repeated(gpt2, length=200)


@pytest.mark.skipif(not (TOYS / TOY).is_dir(), reason="the model lies beside the project")
def test_a_real_induction_model_has_a_previous_token_head_below_an_induction_head() -> None:
    model = load(toy(TOY), None, check=False)
    early, late = previous_token(model, length=28), induction(model, length=28)
    assert late.top(1)[0][0] == 1 and late.top(1)[0][2] > 0.3
    assert early.top(1)[0][0] == 0 and early.top(1)[0][2] > 0.3
    assert float(late.control.max()) < 0.1
