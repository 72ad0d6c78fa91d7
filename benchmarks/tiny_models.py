"""Tiny random models of every class of transformers' mappings, made from its configuration class alone."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch

D, LAYERS, HEADS, KV, FF, VOCAB, CONTEXT = 32, 2, 4, 2, 48, 128, 64
_SAME: tuple[tuple[Any, str], ...] = (
    (VOCAB, "vocab_size n_vocab n_words vocab_size_per_layer_input"),
    (D, "hidden_size d_model n_embd dim embed_dim emb_dim embedding_size embedding_dim model_dim word_embed_proj_dim"),
    (D, "lru_width attention_hidden_size projection_dim bottleneck_size intra_bottleneck_size output_dim"),
    (LAYERS, "num_hidden_layers n_layer n_layers num_layers num_decoder_layers encoder_layers decoder_layers depth"),
    (LAYERS, "num_encoder_layers global_attn_every_n_layers"),
    (HEADS, "num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads"),
    (HEADS, "num_encoder_attention_heads num_decoder_attention_heads"),
    (KV, "num_key_value_heads num_kv_heads num_global_key_value_heads"),
    (8, "head_dim d_kv kv_channels head_size global_head_dim qk_nope_head_dim qk_rope_head_dim v_head_dim"),
    (FF, "intermediate_size d_ff ffn_dim n_inner encoder_ffn_dim decoder_ffn_dim dff dense_intermediate_size"),
    (FF, "ffn_hidden_size ffn_hidden_dim feed_forward_size"),
    (CONTEXT, "max_position_embeddings n_positions n_ctx max_seq_len max_sequence_length seq_length"),
    (24, "moe_intermediate_size shared_expert_intermediate_size expert_ffn_hidden_size shared_intermediate_size"),
    (24, "moe_shared_expert_intermediate_size"),
    (4, "num_local_experts num_experts n_routed_experts moe_num_experts"),
    (2, "num_experts_per_tok num_experts_per_token moe_k moe_topk top_k_experts"),
    (1, "n_shared_experts num_shared_experts moe_num_shared_experts n_group topk_group first_k_dense_replace"),
    (1, "num_dense_layers moe_layer_start_index decoder_sparse_step num_mem_blocks mamba_n_groups mamba_ngroups"),
    (1, "n_groups bos_token_id decoder_start_token_id"),
    (16, "q_lora_rank kv_lora_rank qk_head_dim"),
    (8, "mamba_d_state mamba_n_heads mamba_d_head mamba_chunk_size mamba_num_heads mamba_head_dim mamba_headdim"),
    (8, "ssm_state_size state_size chunk_size linear_key_head_dim linear_value_head_dim index_head_dim index_topk"),
    (8, "attention_window_size attention_chunk_size patch_size hidden_size_per_layer_input laurel_rank qk_head_size"),
    (8, "query_pre_attn_scalar relation_size attention_head_size"),
    (64, "mamba_d_ssm"),
    (2, "mamba_expand n_mamba_heads num_heads_linear linear_num_key_heads index_n_heads type_vocab_size eos_token_id"),
    (4, "mamba_d_conv mamba_dt_rank time_step_rank conv_kernel linear_num_value_heads sliding_window rotary_dim"),
    (4, "local_attention local_attention_window"),
    (0, "pad_token_id num_kv_shared_layers num_nextn_predict_layers"),
    (0.0, "dropout"),
    (32, "image_size max_2d_position_embeddings"),
    (3, "num_channels"),
    (10000, "rotary_emb_base"),
    ([8, 8], "num_buckets"),
    (None, "moe_latent_size"),
)
_SMALL: Mapping[str, Any] = {name: value for value, names in _SAME for name in names.split()}
_KEPT_NONE = frozenset(
    ["head_dim", "sliding_window", "q_lora_rank", "n_inner", "rotary_dim", "num_key_value_heads", "local_attention"]
    + ["num_global_key_value_heads", "bos_token_id", "eos_token_id"]
)
_DEPTHS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_GEMMA4 = {"global_head_dim": 16, "num_global_key_value_heads": 1, "vocab_size_per_layer_input": VOCAB}
_INDEXED = dict(
    indexer_n_heads=2, indexer_kv_heads=1, indexer_head_dim=8, indexer_budget=8, indexer_compress_ratio=2,
    hc_count=2, hc_lowrank=8, ngram_vocab_size_base=50, split_ngram_parts=1,
)  # fmt: skip
_ROTATIONS = {kind: {"rope_type": "default", "rope_theta": 1e4} for kind in ("full_attention", "sliding_attention")}
_SCALED = {"residual_multiplier": 0.5, "embedding_multiplier": 2.0, "logits_scaling": 3.0}
_ZAMBA = dict(
    num_hidden_layers=4, layers_block_type=["linear_attention", "hybrid"] * 2, use_mamba_kernels=False,
    attention_hidden_size=64, attention_head_dim=16,
)  # fmt: skip
_GONE = object()
_OWN: Mapping[str, Mapping[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "jamba": dict(
        attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2, expert_layer_offset=1, use_mamba_kernels=False
    ),
    "granitemoehybrid": _SCALED
    | {"layer_types": ["linear_attention", "full_attention"], "layers_block_type": _GONE, "logits_scaling": 1.0},
    "granite": _SCALED,
    "granitemoe": _SCALED,
    "granitemoeshared": _SCALED,
    "recurrent_gemma": {"block_types": ["recurrent", "attention"]},
    "dbrx": dict(
        attn_config=dict(kv_n_heads=2, rope_theta=1e4),
        ffn_config=dict(moe_num_experts=4, moe_top_k=2, ffn_hidden_size=24),
    ),
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 4},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "ministral": {"head_dim": 8},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "nemotron": {"num_key_value_heads": 2},
    "mamba2": {"num_heads": 8, "head_dim": 8, "state_size": 8},
    "prophetnet": {"num_buckets": 32, "ngram": 2},
    "qwen4_exp_text": _INDEXED,
    "reformer": dict(
        is_decoder=True, axial_pos_shape=[8, 8], axial_pos_embds_dim=[16, 16], attn_layers=["local", "local"],
        hash_seed=0,
    ),
    "xlstm": dict(num_blocks=2, num_heads=2, chunk_size=16, ffn_round_up_to_multiple_of=8),
    "xmod": {"default_language": "en_XX", "languages": ["en_XX"]},
    "zamba": _ZAMBA,
    "zamba2": _ZAMBA | dict(
        hybrid_layer_ids=[1, 3], n_mamba_heads=8, mamba_headdim=8, num_query_groups=4, num_key_value_heads=4,
        kv_channels=8,
    ),
    "zaya": {"num_experts_per_tok": 1},
    "cohere_compass_text": {"rope_parameters": _ROTATIONS},
    "bailing_hybrid": dict(n_group=1, num_expert_group=1, topk_group=1),
    "roc_bert": dict(
        pronunciation_vocab_size=50, shape_vocab_size=50, pronunciation_embed_dim=8, shape_embed_dim=8,
        concat_input=True,
    ),
    "gemma4_text": _GEMMA4,
    "gemma4_unified_text": _GEMMA4,
    "gemma4": {"text_config": _GEMMA4},
    "gemma4_unified": {"text_config": _GEMMA4},
    "qwen4_exp": {"text_config": _INDEXED},
    "xlm": dict(n_langs=1, n_words=VOCAB, emb_dim=D),
    "flaubert": dict(n_langs=1, n_words=VOCAB, emb_dim=D),
}  # fmt: skip
"""Settings that a configuration needs beyond its sizes, so that what is peculiar about it is switched on."""
MAPPINGS = {
    "causal": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "masked": "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "seq2seq": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
}
"""The mappings of transformers that are measured."""


def classes(mapping: str) -> Iterator[tuple[str, str]]:
    """Yield (kind of configuration, name of class) of a mapping, each class once."""
    from transformers.models.auto import modeling_auto

    seen = set()
    for kind, names in getattr(modeling_auto, MAPPINGS[mapping]).items():
        name = names if isinstance(names, str) else names[0]
        if name not in seen:
            seen.add(name)
            yield kind, name


def tiny_model(kind: str, name: str, seed: int = 0) -> Any:
    """A tiny random model of a class, every weight and bias moved off its default."""
    import transformers

    config, cls = tiny_config(kind), getattr(transformers, name)
    if cls.config_class is not None and not isinstance(config, cls.config_class):
        text = config.get_text_config()
        config = text if isinstance(text, cls.config_class) else config
    random = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = cls(config).eval()
        for p in model.parameters():
            if p.is_floating_point():
                p += (torch.randn(p.shape, generator=random) * (0.15 if p.ndim > 1 else 0.1)).to(p.dtype)
    return model


def tiny_config(kind: str) -> Any:
    """The smallest configuration of a kind that still has all its parts."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    cls = CONFIG_MAPPING[kind]
    try:
        settings = _shrunk(cls())
    except Exception:  # a configuration that has no defaults
        settings = {}
    for key, value in _OWN.get(kind, {}).items():
        if value is _GONE:
            settings.pop(key, None)
        else:
            both = isinstance(value, Mapping) and isinstance(settings.get(key), dict)
            settings[key] = settings[key] | dict(value) if both else value
    return cls(**settings)


def _shrunk(default: Any, depth: int = 0) -> dict[str, Any]:
    names, aliases = _settable(default), getattr(type(default), "attribute_map", {}) or {}
    made = {
        name: small
        for name, small in _SMALL.items()
        if name in names and name not in aliases and _fits(name, small, _held(default, name))
    }
    for name, value in vars(default).items():
        if hasattr(value, "to_dict") and hasattr(value, "get_text_config") and depth < 3:
            made[name] = _shrunk(value, depth + 1)
        elif name.endswith(("token_id", "token_index")) and isinstance(value, int) and value >= VOCAB:
            made.setdefault(name, 5)
    if "kv_lora_rank" in made and "num_key_value_heads" in made:
        made["num_key_value_heads"] = HEADS
    return made | _kinds_of_layers(default, made, names, aliases)


def _kinds_of_layers(default: Any, made: dict[str, Any], names: set[str], aliases: Mapping[str, str]) -> dict[str, Any]:
    """At least one layer of each kind, in the order in which they come."""
    more: dict[str, Any] = {}
    for name in ("layer_types", "layers_block_type"):
        kinds = getattr(default, name, None)
        if isinstance(kinds, list | tuple) and kinds and isinstance(kinds[0], str):
            seen = list(dict.fromkeys(kinds))
            depth = max(LAYERS, len(seen))
            if name in names and name not in aliases:
                more[name] = (seen * depth)[:depth]
            more |= {deep: depth for deep in _DEPTHS if deep in made}
    if isinstance(getattr(default, "mlp_layer_types", None), list | tuple):
        depth = (made | more).get("num_hidden_layers", LAYERS)
        more["mlp_layer_types"] = ([*dict.fromkeys(default.mlp_layer_types)] * depth)[:depth]
    return more


def _settable(default: Any) -> set[str]:
    names = set(vars(default))
    for cls in type(default).__mro__:
        if "__init__" in vars(cls):
            names |= set(inspect.signature(cls.__init__).parameters)
        names |= set(getattr(cls, "__annotations__", {}))
    return names


def _held(default: Any, name: str) -> Any:
    try:
        return getattr(default, name, None)
    except Exception:  # a property that needs another setting
        return 1


def _fits(name: str, small: Any, held: Any) -> bool:
    if held is None and name in _KEPT_NONE:
        return False
    return not isinstance(held, bool) and (not isinstance(held, list | tuple) or isinstance(small, list | tuple))
