"""Decoders whose blocks a test writes itself, so that it knows where every site is."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

D, HEADS, D_MLP, VOCAB = 16, 2, 24, 64
Between = Callable[[Tensor, int], Tensor]
IDS = torch.tensor([[3, 14, 15, 9, 26, 5]])


class Attention(nn.Module):
    """Causal attention with the kernel of torch; tokens of padding are not seen."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(D, D) for _ in range(4))

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        q, k, v = (part(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in (self.q, self.k, self.v))
        z = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        return self.o(z.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """W_out gelu(W_in x)."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.act, self.down = nn.Linear(D, D_MLP), nn.GELU(), nn.Linear(D_MLP, D)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.act(self.up(x)))


class Config(PretrainedConfig):
    """Nothing but its name."""

    model_type = "planted"


class Planted(PreTrainedModel):
    """Embedding, blocks, norm, head; `between` is done to the stream before each block but the first."""

    config_class = Config

    def __init__(self, config: Config, block: Callable[[int], nn.Module], depth: int, between: Between) -> None:
        super().__init__(config)
        self.embed, self.norm, self.head = nn.Embedding(VOCAB, D), nn.LayerNorm(D), nn.Linear(D, VOCAB)
        self.blocks = nn.ModuleList([block(layer) for layer in range(depth)])
        self.between = between

    def get_input_embeddings(self) -> nn.Module:
        return self.embed

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: object) -> CausalLMOutput:
        n = input_ids.shape[1]
        real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        own = torch.eye(n, dtype=torch.bool)
        seen = torch.ones(n, n, dtype=torch.bool).tril() & real.bool()[:, None, None, :] | own
        x = self.embed(input_ids)
        for layer, block in enumerate(self.blocks):
            x = block(x if layer == 0 else self.between(x, layer), seen)
        return CausalLMOutput(logits=self.head(self.norm(x)))


def planted(block: Callable[[int], nn.Module], depth: int = 2, between: Between = lambda x, _: x) -> Planted:
    """A random model of such blocks, every weight moved off its default."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        hf = Planted(Config(), block, depth, between).eval()
        for parameter in hf.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    return hf
