"""Whether directions agree: in angle, and in what adding them does to the next token."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Direction, Model, intervene
from hooks.border import Finite
from hooks.errors import InvalidArgument
from hooks.interventions import add
from hooks.position import last
from hooks.progress import progress_bar
from hooks.rows import fit_ends
from hooks.summary import summarise
from interp.common.texts import list_texts

if TYPE_CHECKING:
    from pandas import DataFrame


@final
@dataclass(frozen=True)
class Comparison:
    """Directions against one another: `cosines` of the vectors, and `effects`, the cosines of what they do.

    An effect is the change of the centred next-token logits, over all texts; `strength` is its root mean square. The
    cosine with an effect of length 0 is NaN. `random` is the standard deviation of the cosine of random vectors of
    this width: what chance alone gives.
    """

    names: tuple[str, ...]
    cosines: Float[Tensor, "n n"]
    effects: Float[Tensor, "n n"]
    strength: Float[Tensor, "n"]
    random: float

    __repr__ = summarise

    def __str__(self) -> str:
        width = max(map(len, self.names))
        lines = [f"{'cosine / shared effect':<{width}}  " + "  ".join(f"{i:>11}" for i in range(len(self.names)))]
        for i, name in enumerate(self.names):
            cells = zip(self.cosines[i].tolist(), self.effects[i].tolist(), strict=True)
            lines.append(f"{name:<{width}}  " + "  ".join(f"{c:+.2f} / {e:+.2f}" for c, e in cells))
        return "\n".join([*lines, f"random vectors: cosine 0 ± {self.random:.2f}"])

    def to_pandas(self) -> "DataFrame":
        """A row for each pair of directions: the cosine of the vectors, and that of their effects."""
        from pandas import DataFrame

        pairs = [(i, j) for i in range(len(self.names)) for j in range(i)]
        rows = [(self.names[j], self.names[i], float(self.cosines[i, j]), float(self.effects[i, j])) for i, j in pairs]
        return DataFrame(rows, columns=["one", "other", "cosine", "effect"])


@torch.no_grad()
def compare(
    model: Model,
    directions: Mapping[str, Direction],
    texts: Sequence[str],
    dose: Finite = 1.0,
    *,
    progress: bool = True,
) -> Comparison:
    """Cosines of some directions, and of their effects: x' = x + dose * s * v/|v| at every token, each at its site.

    The effect is e = C (logits' - logits) after the last token of each text, C taking the mean over the vocabulary
    out, as it changes no probability. Of a text longer than the context the end is read, with a note.

    Raises:
        InvalidArgument: fewer than two directions, no texts or a string for them, directions of different widths, or of
            another model.

    Cost:
        One forward pass per text, and one more per direction.

    Examples:
        ```python
        print(compare(model, {"CAA": caa(model, pairs, site), "probe": probe_direction(...)}, texts))
        ```
    """
    if len(directions) < 2:
        raise InvalidArgument(f"{len(directions)} directions were given: give at least two to compare")
    given = list(directions.values())
    cosines = torch.tensor([[one.cosine(other) for other in given] for one in given])
    tokens = fit_ends(model, model.tokens(list_texts(texts)))
    at = last.mask(tokens)
    plain = model.run(tokens)[at].double()
    changes = []
    for direction in progress_bar(given, desc="directions", progress=progress):
        with intervene(
            model, {direction.site: add(direction, dose * direction.scale / float(direction.vector.norm()))}
        ):
            change = model.run(tokens)[at].double() - plain
        changes.append((change - change.mean(-1, keepdim=True)).flatten())
    effect = torch.stack(changes)
    unit = effect / effect.norm(dim=1, keepdim=True)
    return Comparison(
        names=tuple(directions),
        cosines=cosines,
        effects=(unit @ unit.T).float().cpu(),
        strength=effect.pow(2).mean(1).sqrt().float().cpu(),
        random=len(given[0].vector) ** -0.5,
    )
