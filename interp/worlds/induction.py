"""Induction: pairs of a class and its label, then a class whose label is in the context, in the weights, or in both.

`induction-B` has the class that is asked for B times among the pairs. The label of a class is always the same, so that
it can be learnt by heart; where B > 0 it can also be copied. At B = 0 and 1 all of it is learnt by heart within a
hundred steps and nothing is copied; at B = 2 and 4 less is known by heart, and little is taken from the context (Chan
et al. 2022, arXiv:2205.05055; Reddy 2024, arXiv:2312.03002). In `induction-remapped` the class is there once and labels
are drawn again for every row, so that copying is all there is.
"""

from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from interp.worlds.recipe import Rows, World, new_attention_only, word_tokenizer

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

CLASSES, LABELS, PAIRS, ROWS = 1024, 32, 8, 64
FIRST_LABEL = 2 + CLASSES
BURSTS = (0, 1, 2, 4)


@cache
def planted_labels() -> Int[Tensor, "class"]:
    """The planted truth: the label, counted from 0, of every class."""
    return torch.from_numpy(np.random.default_rng(29).integers(0, LABELS, CLASSES))


def prompts(
    n: int, copies: int, seed: int, *, remapped: bool = False
) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch"]]:
    """Prompts that end with a class, and the id of the label that is right.

    Args:
        n: how many.
        copies: how often the class that is asked for is among the pairs.
        seed: of the draw.
        remapped: every class of a prompt gets a label that is not its own, the same within the prompt: only what is
            in the context is right. Without it labels are the planted ones.

    Examples:
        >>> ids, label = prompts(3, copies=1, seed=0)
        >>> ids.shape, bool((ids == label[:, None]).any(1).all())
        (torch.Size([3, 18]), True)
    """
    rng = np.random.default_rng([seed, copies, remapped])
    own = planted_labels().numpy()
    ids = np.zeros((n, 2 * PAIRS + 2), dtype=np.int64)
    right = np.zeros(n, dtype=np.int64)
    for i in range(n):
        classes = rng.choice(CLASSES, PAIRS + 1, replace=False)
        shift = rng.integers(1, LABELS, CLASSES) if remapped else np.zeros(CLASSES, dtype=np.int64)
        asked, shown = classes[0], classes[1:].copy()
        shown[rng.permutation(PAIRS)[:copies]] = asked
        ids[i, 1:-1:2], ids[i, 2::2] = 2 + shown, FIRST_LABEL + (own[shown] + shift[shown]) % LABELS
        ids[i, -1], right[i] = 2 + asked, FIRST_LABEL + (own[asked] + shift[asked]) % LABELS
    return torch.from_numpy(ids), torch.from_numpy(right)


def draw_induction(seed: int, step: int, copies: int, *, remapped: bool = False) -> Rows:
    """The rows of a step: only the label of the class that is asked for is to be predicted.

    Examples:
        >>> draw_induction(0, 0, 1).weights.sum()
        tensor(64.)
    """
    ids, label = prompts(ROWS, copies, seed * 1_000_003 + step, remapped=remapped)
    weight = torch.zeros(ROWS, ids.shape[1] + 1)
    weight[:, -1] = 1.0
    return Rows(torch.cat([ids, label[:, None]], 1), weight)


def induction_tokenizer():  # noqa: ANN201
    """The tokenizer of the world: classes c0 to c1023 and labels L0 to L31."""
    return word_tokenizer((*(f"c{i}" for i in range(CLASSES)), *(f"L{i}" for i in range(LABELS))))


def new_induction(seed: int) -> "GPT2LMHeadModel":
    """The untrained model: two layers of attention, 64 wide; its feed-forward layers are zeros, and stay so."""
    del seed
    return new_attention_only(CLASSES + LABELS)


def _world(name: str, copies: int, *, remapped: bool = False) -> World:
    draw = partial(draw_induction, copies=copies, remapped=remapped)
    return World(name, new_induction, draw, induction_tokenizer, steps=2000, n_checkpoints=24, constant=True)


INDUCTION = (*(_world(f"induction-{b}", b) for b in BURSTS), _world("induction-remapped", 1, remapped=True))
