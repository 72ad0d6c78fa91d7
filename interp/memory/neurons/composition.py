"""Composition: how a feed-forward layer's output is made up of its memories, token by token."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import Model, Tokens, capture
from hooks.border import Count
from hooks.model import Text
from hooks.site import mlp_act, mlp_out
from hooks.summary import summarise
from interp.common.statistics import Estimate, share
from interp.features.logits import measure_logit_effects
from interp.lenses.parts import output_of
from interp.memory.neurons.vocabulary import find_top_tokens, is_gated


@dataclass(frozen=True, eq=False)
class Composition:
    """A layer's output at the content tokens of a text, split into its memories: o = Σ_i m_i v_i + b.

    Attributes:
        layer: whose memories.
        tokens: what was read.
        coefficient: m_i.
        shares: m_i v_i . o / |o|², what each memory gives of the output; with `bias` they sum to 1.
        bias: b . o / |o|².
        said: the token that the output promotes most.
        agreeing: how many active memories promote that same token most.
        exchanged: how many promote the token of the next place instead, as by chance.
        active: the share of memories that are active: m_i > 0, in a gated layer m_i ≠ 0, where one with m_i < 0 writes
            and promotes what -v_i does.
    """

    layer: int
    tokens: Tokens
    coefficient: Float[Tensor, "n d_mlp"]
    shares: Float[Tensor, "n d_mlp"]
    bias: Float[Tensor, "n"]
    said: Int[Tensor, "n"]
    agreeing: Int[Tensor, "n"]
    exchanged: Int[Tensor, "n"]
    active: Float[Tensor, "n"]

    __repr__ = summarise

    @property
    def composed(self) -> Estimate:
        """The share of tokens at which no active memory promotes what the layer does: its output is a new mixture."""
        return share(self.agreeing == 0)

    @property
    def composed_by_chance(self) -> Estimate:
        """The same, were each place's memories asked for another place's token."""
        return share(self.exchanged == 0)

    def largest(self, place: int, top: Count = 10) -> tuple[tuple[int, float, float], ...]:
        """The memories that give most of the output at a place: number, coefficient and share."""
        order = self.shares[place].argsort(descending=True)[:top].tolist()
        return tuple((i, float(self.coefficient[place, i]), float(self.shares[place, i])) for i in order)


@torch.no_grad()
def composition(model: Model, text: Text, layer: int) -> Composition:
    """Split what a layer writes at each content token (Geva et al. 2021, section 5).

    Args:
        model: the model.
        text: a text or several.
        layer: whose memories.

    Raises:
        InvalidArgument: a layer the model lacks; a family that normalises the output before it is added.

    Cost: one forward pass up to the layer, an unembedding for each memory and each token.

    Examples:
        ```python
        composition(model, "The Golden Gate Bridge is in", 3).largest(-1)
        ```
    """
    W, b = (part.double() for part in output_of(model, mlp_act[layer], mlp_out[layer]))
    acts = capture(model, text, [mlp_act[layer], mlp_out[layer]])
    m, o = (acts.flat(site).double() for site in (mlp_act[layer], mlp_out[layer]))
    size = o.square().sum(1, keepdim=True)
    said = measure_logit_effects(model, o).argmax(1).cpu()
    by_memory, _ = find_top_tokens(model, layer)
    on, heard = (m > 0).cpu(), by_memory.expand(len(m), -1)
    if is_gated(model, layer):
        heard = torch.where(on, heard, find_top_tokens(model, layer, sign=-1)[0])
        on = (m != 0).cpu()
    return Composition(
        layer=layer,
        tokens=acts.tokens,
        coefficient=m.float().cpu(),
        shares=(m * (o @ W.T) / size).cpu(),
        bias=(o @ b / size[:, 0]).cpu(),
        said=said,
        agreeing=(on & (heard == said[:, None])).sum(1),
        exchanged=(on & (heard == said.roll(-1)[:, None])).sum(1),
        active=on.double().mean(1),
    )
