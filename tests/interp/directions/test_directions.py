"""Every road to a direction against a closed form, an independent implementation, or what it must do to the model."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hooks import Direction, Model, capture, intervene, stream
from hooks.interventions import add, apply
from hooks.position import everywhere, last
from hooks.site import embed, mlp_act, resid_post
from interp.directions import (
    Pairs,
    caa,
    compare,
    ffn_value,
    latent_group,
    lens_row,
    mean_centring,
    probe_direction,
    pursuit,
    refusal,
    repe,
    unembedding,
)
from interp.sae import TopK
from interp.steering import measure_damage, measure_projections, sample
from probes import DifferenceOfMeans, Logistic

QUESTIONS = ["Is it fog?", "Do you agree with me?", "So"]
TEXTS = ["fog over the bay", "a red bridge", "the sun"]


def letter(model: Model, character: str) -> Tensor:
    return model.hf.get_input_embeddings().weight.detach()[model.tokenizer.convert_tokens_to_ids(character)].double()


@pytest.fixture
def answers() -> Pairs:
    return Pairs.of_answers(QUESTIONS, [" (A)"] * 3, [" (B)"] * 3)


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_answer_is_the_letter_in_which_a_text_differs_from_its_partner(
    gpt2: Model, padded_left, answers: Pairs, side: str
) -> None:
    model = gpt2 if side == "right" else padded_left(gpt2)
    tokens = model.tokens([*answers.positive, *answers.negative])
    read = tokens.ids[answers.answer.mask(tokens)].tolist()
    assert model.tokenizer.decode(read) == "AAABBB"


def test_a_text_of_no_pair_and_a_text_that_differs_in_two_places_are_refused(gpt2: Model, answers: Pairs) -> None:
    with pytest.raises(ValueError, match="in a text of no pair: 'fog'"):
        answers.answer.mask(gpt2.tokens("fog"))
    with pytest.raises(ValueError, match="is in two pairs that differ at different places"):
        Pairs(["abc", "abc"], ["xbc", "abx"]).answer  # noqa: B018


@pytest.mark.parametrize(
    ("positive", "negative", "said"),
    [
        ([], [], "give at least one pair"),
        (["a"], ["b", "c"], "1 positive and 2 negative"),
        (["a"], ["a"], "the same text twice"),
        ([" "], ["a"], "has an empty text"),
        ("abc", "xyz", "the positive texts are 'abc': give a list of at least one text"),
    ],
)
def test_pairs_that_are_none_are_refused(positive: list[str], negative: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Pairs(positive, negative)


@pytest.mark.parametrize(
    "make",
    [
        lambda m: mean_centring(m, "fog", TEXTS, embed),
        lambda m: mean_centring(m, TEXTS, "fog", embed),
        lambda m: probe_direction(m, "fog", TEXTS, embed, DifferenceOfMeans()),
        lambda m: probe_direction(m, TEXTS, "fog", embed, DifferenceOfMeans()),
        lambda m: ffn_value(m, 0, 0, "fog"),
        lambda m: unembedding(m, "g", resid_post[0], "fog"),
        lambda m: refusal(m, "fog", TEXTS, [0]),
        lambda m: measure_damage(m, Direction(torch.ones(m.d_model), embed, "ones"), 1.0, "fog over"),
        lambda m: measure_projections(m, Direction(torch.ones(m.d_model), embed, "ones"), "fog"),
        lambda m: sample(m, "fog", bool),
    ],
)
def test_a_string_is_no_list_of_texts(gpt2: Model, make) -> None:
    with pytest.raises(ValueError, match=r"are 'fog.*': give a list of at least one (text|positive text|prompt)$"):
        make(gpt2)


def test_caa_at_the_embedding_is_the_difference_of_the_answer_letters(gpt2: Model, answers: Pairs) -> None:
    direction = caa(gpt2, answers, embed)
    expected = letter(gpt2, "A") - letter(gpt2, "B")
    assert torch.allclose(direction.vector.double(), expected, atol=1e-6)
    assert direction.scale == pytest.approx(float(expected.norm()), rel=1e-5)
    assert direction.site == embed and direction.fingerprint == gpt2.fingerprint and "3 pairs" in direction.source


def test_read_after_the_answer_letter_the_embeddings_do_not_differ(gpt2: Model, answers: Pairs) -> None:
    with pytest.raises(ValueError, match="found no difference"):
        caa(gpt2, answers, embed, at=last)


def test_a_position_of_several_tokens_is_refused_with_the_text_named(gpt2: Model, answers: Pairs) -> None:
    with pytest.raises(ValueError, match=r"everywhere selects 14 tokens of text 0 \('Is it fog\? \(A\)'\)"):
        caa(gpt2, answers, embed, at=everywhere)


def test_caa_and_the_probe_of_means_on_the_same_tokens_agree_in_vector_and_scale(gpt2: Model, answers: Pairs) -> None:
    site = resid_post[1]
    one = caa(gpt2, answers, site)
    other = probe_direction(gpt2, answers.positive, answers.negative, site, DifferenceOfMeans(), at=answers.answer)
    assert torch.allclose(one.vector, other.vector, atol=1e-5)
    assert one.scale == pytest.approx(other.scale, rel=1e-4)
    assert "3 and 3 texts" in other.source and other.fingerprint == gpt2.fingerprint


def test_a_logistic_direction_is_scikit_learns(gpt2: Model) -> None:
    from sklearn.linear_model import LogisticRegression

    yes, no = [f"fog {c}" for c in "abcdef"], [f"sun {c}" for c in "ghijkl"]
    x = torch.cat([a.flat(resid_post[0], at=last) for a in stream(gpt2, [*yes, *no], [resid_post[0]])])
    fitted = LogisticRegression(C=0.1, tol=1e-10, max_iter=5000).fit(x.double().numpy(), [1] * 6 + [0] * 6)
    made = probe_direction(gpt2, yes, no, resid_post[0], Logistic(C=0.1))
    assert torch.allclose(made.vector.double(), torch.tensor(fitted.coef_[0]), atol=1e-4)


def test_repe_is_the_leading_eigenvector_of_the_uncentred_differences(gpt2: Model) -> None:
    pairs = Pairs(["fogA", "sunC", "bayE", "redG"], ["fogB", "sunD", "bayF", "redH"])
    at = resid_post[1]
    plus, minus = (capture(gpt2, list(t), [at]).flat(at, at=last).double() for t in (pairs.positive, pairs.negative))
    d = plus - minus
    expected = torch.linalg.eigh(d.T @ d).eigenvectors[:, -1]
    direction = repe(gpt2, pairs, at)
    assert abs(float(direction.unit.double() @ expected)) == pytest.approx(1, abs=1e-5)
    along = d @ direction.unit.double()
    assert int((along > 0).sum()) >= int((along < 0).sum())


def test_repe_keeps_what_all_pairs_share_which_centring_would_lose(gpt2: Model) -> None:
    pairs = Pairs(["fogA", "sunA", "bayA"], ["fogB", "sunB", "bayB"])
    direction = repe(gpt2, pairs, embed)
    shared = letter(gpt2, "A") - letter(gpt2, "B")
    assert float(direction.unit.double() @ shared / shared.norm()) == pytest.approx(1, abs=1e-6)


def test_the_sign_of_repe_turns_with_the_pairs(gpt2: Model) -> None:
    one, other = ["fogA", "sunC", "bayE"], ["fogB", "sunD", "bayF"]
    there, back = repe(gpt2, Pairs(one, other), resid_post[1]), repe(gpt2, Pairs(other, one), resid_post[1])
    assert there.cosine(back) == pytest.approx(-1, abs=1e-6)


def test_mean_centring_counts_each_text_once_however_long(gpt2: Model) -> None:
    direction = mean_centring(gpt2, ["aaaa", "b"], ["c", "dd"], embed)
    a, b, c, d = (letter(gpt2, x) for x in "abcd")
    assert torch.allclose(direction.vector.double(), (a + b) / 2 - (c + d) / 2, atol=1e-6)


def test_a_group_of_latents_is_what_the_decoder_adds_when_they_are_at_their_largest() -> None:
    sae = TopK(8, 12, k=2, seed=1)
    sae.site = resid_post[0]
    with torch.no_grad():
        sae.max_activation.copy_(torch.arange(12) + 1.0)
    f = torch.zeros(12)
    f[3], f[5] = 4.0, 6.0 / 2
    group = latent_group(sae, [3, 5], [1.0, 0.5])
    assert torch.allclose(group.vector, (sae.decode(f) - sae.b_dec).detach(), atol=1e-6)
    assert group.scale == pytest.approx(float(group.vector.norm()))
    alone = latent_group(sae, [3])
    assert alone.cosine(sae.direction(3)) == pytest.approx(1) and alone.scale == pytest.approx(sae.direction(3).scale)


def test_a_group_without_latents_or_with_one_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="give at least one, each once"):
        latent_group(TopK(8, 12, k=2), [3, 3])


def dictionary(seed: int, d: int = 16, latents: int = 40) -> TopK:
    sae = TopK(d, latents, k=2, seed=seed)
    sae.site = resid_post[0]
    with torch.no_grad():
        sae.max_activation.fill_(1.0)
    return sae


def test_a_direction_made_of_three_latents_is_taken_apart_into_them() -> None:
    sae = dictionary(seed=2, latents=16)
    with torch.no_grad():
        sae.W_dec.copy_(torch.linalg.qr(sae.W_dec).Q)
    v = Direction((torch.tensor([2.0, 1.0, 0.7]) @ sae.W_dec[[3, 7, 1]]).detach(), resid_post[0], "planted", 5.0)
    found = pursuit(sae, v)
    assert torch.allclose(found.vector, v.vector, atol=1e-5) and found.scale == v.scale
    assert found.source == "sae latents 2 * 3 + 1 * 7 + 0.7 * 1"
    with torch.no_grad():
        sae.max_activation[3] = 0.0
    assert pursuit(sae, v).source == "sae latents 1 * 7 + 0.7 * 1"


@pytest.mark.parametrize("seed", range(4))
def test_more_latents_come_nearer_and_what_is_left_is_orthogonal_to_them(seed: int) -> None:
    sae = dictionary(seed)
    drawn = torch.randn(16, generator=torch.Generator().manual_seed(100 + seed))  # the rows themselves are seeded
    v = Direction(drawn, resid_post[0], "drawn")
    cosines = [float((sae.W_dec[i] @ v.unit).detach()) for i in range(40)]
    found = [pursuit(sae, v, most=most) for most in (1, 2, 3)]
    assert found[0].cosine(v) == pytest.approx(max(cosines), abs=1e-5)
    assert found[0].cosine(v) < found[1].cosine(v) < found[2].cosine(v)
    used = [int(part.split("* ")[1]) for part in found[2].source.split(" + ")]
    left = v.vector - found[2].vector
    assert torch.allclose((sae.W_dec[used] @ left).detach(), torch.zeros(3), atol=1e-5)


def test_a_direction_no_latent_points_along_or_of_another_place_is_refused() -> None:
    sae = dictionary(seed=0)
    with torch.no_grad():
        sae.W_dec.abs_()
    away = Direction(-torch.ones(16), resid_post[0], "away")
    with pytest.raises(ValueError, match="no latent's row has a positive cosine with"):
        pursuit(sae, away)
    with pytest.raises(ValueError, match="0 latents were asked for: give at least one"):
        pursuit(sae, away, most=0)
    with pytest.raises(ValueError, match=r"is at resid_post.1, the autoencoder writes at resid_post.0"):
        pursuit(sae, Direction(torch.ones(16), resid_post[1], "elsewhere"))


def test_adding_an_ffn_value_is_raising_its_memory(decoder: Model) -> None:
    v = ffn_value(decoder, 1, 5, TEXTS)
    largest = max(float(a.flat(mlp_act[1])[:, 5].max()) for a in stream(decoder, TEXTS, [mlp_act[1]]))
    assert v.scale == pytest.approx(largest * float(v.vector.norm()), rel=1e-5)

    def raised(m: Tensor) -> Tensor:
        return m + 2.5 * torch.nn.functional.one_hot(torch.tensor(5), m.shape[1]).to(m)

    with intervene(decoder, {mlp_act[1]: apply(raised)}):
        expected = decoder.run(TEXTS)
    if decoder.hf.config.model_type == "gemma2":
        return  # a norm is between its memories and mlp_out
    with intervene(decoder, {v.site: add(v, 2.5)}):
        assert torch.allclose(decoder.run(TEXTS), expected, atol=1e-3)


def test_a_memory_that_does_not_exist_or_never_speaks_is_refused(gpt2: Model) -> None:
    with pytest.raises(IndexError, match="memory 48 does not exist: layer 1 has memories 0 to 47"):
        ffn_value(gpt2, 1, 48, TEXTS)


def test_a_lens_row_is_the_gradient_of_the_logit_with_the_length_of_the_norm_held(decoder: Model) -> None:
    site = resid_post[decoder.n_layers - 1]
    v = lens_row(decoder, "z", site, [*TEXTS, "zzz"]).vector.double()
    row = decoder.hf.get_output_embeddings().weight.detach()[decoder.tokenizer.convert_tokens_to_ids("z")]
    x = torch.randn(decoder.d_model, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (decoder.final_norm(x) @ row).backward()
    mean = torch.ones_like(x).double()
    held = torch.linalg.qr(torch.stack([mean, x.detach().double()], 1)).Q  # what the changing length can add to it
    gradient = x.grad.double()
    one, other = (u - held @ (held.T @ u) for u in (v, gradient))
    assert float(one @ other / (one.norm() * other.norm())) == pytest.approx(1, abs=1e-5)


def test_the_lens_row_of_gpt2_is_the_norms_weight_times_the_row_less_its_mean(gpt2: Model) -> None:
    v = lens_row(gpt2, "z", resid_post[1], [*TEXTS, "zzz"]).unit
    row = gpt2.hf.lm_head.weight.detach()[gpt2.tokenizer.convert_tokens_to_ids("z")]
    expected = gpt2.hf.transformer.ln_f.weight.detach() * row
    expected = expected - expected.mean()
    assert torch.allclose(v, expected / expected.norm(), atol=1e-5)


def test_an_unembedding_is_the_row_and_its_scale_the_largest_projection_of_the_texts(gpt2: Model) -> None:
    direction = unembedding(gpt2, "z", resid_post[2], TEXTS)
    row = gpt2.hf.lm_head.weight.detach()[gpt2.tokenizer.convert_tokens_to_ids("z")]
    assert torch.equal(direction.vector, row)
    x = capture(gpt2, TEXTS, [resid_post[2]]).flat(resid_post[2])
    assert direction.scale == pytest.approx(float((x @ (row / row.norm())).max()), rel=1e-5)


def test_a_word_of_several_tokens_and_a_place_outside_the_stream_have_no_unembedding(gpt2: Model) -> None:
    with pytest.raises(ValueError, match=r"'fog' is 3 tokens, \['f', 'o', 'g'\]: give one"):
        unembedding(gpt2, "fog", resid_post[1], TEXTS)
    with pytest.raises(ValueError, match="mlp_act.1 is not in the residual stream"):
        unembedding(gpt2, "z", mlp_act[1], TEXTS)


@pytest.mark.parametrize("row", [unembedding, lens_row])
def test_a_token_id_gives_the_row_of_its_word_and_one_outside_the_vocabulary_none(
    gpt2: Model, row: Callable[..., Direction]
) -> None:
    number = int(gpt2.tokens("z").ids[0, -1])
    word, by_id = row(gpt2, "z", resid_post[1], [*TEXTS, "zzz"]), row(gpt2, number, resid_post[1], [*TEXTS, "zzz"])
    assert torch.equal(word.vector, by_id.vector)
    assert (word.source, word.scale) == (by_id.source, by_id.scale)
    with pytest.raises(ValueError, match=f"{gpt2.d_vocab} is no token of"):
        row(gpt2, gpt2.d_vocab, resid_post[1], TEXTS)


def test_directions_that_differ_by_what_the_last_norm_takes_out_share_their_whole_effect(gpt2: Model) -> None:
    site = resid_post[gpt2.n_layers - 1]
    u = torch.randn(gpt2.d_model, generator=torch.Generator().manual_seed(3))
    u = u - u.mean()
    shifted = u + u.norm() / gpt2.d_model**0.5
    other = torch.randn(gpt2.d_model, generator=torch.Generator().manual_seed(4))
    named = {
        "u": Direction(u, site, "u", 0.01),
        "ten u": Direction(10 * u, site, "ten u", 0.01),
        "less u": Direction(-u, site, "less u", 0.01),
        "u and a constant": Direction(shifted, site, "shifted", 0.01 * 2**0.5),
        "other": Direction(other, site, "other", 0.01),
    }
    found = compare(gpt2, named, TEXTS)
    assert torch.allclose(found.cosines[0, :4], torch.tensor([1, 1, -1, 2**-0.5]), atol=1e-5)
    assert torch.allclose(found.effects[0, :4], torch.tensor([1.0, 1.0, -1.0, 1.0]), atol=1e-2)
    assert abs(float(found.effects[0, 4])) < 0.9
    assert found.strength[1] == pytest.approx(float(found.strength[0]), rel=1e-3)
    assert "u and a constant" in str(found) and found.random == pytest.approx(32**-0.5)


def test_one_direction_is_nothing_to_compare(gpt2: Model) -> None:
    with pytest.raises(ValueError, match="give at least two to compare"):
        compare(gpt2, {"a": unembedding(gpt2, "z", resid_post[2], TEXTS)}, TEXTS)
