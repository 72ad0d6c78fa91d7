"""An attribution graph as a drawing of tokens by layers, and as a page to walk it, pin nodes and group them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from markupsafe import Markup
from torch import Tensor

from hooks.border import Share
from interp.graphs import AttributionGraph, FeatureText
from interp.graphs.graph import warning_of
from interp.graphs.influence import normalise_rows
from interp.graphs.nodes import ERROR, FEATURE, KINDS, LOGIT, TOKEN
from interp.graphs.supernodes import Supernodes, members_of
from interp.show.frame import render_page, save_page
from interp.show.html import Html, part, read_source, render, tokens, visible
from interp.show.page import Panel, Tile

LEFT, RIGHT, STEP, ACROSS, GAP, FOOT, PAGE = 62.0, 24.0, 19.0, 6, 14.0, 26.0, 910.0
SMALLEST = 5e-4  # a share of what a node reads below which the page does not hold an edge


def graph_panel(
    graph: AttributionGraph,
    labels: Mapping[str, str] | None = None,
    *,
    control: AttributionGraph | None = None,
    node_share: Share = 0.8,
    edge_share: Share = 0.98,
) -> Panel:
    """Draw the pruned graph, tokens from left to right and layers from below, each node with its label on hover.

    Args:
        graph: of a prompt.
        labels: what is known of features, by name (`f3.120`).
        control: the graph of the same prompt over `shuffle_decoders`, whose scores are shown next to this one's.
        node_share: of the influence, kept by nodes.
        edge_share: likewise by edges.

    Examples:
        ```python
        graph_panel(graph, {"f3.120": "fires on Bridge"})
        ```
    """
    drawn = _Drawing(graph, labels or {}, float(node_share), float(edge_share))
    top = ", ".join(f"{name} {value:.3f}" for name, value in graph.top(3))
    return Panel(
        title=f"Why {_name_token(graph)} after {graph.text!r}",
        body=Html(part("block", "wide", drawn.svg())),
        caption=(
            f"{drawn.about()} Red adds, blue takes away. The features with most influence: {top}. Replacement "
            f"{graph.replacement:.2f}, completeness {graph.completeness:.2f}, both unpruned."
        ),
        control=_control(graph, control) + (f" {said}." if (said := warning_of(graph)) else ""),
    )


def graph_page(
    path: str | Path,
    graph: AttributionGraph,
    texts: Mapping[str, FeatureText] | None = None,
    *,
    labels: Mapping[str, str] | None = None,
    supernodes: Supernodes | None = None,
    control: AttributionGraph | None = None,
    node_share: Share = 0.8,
    edge_share: Share = 0.98,
) -> Path:
    """Write the graph as a self-contained page to walk, and return where it is.

    Pointing at a node shows its edges and what it fires on; a click pins it; pinned nodes are grouped into supernodes,
    between which the page says what goes; arrow keys, Enter and g do the same. Pins and groups are kept in the address.

    Args:
        path: the page, which ends in `.html`.
        graph: of a prompt.
        texts: of `collect_feature_texts`; also the labels of features that have no other.
        labels: what is known of features, by name (`f3.120`), such as an index's labels.
        supernodes: to begin with; members that are pruned are left out.
        control: the graph of the same prompt over `shuffle_decoders`, whose scores are shown next to this one's.
        node_share: of the influence, kept by nodes.
        edge_share: likewise by edges.

    Raises:
        InvalidArgument: a name that does not end in `.html`, or supernodes that share a node.
        UnknownName: a supernode's member that is no node of the graph.

    Examples:
        ```python
        graph_page("graph.html", graph, texts, supernodes={"bridge": ["f0.476@4"]})
        ```
    """
    texts, supernodes = texts or {}, supernodes or {}
    members_of(graph, supernodes)
    named = {name: text.label for name, text in texts.items()} | dict(labels or {})
    drawn = _Drawing(graph, named, float(node_share), float(edge_share))
    data = drawn.data() | {"supernodes": [[name, *members] for name, members in supernodes.items()]}
    here = {_feature(graph.nodes.name(node)) for node in drawn.kept}
    page = render_page(
        "graph.html",
        f"Why {_name_token(graph)}?",
        lead=f"What the answer after “{graph.text}” comes from, by {graph.local.transcoders.name}.",
        tiles=_tiles(graph, control),
        warning=warning_of(graph),
        drawing=drawn.svg(),
        about=drawn.about(),
        texts=[(name, _text_body(text)) for name, text in texts.items() if name in here],
        notes=[_control(graph, control), f"Model {graph.local.model.name}. Scores are of the graph before pruning."],
        data=Markup(json.dumps(data, allow_nan=False).replace("<", "\\u003c")),
        walk=read_source("graph.js"),
    )
    return save_page(path, page)


def graph_data(
    graph: AttributionGraph,
    labels: Mapping[str, str] | None = None,
    *,
    node_share: Share = 0.8,
    edge_share: Share = 0.98,
) -> dict[str, Any]:
    """Return what a page needs to draw the pruned graph itself: places, nodes with their labels, and edges.

    Examples:
        ```python
        graph_data(graph)["nodes"][0]["name"]
        ```
    """
    drawn = _Drawing(graph, labels or {}, float(node_share), float(edge_share))
    places = {"width": drawn.width, "height": drawn.height, "rows": drawn.rows, "columns": drawn.columns}
    number, rows = drawn.number, graph.rows.tolist()
    pairs = [[number[s], number[rows[t]], float(drawn.shares[t, s])] for t, s in drawn.edges.nonzero().tolist()]
    return drawn.data() | places | {"drawn": pairs, "about": drawn.about()}


class _Drawing:
    """Where the nodes and edges that are kept are drawn."""

    def __init__(
        self, graph: AttributionGraph, labels: Mapping[str, str], node_share: float, edge_share: float
    ) -> None:
        self.graph, self.labels = graph, labels
        kept, self.edges = graph.prune(node_share, edge_share)
        self.kept: list[int] = kept.nonzero().flatten().tolist()
        self.number = {node: i for i, node in enumerate(self.kept)}
        self.shares = normalise_rows(graph.A) * graph.A.sign()
        self._place()

    def _place(self) -> None:
        """Columns as wide and rows as high as their fullest cells need."""
        nodes, cells = self.graph.nodes, dict[tuple[int, int], list[int]]()
        for node in sorted(self.kept, key=lambda node: -float(self.graph.influence[node] + nodes.p[node])):
            cells.setdefault((int(nodes.pos[node]), int(nodes.layer[node])), []).append(node)
        layers = range(-1, len(self.graph.local.layers) + 1)
        texts = [visible(text) for text in self.graph.pieces]
        most = [max(min(len(cells.get((pos, layer), ())), ACROSS) for layer in layers) for pos in range(len(texts))]
        wide = [max(n * STEP, 7.0 * len(text), 30.0) + GAP for n, text in zip(most, texts, strict=True)]
        loose = max(PAGE - LEFT - RIGHT - sum(wide), 0.0) / len(wide)
        self.columns, x = [], LEFT
        for text, each in zip(texts, wide, strict=True):
            self.columns.append({"middle": x + (each + loose) / 2, "text": text})
            x += each + loose
        self.width, self.rows, y = x + RIGHT, [], 30.0
        for layer in reversed(layers):
            lines = max(max(-(-len(cells.get((pos, layer), ())) // ACROSS), 1) for pos in range(len(self.columns)))
            name = "says" if layer == layers[-1] else "tokens" if layer < 0 else f"layer {layer}"
            self.rows.append({"name": name, "y": y, "middle": y + (lines * STEP + GAP) / 2, "layer": layer})
            y += lines * STEP + GAP
        self.height = y + FOOT
        middle = {row["layer"]: row["middle"] for row in self.rows}
        self.at = dict[int, tuple[float, float]]()
        for (pos, layer), here in cells.items():
            for i, node in enumerate(here):
                line, place = divmod(i, ACROSS)
                across = min(len(here) - line * ACROSS, ACROSS)
                x = self.columns[pos]["middle"] + (place - (across - 1) / 2) * STEP
                if layer == layers[-1]:  # logits have their words above them, so they go to the left one by one
                    x = max(self.width - RIGHT - 28.0 - 74.0 * i, LEFT)
                self.at[node] = x, middle[layer] + (line - (-(-len(here) // ACROSS) - 1) / 2) * STEP

    def about(self) -> str:
        """How much of the graph is drawn."""
        graph = self.graph
        features = int((graph.nodes.kind[torch.tensor(self.kept)] == FEATURE).sum())
        return (
            f"{features} of {len(graph.local.active)} features and {int(self.edges.sum())} of "
            f"{int((graph.A != 0).sum())} edges are drawn: those with most influence."
        )

    def svg(self) -> Markup:
        """The drawing."""
        edges = []
        for t, s in self.edges.nonzero().tolist():
            (x1, y1), (x2, y2) = self.at[s], self.at[int(self.graph.rows[t])]
            share = float(self.shares[t, s])
            ends = {"s": self.number[s], "t": self.number[int(self.graph.rows[t])], "share": share}
            path = {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "bend": (y1 + y2) / 2, "wide": 0.4 + 9.0 * abs(share)}
            edges.append(ends | path)
        edges.sort(key=lambda edge: edge["wide"])
        nodes = [self._mark(node) for node in self.kept]
        places = {"width": self.width, "height": self.height, "rows": self.rows, "columns": self.columns}
        return render("graph_drawing.html", nodes=nodes, edges=edges, **places)

    def _mark(self, node: int) -> dict[str, Any]:
        kind, (x, y) = int(self.graph.nodes.kind[node]), self.at[node]
        share = float(self.graph.influence[node] / self.graph.influence.sum().clamp(min=1e-30))
        radius = 6.5 if kind in (TOKEN, LOGIT) else 3.2 + min(12.0 * share**0.5, 5.0)
        hover = f"{self.graph.nodes.name(node)}: {self._label(node)}\n{share:.1%} of the influence"
        said = self._name_token(node) if kind == LOGIT else ""
        return {"i": self.number[node], "kind": KINDS[kind], "x": x, "y": y, "r": radius, "hover": hover, "said": said}

    def _name_token(self, node: int) -> str:
        said = self.graph.said[node - len(self.graph.nodes) + len(self.graph.said)]
        return f"{visible(said)} {float(self.graph.nodes.p[node]):.2f}"

    def _label(self, node: int) -> str:
        """What is said of a node."""
        nodes, kind = self.graph.nodes, int(self.graph.nodes.kind[node])
        piece = visible(self.graph.pieces[int(nodes.pos[node])])
        if kind == FEATURE:
            return self.labels.get(_feature(nodes.name(node)), f"at {piece}")
        if kind == ERROR:
            return f"what the features of layer {int(nodes.layer[node])} miss at {piece}"
        return piece if kind == TOKEN else self._name_token(node)

    def data(self) -> dict[str, Any]:
        """What the page's script needs: nodes, and the edges among them."""
        graph, nodes = self.graph, self.graph.nodes
        whole, weight = float(graph.influence.sum().clamp(min=1e-30)), graph.influence + nodes.p
        row_of = {node: row for row, node in enumerate(graph.rows.tolist())}
        shown = []
        for node in self.kept:
            kind, name, (x, y) = int(nodes.kind[node]), nodes.name(node), self.at[node]
            shown.append(
                {
                    "name": name,
                    "kind": KINDS[kind],
                    "feature": _feature(name),
                    "label": self._label(node),
                    "a": _figures(float(nodes.a[node])),
                    "p": _figures(float(nodes.p[node])),
                    "influence": _figures(float(graph.influence[node]) / whole),
                    "weight": _figures(float(weight[node])),
                    "bias": _figures(float(graph.bias[row_of[node]])) if node in row_of else None,
                    "has_row": node in row_of,
                    "height": int(nodes.layer[node]),
                    "x": round(x, 1),
                    "y": round(y, 1),
                }
            )
        first = self.number[len(nodes) - len(graph.said)]
        return {"nodes": shown, "edges": self._weights(), "first": first}

    def _weights(self) -> list[list[int | float]]:
        """Every edge among the kept nodes that is not all but nothing, drawn or not."""
        rows = [row for row, node in enumerate(self.graph.rows.tolist()) if node in self.number]
        among: Tensor = self.shares[rows][:, self.kept]
        values = self.graph.A[rows][:, self.kept]
        return [
            [s, self.number[int(self.graph.rows[rows[t]])], _figures(float(among[t, s])), _figures(float(values[t, s]))]
            for t, s in (among.abs() >= SMALLEST).nonzero().tolist()
        ]


def _figures(value: float) -> float:
    return float(f"{value:.5g}")


def _feature(name: str) -> str:
    return name.partition("@")[0] if name.startswith("f") else ""


def _name_token(graph: AttributionGraph) -> str:
    return f"“{graph.said[0].strip() or graph.said[0]}”"


def _text_body(text: FeatureText) -> Markup:
    largest = max((example.activation for example in text.examples), default=1.0)
    lines = [(e.activation, tokens(e.tokens, e.activations, largest)) for e in text.examples]
    rate = f"On at {text.firing_rate:.2%} of {text.tokens:,} tokens; highest at:"
    return part("line", rate) + part("examples", lines)


def _tiles(graph: AttributionGraph, control: AttributionGraph | None) -> list[Tile]:
    def compared(name: str) -> str:
        return "no control was given" if control is None else f"{getattr(control, name):.2f} with decoders shuffled"

    return [
        Tile(
            f"{float(graph.nodes.p[-len(graph.said)]):.2f}",
            f"probability of {_name_token(graph)}",
            "of the model itself",
        ),
        Tile(
            f"{graph.replacement:.2f}",
            "replacement: influence that ends in tokens, not errors",
            compared("replacement"),
        ),
        Tile(f"{graph.completeness:.2f}", "completeness: inputs of nodes that are no errors", compared("completeness")),
        Tile(f"{graph.bias_share:.2f}", "of what nodes read is bias, which no source explains", compared("bias_share")),
    ]


def _control(graph: AttributionGraph, control: AttributionGraph | None) -> str:
    closes = f"Rows close to {graph.closure:.0e} of what the model computes."
    if control is None:
        return f"{closes} No graph with shuffled decoders was given to hold the scores against."
    return (
        f"{closes} With each feature given another's decoder, replacement is {control.replacement:.2f} and "
        f"completeness {control.completeness:.2f}."
    )
