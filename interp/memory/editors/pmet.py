"""PMET: changes of attention and feed-forward searched together, of which only the feed-forward's is written."""

from collections.abc import Sequence
from math import sqrt

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Model
from hooks.border import NotNegative
from hooks.site import attn_out, mlp_out
from interp.memory.editing.contexts import Preserve
from interp.memory.editing.covariance import Covariance
from interp.memory.editing.edit import Edit
from interp.memory.editing.keys import Facts
from interp.memory.editing.multi_layer import SpreadRule, spread_facts
from interp.memory.editing.value_search import Search, SearchState

SAID, KEPT = 0.1, 0.01


def pmet_loss(state: SearchState, search: Search) -> tuple[Float[Tensor, ""], bool]:
    """L = w · NLL + kl · KL + decay · ‖δ‖/‖v̄‖, w = 0.1 once the object is said, until it is said and KL ≤ 0.01."""
    factor = SAID if state.said else 1.0
    loss = factor * state.nll + search.kl * state.kl + search.decay * state.size
    likely = float(torch.exp(-state.nll.detach())) > 0.5
    return loss, state.said and likely and float(state.kl.detach()) <= KEPT


PMET = SpreadRule("pmet", lambda last: [attn_out[last], mlp_out[last]], sqrt, pmet_loss)


def pmet(
    model: Model,
    facts: Facts,
    *,
    covariance: Covariance | Sequence[Covariance] | None = None,
    layers: Sequence[int] | None = None,
    ridge: NotNegative = 0.01,
    token: str | None = None,
    contexts: Sequence[str] | None = None,
    preserve: Preserve = None,
    search: Search | None = None,
    progress: bool = True,
) -> Edit:
    """Write facts at once: as `memit`, with targets v = v̄ + δ of the last layer's mlp_out (Li et al. 2024).

    δ and a change of attn_out of the same layer are searched together, so that δ need not do what attention would do;
    only δ is written, R = (v − v̄) / √(number of layers left) in each layer. The search weighs NLL by a tenth once
    arg max says the new object everywhere, and ends when KL(p₀‖p_δ) is then at most 0.01. Where the half that is left
    to attention is what states a fact, as in the bundled model, the edit is refused.

    Args:
        model: the model; its weights are left alone until the edit is applied.
        facts: what to rewrite, one fact or several.
        covariance: of the keys of each layer to edit; by default over texts the model writes itself, measured once.
        layers: whose output projections to change; by default the covariances', or where `locate` says.
        ridge: λ as a share of the mean k̄ᵀ C⁻¹ k̄ of the facts.
        token: where to write, "last subject" or "last prompt"; by default where `locate` says.
        contexts: texts put before the prompt, "" for none; by default `prefixes(model)`.
        preserve: templates with `{}` for the subject whose continuations are to stay, or a function that gives those of
            a fact; by default what the model says of the subject by itself.
        search: settings of the search; by default `choose_search` of the number of keys.
        progress: show a bar over several facts.

    Raises:
        InvalidArgument: a covariance of another model; a ridge not above 0.
        EditRefused: more than a tenth of the objects stay below probability 0.5; less than nine tenths of the facts
            are said in the end, as attention is not changed; the change outgrows the weight.

    Cost: as `memit`.

    Li et al. 2024, arXiv:2308.08742.

    Examples:
        ```python
        edit = pmet(model, facts)
        ```
    """
    return spread_facts(
        model,
        facts,
        PMET,
        covariance=covariance,
        layers=layers,
        ridge=ridge,
        token=token,
        contexts=contexts,
        preserve=preserve,
        search=search,
        progress=progress,
    )
