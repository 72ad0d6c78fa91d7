"""Where a head looks when a token is said again, as far back as the earlier occurrence and an offset."""

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Model
from interp.circuits.heads.repeated import repeated
from interp.circuits.heads.scores import attention_between


def attention_back(
    model: Model, offset: int, *, length: int, n: int, seed: int
) -> tuple[Float[Tensor, "layer head"], Float[Tensor, "layer head"]]:
    """E[A(t, t - T + offset)] over the second half of T random tokens said twice, and where it repeats nothing."""
    said = repeated(model, length=length, n=n, seed=seed)
    queries = said.start + torch.arange(length, 2 * length)
    keys = queries - length + offset
    return attention_between(model, said.tokens, queries, keys), attention_between(model, said.fresh, queries, keys)
