"""Trigger examples: in which contexts the key of each memory of a feed-forward layer matches most."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import Model, capture, stream
from hooks.capture import Data
from hooks.site import mlp_act
from interp.features import Example


@dataclass(frozen=True, eq=False)
class Triggers:
    """For every memory of a layer the texts in which its coefficient is highest, one place in each, highest first.

    Attributes:
        layer: whose memories.
        coefficient: m_i there; -inf where there are fewer texts, and not above 0 where the key does not match.
        text: the number of the text.
        column: the place in that text, special tokens counted.
        ids: the tokens of every text, special ones included.
        n_tokens: how many were scored.
        fingerprint: of the model.
    """

    layer: int
    coefficient: Float[Tensor, "d_mlp example"]
    text: Int[Tensor, "d_mlp example"]
    column: Int[Tensor, "d_mlp example"]
    ids: tuple[Int[Tensor, "_"], ...]
    n_tokens: int
    fingerprint: str

    def followed_by(self, neuron: int) -> tuple[int, ...]:
        """The token that comes next in each trigger example of a memory.

        Raises:
            IndexError: the layer has no such memory.
        """
        self._check(neuron)
        places = zip(self.text[neuron].tolist(), self.column[neuron].tolist(), strict=True)
        matched = (self.coefficient[neuron] > 0).tolist()
        return tuple(int(self.ids[t][c + 1]) for (t, c), on in zip(places, matched, strict=True) if on)

    def examples(self, model: Model, neuron: int, *, top: int = 10, context: int = 12) -> tuple[Example, ...]:
        """The memory's trigger examples as text, with its coefficient at every token shown, and the token after.

        Raises:
            IndexError: the layer has no such memory.
            ValueError: another model.

        Cost: one forward pass over `top` texts, up to the layer.
        """
        self._check(neuron)
        if model.fingerprint != self.fingerprint:
            raise ValueError(
                f"these triggers are of model {self.fingerprint[:12]}, {model.name} is {model.fingerprint[:12]}: "
                f"call triggers(model, data, {self.layer})"
            )
        found = []
        for rank in (self.coefficient[neuron, :top] > 0).nonzero().flatten().tolist():
            number, peak = int(self.text[neuron, rank]), int(self.column[neuron, rank])
            acts = capture(model, self.ids[number][None], [mlp_act[self.layer]])
            m = acts[mlp_act[self.layer]][0, :, neuron].float().tolist()
            near = [i for i in range(max(0, peak - context), peak + 2) if bool(acts.tokens.content[0, i])]
            pieces = tuple(model.tokenizer.decode([int(self.ids[number][i])]) for i in near)
            found.append(Example(number, pieces, tuple(m[i] for i in near), near.index(peak)))
        return tuple(found)

    def _check(self, neuron: int) -> None:
        if not 0 <= neuron < len(self.coefficient):
            raise IndexError(
                f"memory {neuron} does not exist: layer {self.layer} has memories 0 to {len(self.coefficient) - 1}"
            )


def triggers(
    model: Model, data: Data, layer: int, *, top: int = 25, batch_size: int = 16, progress: bool = False
) -> Triggers:
    """Read a data set once and keep, for every memory i of a layer, the `top` texts of largest max_j m_i(x_j).

    m_i = f(x . k_i), or f(x . g_i) (x . u_i) in a gated layer, is what the output projection reads (Geva et al. 2021,
    arXiv:2012.14913, section 3: one score per sentence). Scored are the tokens that another follows; beginning-of-text
    and padding are left out.

    Args:
        model: the model.
        data: texts, as `capture` takes them.
        layer: whose memories.
        top: how many texts to keep for each.
        batch_size: texts per forward pass.
        progress: whether to show a bar.

    Raises:
        ValueError: no texts, a layer the model lacks, a top below 1, texts of which no token is followed by another.

    Cost: one forward pass up to the layer; memory for the token ids of all texts and three numbers per memory and
    example.

    ```python
    found = triggers(model, texts, layer=3)
    found.examples(model, 17)
    ```
    """
    if top < 1:
        raise ValueError(f"top={top}: keep at least one example for each memory")
    best: Float[Tensor, "d_mlp _"] = torch.zeros(0, 0)
    text: Int[Tensor, "d_mlp _"] = torch.zeros(0, 0, dtype=torch.long)
    column = text
    ids: list[Tensor] = []
    n_tokens = 0
    for acts in stream(model, data, [mlp_act[layer]], batch_size=batch_size, progress=progress):
        tokens = acts.tokens
        scored = tokens.content.clone()
        scored[:, :-1] &= tokens.content[:, 1:]
        scored[:, -1] = False
        m = acts[mlp_act[layer]].float().masked_fill(~scored[..., None], -torch.inf)
        peak, at = (part.cpu() for part in m.max(1))
        at = (tokens.mask.cumsum(1) - 1).cpu().gather(1, at)
        number = torch.arange(len(ids), len(ids) + len(tokens))[:, None].expand_as(at)
        best, text, column = _kept(top, (best, text, column), (peak.T, number.T, at.T))
        ids += [row[mask].cpu() for row, mask in zip(tokens.ids, tokens.mask, strict=True)]
        n_tokens += int(scored.sum())
    if n_tokens == 0:
        raise ValueError(f"no token of the {len(ids)} texts is followed by another: give texts of several words")
    return Triggers(layer, best, text, column, tuple(ids), n_tokens, model.fingerprint)


def _kept(top: int, old: Sequence[Tensor], more: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """The largest of both along the examples, largest first and of equals the earliest, with what belongs to them."""
    value, text, column = (torch.cat([a, b], 1) if a.numel() else b for a, b in zip(old, more, strict=True))
    value, order = (part[:, :top] for part in value.sort(dim=1, descending=True, stable=True))
    return value, text.gather(1, order), column.gather(1, order)
