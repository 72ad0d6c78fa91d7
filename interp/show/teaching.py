"""The same fact by every way: what each says and leaves alone as a figure, what each takes and how it is undone."""

from collections.abc import Mapping

from plotly.graph_objects import Scatter
from plotly.subplots import make_subplots

from hooks.plurals import count_of
from interp.common.statistics import Estimate
from interp.show.html import Html, part, table
from interp.show.page import Panel
from interp.show.theme import CONCEPT, CONTROL, style_figure
from interp.teaching import WAYS, WayComparison

SHOWN = {
    "efficacy said": "says the new object",
    "paraphrase said": "in phrasings never taught",
    "neighbours unchanged": "neighbours as before",
    "others said": "subject's other facts",
}
HEIGHT = 42


def ways_panel(found: WayComparison) -> Panel:
    """What every way says and leaves alone, a row a way, its control in grey.

    Examples:
        ```python
        ways_panel(compare_ways(model, cases, ways, texts)).body.show()
        ```
    """
    shown = {measure: name for measure, name in SHOWN.items() if measure in found.table["untaught"]}
    ways = [name for name in found.table if not name.endswith(" control")][::-1]
    figure = make_subplots(
        rows=len(shown), cols=1, shared_xaxes=True, subplot_titles=[*shown.values()], vertical_spacing=0.3 / len(ways)
    )
    for row, measure in enumerate(shown, 1):
        controls = {name: found.table[f"{name} control"] for name in ways if f"{name} control" in found.table}
        for rows, colour, symbol, label in (
            (controls, CONTROL, "line-ns-open", "its control"),
            ({name: found.table[name] for name in ways}, CONCEPT, "circle", "the way"),
        ):
            figure.add_trace(_points(rows, measure, colour, symbol, label, row == 1), row=row, col=1)
        figure.update_yaxes(categoryorder="array", categoryarray=ways, row=row, col=1)
    style_figure(figure, 110 + len(shown) * (40 + HEIGHT * len(ways) // 2))
    figure.update_xaxes(range=[-4, 104], ticksuffix=" %")
    figure.update_layout(margin_l=84, margin_t=64, legend_y=1.04)
    best = max((n for n in ways if n != "untaught"), key=lambda n: _reach(found, n))
    return Panel(
        title="What each way says, and what it leaves alone",
        body=figure,
        caption=(
            f"Shares over {count_of(found.n, 'fact')}, one taught at a time, with 95% intervals. A good way "
            "is at the right in every row: it says the new object, and all else stays. Best by the least of the rows: "
            f"{best} ({_reach(found, best):.0%})."
        ),
        control=(
            "Grey: the same way with something random of equal size: a random value, other tokens, the statement's "
            "words in another order, a random vector. Untaught: the model as it was."
        ),
    )


def _points(
    rows: Mapping[str, Mapping[str, Estimate]], measure: str, colour: str, symbol: str, label: str, legend: bool
) -> Scatter:
    of = {name: row[measure] for name, row in rows.items() if measure in row}
    return Scatter(
        x=[100 * e.value for e in of.values()],
        y=[*of],
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [100 * (e.high - e.value) for e in of.values()],
            "arrayminus": [100 * (e.value - e.low) for e in of.values()],
            "color": colour,
            "thickness": 1.5 if symbol == "circle" else 0,
        },
        mode="markers",
        marker={"size": 11, "color": colour, "symbol": symbol, "line": {"width": 3, "color": colour}},
        name=label,
        legendgroup=label,
        showlegend=legend,
        hovertemplate="%{y}: %{x:.0f} %<extra>" + label + "</extra>",
    )


def _reach(found: WayComparison, way: str) -> float:
    return min(found.table[way][measure].value for measure in SHOWN if measure in found.table[way])


def costs_panel(found: WayComparison) -> Panel:
    """What every way changes and how it is undone; what it takes, and does to other texts.

    Examples:
        ```python
        costs_panel(compare_ways(model, cases, ways, texts)).body
        ```
    """
    plain = [(way, found.undone[way], WAYS.get(way)) for way in found.costs]
    words = [[way, about.changes if about else "–", part("with_small", about.undone if about else "left", _bits(e))]
             for way, e, about in plain]  # fmt: skip
    head = ["way", "bytes kept", "tokens read", "teaching", "answering", "drift", "perplexity"]
    figures = table(head, [_row(found, way) for way in found.costs])
    refused = [f"{way} refused {len(facts)}" for way, facts in found.refused.items() if facts]
    return Panel(
        title="What each way takes, and how it is undone",
        body=Html(part("block", "said words", table(["way", "what is changed", "how it is undone"], words))
                  + part("block", "stacked", figures)),
        caption=(
            "Bytes and tokens are those of one fact. Teaching: processor time, in forward passes over the prompt. "
            "Answering: processor time over that of the model untaught, taken in turn. Drift (nats a token) and "
            "perplexity: of unrelated texts, next to the model untaught. "
            + (f"Counted as untaught: {', '.join(refused)}." if refused else "No way refused a fact.")
        ),
        control="A passage is read before questions only: it has no drift, as other texts are read as they are.",
    )  # fmt: skip


def _bits(e: Estimate) -> str:
    return f"logits and weights bit for bit the old ones after {e.value:.0%} of facts"


def _row(found: WayComparison, way: str) -> list[str]:
    costs, row = found.costs[way], found.table[way]
    return [
        way,
        f"{costs['bytes'].value:,.0f}",
        f"{costs['tokens'].value:.0f}",
        f"{costs['passes'].value:,.0f}",
        _interval(costs["time"], "×"),
        _interval(row.get("drift")),
        _interval(row.get("perplexity"), "×"),
    ]


def _interval(e: Estimate | None, sign: str = "") -> str:
    if e is None:
        return "–"
    return part("with_small", f"{sign}{e.value:.2f}", e.ends(".2f"))
