"""Every captured tensor equals what a forward pass written by hand from the papers gives."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from hooks import Model, Site, capture, intervene, load
from hooks.interventions import replace
from hooks.site import logits
from hooks.view import norm_scale

Got = dict[str, Tensor]
TEXTS = ["The Golden Gate Bridge", "Fog over the bay...   "]


def weights(model: Model) -> Callable[[str], Tensor]:
    state = {**model.hf.state_dict(), **dict(model.hf.named_parameters(remove_duplicate=False))}
    return lambda name: state[name].detach()


def linear(w: Callable[[str], Tensor], name: str, x: Tensor) -> Tensor:
    try:
        return x @ w(f"{name}.weight").T + w(f"{name}.bias")
    except KeyError:
        return x @ w(f"{name}.weight").T


def conv(w: Callable[[str], Tensor], name: str, x: Tensor) -> Tensor:
    return x @ w(f"{name}.weight") + w(f"{name}.bias")


def layer_norm(w: Callable[[str], Tensor], name: str, x: Tensor, eps: float) -> Tensor:
    x = x - x.mean(-1, keepdim=True)
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * w(f"{name}.weight") + w(f"{name}.bias")


def rms_norm(weight: Tensor, x: Tensor, eps: float) -> Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight


def rotate(x: Tensor, part: int, base: float = 10000.0) -> Tensor:
    """Rotary embedding of the first `part` features of each head; x is [batch pos head d_head]."""
    angle = torch.arange(x.shape[1])[:, None] * base ** (-torch.arange(0, part, 2) / part)
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    a, b = x[..., : part // 2], x[..., part // 2 : part]
    return torch.cat([a * cos - b * sin, b * cos + a * sin, x[..., part:]], -1)


def attend(q: Tensor, k: Tensor, v: Tensor, *, scale: float, cap: float = 0.0, window: int = 999, causal: bool = True):
    """Return z [batch pos head d_head] and the pattern [batch head pos pos]."""
    k, v = (one.repeat_interleave(q.shape[2] // one.shape[2], dim=2) for one in (k, v))
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * scale
    scores = (scores / cap).tanh() * cap if cap else scores
    distance = torch.arange(q.shape[1])[:, None] - torch.arange(q.shape[1])
    seen = ((distance >= 0) & (distance < window)) | torch.tensor(not causal)
    pattern = scores.masked_fill(~seen, -math.inf).softmax(-1)
    return torch.einsum("bhqk,bkhd->bqhd", pattern, v), pattern


def heads(x: Tensor, d_head: int) -> Tensor:
    return x.unflatten(-1, (-1, d_head))


def gelu_tanh(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + (math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)).tanh())


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def gpt2(model: Model, ids: Tensor) -> Got:
    w, got = weights(model), {}
    got["embed"] = w("transformer.wte.weight")[ids]
    got["pos_embed"] = w("transformer.wpe.weight")[: ids.shape[1]].expand_as(got["embed"])
    x = got["embed"] + got["pos_embed"]
    for i in range(3):
        at = f"transformer.h.{i}"
        got[f"resid_pre.{i}"] = x
        joint = conv(w, f"{at}.attn.c_attn", layer_norm(w, f"{at}.ln_1", x, 1e-5))
        q, k, v = (heads(part, 8) for part in joint.split(32, -1))
        z, pattern = attend(q, k, v, scale=8**-0.5)
        out = conv(w, f"{at}.attn.c_proj", z.flatten(-2))
        got |= {f"q.{i}": q, f"k.{i}": k, f"v.{i}": v, f"z.{i}": z, f"pattern.{i}": pattern, f"attn_out.{i}": out}
        got[f"resid_mid.{i}"] = x = x + out
        got[f"mlp_in.{i}"] = layer_norm(w, f"{at}.ln_2", x, 1e-5)
        got[f"mlp_pre.{i}"] = conv(w, f"{at}.mlp.c_fc", got[f"mlp_in.{i}"])
        got[f"mlp_act.{i}"] = gelu_tanh(got[f"mlp_pre.{i}"])
        got[f"mlp_out.{i}"] = conv(w, f"{at}.mlp.c_proj", got[f"mlp_act.{i}"])
        got[f"resid_post.{i}"] = x = x + got[f"mlp_out.{i}"]
    got["ln_final_scale"] = (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    got["logits"] = layer_norm(w, "transformer.ln_f", x, 1e-5) @ w("transformer.wte.weight").T
    return got


def gpt_neox(model: Model, ids: Tensor) -> Got:
    w, got = weights(model), {}
    got["embed"] = x = w("gpt_neox.embed_in.weight")[ids]
    for i in range(3):
        at = f"gpt_neox.layers.{i}"
        got[f"resid_pre.{i}"] = x
        joint = linear(w, f"{at}.attention.query_key_value", layer_norm(w, f"{at}.input_layernorm", x, 1e-5))
        q, k, v = joint.unflatten(-1, (4, 3, 8)).unbind(-2)
        z, pattern = attend(rotate(q, 2), rotate(k, 2), v, scale=8**-0.5)
        out = linear(w, f"{at}.attention.dense", z.flatten(-2))
        got |= {f"q.{i}": q, f"k.{i}": k, f"v.{i}": v, f"z.{i}": z, f"pattern.{i}": pattern, f"attn_out.{i}": out}
        got[f"mlp_in.{i}"] = layer_norm(w, f"{at}.post_attention_layernorm", x, 1e-5)
        got[f"mlp_pre.{i}"] = linear(w, f"{at}.mlp.dense_h_to_4h", got[f"mlp_in.{i}"])
        got[f"mlp_act.{i}"] = gelu(got[f"mlp_pre.{i}"])
        got[f"mlp_out.{i}"] = linear(w, f"{at}.mlp.dense_4h_to_h", got[f"mlp_act.{i}"])
        got[f"resid_post.{i}"] = x = x + out + got[f"mlp_out.{i}"]
    got["ln_final_scale"] = (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    got["logits"] = linear(w, "lm_head", layer_norm(w, "gpt_neox.final_layer_norm", x, 1e-5))
    return got


def llama(model: Model, ids: Tensor) -> Got:
    """Llama; Qwen-2 is the same with biases on the queries, keys and values."""
    w, got = weights(model), {}
    got["embed"] = x = w("model.embed_tokens.weight")[ids]
    for i in range(3):
        at = f"model.layers.{i}"
        got[f"resid_pre.{i}"] = x
        h = rms_norm(w(f"{at}.input_layernorm.weight"), x, 1e-6)
        q, k, v = (heads(linear(w, f"{at}.self_attn.{one}_proj", h), 8) for one in "qkv")
        z, pattern = attend(rotate(q, 8), rotate(k, 8), v, scale=8**-0.5)
        out = linear(w, f"{at}.self_attn.o_proj", z.flatten(-2))
        got |= {f"q.{i}": q, f"k.{i}": k, f"v.{i}": v, f"z.{i}": z, f"pattern.{i}": pattern, f"attn_out.{i}": out}
        got[f"resid_mid.{i}"] = x = x + out
        got[f"mlp_in.{i}"] = rms_norm(w(f"{at}.post_attention_layernorm.weight"), x, 1e-6)
        got[f"mlp_pre.{i}"] = gate = linear(w, f"{at}.mlp.gate_proj", got[f"mlp_in.{i}"])
        got[f"mlp_act.{i}"] = gate * gate.sigmoid() * linear(w, f"{at}.mlp.up_proj", got[f"mlp_in.{i}"])
        got[f"mlp_out.{i}"] = linear(w, f"{at}.mlp.down_proj", got[f"mlp_act.{i}"])
        got[f"resid_post.{i}"] = x = x + got[f"mlp_out.{i}"]
    got["ln_final_scale"] = (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()
    got["logits"] = linear(w, "lm_head", rms_norm(w("model.norm.weight"), x, 1e-6))
    return got


def gemma2(model: Model, ids: Tensor) -> Got:
    """Norms around each sublayer, a soft-cap on scores and logits, a sliding window on even layers."""
    w, got = weights(model), {}

    def norm(name: str, x: Tensor) -> Tensor:
        return rms_norm(1 + w(f"{name}.weight"), x, 1e-6)

    got["embed"] = x = w("model.embed_tokens.weight")[ids] * 32**0.5
    for i in range(3):
        at = f"model.layers.{i}"
        got[f"resid_pre.{i}"] = x
        h = norm(f"{at}.input_layernorm", x)
        q, k, v = (heads(linear(w, f"{at}.self_attn.{one}_proj", h), 16) for one in "qkv")
        window = 8 if i % 2 == 0 else 999
        z, pattern = attend(rotate(q, 16), rotate(k, 16), v, scale=16**-0.5, cap=50.0, window=window)
        out = norm(f"{at}.post_attention_layernorm", linear(w, f"{at}.self_attn.o_proj", z.flatten(-2)))
        got |= {f"q.{i}": q, f"k.{i}": k, f"v.{i}": v, f"z.{i}": z, f"pattern.{i}": pattern, f"attn_out.{i}": out}
        got[f"resid_mid.{i}"] = x = x + out
        got[f"mlp_in.{i}"] = norm(f"{at}.pre_feedforward_layernorm", x)
        got[f"mlp_pre.{i}"] = gate = linear(w, f"{at}.mlp.gate_proj", got[f"mlp_in.{i}"])
        got[f"mlp_act.{i}"] = gelu_tanh(gate) * linear(w, f"{at}.mlp.up_proj", got[f"mlp_in.{i}"])
        down = linear(w, f"{at}.mlp.down_proj", got[f"mlp_act.{i}"])
        got[f"mlp_out.{i}"] = norm(f"{at}.post_feedforward_layernorm", down)
        got[f"resid_post.{i}"] = x = x + got[f"mlp_out.{i}"]
    got["ln_final_scale"] = (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()
    got["logits"] = (norm("model.norm", x) @ w("lm_head.weight").T / 30).tanh() * 30
    return got


def bert(model: Model, ids: Tensor) -> Got:
    """Normalised after each addition; every token sees every token."""
    w, got = weights(model), {}
    at = "bert.embeddings"
    got["embed"] = w(f"{at}.word_embeddings.weight")[ids]
    got["pos_embed"] = w(f"{at}.position_embeddings.weight")[: ids.shape[1]].expand_as(got["embed"])
    x = got["embed"] + got["pos_embed"] + w(f"{at}.token_type_embeddings.weight")[0]
    x = layer_norm(w, f"{at}.LayerNorm", x, 1e-12)
    for i in range(3):
        at = f"bert.encoder.layer.{i}"
        got[f"resid_pre.{i}"] = x
        q, k, v = (heads(linear(w, f"{at}.attention.self.{one}", x), 8) for one in ("query", "key", "value"))
        z, pattern = attend(q, k, v, scale=8**-0.5, causal=False)
        out = linear(w, f"{at}.attention.output.dense", z.flatten(-2))
        got |= {f"q.{i}": q, f"k.{i}": k, f"v.{i}": v, f"z.{i}": z, f"pattern.{i}": pattern, f"attn_out.{i}": out}
        got[f"resid_mid.{i}"] = x = layer_norm(w, f"{at}.attention.output.LayerNorm", x + out, 1e-12)
        got[f"mlp_in.{i}"] = x
        got[f"mlp_pre.{i}"] = linear(w, f"{at}.intermediate.dense", x)
        got[f"mlp_act.{i}"] = gelu(got[f"mlp_pre.{i}"])
        got[f"mlp_out.{i}"] = linear(w, f"{at}.output.dense", got[f"mlp_act.{i}"])
        got[f"resid_post.{i}"] = x = layer_norm(w, f"{at}.output.LayerNorm", x + got[f"mlp_out.{i}"], 1e-12)
    h = gelu(linear(w, "cls.predictions.transform.dense", x))
    got["ln_final_scale"] = (h.var(-1, unbiased=False, keepdim=True) + 1e-12).sqrt()
    h = layer_norm(w, "cls.predictions.transform.LayerNorm", h, 1e-12)
    got["logits"] = linear(w, "cls.predictions.decoder", h)
    return got


REFERENCES: dict[str, Callable[[Model, Tensor], Got]] = {
    "gpt2": gpt2,
    "gpt_neox": gpt_neox,
    "llama": llama,
    "qwen2": llama,
    "gemma2": gemma2,
    "bert": bert,
}


def reference(model: Model, ids: Tensor) -> Got:
    return REFERENCES[model.hf.config.model_type](model, ids)


def test_every_site_holds_what_a_hand_written_forward_computes(model: Model) -> None:
    tokens = model.tokens(TEXTS)
    assert bool(tokens.mask.all())
    acts, expected = capture(model, tokens, model.sites), reference(model, tokens.ids)
    assert {str(site) for site in acts.sites} == set(expected)
    for site in acts.sites:
        torch.testing.assert_close(
            acts[site], expected[str(site)], atol=2e-5, rtol=1e-4, msg=lambda m, s=site: f"{s}: {m}"
        )


def test_each_site_differs_from_every_other_unless_they_are_one_tensor(model: Model) -> None:
    """Otherwise the hand-written forward could not tell a hook on the wrong tensor."""
    expected = reference(model, model.tokens(TEXTS).ids)
    same = [
        (a, b)
        for a in expected
        for b in expected
        if a < b and expected[a].shape == expected[b].shape and torch.equal(expected[a], expected[b])
    ]
    allowed = {frozenset((f"resid_pre.{i + 1}", f"resid_post.{i}")) for i in range(2)} | {
        frozenset(("embed", "resid_pre.0"))
    }
    allowed |= {frozenset((f"mlp_in.{i}", f"resid_mid.{i}")) for i in range(3)}
    assert {frozenset(pair) for pair in same} <= allowed


def test_logits_are_those_of_the_hugging_face_model_bit_for_bit(model: Model) -> None:
    tokens = model.tokens(TEXTS)
    with torch.no_grad():
        plain = model.hf(tokens.ids).logits
        assert torch.equal(model.run(tokens), plain)
        assert torch.equal(capture(model, tokens, logits)[logits], plain)


def test_a_sequential_gpt_neox_has_a_middle_and_keeps_its_identities(fresh: Any) -> None:
    model = fresh("gpt_neox", use_parallel_residual=False)
    acts = capture(model, TEXTS, model.sites)
    for i in range(3):
        middle = acts[Site("resid_pre", i)] + acts[Site("attn_out", i)]
        torch.testing.assert_close(acts[Site("resid_mid", i)], middle)
        torch.testing.assert_close(acts[Site("resid_post", i)], middle + acts[Site("mlp_out", i)])


@pytest.mark.parametrize("family", ["Olmo2", "Granite", "Mistral", "Qwen3", "GPTBigCode"])
def test_families_with_peculiarities_keep_the_identities_of_the_stream(family: str) -> None:
    """Norms after the sublayers, multipliers, norms of queries and keys, one key-value head."""
    import transformers

    settings = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 50}
    ends = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
    grouped = {} if family == "GPTBigCode" else {"num_key_value_heads": 2, "intermediate_size": 48}
    factors = {"residual_multiplier": 0.5, "embedding_multiplier": 2.0, "logits_scaling": 3.0}
    config = getattr(transformers, f"{family}Config")(
        **settings, **ends, **grouped, **(factors if family == "Granite" else {})
    )
    torch.manual_seed(0)
    model = load(getattr(transformers, f"{family}ForCausalLM")(config))
    ids = torch.tensor([[5, 6, 7, 8]])
    acts = capture(model, ids, model.sites)
    for i in range(2):
        middle = acts[Site("resid_pre", i)] + acts[Site("attn_out", i)]
        torch.testing.assert_close(acts[Site("resid_mid", i)], middle)
        torch.testing.assert_close(acts[Site("resid_post", i)], middle + acts[Site("mlp_out", i)])
        with torch.no_grad(), intervene(model, {Site("resid_mid", i): replace(acts[Site("resid_mid", i)])}):
            torch.testing.assert_close(model.run(ids), acts[logits])
        x = torch.linspace(-3, 3, 32)
        with intervene(model, {Site("attn_out", i): replace(x)}):
            got = capture(model, ids, [Site("resid_pre", i), Site("resid_mid", i), Site("attn_out", i)])
        added = got[Site("resid_mid", i)] - got[Site("resid_pre", i)]
        torch.testing.assert_close(added, x.expand(1, 4, 32), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(got[Site("attn_out", i)], x.expand(1, 4, 32))
    with torch.no_grad():
        torch.testing.assert_close(model.unembed(acts[Site("resid_post", 1)]), acts[logits])


@pytest.mark.parametrize("name", ["LayerNorm", "LlamaRMSNorm", "Gemma2RMSNorm"])
def test_a_stream_however_small_over_its_scale_is_what_the_norm_makes_of_it(name: str) -> None:
    from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    kinds = {"LayerNorm": torch.nn.LayerNorm, "LlamaRMSNorm": LlamaRMSNorm, "Gemma2RMSNorm": Gemma2RMSNorm}
    norm = kinds[name](32, eps=1e-4)
    for size in (1e-4, 1e-2, 1.0):
        x = size * torch.linspace(-1, 1, 32)  # of mean 0
        torch.testing.assert_close(norm(x), x / norm_scale(norm)(x))


def test_a_model_without_a_head_has_every_site_but_those_of_the_head(hf_model: Any) -> None:
    for family, inside in (("bert", "bert"), ("gpt2", "transformer"), ("llama", "model")):
        whole = load(hf_model(family))
        bare = load(whole.hf.get_submodule(inside))
        ids = torch.tensor([[5, 6, 7, 8]])
        assert {site.name for site in set(whole.sites) - set(bare.sites)} <= {"logits", "ln_final_scale"}
        theirs = capture(whole, ids, bare.sites)
        for site, value in capture(bare, ids, bare.sites).values.items():
            assert torch.equal(value, theirs[site])
        with pytest.raises(ValueError, match="has no output embeddings, so no logits: load the model with its head"):
            bare.run(ids)
