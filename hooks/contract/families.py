"""Families of models: a tiny random one of each, with its peculiarities on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, final

import torch

from hooks.huggingface import HFModel
from hooks.temporary import grad_mode

_ENDS: Final = {"vocab_size": 101, "bos_token_id": 100, "eos_token_id": 100, "pad_token_id": 0}
_PLAIN: Final = _ENDS | {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_COMMON: Final = _PLAIN | {"intermediate_size": 48, "max_position_embeddings": 64}
_GROUPED: Final = _COMMON | {"num_key_value_heads": 2}
_WIDE: Final = _GROUPED | {"head_dim": 16}
_GEMMA: Final = _WIDE | {"sliding_window": 4, "query_pre_attn_scalar": 16}
_SHORT: Final = _ENDS | {"n_embd": 32, "n_layer": 2, "n_head": 4}
_SCALED: Final = {"embedding_multiplier": 2.0, "residual_multiplier": 0.5, "logits_scaling": 3.0}


@final
@dataclass(frozen=True)
class Family:
    """One family of models.

    Attributes:
        kind: the name its classes in transformers begin with.
        peculiarities: what is switched on in the tiny model, in words.
        settings: of its tiny configuration.
        head: what its class with a head ends in.
        config: what its configuration's class ends in.
    """

    kind: str
    peculiarities: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    head: str = "ForCausalLM"
    config: str = "Config"


FAMILIES: Final[Mapping[str, Family]] = {
    "gpt2": Family("GPT2", "learnt positions, tied embeddings", _SHORT, head="LMHeadModel"),
    "gpt_neo": Family(
        "GPTNeo",
        "local attention in every other layer, unscaled scores",
        _COMMON | {"attention_types": [[["global", "local"], 1]], "num_layers": 2, "num_heads": 4, "window_size": 4},
    ),
    "gptj": Family(
        "GPTJ", "parallel, one norm, interleaved rotation, a bias at the logits", _SHORT | {"rotary_dim": 4}
    ),
    "gpt_neox": Family("GPTNeoX", "parallel, two norms, one projection for q, k and v", _COMMON),
    "opt": Family("OPT", "positions counted from 2, relu", _PLAIN | {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    "opt_350m": Family(
        "OPT",
        "norms after the addition, embeddings narrower than the stream",
        _PLAIN | {"ffn_dim": 48, "word_embed_proj_dim": 16, "do_layer_norm_before": False},
    ),
    "bloom": Family("Bloom", "ALiBi, norm of the embeddings", _ENDS | {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "falcon": Family("Falcon", "parallel, one key-value head, one norm", _PLAIN),
    "llama": Family("Llama", "grouped queries, biases", _GROUPED | {"attention_bias": True, "mlp_bias": True}),
    "mistral": Family("Mistral", "grouped queries, sliding window, wide heads", _WIDE | {"sliding_window": 4}),
    "qwen2": Family(
        "Qwen2", "grouped queries, biases of q, k and v, tied embeddings", _GROUPED | {"tie_word_embeddings": True}
    ),
    "qwen3": Family("Qwen3", "norms of q and k by head, wide heads", _WIDE),
    "gemma2": Family("Gemma2", "norms around each sublayer, soft-caps, sliding window, scaled embeddings", _GEMMA),
    "gemma3": Family(
        "Gemma3",
        "norms around each sublayer and of q and k, sliding window, scaled embeddings",
        _GEMMA,
        config="TextConfig",
    ),
    "olmo2": Family("Olmo2", "norms after each sublayer, norms of q and k over all heads", _GROUPED),
    "granite": Family("Granite", "multipliers of embeddings, sublayers, scores and logits", _GROUPED | _SCALED),
    "phi": Family("Phi", "parallel, one norm, partial rotation, biases, one at the logits", _COMMON),
    "phi3": Family("Phi3", "one projection for q, k and v, one for gate and up", _GROUPED),
    "mixtral": Family("Mixtral", "mixture of 4 experts, 2 per token", _GROUPED | {"num_local_experts": 4}),
    "bert": Family("Bert", "bidirectional, norms after the addition, token types", _COMMON, head="ForMaskedLM"),
}
"""Each family, by the name of its tiny model."""


def tiny(family: str, seed: int = 0) -> HFModel:
    """Return a random model of 2 layers and width 32, of which no bias is zero and no norm is plain.

    Examples:
        ```python
        load(tiny("gemma2")).contract.holds
        ```
    """
    import transformers

    of = FAMILIES[family]
    config = getattr(transformers, of.kind + of.config)(**of.settings)
    random = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]), grad_mode(False):
        torch.manual_seed(seed)
        model = getattr(transformers, of.kind + of.head)(config).eval()
        for parameter in model.parameters():
            parameter += torch.randn(parameter.shape, generator=random) * (0.2 if parameter.ndim > 1 else 0.1)
    return model
