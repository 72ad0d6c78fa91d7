"""A curve with the band of its intervals, as every figure of estimates over a dose, a size or a count draws it."""

from collections.abc import Sequence

from plotly.graph_objects import Scatter

from interp.show.theme import rgba

Interval = tuple[float, float, float]
"""A value and the two ends of its interval."""


def band_and_line(
    x: Sequence[float], estimates: Sequence[Interval], name: str, colour: str, *, of: str = "dose", legend: bool = True
) -> list[Scatter]:
    """The band, without a place in the legend, and the line over it, with value and interval on hover.

    Args:
        x: where the estimates were made.
        estimates: one for each x.
        name: of the curve, which shares its place in the legend with others of that name.
        colour: of both.
        of: what x counts, for the hover.
        legend: whether the line is in the legend.
    """
    values, lows, highs = zip(*estimates, strict=True)
    places = [*x]
    outline = {"x": places + places[::-1], "y": [*highs, *lows[::-1]]}
    band = Scatter(**outline, fill="toself", fillcolor=rgba(colour, 0.16), line={"width": 0}, hoverinfo="skip")
    band.update(mode="lines", showlegend=False, legendgroup=name)
    hover = f"{of} %{{x:g}}<br>%{{y:.3g}} (%{{customdata[0]:.3g}} to %{{customdata[1]:.3g}})<extra>{name}</extra>"
    line = Scatter(x=places, y=values, name=name, mode="lines+markers", line={"color": colour, "width": 2.5})
    line.update(marker={"size": 7}, customdata=list(zip(lows, highs, strict=True)), hovertemplate=hover)
    line.update(showlegend=legend, legendgroup=name)
    return [band, line]
