"""What `interp circuit --features` does: a circuit of dictionary features and errors in place of edges."""

from pathlib import Path

import typer

from hooks import Model
from hooks.errors import InvalidArgument
from interp.circuits.edges import Task
from interp.commands.arguments import lead_with, note, warn_unshown
from interp.commands.verb import Document
from interp.graphs.feature_circuits import FeatureCircuit, FeatureFaithfulness, feature_circuit, feature_faithfulness
from interp.sae import SAE, load
from interp.show import Section, feature_circuit_panel, feature_faithfulness_panel, report


def load_autoencoders(folders: list[Path]) -> list[SAE]:
    """Read the autoencoders of some folders, each an autoencoder or a folder of several.

    Raises:
        InvalidArgument: a folder without any.
        MissingFile: likewise, or one that lacks one of its two files.

    Examples:
        ```python
        load_autoencoders([Path("saes")])
        ```
    """
    found: list[Path] = []
    for folder in folders:
        inside = (
            [folder] if (folder / "cfg.json").is_file() else sorted(path.parent for path in folder.glob("*/cfg.json"))
        )
        if not inside:
            raise InvalidArgument(
                f"{folder} holds no autoencoder: give a folder that interp train-sae wrote, or one of several such"
            )
        found += inside
    return [load(folder) for folder in found]


def find_feature_circuit(
    model: Model,
    autoencoders: list[SAE],
    task: Task,
    thresholds: tuple[float, float],
    steps: int,
    top: int,
    out: Path | None,
    lead: str,
    *,
    quiet: bool,
) -> Document:
    """Find the circuit, print it and how faithful it is, and return it as a document; write its page if one is asked.

    Examples:
        ```python
        saes = load_autoencoders([folder])
        find_feature_circuit(model, saes, task, (0.1, 0.01), 10, 10, Path("circuit.html"), "Paris or Rome?", quiet=True)
        ```
    """
    node_threshold, edge_threshold = thresholds
    circuit = feature_circuit(
        model,
        autoencoders,
        task,
        node_threshold=node_threshold,
        edge_threshold=edge_threshold,
        steps=steps,
        progress=not quiet,
    )
    found = feature_faithfulness(model, autoencoders, circuit, progress=not quiet)
    nodes = sorted(((name, circuit.effects.of(name)) for name in circuit.names), key=lambda node: -abs(node[1]))
    edges = circuit.edges.above(edge_threshold)
    effects = circuit.effects
    clean, corrupt = float(effects.clean.mean()), float(effects.corrupt.mean())
    warning = warn_unshown(clean, corrupt)
    note(warning)
    typer.echo(
        f"{effects.how}: {circuit.n_nodes} nodes, {circuit.n_errors} of them errors, and {len(edges)} edges: logit "
        f"difference {clean:+.3f} clean, {corrupt:+.3f} corrupt"
    )
    for name, effect in nodes[:top]:
        typer.echo(f"{effect:>+9.3f}  {name}")
    for source, target, weight in edges[:top]:
        typer.echo(f"{weight:>+9.3f}  {source} -> {target}")
    typer.echo(str(found))
    if out is not None:
        _page(out, model, lead_with(warning, lead), circuit, found)
    return _document(circuit, found, nodes, edges) | {"warning": warning, "page": out}


def _page(out: Path, model: Model, lead: str, circuit: FeatureCircuit, found: FeatureFaithfulness) -> None:
    sections = [
        Section("Features and errors", "What the behaviour runs through.", (feature_circuit_panel(circuit),)),
        Section("Faithfulness", "What the circuit does by itself.", (feature_faithfulness_panel(found),)),
    ]
    report(out, f"A feature circuit of {model.name}", lead, sections)
    typer.echo(f"page: {out.resolve()}")


def _document(
    circuit: FeatureCircuit,
    found: FeatureFaithfulness,
    nodes: list[tuple[str, float]],
    edges: tuple[tuple[str, str, float], ...],
) -> Document:
    effects, check = circuit.effects, circuit.effects.check
    return {
        "method": effects.how,
        "clean": float(effects.clean.mean()),
        "corrupt": float(effects.corrupt.mean()),
        "nodes": [{"node": name, "effect": effect} for name, effect in nodes],
        "edges": [{"source": source, "target": target, "weight": weight} for source, target, weight in edges],
        "check": None
        if check is None
        else {"nodes": len(check.edges), "correlation": check.correlation, "relative_error": check.error},
        "trusted": None if check is None else check.trusted,
        "faithfulness": {
            "circuit": dict(found.circuit),
            "complement": dict(found.complement),
            "random": dict(found.random),
            "under_nodes": found.under_nodes,
        },
    }
