"""The clock: a + b mod 53 from two fifths of the sums, which is learnt by heart first and by waves later.

The planted truth is in Fourier's basis: a model that has understood adds angles (Nanda et al. 2023, arXiv:2301.05217).
"""

from functools import cache
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from interp.landmark.train import new_model
from interp.worlds.recipe import Rows, World, word_tokenizer

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

HOURS, FIRST_HOUR = 53, 2
SHARE = 0.4


def sums() -> Int[Tensor, "example pos"]:
    """The planted truth: ids of every `a b =` and of its sum, in the order of a, then b.

    Examples:
        >>> sums().shape, sums()[1].tolist()
        (torch.Size([2809, 4]), [2, 3, 55, 3])
    """
    a, b = torch.meshgrid(torch.arange(HOURS), torch.arange(HOURS), indexing="ij")
    a, b = a.flatten(), b.flatten()
    return torch.stack(
        [FIRST_HOUR + a, FIRST_HOUR + b, torch.full_like(a, FIRST_HOUR + HOURS), FIRST_HOUR + (a + b) % HOURS], 1
    )


@cache
def seen_sums(seed: int) -> Bool[Tensor, "example"]:
    """Which of the sums a run of this seed sees."""
    order = torch.randperm(HOURS**2, generator=torch.Generator().manual_seed(seed))
    return order < SHARE * HOURS**2


def draw_clock(seed: int, step: int) -> Rows:
    """All sums that are seen, at every step."""
    del step
    ids = sums()[seen_sums(seed)]
    weight = torch.zeros(ids.shape)
    weight[:, -1] = 1.0
    return Rows(ids, weight)


def clock_tokenizer():  # noqa: ANN201
    """The tokenizer of the world: the numbers and `=`."""
    return word_tokenizer((*map(str, range(HOURS)), "="))


def new_clock(seed: int) -> "GPT2LMHeadModel":
    """The untrained model: one layer, 128 wide, its feed-forward with ReLU."""
    del seed
    model = new_model(3 + HOURS, n_layer=1, d_model=128, n_head=4)
    model.config.activation_function = "relu"
    for module in model.modules():
        if hasattr(module, "act"):
            module.act = nn.ReLU()
    return model


CLOCK = World(
    "clock",
    new_clock,
    draw_clock,
    clock_tokenizer,
    steps=5000,
    rate=1e-3,
    decay=1.0,
    n_checkpoints=24,
    muon=False,
    constant=True,
)
