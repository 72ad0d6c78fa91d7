"""The actions a page can ask for, by name: the type of their arguments, and what does them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from hooks.errors import InvalidArgument, UnknownName, nearest
from interp.workbench.arguments import (
    Arguments,
    AttributeArguments,
    CircuitArguments,
    DoseArguments,
    EditArguments,
    ExportEditArguments,
    ExportSteeringArguments,
    FeaturesArguments,
    GraphArguments,
    LatentArguments,
    MapArguments,
    NamedArguments,
    PatchArguments,
    SearchArguments,
    SteerArguments,
    SteerNodesArguments,
    TextArguments,
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

    given: type[Arguments]
    run: Callable[[Session, Any, Progress], Document]


def check_given(kind: str, args: object) -> Arguments:
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
    "lens": Action(TextArguments, read_lens),
    "features": Action(FeaturesArguments, read_features),
    "attribute": Action(AttributeArguments, split_logit),
    "steer": Action(SteerArguments, steer_prompt),
    "dose": Action(DoseArguments, sweep_doses),
    "edit": Action(EditArguments, make_edit),
    "apply": Action(NamedArguments, apply_edit),
    "undo": Action(NamedArguments, undo_edit),
    "patch": Action(PatchArguments, sweep_patches),
    "search": Action(SearchArguments, search_latents),
    "latent": Action(LatentArguments, show_latent),
    "map": Action(MapArguments, map_latents),
    "graph": Action(GraphArguments, draw_graph),
    "steer_nodes": Action(SteerNodesArguments, steer_nodes),
    "circuit": Action(CircuitArguments, find_circuit),
    "export_edit": Action(ExportEditArguments, export_edit),
    "export_steering": Action(ExportSteeringArguments, export_steering),
}
