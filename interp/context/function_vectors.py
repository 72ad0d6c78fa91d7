"""Which heads bring a task from its demonstrations, and the vector that they bring, added where there are none."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from random import Random
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Direction, Model, Site, capture, intervene
from hooks.border import Count, Natural
from hooks.errors import InvalidArgument
from hooks.interventions import add, apply, replace
from hooks.position import last
from hooks.progress import progress_bar
from hooks.site import attn_out, resid_post, z
from hooks.summary import summarise
from interp.circuits.heads import HeadScores
from interp.common.completion import find_first_ids
from interp.common.statistics import Estimate, share, share_over_groups
from interp.context.answers import Make, says_with
from interp.context.task import Change, PairTask, deal_pairs, demonstrate
from interp.lenses.parts import output_of

if TYPE_CHECKING:
    from pandas import DataFrame

Head = tuple[int, int]


def _prompts(task: PairTask, n: int, shots: int, change: Change, seed: int) -> tuple[list[str], list[str]]:
    asked = [task.pairs[i] for i in deal_pairs(task, n, seed)]
    made = [demonstrate(task, pair, shots, change, Random(f"{seed} {i} shown")) for i, pair in enumerate(asked)]
    return [prompt for prompt, _ in made], [y for _, y in asked]


@torch.no_grad()
def _mean_z(model: Model, prompts: Sequence[str]) -> dict[int, Float[Tensor, "head d_head"]]:
    """E[z_h] at the last token, by layer."""
    sites = [z[layer] for layer in range(model.n_layers)]
    acts = capture(model, list(prompts), sites)
    return {layer: acts.flat(z[layer], last).mean(0) for layer in range(model.n_layers)}


@torch.no_grad()
def measure_head_effects(
    model: Model,
    task: PairTask,
    *,
    shots: Count = 8,
    n: Count = 100,
    trials: Count = 25,
    seed: Natural = 0,
    progress: bool = True,
) -> HeadScores:
    """Measure each head's causal indirect effect: p(y | no label right, z_h ← E z_h) − p(y | no label right).

    E z_h is a head's mean at the last token of n prompts with right demonstrations; it is put into `trials` prompts of
    which no demonstration is right (Todd et al. 2024, arXiv:2310.15213, whose shuffled labels leave one right on
    average). p is of the first token of the label. Control: the mean over n prompts of which none is right.

    Args:
        model: a causal language model.
        task: choose heads on one of its halves, and report on the other.
        shots: demonstrations in a prompt.
        n: prompts that means are taken of.
        trials: prompts that they are put into.
        seed: of the draw.
        progress: show a bar.

    Raises:
        InvalidArgument: a label whose first token is white space alone.

    Cost: twice as many forward passes over `trials` prompts as there are heads, and over 2 n prompts.

    Examples:
        ```python
        measure_head_effects(model, task.halves()[0]).top(10)
        ```
    """
    right = _mean_z(model, _prompts(task, n, shots, "none", seed)[0])
    wrong = _mean_z(model, _prompts(task, n, shots, "no label right", seed)[0])
    prompts, labels = _prompts(task, trials, shots, "no label right", seed + 1)
    ids = torch.tensor(find_first_ids(model, prompts, labels))
    tokens = model.tokens(prompts)

    def p() -> float:
        logits = model.run(tokens)[last.mask(tokens)]
        return float(logits.float().softmax(-1).gather(-1, ids[:, None].to(logits.device)).mean())

    plain, effect = p(), torch.zeros(2, model.n_layers, model.n_heads)
    places = [*product(range(2), range(model.n_layers), range(model.n_heads))]
    for i, layer, head in progress_bar(places, desc="heads", progress=progress):
        with intervene(model, {z[layer]: apply(_put(head, (right, wrong)[i][layer][head]), last)}):
            effect[i, layer, head] = p() - plain
    return HeadScores(f"effect on {task.name}", effect[0], effect[1], "with the mean of prompts whose labels are wrong")


def _put(head: int, value: Float[Tensor, "d_head"]):  # noqa: ANN202
    def put(a: Float[Tensor, "n head d_head"]) -> Float[Tensor, "n head d_head"]:
        a = a.clone()
        a[:, head] = value.to(a)
        return a

    return put


@torch.no_grad()
def find_function_vector(
    model: Model,
    task: PairTask,
    heads: Sequence[Head],
    *,
    layer: int | None = None,
    shots: Count = 8,
    n: Count = 100,
    seed: Natural = 0,
) -> Direction:
    """Find the function vector v = Σ_h E[z_h] W_O,h of some heads, without the bias of the output projection.

    Args:
        model: a causal language model.
        task: whose demonstrations the means are taken of.
        heads: layer and number of each.
        layer: after which it is to be added; by default a third of the way up, but no lower than the first.
        shots: demonstrations in a prompt.
        n: prompts.
        seed: of the draw.

    Raises:
        InvalidArgument: no heads, or one twice.

    Cost: forward passes over n prompts.

    Examples:
        ```python
        v = find_function_vector(model, task, [(layer, head) for layer, head, _ in effects.top(10)])
        ```
    """
    heads = [(layer, head) for layer, head in heads]
    if not heads or len({*heads}) < len(heads):
        raise InvalidArgument(f"heads={heads}: give at least one head, and each once")
    means = _mean_z(model, _prompts(task, n, shots, "none", seed)[0])
    v = torch.stack([_mean_output(model, *head, means) for head in heads]).sum(0)
    place = resid_post[model.n_layers // 3 if layer is None else layer]
    return Direction(v, place, f"function vector of {task.name}", float(v.norm()), model.fingerprint)


def _mean_output(model: Model, layer: int, head: int, means: dict[int, Tensor]) -> Float[Tensor, "d_model"]:
    W_O, _ = output_of(model, z[layer], attn_out[layer])
    return torch.einsum("k,kd->d", means[layer][head], W_O.unflatten(0, (model.n_heads, -1))[head])


@torch.no_grad()
def find_task_vector(
    model: Model, task: PairTask, *, layer: int | None = None, shots: Count = 8, n: Count = 100, seed: Natural = 0
) -> Direction:
    """Find the task vector: the stream after a layer where the label of a dummy input is due, a mean over n prompts.

    It takes the place of the stream of a prompt without demonstrations (Hendel et al. 2023, arXiv:2310.15916). The
    dummy is an input of the task itself, whose own label is averaged out.

    Args:
        model: a causal language model.
        task: whose demonstrations.
        layer: after which; by default half of the way up.
        shots: demonstrations in a prompt.
        n: prompts.
        seed: of the draw.

    Cost: forward passes over n prompts.

    Examples:
        ```python
        find_task_vector(model, task, layer=2)
        ```
    """
    place = resid_post[(model.n_layers - 1) // 2 if layer is None else layer]
    acts = capture(model, _prompts(task, n, shots, "none", seed)[0], place)
    h = acts.flat(place, last).mean(0)
    return Direction(h, place, f"task vector of {task.name}", float(h.norm()), model.fingerprint)


@dataclass(frozen=True)
class Transfer:
    """How often the label is said without demonstrations, with and without a vector.

    Attributes:
        task: its name.
        by: what was done, and the share of prompts whose whole label is then said, with an interval over the pairs that
            they ask about: without demonstrations there is one prompt of each.
    """

    task: str
    by: dict[str, Estimate]

    __repr__ = summarise

    def __str__(self) -> str:
        return "\n".join([f"{self.task}: says the label", *(f"  {name:<40} {e}" for name, e in self.by.items())])

    def to_pandas(self) -> "DataFrame":
        """A row for each thing that was done."""
        from pandas import DataFrame

        return DataFrame(
            [{"done": name, "share": e.value, "low": e.low, "high": e.high} for name, e in self.by.items()]
        )


@torch.no_grad()
def measure_transfer(
    model: Model,
    task: PairTask,
    vector: Direction,
    heads: Sequence[Head],
    *,
    task_vector: Direction | None = None,
    others: Sequence[Direction] = (),
    shots: Count = 8,
    n: Count = 100,
    seed: Natural = 0,
    progress: bool = True,
) -> Transfer:
    """Measure what a function vector does in prompts without demonstrations, next to every control.

    Controls: the vector of as many random heads of the same layers (of all layers where these have no more), a random
    vector of the same length, vectors of other tasks. Next to them: nothing, right demonstrations, the task vector.

    Args:
        model: a causal language model.
        task: pairs that neither heads nor vector were chosen on.
        vector: as `find_function_vector` gives it.
        heads: those it is of.
        task_vector: as `find_task_vector` gives it.
        others: function vectors of other tasks.
        shots: demonstrations in the prompts that have some.
        n: prompts that have some; without them each pair among theirs is asked about once.
        seed: of the draw.
        progress: show a bar.

    Raises:
        InvalidArgument: the model has no heads but these.

    Cost: one pass over n prompts for each row.

    Examples:
        ```python
        measure_transfer(model, task.halves()[1], v, heads)
        ```
    """
    bare, labels = _prompts(task, min(n, len(task.pairs)), 0, "no demonstrations", seed)
    shown, of_shown = _prompts(task, n, min(shots, len(task.pairs) - 1), "none", seed)
    random = find_function_vector(
        model, task, _random_heads(model, heads, seed), layer=vector.site.layer, shots=min(shots, len(task.pairs) - 1)
    )
    noise = torch.randn(len(vector.vector), generator=torch.Generator().manual_seed(seed)).to(vector.vector)
    noise = noise * vector.vector.norm() / noise.norm()
    done: dict[str, dict[Site, Make]] = {
        "no demonstrations": {},
        "function vector": {vector.site: lambda at: add(vector, at=at)},
        "vector of random heads": {random.site: lambda at: add(random, at=at)},
        "random vector of its length": {vector.site: lambda at: add(noise, at=at)},
        **{other.source: {other.site: lambda at, other=other: add(other, at=at)} for other in others},
    }
    if task_vector is not None:
        done["task vector"] = {task_vector.site: lambda at: replace(task_vector.vector, at=at)}
    by = {
        name: share(says_with(model, bare, labels, changes))
        for name, changes in progress_bar(done.items(), desc="transfer", progress=progress)
    }
    said = says_with(model, shown, of_shown, {})
    right = share_over_groups(said, torch.tensor(deal_pairs(task, n, seed)))
    return Transfer(task.name, {"right demonstrations": right, **by})


def _random_heads(model: Model, heads: Sequence[Head], seed: int) -> list[Head]:
    """As many other heads of the same layers, or of all layers where these have too few."""
    own, rng = {(layer, head) for layer, head in heads}, Random(f"other heads {seed}")
    found: list[Head] = []
    for layer in sorted({layer for layer, _ in own}):
        rest = [(layer, head) for head in range(model.n_heads) if (layer, head) not in own]
        found += rng.sample(rest, min(len(rest), sum(one[0] == layer for one in own)))
    every = [(la, he) for la in range(model.n_layers) for he in range(model.n_heads)]
    left = [one for one in every if one not in own and one not in found]
    found += rng.sample(left, min(len(left), len(own) - len(found)))
    if not found:
        raise InvalidArgument(f"heads={[*own]} are all that the model has: there is no random head to compare with")
    return found
