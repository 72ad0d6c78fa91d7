"""Head scores: one number per attention head, beside what it would be of a head that does nothing of the kind."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import Model, Tokens, capture
from hooks.errors import InvalidArgument
from hooks.site import pattern


@dataclass(frozen=True, eq=False)
class HeadScores:
    """A score per head.

    Attributes:
        name: what is scored.
        values: the scores.
        control: the same where there is nothing of the kind to find.
        where: what that is, in words, such as "at the token before that".
    """

    name: str
    values: Float[Tensor, "layer head"]
    control: Float[Tensor, "layer head"]
    where: str

    def top(self, count: int = 5) -> tuple[tuple[int, int, float], ...]:
        """The heads with the highest scores: layer, head, score.

        Errors: `ValueError` when `count` is below 1.
        """
        if count < 1:
            raise InvalidArgument(f"count is {count}: ask for at least 1 of {self.values.numel()} heads")
        order = self.values.flatten().argsort(descending=True)[:count].tolist()
        n_heads = self.values.shape[1]
        return tuple((i // n_heads, i % n_heads, float(self.values.flatten()[i])) for i in order)

    def __str__(self) -> str:
        best = self.top()
        rows = [f"  {i}.{h:<3} {score:6.3f}  {float(self.control[i, h]):6.3f}" for i, h, score in best]
        return "\n".join([f"{self.name}: layer.head, score, control", *rows])


@torch.no_grad()
def attention_between(
    model: Model, tokens: Tokens, queries: Int[Tensor, "n"], keys: Int[Tensor, "n"]
) -> Float[Tensor, "layer head"]:
    """E[A[queries_i, keys_i]], over texts and i, of every head.

    Raises:
        ValueError: a model whose attention patterns cannot be captured.

    Cost: one forward pass with eager attention.
    """
    layers = range(model.n_layers)
    acts = capture(model, tokens, [pattern[layer] for layer in layers], batch_size=len(tokens))
    return torch.stack([acts[pattern[layer]][:, :, queries, keys].float().mean((0, 2)) for layer in layers])
