"""A random GPT-2 and a batch for it, the same in every environment that has torch and transformers."""

import argparse
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch


@dataclass(frozen=True)
class Shape:
    """How large the model and its batch are."""

    layers: int = 6
    width: int = 256
    heads: int = 4
    vocabulary: int = 8192
    texts: int = 8
    length: int = 128

    @staticmethod
    def options(parser: argparse.ArgumentParser) -> None:
        """Let a command say each of them."""
        for field in fields(Shape):
            parser.add_argument(f"--{field.name}", type=int, default=field.default)

    @staticmethod
    def given(options: argparse.Namespace) -> "Shape":
        """What the command said."""
        return Shape(**{field.name: getattr(options, field.name) for field in fields(Shape)})

    def arguments(self) -> list[str]:
        """The same as a command line."""
        return [f"--{name}={value}" for name, value in asdict(self).items()]

    def gpt2(self) -> Any:
        """A GPT-2 of random weights, in evaluation mode."""
        from transformers import GPT2Config, GPT2LMHeadModel

        torch.manual_seed(0)
        config = GPT2Config(
            n_layer=self.layers,
            n_embd=self.width,
            n_head=self.heads,
            vocab_size=self.vocabulary,
            n_positions=max(self.length, 64),
            bos_token_id=0,
            eos_token_id=0,
        )
        return GPT2LMHeadModel(config).eval()

    def batch(self) -> torch.Tensor:
        """Random token ids, [batch pos], without padding."""
        return torch.randint(self.vocabulary, (self.texts, self.length), generator=torch.Generator().manual_seed(1))


def hooked_settings(hf: Any, **others: Any) -> Any:
    """The settings of TransformerLens's own model for a GPT-2's weights, on the CPU."""
    from transformer_lens import HookedTransformerConfig

    c = hf.config
    return HookedTransformerConfig(
        n_layers=c.n_layer,
        d_model=c.n_embd,
        n_ctx=c.n_positions,
        d_head=c.n_embd // c.n_head,
        n_heads=c.n_head,
        d_vocab=c.vocab_size,
        act_fn="gelu_new",
        eps=c.layer_norm_epsilon,
        normalization_type="LN",
        device="cpu",
        **others,
    )
