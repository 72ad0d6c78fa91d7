"""Exports read by llama.cpp: a Llama written as GGUF, and what a control vector and an adapter do to it there."""

import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hooks import Direction, Model, intervene
from hooks.interventions import add
from hooks.position import everywhere, special
from hooks.site import resid_post
from interp.export import to_gguf_vector, to_peft
from interp.export.client import largest_difference, own_logits
from interp.export.peft_adapter import ADAPTER, CONFIG
from interp.memory import Edit, Fact
from interp.memory.editing.change import LowRank
from interp.steering import Recipe

CLIENT = Path(__file__).parent / "llama_cpp_client.py"
PROMPTS = ["One day, a little dog went to the park", "Lily wanted to play in the park"]
LAYER, DOSE, GREEDY = 2, 0.5, 40
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
"""llama.cpp's names of the modules of a block."""


@dataclass(frozen=True)
class Found:
    """What llama.cpp computes from an export, next to ours.

    Attributes:
        plain: the largest difference of logits before anything is exported: the conversion's own.
        difference: with it.
        effect: of it on our logits.
        shifted: the difference with the vector one layer further; None for an adapter.
        greedy: of the prompts, how many are continued by the same 40 tokens.
    """

    plain: float
    difference: float
    effect: float
    shifted: float | None
    greedy: int


def write_llama(hf: Any, file: Path) -> None:
    """Write a Llama as GGUF, in float32 and without its tokenizer, as llama.cpp's converter lays it out."""
    import gguf

    config, tensors = hf.config, hf.state_dict()
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("no_vocab")
    writer.add_tensor("token_embd.weight", tensors["model.embed_tokens.weight"].numpy())
    writer.add_tensor("output_norm.weight", tensors["model.norm.weight"].numpy())
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for layer in range(config.num_hidden_layers):
        for name, theirs in NAMES.items():
            weight = tensors[f"model.layers.{layer}.{name}.weight"]
            weight = _interleave(weight, heads[theirs]) if theirs in heads else weight
            writer.add_tensor(f"blk.{layer}.{theirs}.weight", weight.contiguous().numpy())
    _finish(writer)


def _interleave(weight: Tensor, heads: int) -> Tensor:
    """Hugging Face turns the two halves of a head against each other, llama.cpp neighbours."""
    return weight.view(heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def write_adapter(folder: Path, file: Path) -> None:
    """Write a peft adapter of a Llama as GGUF, as llama.cpp's converter does it."""
    import gguf
    from safetensors.torch import load_file

    writer = gguf.GGUFWriter(file, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(json.loads((folder / CONFIG).read_text("utf-8"))["lora_alpha"]))
    for name, tensor in load_file(folder / ADAPTER).items():
        layer, _, rest = name.partition("layers.")[2].partition(".")
        module, _, side = rest.removesuffix(".weight").rpartition(".")
        writer.add_tensor(f"blk.{layer}.{NAMES[module]}.weight.{side.lower()}", tensor.contiguous().numpy())
    _finish(writer)


def _finish(writer: Any) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def control_vector(model: Model, python: Path) -> Found:
    """A random direction at a layer, in our logits and in llama.cpp's."""
    random = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0))
    recipe = Recipe(Direction(random, resid_post[LAYER], "random", 8.0, model.fingerprint), "add", DOSE)
    vector = recipe.direction.unit * recipe.direction.scale * recipe.dose
    with tempfile.TemporaryDirectory() as where:
        folder = Path(where)
        write_llama(model.hf, folder / "model.gguf")
        to_gguf_vector(model, [recipe], folder / "v.gguf", prompts=PROMPTS)
        before, _ = _ask(model, python, folder, {})
        theirs, made = _ask(model, python, folder, {"vector": str(folder / "v.gguf"), "greedy": GREEDY})
        moved, _ = _ask(model, python, folder, {"vector": str(folder / "v.gguf"), "shift": 1})
    plain = own_logits(model, PROMPTS)
    with intervene(model, {resid_post[LAYER]: add(vector, at=everywhere | special)}):
        ours, own = own_logits(model, PROMPTS), _continue(model)
    return Found(
        largest_difference(before, plain),
        largest_difference(theirs, ours),
        largest_difference(plain, ours),
        largest_difference(moved, ours),
        sum(a == b for a, b in zip(made, own, strict=True)),
    )


def adapter(model: Model, python: Path) -> Found:
    """An edit of a fact's layer, in our logits and, by its adapter, in llama.cpp's."""
    random = torch.Generator().manual_seed(0)
    change = LowRank(
        LAYER,
        0.3 * torch.randn(2, model.d_mlp, generator=random),
        torch.randn(2, model.d_model, generator=random),
    )
    edit = Edit((Fact("Lily", "{} wanted", "to", "a"),), "by hand", (change,), model.fingerprint)
    with tempfile.TemporaryDirectory() as where:
        folder = Path(where)
        write_llama(model.hf, folder / "model.gguf")
        to_peft(model, edit, folder / "adapter", prompts=PROMPTS)
        write_adapter(folder / "adapter", folder / "adapter.gguf")
        before, _ = _ask(model, python, folder, {})
        theirs, made = _ask(model, python, folder, {"adapter": str(folder / "adapter.gguf"), "greedy": GREEDY})
    plain = own_logits(model, PROMPTS)
    with edit.applied(model):
        ours, own = own_logits(model, PROMPTS), _continue(model)
    return Found(
        largest_difference(before, plain),
        largest_difference(theirs, ours),
        largest_difference(plain, ours),
        None,
        sum(a == b for a, b in zip(made, own, strict=True)),
    )


def _ask(model: Model, python: Path, folder: Path, what: dict[str, Any]) -> tuple[list[Tensor], list[list[int]]]:
    job = {"model": str(folder / "model.gguf"), "texts": [_ids(model, prompt) for prompt in PROMPTS], **what}
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    asked = [str(python), str(CLIENT), str(folder / "job.json"), str(folder / "out.npz")]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=300, check=False, cwd=folder)
    if done.returncode:
        raise SystemExit(f"llama.cpp's process ended with {done.returncode}: {done.stderr[-2000:]}")
    with np.load(folder / "out.npz") as found:
        logits = [torch.from_numpy(found[f"logits{i}"]) for i in range(len(PROMPTS))]
        return logits, found["made"].tolist()


def _ids(model: Model, prompt: str) -> list[int]:
    return model.tokens(prompt).ids[0].tolist()


def _continue(model: Model) -> list[list[int]]:
    """The 40 likeliest tokens after each prompt, by whole passes, as the client does it."""
    made = []
    for prompt in PROMPTS:
        ids = model.tokens(prompt).ids
        for _ in range(GREEDY):
            ids = torch.cat([ids, model.run(ids)[:, -1:].argmax(-1).cpu()], dim=1)
        made.append(ids[0, -GREEDY:].tolist())
    return made
