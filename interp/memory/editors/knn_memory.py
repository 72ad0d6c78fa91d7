"""A nearest-neighbour memory: nothing is changed, stored states vote for the tokens that followed. A baseline."""

from collections.abc import Sequence

from hooks import Model, capture
from hooks.border import NotNegative, Share
from hooks.errors import InvalidArgument
from hooks.site import mlp_in
from interp.common.completion import tokenise_completions
from interp.memory.editing.checks import measure_and_check
from interp.memory.editing.datastore import Datastore
from interp.memory.editing.edit import Edit
from interp.memory.editing.keys import Facts, list_facts


def knn_memory(
    model: Model,
    facts: Facts,
    *,
    layer: int | None = None,
    radius: NotNegative = 0.1,
    weight: Share = 0.9,
    contexts: Sequence[str] = ("",),
) -> Edit:
    """Store, for each token of each new object, the state before it: p = λ p_kNN + (1 − λ) p_LM where one is near.

    States are inputs of the last feed-forward layer (Khandelwal et al. 2020, arXiv:1911.00172). A radius is added to
    the paper's memory: a few facts among all there is to say must not vote everywhere.

    Args:
        model: the model.
        facts: what is stored, one fact or several.
        layer: whose feed-forward input is the key; by default the last.
        radius: how far a state may be from a stored one, in units of the mean length of the stored ones.
        weight: λ.
        contexts: texts put before the prompts, each stored.

    Raises:
        InvalidArgument: a radius or weight out of range, no contexts.
        EditRefused: less than nine tenths of the facts are said in the end.

    Cost: one forward pass over facts × contexts.

    Examples:
        ```python
        edit = knn_memory(model, facts)
        ```
    """
    facts = list_facts(facts)
    if not radius > 0 or not 0 < weight < 1 or not contexts:
        raise InvalidArgument(
            f"radius={radius}, weight={weight}, {len(contexts)} contexts: give a radius above 0, a weight between 0 "
            "and 1, and at least one context"
        )
    site = mlp_in[model.n_layers - 1 if layer is None else layer]
    prompts = [context + fact.text for fact in facts for context in contexts]
    asked = tokenise_completions(model, prompts, [fact.new for fact in facts for _ in contexts])
    states = capture(model, asked.tokens, [site], batch_size=len(prompts))[site]
    row, column = asked.target.nonzero(as_tuple=True)
    keys = states[row, column - 1].float().cpu()
    reach = radius * float(keys.norm(dim=1).mean())
    store = Datastore(str(site), keys, asked.tokens.ids[row, column].cpu(), reach, weight)
    return measure_and_check(model, Edit(facts, "knn_memory", (store,), model.fingerprint), share=0.9)
