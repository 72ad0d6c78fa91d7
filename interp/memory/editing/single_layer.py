"""What the editors of one layer share: the key of a subject, and the value that states its facts."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Model
from hooks.site import mlp_act
from interp.memory.editing.change import balance_weights
from interp.memory.editing.contexts import Preserve, choose_preserved
from interp.memory.editing.covariance import Covariance
from interp.memory.editing.keys import capture_lookups, project_keys
from interp.memory.editing.placement import Place
from interp.memory.editing.prefix_cache import Projection
from interp.memory.editing.value_search import Search, Statements, ValueSearchResult, search_value, tokenise_statements
from interp.memory.facts.fact import Fact


def search_key_and_value(
    model: Model,
    group: Sequence[Fact],
    place: Place,
    contexts: Sequence[str],
    preserve: Preserve,
    search: Search,
) -> tuple[Float[Tensor, "d_mlp"], ValueSearchResult]:
    """The key k̄ of facts written at one key, a weighted mean over texts, and the δ that states them.

    Cost: one forward pass over contexts and preserved texts, and a forward and backward pass per step.
    """
    (c,) = place.covariances
    kept = choose_preserved(model, group, preserve)
    said = tokenise_statements(model, group, contexts, kept, place.token)
    k = average_key(model, said, c)
    return k, search_value(model, said, {Projection(c.layer): project_keys(model, c.layer, k)}, search)


@torch.no_grad()
def average_key(model: Model, said: Statements, c: Covariance) -> Float[Tensor, "d_mlp"]:
    """k̄ over the texts that look it up alike, weighted by `balance_weights`.

    Cost: one forward pass, up to the layer.
    """
    (keys,) = capture_lookups(model, said, [mlp_act[c.layer]])
    alike = keys[said.alike]
    return balance_weights(alike, c.solve(alike)).to(keys) @ alike
