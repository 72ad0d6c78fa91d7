"""The memories of a feed-forward layer as a page: agreement by layer, a prompt's composition, each memory a fold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from plotly.graph_objects import Figure, Scatter

from interp.features import Example
from interp.memory import Agreement
from interp.show.collapsible_list import collapsible_list
from interp.show.html import Html, part, render, tokens, visible
from interp.show.page import Panel, Section, Tile, report
from interp.show.theme import CONCEPT, CONTROL, RIVALS, style_figure

Words = Sequence[tuple[str, float]]
NORM = "final norm"


@dataclass(frozen=True)
class Memory:
    """One memory as it is shown: trigger examples, what its value promotes by each reading, and whether they agree."""

    neuron: int
    examples: tuple[Example, ...]
    promoted: Mapping[str, Words]
    agrees: bool


def memories_page(
    path: str | Path,
    model: str,
    agreed: Mapping[str, Sequence[Agreement]],
    memories: Sequence[Memory],
    layer: int,
    read: tuple[int, int],
    panels: Sequence[Panel] = (),
) -> Path:
    """Write a page that opens offline of a layer's memories and return where it is.

    `agreed` are the agreements of every layer by the reading of values, the final norm's first; `read` is how many
    texts and tokens triggers were looked for in; `panels` show how a prompt's output is made up. A fold per memory,
    opened by mouse or keyboard, and by an address that ends in #memory-17.

    Raises:
        InvalidArgument: a name that does not end in `.html`.
    """
    here = next(one for one in agreed[NORM] if one.layer == layer)
    texts, n = read
    tiles = [
        Tile(
            f"{here.rate.value:.1%}",
            f"of layer {layer}'s {here.rate.n} memories promote what follows their best trigger",
            f"{here.rate.ends('.1%')}; by chance {here.chance:.2%}",
        ),
        Tile(f"{n:,}", f"tokens of {texts:,} texts read", "the top few of them flatter any memory"),
    ]
    sections = [
        Section("Agreement", "Do keys and values of one memory belong together?", (agreement_panel(agreed),)),
        *([Section("A prompt", "What the layer does with one text.", tuple(panels))] if panels else []),
        Section(
            "Memories",
            "Where each key matches: one place of each of the texts with the highest coefficients, which colour the "
            "tokens, the token after it included. Then the next tokens that the value by itself promotes, in nats of "
            "logit. Memories marked = promote what follows their best trigger.",
            below=Html(memory_folds(memories)),
        ),
    ]
    lead = f"{model}, layer {layer}: FF(x) = Σ mᵢ vᵢ, memory by memory: what triggers each, and what it says."
    return report(path, "Feed-forward memories", lead, sections, tiles)


def memory_folds(memories: Sequence[Memory]) -> Markup:
    """Some memories, a fold each: where the key matches and what the value says."""
    return collapsible_list(((f"memory-{one.neuron}", _head(one), _body(one)) for one in memories), "memories")


def agreement_panel(agreed: Mapping[str, Sequence[Agreement]]) -> Panel:
    """The agreement rate of each layer with its interval, by the reading of values, next to random permutations.

    Examples:
        ```python
        found = triggers_by_layer(model, texts, range(model.n_layers), top=1)
        agreement_panel({"final norm": [agreement(model, one) for one in found]}).body
        ```
    """
    figure, hover = Figure(), "layer %{x}<br>%{y:.2f} %<extra>%{fullData.name}</extra>"
    for (name, found), colour in zip(agreed.items(), (CONCEPT, *RIVALS), strict=False):
        bars = {
            "type": "data",
            "symmetric": False,
            "array": [100 * (one.rate.high - one.rate.value) for one in found],
            "arrayminus": [100 * (one.rate.value - one.rate.low) for one in found],
            "thickness": 1.2,
        }
        line = {"mode": "lines+markers", "x": [one.layer for one in found], "hovertemplate": hover}
        rates = [100 * one.rate.value for one in found]
        figure.add_trace(Scatter(y=rates, error_y=bars, name=f"through the {name}", marker_color=colour, **line))
    first = next(iter(agreed.values()))
    null = [100 * one.null for one in first]
    line = {"mode": "lines+markers", "x": [one.layer for one in first], "hovertemplate": hover}
    figure.add_trace(Scatter(y=null, name="95% of random permutations below", marker_color=CONTROL, **line))
    figure = style_figure(figure, 300)
    figure.update_xaxes(title_text="layer", dtick=1)
    figure.update_yaxes(title_text="memories that agree, %", rangemode="tozero")
    return Panel(
        title="How often a value promotes what follows the key's best trigger",
        body=figure,
        caption=(
            "Where agreement rises with depth, later values are next-token predictions; what early layers write is "
            "read by later ones first, so a low rate there does not mean that nothing is stored. Bars are Wilson's "
            "95% intervals."
        ),
        control=(
            "The grey line is what the same values reach when they are permuted at random, by chance "
            f"{min(one.chance for one in first):.2%} to {max(one.chance for one in first):.2%} on average."
        ),
    )


def _head(memory: Memory) -> Markup:
    first, *_ = memory.promoted.values()
    return render(
        "head.html",
        number=memory.neuron,
        mark="promotes what follows its best trigger" if memory.agrees else "",
        text=part("codes", [visible(word) for word, _ in first[:6]], " "),
        figure=f"{_largest(memory):.2f}",
    )


def _body(memory: Memory) -> Markup:
    most = _largest(memory)
    return render(
        "memory.html",
        examples=[(one.activation, tokens(one.tokens, one.activations, most)) for one in memory.examples],
        promoted=[(name, [(visible(word), rise) for word, rise in words]) for name, words in memory.promoted.items()],
    )


def _largest(memory: Memory) -> float:
    return max((example.activation for example in memory.examples), default=0.0)
