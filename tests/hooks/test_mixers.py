"""Sites of cross-attention, of gates and of other mixers of tokens are what the models' own modules give."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.tiny_models import tiny_model
from hooks import Model, Site, capture, intervene, load
from hooks.errors import InvalidArgument, WrongState
from hooks.gradients import capture_gradients
from hooks.interventions import replace, zero
from hooks.mixer_state import _is_close, _up_to, _without_hooks
from hooks.position import everywhere
from hooks.site import (
    attn_gate,
    attn_out,
    decoder,
    encoder,
    layer_embed,
    mixer_gate,
    mixer_in,
    mixer_out,
    mixer_state,
    pattern,
    q,
    resid_post,
    z,
)

IDS = torch.randint(6, 99, (1, 11), generator=torch.Generator().manual_seed(1))


def given(module: Any, run: Any, side: str = "output") -> Tensor:
    """What one module gives, or reads, by a plain hook."""
    got: list[Tensor] = []

    def after(_m: Any, args: Any, kwargs: Any, output: Any) -> None:
        read = args[0] if args else next(iter(kwargs.values()))
        got.append(read if side == "input" else output[0] if isinstance(output, tuple) else output)

    handle = module.register_forward_hook(after, with_kwargs=True)
    with torch.no_grad():
        run()
    handle.remove()
    return got[-1].clone()


@pytest.fixture(scope="module")
def bart() -> Model:
    return load(tiny_model("bart", "BartForConditionalGeneration"))


def test_cross_attention_has_sites_and_they_are_its_projections(bart: Model) -> None:
    cross = bart.hf.model.decoder.layers[1].encoder_attn
    for name in "qkv":
        site = Site(f"cross_{name}", 1, "decoder")
        made = given(getattr(cross, f"{name}_proj"), lambda: bart.run(IDS))
        torch.testing.assert_close(capture(bart, IDS, site)[site].flatten(2), made)
    read = given(cross.out_proj, lambda: bart.run(IDS), "input")
    torch.testing.assert_close(capture(bart, IDS, decoder.cross_z[1])[decoder.cross_z[1]].flatten(2), read)


def test_cross_patterns_average_the_encoders_values(bart: Model) -> None:
    sites = [decoder.cross_pattern[0], decoder.cross_v[0], decoder.cross_z[0]]
    weights, v, averaged = (capture(bart, IDS, sites)[site] for site in sites)
    torch.testing.assert_close(torch.einsum("bhqk,bkhd->bqhd", weights, v), averaged)
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    assert bool((weights > 0).all()), "no token of the encoder is hidden from the decoder"


def test_keys_and_values_of_cross_attention_are_of_the_encoders_tokens(bart: Model) -> None:
    text = bart.tokens({"input_ids": IDS.repeat(3, 1), "attention_mask": torch.ones(3, 11),
                        "decoder_input_ids": IDS.repeat(3, 1)[:, :5]})  # fmt: skip
    sites = [decoder.cross_pattern[1], decoder.cross_k[1], decoder.cross_q[1]]
    whole, parts = capture(bart, text, sites), capture(bart, text, sites, batch_size=2)
    assert [whole[site].shape for site in sites] == [(3, 4, 5, 11), (3, 11, 4, 8), (3, 5, 4, 8)]
    for site in sites:
        torch.testing.assert_close(whole[site], parts[site])
    with intervene(bart, {decoder.cross_k[1]: zero()}) as receipt:
        changed = capture(bart, text, decoder.cross_pattern[1])[decoder.cross_pattern[1]]
    torch.testing.assert_close(changed, torch.full_like(changed, 1 / 11))
    assert receipt is not None


def test_a_decoder_alone_says_that_it_reads_no_encoder() -> None:
    with pytest.raises(InvalidArgument, match="none of its blocks reads an encoder"):
        capture(load(tiny_model("llama", "LlamaForCausalLM")), IDS, Site("cross_q", 0))


MIXERS = [
    ("mamba", "MambaForCausalLM", "backbone.layers.1.mixer", slice(48, 96)),
    ("falcon_h1", "FalconH1ForCausalLM", "model.layers.1.mamba", slice(0, 64)),
    ("bamba", "BambaForCausalLM", "model.layers.0.mamba", slice(0, 64)),
]


@pytest.mark.parametrize(("kind", "name", "path", "rows"), MIXERS, ids=[kind for kind, *_ in MIXERS])
def test_a_mixers_input_and_gate_are_what_flows_there_and_a_gate_of_zero_closes_it(
    kind: str, name: str, path: str, rows: slice
) -> None:
    model = load(tiny_model(kind, name))
    layer = int(path.split(".")[-2])
    mixer = model.hf.get_submodule(path)
    acts = capture(model, IDS, [mixer_in[layer], mixer_gate[layer]])
    torch.testing.assert_close(acts[mixer_in[layer]], given(mixer, lambda: model.run(IDS), "input"))
    torch.testing.assert_close(acts[mixer_gate[layer]], given(mixer.in_proj, lambda: model.run(IDS))[..., rows])
    with intervene(model, {mixer_gate[layer]: zero()}):
        closed = capture(model, IDS, mixer_out[layer])[mixer_out[layer]]
    bias = mixer.out_proj.bias
    torch.testing.assert_close(closed, torch.zeros_like(closed) if bias is None else bias.expand_as(closed))


def test_gated_attention_has_its_gate_and_queries_without_it() -> None:
    model = load(tiny_model("qwen3_next", "Qwen3NextForCausalLM"))
    assert model.contract is not None
    assert not model.contract.refused
    layer = next(site.layer for site in model.sites if site.name == "attn_gate")
    attention = model.hf.model.layers[layer].self_attn
    both = given(attention.q_proj, lambda: model.run(IDS)).unflatten(-1, (4, -1))
    acts = capture(model, IDS, [q[layer], attn_gate[layer], z[layer]])
    torch.testing.assert_close(acts[q[layer]], both[..., :8])
    torch.testing.assert_close(acts[attn_gate[layer]], both[..., 8:].flatten(2))
    with intervene(model, {attn_gate[layer]: zero()}):
        halved = capture(model, IDS, [z[layer], pattern[layer], attn_out[layer]])
    torch.testing.assert_close(
        halved[z[layer]], acts[z[layer]] * 0.5 / acts[attn_gate[layer]].sigmoid().view_as(acts[z[layer]])
    )


def test_an_encoders_sites_are_as_before(bart: Model) -> None:
    assert encoder.pattern[1] in bart.sites
    assert Site("cross_q", 0, "encoder") not in bart.sites


def test_what_modules_give_next_to_a_tensor_does_not_stop_a_law() -> None:
    report = load(tiny_model("ibert", "IBertForMaskedLM")).contract  # its norms and embeddings give a scale too
    assert report is not None
    assert not report.refused
    assert all(one.holds for one in report.checks if one.law in ("attention adds", "feed-forward adds", "embedding"))


@torch.no_grad()
def test_the_state_of_a_mamba_is_its_recurrence() -> None:
    """state_t = exp(Δ_t A) state_{t-1} + Δ_t B_t x_t (Gu and Dao 2023, equation 2), from what the projections give."""
    model = load(tiny_model("mamba", "MambaForCausalLM"))
    mixer = model.hf.backbone.layers[1].mixer
    x = given(mixer.x_proj, lambda: model.run(IDS), "input")[0]
    step, B, _ = given(mixer.x_proj, lambda: model.run(IDS))[0].split([4, 8, 8], dim=-1)
    step = torch.nn.functional.softplus(mixer.dt_proj(step))
    A, state = -mixer.A_log.exp(), torch.zeros(48, 8)
    ours = capture(model, IDS, mixer_state[1])[mixer_state[1]]
    assert ours.shape == (1, 11, 48, 8)
    for t in range(11):
        state = (step[t, :, None] * A).exp() * state + step[t, :, None] * B[t] * x[t, :, None]
        torch.testing.assert_close(ours[0, t], state, rtol=1e-4, atol=1e-5)


STATEFUL = {
    "mamba2": "Mamba2ForCausalLM",
    "qwen3_next": "Qwen3NextForCausalLM",
    "falcon_h1": "FalconH1ForCausalLM",
    "zamba2": "Zamba2ForCausalLM",
}


@pytest.mark.parametrize("kind", STATEFUL)
def test_a_state_is_what_the_models_cache_holds_after_each_token_and_reading_it_changes_nothing(kind: str) -> None:
    model = load(tiny_model(kind, STATEFUL[kind]))
    sites = [site for site in model.sites if site.name == "mixer_state"]
    assert sites
    last = resid_post[model.n_layers - 1]
    acts = capture(model, IDS, [*sites, last])
    for end in (1, 3, 8, 11):
        with torch.no_grad():
            output = model.hf(input_ids=IDS[:, :end], use_cache=True)
        cache = output.get("cache_params") or output.past_key_values
        for site in sites:
            torch.testing.assert_close(acts[site][:, end - 1], cache.layers[site.layer].recurrent_states[0])
    assert torch.equal(acts[last], capture(model, IDS, last)[last])


def test_a_state_under_padding_is_that_of_the_text_alone() -> None:
    model = load(tiny_model("mamba2", "Mamba2ForCausalLM"))
    mask = torch.ones(2, 11)
    mask[1, :4] = 0
    both = capture(model, {"input_ids": IDS.repeat(2, 1), "attention_mask": mask}, mixer_state[0])[mixer_state[0]]
    alone = capture(model, IDS[:, 4:], mixer_state[0])[mixer_state[0]]
    torch.testing.assert_close(both[1, 4:], alone[0])


def test_a_state_is_read_and_not_written_and_not_while_its_mixer_is_changed_inside() -> None:
    model = load(tiny_model("mamba", "MambaForCausalLM"))
    with pytest.raises(InvalidArgument, match=r"intervene at mixer_in.0 or mixer_out.0"):
        intervene(model, {mixer_state[0]: zero()})
    with pytest.raises(InvalidArgument, match="no gradient"):
        capture_gradients(model, IDS, [mixer_state[0]], lambda logits: logits.sum())
    with intervene(model, {mixer_gate[0]: zero()}), pytest.raises(WrongState, match="written inside MambaMixer"):
        capture(model, IDS, mixer_state[0])
    value = torch.randn(32, generator=torch.Generator().manual_seed(3))
    with intervene(model, {mixer_in[0]: replace(value, at=everywhere)}):
        written = capture(model, IDS, mixer_state[0])[mixer_state[0]]
    assert not torch.allclose(written, capture(model, IDS, mixer_state[0])[mixer_state[0]])


@pytest.mark.parametrize(("kind", "name"), [("llama", "LlamaForCausalLM"), ("rwkv", "RwkvForCausalLM")])
def test_a_model_without_a_state_in_a_cache_says_so(kind: str, name: str) -> None:
    with pytest.raises(InvalidArgument, match="none of its mixers leaves one state in a cache"):
        capture(load(tiny_model(kind, name)), IDS, mixer_state[0])


@torch.no_grad()
def test_the_embedding_of_a_layer_is_what_its_block_is_given_and_writing_it_moves_that_block_on() -> None:
    model = load(tiny_model("gemma4_text", "Gemma4ForCausalLM"))
    block, got = model.hf.model.layers[1], []
    handle = block.register_forward_pre_hook(lambda _m, args, _k: got.append(args[1]), with_kwargs=True)
    ours = capture(model, IDS, [layer_embed[1], resid_post[0], resid_post[1]])
    handle.remove()
    assert torch.equal(ours[layer_embed[1]], got[0])
    with intervene(model, {layer_embed[1]: zero()}):
        changed = capture(model, IDS, [resid_post[0], resid_post[1]])
    handle = block.register_forward_pre_hook(
        lambda _m, args, kwargs: ((args[0], torch.zeros_like(args[1]), *args[2:]), kwargs), with_kwargs=True
    )
    theirs = given(block, lambda: model.hf(input_ids=IDS, use_cache=False))
    handle.remove()
    torch.testing.assert_close(changed[resid_post[1]], theirs)
    assert torch.equal(changed[resid_post[0]], ours[resid_post[0]])
    assert not torch.allclose(changed[resid_post[1]], ours[resid_post[1]])


def test_a_model_without_embeddings_of_layers_says_so() -> None:
    with pytest.raises(InvalidArgument, match="none of its blocks is given an embedding of its own"):
        capture(load(tiny_model("llama", "LlamaForCausalLM")), IDS, layer_embed[0])


class Reader(nn.Module):
    """A mixer that takes a cache as its third argument."""

    def forward(self, x: Tensor, mask: Tensor | None = None, cache_params: Any = None, at: Any = None) -> Tensor: ...


def test_a_call_is_cut_to_its_first_tokens_and_given_a_cache_where_its_mixer_takes_one() -> None:
    random, cache = torch.Generator().manual_seed(0), object()
    x, mask, other = torch.randn(2, 5, 3, generator=random), torch.ones(2, 5), torch.randn(2, 4, generator=random)
    at, name = torch.arange(5), "fog"
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((x,), {"mask": mask, "at": at}),
        ((x, mask), {"at": other}),
        ((x, mask, None), {"at": name}),
        ((x, mask, None, at), {}),
        ((), {"x": x, "mask": mask}),
    ]
    for args, kwargs in calls:
        short, named = _up_to(args, kwargs, 5, 2, Reader(), cache)
        given = dict(zip(("x", "mask", "cache_params", "at"), short, strict=False)) | named
        assert len(short) == len(args) and given["cache_params"] is cache
        assert torch.equal(given["x"], x[:, :2]) and torch.equal(given["mask"], mask[:, :2])
        assert given.get("at") is (args[3] if len(args) > 3 else kwargs.get("at"))


@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float64, 1e-8), (torch.float32, 1e-4), (torch.bfloat16, 3e-2)])
def test_what_a_mixer_gives_with_a_cache_may_differ_by_rounding_and_no_more(dtype: torch.dtype, allowed: float) -> None:
    plain = torch.zeros(40, dtype=dtype)
    plain[0] = 8.0
    for share, close in ((0.95, True), (1.05, False), (-0.95, True), (-1.05, False)):
        other = plain.double().clone()
        other[1] = 8 * share * allowed  # of a length of its own, whatever the precision of the other
        assert _is_close(other, plain) is close
    assert _is_close(torch.zeros(3, dtype=dtype), torch.zeros(3, dtype=dtype))
    assert not _is_close(-plain, plain)


def test_a_mixer_alone_has_the_shape_of_its_state_and_no_heads() -> None:
    model = load(tiny_model("mamba", "MambaForCausalLM"), check=False)
    inside: Any = model.tap(mixer_state[0]).inside
    x = torch.randn(2, 4, 32, generator=torch.Generator().manual_seed(0))
    assert inside.shape((x,), {}, 4) == (48, 8) == inside.states((x,), {}).shape[2:]
    handle = model.hf.backbone.layers[0].mixer.register_forward_hook(lambda *_: 1 / 0)
    with torch.no_grad():
        made = _without_hooks(model.hf)(IDS).logits
    handle.remove()
    assert torch.equal(made, model.run(IDS))
