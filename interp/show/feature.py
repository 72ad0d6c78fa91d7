"""What a latent did on real text: its highest examples, token by token, the histogram of its activations, its words."""

import re
from collections.abc import Sequence
from math import log10

from markupsafe import Markup
from plotly.graph_objects import Bar, Figure

from hooks.border import Count
from hooks.errors import InvalidArgument
from interp.features import Evidence, Example, Feature
from interp.show.html import Html, part, render, table, tokens, visible
from interp.show.page import Panel
from interp.show.theme import CONCEPT, INK, rgba, style_figure

SPECIAL = re.compile(r"<\|?\w+\|?>|\[[A-Z]+\]")


def examples_panel(feature: Feature, at_most: Count = 10) -> Panel:
    """The latent's highest examples, each token coloured by its activation, the value on hover.

    Raises:
        InvalidArgument: the feature has no evidence.

    Examples:
        ```python
        examples_panel(Feature(sae, 17, collect_evidence(sae, model, texts, 17))).body
        ```
    """
    seen = _evidence(feature)
    lines = [(example.activation, _line(example, seen.largest)) for example in seen.examples[:at_most]]
    colours = {"pale": rgba(CONCEPT, 0.12), "full": CONCEPT}
    return Panel(
        title=f"Where latent {feature.latent} fires most",
        body=Html(render("examples.html", lines=lines, largest=seen.largest, **colours)),
        caption=(
            "Look for what the coloured tokens have in common, across wordings and languages. One stretch from each of "
            "the texts with the highest peaks, highest first; the number is the activation at the peak; point at a "
            "token for its own."
        ),
        control=(
            f"The colour scale is the same for every line, and the latent is silent on {1 - seen.firing_rate:.2%} of "
            f"the {seen.tokens:,} tokens read. Top examples flatter any latent: recall says what it misses."
        ),
    )


def histogram_panel(feature: Feature) -> Panel:
    """How strongly the latent fires where it fires, with the threshold at which it was scored.

    Raises:
        InvalidArgument: the feature has no evidence.

    Examples:
        ```python
        histogram_panel(Feature(sae, 17, collect_evidence(sae, model, texts, 17), found.best)).body.show()
        ```
    """
    seen = _evidence(feature)
    edges = seen.edges.tolist()
    middles = [(low + high) / 2 for low, high in zip(edges, edges[1:], strict=False)]
    hover = "activation %{x:.2f}<br>%{y:,} tokens<extra></extra>"
    bars = Bar(x=middles, y=seen.counts.tolist(), width=edges[1] - edges[0], marker_color=CONCEPT, hovertemplate=hover)
    figure = style_figure(Figure(bars), 280)
    figure.update_xaxes(title_text="activation", range=[0, 1.05 * max(seen.largest, _threshold(feature) or 0.0)])
    figure.update_yaxes(title_text="tokens (log scale)", type="log", dtick=1, range=[-0.3, _top(seen)])
    if (threshold := _threshold(feature)) is not None:
        figure.add_vline(x=threshold, line={"color": INK, "dash": "dot", "width": 2})
    return Panel(
        title=f"How strongly latent {feature.latent} fires",
        body=figure,
        caption=(
            "A latent that means one thing has two humps, a low one of stray firings and a high one of the concept, "
            f"with the dotted threshold between them. It is on at {seen.firing_rate:.3%} of tokens, with a mean of "
            f"{seen.mean:.2f} and at most {seen.largest:.2f}."
        ),
        control=_beyond(feature),
    )


def words_panel(feature: Feature) -> Panel:
    """The next tokens whose logits the latent's direction raises and lowers most.

    Raises:
        InvalidArgument: the feature has no evidence, or its site does not write to the residual stream.

    Examples:
        ```python
        words_panel(Feature(sae, 17, collect_evidence(sae, model, texts, 17))).body
        ```
    """
    seen = _evidence(feature)
    if not seen.promoted:
        raise InvalidArgument(f"latent {feature.latent} is not in the residual stream, so its words cannot be read off")
    pairs = zip(seen.promoted, seen.suppressed, strict=True)
    rows = [[_word(up), f"{up[1]:+.2f}", _word(down), f"{down[1]:+.2f}"] for up, down in pairs]
    return Panel(
        title=f"Which next tokens latent {feature.latent} promotes by itself",
        body=Html(part("block", "words", table(["promoted", "logit", "suppressed", "logit"], rows))),
        caption=(
            "Read straight through the final norm and the unembedding, past all later layers. A latent of an early "
            "layer need not show its meaning here."
        ),
        control="The logits are those of a stream that holds this direction alone, less those of an empty stream.",
    )


def _evidence(feature: Feature) -> Evidence:
    if feature.evidence is None:
        raise InvalidArgument(
            f"feature {feature.latent} has no evidence: make it with "
            f"Feature(sae, {feature.latent}, collect_evidence(sae, model, texts, {feature.latent}))"
        )
    return feature.evidence


def _line(example: Example, largest: float) -> Markup:
    shown = [(t, f) for t, f in zip(example.tokens, example.activations, strict=True) if f > 0 or not _special(t)]
    pieces, values = [t for t, _ in shown], [f for _, f in shown]
    return tokens(pieces, values, largest)


def _special(token: str) -> bool:
    return SPECIAL.fullmatch(token) is not None


def _word(scored: Sequence[str | float]) -> Markup:
    return part("code", visible(str(scored[0])))


def _threshold(feature: Feature) -> float | None:
    return None if feature.score is None else feature.score.held_out.threshold


def _top(seen: Evidence) -> float:
    return log10(max(1, int(seen.counts.max()))) + 0.15


def _beyond(feature: Feature) -> str:
    if feature.score is None:
        return "No threshold was chosen for it: nothing here says that its high values mean a concept."
    kept = feature.score.held_out
    return (
        f"Above the threshold of {kept.threshold:.2f}, chosen on other texts, precision is {kept.precision:.2f} and "
        f"recall {kept.recall:.2f}."
    )
