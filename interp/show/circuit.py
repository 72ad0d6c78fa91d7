"""Circuits of edges as figures: the strongest edges between the nodes they join, and faithfulness by size."""

from collections.abc import Sequence

from plotly.graph_objects import Figure, Scatter

from hooks.border import Count
from hooks.errors import InvalidArgument
from hooks.plurals import count_of
from interp.circuits.edges import EdgeEffect, FaithfulnessCurve
from interp.show.page import Panel
from interp.show.theme import BEFORE, CONCEPT, CONTROL, INK, MUTED, PAPER, RIVALS, style_figure


def circuit_panel(found: EdgeEffect, n_edges: Count = 40, by: str = "size") -> Panel:
    """Draw the edges that rank highest, from the embedding below to the logits above.

    A head is in its layer's row by its number, a feed-forward layer at the right; a line is as wide as its edge's
    effect, and its colour says whether corrupting the edge lowers the metric or raises it.

    Examples:
        ```python
        circuit_panel(edge_attribution(model, task)).body.show()
        ```
    """
    circuit = found.circuit(min(n_edges, int(found.known.sum())), by)
    effect, graph = found.effect, found.graph
    most = max(float(effect.abs().max()), 1e-9)
    figure, nodes = Figure(), dict[str, tuple[float, float]]()
    for s, r in circuit.mask.nonzero().tolist():
        sender, receiver = graph.senders[s], graph.receivers[r]
        node = receiver if receiver == "logits" else graph.senders[int(graph.fed_by[:, r].nonzero()[0])]
        ends = nodes[sender], nodes[node] = _place(sender, graph.senders), _place(node, graph.senders)
        value = float(effect[s, r])
        line = {"width": 0.6 + 7 * abs(value) / most, "color": CONCEPT if value < 0 else BEFORE}
        hover = f"{graph.name(s, r)}: {value:+.4g}<extra></extra>"
        xs, ys = ([a, (a + b) / 2, b] for a, b in zip(*ends, strict=True))
        figure.add_trace(
            Scatter(x=xs, y=ys, mode="lines", line=line, opacity=0.55, hovertemplate=hover, showlegend=False)
        )
    figure.add_trace(_marks(nodes))
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return Panel(
        title=f"The {circuit.n_edges} edges that rank highest by {by}, {found.how}",
        body=style_figure(figure, 560),
        caption=(
            f"Of {graph.n_edges} edges. Red: corrupting the edge lowers the metric; blue: it raises it. The strongest: "
            f"{', '.join(f'{name} {value:+.3g}' for name, value in found.top(3, by))}. "
            f"Mean of {count_of(len(found.clean), 'pair')} of texts."
        ),
        control=(
            f"The metric is {float(found.clean.mean()):+.3g} clean and {float(found.corrupt.mean()):+.3g} corrupt. "
            + ("Not checked against exact effects." if found.check is None else f"Checked: {found.check}.")
        ),
    )


MEANING = (
    "f is the share of what the model does that a circuit does; CPR is the mean of f over sizes, higher is better; CMD "
    "is how far f is from 1 on average, lower is better, 0 the least"
)


def faithfulness_panel(curves: Sequence[FaithfulnessCurve]) -> Panel:
    """Draw the faithfulness of circuits by their size, one line for each ranking; the one called "random" is grey.

    Raises:
        InvalidArgument: no curves.

    Examples:
        ```python
        faithfulness_panel([faithfulness_curve(model, task, found.scores("contribution"), name=found.how)])
        ```
    """
    if not curves:
        raise InvalidArgument("no curves were given to draw: give one of faithfulness_curve at least")
    figure, colours = Figure(), iter((CONCEPT, BEFORE, *RIVALS) * len(curves))
    for curve in curves:
        colour = CONTROL if curve.name == "random" else next(colours)
        hover = "%{x:.2%} of the edges: f %{y:.3f}<br>%{customdata} without dead ends<extra>" + curve.name + "</extra>"
        figure.add_trace(
            Scatter(
                x=curve.shares,
                y=curve.f.tolist(),
                name=curve.name,
                mode="lines+markers",
                line={"color": colour, "width": 2.5},
                customdata=curve.real,
                hovertemplate=hover,
            )
        )
    figure.update_xaxes(type="log", dtick=1, title_text="edges in the circuit, of all", tickformat="~%")
    figure.update_yaxes(title_text="faithfulness")
    figure = style_figure(figure, 420).add_hline(y=1.0, line={"color": MUTED, "dash": "dot", "width": 1.5})
    areas = "; ".join(f"{c.name}: CPR {c.cpr:.3f}, CMD {c.cmd:.3f}, over log size {c.log_area:.3f}" for c in curves)
    return Panel(
        title="How much of what the model does its circuits do",
        body=figure.update_layout(margin_t=40),
        caption=f"1 is the model, 0 is every edge ablated. {areas}. {MEANING[:1].upper()}{MEANING[1:]}.",
        control=(
            "A random ranking of the edges is what a method must beat. "
            f"{count_of(len(curves[0].whole), 'pair')} of texts."
        ),
    )


def _marks(nodes: dict[str, tuple[float, float]]) -> Scatter:
    """A ring with its name for each node."""
    xs, ys = zip(*nodes.values(), strict=True) if nodes else ((), ())
    marks = Scatter(x=xs, y=ys, text=[*nodes], mode="markers+text", textposition="top center", showlegend=False)
    marks.update(marker={"size": 13, "color": PAPER, "line": {"color": MUTED, "width": 1.5}})
    return marks.update(textfont={"size": 11, "color": INK}, hovertemplate="%{text}<extra></extra>")


def _place(node: str, senders: tuple[str, ...]) -> tuple[float, float]:
    """Where a node is: the embedding below, a row for each layer's heads and its feed-forward layer after them."""
    layers = 1 + max((_layer(name) for name in senders if name != "embed"), default=0)
    heads = [name for name in senders if name.startswith("h")]
    width = 1 + max((int(name.partition(".")[2]) for name in heads), default=0)
    if node in ("embed", "logits"):
        return (width / 2, -1.0 if node == "embed" else float(layers))
    if node.startswith("mlp"):
        return (float(width) + 0.5, _layer(node) + 0.45)
    return (float(node.partition(".")[2]), float(_layer(node)))


def _layer(node: str) -> int:
    return int(node.removeprefix("mlp").removeprefix("h").partition(".")[0])
