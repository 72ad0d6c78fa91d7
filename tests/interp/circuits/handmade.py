"""GPT-2s made by hand: one that is an affine map of its embeddings, one that is an induction circuit and no more."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hooks import Model, load

CLEAN, CORRUPT = ["fog over", "a baysun"], ["fig ever", "a hatsun"]


class FrozenNorm(nn.Module):
    """A LayerNorm whose divisor is a constant."""

    def __init__(self, norm: Any, divisor: float) -> None:
        super().__init__()
        self.weight, self.bias, self.divisor, self.eps = norm.weight, norm.bias, divisor, 0.0

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(-1, keepdim=True)) / self.divisor * self.weight + self.bias


def linear_gpt2(hf_model: Callable[..., Any], tokenizer: Any) -> Model:
    """Attention and norms frozen, feed-forward layers linear."""
    hf = hf_model("gpt2", seed=5, activation_function="linear")
    for block in hf.transformer.h:
        with torch.no_grad():
            block.attn.c_attn.weight[:, :64] = 0.0  # queries and keys: all earlier tokens get the same attention
        block.ln_1, block.ln_2 = FrozenNorm(block.ln_1, 1.3), FrozenNorm(block.ln_2, 1.7)
    hf.transformer.ln_f = FrozenNorm(hf.transformer.ln_f, 2.1)
    return load(hf, tokenizer, check=False)


def induction_gpt2(tokenizer: Any, copies: float = 1.0, back: int = 1) -> Model:
    """Block 0 notes the token before each, or `back` before; block 1 attends to where that is the present token.

    It copies what it attends to, or with -1 suppresses it.

    The stream is three one-hot vectors side by side: the token, its position, the token before. Their length is the
    same everywhere, so that LayerNorm only scales.
    """
    import transformers as hf

    vocab, n_pos = 257, 40
    d = 2 * vocab + n_pos
    token, place, before = slice(0, vocab), slice(vocab, vocab + n_pos), slice(vocab + n_pos, d)
    config = hf.GPT2Config(
        vocab_size=vocab, n_positions=n_pos, n_embd=d, n_layer=2, n_head=1, n_inner=4, tie_word_embeddings=False
    )
    model = hf.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for norm in [model.transformer.ln_f, *(n for b in model.transformer.h for n in (b.ln_1, b.ln_2))]:
            norm.weight.fill_(1.0)
        model.transformer.wte.weight[:, token] = torch.eye(vocab)
        model.transformer.wpe.weight[:, place] = torch.eye(n_pos)
        model.lm_head.weight[:, token] = torch.eye(vocab)
        q, k, v = (slice(i * d, (i + 1) * d) for i in range(3))
        first, second = (block.attn for block in model.transformer.h)
        first.c_attn.weight[place, q] = 100 * torch.roll(torch.eye(n_pos), -back, 1) @ torch.eye(n_pos, d)
        first.c_attn.weight[place, k] = 100 * torch.eye(n_pos, d)
        first.c_attn.weight[token, v] = torch.eye(vocab, d)
        first.c_proj.weight[:vocab, before] = torch.eye(vocab)
        second.c_attn.weight[token, q] = 100 * torch.eye(vocab, d)
        second.c_attn.weight[before, k] = 100 * torch.eye(vocab, d)
        second.c_attn.weight[token, v] = torch.eye(vocab, d)
        second.c_proj.weight[:vocab, token] = copies * 10 * torch.eye(vocab)
    return load(model, tokenizer, check=False)
