"""The toys next to the project, TransformerLens state dicts, put into GPT-2's modules."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

TOYS = Path(__file__).resolve().parents[2] / "shared" / "models" / "toys"


def toy(name: str) -> Any:
    """A GPT-2 with a toy's weights: without norms where it has none, its feed-forward zero where it has none."""
    import transformers
    from safetensors.torch import load_file

    c = json.loads((TOYS / name / "hooked_transformer_config.json").read_text())
    w = load_file(TOYS / name / "model.safetensors")
    sizes = {"n_layer": c["n_layers"], "n_head": c["n_heads"], "n_embd": c["d_model"], "n_inner": c.get("d_mlp", 4)}
    read = {"n_positions": c["n_ctx"], "vocab_size": c["d_vocab"], "activation_function": c["act_fn"]}
    ends = {"bos_token_id": 0, "eos_token_id": 0, "tie_word_embeddings": False}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **read, **ends)).eval()
    model.lm_head = nn.Linear(c["d_model"], c["d_vocab_out"])
    state = {"transformer.wte.weight": w["embed.W_E"], "transformer.wpe.weight": w["pos_embed.W_pos"]}
    state |= {"lm_head.weight": w["unembed.W_U"].T, "lm_head.bias": w["unembed.b_U"]}
    if c.get("normalization_type", "LN") is None:
        model.transformer.ln_f = nn.Identity()
        for block in model.transformer.h:
            block.ln_1, block.ln_2 = nn.Identity(), nn.Identity()
    for ours, theirs in [("ln_f", "ln_final")] + [(f"h.{i}.ln_1", f"blocks.{i}.ln1") for i in range(c["n_layers"])]:
        if f"{theirs}.w" in w:
            state |= {f"transformer.{ours}.weight": w[f"{theirs}.w"], f"transformer.{ours}.bias": w[f"{theirs}.b"]}
    for i in range(c["n_layers"]):
        state |= {f"transformer.h.{i}.{name}": value for name, value in _block(w, f"blocks.{i}.").items()}
    assert not model.load_state_dict(state, strict=False).unexpected_keys
    for i, block in enumerate(model.transformer.h):
        if f"blocks.{i}.mlp.W_in" not in w:
            for parameter in block.mlp.parameters():
                nn.init.zeros_(parameter)
    return model


def _block(w: dict[str, Tensor], at: str) -> dict[str, Tensor]:
    attention = {
        "attn.c_attn.weight": torch.cat([w[f"{at}attn.W_{x}"].transpose(0, 1).flatten(1) for x in "QKV"], 1),
        "attn.c_attn.bias": torch.cat([w[f"{at}attn.b_{x}"].flatten() for x in "QKV"]),
        "attn.c_proj.weight": w[f"{at}attn.W_O"].flatten(0, 1),
        "attn.c_proj.bias": w[f"{at}attn.b_O"],
    }
    if f"{at}mlp.W_in" not in w:
        return attention
    return attention | {
        "mlp.c_fc.weight": w[f"{at}mlp.W_in"],
        "mlp.c_fc.bias": w[f"{at}mlp.b_in"],
        "mlp.c_proj.weight": w[f"{at}mlp.W_out"],
        "mlp.c_proj.bias": w[f"{at}mlp.b_out"],
    }
