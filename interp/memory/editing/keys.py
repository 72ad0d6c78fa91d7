"""Where a fact is looked up: the mean key and mean output of a feed-forward layer at one token, over contexts."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Model, Site, capture
from hooks.errors import InvalidArgument
from hooks.shards import ranks_of
from hooks.site import mlp_act, mlp_out
from hooks.weights import bias_of, matrix_of
from interp.memory.editing.value_search import Statements, find_edit_end
from interp.memory.facts.fact import Fact, last_token_before

BATCH = 16
Facts = Fact | Sequence[Fact]


def list_facts(facts: Facts) -> tuple[Fact, ...]:
    """One fact or several, as a tuple.

    Raises:
        InvalidArgument: no facts, or two that give one prompt different objects.
    """
    several = (facts,) if isinstance(facts, Fact) else tuple(facts)
    if not several:
        raise InvalidArgument("no facts were given to edit: give at least one Fact")
    said: dict[str, str] = {}
    for fact in several:
        if said.setdefault(fact.text, fact.new) != fact.new:
            raise InvalidArgument(f"{fact.text!r} is to be both {said[fact.text]!r} and {fact.new!r}: give one of them")
    return several


def capture_means(
    model: Model, facts: Sequence[Fact], contexts: Sequence[str], sites: Sequence[Site], token: str
) -> list[Float[Tensor, "example *d"]]:
    """The mean of each site at the token to edit, over the contexts, fact by fact.

    Raises:
        InvalidArgument: no contexts.

    Cost: one forward pass over facts × contexts, up to the last site.
    """
    if not contexts:
        raise InvalidArgument('0 contexts were given: give at least one, "" for none')
    found: list[list[Tensor]] = [[] for _ in sites]
    for i in range(0, len(facts), BATCH):
        part = [(context, fact) for fact in facts[i : i + BATCH] for context in contexts]
        acts = capture(model, [context + fact.text for context, fact in part], sites)
        ends = [find_edit_end(token, fact, context) for context, fact in part]
        for values, site in zip(found, sites, strict=True):
            values.append(acts.flat(site, last_token_before(ends)).float().unflatten(0, (-1, len(contexts))).mean(1))
    return [torch.cat(values) for values in found]


@torch.no_grad()
def capture_keys_and_values(
    model: Model, facts: Sequence[Fact], contexts: Sequence[str], layer: int, token: str
) -> tuple[Float[Tensor, "example d_mlp"], Float[Tensor, "example d_model"]]:
    """K and V = W K + b: mean keys of a layer at the token to edit, over the contexts, and what is written there.

    Cost: one forward pass over facts × contexts, up to the layer.
    """
    (k,) = capture_means(model, facts, contexts, [mlp_act[layer]], token)
    return k, project_keys(model, layer, k)


@torch.no_grad()
def project_keys(model: Model, layer: int, k: Float[Tensor, "*n d_mlp"]) -> Float[Tensor, "*n d_model"]:
    """W k + b: what a layer's output projection writes for whole keys, of which a process may compute a part only."""
    projection = model.module(mlp_act[layer])
    k = k.to(model.dtype)
    if ranks_of(model.hf) is None:
        return projection(k).float()
    v, b = k @ matrix_of(projection), bias_of(projection)
    return (v if b is None else v + b).float()


@torch.no_grad()
def capture_lookups(model: Model, said: Statements, sites: Sequence[Site]) -> list[Float[Tensor, "example *d"]]:
    """Each site at the edited token, text by text.

    Cost: one forward pass over the texts, up to the last site.
    """
    acts = capture(model, said.tokens, sites, batch_size=len(said.tokens))
    return [acts.flat(site, said.at).float() for site in sites]


@torch.no_grad()
def check_output(model: Model, said: Statements, layer: int) -> None:
    """Check that what a layer adds to the stream is what its output projection writes.

    Raises:
        InvalidArgument: the layer's output is not W k + b, so that changing W would not change it by δ.

    Cost: one forward pass over the texts, up to the layer.
    """
    k, v = capture_lookups(model, said, [mlp_act[layer], mlp_out[layer]])
    off = float((project_keys(model, layer, k) - v).norm() / v.norm())
    if not off < 2 * torch.finfo(model.dtype).eps ** 0.5:
        raise InvalidArgument(
            f"mlp_out.{layer} of {model.name} differs by {off:.1%} from what its output projection gives (it is "
            "normalised or scaled after it), so a change of that weight is not a change of what the layer adds: "
            "take rome, emmet or grace, which search what the projection writes"
        )
