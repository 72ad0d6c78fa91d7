"""The memories of a feed-forward layer as a page: agreement by layer, then triggers and promoted words of each."""

from collections.abc import Sequence
from dataclasses import dataclass

from plotly.graph_objects import Figure, Scatter

from interp.features import Example
from interp.memory import Agreement, Composition, Knowledge
from interp.show.heat import heat
from interp.show.html import Html, escape, table, tokens
from interp.show.page import Panel
from interp.show.theme import CONCEPT, CONTROL, styled

Words = Sequence[tuple[str, float]]


@dataclass(frozen=True)
class Memory:
    """One memory as it is shown: its trigger examples, the tokens its value promotes, and whether the two agree."""

    neuron: int
    examples: tuple[Example, ...]
    promoted: Words
    agrees: bool


def memories_panel(layer: int, memories: Sequence[Memory], read: int) -> Panel:
    """Some memories of a layer, a fold each: where the key matches and what the value says.

    ```python
    memories_panel(3, [Memory(17, found.examples(model, 17), words, agrees=True)], found.n_tokens).body
    ```
    """
    folds = "".join(_fold(memory) for memory in memories)
    return Panel(
        title=f"Layer {layer}: what triggers each memory, and what it says",
        body=Html(folds),
        caption=(
            "One place of each of the texts with the highest coefficients, highest first, the token after it included; "
            "the colour is the coefficient. Promoted are the next tokens that the value by itself raises most, in nats "
            "of logit. Marked memories promote what follows their best trigger."
        ),
        control=(
            f"The highest of {read:,} tokens flatter any memory: how often keys and values agree by chance is in the "
            "figure of agreement."
        ),
    )


def agreement_panel(found: Sequence[Agreement]) -> Panel:
    """The agreement rate of each layer with its interval, above what values dealt out at random give.

    ```python
    agreement_panel([agreement(model, triggers(model, texts, layer)) for layer in range(model.n_layers)]).body
    ```
    """
    layers, rates = [one.layer for one in found], [100 * one.rate.value for one in found]
    low = [100 * (one.rate.value - one.rate.low) for one in found]
    high = [100 * (one.rate.high - one.rate.value) for one in found]
    bars = {"type": "data", "symmetric": False, "array": high, "arrayminus": low, "thickness": 1.2}
    hover = "layer %{x}<br>%{y:.2f} %<extra></extra>"
    line = {"mode": "lines+markers", "x": layers, "hovertemplate": hover}
    figure = Figure(
        [
            Scatter(y=rates, error_y=bars, name="agreement", marker_color=CONCEPT, **line),
            Scatter(
                y=[100 * one.null for one in found], name="95 % of random deals below", marker_color=CONTROL, **line
            ),
        ]
    )
    figure = styled(figure, 300)
    figure.update_xaxes(title_text="layer", dtick=1)
    figure.update_yaxes(title_text="memories that agree, %", rangemode="tozero")
    return Panel(
        title="How often a value promotes what follows the key's best trigger",
        body=figure,
        caption=(
            "Agreement that rises with depth means that later values are next-token predictions; that of early layers "
            "is met by later layers first, so a low rate there does not mean that nothing is stored. Bars are Wilson's "
            "95 % intervals."
        ),
        control=(
            "The grey line is what the same values reach when dealt out to the keys at random, by chance "
            f"{min(one.chance for one in found):.2%} to {max(one.chance for one in found):.2%} on average."
        ),
    )


def composition_panel(found: Composition, words: Sequence[str], promoted: Sequence[Words], top: int = 10) -> Panel:
    """The memories that give most of the layer's output at the last token; `words` and `promoted` are of those.

    ```python
    composition_panel(composition(model, text, 3), said, promoted).body
    ```
    """
    rows = [
        [f"{number}", f"{m:.2f}", f"{share:.1%}", ", ".join(_code(word) for word, _ in heard[:5])]
        for (number, m, share), heard in zip(found.largest(-1, top), promoted, strict=False)
    ]
    chance = found.composed_by_chance
    return Panel(
        title=f"Layer {found.layer} after “{words[-1].strip()}”: its output, memory by memory",
        body=Html(f'<div class="words">{table(["memory", "coefficient", "share of output", "promotes"], rows)}</div>'),
        caption=(
            f"Shares are projections on the whole output and sum to 1 with the bias ({float(found.bias[-1]):.1%}). "
            f"{float(found.active[-1]):.0%} of the memories are active here. At {found.composed.value:.0%} of the "
            f"{found.composed.n} tokens no active memory promotes the token that the whole output does."
        ),
        control=(
            f"Asked for the token of another place, no memory promotes it at {chance.value:.0%} "
            f"({chance.low:.0%} to {chance.high:.0%})."
        ),
    )


def knowledge_panel(found: Knowledge, silenced: tuple[float, float], top: int = 24) -> Panel:
    """The memories that give most of the answer's probability, with what silencing them does.

    ```python
    knowledge_panel(found, silenced(model, found.query, found.neurons())).body
    ```
    """
    order = found.attribution.sort(dim=1, descending=True).values[:, :top]
    figure = heat(
        order.tolist(),
        [str(i + 1) for i in range(order.shape[1])],
        [f"layer {layer}" for layer in range(len(order))],
        most=max(float(order.abs().max()), 1e-12),
    )
    figure.update_xaxes(title_text="memories of the layer, largest attribution first")
    return Panel(
        title=f"What memories give of “{found.query.prompt}” … {found.query.answer}",
        body=figure,
        caption=(
            f"Integrated gradients of the answer's probability ({found.clean:.1%}), layer by layer; red raises it. The "
            "attributions of a layer add up to what the answer loses without it, here but for "
            f"{float(found.error.abs().max()):.1e}."
        ),
        control=(
            f"With the {len(found.neurons())} memories of at least a fifth of the largest attribution silenced the "
            f"answer has {silenced[0]:.1%}, with as many others of the same layers {silenced[1]:.1%}."
        ),
    )


def _fold(memory: Memory) -> str:
    words = " ".join(_code(word) for word, _ in memory.promoted[:6])
    largest = max((e.activation for e in memory.examples), default=0.0)
    lines = "".join(
        f"<li><b>{e.activation:.2f}</b><div>{tokens(e.tokens, e.activations, largest)}</div></li>"
        for e in memory.examples
    )
    rows = [[_code(word), f"{rise:+.2f}"] for word, rise in memory.promoted]
    body = f'<ul class="examples">{lines}</ul>' if lines else "<p>Its key matches nowhere in these texts.</p>"
    mark = "<mark>agrees</mark> " if memory.agrees else ""
    return (
        f'<details id="memory-{memory.neuron}"><summary><b>{memory.neuron}</b><span>{mark}{words}</span>'
        f"<small>{largest:.2f}</small></summary><div>{body}"
        f"<div class='words'>{table(['promoted', 'logit'], rows)}</div></div></details>"
    )


def _code(word: str) -> str:
    return f"<code>{escape(word.replace(' ', '·').replace(chr(10), '↵'))}</code>"
