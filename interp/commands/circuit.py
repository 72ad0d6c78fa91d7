"""The command `interp circuit`: the edges, or the features, that a behaviour runs through; how faithful they are."""

from pathlib import Path
from typing import Annotated

import typer

from hooks import Model
from hooks.errors import InvalidArgument, nearest
from interp.circuits import logit_difference
from interp.circuits.edges import (
    EdgeEffect,
    FaithfulnessCurve,
    Slope,
    Task,
    clean_corrupt,
    eap,
    eap_ig,
    edge_attribution,
    exact_edges,
    faithfulness_curve,
    gim,
    random_scores,
    relp,
)
from interp.commands.arguments import (
    ONE_PAIR,
    Device,
    FirstToken,
    ModelName,
    Quiet,
    lead_with,
    load_to_answer,
    note,
    warn_unshown,
)
from interp.commands.circuit_of_features import find_feature_circuit, load_autoencoders
from interp.commands.verb import Document, verb
from interp.show import Section, circuit_panel, faithfulness_panel, report
from interp.show.circuit import MEANING
from interp.show.frame import page_at

METHODS = ("eap-ig", "eap", "clean-corrupt", "relp", "gim", "exact")


@verb
def circuit_command(
    model: ModelName,
    clean: Annotated[str, typer.Argument(metavar="CLEAN", help="A text that shows the behaviour.")],
    corrupt: Annotated[str, typer.Argument(metavar="CORRUPT", help="One of as many tokens that does not.")],
    right: Annotated[str, typer.Argument(metavar="RIGHT", help="What the model says after the clean text: one token.")],
    wrong: Annotated[str, typer.Argument(metavar="WRONG", help="What it says after the corrupt one.")],
    method: Annotated[str, typer.Option(help="eap-ig, eap, clean-corrupt, relp, gim or exact.")] = "eap-ig",
    steps: Annotated[int, typer.Option(min=1, help="Points of eap-ig.")] = 5,
    by: Annotated[str, typer.Option(help="contribution (signed) or size (absolute).")] = "contribution",
    top: Annotated[int, typer.Option(min=1, help="Edges to print.")] = 10,
    features: Annotated[
        list[Path] | None,
        typer.Option(help="A folder of an autoencoder, or of several: nodes are then its features. Can be repeated."),
    ] = None,
    node_threshold: Annotated[
        float | None,
        typer.Option(min=0, help="With --features: the least absolute effect of a node; 0.1 if not given."),
    ] = None,
    edge_threshold: Annotated[
        float | None, typer.Option(min=0, help="With --features: that of an edge; 0.01 if not given.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="A page to write.")] = None,
    first_token: FirstToken = False,
    device: Device = None,
    quiet: Quiet = False,
) -> Document:
    """Rank a model's edges by what corrupting each would do; print the first, and how faithful their circuits are.

    With --features, the circuit is of dictionary features and errors, and the edges are between those.
    """
    thresholds = {"--node-threshold": node_threshold, "--edge-threshold": edge_threshold}
    _check_features(bool(features), method, [name for name, value in thresholds.items() if value is not None])
    if method not in METHODS:
        raise InvalidArgument(f"no method is called '{method}'; did you mean {nearest(method, METHODS)}?")
    if by not in ("contribution", "size"):
        raise InvalidArgument(f"edges are not ranked by '{by}': give contribution or size")
    if out is not None:
        page_at(out)
    slope = None if method == "exact" else _slope(method, steps)
    autoencoders = load_autoencoders(features) if features else []
    wanted, words = "a circuit is of what is predicted", {"RIGHT": right, "WRONG": wrong}
    loaded, answers = load_to_answer(model, wanted, first_token, device, quiet=quiet, **words)
    task = Task(clean, corrupt, logit_difference(loaded, *answers))
    if autoencoders:
        least = (0.1 if node_threshold is None else node_threshold, 0.01 if edge_threshold is None else edge_threshold)
        lead = f"{right!r} against {wrong!r} after {clean!r}, corrupted by {corrupt!r}."
        return find_feature_circuit(loaded, autoencoders, task, least, steps, top, out, lead, quiet=quiet)
    if slope is None:
        found = exact_edges(loaded, task, progress=not quiet)
    else:
        found = edge_attribution(loaded, task, slope, progress=not quiet)
    curves = [
        faithfulness_curve(loaded, task, scores, name=name, progress=not quiet)
        for name, scores in ((found.how, found.scores(by)), ("random", random_scores(found.graph)))
    ]
    warning = warn_unshown(float(found.clean.mean()), float(found.corrupt.mean()))
    note(warning)
    _print(found, curves, top, by)
    if out is not None:
        lead = lead_with(warning, f"{right!r} against {wrong!r} after {clean!r}. {ONE_PAIR}.")
        _page(out, loaded, found, by, curves, lead, corrupt)
    return _document(found, curves, top, by) | {"warning": warning, "page": out}


def _check_features(wanted: bool, method: str, thresholds: list[str]) -> None:
    """Refuse what has no meaning for a circuit of features, and what has one only there."""
    if wanted and method != "eap-ig":
        raise InvalidArgument(f"--method {method} is of edges: with --features the slope is integrated over --steps")
    if thresholds and not wanted:
        raise InvalidArgument(f"{' and '.join(thresholds)} say which features count: give --features as well")


def _slope(method: str, steps: int) -> Slope:
    slopes: dict[str, Slope] = {"eap": eap(), "clean-corrupt": clean_corrupt(), "relp": relp(), "gim": gim()}
    return slopes.get(method) or eap_ig(steps)


def _print(found: EdgeEffect, curves: list[FaithfulnessCurve], top: int, by: str) -> None:
    clean, corrupt = float(found.clean.mean()), float(found.corrupt.mean())
    typer.echo(f"{found.how}, {found.graph.n_edges} edges: logit difference {clean:+.3f} clean, {corrupt:+.3f} corrupt")
    for name, effect in found.top(top, by):
        typer.echo(f"{effect:>+9.3f}  {name}")
    if found.check is not None:
        typer.echo(str(found.check))
    typer.echo(str(curves[0]))
    typer.echo(f"random: CPR {curves[1].cpr:.3f}, CMD {curves[1].cmd:.3f}")
    typer.echo(f"{MEANING}. {ONE_PAIR}")


def _document(found: EdgeEffect, curves: list[FaithfulnessCurve], top: int, by: str) -> Document:
    check = found.check
    return {
        "method": found.how,
        "clean": float(found.clean.mean()),
        "corrupt": float(found.corrupt.mean()),
        "edges": [{"edge": name, "effect": effect} for name, effect in found.top(top, by)],
        "check": None
        if check is None
        else {"edges": len(check.edges), "correlation": check.correlation, "relative_error": check.error},
        "trusted": None if check is None else check.trusted,
        "curves": [
            {
                "name": c.name,
                "cpr": c.cpr,
                "cmd": c.cmd,
                "log_area": c.log_area,
                "shares": c.shares,
                "edges": c.real,
                "faithfulness": c.f,
            }
            for c in curves
        ],
    }


def _page(
    out: Path, model: Model, found: EdgeEffect, by: str, curves: list[FaithfulnessCurve], lead: str, corrupt: str
) -> None:
    sections = [
        Section("Edges", f"Corrupted by {corrupt!r}.", (circuit_panel(found, by=by),)),
        Section("Faithfulness", "The circuits of the edges that rank highest.", (faithfulness_panel(curves),)),
    ]
    report(out, f"A circuit of {model.name}", lead, sections)
    typer.echo(f"page: {out.resolve()}")
