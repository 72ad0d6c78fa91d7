"""Detectors on a circuit made by hand score one where it does what they look for, and nothing elsewhere."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hooks import Model, load
from hooks.contract.families import FAMILIES, tiny
from hooks.site import attn_out, embed, resid_pre, z
from interp.circuits.heads import copying, duplicate_token, induction, previous_token
from interp.circuits.heads.repeated_tokens import draw_repeated_tokens
from interp.circuits.heads.scores import attention_between
from tests.interp.circuits.handmade import induction_gpt2
from tests.toys import TOYS, toy

TOY = "grokking-induction-head-infinite"


@pytest.fixture(scope="module")
def circuit(tokenizer: Any) -> Model:
    return induction_gpt2(tokenizer)


def test_an_induction_circuit_scores_one_at_the_token_after_the_earlier_occurrence_and_nothing_next_to(
    circuit: Model,
) -> None:
    found = induction(circuit, length=18, n=4)
    torch.testing.assert_close(found.values, torch.tensor([[0.0], [1.0]]), rtol=0, atol=1e-4)
    assert float(found.control[1]) < 0.1
    said = draw_repeated_tokens(circuit, length=18, n=4)
    queries = said.start + torch.arange(18, 35)
    for offset in (-1, 0, 2):
        compared = attention_between(circuit, said.tokens, queries, queries - 18 + offset)
        assert float(compared[1]) < 1e-4
    torch.testing.assert_close(duplicate_token(circuit, length=18, n=4).values, torch.zeros(2, 1), rtol=0, atol=1e-4)


def test_its_first_head_is_a_previous_token_head(circuit: Model) -> None:
    found = previous_token(circuit, length=18, n=4)
    torch.testing.assert_close(found.values[0], torch.ones(1), rtol=0, atol=1e-4)
    assert float(found.control[0]) < 1e-4 and float(found.values[1]) < 0.2
    assert found.top(1) == ((0, 0, pytest.approx(1.0, abs=1e-4)),)
    assert str(found).splitlines()[:2] == ["previous token: layer.head, score, control", "  0.0    1.000   0.000"]


def test_controls_are_the_attention_to_the_very_places_they_name(circuit: Model, tokenizer: Any) -> None:
    """A head that looks two tokens back is all that the control of one token back sees; and said two by two, the
    token after the earlier occurrence is the one before, so that a previous-token head scores as much by chance."""
    two_back = previous_token(induction_gpt2(tokenizer, back=2), length=18, n=4)
    assert float(two_back.values[0]) < 1e-4
    assert float(two_back.control[0]) == pytest.approx(1.0, abs=1e-4)
    by_chance = induction(circuit, length=2, n=4)
    assert float(by_chance.values[0]) == float(by_chance.control[0]) == pytest.approx(1.0, abs=1e-4)


def test_less_than_one_of_the_best_heads_is_refused(circuit: Model) -> None:
    for count in (0, -1):
        with pytest.raises(ValueError, match=f"count is {count}: ask for at least 1 of 2 heads"):
            previous_token(circuit, length=4, n=1).top(count)


def test_the_circuit_says_each_next_token_of_a_repetition(circuit: Model) -> None:
    said = draw_repeated_tokens(circuit, length=18, n=4)
    logits = circuit.run(said.tokens)
    assert torch.equal(logits[:, 19:-1].argmax(-1), said.tokens.ids[:, 20:])


def test_a_head_that_writes_what_it_reads_copies_and_its_negative_suppresses(tokenizer: Any) -> None:
    for copies in (1.0, -1.0):
        found = copying(induction_gpt2(tokenizer, copies))
        assert float(found.values[1]) == pytest.approx(copies, abs=0.05)
        assert abs(float(found.control[1])) < 0.4


class Gain(nn.Module):
    """A norm without its divisor."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.weight = norm.weight + ("Gemma" in type(norm).__name__)
        self.centres = isinstance(norm, nn.LayerNorm)

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(-1, keepdim=True) if self.centres else x) * self.weight


def without_divisors(hf: Any) -> Model:
    """The model with the norms of its stream replaced by their gains, those of the embeddings, queries and keys not."""
    for path, module in [*hf.named_modules()]:
        if "norm" in type(module).__name__.lower() and not any(n in path for n in ("q_norm", "k_norm", "embeddings")):
            parent, _, name = path.rpartition(".")
            setattr(hf.get_submodule(parent), name, Gain(module))
    return load(hf, None, check=False)


@torch.no_grad()
def over_the_vocabulary(model: Model, E: Tensor, layer: int) -> Tensor:
    """M[h, s, t], how much token s alone in the stream raises the logit of t through head h: run, not multiplied."""
    heads, vocab, d = model.n_heads, *E.shape
    stream = torch.cat([E, torch.zeros(1, d)]).repeat(heads, 1)[:, None]
    only = torch.eye(heads).repeat_interleave(vocab + 1, 0)[:, None, :, None]
    wrote: list[Tensor] = []
    taps = [
        model.tap(resid_pre[layer]).attach(lambda _: stream),
        model.tap(z[layer]).attach(lambda a: a * only),
        model.tap(attn_out[layer]).attach(lambda a: wrote.append(a)),
    ]
    try:
        model.hf(torch.zeros(len(stream), 1, dtype=torch.long), use_cache=False)
    finally:
        for tap in taps:
            tap.remove()
    written = wrote[0][:, 0].unflatten(0, (heads, vocab + 1))
    return model.final_norm(written[:, :-1] - written[:, -1:]) @ model.hf.get_output_embeddings().weight.T


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in ("bert", "opt_350m")])
def test_the_copying_score_is_that_of_all_eigenvalues_over_the_vocabulary(family: str) -> None:
    """Against the whole vocabulary run through the model itself: a token in the stream that attends to itself alone."""
    found, plain = copying(load(tiny(family), None, check=False)), without_divisors(tiny(family))
    E = plain.module(embed).get_parameter("weight").detach()
    if family == "bloom":
        norm = plain.hf.transformer.word_embeddings_layernorm
        E = (nn.functional.layer_norm(E, (32,), eps=norm.eps) * norm.weight).detach()
    for layer in range(2):
        eigenvalues = torch.linalg.eigvals(over_the_vocabulary(plain, E, layer).double())
        expected = eigenvalues.real.sum(-1) / eigenvalues.abs().sum(-1)
        torch.testing.assert_close(found.values[layer], expected.float(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("family", ["gemma2", "gemma3", "olmo2"])
def test_a_norm_that_turns_what_attention_writes_turns_the_copying_scores(family: str) -> None:
    model = load(tiny(family), None, check=False)
    before = copying(model)
    with torch.no_grad():
        for block in model.blocks:
            norm = block.get_submodule("post_attention_layernorm")
            one = float("Gemma" in type(norm).__name__)
            norm.weight.copy_(-(one + norm.weight) - one)
    after = copying(model)
    torch.testing.assert_close(after.values, -before.values, rtol=0, atol=1e-4)
    torch.testing.assert_close(after.control, -before.control, rtol=0, atol=1e-4)


def test_a_head_that_writes_nothing_copies_nothing(fresh: Callable[..., Model]) -> None:
    model = fresh("gpt2")
    before = copying(model)
    with torch.no_grad():
        model.hf.transformer.h[1].attn.c_proj.weight[: model.d_head] = 0.0
    after = copying(model)
    assert float(after.values[1, 0]) == 0.0 == float(after.control[1, 0])
    assert torch.equal(after.values[1, 1:], before.values[1, 1:])


def test_the_control_of_copying_is_of_an_order_that_its_seed_draws(gpt2: Model) -> None:
    one, other = copying(gpt2), copying(gpt2, seed=1)
    assert torch.equal(one.values, other.values) and not torch.equal(one.control, other.control)


def test_heads_whose_path_to_the_logits_is_not_their_own_have_no_copying_score() -> None:
    for family, text in (
        ("bert", "normalises the stream itself after every sublayer"),
        ("opt_350m", "stream's width, 32"),
    ):
        with pytest.raises(ValueError, match=text):
            copying(load(tiny(family), None, check=False))


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
    said = draw_repeated_tokens(gpt2, length=30, n=5, seed=1)
    ids = said.tokens.ids
    assert said.start == 1 and bool((ids[:, 0] == 256).all()) and bool((ids[:, 1:] != 256).all())
    assert torch.equal(ids[:, 1:31], ids[:, 31:]) and torch.equal(ids[:, :31], said.fresh.ids[:, :31])
    assert all(len(set(row)) == 60 for row in said.fresh.ids[:, 1:].tolist())
    with pytest.raises(ValueError, match="a vocabulary of 400; .* has 256: give a smaller length"):
        draw_repeated_tokens(gpt2, length=200)


@pytest.mark.skipif(not (TOYS / TOY).is_dir(), reason="the model is not next to the project")
def test_a_real_induction_model_has_a_previous_token_head_below_an_induction_head() -> None:
    model = load(toy(TOY), None, check=False)
    early, late = previous_token(model, length=28), induction(model, length=28)
    assert late.top(1)[0][0] == 1 and late.top(1)[0][2] > 0.3
    assert early.top(1)[0][0] == 0 and early.top(1)[0][2] > 0.3
    assert float(late.control.max()) < 0.1


def test_heads_of_a_model_without_norms_and_without_a_tokenizer_copy_as_their_weights_say(hf_model: Any) -> None:
    hf = hf_model("gpt2")
    hf.transformer.ln_f = nn.Identity()
    for block in hf.transformer.h:
        block.ln_1, block.ln_2 = nn.Identity(), nn.Identity()
    found = copying(load(hf, check=False))
    E, W_U = hf.transformer.wte.weight.detach().double(), hf.lm_head.weight.detach().double()
    for layer, block in enumerate(hf.transformer.h):
        W_V = block.attn.c_attn.weight.detach().double()[:, 64:].unflatten(1, (4, -1))
        W_O = block.attn.c_proj.weight.detach().double().unflatten(0, (4, -1))
        for head in range(4):
            lambdas = torch.linalg.eigvals(W_O[head] @ W_U.T @ E @ W_V[:, head])
            expected = float(lambdas.real.sum() / lambdas.abs().sum())
            assert float(found.values[layer, head]) == pytest.approx(expected, abs=1e-4)


def test_attention_scores_need_no_norm_and_no_tokenizer(hf_model: Any) -> None:
    hf = hf_model("gpt2")
    for block in hf.transformer.h:
        block.ln_1, block.ln_2 = nn.Identity(), nn.Identity()
    model = load(hf, check=False)
    for score in (induction, duplicate_token, previous_token):
        values = score(model, length=8, n=2).values
        assert values.shape == (3, 4) and bool(((values >= 0) & (values <= 1)).all())


def test_head_scores_are_a_table_of_heads_and_a_line_that_names_the_best(gpt2: Model) -> None:
    found = induction(gpt2, length=8, n=2)
    frame = found.to_pandas()
    assert len(frame) == found.values.numel()
    (layer, head, score), *_ = found.top(1)
    row = frame[(frame.layer == layer) & (frame["head"] == head)]
    assert (row.score.item(), row.control.item()) == pytest.approx((score, float(found.control[layer, head])))
    assert f"{layer}.{head} {score:.3f}" in repr(found)
    assert len(repr(found)) < 120
