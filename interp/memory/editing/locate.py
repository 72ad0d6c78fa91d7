"""Where to edit: the token and the layers at which restoring feed-forward outputs brings facts back, and how surely."""

from collections.abc import Sequence

from hooks import Model
from hooks.border import Count, Natural, NotNegative
from hooks.errors import InvalidArgument
from interp.memory.editing.value_search import TOKENS
from interp.memory.facts.fact import Fact, Subject
from interp.memory.tracing.trace import MLP, Location, trace_windows


def locate(
    model: Model,
    facts: Sequence[Fact | Subject],
    *,
    token: str | None = None,
    window: Count | None = None,
    draws: Count = 4,
    noise: NotNegative = 3.0,
    seed: Natural = 0,
    progress: bool = True,
) -> Location:
    """The token (the subject's last or the prompt's last) and the layers that an editor of these facts should change.

    They are those whose feed-forward outputs, restored in a run with a broken subject, bring back most of the
    probability of the old objects, on average over the facts (`trace_mlp`). How sure the location is, is given by
    intervals over facts: with one fact they say nothing, so give several that the model knows.

    Args:
        model: the model.
        facts: facts the model knows: those to edit, or others.
        token: "last subject" or "last prompt", to be kept to; by default the better one.
        window: how many successive layers are restored together; by default a sixth of the depth.
        draws: how often the noise is drawn.
        noise: its strength, in standard deviations of the subjects' embeddings.
        seed: of the noise.
        progress: whether to show a bar.

    Raises:
        InvalidArgument: no facts, another token, a subject that its prompt does not spell, a window wider than the
            model.

    Cost: per fact one pass over 1 + draws × (1 + tokens × windows) rows.

    Examples:
        ```python
        place = locate(model, facts)
        place.role, place.layers, place.margin, place.sure
        ```
    """
    if token is not None and token not in TOKENS:
        raise InvalidArgument(f"token={token!r}: choose {TOKENS[0]!r} or {TOKENS[1]!r}")
    asked = [Subject(f.text, f.old, f.subject, f.prompt.index("{}")) if isinstance(f, Fact) else f for f in facts]
    width = max(1, round(model.n_layers / 6)) if window is None else window
    roles = TOKENS if token is None else (token,)
    how = {"draws": draws, "noise": noise, "seed": seed, "progress": progress}
    return trace_windows(model, asked, MLP, width, roles=roles, others=(), **how).location
