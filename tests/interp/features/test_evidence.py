"""Evidence against brute force over dense latents and the model's own weights."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from hooks import Model, capture, load
from hooks.pieces import piece
from hooks.site import embed, mlp_act, mlp_in, mlp_out, resid_post
from interp.features import Evidence, Example, Feature, collect_evidence, measure_logit_effect
from interp.features.evidence import Histogram
from interp.sae import TopK

TEXTS = ["a cab.", "hhh", "dead heads", "no op", "bad h. h", "e"]
H = "abcdefgh".index("h")


def test_evidence_counts_what_the_dense_latents_do(gpt2: Model, letters: TopK) -> None:
    acts = capture(gpt2, TEXTS, embed)
    f = letters.encode(acts.flat(embed))[:, H].detach()
    seen = collect_evidence(letters, gpt2, TEXTS, H, batch_size=2)
    assert seen.tokens == len(f) == sum(map(len, TEXTS))
    assert seen.firing_rate == pytest.approx(float((f > 0).float().mean()))
    assert seen.firing_rate == pytest.approx(6 / seen.tokens)
    assert seen.mean == pytest.approx(float(f[f > 0].mean()), rel=1e-5)
    assert seen.largest == pytest.approx(float(f.max())) == pytest.approx(1.7, rel=1e-3)
    assert int(seen.counts.sum()) == 6 and float(seen.edges[-1]) >= seen.largest * (1 - 1e-6)


def test_a_batch_without_a_token_changes_nothing(gpt2: Model, letters: TopK) -> None:
    """Not the largest activation either, of a latent that stays well below 1."""
    with torch.no_grad():
        letters.W_enc[:, H] /= 10
        letters.b_enc[H] /= 10
    seen, alone = (collect_evidence(letters, gpt2, texts, H, batch_size=1) for texts in (["hhh", ""], ["hhh"]))
    assert seen.largest == alone.largest == pytest.approx(0.17, rel=1e-2)
    assert (seen.tokens, seen.mean, seen.firing_rate) == (alone.tokens, alone.mean, alone.firing_rate)


def test_examples_are_the_highest_texts_around_their_peak(gpt2: Model, letters: TopK) -> None:
    with torch.no_grad():
        letters.W_enc[:, H] += torch.randn(gpt2.d_model, generator=torch.Generator().manual_seed(0)) / 5
    f = {text: letters.encode(capture(gpt2, text, embed)[embed][0, 1:])[:, H].detach() for text in TEXTS}
    on = sorted((float(values.max()) for values in f.values() if float(values.max()) > 0), reverse=True)
    seen = collect_evidence(letters, gpt2, TEXTS, H, top=3, context=2, batch_size=2)
    assert [example.activation for example in seen.examples] == pytest.approx(on[:3])
    for example in seen.examples:
        text, peak = TEXTS[example.text], int(f[TEXTS[example.text]].argmax())
        around = slice(max(0, peak - 2), peak + 3)
        assert "".join(example.tokens) == text[around]
        assert example.tokens[example.peak] == text[peak]
        assert list(example.activations) == pytest.approx(f[text][around].tolist())


def test_each_text_gives_at_most_one_example_and_silent_texts_none(gpt2: Model, letters: TopK) -> None:
    seen = collect_evidence(letters, gpt2, TEXTS, H)
    assert sorted(example.text for example in seen.examples) == [1, 2, 4]


def test_evidence_is_the_same_in_any_batches(gpt2: Model, letters: TopK) -> None:
    one, many = (collect_evidence(letters, gpt2, TEXTS, H, batch_size=size) for size in (1, 6))
    assert {e.text: e.tokens for e in one.examples} == {e.text: e.tokens for e in many.examples}
    assert (one.firing_rate, one.tokens) == (many.firing_rate, many.tokens)


def test_a_silent_latent_has_no_examples_and_no_mean(gpt2: Model, letters: TopK) -> None:
    seen = collect_evidence(letters, gpt2, ["aaa"], H)
    assert (seen.examples, seen.firing_rate, seen.mean, seen.largest) == ((), 0.0, 0.0, 0.0)


def test_promoted_tokens_are_those_of_the_final_norm_and_unembedding_by_hand(gpt2: Model, letters: TopK) -> None:
    v = letters.W_dec[H].detach()
    hf = gpt2.hf
    centred = v - v.mean()
    normed = centred / (centred.pow(2).mean() + hf.config.layer_norm_epsilon).sqrt()
    by_hand = hf.lm_head.weight @ (normed * hf.transformer.ln_f.weight)
    assert torch.allclose(measure_logit_effect(gpt2, v), by_hand.detach(), atol=1e-4)
    seen = collect_evidence(letters, gpt2, TEXTS, H)
    up, down = by_hand.argsort(descending=True), by_hand.argsort()
    assert [token for token, _ in seen.promoted] == [piece(gpt2.tokenizer, i) for i in up[:10].tolist()]
    assert [token for token, _ in seen.suppressed] == [piece(gpt2.tokenizer, i) for i in down[:10].tolist()]
    assert seen.suppressed[0][1] == pytest.approx(float(by_hand.min().detach()), abs=1e-4)


def test_a_latent_outside_the_residual_stream_promotes_nothing_directly(gpt2: Model) -> None:
    sae = TopK(gpt2.d_mlp, 60, k=3)
    sae.site = mlp_act[1]
    assert collect_evidence(sae, gpt2, TEXTS, 0).promoted == ()
    with pytest.raises(ValueError, match="48 dimensions is not in the residual stream of .*, which has 32"):
        measure_logit_effect(gpt2, sae.W_dec[0].detach())


def test_what_a_transcoders_latent_promotes_hangs_on_where_it_writes(gpt2: Model, letters: TopK) -> None:
    stream = collect_evidence(letters, gpt2, TEXTS, H)
    letters.sites = (mlp_in[0], mlp_out[0])
    assert collect_evidence(letters, gpt2, TEXTS, H).promoted == stream.promoted
    letters.sites = (embed, mlp_in[0])
    assert collect_evidence(letters, gpt2, TEXTS, H).promoted == ()


def test_an_empty_text_adds_nothing_and_texts_without_tokens_are_refused(gpt2: Model, letters: TopK) -> None:
    with_empty, without = (
        collect_evidence(letters, gpt2, ["hah", ""], H, batch_size=1),
        collect_evidence(letters, gpt2, ["hah"], H),
    )
    assert (with_empty.examples, with_empty.tokens) == (without.examples, without.tokens)
    with pytest.raises(ValueError, match="hold no tokens besides special ones: give texts"):
        collect_evidence(letters, gpt2, [""], H)
    with pytest.raises(ValueError, match="the texts are 'hah': give a list of at least one text"):
        collect_evidence(letters, gpt2, "hah", H)
    with pytest.raises(ValueError, match="top and batch_size must be at least 1 and context at least 0: 0, 32, 16"):
        collect_evidence(letters, gpt2, TEXTS, H, top=0)


def test_a_latent_that_does_not_exist_is_refused(gpt2: Model, letters: TopK) -> None:
    with pytest.raises(IndexError, match="latent 18 does not exist; this autoencoder has latents 0 to 17"):
        collect_evidence(letters, gpt2, TEXTS, 18)


def test_a_feature_has_the_direction_of_its_latent(gpt2: Model, letters: TopK) -> None:
    seen = collect_evidence(letters, gpt2, TEXTS, H)
    feature = Feature(letters, H, seen)
    assert torch.equal(feature.direction.vector, letters.W_dec[H])
    assert feature.direction.scale == pytest.approx(1.7 * float(letters.W_dec[H].detach().norm()))
    assert "latent 7: on at" in str(feature) and "[[h]]" in str(feature)


def test_a_growing_histogram_counts_as_one_whose_range_was_known() -> None:
    values = torch.rand(3000, generator=torch.Generator().manual_seed(0)) ** 3 * 9 + 1e-3
    growing = Histogram(bins=20)
    for part in values.split(100):
        growing.add(part)
    known = torch.histogram(values.double(), growing.edges.double()).hist.long()
    assert int(growing.counts.sum()) == 3000
    assert int((growing.counts - known).abs().sum()) <= 4  # numbers on an edge may fall either way
    assert growing.top / 2 < float(values.max()) <= growing.top


def test_a_histogram_counts_no_nonsense() -> None:
    with pytest.raises(ValueError, match="counts finite numbers above 0 only"):
        Histogram().add(torch.tensor([1.0, torch.nan]))
    with pytest.raises(ValueError, match="even number of bins to merge in pairs, not 5"):
        Histogram(bins=5)


def test_a_histogram_of_small_activations_ends_at_the_largest_it_began_with() -> None:
    histogram = Histogram(bins=4)
    histogram.add(torch.tensor([0.1, 0.4]))
    assert histogram.edges.tolist() == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    assert histogram.counts.tolist() == [0, 1, 0, 1]


def test_token_ids_give_the_evidence_of_their_texts(gpt2: Model, letters: TopK) -> None:
    texts = [text for text in TEXTS if len(text) == 6]
    by_text, by_ids = (collect_evidence(letters, gpt2, given, H) for given in (texts, gpt2.tokens(texts).ids))
    assert by_ids.examples == by_text.examples and by_ids.tokens == by_text.tokens


def test_a_model_of_fewer_outputs_than_are_shown_has_evidence(hf_model: Callable[..., Any]) -> None:
    hf = hf_model("gpt2", tie_word_embeddings=False)
    hf.lm_head = torch.nn.Linear(32, 5)
    model = load(hf, check=False)
    sae = TopK(model.d_model, 8, k=2, seed=0)
    sae.site, sae.fingerprint = resid_post[1], model.fingerprint
    seen = collect_evidence(sae, model, torch.arange(12).view(2, 6), 3)
    assert seen.tokens == 12


def test_of_equal_peaks_the_first_text_and_its_first_place_are_shown(gpt2: Model, letters: TopK) -> None:
    texts = ["ah bh", "ch", "dh", "hh"]
    seen = collect_evidence(letters, gpt2, texts, H, top=3, context=1, batch_size=2)
    assert [(e.text, "".join(e.tokens)) for e in seen.examples] == [(0, "ah "), (1, "ch"), (2, "dh")]
    assert [e.peak for e in seen.examples] == [1, 1, 1]


def test_a_text_of_several_windows_is_one_example_at_its_first_highest_token(gpt2: Model, letters: TopK) -> None:
    long = "a" * 120 + "bhc" + "a" * 120 + "dhe"
    with pytest.warns(UserWarning, match="longer than the context"):
        seen = collect_evidence(letters, gpt2, [long, "ahb", long[::-1]], H, context=1, batch_size=2)
    assert [(e.text, "".join(e.tokens)) for e in seen.examples] == [(0, "bhc"), (1, "ahb"), (2, "ehd")]
    assert seen.tokens == 2 * len(long) + 3 and seen.firing_rate == 5 / seen.tokens


def test_evidence_is_shown_and_listed_as_it_is() -> None:
    one = Example(4, ("the", " red", " fog", "."), (0.0, 0.5, 2.0, 0.0), 2)
    seen = Evidence(
        3, (one,), torch.tensor([1, 1]), torch.tensor([0.0, 1.0, 2.0]), 0.25, 1.25, 2.0, 8, ((" bay", 1.5),), ()
    )
    assert str(one) == "  2.00  the red[[ fog]]."
    assert str(seen) == (
        "latent 3: on at 25.000% of 8 tokens, mean 1.25, largest 2.00; promotes ' bay'\n  2.00  the red[[ fog]]."
    )
    assert seen.to_pandas().to_dict("records") == [
        {"text": 4, "token": " fog", "activation": 2.0, "stretch": "the red fog."}
    ]
    assert len(Histogram().counts) == 40
