"""Skills that no edit of facts should touch: repeating what was read, and small sums."""

from random import Random

import torch

from hooks import Model
from hooks.encoding import special_ids
from interp.common.completion import says

TEXTS, LENGTH, SUMS = 8, 12, 20


@torch.no_grad()
def measure_induction(model: Model, seed: int = 0) -> float:
    """The share of tokens that arg max says right when twelve random tokens are read a second time.

    The first of them is left out, as nothing says that the sequence begins again.

    Cost: one forward pass over 8 texts.
    """
    random = torch.Generator().manual_seed(seed)
    usual = torch.tensor(sorted({*range(model.d_vocab)} - special_ids(model.tokenizer)))
    once = usual[torch.randint(len(usual), (TEXTS, LENGTH), generator=random)]
    ids = torch.cat([once, once], dim=1).to(model.device)
    best = model.run(ids)[:, LENGTH:-1].argmax(-1)
    return float((best == ids[:, LENGTH + 1 :]).double().mean())


def measure_sums(model: Model, seed: int = 0) -> float:
    """The share of twenty sums of two digits whose result arg max says, as in "3 + 4 =".

    Cost: one forward pass.
    """
    random = Random(seed)
    pairs = [(random.randrange(10), random.randrange(10)) for _ in range(SUMS)]
    prompts, answers = [f"{a} + {b} =" for a, b in pairs], [str(a + b) for a, b in pairs]
    return sum(says(model, prompts, answers)) / SUMS
