"""In-context editing: nothing is changed, the new facts are read before every text. A baseline for every editor."""

from hooks import Model
from hooks.border import Count
from hooks.errors import EditRefused, InvalidArgument
from hooks.forward import context
from interp.common.texts import join_words
from interp.memory.editing.checks import measure_and_check
from interp.memory.editing.edit import Edit
from interp.memory.editing.keys import Facts, list_facts
from interp.memory.editing.prompt_cache import Preamble


def in_context(model: Model, facts: Facts, *, repeats: Count = 1) -> Edit:
    """Put "prompt new-object." of each fact before every text the model reads (Cohen et al. 2023, arXiv:2307.12976).

    Args:
        model: the model.
        facts: what it reads, one fact or several.
        repeats: how often it reads all of them.

    Raises:
        InvalidArgument: no repeats; a model without a cache.
        EditRefused: facts as long as its context.

    Cost: one forward pass over the facts when applied; every later pass attends to them.

    The edit measures what it reaches and is returned whatever that is: that the model ignores the facts is a result
    too.

    Examples:
        ```python
        edit = in_context(model, facts)
        ```
    """
    facts = list_facts(facts)
    if repeats < 1:
        raise InvalidArgument(f"repeats={repeats}: say the facts at least once")
    text = " ".join(f"{join_words(fact.text, fact.new)}." for _ in range(repeats) for fact in facts)
    (ids,) = model.tokens(text + "\n").ids.cpu()
    room = context(model.hf)
    if room is not None and len(ids) >= room:
        raise EditRefused(f"{len(ids)} tokens do not fit into the context of {room}: give fewer facts")
    return measure_and_check(model, Edit(facts, "in_context", (Preamble(ids),), model.fingerprint), share=0.0)
