"""Names for what a head writes: the texts whose directions span most of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hooks.border import Count, Natural
from hooks.errors import InvalidArgument
from hooks.summary import summarise

LEAST = 0.1


@final
@dataclass(frozen=True, eq=False)
class TextSpan:
    """Texts that span what a head writes, the first explaining most.

    Attributes:
        texts: in the order they were chosen.
        explained: share of the variance that the texts so far explain.
        components: the same of as many principal components, which no texts exceed.
        random: the same of directions at random, chosen likewise among as many.
    """

    texts: tuple[str, ...]
    explained: Float[Tensor, "n"]
    components: Float[Tensor, "n"]
    random: Float[Tensor, "n"]

    __repr__ = summarise

    def __str__(self) -> str:
        head = f"{'text':<36}{'explained':>10}{'components':>12}{'random':>9}"
        rows = zip(self.texts, self.explained.tolist(), self.components.tolist(), self.random.tolist(), strict=True)
        return "\n".join([head, *(f"{text:<36}{e:>10.3f}{c:>12.3f}{r:>9.3f}" for text, e, c, r in rows)])


def span_head(
    outputs: Float[Tensor, "n d_model"],
    vectors: Float[Tensor, "_ d_model"],
    texts: Sequence[str],
    *,
    rank: Count = 5,
    seed: Natural = 0,
) -> TextSpan:
    """Return the texts that span what a head writes (TextSpan, Gandelsman et al. 2024, arXiv:2310.05916).

    Greedy: the text t with the greatest `Σ_i ((x_i − x̄)·t̂)²`, t̂ the unit part of it that the texts before do not
    span; both texts and outputs are centred, and every t̂ has length 1, so that no text wins by its length. A text of
    which less than a tenth is left is not chosen.

    Args:
        outputs: what the head puts into the vectors of pictures.
        vectors: where the texts are.
        texts: as many.
        rank: how many to choose.
        seed: of the directions at random.

    Raises:
        InvalidArgument: another number of texts than vectors, or fewer than `rank`, or outputs that are all alike.

    Cost: a product of all texts with all outputs for each that is chosen.

    Examples:
        >>> x = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> span_head(x, torch.tensor([[0.0, 1.0], [1.0, 0.0], [-1.0, -1.0]]), ["fog", "bridge", "both"], rank=2).texts
        ('bridge', 'fog')
    """
    if len(texts) != len(vectors) or rank > len(texts):
        raise InvalidArgument(
            f"{len(texts)} texts, {len(vectors)} vectors and rank {rank}: give a vector for each text"
        )
    x = outputs.double() - outputs.double().mean(0)
    whole = float(x.square().sum())
    if not whole > 0:
        raise InvalidArgument("what the head writes is the same for all pictures: nothing to explain")
    chosen, explained = _greedy(x, vectors.double() - vectors.double().mean(0), rank)
    drawn = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)
    _, chance = _greedy(x, drawn, rank)
    spectrum = torch.linalg.svdvals(x).square().cumsum(0) / whole
    best = torch.cat([spectrum, spectrum.new_ones(max(rank - len(spectrum), 0))])[: len(chosen)]
    return TextSpan(tuple(texts[i] for i in chosen), explained / whole, best, chance[: len(chosen)] / whole)


def _greedy(
    x: Float[Tensor, "n d_model"], t: Float[Tensor, "_ d_model"], rank: int
) -> tuple[list[int], Float[Tensor, "_"]]:
    """The numbers of the texts, and the squares that the first of them explain together."""
    first = t.norm(dim=1).clamp_min(1e-12)
    chosen, explained, total = list[int](), [], 0.0
    for _ in range(rank):
        left = t.norm(dim=1)
        unit = F.normalize(t, dim=1)
        power = (x @ unit.T).square().sum(0)
        power[left < LEAST * first] = -1.0
        best = int(power.argmax())
        if float(power[best]) < 0:
            break
        total += float(power[best])
        chosen.append(best)
        explained.append(total)
        axis = unit[best]
        x, t = x - (x @ axis)[:, None] * axis, t - (t @ axis)[:, None] * axis
    explained += [total] * (rank - len(explained))
    return chosen, torch.tensor(explained[: len(chosen) or rank], dtype=torch.double)
