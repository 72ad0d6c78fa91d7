"""What of the demonstrations matters, and what a vector does without them: a row each, with its interval."""

from collections.abc import Mapping

from plotly.graph_objects import Figure, Scatter

from interp.common.statistics import Estimate
from interp.context import DemonstrationEffects, Transfer
from interp.show.page import Panel
from interp.show.theme import BEFORE, CONCEPT, CONTROL, style_figure


def demonstrations_panel(effects: DemonstrationEffects) -> Panel:
    """The share of prompts whose label is said, by what was changed in the demonstrations.

    Examples:
        ```python
        demonstrations_panel(measure_demonstrations(model, task)).body.show()
        ```
    """
    names = {"none": "nothing changed"}
    rows = {names.get(change, change): e for change, e in effects.accuracy.items()}
    costs = {change: e for change, e in effects.cost.items() if change not in ("none", "no demonstrations")}
    dearest = max(costs, key=lambda change: costs[change].value)
    bare = effects.accuracy.get("no demonstrations")
    return Panel(
        title=f"{effects.task}: what of {effects.shots} demonstrations matters",
        body=_shares(rows, {"nothing changed": CONCEPT, "no demonstrations": CONTROL}),
        caption=(
            "Each row is the same prompts with one thing changed. "
            + (
                f"{dearest.capitalize()} costs most: {costs[dearest]:.0%}, with its 95% interval."
                if costs[dearest].value > 0
                else "None of it costs anything."
            )
        ),
        control="" if bare is None else f"Without demonstrations the label is said in {bare.value:.0%} of prompts.",
    )


def transfer_panel(found: Transfer) -> Panel:
    """The share of prompts without demonstrations whose label is said, with a vector added and with each control.

    Examples:
        ```python
        transfer_panel(measure_transfer(model, task, vector, heads)).body.show()
        ```
    """
    with_vector = [name for name in found.by if name in ("function vector", "task vector")]
    best = max(with_vector, key=lambda name: found.by[name].value)
    shown, bare = found.by["right demonstrations"], found.by["no demonstrations"]
    controls = [name for name in found.by if name not in (*with_vector, "right demonstrations", "no demonstrations")]
    most = max(controls, key=lambda name: found.by[name].value)
    colours = {**dict.fromkeys(with_vector, CONCEPT), **dict.fromkeys(controls, CONTROL)}
    return Panel(
        title=f"{found.task}: does a vector do what the demonstrations do?",
        body=_shares(found.by, colours),
        caption=(
            "A function vector is what a few heads write, on average, after demonstrations; it is added to prompts "
            f"that have none. With demonstrations {_percent(shown)}, without {_percent(bare)}, with the {best} "
            f"{_percent(found.by[best])}. Heads and vector are of other pairs than these."
        ),
        control=f"Grey: vectors that should do nothing. The most: {most}, {_percent(found.by[most])}.",
    )


def _percent(e: Estimate) -> str:
    return f"{e:.0%}"


def _shares(found: Mapping[str, Estimate], colours: Mapping[str, str]) -> Figure:
    rows = [*found.items()][::-1]
    points = Scatter(
        x=[100 * e.value for _, e in rows],
        y=[name for name, _ in rows],
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [100 * (e.high - e.value) for _, e in rows],
            "arrayminus": [100 * (e.value - e.low) for _, e in rows],
            "thickness": 1.2,
            "width": 3,
        },
        mode="markers",
        marker={"size": 11, "color": [colours.get(name, BEFORE) for name, _ in rows]},
        hovertemplate="%{y}: %{x:.0f} %<extra></extra>",
    )
    figure = style_figure(Figure(points), 140 + 30 * len(rows))
    figure.update_xaxes(title_text="true label said, %", range=[-3, 103])
    figure.update_yaxes(automargin=True)
    return figure.update_layout(margin_l=12, showlegend=False)
