"""Context against weights: who answers when a prompt says otherwise than the model knows, and which heads decide."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Model, capture
from hooks.border import Natural
from hooks.errors import InvalidArgument
from hooks.interventions import apply
from hooks.position import last
from hooks.progress import progress_bar
from hooks.site import attn_out, z
from hooks.summary import summarise
from interp.circuits.heads import HeadScores
from interp.common.completion import find_first_ids
from interp.common.statistics import Estimate, share
from interp.common.unembedding import output_rows
from interp.context.answers import Make, says_with
from interp.lenses.parts import output_of

Head = tuple[int, int]


@dataclass(frozen=True)
class Conflict:
    """Prompts that say one thing of which the model knows another.

    Attributes:
        prompts: each with its statement, up to where the answer is due.
        context: what each prompt says.
        memory: what the weights say.

    Raises:
        InvalidArgument: no prompts, lists of different length, or a prompt that says what the weights say.
    """

    prompts: tuple[str, ...]
    context: tuple[str, ...]
    memory: tuple[str, ...]

    __repr__ = summarise

    def __post_init__(self) -> None:
        if not len(self.prompts) == len(self.context) == len(self.memory) or not self.prompts:
            raise InvalidArgument(
                f"{len(self.prompts)} prompts, {len(self.context)} answers of the context and {len(self.memory)} of "
                "the weights: give as many of each, and at least one"
            )
        for prompt, one, other in zip(self.prompts, self.context, self.memory, strict=True):
            if one == other:
                raise InvalidArgument(f"{prompt!r} says {one!r}, which the weights say too: that is no conflict")


@dataclass(frozen=True)
class ConflictShares:
    """Who answers: the share of prompts whose whole answer is that of the context, of the weights, or neither."""

    context: Estimate
    memory: Estimate
    neither: Estimate

    __repr__ = summarise

    def __str__(self) -> str:
        return f"context {self.context}, weights {self.memory}, neither {self.neither}"


def measure_conflict(model: Model, conflict: Conflict) -> ConflictShares:
    """Measure who answers when context and weights disagree.

    Cost: two forward passes over the prompts.

    Examples:
        ```python
        measure_conflict(model, Conflict(("Peru : Rome ; Peru :",), ("Rome",), ("Lima",)))
        ```
    """
    return _shares(model, conflict, {})


def _shares(model: Model, conflict: Conflict, changes: dict) -> ConflictShares:
    context = says_with(model, conflict.prompts, conflict.context, changes)
    memory = says_with(model, conflict.prompts, conflict.memory, changes)
    return ConflictShares(share(context), share(memory), share(~context & ~memory))


@torch.no_grad()
def attribute_conflict(model: Model, conflict: Conflict) -> HeadScores:
    """Attribute the answer to heads: E[(z_h W_O,h) · (U[context] − U[memory])] at the last token of the prompt.

    U are rows of the unembedding, of the first token in which the two answers differ from each other; the final norm is
    left out (Yu et al. 2023, arXiv:2310.15910). Above 0 a head speaks for the context. Control: the same with the
    answers of another prompt.

    Raises:
        InvalidArgument: fewer than two prompts, or two answers that begin with the same token.

    Cost: one forward pass over the prompts.

    Examples:
        ```python
        attribute_conflict(model, conflict).top(5)
        ```
    """
    n = len(conflict.prompts)
    if n < 2:
        raise InvalidArgument("one prompt was given, and the control needs the answers of another: give two or more")
    ids = [find_first_ids(model, conflict.prompts, said) for said in (conflict.context, conflict.memory)]
    pairs = [*zip(*ids, strict=True)]
    if alike := [i for i, (one, other) in enumerate(pairs) if one == other]:
        raise InvalidArgument(
            f"{conflict.context[alike[0]]!r} and {conflict.memory[alike[0]]!r} begin with one token: leave them out"
        )
    rows, _ = output_rows(model, torch.tensor([one for pair in pairs for one in pair]))
    toward = rows[::2] - rows[1::2]
    acts = capture(model, list(conflict.prompts), [z[layer] for layer in range(model.n_layers)])
    found = torch.zeros(2, model.n_layers, model.n_heads)
    for layer in range(model.n_layers):
        W_O, _ = output_of(model, z[layer], attn_out[layer])
        written = torch.einsum("nhk,hkd->nhd", acts.flat(z[layer], last), W_O.unflatten(0, (model.n_heads, -1)))
        for i, direction in enumerate((toward, toward.roll(1, 0))):
            found[i, layer] = torch.einsum("nhd,nd->h", written, direction.to(written)) / n
    return HeadScores("speaks for the context", found[0], found[1], "with the answers of another prompt")


def scale_heads(
    model: Model,
    conflict: Conflict,
    heads: Sequence[Head],
    factors: Sequence[float] = (0.0, 1.0, 2.0, 4.0),
    seed: Natural = 0,
    *,
    progress: bool = True,
) -> dict[str, dict[float, ConflictShares]]:
    """Measure who answers while what some heads give at the last token is multiplied, next to random heads.

    Args:
        model: a causal language model.
        conflict: prompts that the heads were not chosen on; also true contexts and other relations, of which a head
            that only suppresses copies would be no judge.
        heads: layer and number.
        factors: of z at these heads.
        seed: of the random heads.
        progress: show a bar.

    Returns:
        By "heads" and "random heads", the shares by factor.

    Raises:
        InvalidArgument: no heads, or more than half of them all.

    Cost: four forward passes for each factor.

    Examples:
        ```python
        scale_heads(model, conflict, [(2, 5)])["heads"][4.0].context
        ```
    """
    every = [(layer, head) for layer in range(model.n_layers) for head in range(model.n_heads)]
    own = [(layer, head) for layer, head in heads]
    rest = [one for one in every if one not in own]
    if not own or len(own) > len(rest):
        raise InvalidArgument(f"heads={own} of {len(every)} were given: give at least one, and at most half of them")
    chosen = {"heads": own, "random heads": Random(f"scaled {seed}").sample(rest, len(own))}
    with progress_bar(total=len(chosen) * len(factors), desc="heads scaled", progress=progress) as bar:

        def shares(of: list[Head], factor: float) -> ConflictShares:
            found = _shares(model, conflict, _scale_heads(of, factor))
            bar.update()
            return found

        return {name: {float(factor): shares(of, float(factor)) for factor in factors} for name, of in chosen.items()}


def _scale_heads(heads: Sequence[Head], factor: float) -> dict:
    by_layer: dict[int, list[int]] = {}
    for layer, head in heads:
        by_layer.setdefault(layer, []).append(head)

    def maker(numbers: list[int]) -> Make:
        def fn(a: Float[Tensor, "n head d_head"]) -> Float[Tensor, "n head d_head"]:
            a = a.clone()
            a[:, numbers] *= factor
            return a

        return lambda at: apply(fn, at)

    return {z[layer]: maker(numbers) for layer, numbers in by_layer.items()}
