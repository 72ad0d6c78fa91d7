"""Every editor by its name, set up once for a model: where to write, and by which covariances."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from hooks import Model
from hooks.errors import InvalidArgument, nearest
from interp.memory.editing.covariance import covariances
from interp.memory.editing.edit import Edit
from interp.memory.editing.keys import Facts
from interp.memory.editing.placement import locate_known_facts, measure_covariances
from interp.memory.editing.value_search import TOKENS
from interp.memory.editors.alphaedit import alphaedit
from interp.memory.editors.emmet import emmet
from interp.memory.editors.ft_l import ft_l
from interp.memory.editors.grace import choose_reaching_layer, grace
from interp.memory.editors.in_context import in_context
from interp.memory.editors.knn_memory import knn_memory
from interp.memory.editors.memit import memit
from interp.memory.editors.pmet import pmet
from interp.memory.editors.rome import rome
from interp.memory.facts.fact import Fact
from interp.memory.tracing.trace import Location

ONE_LAYER = {"rome": rome, "emmet": emmet}
LAYERS = {"memit": memit, "pmet": pmet, "alphaedit": alphaedit}
NO_COVARIANCE = {"ft_l": ft_l, "grace": grace}
NO_PLACE = {"knn_memory": knn_memory, "in_context": in_context}
METHODS = (*ONE_LAYER, *LAYERS, *NO_COVARIANCE, *NO_PLACE)
Editing = Callable[[Model, Facts], Edit]


def resolve_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names of editors, once it is known that there are such.

    Raises:
        InvalidArgument: a name of none, with the nearest that are.

    Examples:
        >>> resolve_names(["rome"])
        ('rome',)
    """
    for name in names:
        if name not in METHODS:
            raise InvalidArgument(
                f"no method is called {name!r}; did you mean {nearest(name, list(METHODS))}? "
                f"there are {', '.join(METHODS)}"
            )
    return tuple(dict.fromkeys(names))


def make_editors(
    model: Model,
    names: Sequence[str],
    facts: Sequence[Fact],
    *,
    layer: int | None = None,
    texts: Sequence[str] | None = None,
    progress: bool = True,
) -> tuple[dict[str, Editing], Location | None]:
    """The editors of these names, all writing where these facts are looked up, and that place where it was traced.

    Args:
        model: the model.
        names: of editors.
        facts: to trace, the first twenty of them; those to edit, or others that the model knows.
        layer: where to write instead of tracing.
        texts: for the covariances; by default the model's own.
        progress: whether to show bars.

    Raises:
        InvalidArgument: a name of no editor.
        EditRefused: no old object that the model says, where a place is to be traced.

    Cost: tracing the facts, and a pass over the texts, where an editor needs them.

    Examples:
        ```python
        found, place = editors(model, ["rome", "memit"], facts)
        edit = found["memit"](model, facts)
        ```
    """
    names, place = resolve_names(names), None
    if layer is None and set(names) - NO_PLACE.keys():
        place = locate_known_facts(model, facts, progress=progress)
    layers = place.layers if place is not None else () if layer is None else (layer,)
    how: dict[str, Any] = {"token": "last subject" if place is None else place.role, "progress": progress}
    made: dict[str, Editing] = {name: NO_PLACE[name] for name in names if name in NO_PLACE}
    if set(names) & {*ONE_LAYER, *LAYERS}:
        cs = (
            measure_covariances(model, layers, progress=progress)
            if texts is None
            else covariances(model, texts, layers, progress=progress)
        )
        made |= {n: partial(ONE_LAYER[n], covariance=cs[len(cs) // 2], **how) for n in names if n in ONE_LAYER}
        made |= {n: partial(LAYERS[n], covariance=cs, **how) for n in names if n in LAYERS}
    if "ft_l" in names:
        made["ft_l"] = partial(ft_l, layer=layers[len(layers) // 2], progress=progress)
    if "grace" in names:
        reaching = choose_reaching_layer(model, facts, TOKENS[1], progress=progress) if layer is None else layer
        made["grace"] = partial(grace, layer=reaching, progress=progress)
    return {name: made[name] for name in names}, place
