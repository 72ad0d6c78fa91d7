"""Head scores: one number per attention head, and what it would be for a head that does nothing of the kind."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import Model, Tokens, capture
from hooks.errors import InvalidArgument
from hooks.site import pattern

if TYPE_CHECKING:
    from pandas import DataFrame


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

    def __repr__(self) -> str:
        best = ", ".join(f"{layer}.{head} {score:.3f}" for layer, head, score in self.top(3))
        control = float(self.control.flatten()[int(self.values.argmax())])
        layers, heads = self.values.shape
        return f"HeadScores({self.name!r}, {layers} layers of {heads} heads; {best}; the first's control {control:.3f})"

    def to_pandas(self) -> "DataFrame":
        """A row for each head: its layer and number, its score, and its control."""
        from pandas import DataFrame

        layers, heads = self.values.shape
        return DataFrame(
            {
                "layer": torch.arange(layers).repeat_interleave(heads).tolist(),
                "head": [*range(heads)] * layers,
                "score": self.values.flatten().tolist(),
                "control": self.control.flatten().tolist(),
            }
        )

    def top(self, count: int = 5) -> tuple[tuple[int, int, float], ...]:
        """The heads with the highest scores: layer, head, score.

        Raises:
            InvalidArgument: `count` is below 1.
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
        InvalidArgument: a model whose attention patterns cannot be captured.

    Cost:
        One forward pass.
    """
    layers = range(model.n_layers)
    acts = capture(model, tokens, [pattern[layer] for layer in layers], batch_size=len(tokens))
    return torch.stack([acts[pattern[layer]][:, :, queries, keys].float().mean((0, 2)) for layer in layers])
