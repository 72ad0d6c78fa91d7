"""The curves of many edits as a page: `python benchmarks/editing_curves.py` reads what benchmarks/editing.py measured.

For each method, against how many facts are in place: what is said of them, of their neighbours and of their subjects'
other facts, and the perplexity of unrelated text, once for facts written in one batch and once for one after another.
Bands are bootstrap intervals over facts, grey the unedited model. Writes reports/editing.html, which opens offline.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from math import hypot
from pathlib import Path
from statistics import mean
from typing import Any

from plotly.graph_objects import Scatter
from plotly.subplots import make_subplots

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.timing import RESULTS  # noqa: E402
from interp.show import Panel, Section, report  # noqa: E402
from interp.show.dose import band_and_line  # noqa: E402
from interp.show.theme import BEFORE, CONCEPT, CONTROL, RIVALS, style_figure  # noqa: E402

Rows = Sequence[dict[str, Any]]
MEASURES = {
    "efficacy": "new object over old",
    "paraphrase": "the same in other phrasings",
    "said": "new object said freely",
    "neighbours": "neighbours' true over new",
    "others": "subject's other facts said",
    "perplexity": "perplexity, ratio",
}
METHODS = ("rome", "memit", "emmet", "pmet", "alphaedit", "ft_l", "grace", "knn_memory", "in_context")
COLOURS = (CONCEPT, BEFORE, *RIVALS, "#3f8fa8", "#9a5b3d", "#5c6b2f", "#8a4b6f")
ORDERS = {"at once": "Facts written in one batch", "in turn": "Facts written one after another"}


def pooled(rows: Rows) -> Rows:
    """A row for each method, order and count: means over draws, whose intervals are added as of independent ones."""
    draws: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for row in rows:
        draws.setdefault((row["method"], row["order"], row["n"]), []).append(row)
    return [
        {"method": method, "order": order, "n": n, "draws": len(found), **_mean(found)}
        for (method, order, n), found in draws.items()
    ]


def _mean(draws: Rows) -> dict[str, Any]:
    found: dict[str, Any] = {"refused": sum(row["refused"] for row in draws)}
    for measure in MEASURES:
        own = [row for row in draws if measure in row]
        if own:
            value = mean(row[measure] for row in own)
            ends = [row.get(f"{measure} interval", [row[measure]] * 2) for row in own]
            below, above = (
                hypot(*(end[i] - row[measure] for end, row in zip(ends, own, strict=True))) / len(own) for i in (0, 1)
            )
            found |= {measure: value, f"{measure} interval": [value - below, value + above]}
    return found


def _refused(row: dict[str, Any]) -> str:
    n, draws = row["n"], row["draws"]
    asked = f"{draws} batches of {n}" if row["order"] == "at once" else f"{draws * n} edits, {n} in turn"
    return f"{row['method']} {row['refused']} of {asked}"


def panel(rows: Rows, order: str) -> Panel:
    """Six small figures that share their methods, one for each measure."""
    figure = make_subplots(rows=2, cols=3, subplot_titles=[*MEASURES.values()], horizontal_spacing=0.07)
    for number, measure in enumerate(MEASURES):
        row, col = 1 + number // 3, 1 + number % 3
        for method, colour in zip(METHODS, COLOURS, strict=True):
            figure.add_traces(curve(rows, order, method, measure, colour, first=not number), rows=row, cols=col)
        figure.add_trace(level(rows, measure, first=not number), row=row, col=col)
        figure.update_xaxes(type="log", tickvals=[1, 10, 100, 500], title_text="facts in place", row=row, col=col)
        share = {"range": [-0.04, 1.04], "tickformat": ".0%"}
        axis = share if measure != "perplexity" else {"type": "log"}
        figure.update_yaxes(axis, row=row, col=col)
    refused = [_refused(row) for row in rows if row["order"] == order and row["refused"]]
    return Panel(
        title=ORDERS[order],
        body=style_figure(figure, 640).update_layout(margin_t=90, legend_y=1.09),
        caption="Means over facts and all their draws, with 95 % bootstrap intervals where a draw holds several facts. "
        "What is refused leaves the model as it was" + (f": {'; '.join(refused)}." if refused else "."),
        control="Grey: the unedited model on the same facts.",
    )


def curve(rows: Rows, order: str, method: str, measure: str, colour: str, *, first: bool) -> list[Scatter]:
    """A method's line and band over its counts; nothing where it was not measured."""
    mine = [r for r in rows if (r["order"], r["method"]) == (order, method) and measure in r]
    found = sorted((r["n"], r[measure], *r[f"{measure} interval"]) for r in mine)
    if not found:
        return []
    counts = [n for n, *_ in found]
    return band_and_line(
        counts, [(v, low, high) for _, v, low, high in found], method, colour, of="facts", legend=first
    )


def level(rows: Rows, measure: str, *, first: bool) -> Scatter:
    """What the unedited model does."""
    plain = sorted(
        (r["n"], r[measure]) for r in rows if (r["method"], r["order"]) == ("unedited", "at once") and measure in r
    )
    n, value = map(list, zip(*plain, strict=True)) if plain else ([], [])
    line = {"color": CONTROL, "dash": "dot", "width": 2}
    return Scatter(x=n, y=value, name="unedited", mode="lines", line=line, showlegend=first, legendgroup="unedited")


def main() -> None:
    """Draw what there is."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--name", default="editing", help="of the results")
    asked.add_argument("--out", type=Path, default=Path("reports/editing.html"))
    options = asked.parse_args()
    rows = pooled(json.loads((RESULTS / f"{options.name}.json").read_text(encoding="utf-8"))["figures"]["rows"])
    panels = tuple(panel(rows, order) for order in ORDERS)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    lead = "What editors write, and what they break, as facts accumulate in the bundled model."
    print(report(options.out, "Many edits", lead, [Section("Curves", "By how many facts are in place.", panels)]))


if __name__ == "__main__":
    main()
