"""The dose-response as a figure: naming above, perplexity below, each with the random direction of equal norm."""

from collections.abc import Sequence

from plotly.graph_objects import Scatter
from plotly.subplots import make_subplots

from hooks.plurals import count_of
from interp.show.page import Panel
from interp.show.theme import BEFORE, CONCEPT, CONTROL, RIVALS, draw_rule, rgba, style_figure
from interp.steering import ChosenDose, DoseResponse, Samples

FLUENT = 3.0  # the perplexity ratio above which text no longer counts as fluent

Band = tuple[float, float, float]
"""A value and the two ends of its interval."""


def dose_panel(found: DoseResponse | ChosenDose, concept: str) -> Panel:
    """Share of continuations that name the concept, and their perplexity ratio, against dose.

    Of a chosen dose the curves are those of the prompts that it was chosen on, and the caption says what it does on the
    others.

    Examples:
        ```python
        response = measure_dose_response(model, clamp_latent(sae, 17), prompts, names, doses=(1, 2, 4))
        dose_panel(response, "the bridge").body.show()
        ```
    """
    response, caption = (
        (found.response, _caption_of_choice(found, concept))
        if isinstance(found, ChosenDose)
        else (found, _caption(found, concept))
    )
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08, row_heights=[0.58, 0.42])
    doses = [condition.dose for condition in response.steered]
    lines = [(name, RIVALS[i % len(RIVALS)], rival) for i, (name, rival) in enumerate(response.rivals.items())]
    for name, colour, conditions in (
        ("random direction of equal norm", CONTROL, response.control),
        *lines,
        ("steered", CONCEPT, response.steered),
    ):
        for row, estimates in ((1, _naming_bands(conditions)), (2, _ratios(conditions, response.unsteered))):
            figure.add_traces(band_and_line(doses, estimates, name, colour, legend=row == 1), rows=row, cols=1)
    figure.add_trace(_level(doses, 100 * response.unsteered.naming.value, "unsteered", "dot"), row=1, col=1)
    if response.prompted is not None:
        asked = _level(doses, 100 * response.prompted.naming.value, "asked for in words", "dash")
        figure.add_trace(asked, row=1, col=1)
    figure.update_yaxes(title_text=f"continuations naming<br>{concept}, %", range=[-4, 104], row=1, col=1)
    ticks = [0.1, 0.3, 1, 3, 10, 30, 100, 1000]
    figure.update_yaxes(title_text="perplexity ratio", type="log", tickvals=ticks, row=2, col=1)
    draw_rule(figure, FLUENT, f"{FLUENT:g} × unsteered", row=2, corner="bottom left")
    figure.update_xaxes(title_text=f"dose, in units of<br>{response.unit}", row=2, col=1)
    return Panel(
        title=f"Turning it up: how often the text names {concept}, and what that costs in fluency",
        body=style_figure(figure, 560).update_layout(margin_t=40, margin_b=72),
        caption=caption,
        control=_control(response),
    )


def _naming_bands(conditions: Sequence[Samples]) -> list[Band]:
    return [(100 * e.value, 100 * e.low, 100 * e.high) for e in (c.naming for c in conditions)]


def _ratios(conditions: Sequence[Samples], unsteered: Samples) -> list[Band]:
    return [(e.value, e.low, e.high) for e in (c.perplexity_over(unsteered) for c in conditions)]


def _level(doses: list[float], share: float, name: str, dash: str) -> Scatter:
    line = {"color": BEFORE, "dash": dash, "width": 2}
    hover = f"%{{y:.3g}}<extra>{name}</extra>"
    return Scatter(x=[min(doses), max(doses)], y=[share] * 2, name=name, mode="lines", line=line, hovertemplate=hover)


def _caption(response: DoseResponse, concept: str) -> str:
    prompts = len({*response.unsteered.prompts})
    return (
        f"Look for a dose where the upper line is high while the lower one stays under {FLUENT:g}. "
        f"{_say_finding(response, concept)} Perplexity is that of the sampled text under the unsteered model. "
        f"{len(response.unsteered.texts)} continuations of {count_of(prompts, 'prompt')} per point; bands are 95% "
        "intervals over prompts, Wilson's above and a bootstrap below."
    )


def _caption_of_choice(chosen: ChosenDose, concept: str) -> str:
    naming, over = chosen.steered.naming, chosen.steered.perplexity_over(chosen.unsteered)
    return (
        "The curves are of the half of the prompts that it was chosen on, which flatters it. "
        f"{_caption(chosen.response, concept)} On the other half, dose {chosen.dose:g} makes {naming:.0%} "
        f"of continuations name {concept}, at {over.value:.2f} times the "
        "perplexity of unsteered text."
    )


def _say_finding(response: DoseResponse, concept: str) -> str:
    if not response.fluent(FLUENT):
        return "Here no dose is that fluent."
    best, unsteered = response.best(FLUENT), response.unsteered
    return (
        f"At dose {best.dose:g}, {best.naming.value:.0%} of continuations name {concept}, at "
        f"{best.perplexity_over(unsteered).value:.2f} times the perplexity of unsteered text; distinct-2 is "
        f"{best.distinctness.value:.2f} (unsteered {unsteered.distinctness.value:.2f})."
    )


def _control(response: DoseResponse) -> str:
    most = max(response.control, key=lambda c: c.naming.value)
    return (
        f"The same rule along random directions of equal norm: they name it at most {most.naming.value:.1%} of the "
        f"time (dose {most.dose:g}). Unsteered: {response.unsteered.naming.value:.1%}."
    )


def band_and_line(
    x: Sequence[float], estimates: Sequence[Band], name: str, colour: str, *, of: str = "dose", legend: bool = True
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
