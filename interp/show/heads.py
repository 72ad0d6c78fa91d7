"""Head scores as a heat map over layers and heads, and where one head looks."""

from hooks import Activations, Model
from hooks.pieces import pieces
from hooks.site import pattern
from interp.circuits.heads import HeadScores
from interp.show.heat import heat
from interp.show.page import Panel


def heads_panel(scores: HeadScores) -> Panel:
    """The score of every head.

    Examples:
        ```python
        heads_panel(induction(model)).body.show()
        ```
    """
    n_layers, n_heads = scores.values.shape
    columns, rows = [str(head) for head in range(n_heads)], [f"layer {layer}" for layer in range(n_layers)]
    layer, head, best = scores.top(1)[0]
    most = max(1e-9, float(scores.values.abs().max()))
    hover = "%{y}, head %{x}<br>%{z:.3g}<extra></extra>"
    figure = heat(scores.values.tolist(), columns, rows, most=most, hover=hover).update_xaxes(title_text="head")
    return Panel(
        title=f"Heads by their {scores.name} score",
        body=figure,
        caption=(
            f"The highest is head {head} of layer {layer}, with {best:.2g}; full colour is {most:.2g}. Point at a cell "
            "for its score."
        ),
        control=(
            f"Next to it, {scores.where}: that head scores {float(scores.control[layer, head]):.2g}, and no head more "
            f"than {float(scores.control.max()):.2g}."
        ),
    )


def attention_panel(model: Model, acts: Activations, layer: int, head: int, text: int = 0) -> Panel:
    """Where a head looks: the attention from each token (rows) to each earlier one (columns).

    Raises:
        UnknownName: the pattern of the layer was not captured.

    Examples:
        ```python
        attention_panel(model, capture(model, "Fog over the fog", pattern[1]), 1, 0).body.show()
        ```
    """
    real = acts.tokens.mask[text].nonzero().flatten()
    A = acts[pattern[layer]][text, head][real][:, real]
    ids = acts.tokens.ids[text, real].tolist()
    words = pieces(model.tokenizer, ids)
    hover = "from %{y} to %{x}<br>%{z:.1%}<extra></extra>"
    figure = heat(A.tolist(), words, [f"{n} {word}" for n, word in enumerate(words)], most=1.0, hover=hover)
    return Panel(
        title=f"Where head {head} of layer {layer} looks",
        body=figure.update_yaxes(autorange="reversed"),
        caption="Each row is a token that looks, each column one that is looked at; rows sum to 1, full colour.",
        control=(
            f"The first token gets {float(A[:, 0].mean()):.0%} of the attention; a head with nothing to do looks there."
        ),
    )
