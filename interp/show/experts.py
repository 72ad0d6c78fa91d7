"""What experts do, layer by layer: how evenly they are used, what they say of topic and word, and their words."""

from collections.abc import Mapping
from math import log2
from typing import Any

from markupsafe import Markup
from plotly.graph_objects import Scatter
from plotly.subplots import make_subplots

from hooks.pieces import piece
from interp.experts import ExpertWords, Specialisation, Usage
from interp.show.heat import heat
from interp.show.html import Html, part, table, visible
from interp.show.page import Panel
from interp.show.theme import CONCEPT, CONTROL, style_figure

BETWEEN = Markup("&ensp; ")


def load_panel(usages: Mapping[int, Usage]) -> Panel:
    """How much each expert of each layer is used, against an even load.

    Examples:
        ```python
        load_panel({layer: measure_usage(one) for layer, one in capture_routing(model, texts).items()}).body.show()
        ```
    """
    loads = {layer: usage.load for layer, usage in usages.items()}
    E = len(next(iter(loads.values())))
    even = [(load - 1 / E).tolist() for load in loads.values()]
    most = max(abs(value) for row in even for value in row)
    figure = heat(
        even,
        [str(e) for e in range(E)],
        [f"layer {layer}" for layer in loads],
        most=max(most, 1e-9),
        texts=[[f"{100 * value:.0f}" for value in load.tolist()] for load in loads.values()],
        hover="%{y}, expert %{x}: %{hovertext} % of the load<extra></extra>",
    )
    figure.update_xaxes(title_text="expert")
    layer, expert = max(((one, int(load.argmax())) for one, load in loads.items()), key=lambda at: loads[at[0]][at[1]])
    uneven = min(usages.values(), key=lambda usage: usage.entropy)
    return Panel(
        title="How much each expert is used, %",
        body=figure,
        caption=(
            f"The share of a layer's choices that each expert gets; red is more than an even share, blue less, full "
            f"colour by {100 * most:.2g} points. Most: expert {expert} of layer {layer}, "
            f"{float(loads[layer][expert]):.0%}. The least even layer has {uneven.entropy:.2f} bits of load."
        ),
        control=f"Even: {1 / E:.1%} each, {log2(E):.2f} bits.",
    )


def specialisation_panel(
    found: Mapping[int, Specialisation], usages: Mapping[int, Usage], what: str = "the text's label"
) -> Panel:
    """What a layer's experts say of a text's label, of it once the word is known, and how often neighbours share one.

    Args:
        found: by layer.
        usages: by layer.
        what: the labels are.

    Examples:
        ```python
        specialisation_panel(found, usages, "genre").body.show()
        ```
    """
    rows = [f"layer {layer}" for layer in found]
    groups = (
        (
            f"bits on {what}",
            [one.bits for one in found.values()],
            [one.shuffled[1] for one in found.values()],
        ),
        (
            "the same, the word known",
            [one.given_word for one in found.values()],
            [one.given_word_shuffled[1] for one in found.values()],
        ),
        (
            "tokens served as the one before, %",
            [100 * usages[layer].repetition.value for layer in found],
            [100 * usages[layer].repetition_chance for layer in found],
        ),
    )
    figure = make_subplots(rows=3, cols=1, subplot_titles=[name for name, *_ in groups], vertical_spacing=0.15)
    for row, (_, values, controls) in enumerate(groups, 1):
        for x, colour, symbol, name in (
            (controls, CONTROL, "line-ns-open", "by chance"),
            (values, CONCEPT, "circle", "measured"),
        ):
            figure.add_trace(_dots(x, rows, colour, symbol, name, legend=row == 1), row=row, col=1)
    style_figure(figure, 150 + 3 * (44 + 24 * len(rows)))
    figure.update_yaxes(type="category")
    figure.update_layout(margin_l=84, margin_t=70, legend_y=1.05)
    first = next(iter(found.values()))
    above = [layer for layer, one in found.items() if one.given_word_p <= 0.05]
    best = max(found, key=lambda layer: found[layer].bits)
    return Panel(
        title="What experts say of the topic, of the word, and how long they stay",
        body=figure,
        caption=(
            f"Which experts serve a token says at most {found[best].bits:.3f} of the {first.label_bits:.2f} bits of "
            f"{what} (layer {best}). Once the word is known, something is left in "
            f"{len(above)} of {len(found)} layers: there experts go by more than the word."
        ),
        control=(
            "Grey, the first two: what 95% of permutations of the labels among texts stay below, with the same "
            "correction for small counts, which can make it negative. The third: how many tokens have "
            "the first expert of the token before them, and for tokens in another order."
        ),
    )


def expert_words_panel(found: ExpertWords, tokenizer: Any, *, top: int = 8) -> Panel:
    """The words of every expert of a layer.

    Args:
        found: the words.
        tokenizer: of the model.
        top: words of each expert.

    Examples:
        ```python
        expert_words_panel(find_expert_words(routing), model.tokenizer).body
        ```
    """
    rows = [
        [
            part("with_small", str(e), f"{float(found.used[e]):.0%}"),
            part(
                "block",
                "codes",
                BETWEEN.join(
                    [
                        part("with_small", part("code", visible(piece(tokenizer, i))), f"{s.value:.0%}")
                        for i, s in of[:top]
                    ]
                ),
            ),
        ]
        for e, of in enumerate(found.words)
    ]
    return Panel(
        title=f"The words of each expert of layer {found.layer}",
        body=Html(part("block", "said words", table(["expert", "words, and how many of each it serves"], rows))),
        caption=(
            "Words whose occurrences run through the expert most surely (by the lower end of the share's interval: a "
            f"word seen once is not first). The word says {found.bits:.2f} bits of which expert serves."
        ),
        control=(
            "By chance every word would have the expert's own share, next to its number; with experts moved among the "
            f"tokens of each text, the word says {found.shuffled[0]:.2f} bits (95% below {found.shuffled[1]:.2f})."
        ),
    )


def _dots(x: list[float], rows: list[str], colour: str, symbol: str, name: str, *, legend: bool) -> Scatter:
    return Scatter(
        x=x,
        y=rows,
        mode="markers",
        marker={"size": 11, "color": colour, "symbol": symbol, "line": {"width": 3, "color": colour}},
        name=name,
        legendgroup=name,
        showlegend=legend,
        hovertemplate="%{y}: %{x:.3g}<extra>" + name + "</extra>",
    )
