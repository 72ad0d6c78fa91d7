"""In-context editing: nothing is changed, the new facts are read before every text. A baseline for every editor."""

from hooks import Model
from hooks.errors import InvalidArgument
from interp.common.texts import join_words
from interp.memory.editing.checks import finished
from interp.memory.editing.edit import Edit
from interp.memory.editing.keys import Facts, listed
from interp.memory.editing.prompt_cache import Preamble


def in_context(model: Model, facts: Facts, *, repeats: int = 1) -> Edit:
    """Put "prompt new-object." of each fact before every text the model reads (Cohen et al. 2023, arXiv:2307.12976).

    Args:
        model: the model.
        facts: what it is told, one fact or several.
        repeats: how often it is told all of them.

    Raises:
        ValueError: no repeats; a model without a cache; facts longer than its context.

    Cost: one forward pass over the facts when applied; every later pass attends to them.

    The edit measures what it reaches and is returned whatever that is: to be ignored is what this baseline can show.

    ```python
    edit = in_context(model, facts)
    ```
    """
    facts = listed(facts)
    if repeats < 1:
        raise InvalidArgument(f"repeats={repeats}: tell the facts at least once")
    text = " ".join(f"{join_words(fact.text, fact.new)}." for _ in range(repeats) for fact in facts)
    (ids,) = model.tokens(text + "\n").ids.cpu()
    return finished(model, Edit(facts, "in_context", (Preamble(ids),), model.fingerprint), share=0.0)
