"""Knowledge neurons: how much each memory's coefficient gives of an answer's probability, by integrated gradients."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Intervention, Model, Site, Tokens, intervene
from hooks.border import Finite, Natural, NotNegative, Share
from hooks.errors import InvalidArgument, NotConverged
from hooks.interventions import apply
from hooks.progress import progress_bar
from hooks.site import mlp_act
from hooks.summary import summarise
from interp.common.completion import log_probs, tokenise_completions
from interp.memory.editing.value_search import freeze_weights
from interp.memory.facts.fact import Query, last_token_before

if TYPE_CHECKING:
    from pandas import DataFrame

PARTS, POINTS = 4, 5  # of the integral at first, and of each part's sum
SHORTEST, FLOAT32 = 2**-16, 1e-5


@dataclass(frozen=True, eq=False)
class Knowledge:
    """What each memory, at the prompt's last token, gives of the answer's probability.

    Attributes:
        query: prompt and answer.
        attribution: Attr_i of each layer's memories.
        clean: p(answer | prompt), all tokens of the answer.
        without: the same with all coefficients of one layer at 0.
    """

    query: Query
    attribution: Float[Tensor, "layer d_mlp"]
    clean: float
    without: Float[Tensor, "layer"]

    __repr__ = summarise

    @property
    def error(self) -> Float[Tensor, "layer"]:
        """Σ_i Attr_i − (p − p without the layer), which is 0 but for the tolerance of the integral."""
        return self.attribution.sum(1) - (self.clean - self.without)

    def neurons(self, threshold: Finite = 0.2) -> tuple[tuple[int, int], ...]:
        """The (layer, memory) with at least `threshold` of the largest attribution, largest first."""
        flat = self.attribution.flatten()
        chosen = (flat >= threshold * flat.max()).nonzero().flatten() if float(flat.max()) > 0 else flat[:0].long()
        order = chosen[flat[chosen].argsort(descending=True)].tolist()
        return tuple(divmod(i, self.attribution.shape[1]) for i in order)

    def to_pandas(self) -> "DataFrame":
        """A row for each memory of `neurons()`: its layer, its number, and what it gives of the probability."""
        from pandas import DataFrame

        rows = [(layer, i, float(self.attribution[layer, i])) for layer, i in self.neurons()]
        return DataFrame(rows, columns=["layer", "memory", "attribution"])


def knowledge(model: Model, query: Query, *, tolerance: NotNegative = 0.01, progress: bool = True) -> Knowledge:
    """Attr_i = m̄_i ∫₀¹ ∂p(answer | α m̄)/∂m_i dα for every memory of every layer (Dai et al. 2022, arXiv:2104.08696).

    m̄ are the coefficients of a layer at the last token of the prompt, scaled together by α, layer by layer; p is of
    all tokens of the answer, each given the true ones before it. The attributions of a layer add up to p(m̄) − p(0),
    and those of any part of the integral to what p rises on it: where a Gauss-Legendre sum misses that, the part is
    halved, for p may rise in one short step.

    Args:
        model: the model.
        query: a prompt and its answer.
        tolerance: how far a layer's attributions may be from adding up, in probability.
        progress: show a bar.

    Raises:
        InvalidArgument: a tolerance not between 0 and 1; a prompt or answer with spaces around it.
        NotConverged: the attributions do not add up on parts of 2⁻¹⁶ either.

    Cost: per layer a forward and a backward pass over 28 copies of the prompt, and over 14 for each part halved.

    Examples:
        ```python
        knowledge(model, Query("The Golden Gate Bridge is located in", "San Francisco")).neurons()
        ```
    """
    if not 0 < tolerance < 1:
        raise InvalidArgument(f"tolerance={tolerance}: give a probability between 0 and 1, such as 0.01")
    rows, ends = [], []
    for layer in progress_bar(range(model.n_layers), desc="knowledge neurons", progress=progress):
        attribution, clean, without = _integrate(model, query, layer, tolerance)
        rows.append(attribution)
        ends.append((clean, without))
    without = torch.tensor([end for _, end in ends])
    return Knowledge(query, torch.stack(rows), ends[0][0], without)


def find_shared_neurons(
    found: Sequence[Knowledge], *, threshold: Finite = 0.2, of: Share = 0.7
) -> tuple[tuple[int, int], ...]:
    """The memories that at least the share `of` of some prompts of one fact have in common, most common first.

    Memories of one prompt only tend to belong to its words, not to the fact (Dai et al. 2022, section 3.3).

    Raises:
        InvalidArgument: no prompts.
    """
    if not found:
        raise InvalidArgument("no prompts were given to share neurons: call knowledge on several phrasings of one fact")
    seen = Counter(neuron for one in found for neuron in one.neurons(threshold))
    return tuple(neuron for neuron, n in seen.most_common() if n >= of * len(found))


def silence_neurons(
    model: Model, query: Query, neurons: Sequence[tuple[int, int]], *, seed: Natural = 0
) -> tuple[float, float]:
    """p(answer) with these memories' coefficients at 0 at the prompt's last token, and with as many random ones'.

    The second is the control: as many other memories of the same layers.

    Raises:
        InvalidArgument: no memories, or more than half of a layer's.

    Cost: two forward passes.
    """
    if not neurons:
        raise InvalidArgument("no memories were given to silence: Knowledge.neurons() names some")
    random = torch.Generator().manual_seed(seed)
    others: list[tuple[int, int]] = []
    for layer, n in Counter(layer for layer, _ in neurons).items():
        free = [i for i in torch.randperm(model.d_mlp, generator=random).tolist() if (layer, i) not in neurons]
        if len(free) < n:
            raise InvalidArgument(
                f"{n} of the {model.d_mlp} memories of layer {layer} leave fewer than {n} others to "
                "compare with: silence fewer"
            )
        others += [(layer, i) for i in free[:n]]
    return _without(model, query, neurons), _without(model, query, others)


@torch.no_grad()
def _without(model: Model, query: Query, neurons: Sequence[tuple[int, int]]) -> float:
    at = last_token_before([len(query.prompt)])
    asked = tokenise_completions(model, [query.prompt], [query.answer])
    plan: dict[Site | str, Intervention] = {}
    for layer in {layer for layer, _ in neurons}:
        index = torch.tensor([i for one, i in neurons if one == layer], device=model.device)
        plan[mlp_act[layer]] = apply(lambda a, index=index: a.index_fill(1, index, 0.0), at)
    with intervene(model, plan):
        return float(_probability(model, asked.tokens, asked.target)[0])


def _integrate(model: Model, query: Query, layer: int, tolerance: float) -> tuple[Float[Tensor, "d_mlp"], float, float]:
    """The attributions of a layer's memories, p with the layer and p without it."""
    points, weights = np.polynomial.legendre.leggauss(POINTS)
    inner, weight = torch.from_numpy((points + 1) / 2).float(), torch.from_numpy(weights / 2).float()
    parts = torch.arange(PARTS) / PARTS
    length, total, ends = 1 / PARTS, torch.zeros(model.d_mlp), [0.0, 0.0]
    while True:
        alpha = torch.cat([parts[:, None] + length * inner, parts[:, None], parts[:, None] + length], 1)
        p, slope, m = _scale(model, query, mlp_act[layer], alpha.flatten().to(model.device))
        p, slope = p.view(len(parts), -1), slope.view(len(parts), POINTS + 2, -1)[:, :POINTS]
        attribution = length * m * (weight[:, None] * slope).sum(1)
        missed = (attribution.sum(1) - (p[:, -1] - p[:, -2])).abs()
        if length == 1 / PARTS:
            ends = [float(p[-1, -1]), float(p[0, -2])]
        enough = missed <= max(tolerance * length, FLOAT32)
        total += attribution[enough].sum(0)
        if bool(enough.all()):
            return total, ends[0], ends[1]
        parts, length = torch.cat([parts[~enough], parts[~enough] + length / 2]), length / 2
        if length < SHORTEST:
            raise NotConverged(
                f"the attributions of layer {layer} miss the rise of p by {float(missed.max()):.2g} on a part of "
                f"{2 * length:.2g} of the integral: give a tolerance above {tolerance:g}"
            )


def _scale(
    model: Model, query: Query, site: Site, alpha: Float[Tensor, "n"]
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n d_mlp"], Float[Tensor, "d_mlp"]]:
    """p at each α m̄, its gradient with respect to the coefficients there, and m̄."""
    asked = tokenise_completions(model, [query.prompt] * len(alpha), [query.answer] * len(alpha))
    held: list[Tensor] = []

    def scale(a: Tensor) -> Tensor:
        held.extend([a[0].detach().float(), (alpha[:, None] * a.detach().float()).requires_grad_()])
        return held[1].to(a)

    plan: dict[Site | str, Intervention] = {site: apply(scale, last_token_before([len(query.prompt)] * len(alpha)))}
    with torch.enable_grad(), freeze_weights(model), intervene(model, plan):
        p = _probability(model, asked.tokens, asked.target)
        (slope,) = torch.autograd.grad(p.sum(), held[1])
    return p.detach().cpu(), slope.cpu(), held[0].cpu()


def _probability(model: Model, tokens: Tokens, target: Tensor) -> Float[Tensor, "n"]:
    return (log_probs(model.run(tokens), tokens.ids, target) * target[:, 1:].sum(1)).exp()
