"""A causal trace as a heat map: which token and layers, restored, bring the answer back."""

import torch
from plotly.graph_objects import Figure, Heatmap

from hooks.plurals import count_of
from interp.memory import Trace
from interp.show.heat import set_least_width
from interp.show.page import Panel
from interp.show.theme import BEFORE, CONCEPT, PAPER, style_figure


def trace_panel(trace: Trace) -> Panel:
    """The average indirect effect over facts, by token role and restored layers.

    Examples:
        ```python
        trace_panel(trace_mlp(model, facts)).body.show()
        ```
    """
    effect, (low, high) = 100 * trace.average_indirect_effect, 100 * trace.interval()
    most = max(float(effect.nan_to_num(0).abs().max()), 1e-9)
    hover = "%{y}, layers %{x}<br>%{z:.1f} points (%{customdata[0]:.1f} to %{customdata[1]:.1f})<extra></extra>"
    cells = Heatmap(
        z=effect.tolist(),
        x=[_write_layers(layers) for layers in trace.layers],
        y=list(trace.roles),
        customdata=torch.stack([low, high], -1).tolist(),
        colorscale=[(0, BEFORE), (0.5, PAPER), (1, CONCEPT)],
        zmin=-most,
        zmax=most,
        xgap=2,
        ygap=2,
        texttemplate="%{z:.0f}",
        hovertemplate=hover,
        showscale=False,
    )
    figure = set_least_width(style_figure(Figure(cells), 300), 120 + 34 * len(trace.layers))
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(title_text="layers restored together", type="category", showgrid=False)
    figure.update_layout(margin_l=104)
    return Panel(
        title=f"Where the fact is looked up: {trace.kind} output restored",
        body=figure,
        caption=(
            "The subject's embeddings are broken by noise, and one place at a time gets its clean value back; a cell "
            f"is the answer's probability that this recovers, in points, full colour {most:.2g}. Red at the last "
            "subject token in early to middle layers means that the fact is looked up there, which is where ROME "
            f"writes. Mean of {count_of(len(trace.clean), 'fact')}; point at a cell for its 95% bootstrap interval."
        ),
        control=(
            f"With nothing broken the answer has {trace.clean.mean():.0%}, with nothing restored "
            f"{trace.corrupted.mean():.0%}; rows of other tokens are the comparison."
        ),
    )


def _write_layers(layers: tuple[int, ...]) -> str:
    return str(layers[0]) if len(layers) == 1 else f"{layers[0]}–{layers[-1]}"
