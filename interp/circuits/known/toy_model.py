"""Transformers whose weights are set by hand: GPT-2's modules without norms, a block of the stream per variable."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hooks import Model, load
from hooks.errors import InvalidArgument


class ToyModel:
    """A GPT-2 without norms, all of whose weights are 0 until they are set.

    Attributes:
        hf: the model.
        at: the features of the stream that belong to each variable.
    """

    def __init__(
        self, variables: Mapping[str, int], *, vocab: int, n_pos: int, layers: int, heads: int, d_mlp: int = 4
    ) -> None:
        import transformers

        self.at: dict[str, slice] = {}
        used = 0
        for name, width in variables.items():
            self.at[name] = slice(used, used + width)
            used += width
        d_model = -(-used // heads) * heads
        self.d_head = d_model // heads
        config = transformers.GPT2Config(
            vocab_size=vocab,
            n_positions=n_pos,
            n_embd=d_model,
            n_layer=layers,
            n_head=heads,
            n_inner=d_mlp,
            activation_function="relu",
            tie_word_embeddings=False,
            bos_token_id=0,
            eos_token_id=0,
        )
        with torch.random.fork_rng(devices=[]):
            self.hf: Any = transformers.GPT2LMHeadModel(config).eval()
        self.hf.transformer.ln_f = nn.Identity()
        for block in self.hf.transformer.h:
            block.ln_1, block.ln_2 = nn.Identity(), nn.Identity()
        for parameter in self.hf.parameters():
            nn.init.zeros_(parameter)

    @torch.no_grad()
    def embed(self, variable: str, table: Float[Tensor, "vocab n"]) -> None:
        """Write a row of a table for each token."""
        self.hf.transformer.wte.weight[:, self.at[variable]] = table

    @torch.no_grad()
    def place(self, variable: str) -> None:
        """Write which position it is, one-hot."""
        rows = self.hf.transformer.wpe.weight[:, self.at[variable]]
        rows.copy_(torch.eye(*rows.shape))

    @torch.no_grad()
    def unembed(self, variable: str, table: Float[Tensor, "n vocab"]) -> None:
        """Read logits from a variable."""
        self.hf.lm_head.weight[:, self.at[variable]] = table.T

    @torch.no_grad()
    def head(
        self,
        layer: int,
        head: int,
        *,
        query: tuple[str, Float[Tensor, "_ _"]] | None = None,
        key: tuple[str, Float[Tensor, "_ _"]] | None = None,
        value: tuple[str, Float[Tensor, "_ _"]],
        write: tuple[str, Float[Tensor, "_ _"]],
        bias: Float[Tensor, "_"] | None = None,
    ) -> None:
        """Set one head; its attention logits are query . key, GPT-2's division by sqrt(d_head) undone.

        Args:
            layer: of the head.
            head: its number.
            query: the variable that the query is read from, and how.
            key: likewise.
            value: likewise.
            write: the variable that is written to, and how.
            bias: of the query.
        """
        attention, width = self.hf.transformer.h[layer].attn, self.hf.config.n_embd
        scale = self.d_head**0.5
        for i, read in enumerate((query, key, value)):
            if read is None:
                continue
            if read[1].shape[1] > self.d_head:
                raise InvalidArgument(f"a head reads {read[1].shape[1]} features, and has room for {self.d_head}")
            at = slice(i * width + head * self.d_head, i * width + head * self.d_head + read[1].shape[1])
            attention.c_attn.weight[self.at[read[0]], at] = read[1] * (scale if i == 0 else 1.0)
        if bias is not None:
            attention.c_attn.bias[head * self.d_head : head * self.d_head + len(bias)] = bias * scale
        rows = slice(head * self.d_head, head * self.d_head + len(write[1]))
        attention.c_proj.weight[rows, self.at[write[0]]] = write[1]

    @torch.no_grad()
    def neurons(
        self,
        layer: int,
        first: int,
        *,
        read: Mapping[str, Float[Tensor, "_ d_mlp"]],
        bias: Float[Tensor, "d_mlp"],
        write: tuple[str, Float[Tensor, "d_mlp _"]],
    ) -> None:
        """Set ReLU neurons of a feed-forward layer, from the number `first` on."""
        mlp = self.hf.transformer.h[layer].mlp
        here = slice(first, first + len(bias))
        for variable, weights in read.items():
            mlp.c_fc.weight[self.at[variable], here] = weights
        mlp.c_fc.bias[here] = bias
        mlp.c_proj.weight[here, self.at[write[0]]] = write[1]

    @torch.no_grad()
    def distract(self, layer: int, head: int, write: str, seed: int) -> None:
        """Give a head random weights; it writes to a variable that only others of its kind read."""
        attention, width = self.hf.transformer.h[layer].attn, self.hf.config.n_embd
        random = torch.Generator().manual_seed(seed)
        mine = slice(head * self.d_head, (head + 1) * self.d_head)
        for i in range(3):
            at = slice(i * width + mine.start, i * width + mine.stop)
            attention.c_attn.weight[:, at] = torch.randn(width, self.d_head, generator=random) / width**0.5
        here = self.at[write]
        attention.c_proj.weight[mine, here] = torch.randn(self.d_head, here.stop - here.start, generator=random)

    def load(self, name: str, dtype: torch.dtype | None = None) -> Model:
        """Return the model, loaded."""
        self.hf.config.name_or_path = name
        return load(self.hf, dtype=dtype, check=False)
