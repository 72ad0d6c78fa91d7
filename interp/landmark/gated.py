"""The gated sibling of the bundled model: a Llama that is trained by the same script on the same rows."""

from typing import TYPE_CHECKING, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.landmark.sealing import Batch, carry

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer


def new_gated_model(
    vocab_size: int, length: int, *, n_layer: int = 8, d_model: int = 256, n_head: int = 8, d_mlp: int = 688
) -> "LlamaForCausalLM":
    """An untrained Llama of the bundled model's shape: as many weights, in a gated feed-forward of 8/3 the width."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=d_model,
            intermediate_size=d_mlp,
            num_hidden_layers=n_layer,
            num_attention_heads=n_head,
            max_position_embeddings=length,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=None,
        )  # fmt: skip
    )


def gated_states(
    model: "LlamaForCausalLM",
    rows: Batch,
    bias: list[Float[Tensor, "batch 1 pos pos"]],
    share: Float[Tensor, "batch d_model"],
    over_all: Bool[Tensor, "batch"],
    sealed_layers: int,
) -> Float[Tensor, "n d_model"]:
    """Llama's forward pass up to the final norm, with a bias for each layer's attention; as `hidden_states`."""
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    batch, length = rows["ids"].shape
    trunk, heads = model.model, model.config.num_attention_heads
    h = trunk.embed_tokens(rows["ids"])
    cos, sin = trunk.rotary_emb(h, rows["position"].long())
    for i, (layer, mask) in enumerate(zip(cast("list[LlamaDecoderLayer]", trunk.layers), bias, strict=True)):
        if i == sealed_layers and bool(share.any()):
            h = carry(h, rows, share, over_all)
        x, attention = layer.input_layernorm(h), layer.self_attn
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        q, k, v = (project(x).view(batch, length, heads, -1).transpose(1, 2) for project in projections)
        q, k = apply_rotary_pos_emb(q, k, cos.to(q), sin.to(q))
        pattern = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + mask, -1, dtype=mask.dtype)
        h = h + attention.o_proj((pattern @ v).transpose(1, 2).reshape(batch, length, -1))
        h = h + layer.mlp(layer.post_attention_layernorm(h))
    return trunk.norm(h).flatten(0, 1)
