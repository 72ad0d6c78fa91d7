"""Segments: rows of random words in which pieces come again, so that only copying tells what comes next.

A piece of four to ten words is copied from a random earlier place, again and again, with a random word between them
half of the time. What comes after a word that was there before is found at the place after it, at no fixed distance and
no fixed position: two layers of attention learn it within a few hundred steps by a previous-token head and an induction
head, and all at once (Olsson et al. 2022, arXiv:2209.11895). In rows that repeat with one period they learn positions.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp.worlds.recipe import Rows, World, new_attention_only, word_tokenizer

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

WORDS, LENGTH, FIRST, ROWS = 256, 64, 16, 32
SHORTEST, LONGEST = 4, 10
FIRST_WORD = 2


def segments(n: int, seed: int | tuple[int, ...]) -> tuple[Int[Tensor, "batch pos"], Bool[Tensor, "batch pos"]]:
    """Rows, and the planted truth: which of their tokens can be copied, as the token before them was copied, too.

    Examples:
        >>> ids, copied = segments(3, seed=0)
        >>> ids.shape, bool(copied[:, :17].any())
        (torch.Size([3, 65]), False)
    """
    rng = np.random.default_rng(seed)
    words, copied = np.zeros((n, LENGTH), dtype=np.int64), np.zeros((n, LENGTH), dtype=bool)
    for row, due in zip(words, copied, strict=True):
        row[:FIRST] = rng.permutation(WORDS)[:FIRST]
        at = FIRST
        while at < LENGTH:
            wide = min(int(rng.integers(SHORTEST, LONGEST + 1)), LENGTH - at)
            start = int(rng.integers(at - wide + 1))
            row[at : at + wide], due[at + 1 : at + wide] = row[start : start + wide], True
            at += wide
            if at < LENGTH and rng.random() < 0.5:
                row[at], at = rng.integers(WORDS), at + 1
    begin = np.zeros((n, 1), dtype=np.int64)
    return (
        torch.from_numpy(np.concatenate([begin, FIRST_WORD + words], 1)),
        torch.from_numpy(np.concatenate([begin.astype(bool), copied], 1)),
    )


def draw_segments(seed: int, step: int) -> Rows:
    """The rows of a step: only what can be copied is to be predicted.

    Examples:
        >>> rows = draw_segments(0, 0)
        >>> rows.ids.shape, bool(rows.weights[:, 0].any())
        (torch.Size([32, 65]), False)
    """
    ids, copied = segments(ROWS, (seed, step))
    return Rows(ids, copied.float())


def segment_tokenizer():  # noqa: ANN201
    """The tokenizer of the world: words w0 to w255."""
    return word_tokenizer(tuple(f"w{i}" for i in range(WORDS)))


def new_segments(seed: int) -> "GPT2LMHeadModel":
    """The untrained model: two layers of attention, 64 wide; its feed-forward layers are zeros, and stay so."""
    del seed
    return new_attention_only(WORDS)


SEGMENTS = World(
    "segments", new_segments, draw_segments, segment_tokenizer, steps=2000, n_checkpoints=24, constant=True
)
