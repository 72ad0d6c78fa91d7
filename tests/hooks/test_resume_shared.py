"""A pass taken up again where layers share a block, and attention that is put back whatever interrupts it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from hooks import load
from hooks.attention import eager_attention
from hooks.resume import hold


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_a_pass_taken_up_again_runs_the_later_calls_of_a_block_that_serves_several_layers(
    hf_model: Callable[..., Any], tokenizer: Any, layer: int
) -> None:
    hf = hf_model("llama", num_hidden_layers=3)
    blocks = hf.model.layers
    hf.model.layers = nn.ModuleList([blocks[0], blocks[1], blocks[1], blocks[2]])
    hf.config.num_hidden_layers, hf.config.use_cache = 4, False
    model = load(hf, tokenizer)
    held = hold(model, "Fog over the bay")
    torch.testing.assert_close(held.logits(layer, {}), model.run("Fog over the bay"))


def test_the_attention_is_put_back_where_its_change_is_interrupted(
    hf_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    hf = hf_model("gpt2")
    hf.set_attn_implementation("sdpa")
    own = type(hf).set_attn_implementation

    def interrupted(self: Any, kind: str) -> None:
        own(self, kind)
        if kind == "eager":
            raise KeyboardInterrupt

    monkeypatch.setattr(type(hf), "set_attn_implementation", interrupted)
    with pytest.raises(KeyboardInterrupt), eager_attention(hf):
        pass
    assert hf.config._attn_implementation == "sdpa"
