"""The actions a page can ask for, by name: the type of their arguments, and what does them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from hooks.errors import InvalidArgument, UnknownName, nearest
from interp.workbench.arguments import (
    AttributeGiven,
    CircuitGiven,
    DoseGiven,
    EditGiven,
    ExportEditGiven,
    ExportSteeringGiven,
    FeaturesGiven,
    Given,
    GraphGiven,
    LatentGiven,
    MapGiven,
    NamedGiven,
    PatchGiven,
    SearchGiven,
    SteerGiven,
    SteerNodesGiven,
    TextGiven,
)
from interp.workbench.browsing import map_latents, search_latents, show_latent
from interp.workbench.circuits import draw_graph, find_circuit, steer_nodes
from interp.workbench.editing import apply_edit, make_edit, undo_edit
from interp.workbench.exporting import export_edit, export_steering
from interp.workbench.progress import Document, Progress
from interp.workbench.reading import read_features, read_lens, split_logit
from interp.workbench.session import Session
from interp.workbench.steering import steer_prompt, sweep_doses
from interp.workbench.tracing import sweep_patches


@dataclass(frozen=True)
class Action:
    """One kind of action: the type of its arguments, and what does it."""

    given: type[Given]
    run: Callable[[Session, Any, Progress], Document]


def check_given(kind: str, args: object) -> Given:
    """The arguments of an action, each of its type and within its limits.

    Raises:
        UnknownName: no action is called that.
        InvalidArgument: an argument that is missing, unknown, of another type or beyond a limit.
    """
    if kind not in ACTIONS:
        raise UnknownName(f"no action is called {kind!r}; did you mean {nearest(kind, ACTIONS)}?")
    try:
        return ACTIONS[kind].given.model_validate(args, strict=False)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidArgument(f"{kind} takes {where or 'its arguments'} otherwise: {first['msg']}") from error


ACTIONS: Final[dict[str, Action]] = {
    "lens": Action(TextGiven, read_lens),
    "features": Action(FeaturesGiven, read_features),
    "attribute": Action(AttributeGiven, split_logit),
    "steer": Action(SteerGiven, steer_prompt),
    "dose": Action(DoseGiven, sweep_doses),
    "edit": Action(EditGiven, make_edit),
    "apply": Action(NamedGiven, apply_edit),
    "undo": Action(NamedGiven, undo_edit),
    "patch": Action(PatchGiven, sweep_patches),
    "search": Action(SearchGiven, search_latents),
    "latent": Action(LatentGiven, show_latent),
    "map": Action(MapGiven, map_latents),
    "graph": Action(GraphGiven, draw_graph),
    "steer_nodes": Action(SteerNodesGiven, steer_nodes),
    "circuit": Action(CircuitGiven, find_circuit),
    "export_edit": Action(ExportEditGiven, export_edit),
    "export_steering": Action(ExportSteeringGiven, export_steering),
}
