"""A prompt's output split into memories: what each gives of a layer's output, and of an answer's probability."""

from collections.abc import Sequence

import torch

from hooks.border import Count
from interp.memory import Composition, Knowledge
from interp.show.heat import heat
from interp.show.html import Html, part, table, visible
from interp.show.memories import Words
from interp.show.page import Panel


def composition_panel(found: Composition, prompt: str = "", promoted: Sequence[Words] = (), top: Count = 10) -> Panel:
    """The memories that give most of the layer's output at the last token, with what each of those promotes.

    Examples:
        ```python
        composition_panel(composition(model, text, 3), text, promoted(model, 3, largest)).body
        ```
    """
    largest = found.largest(-1, top)
    rows = [
        [f"{number}", f"{m:.2f}", f"{share:.1%}", part("codes", [visible(word) for word, _ in heard[:5]], ", ")]
        for (number, m, share), heard in zip(largest, [*promoted[:top], *[()] * len(largest)], strict=False)
    ]
    chance = found.composed_by_chance
    head = ["memory", "coefficient", "share of output", "promotes"]
    return Panel(
        title=f"What layer {found.layer} writes after {f'“{prompt}”' if prompt else 'a text'}, memory by memory",
        body=Html(part("block", "words", table(head, rows))),
        caption=(
            f"Shares are projections on the whole output and sum to 1 with the bias ({float(found.bias[-1]):.1%}); "
            "memories of negative coefficient write and promote what the opposite of their value does. "
            f"{float(found.active[-1]):.0%} of the memories are active here. At {found.composed.value:.0%} of the "
            f"prompt's {found.composed.n} tokens no active memory promotes the token that the whole output does."
        ),
        control=(f"Compared with the token of another place instead, none promotes it at {chance:.0%} of them."),
    )


def knowledge_panel(found: Knowledge, silenced: tuple[float, float], top: Count = 14) -> Panel:
    """The memories that give most of the answer's probability, with what silencing them does.

    Examples:
        ```python
        knowledge_panel(found, silenced(model, found.query, found.neurons())).body
        ```
    """
    order = found.attribution.sort(dim=1, descending=True)
    values, numbers = order.values[:, :top], order.indices[:, :top]
    missed, n = float(found.error.abs().max()), len(found.neurons())
    most = max(float(torch.quantile(values.abs(), 0.99)), 1e-12)
    figure = heat(
        values.tolist(),
        [str(i + 1) for i in range(values.shape[1])],
        [f"layer {layer}" for layer in range(len(values))],
        most=most,
        texts=[[str(i) for i in row] for row in numbers.tolist()],
        hover="%{y}, memory %{hovertext}<br>%{z:.2%} of probability<extra></extra>",
    )
    figure.update_xaxes(title_text="memories by number, largest first")
    return Panel(
        title=f"What memories give of “{found.query.prompt}” … {found.query.answer}",
        body=figure,
        caption=(
            f"Integrated gradients of the answer's probability ({found.clean:.1%}), layer by layer; red raises it, "
            f"full colour by {100 * most:.2g} points. A layer's attributions add up to what the answer loses without "
            f"that layer, but for {100 * missed:.2g} points at most."
        ),
        control=(
            f"With the {n} memories of at least a fifth of the largest attribution silenced the answer has "
            f"{silenced[0]:.1%}, with as many others of the same layers {silenced[1]:.1%}."
        ),
    )
