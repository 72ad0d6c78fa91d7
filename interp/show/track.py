"""Metrics over training as small multiples that share one cursor, with breaks marked where there are any."""

from collections.abc import Mapping

from plotly.graph_objects import Scatter
from plotly.subplots import make_subplots

from interp.emergence import Break, Track
from interp.show.page import Panel
from interp.show.theme import CONCEPT, CONTROL, rgba, style_figure

HEIGHT = 150
MEANT = {
    "exact match": "every token of the answer is the likeliest one",
    "sampled match": "the probability that a draw is the answer",
    "Brier score": "squared error of the probabilities, smaller is better",
    "log p of a token": "mean log-probability of the answer's tokens, in nats",
}
"""What the metrics of answers mean."""


def track_panel(track: Track, changes: Mapping[str, Break]) -> Panel:
    """Every metric of a track over its steps, on a logarithmic axis.

    Args:
        track: the metrics.
        changes: the best break of each, as `find_changes` gives them; those at p ≤ 0.05 / metrics are marked.

    Examples:
        ```python
        track_panel(track, find_changes(track)).body.show()
        ```
    """
    names = [*track.metrics]
    figure = make_subplots(
        rows=len(names), cols=1, shared_xaxes=True, vertical_spacing=0.28 / len(names), subplot_titles=names
    )
    x = [max(step, 1) for step in track.steps]
    least = 0.05 / len(names)
    for row, name in enumerate(names, 1):
        of = track.metrics[name]
        ends = [e.high for e in of] + [e.low for e in of][::-1]
        band = Scatter(x=x + x[::-1], y=ends, mode="lines", fill="toself", fillcolor=rgba(CONCEPT, 0.15),
                       line={"width": 0}, hoverinfo="skip", showlegend=False)  # fmt: skip
        line = Scatter(x=x, y=[e.value for e in of], mode="lines+markers", marker={"size": 4}, line={"color": CONCEPT},
                       name=name, hovertemplate="%{y:.3g}", showlegend=False)  # fmt: skip
        figure.add_traces([band, line], rows=row, cols=1)
        if name in changes and changes[name].p <= least:
            figure.add_vline(x=changes[name].step, line={"color": CONTROL, "dash": "dot"}, row=row, col=1)  # type: ignore[arg-type]
    figure.update_xaxes(type="log", dtick=1, matches="x", showspikes=True, spikemode="across", spikethickness=1)
    figure.update_xaxes(title_text="step", row=len(names), col=1)
    style_figure(figure, 90 + HEIGHT * len(names))
    figure.update_layout(hovermode="x unified", hoversubplots="axis", margin_t=34)
    broken = [f"{name} at step {changes[name].step}" for name in names if name in changes and changes[name].p <= least]
    return Panel(
        title="What changes while the model is trained, and when",
        body=figure,
        caption=(f"Breaks: {'; '.join(broken)}." if broken else "No metric breaks, as far as these points show.")
        + "".join(f" {name[0].upper() + name[1:]}: {MEANT[name]}." for name in names if name in MEANT),
        control=(
            f"A break is marked where smooth curves with the same noise show one as good with p ≤ {least:.3f}, so that "
            "one page in twenty of smooth metrics has a mark. A jump asks less: half of the rise or more within three "
            "checkpoints in a row, which a smooth curve can do too. Bands are 95% intervals over questions."
        ),
    )
