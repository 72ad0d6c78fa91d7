"""Other ways to say whether a text expresses a concept than naming it: a direction's projection, or a judge."""

import re
from collections.abc import Callable

from hooks import Direction, Model
from hooks.border import Finite
from hooks.errors import InvalidArgument
from hooks.position import everywhere
from interp.features.explain.llm import Ask
from interp.steering.conditional import measure_projections

Scorer = Callable[[str], bool]


def score_by_projection(model: Model, direction: Direction, threshold: Finite) -> Scorer:
    """Whether a text, read without steering, has a mean projection above a threshold; an empty text has none.

    Take a direction found in another way than the one that steers, or it will agree with itself.

    Cost: one forward pass per text.

    Examples:
        ```python
        measure_dose_response(model, way, prompts, score_by_projection(model, probe_direction, 3.0), doses=(1, 2, 4))
        ```
    """

    def scored(text: str) -> bool:
        return (
            bool(text.strip())
            and float(measure_projections(model, direction, [text], everywhere, progress=False)[0]) > threshold
        )

    return scored


def score_by_judge(ask: Ask, concept: str) -> Scorer:
    """Whether a language model says that a text is about a concept.

    Raises:
        InvalidArgument: called, for an answer that is neither yes nor no.

    Cost: one request per text.

    Examples:
        ```python
        judge = score_by_judge(Endpoint(url, name), "the Golden Gate Bridge")
        measure_dose_response(model, way, prompts, judge, doses=(1, 2, 4))
        ```
    """

    def scored(text: str) -> bool:
        answer = ask(f"Is this text about {concept}? Answer yes or no.\n\n{text}\n\nAnswer:").strip().casefold()
        said = re.match(r"(yes|no)\b", answer)
        if said is None:
            raise InvalidArgument(f"a yes or no was asked for, and the answer begins {answer[:80]!r}")
        return said[0] == "yes"

    return scored
