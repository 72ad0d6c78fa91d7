"""MEMIT: many facts at once, each new residual state spread over several feed-forward layers."""

from collections.abc import Sequence

from hooks import Model
from hooks.border import NotNegative
from hooks.site import resid_post
from interp.memory.editing.contexts import Preserve
from interp.memory.editing.covariance import Covariance
from interp.memory.editing.edit import Edit
from interp.memory.editing.keys import Facts
from interp.memory.editing.multi_layer import SpreadRule, spread_facts
from interp.memory.editing.value_search import Search

MEMIT = SpreadRule("memit", sites=lambda last: [resid_post[last]], parts=float)


def memit(
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
    """Write facts at once into several layers: ΔWˡ = (λC + KᵀK)⁻¹ Kᵀ R, as mlp_act @ W (Meng et al. 2023, equation 14).

    z = h̄ + δ is the residual state after the last of the layers that states a fact. Layer by layer from the first,
    with the changes so far in place, R = (z − h̄) / (number of layers left) and K the mean keys there. Means are over
    all that is read of a subject, weighted as in `rome`.

    Args:
        model: the model; its weights are left alone until the edit is applied.
        facts: what to rewrite, one fact or several.
        covariance: of the keys of each layer to edit; by default over texts the model writes itself, measured once.
        layers: whose output projections to change; by default the covariances', or where `locate` says.
        ridge: λ as a share of the mean k̄ᵀ C⁻¹ k̄ of the facts, so that it means the same for any width and any scale of
            keys: a single fact keeps λ/(λ + 1) of what it should write from a layer.
        token: where to write, "last subject" or "last prompt"; by default where `locate` says.
        contexts: texts put before the prompt, "" for none; by default `prefixes(model)`.
        preserve: templates with `{}` for the subject whose continuations are to stay, or a function that gives those of
            a fact; by default what the model says of the subject by itself.
        search: settings of the search for z; by default `choose_search` of the number of keys.
        progress: show a bar over several facts.

    Raises:
        InvalidArgument: a covariance of another model; a ridge not above 0.
        EditRefused: more than a tenth of the objects stay below probability 0.5; less than nine tenths of the facts
            are said in the end; a layer's usual outputs would move by more than they are.

    Cost: per fact one forward pass over the contexts, and a forward and backward pass per step of the search; then per
    layer one pass over the contexts of each fact, and one solve.

    Meng et al. 2023, arXiv:2210.07229.

    Examples:
        ```python
        edit = memit(model, facts)
        edit = memit(model, facts, covariance=covariances(model, texts, (1, 2, 3)), token="last subject")
        ```
    """
    return spread_facts(
        model,
        facts,
        MEMIT,
        covariance=covariance,
        layers=layers,
        ridge=ridge,
        token=token,
        contexts=contexts,
        preserve=preserve,
        search=search,
        progress=progress,
    )
