"""Trigger examples: in which contexts the key of each memory of a feed-forward layer matches most."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import Activations, Model, capture, stream
from hooks.border import Count
from hooks.capture import Data
from hooks.encoding import pad
from hooks.errors import InvalidArgument, OutOfRange
from hooks.pieces import pieces
from hooks.site import mlp_act
from hooks.summary import summarise
from interp.features import Example

READ_AT_ONCE = 16
Sign = Literal[1, -1]


@dataclass(frozen=True, eq=False)
class Triggers:
    """For every memory of a layer the texts in which its coefficient is highest, one place in each, highest first.

    Attributes:
        layer: whose memories.
        coefficient: m_i there, times `sign`; -inf where there are fewer texts, not above 0 where no key matches.
        text: the number of the text.
        column: the place in that text, special tokens counted.
        ids: the tokens of every text, special ones included.
        n_tokens: how many were scored.
        fingerprint: of the model.
        sign: -1 for the other side of gated memories, where m_i is most negative and the layer writes -v_i.
    """

    layer: int
    coefficient: Float[Tensor, "d_mlp example"]
    text: Int[Tensor, "d_mlp example"]
    column: Int[Tensor, "d_mlp example"]
    ids: tuple[Int[Tensor, "_"], ...]
    n_tokens: int
    fingerprint: str
    sign: Sign = 1

    __repr__ = summarise

    def followed_by(self, neuron: int) -> tuple[int, ...]:
        """The token that comes next in each trigger example of a memory.

        Raises:
            OutOfRange: the layer has no such memory.
        """
        self._check(neuron)
        places = zip(self.text[neuron].tolist(), self.column[neuron].tolist(), strict=True)
        matched = (self.coefficient[neuron] > 0).tolist()
        return tuple(int(self.ids[t][c + 1]) for (t, c), on in zip(places, matched, strict=True) if on)

    def examples(self, model: Model, neuron: int, *, top: int = 10, context: Count = 12) -> tuple[Example, ...]:
        """The memory's trigger examples as text, with its coefficient at every token shown, and the token after.

        Raises:
            OutOfRange: the layer has no such memory.
            InvalidArgument: another model.

        Cost: one forward pass over `top` texts, up to the layer.
        """
        return self.examples_of(model, [neuron], top=top, context=context)[0]

    def examples_of(
        self, model: Model, neurons: Sequence[int], *, top: int = 10, context: Count = 12
    ) -> tuple[tuple[Example, ...], ...]:
        """The examples of several memories, every text read once.

        Raises:
            OutOfRange: the layer has no such memory.
            InvalidArgument: another model.

        Cost: one forward pass over the texts among their examples, up to the layer.
        """
        for neuron in neurons:
            self._check(neuron)
        if model.fingerprint != self.fingerprint:
            raise InvalidArgument(
                f"these triggers are of model {self.fingerprint[:12]}, {model.name} is {model.fingerprint[:12]}: "
                f"call triggers(model, data, {self.layer})"
            )
        wanted = [(i, r) for i in neurons for r in (self.coefficient[i, :top] > 0).nonzero().flatten().tolist()]
        numbers = sorted({int(self.text[place]) for place in wanted}, key=lambda n: len(self.ids[n]))
        found: dict[tuple[int, int], Example] = {}
        for start in range(0, len(numbers), READ_AT_ONCE):
            some = numbers[start : start + READ_AT_ONCE]
            tokens = pad(model.tokenizer, [self.ids[n].tolist() for n in some], model.padding_side)
            acts = capture(model, tokens, [mlp_act[self.layer]])
            row = {number: i for i, number in enumerate(some)}
            found |= {
                place: self._example(model, acts, row[int(self.text[place])], place, context)
                for place in wanted
                if int(self.text[place]) in row
            }
        return tuple(tuple(found[place] for place in wanted if place[0] == neuron) for neuron in neurons)

    def _example(self, model: Model, acts: Activations, row: int, place: tuple[int, int], context: int) -> Example:
        number, peak = int(self.text[place]), int(self.column[place])
        real = acts.tokens.mask[row].nonzero().flatten()
        m = self.sign * acts[mlp_act[self.layer]][row, real, place[0]].float()
        content = acts.tokens.content[row, real].tolist()
        near = [i for i in range(max(0, peak - context), min(len(real), peak + 2)) if content[i]]
        words = pieces(model.tokenizer, self.ids[number].tolist())
        return Example(number, tuple(words[i] for i in near), tuple(m[near].tolist()), near.index(peak))

    def _check(self, neuron: int) -> None:
        if not 0 <= neuron < len(self.coefficient):
            raise OutOfRange(
                f"memory {neuron} does not exist: layer {self.layer} has memories 0 to {len(self.coefficient) - 1}"
            )


def triggers(
    model: Model,
    data: Data,
    layer: int,
    *,
    top: int = 25,
    sign: Sign = 1,
    batch_size: Count = 16,
    progress: bool = True,
) -> Triggers:
    """Read a data set once and keep, for every memory i of a layer, the `top` texts of largest max_j m_i(x_j).

    All else as `triggers_by_layer` says.

    Examples:
        ```python
        found = triggers(model, texts, layer=3)
        found.examples(model, 17)
        ```
    """
    (found,) = triggers_by_layer(model, data, (layer,), top=top, sign=sign, batch_size=batch_size, progress=progress)
    return found


def triggers_by_layer(
    model: Model,
    data: Data,
    layers: Sequence[int],
    *,
    top: int = 25,
    sign: Sign = 1,
    batch_size: Count = 16,
    progress: bool = True,
) -> tuple[Triggers, ...]:
    """Read a data set once and keep, for every memory i of some layers, the `top` texts of largest max_j m_i(x_j).

    m_i = f(x . k_i), or f(x . g_i) (x . u_i) in a gated layer, is what the output projection reads (Geva et al. 2021,
    arXiv:2012.14913, section 3: one score per sentence). Scored are the tokens that another follows; beginning-of-text
    and padding are left out.

    Args:
        model: the model.
        data: texts, as `capture` takes them.
        layers: whose memories.
        top: how many texts to keep for each.
        sign: -1 looks for the most negative m_i: a gated memory has two sides, and on this one it writes -v_i.
        batch_size: texts per forward pass.
        progress: whether to show a bar.

    Raises:
        InvalidArgument: no texts or layers, a layer the model lacks, a top below 1, texts of which no token is
            followed by another.

    Cost: one forward pass up to the last layer; memory for the token ids of all texts and three numbers per memory and
    example.

    Examples:
        ```python
        first, last = triggers_by_layer(model, texts, (0, model.n_layers - 1), top=1)
        ```
    """
    if top < 1 or not layers:
        raise InvalidArgument(f"top={top} in layers {[*layers]}: keep at least one example for each memory of a layer")
    none = torch.zeros(0, 0, dtype=torch.long)
    kept = {layer: (torch.zeros(0, 0), none, none) for layer in layers}
    ids: list[Tensor] = []
    n_tokens = 0
    for acts in stream(model, data, [mlp_act[layer] for layer in kept], batch_size=batch_size, progress=progress):
        tokens = acts.tokens
        scored = tokens.content.clone()
        scored[:, :-1] &= tokens.content[:, 1:]
        scored[:, -1] = False
        columns = (tokens.mask.cumsum(1) - 1).cpu()
        number = torch.arange(len(ids), len(ids) + len(tokens))[:, None]
        for layer, best in kept.items():
            m = (sign * acts[mlp_act[layer]].float()).masked_fill(~scored[..., None], -torch.inf)
            peak, at = (part.cpu() for part in m.max(1))
            kept[layer] = _keep_largest(top, best, (peak.T, number.expand_as(at).T, columns.gather(1, at).T))
        ids += [row[mask].cpu() for row, mask in zip(tokens.ids, tokens.mask, strict=True)]
        n_tokens += int(scored.sum())
    if n_tokens == 0:
        raise InvalidArgument(f"no token of the {len(ids)} texts is followed by another: give texts of several words")
    return tuple(Triggers(i, *kept[i], tuple(ids), n_tokens, model.fingerprint, sign) for i in layers)


def _keep_largest(top: int, old: Sequence[Tensor], more: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """The largest of both along the examples, largest first and of equals the earliest, with what belongs to them."""
    value, text, column = (torch.cat([a, b], 1) if a.numel() else b for a, b in zip(old, more, strict=True))
    value, order = (part[:, :top] for part in value.sort(dim=1, descending=True, stable=True))
    return value, text.gather(1, order), column.gather(1, order)
