"""What tuning changed: states and predictions block by block, words said otherwise, words raised, matrices moved."""

from collections.abc import Sequence

from plotly.graph_objects import Scatter
from plotly.subplots import make_subplots

from hooks import Site
from interp.common.statistics import Estimate
from interp.show.html import Html, part, table, tokens, visible
from interp.show.page import Panel
from interp.show.theme import BEFORE, CONCEPT, CONTROL, rgba, style_figure
from interp.tuning import Difference, SiteDivergence, TokenDivergence, WeightDifference, WordsOfDifference

BEFORE_IT = 8
"""How many tokens are shown before one that is continued otherwise."""
ANY_TUNING = "Words of the placebo's column are what any tuning raises."
NO_PLACEBO = "No placebo was given: how much of this any tuning changes is not known."


def difference_panel(
    found: Difference, by_site: SiteDivergence, placebo: tuple[Difference, SiteDivergence] | None = None
) -> Panel:
    """How far the tuned model's states are from the base's, and how much of its other predictions they hold.

    Args:
        found: the difference of states on unrelated texts.
        by_site: the divergence of predictions, at the same sites.
        placebo: both of the base and a placebo tuning: the control.

    Examples:
        ```python
        difference_panel(measure_difference(pair, texts), measure_site_divergence(pair, texts)).body.show()
        ```
    """
    titles = ("how far states move, %", "new predictions that they hold, %")
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, subplot_titles=titles, vertical_spacing=0.14)
    names = [_name(site) for site in found.sites]
    moved = [100 * float(one.mean()) for one in found.relative]
    chance = [100 * float(one.mean()) for one in found.by_chance]
    if placebo is not None:
        other = [100 * float(one.mean()) for one in placebo[0].relative]
        figure.add_trace(_line(names, other, CONTROL, "placebo tuning"), row=1, col=1)
        figure.add_traces(_band(names, [placebo[1][site] for site in found.sites], CONTROL, ""), rows=2, cols=1)
    figure.add_trace(_line(names, moved, CONCEPT, "this tuning"), row=1, col=1)
    figure.add_trace(_line(names, chance, BEFORE, "by chance at most", "dot"), row=1, col=1)
    figure.add_traces(_band(names, [by_site[site] for site in found.sites], CONCEPT, ""), rows=2, cols=1)
    style_figure(figure, 520)
    figure.update_xaxes(title_text="after block", row=2, col=1)
    figure.update_yaxes(rangemode="tozero")
    figure.update_layout(margin_t=70, legend_y=1.07, hovermode="x")
    most = max(range(len(moved)), key=lambda i: moved[i])
    return Panel(
        title="Where the tuning changed what the model thinks and says",
        body=figure,
        caption=(
            f"Above: on texts that have nothing to do with the tuning, the mean difference of the first "
            f"{found.mean.shape[1]} tokens' states, over the length of the base's; most after block {names[most]}, "
            f"{moved[most]:.0f} %. Below: the base is given the tuned model's states after one block; how much of the "
            "change of its predictions comes with them. Bands are 95 % intervals over texts."
        ),
        control=(
            "Dotted: what a difference has by chance, if for each text it is drawn which of the two is the tuned one "
            "(95% point). " + ("Grey: the base tuned as long on text that shows nothing." if placebo else NO_PLACEBO)
        ),
    )


def predictions_panel(
    found: TokenDivergence, placebo: Estimate | None = None, *, top: int = 8, texts: int = 3
) -> Panel:
    """Where the tuned model goes on otherwise than the base, and some texts with every token's divergence.

    Args:
        found: the divergence token by token.
        placebo: the mean of the placebo's: the control.
        top: places to list.
        texts: whole texts to show.

    Examples:
        ```python
        predictions_panel(measure_token_divergence(pair, texts)).body
        ```
    """
    listed: dict[tuple[str, str, str], float] = {}
    for kl, text, pos in found.largest(10 * top):
        before = "".join(found.tokens[text][max(0, pos + 1 - BEFORE_IT) : pos + 1])
        listed.setdefault((before, *found.said[text][pos]), kl)
    rows = [
        [f"… {before}", part("code", visible(base)), part("code", visible(tuned)), f"{kl:.1f}"]
        for (before, base, tuned), kl in [*listed.items()][:top]
        if kl > 0
    ]
    largest = max((float(kl.max()) for kl in found.kl if len(kl)), default=0.0)
    order = sorted(range(len(found.kl)), key=lambda i: -float(found.kl[i].mean()))[:texts]
    shown = [
        (float(found.kl[i].mean()), tokens(found.tokens[i], found.kl[i].tolist(), max(largest, 1e-9))) for i in order
    ]
    head = ["after", "base", "tuned", "nats"]
    body = part("block", "words", table(head, rows)) + part("examples", shown)
    return Panel(
        title="Where it goes on otherwise",
        body=Html(body),
        caption=(
            "What each model says next where predictions differ most, and the texts that differ most, with their mean, "
            f"every token coloured by how far it is (full colour: {largest:.1f} nats). Over all {len(found.kl)} texts: "
            f"{_nats(found.mean)} a token, KL(tuned ‖ base)."
        ),
        control=f"The placebo's: {_nats(placebo)} a token." if placebo is not None else NO_PLACEBO,
    )


def raised_words_panel(found: WordsOfDifference, placebo: WordsOfDifference | None = None) -> Panel:
    """The words that the difference of states raises, by both models' heads, next to those of the placebo's.

    Examples:
        ```python
        raised_words_panel(read_difference(pair, difference, resid_post[5])).body
        ```
    """
    columns: list[tuple[str, Sequence[tuple[str, float]]]] = [
        ("base's head", found.base),
        ("tuned head", found.tuned),
    ]
    if placebo is not None and placebo.base:
        columns.append(("placebo", placebo.base))
    if not found.base:
        return Panel(
            title="Words that the difference raises",
            body=Html(part("block", "words", "none")),
            caption=f"The two models do not differ after block {_name(found.site)}, so no words are raised.",
            control="Nothing was measured that needs one.",
        )
    rows = [
        [str(i + 1), *(part("with_small", part("code", visible(of[i][0])), f"{of[i][1]:.1f}") for _, of in columns)]
        for i in range(min(len(of) for _, of in columns))
    ]
    return Panel(
        title=f"Words that the difference after block {_name(found.site)} raises",
        body=Html(part("block", "words", table(["", *(name for name, _ in columns)], rows))),
        caption=(
            "The mean difference read as if it were the last state, most raised first; figures are standard deviations "
            "over the vocabulary. What the tuning is about shows here if it shows in every context."
        ),
        control=(
            "The tuned head could do the reading by itself: what both heads say is in the difference. "
            + (
                NO_PLACEBO
                if placebo is None
                else ANY_TUNING
                if placebo.base
                else "The placebo's difference raises none."
            )
        ),
    )


def weights_panel(found: WeightDifference, placebo: WeightDifference | None = None) -> Panel:
    """How far each matrix that writes to the stream moved, next to the placebo's.

    Examples:
        ```python
        weights_panel(measure_weight_difference(pair)).body.show()
        ```
    """
    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, subplot_titles=("attention, %", "feed-forward, %"), vertical_spacing=0.16
    )
    for row, kind in enumerate(("attention", "mlp"), 1):
        for weights, colour, name in ((placebo, CONTROL, "placebo tuning"), (found, CONCEPT, "this tuning")):
            of = [] if weights is None else [one for one in weights.changes if one.name.startswith(kind)]
            if of:
                line = _line([str(one.layer) for one in of], [100 * one.relative for one in of], colour, name)
                figure.add_trace(line.update(showlegend=row == 1), row=row, col=1)
    style_figure(figure, 430)
    figure.update_xaxes(title_text="block", row=2, col=1)
    figure.update_yaxes(rangemode="tozero")
    figure.update_layout(margin_t=70, legend_y=1.09, hovermode="x")
    most = max(found.changes, key=lambda one: one.relative)
    return Panel(
        title="Which matrices moved",
        body=figure,
        caption=(
            f"The length of the change over the length of the matrix that writes to the stream, block by block. Most: "
            f"{'attention' if most.name.startswith('attention') else 'feed-forward'} of block {most.layer}, "
            f"{most.relative:.1%}, in about {most.rank:.1f} directions."
        ),
        control=(
            f"A random change of that matrix has about {most.random_rank:.0f} directions. "
            + ("Grey: the placebo tuning." if placebo else NO_PLACEBO)
        ),
    )


def _name(site: Site) -> str:
    return str(site.layer) if site.name == "resid_post" and site.layer is not None else str(site)


def _nats(e: Estimate) -> str:
    return f"{e.value:.3f} nats ({e.ends()})"


def _line(x: list[str], y: list[float], colour: str, name: str, dash: str = "solid") -> Scatter:
    return Scatter(
        x=x,
        y=y,
        mode="lines" if dash == "dot" else "lines+markers",
        line={"color": colour, "dash": dash},
        name=name,
        legendgroup=name,
        hovertemplate="%{y:.1f} %<extra>" + name + "</extra>",
    )


def _band(x: list[str], of: list[Estimate], colour: str, name: str) -> list[Scatter]:
    ends = [100 * e.high for e in of] + [100 * e.low for e in of][::-1]
    band = Scatter(x=x + x[::-1], y=ends, mode="lines", fill="toself", fillcolor=rgba(colour, 0.15), line={"width": 0},
                   hoverinfo="skip", showlegend=False)  # fmt: skip
    return [band, _line(x, [100 * e.value for e in of], colour, name).update(showlegend=False)]
