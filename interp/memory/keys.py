"""Where a fact is looked up: the mean key and mean output of a feed-forward layer at one token, over contexts."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Model, Site, capture
from hooks.site import mlp_act, mlp_out
from interp.memory.covariance import Covariance
from interp.memory.fact import Fact
from interp.memory.value import place

OPENERS = ("The", "In", "When", "It", "People", "A", "My", "As", "One", "We")
Facts = Fact | Sequence[Fact]


def listed(facts: Facts) -> tuple[Fact, ...]:
    """One fact or several, as a tuple.

    Raises:
        ValueError: no facts, or two that give one prompt different objects.
    """
    several = (facts,) if isinstance(facts, Fact) else tuple(facts)
    if not several:
        raise ValueError("no facts were given to edit: give at least one Fact")
    said: dict[str, str] = {}
    for fact in several:
        if said.setdefault(fact.text, fact.new) != fact.new:
            raise ValueError(f"{fact.text!r} is to be both {said[fact.text]!r} and {fact.new!r}: give one of them")
    return several


def prefixes(model: Model, n: int = 10, seed: int = 0) -> tuple[str, ...]:
    """Short beginnings in the model's own words, after which a prompt is read in different contexts.

    The first is empty. Cost: one generation of ten tokens for a batch of `n`.
    """
    openers = [OPENERS[i % len(OPENERS)] for i in range(n - 1)]
    told = model.generate(openers, max_new_tokens=10, temperature=1.0, seed=seed) if openers else []
    whole = [f"{opener}{rest}".split("\n")[0].rstrip(" .,;:") for opener, rest in zip(openers, told, strict=True)]
    return ("", *(f"{text}. " for text in whole))


def mean_at(
    model: Model, fact: Fact, contexts: Sequence[str], sites: Sequence[Site], token: str = "last subject"
) -> list[Float[Tensor, "*d"]]:
    """The mean of each site at the token to edit, over the contexts.

    Cost: one forward pass over the contexts, up to the last site.
    """
    acts = capture(model, [context + fact.text for context in contexts], sites)
    at = place(token, fact.subject, [context + fact.prompt for context in contexts])
    return [acts.flat(site, at).mean(0) for site in sites]


def mean_key_and_value(
    model: Model, fact: Fact, contexts: Sequence[str], layer: int, token: str = "last subject"
) -> tuple[Float[Tensor, "d_mlp"], Float[Tensor, "d_model"]]:
    """k̄ and v̄ = W k̄ + b: the layer's mean key and mean output at the token to edit, over the contexts.

    Raises:
        ValueError: the layer's output is not W k + b, so that changing W would not change it by δ.

    Cost: one forward pass over the contexts, up to the layer.
    """
    k, v = mean_at(model, fact, contexts, [mlp_act[layer], mlp_out[layer]], token)
    with torch.no_grad():
        written = model.mlp_output(layer)(k)
    off = float((written - v).norm() / v.norm())
    if not off < 2 * torch.finfo(model.dtype).eps ** 0.5:
        raise ValueError(
            f"mlp_out.{layer} of {model.name} differs by {off:.1%} from what its output projection gives (it is "
            "normalised or scaled behind it), so a change of that weight is not a change of mlp_out: "
            "no editor of weights fits this family; take grace or in_context"
        )
    return k, v


def checked_covariances(model: Model, covariance: Covariance | Sequence[Covariance]) -> tuple[Covariance, ...]:
    """One covariance or several, by layer.

    Raises:
        ValueError: none at all, two of one layer, one of another model.
    """
    several = (covariance,) if isinstance(covariance, Covariance) else tuple(covariance)
    layers = [c.layer for c in several]
    if not several or len(set(layers)) < len(layers):
        raise ValueError(f"covariances of layers {layers} were given: give one for each layer to edit")
    for c in several:
        if c.fingerprint != model.fingerprint:
            raise ValueError(
                f"the covariance is of layer {c.layer} of model {c.fingerprint[:12]}, "
                f"the edit is of {model.fingerprint[:12]}: call covariance(model, data, {c.layer})"
            )
    return tuple(sorted(several, key=lambda c: c.layer))
