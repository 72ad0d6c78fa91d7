"""What a world is to the training script: an untrained model, a tokenizer, and the rows of every step."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks.huggingface import HFModel
from hooks.summary import summarise
from interp.landmark.train import new_model

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

BEGIN = "<|endoftext|>"
UNKNOWN = "<|unknown|>"


@dataclass(frozen=True)
class Rows:
    """The rows of one step; `weights[t]` weighs the prediction of token t, and is 0 where nothing is to be learnt."""

    ids: Int[Tensor, "batch pos"]
    weights: Float[Tensor, "batch pos"]

    __repr__ = summarise


@dataclass(frozen=True)
class World:
    """One small model to train: the same name, seed and step always give the same rows.

    Attributes:
        name: of the world.
        build: the untrained model of a seed.
        draw: the rows of a step, from the seed of the run and the step's number.
        tokenizer: what turns text into ids.
        steps: how many.
        rate: the greatest learning rate, after a warm-up and before a linear decay to a tenth.
        decay: of weights.
        n_checkpoints: how many models to keep, at logarithmically spaced steps; the untrained one is one more.
        muon: matrices inside blocks are moved by Muon, all else by AdamW; without it AdamW moves all.
        loss: added to the loss of the predictions, from what the model gave; None for nothing.
        constant: the learning rate is the same from the warm-up to the end.
    """

    name: str
    build: Callable[[int], HFModel]
    draw: Callable[[int, int], Rows]
    tokenizer: Callable[[], Any]
    steps: int
    rate: float = 3e-3
    decay: float = 0.01
    n_checkpoints: int = 12
    muon: bool = True
    loss: Callable[[Any], Float[Tensor, ""]] | None = None
    constant: bool = False

    __repr__ = summarise

    def rate_at(self, step: int) -> float:
        """The learning rate at a step, counted from 0: ten of a warm-up, and a fall over the second half.

        Examples:
            ```python
            world("clock").rate_at(0)
            ```
        """
        warm = min(1.0, (step + 1) / 10)
        left = 1.0 if self.constant else min(1.0, 0.1 + 1.8 * (self.steps - step) / self.steps)
        return self.rate * warm * left


def new_attention_only(words: int) -> "GPT2LMHeadModel":
    """An untrained model of two layers of attention, 64 wide; its feed-forward layers are zeros, and stay so."""
    model = new_model(2 + words, n_layer=2, d_model=64, n_head=4)
    for name, parameter in model.named_parameters():
        if ".mlp." in name:
            parameter.requires_grad_(False).zero_()
    return model


@cache
def word_tokenizer(words: tuple[str, ...]) -> Any:
    """A tokenizer of whole words between spaces, which puts the beginning of a text before each."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate((BEGIN, UNKNOWN, *words))}
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    plain.post_processor = processors.TemplateProcessing(single=f"{BEGIN} $A", special_tokens=[(BEGIN, 0)])  # type: ignore[assignment]
    return PreTrainedTokenizerFast(
        tokenizer_object=plain, bos_token=BEGIN, eos_token=BEGIN, pad_token=BEGIN, unk_token=UNKNOWN,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def rows_of(texts: list[list[tuple[str, float]]], vocabulary: dict[str, int], length: int) -> Rows:
    """Rows of texts given word by word, each with the weight of its prediction; cut or filled to one length."""
    ids, weight = torch.zeros(len(texts), length, dtype=torch.long), torch.zeros(len(texts), length)
    for i, text in enumerate(texts):
        text = text[: length - 1]
        ids[i, 1 : len(text) + 1] = torch.tensor([vocabulary[word] for word, _ in text])
        weight[i, 1 : len(text) + 1] = torch.tensor([w for _, w in text])
    return Rows(ids, weight)
