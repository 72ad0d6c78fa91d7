"""What of the demonstrations matters, as a figure: a row for each change, with its interval."""

from plotly.graph_objects import Figure, Scatter

from interp.context import DemonstrationEffects
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
    rows = [(names.get(change, change), e) for change, e in effects.accuracy.items()][::-1]
    colour = {"nothing changed": CONCEPT, "no demonstrations": CONTROL}
    points = Scatter(
        x=[100 * e.value for _, e in rows],
        y=[name for name, _ in rows],
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [100 * (e.high - e.value) for _, e in rows],
            "arrayminus": [100 * (e.value - e.low) for _, e in rows],
        },
        mode="markers",
        marker={"size": 11, "color": [colour.get(name, BEFORE) for name, _ in rows]},
        hovertemplate="%{y}: %{x:.0f} %<extra></extra>",
    )
    figure = style_figure(Figure(points), 140 + 30 * len(rows))
    figure.update_xaxes(title_text="prompts whose true label is said, %", range=[-3, 103])
    costs = {change: e for change, e in effects.cost.items() if change not in ("none", "no demonstrations")}
    dearest = max(costs, key=lambda change: costs[change].value)
    bare = effects.accuracy.get("no demonstrations")
    return Panel(
        title=f"{effects.task}: what of {effects.shots} demonstrations matters",
        body=figure.update_layout(margin_l=190, showlegend=False),
        caption=(
            f"Each row is the same prompts with one thing changed. {dearest.capitalize()} costs most: "
            f"{100 * costs[dearest].value:.0f} points (95 % interval {100 * costs[dearest].low:.0f} to "
            f"{100 * costs[dearest].high:.0f})."
        ),
        control="" if bare is None else f"Without demonstrations the label is said in {bare.value:.0%} of prompts.",
    )
