"""A sparse autoencoder's training as a figure: what it explains, and which latents it leaves unused, token by token."""

from plotly.graph_objects import Scatter
from plotly.subplots import make_subplots

from interp.sae import Quality, TrainReport
from interp.show.page import Panel
from interp.show.theme import BEFORE, CONCEPT, CONTROL, draw_rule, style_figure


def training_panel(report: TrainReport, held_out: Quality, untrained: Quality) -> Panel:
    """Explained variance and dead latents over training, next to held-out text and an untrained dictionary.

    Examples:
        ```python
        training_panel(train(sae, source), evaluate(sae, held_out), evaluate(TopK(256, 2048, 32), held_out)).body.show()
        ```
    """
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.1, row_heights=[0.62, 0.38])
    tokens = [point.tokens for point in report.curve]
    explained = [point.explained_variance for point in report.curve]
    dead = [100 * point.dead_share for point in report.curve]
    figure.add_trace(_line(tokens, explained, "explained variance", CONCEPT), row=1, col=1)
    figure.add_trace(_line(tokens, dead, "dead latents", BEFORE), row=2, col=1)
    draw_rule(figure, max(untrained.explained_variance, 0.0), "untrained dictionary", row=1, colour=CONTROL)
    draw_rule(figure, held_out.explained_variance, "held-out text", row=1, corner="top right")
    figure.update_yaxes(title_text="explained variance", range=[-0.02, 1.02], row=1, col=1)
    figure.update_yaxes(title_text="dead latents, %", rangemode="tozero", row=2, col=1)
    figure.update_xaxes(title_text="tokens seen", row=2, col=1)
    style_figure(figure, 400).update_layout(showlegend=False)
    return Panel(
        title="How the dictionary learnt to read the residual stream",
        body=figure,
        caption=(
            "The upper curve should rise and level off, the lower one stay near zero. With "
            f"{held_out.l0:.0f} of {len(held_out.firings):,} latents active per token it explains "
            f"{held_out.explained_variance:.1%} of the variance on {held_out.tokens:,} held-out tokens; "
            f"{report.dead_share:.1%} of latents were silent over the last {report.silent_over:,} training tokens."
        ),
        control=(
            f"An untrained dictionary of the same shape explains {untrained.explained_variance:.1%}; the mean "
            "activation alone explains 0%."
        ),
    )


def _line(x: list[int], y: list[float], name: str, colour: str) -> Scatter:
    hover = f"%{{x:,}} tokens<br>{name} %{{y:.3g}}<extra></extra>"
    return Scatter(x=x, y=y, name=name, mode="lines", line={"color": colour, "width": 2.5}, hovertemplate=hover)
