"""GRACE: no weight changes; a codebook at one layer answers where a key has been edited, and nowhere else."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Model
from hooks.border import NotNegative
from hooks.errors import InvalidArgument
from hooks.progress import progress_bar
from interp.common.completion import find_answer_ids
from interp.memory.editing.checks import average_searches, check_target_likely, measure_and_check
from interp.memory.editing.codebook import Codebook
from interp.memory.editing.contexts import Preserve, choose_preserved
from interp.memory.editing.edit import Edit
from interp.memory.editing.keys import Facts, capture_keys_and_values, list_facts
from interp.memory.editing.placement import locate_known_facts
from interp.memory.editing.prefix_cache import Projection
from interp.memory.editing.value_search import Search, ValueSearchResult, search_value, tokenise_statements
from interp.memory.facts.fact import Fact

SPLIT = 1 - 1e-5
ALONE = Search(steps=100, kl=0.0, decay=0.0, clamp=16.0)


@dataclass(eq=False)
class _Entry:
    """One entry of the codebook while it grows."""

    key: Float[Tensor, "d_mlp"]
    value: Float[Tensor, "d_model"]
    radius: float
    label: str


def grace(
    model: Model,
    facts: Facts,
    *,
    layer: int | None = None,
    radius: NotNegative = 0.1,
    token: str = "last prompt",
    contexts: Sequence[str] = ("",),
    preserve: Preserve = None,
    search: Search = ALONE,
    progress: bool = True,
) -> Edit:
    """Store facts in a codebook: at a key within ε of a stored one the layer's output becomes the stored value.

    The key is the input of W_out at the prompt's last token, the value v* what makes the model say the object there. A
    key farther than 2 ε from every entry is a new entry of radius ε; a nearer one of the same object widens the nearest
    entry to reach it; a nearer one of another object halves the distance between the two, so that neither answers for
    the other (Hartvigsen et al. 2023, arXiv:2211.11031, algorithm 1).

    Args:
        model: the model.
        facts: what to rewrite, one fact or several.
        layer: at which feed-forward output projection; by default where `locate` says for this token, but before
            the last layer where an object is of several tokens, as what the last one writes at the prompt reaches the
            next token only.
        radius: ε in units of the length of the key.
        token: where to read the key, "last prompt" or "last subject".
        contexts: texts put before the prompt; each is a key of its own.
        preserve: templates with `{}` for the subject whose continuations are to stay while v* is searched, if the
            search weighs them; by default what the model says of the subject by itself.
        search: settings of the search for v*; by default the new object alone counts, as no key farther off reads v*.
        progress: show a bar over several facts.

    Raises:
        InvalidArgument: a radius not above 0.
        EditRefused: a new object stays below probability 0.5 in the search, or is not what the edited model says.

    Cost: per fact and context one forward pass, and a forward and backward pass per step of the search.

    Examples:
        ```python
        edit = grace(model, facts)
        ```
    """
    facts = list_facts(facts)
    if not radius > 0:
        raise InvalidArgument(f"radius={radius}: give a share of the key's length above 0")
    layer = choose_reaching_layer(model, facts, token, progress=progress) if layer is None else layer
    entries: list[_Entry] = []
    found: list[ValueSearchResult] = []
    for fact in progress_bar(facts, desc="facts", progress=progress and len(facts) > 1):
        for context in contexts:
            (k,), (v,) = capture_keys_and_values(model, [fact], [context], layer, token)
            said = tokenise_statements(model, [fact], [context], choose_preserved(model, [fact], preserve), token)
            found.append(search_value(model, said, {Projection(layer): v}, search))
            check_target_likely(fact, found[-1], f"layer {layer}", search)
            (delta,) = found[-1].deltas.values()
            _store(entries, _Entry(k.float(), v.float() + delta, radius * float(k.float().norm()), fact.new))
    book = Codebook(
        layer,
        torch.stack([entry.key for entry in entries]).cpu(),
        torch.stack([entry.value for entry in entries]).cpu(),
        torch.tensor([entry.radius for entry in entries]),
    )
    return measure_and_check(model, Edit(facts, "grace", (book,), model.fingerprint, average_searches(found)))


def choose_reaching_layer(model: Model, facts: Sequence[Fact], token: str, *, progress: bool = True) -> int:
    """The layer that `locate` says, or the last from which all tokens of the objects can be reached."""
    longest = max(map(len, find_answer_ids(model, [fact.text for fact in facts], [fact.new for fact in facts])))
    last = model.n_layers - (1 if longest == 1 else 2)
    return min(locate_known_facts(model, facts, token, progress=progress).layer, max(last, 0))


def _store(entries: list[_Entry], new: _Entry) -> None:
    """Add an entry, or widen or split the nearest."""
    nearest = min(entries, key=lambda entry: float((entry.key - new.key).norm()), default=None)
    if nearest is None:
        entries.append(new)
        return
    distance = float((nearest.key - new.key).norm())
    if distance > nearest.radius + new.radius:
        entries.append(new)
    elif nearest.label == new.label:
        nearest.radius = max(nearest.radius, distance)
    else:
        nearest.radius = new.radius = SPLIT * distance / 2
        entries.append(new)
