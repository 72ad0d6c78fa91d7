"""The command `interp graph`: what the next token after a prompt comes from, by transcoders."""

from pathlib import Path
from typing import Annotated

import typer

from hooks.errors import InvalidArgument
from interp.commands.arguments import Device, ModelName, Quiet, check_predicts, load_model, read_lines
from interp.commands.verb import Document, verb
from interp.graphs import (
    AttributionGraph,
    FeatureText,
    attribution_graph,
    collect_feature_texts,
    neurons,
    read_transcoders,
    shuffle_decoders,
    write_viewer_json,
)
from interp.graphs.graph import warning_of
from interp.show import graph_page
from interp.show.frame import page_at

LABELLED = 100  # features with the most influence that get texts


@verb
def graph_command(
    model: ModelName,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="A text; what comes after it is explained.")],
    transcoders: Annotated[
        str, typer.Option(metavar="FOLDER", help="Transcoders, per layer or across layers; 'neurons' of a ReLU model.")
    ],
    target: Annotated[
        list[str] | None, typer.Option(help="A next token to explain; the likeliest unless given.")
    ] = None,
    texts: Annotated[
        Path | None, typer.Option(metavar="TEXTS", help="A file with one text per line, to say what features fire on.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Features to print.")] = 10,
    max_features: Annotated[int, typer.Option(min=1, help="Features that get rows, by influence.")] = 7500,
    out: Annotated[Path | None, typer.Option(help="A page to write.")] = None,
    viewer: Annotated[Path | None, typer.Option(help="A file of circuit-tracer's viewer to write.")] = None,
    device: Device = None,
    quiet: Quiet = False,
) -> Document:
    """Trace what the next token comes from, by transcoders; print features by influence, and scores."""
    if viewer is not None and viewer.suffix != ".json":
        raise InvalidArgument(f"--viewer {viewer}: give the name of a file that ends in .json")
    if out is not None:
        page_at(out)
    lines = [] if texts is None else read_lines(texts)
    check_predicts(model, "a graph is of what is predicted")
    loaded = load_model(model, device, quiet=quiet)
    given = neurons(loaded) if transcoders == "neurons" else read_transcoders(loaded, transcoders)
    graph, control = (
        attribution_graph(loaded, one, prompt, targets=target, max_features=max_features, progress=not quiet)
        for one in (given, shuffle_decoders(given))
    )
    found: dict[str, FeatureText] = {}
    if lines:
        names = [name for name, _ in graph.top(max(top, LABELLED))]
        found = collect_feature_texts(loaded, given, lines, names, progress=not quiet)
    _print(graph, control, found, top)
    if out is not None:
        typer.echo(f"page: {graph_page(out, graph, found, control=control).resolve()}")
    if viewer is not None:
        typer.echo(f"viewer: {write_viewer_json(graph, viewer.parent, viewer.stem, texts=found).resolve()}")
    return _document(graph, control, found, top) | {"page": out, "viewer": viewer}


def _print(graph: AttributionGraph, control: AttributionGraph, found: dict[str, FeatureText], top: int) -> None:
    typer.echo(str(graph))
    typer.echo(
        f"with decoders shuffled: replacement {control.replacement:.2f}, completeness {control.completeness:.2f}"
    )
    for name, influence in graph.top(top):
        typer.echo(f"{influence:>7.3f}  {name:<14} {_label(graph, name, found)}")


def _label(graph: AttributionGraph, name: str, found: dict[str, FeatureText]) -> str:
    """What a feature fires on, or the token that it is at."""
    text = found.get(name.partition("@")[0])
    return f"at {graph.pieces[int(name.partition('@')[2])]!r}" if text is None else text.label


def _document(graph: AttributionGraph, control: AttributionGraph, found: dict[str, FeatureText], top: int) -> Document:
    nodes, p = graph.nodes, graph.nodes.p[-len(graph.said) :].tolist()
    features = [
        {
            "feature": name,
            "influence": influence,
            "activation": float(nodes.a[nodes.number(name)]),
            "layer": int(nodes.layer[nodes.number(name)]),
            "token": int(nodes.pos[nodes.number(name)]),
            "label": _label(graph, name, found),
        }
        for name, influence in graph.top(top)
    ]
    return {
        "text": graph.text,
        "transcoders": graph.local.transcoders.name,
        "logits": [{"token": word, "p": each} for word, each in zip(graph.said, p, strict=True)],
        "replacement": graph.replacement,
        "completeness": graph.completeness,
        "bias": graph.bias_share,
        "closure": graph.closure,
        "warning": warning_of(graph) or None,
        "control": {"replacement": control.replacement, "completeness": control.completeness},
        "features": features,
    }
