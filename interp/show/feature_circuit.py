"""Sparse feature circuits as figures: features and errors by site with the edges between them, and faithfulness."""

from collections.abc import Mapping

from plotly.graph_objects import Bar, Figure, Scatter

from hooks.border import Count
from hooks.plurals import count_of
from interp.common.statistics import Estimate
from interp.graphs.feature_circuits import FeatureCircuit, FeatureFaithfulness
from interp.show.page import Panel
from interp.show.theme import BEFORE, CONCEPT, CONTROL, MUTED, PAPER, style_figure

METRIC = "metric"
WORDS = {"circuit": "errors as nodes", "keep": "all errors kept", "remove": "errors removed"}


def feature_circuit_panel(
    circuit: FeatureCircuit, n_edges: Count = 60, labels: Mapping[str, str] | None = None
) -> Panel:
    """Draw the nodes of a feature circuit, a row for each site from the first below, and its strongest edges.

    A node is as large as its effect on the metric, an error is a square; a line is as wide as its weight. Red lowers
    the metric when it is corrupted, blue raises it.

    Args:
        circuit: of `feature_circuit`.
        n_edges: how many of its edges are drawn, the strongest first.
        labels: what is known of features, by the name of their node without its token (`resid_post.3/120`).

    Examples:
        ```python
        feature_circuit_panel(circuit).body.show()
        ```
    """
    effects, every = circuit.effects, circuit.edges.above(circuit.edge_threshold)
    edges, places = every[:n_edges], _places(circuit)
    figure = Figure()
    most = max((abs(weight) for *_, weight in edges), default=1.0)
    for source, target, weight in edges:
        figure.add_trace(_line(places[source], places[target], f"{source} → {target}", weight, most))
    figure.add_trace(_marks(circuit, places, labels or {}))
    rows = [*(str(site) for site in effects.effect if bool(circuit.nodes[site].any())), METRIC]
    figure.update_yaxes(tickvals=[*range(len(rows))], ticktext=rows, range=[-0.6, len(rows) - 0.4], showgrid=False)
    figure.update_xaxes(visible=False)
    strongest = ", ".join(f"{source} → {target} {weight:+.3g}" for source, target, weight in every[:3])
    pairs = len(effects.clean)
    return Panel(
        title=f"{circuit.n_nodes} nodes of a feature circuit, {circuit.n_errors} of them errors",
        body=style_figure(figure, 190 + 78 * len(rows)).update_layout(margin_l=110, margin_b=20),
        caption=(
            f"{len(edges)} of {len(every)} edges above {circuit.edge_threshold:g} between nodes above "
            f"{circuit.node_threshold:g}, in units of the metric. Red: corrupting it lowers the metric; blue: it "
            f"raises it. Squares are errors, what no feature accounts for: {effects.errors_share:.0%} of the effects "
            f"of all nodes. {f'The strongest edges: {strongest}.' if every else 'No edge is above the threshold.'}"
        ),
        control=(
            f"{effects.how}, mean of {count_of(pairs, 'pair')} of texts; the metric is "
            f"{float(effects.clean.mean()):+.3g} clean and {float(effects.corrupt.mean()):+.3g} corrupt. "
            + ("Not checked against exact effects." if effects.check is None else f"Checked: {effects.check}.")
        ),
    )


def feature_faithfulness_panel(found: FeatureFaithfulness) -> Panel:
    """Draw how much of the behaviour a feature circuit does, next to random nodes and to all nodes but its own.

    Examples:
        ```python
        feature_faithfulness_panel(feature_faithfulness(model, saes, circuit)).body.show()
        ```
    """
    figure = Figure()
    for name, by_errors, colour in (
        ("the circuit", found.circuit, CONCEPT),
        ("random nodes", found.random, CONTROL),
        ("all other nodes", found.complement, BEFORE),
    ):
        figure.add_trace(_bars(name, [by_errors[errors] for errors in WORDS], colour))
    figure.add_hline(y=1.0, line={"color": MUTED, "dash": "dot", "width": 1.5})
    figure.update_yaxes(title_text="faithfulness")
    kept, removed = (found.circuit[errors] for errors in ("keep", "remove"))
    return Panel(
        title="How much of what all nodes do the circuit does",
        body=style_figure(figure, 380).update_layout(margin_t=40, bargap=0.3),
        caption=(
            f"1 is the model, 0 is no node kept. Keeping all errors flatters a circuit ({kept.value:.2f}), removing "
            f"them asks what its features do alone ({removed.value:.2f}). {found.under_nodes:.0%} of the effect runs "
            "through nodes at all; what bypasses them is outside this figure."
        ),
        control=(
            f"Random nodes are as many at each site, of those that differ between the runs. All other nodes should "
            f"do nothing where the circuit is all there is. {_over(kept.n)}"
        ),
    )


def _over(n: int) -> str:
    """What the bars' intervals are over."""
    return f"Intervals of 95% are over {n} pairs of texts." if n > 1 else "One pair of texts has no interval."


def _places(circuit: FeatureCircuit) -> dict[str, tuple[float, float]]:
    """Where each node is drawn: a row for each site with nodes, from left to right by effect, the metric above."""
    rows: dict[str, list[str]] = {}
    for name in circuit.names:
        rows.setdefault(name.rpartition("/")[0], []).append(name)
    found = {METRIC: (0.0, float(len(rows)))}
    for y, names in enumerate(rows.values()):
        ranked = sorted(names, key=lambda name: -abs(circuit.effects.of(name)))
        for i, name in enumerate(ranked):
            found[name] = (i - (len(ranked) - 1) / 2) / max(len(ranked), 6), float(y)
    return found


def _line(start: tuple[float, float], end: tuple[float, float], name: str, weight: float, most: float) -> Scatter:
    """An edge."""
    xs, ys = ([a, (a + b) / 2, b] for a, b in zip(start, end, strict=True))
    line = {"width": 0.6 + 6 * abs(weight) / most, "color": CONCEPT if weight < 0 else BEFORE}
    hover = f"{name}: {weight:+.4g}<extra></extra>"
    return Scatter(x=xs, y=ys, mode="lines", line=line, opacity=0.5, hovertemplate=hover, showlegend=False)


def _marks(circuit: FeatureCircuit, places: Mapping[str, tuple[float, float]], labels: Mapping[str, str]) -> Scatter:
    """A disc for each feature, a square for each error, a ring for the metric."""
    names = [*circuit.names, METRIC]
    values = [circuit.effects.of(name) for name in circuit.names]
    most = max(map(abs, values))
    hovers = [
        "<br>".join([f"{name}: {value:+.4g}", *filter(None, [labels.get(name.partition("@")[0])])])
        for name, value in zip(circuit.names, values, strict=True)
    ]
    marks = Scatter(
        x=[places[name][0] for name in names],
        y=[places[name][1] for name in names],
        text=[*(name.rpartition("/")[2] if len(names) <= 80 else "" for name in circuit.names), ""],
        customdata=[*hovers, METRIC],
        mode="markers+text",
        textposition="top center",
        textfont={"size": 10, "color": MUTED},
        hovertemplate="%{customdata}<extra></extra>",
        showlegend=False,
    )
    return marks.update(
        marker={
            "symbol": ["square" if "/error" in name else "circle" for name in names],
            "size": [*(7 + 15 * (abs(value) / most) ** 0.5 for value in values), 14],
            "color": [*(CONCEPT if value < 0 else BEFORE for value in values), PAPER],
            "line": {"color": MUTED, "width": 1},
        }
    )


def _bars(name: str, values: list[Estimate], colour: str) -> Bar:
    """A bar with its interval for each treatment of errors."""
    return Bar(
        name=name,
        x=[*WORDS.values()],
        y=[one.value for one in values],
        marker={"color": colour},
        error_y={
            "array": [max(0.0, one.high - one.value) for one in values],
            "arrayminus": [max(0.0, one.value - one.low) for one in values],
            "color": MUTED,
            "visible": values[0].n > 1,
        },
        hovertemplate="%{x}: %{y:.3f}<extra>" + name + "</extra>",
    )
