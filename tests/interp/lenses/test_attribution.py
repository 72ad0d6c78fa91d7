"""The parts of a logit sum to it exactly, and each is what the part adds."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from hooks import Model, capture, intervene, load
from hooks.errors import InvalidArgument
from hooks.interventions import scale
from hooks.position import index, last
from hooks.site import attn_out, mlp_out, resid_post, z
from interp.circuits import first_token
from interp.lenses import Attribution, attribute, components, freeze_norm, heads, latents, linearise_norm, neurons
from interp.sae import TopK
from tests.toys import TOYS, toy

TEXTS = ["fog over", "a bay"]


@pytest.fixture(scope="module")
def double(hf_model: Callable[..., Any], tokenizer: Any) -> Iterator[Model]:
    yield load(hf_model("gpt2").double(), tokenizer, check=False)


def autoencoder(at: int) -> TopK:
    sae = TopK(32, 50, k=5, seed=3).double()
    with torch.no_grad():
        sae.b_dec += 0.3
    sae.site = resid_post[at]
    return sae


SPLITS = {
    "components": components,
    "heads": heads,
    "neurons": neurons,
    "latents": latents(autoencoder(1)),
    "latents behind the last block": latents(autoencoder(2)),
}


@pytest.mark.parametrize("norm", [freeze_norm, linearise_norm])
@pytest.mark.parametrize("into", SPLITS.values(), ids=SPLITS)
def test_in_double_precision_the_parts_sum_to_the_logit_exactly(into: Any, norm: Any, double: Model) -> None:
    found = attribute(double, TEXTS, "a", versus="b", into=into, norm=norm)
    a, b = (int(double.tokens(word).ids[0, -1]) for word in "ab")
    logits = double.run(TEXTS)[last.mask(double.tokens(TEXTS))]
    torch.testing.assert_close(found.parts.sum(1), logits[:, a] - logits[:, b], rtol=0, atol=1e-11)
    torch.testing.assert_close(found.logit, logits[:, a] - logits[:, b], rtol=0, atol=1e-11)
    assert len(found.names) == found.parts.shape[1] == len(set(found.names))
    assert found.norm == {freeze_norm: "frozen", linearise_norm: "linearised"}[norm] and found.word == "a − b"


@pytest.mark.parametrize("missed", [0.02, -0.02])
def test_parts_that_miss_the_logit_of_one_text_in_either_direction_are_refused(double: Model, missed: float) -> None:
    def short(*given: Any) -> tuple[tuple[str, ...], torch.Tensor]:
        names, parts = components(*given)
        parts[1, 0] += missed * parts[1].abs().sum()
        return names, parts

    with pytest.raises(InvalidArgument, match="is not the sum of these parts"):
        attribute(double, TEXTS, "a", into=short)


def test_a_frozen_share_is_the_layer_norm_written_out_with_its_divisor_held(double: Model) -> None:
    found = attribute(double, TEXTS[0], "a", into=components, at=index(3))
    x = capture(double, TEXTS[0], [resid_post[2], attn_out[1], mlp_out[2]])
    norm, U = double.hf.transformer.ln_f, double.hf.lm_head.weight[double.tokens("a").ids[0, -1]]
    end = x[resid_post[2]][0, 4]
    s = ((end - end.mean()).square().mean() + norm.eps).sqrt()
    for site in (attn_out[1], mlp_out[2]):
        c = x[site][0, 4]
        expected = ((c - c.mean()) / s * norm.weight) @ U
        torch.testing.assert_close(found.parts[0, found.names.index(str(site))], expected.detach(), rtol=0, atol=1e-11)
    torch.testing.assert_close(found.parts[0, -1], (norm.bias @ U).detach(), rtol=0, atol=1e-11)


def test_a_linearised_share_is_how_the_logit_moves_with_a_little_more_of_the_part(double: Model) -> None:
    found = attribute(double, TEXTS[0], "a", norm=linearise_norm)
    token = int(double.tokens("a").ids[0, -1])
    for site in (mlp_out[2], attn_out[2]):  # in the last block attention is also read by the feed-forward layer
        ends = []
        for factor in (1 + 1e-5, 1 - 1e-5):
            with torch.no_grad(), intervene(double, {site: scale(factor, at=last)}):
                ends.append(double.run(TEXTS[0])[0, -1, token])
        slope = (ends[0] - ends[1]) / 2e-5
        share = found.parts[0, found.names.index(str(site))]
        if site.name == "mlp_out":
            torch.testing.assert_close(share, slope, rtol=1e-6, atol=1e-8)
        else:
            assert float((share - slope).abs()) > 1e-6  # direct attribution leaves out what later parts make of it


def test_the_heads_of_a_layer_sum_to_its_attention_and_the_neurons_to_its_feed_forward(double: Model) -> None:
    whole, by_head, by_neuron = (attribute(double, TEXTS, "a", into=into) for into in (components, heads, neurons))

    def total(found: Attribution, *starts: str) -> torch.Tensor:
        return sum(found.parts[:, i] for i, name in enumerate(found.names) if name.startswith(starts))

    for layer in range(3):
        torch.testing.assert_close(
            total(by_head, f"head {layer}.", f"bias of attention {layer}"), total(whole, f"attn_out.{layer}")
        )
        torch.testing.assert_close(
            total(by_neuron, f"neuron {layer}.", f"bias of feed-forward {layer}"), total(whole, f"mlp_out.{layer}")
        )


def test_a_heads_share_is_what_zeroing_it_in_the_last_block_takes_from_the_stream(double: Model) -> None:
    found = attribute(double, TEXTS[0], "a", into=heads)
    x = capture(double, TEXTS[0], [resid_post[2], z[2]])
    reader = freeze_norm(double, x[resid_post[2]][:, -1], double.tokens("a").ids[0, -1:])
    W = double.hf.transformer.h[2].attn.c_proj.weight.unflatten(0, (4, 8))
    for head in range(4):
        expected = x[z[2]][0, -1, head] @ W[head] @ reader.g[0]
        share = found.parts[0, found.names.index(f"head 2.{head}")]
        torch.testing.assert_close(share, expected.detach(), rtol=0, atol=1e-11)


@pytest.mark.parametrize("into", [components, heads, neurons])
def test_the_parts_sum_to_the_logit_in_other_families(into: Any, fresh: Callable[..., Model]) -> None:
    for family in ("llama", "gpt_neox", "qwen2"):
        model = fresh(family)
        found = attribute(model, TEXTS, "a", into=into)
        logits = model.run(TEXTS)[last.mask(model.tokens(TEXTS))][:, int(model.tokens("a").ids[0, -1])]
        torch.testing.assert_close(found.parts.sum(1), logits.detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", [freeze_norm, linearise_norm])
@pytest.mark.parametrize("into", [components, heads, neurons])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_the_parts_are_those_of_single_precision(
    into: Any, norm: Any, dtype: torch.dtype, hf_model: Callable[..., Any], tokenizer: Any
) -> None:
    half = load(hf_model("gpt2").to(dtype), tokenizer, check=False)
    single = load(hf_model("gpt2").to(dtype).float(), tokenizer, check=False)
    ours, theirs = (attribute(model, TEXTS, "a", versus="b", into=into, norm=norm) for model in (half, single))
    assert ours.parts.dtype == torch.float32
    size = float(theirs.parts.abs().sum(1).max())
    assert float((ours.parts - theirs.parts).abs().sum(1).max()) < 8 * torch.finfo(dtype).eps * size
    assert float((ours.parts.sum(1) - ours.logit).abs().max()) < 4 * torch.finfo(dtype).eps * size


def test_a_family_whose_embeddings_are_narrower_than_its_stream_has_them_as_one_part(tokenizer: Any) -> None:
    import transformers as hf

    config = hf.OPTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        ffn_dim=48,
        vocab_size=257,
        max_position_embeddings=96,
        word_embed_proj_dim=16,
        _remove_final_layer_norm=True,
    )
    torch.manual_seed(0)
    model = load(hf.OPTForCausalLM(config).eval(), tokenizer)
    found = attribute(model, TEXTS, "a")
    logits = model.run(TEXTS)[last.mask(model.tokens(TEXTS))][:, int(model.tokens("a").ids[0, -1])]
    assert found.names[0] == "embeddings"
    torch.testing.assert_close(found.parts.sum(1), logits.detach(), rtol=1e-4, atol=1e-4)
    config._remove_final_layer_norm, config.do_layer_norm_before = False, False
    with pytest.raises(ValueError, match="is not the sum of these parts"):
        attribute(load(hf.OPTForCausalLM(config).eval(), tokenizer), TEXTS, "a")


def test_a_norm_without_weights_is_held_like_any_other(tokenizer: Any) -> None:
    import transformers as hf

    config = hf.OlmoConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=48,
        vocab_size=257,
        max_position_embeddings=96,
    )
    torch.manual_seed(0)
    model = load(hf.OlmoForCausalLM(config).eval(), tokenizer)
    found = attribute(model, TEXTS, "a")
    logits = model.run(TEXTS)[last.mask(model.tokens(TEXTS))][:, int(model.tokens("a").ids[0, -1])]
    torch.testing.assert_close(found.parts.sum(1), logits.detach(), rtol=1e-4, atol=1e-4)


def test_a_number_of_largest_parts_below_1_is_refused(gpt2: Model) -> None:
    found = attribute(gpt2, TEXTS, "a")
    for count in (0, -1):
        with pytest.raises(ValueError, match=f"the {count} largest parts were asked for: give 1 or more"):
            found.top(count)


def test_a_model_whose_logits_are_no_sum_of_parts_is_refused(fresh: Callable[..., Model], model: Model) -> None:
    if model.hf.config.model_type == "bert":
        with pytest.raises(ValueError, match="is no linear map of the stream"):
            attribute(model, TEXTS, "a")
    if model.hf.config.model_type == "gemma2":
        with pytest.raises(ValueError, match="are capped"):
            attribute(model, TEXTS, "a")
        uncapped = fresh("gemma2", final_logit_softcapping=None)
        found = attribute(uncapped, TEXTS, "a")
        assert float((found.parts.sum(1) - found.logit).abs().max()) < 1e-3
        for into, what in ((heads, "attn_out.0"), (neurons, "mlp_out.0")):
            with pytest.raises(ValueError, match=f"normalises {what} before it is added"):
                attribute(uncapped, TEXTS, "a", into=into)


def test_an_autoencoder_outside_the_stream_has_no_parts_of_it() -> None:
    sae = autoencoder(1)
    sae.site = mlp_out[1]
    with pytest.raises(ValueError, match=r"reads mlp_out\.1, and its latents are parts of the stream only if"):
        latents(sae)


def test_a_dictionary_of_which_a_process_holds_a_part_is_not_split() -> None:
    sae = autoencoder(1)
    sae.W_dec = torch.nn.Parameter(sae.W_dec[:10].detach())
    with pytest.raises(InvalidArgument, match=f"holds 10 of {sae.d_sae} latents"):
        latents(sae)


def test_the_largest_parts_come_first_by_size_whatever_their_sign(gpt2: Model) -> None:
    found = attribute(gpt2, TEXTS, "a", into=heads)
    sizes = [abs(value) for _, value in found.top(6)]
    assert sizes == sorted(sizes, reverse=True) and len(sizes) == 6
    assert sizes[0] == pytest.approx(float(found.parts.mean(0).abs().max()))


@pytest.mark.parametrize("norm", [freeze_norm, linearise_norm])
@pytest.mark.parametrize("into", [components, heads, neurons])
def test_a_model_without_norms_and_without_a_tokenizer_has_the_shares_that_its_weights_say(
    into: Any, norm: Any, hf_model: Callable[..., Any]
) -> None:
    hf = hf_model("gpt2").double()
    hf.transformer.ln_f = nn.Identity()
    for block in hf.transformer.h:
        block.ln_1, block.ln_2 = nn.Identity(), nn.Identity()
    model, ids = load(hf, check=False), torch.tensor([[5, 9, 40]])
    found = attribute(model, ids, 7, versus=11, into=into, norm=norm)
    logits = model.run(ids)[0, -1].detach()
    assert found.word == "[7] − [11]"
    torch.testing.assert_close(found.parts.sum(1), (logits[7] - logits[11])[None], rtol=0, atol=1e-10)
    out, W_U = capture(model, ids, mlp_out[1])[mlp_out[1]][0, -1], hf.lm_head.weight.detach()
    if into is not neurons:
        share = found.parts[0, found.names.index("mlp_out.1")]
        torch.testing.assert_close(share, out @ (W_U[7] - W_U[11]), rtol=0, atol=1e-10)


@pytest.mark.parametrize("norm", [freeze_norm, linearise_norm])
def test_the_bias_of_the_head_is_in_the_logit(norm: Any, hf_model: Callable[..., Any]) -> None:
    hf = hf_model("gpt2").double()
    plain, weight = hf.lm_head, hf.lm_head.weight.detach().clone()
    hf.lm_head = nn.Linear(plain.in_features, plain.out_features).double()
    with torch.no_grad():
        hf.lm_head.weight.copy_(weight)
        hf.lm_head.bias.normal_(generator=torch.Generator().manual_seed(0))
    model, ids = load(hf, check=False), torch.tensor([[5, 9, 40]])
    found, logits = attribute(model, ids, 7, versus=11, norm=norm), model.run(ids)[0, -1].detach()
    torch.testing.assert_close(found.logit, (logits[7] - logits[11])[None], rtol=0, atol=1e-10)
    torch.testing.assert_close(found.parts.sum(1), found.logit, rtol=0, atol=1e-10)


NAMED = ["arena-brackets", "arena-sorted-list", "grokking-induction-head-infinite"]


@pytest.mark.skipif(not TOYS.exists(), reason="the toys are not beside the project")
@pytest.mark.parametrize("name", [*NAMED, "grokking-wd-10-1-mod-addition-loss-curve"])
def test_real_toys_have_shares_that_sum_to_their_logit(name: str) -> None:
    model = load(toy(name), check=False)
    n = model.hf.config.n_positions
    found = attribute(model, torch.arange(n)[None] % 3, 1, versus=0, into=heads)
    logits = model.run(torch.arange(n)[None] % 3)[0, -1].detach()
    torch.testing.assert_close(found.parts.sum(1), (logits[1] - logits[0])[None], rtol=1e-4, atol=1e-3)


def test_a_token_id_is_its_word_and_the_first_of_several_tokens_can_be_asked_for(double: Model) -> None:
    token = int(double.tokens("a").ids[0, -1])
    assert torch.equal(attribute(double, TEXTS, token).parts, attribute(double, TEXTS, "a").parts)
    assert attribute(double, TEXTS, token).word == "a"
    assert torch.equal(attribute(double, TEXTS, first_token(double, "abc")).parts, attribute(double, TEXTS, "a").parts)
    with pytest.raises(ValueError, match=r"'ab' is 2 tokens, \['a', 'b'\]: give one token, first_token\(model, word\)"):
        attribute(double, TEXTS, "ab")
    for odd in (-1, 257):
        with pytest.raises(ValueError, match=f"{odd} is no token of .*: ids are 0 to 256"):
            attribute(double, TEXTS, odd)


def test_an_attribution_shows_its_largest_parts_in_a_line_and_all_of_them_in_a_frame(double: Model) -> None:
    found = attribute(double, TEXTS, "a")
    assert len(repr(found)) < 200 and "tensor" not in repr(found) and found.top(1)[0][0] in repr(found)
    frame = found.to_pandas()
    assert frame.groupby("text")["share"].sum().tolist() == pytest.approx(found.logit.tolist())
    assert frame["part"].tolist() == [*found.names] * 2
