"""The look that every figure and page shares: a few colours, two typefaces, and the Plotly layout made from them."""

from math import log10

from plotly.graph_objects import Figure

INK = "#1f2328"
MUTED = "#5d6570"
RULE = "#e5e1d8"
PAPER = "#ffffff"
CONCEPT = "#c0432e"
CONTROL = "#8d939b"
BEFORE = "#2f6c8f"
RIVALS = ("#7a5ea8", "#3d8b5f", "#b07d2b")
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', Arial, sans-serif"


def rgba(colour: str, alpha: float) -> str:
    """A hex colour with an opacity, as CSS.

    Examples:
        >>> rgba("#c0432e", 0.5)
        'rgba(192, 67, 46, 0.5)'
    """
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {round(alpha, 3):g})"


def draw_rule(
    figure: Figure, at: float, text: str, row: int, colour: str = BEFORE, corner: str = "bottom right"
) -> None:
    """Draw a dotted horizontal line across one row of a figure: what the curves in it are compared with.

    `corner` is the corner of the label that touches the line's end.
    """
    line = {"color": colour, "dash": "dot", "width": 1.5}
    figure.add_hline(y=at, row=row, col=1, line=line, exclude_empty_subplots=False)  # pyright: ignore[reportArgumentType]
    axis = next(figure.select_yaxes(row=row, col=1))
    y = log10(at) if axis.type == "log" else at  # annotations on a log axis are placed by exponent, shapes by value
    yanchor, xanchor = corner.split()
    label = {"text": text, "showarrow": False, "font": {"size": 12, "color": colour}}
    place = {"x": int(xanchor == "right"), "xref": "x domain", "xanchor": xanchor, "y": y, "yanchor": yanchor}
    figure.add_annotation(**label, **place, row=row, col=1)


def style_figure(figure: Figure, height: int) -> Figure:
    """Give a figure the common look, in place, and return it."""
    figure.update_layout(
        height=height,
        font={"family": FONT, "size": 13, "color": INK},
        paper_bgcolor=PAPER,
        plot_bgcolor=PAPER,
        margin={"l": 60, "r": 16, "t": 12, "b": 52},
        legend={"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom", "title": {"text": ""}},
        hoverlabel={"font": {"family": FONT}},
        bargap=0.04,
    )
    axis = {"gridcolor": RULE, "linecolor": MUTED, "zeroline": False, "ticks": "outside", "tickcolor": MUTED}
    figure.update_xaxes(**axis, showline=True, title_standoff=8, title_font_size=13)
    figure.update_yaxes(**axis, title_standoff=8, title_font_size=13)
    return figure
