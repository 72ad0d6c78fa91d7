"""Continuations side by side, before and after, with the concept marked."""

from collections.abc import Callable, Sequence

from hooks.border import Count
from hooks.errors import InvalidArgument
from hooks.plurals import count_of
from interp.show.html import Html, highlight, render
from interp.show.page import Panel
from interp.steering import Samples

Spans = Callable[[str], Sequence[tuple[int, int]]]


def generations_panel(before: Samples, after: Samples, spans: Spans, at_most: Count = 6) -> Panel:
    """The first continuation of each prompt, unsteered and steered, with the spans that name the concept marked.

    No continuation is picked by what it says: they are the first ones drawn.

    Raises:
        InvalidArgument: the two conditions did not continue the same prompts.

    Examples:
        ```python
        generations_panel(response.unsteered, response.best(), Names(("Golden Gate Bridge",)).spans).body
        ```
    """
    if before.prompts != after.prompts:
        raise InvalidArgument(
            "the two conditions continued different prompts: sample both from the same prompts and seed"
        )
    first = {prompt: i for i, prompt in reversed(list(enumerate(before.prompts)))}
    shown = sorted(first.values())[:at_most]
    texts = ((before.prompts[i], before.texts[i], after.texts[i]) for i in shown)
    rows = [(prompt, highlight(one, spans(one)), highlight(two, spans(two))) for prompt, one, two in texts]
    return Panel(
        title="The same prompts, before and after",
        body=Html(render("generations.html", dose=after.dose, rows=rows)),
        caption=(
            "Read across. Prompts are grey, the concept's names are marked. The first continuation drawn is "
            f"shown, not the best, for {len(shown)} of {count_of(len(first), 'prompt')}; of all {len(after.texts)} "
            f"continuations {after.naming.value:.0%} name it."
        ),
        control=f"Unsteered on the left, with the same prompts and seed: {before.naming.value:.1%} name it.",
    )
