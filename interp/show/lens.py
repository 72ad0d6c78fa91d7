"""What a lens read, as heat maps over layers and tokens, and a logit's parts as bars."""

from plotly.graph_objects import Bar, Figure
from torch import Tensor

from hooks.border import Count
from hooks.plurals import count_of
from interp.lenses import Attribution, LensReading, Ranks
from interp.show.heat import heat, label_of
from interp.show.html import visible
from interp.show.page import Panel
from interp.show.theme import BEFORE, CONCEPT, style_figure

NATS = "%{y}, after %{x}<br>%{z:.3g} nats<extra></extra>"
SUBJECT = {
    "LogitLens": "as if it were the last",
    "TunedLens": "tuned",
    "JacobianLens": "by its mean effect on the last",
}


def lens_panel(reading: LensReading, text: int = 0) -> Panel:
    """The likeliest token at each layer and token, coloured by its probability.

    Examples:
        ```python
        lens_panel(read(LogitLens(model), "The Golden Gate Bridge is in")).body.show()
        ```
    """
    words = [[label_of(reading.words[int(i)]) for i in row[text, :, 0]] for row in reading.top]
    hover = "%{y}, after %{x}<br>%{hovertext}: %{z:.1%}<extra></extra>"
    figure = _map(reading, reading.probability[..., 0], text, 1.0, words, hover)
    return Panel(
        title=f"What each layer would say next: {reading.lens}",
        body=figure,
        caption=(
            "A cell is the likeliest next token if the stream after that layer, read "
            f"{SUBJECT.get(reading.lens, 'through the lens')}, were all there is; the redder, the likelier, full "
            "colour at a probability of 1. Read a column upwards: where the top row's token first appears, the model "
            "has found its answer."
        ),
        control="The top row is the model itself, which every lens must agree with.",
    )


def divergence_panel(reading: LensReading, text: int = 0) -> Panel:
    """KL(p_model || p_lens) at each layer and token, in nats.

    Examples:
        ```python
        divergence_panel(read(lens, "The Golden Gate Bridge is in")).body.show()
        ```
    """
    values, most = reading.kl, _most(reading.kl)
    mean = ", ".join(f"{float(kl):.2f}" for kl in reading.mean_kl)
    return Panel(
        title=f"How far each layer is from the model's answer: {reading.lens}",
        body=_map(reading, values, text, most),
        caption=f"KL(model ‖ lens): white is none, full colour {most:.3g} nats. Means over tokens by layer: {mean}.",
        control="The top row is 0: the model diverges from itself by nothing.",
    )


def entropy_panel(reading: LensReading, text: int = 0) -> Panel:
    """The entropy of what each layer would say, in nats.

    Examples:
        ```python
        entropy_panel(read(lens, "The Golden Gate Bridge is in")).body.show()
        ```
    """
    most = _most(reading.entropy)
    return Panel(
        title=f"How undecided each layer is: {reading.lens}",
        body=_map(reading, reading.entropy, text, most),
        caption=(
            f"Entropy: white is certainty, full colour {most:.3g} nats. A layer may be certain and wrong; the "
            "divergence says which."
        ),
        control="The top row is the model's own entropy.",
    )


def rank_panel(ranks: Ranks, text: int = 0) -> Panel:
    """The rank of a token at each layer and token; 0 is the likeliest, and padding has none.

    Examples:
        ```python
        rank_panel(rank(LogitLens(model), "The Golden Gate Bridge is in", " San")).body.show()
        ```
    """
    values = ranks.ranks[:, text]
    size = (1 + values).log10().masked_fill(values < 0, float("nan"))
    figure = heat(
        size.tolist(),
        ranks.tokens[text],
        [f"layer {layer}" for layer in ranks.layers],
        most=_most(size),
        texts=[["" if i < 0 else str(i) for i in row] for row in values.tolist()],
        hover="%{y}, after %{x}<br>rank %{hovertext}<extra></extra>",
    )
    return Panel(
        title=f"The rank of “{visible(ranks.word)}”: {ranks.lens}",
        body=figure,
        caption="How many tokens each layer finds likelier: white is the likeliest; colour is on a log scale, full "
        f"at rank {int(values.max())}.",
        control="The top row is its rank in the model's own answer.",
    )


def attribution_panel(found: Attribution, count: Count = 20) -> Panel:
    """The largest parts of a logit as bars, means over texts.

    Examples:
        ```python
        attribution_panel(attribute(model, "The Golden Gate Bridge is in", " San")).body.show()
        ```
    """
    top = found.top(count)[::-1]
    names, values = [name for name, _ in top], [value for _, value in top]
    colours = [CONCEPT if value > 0 else BEFORE for value in values]
    bars = Bar(x=values, y=names, orientation="h", marker_color=colours, hovertemplate="%{y}: %{x:+.3g}<extra></extra>")
    figure = style_figure(Figure(bars), 120 + 20 * len(top))
    figure.update_xaxes(title_text="added to the logit")
    figure.update_layout(margin_l=200)
    shown, whole = sum(values), float(found.logit.mean())
    return Panel(
        title=f"What adds to the logit of {_quote(found.word)}",
        body=figure,
        caption=(
            f"The {len(top)} largest of {len(found.names)} parts, with the final norm {found.norm}; mean of "
            f"{count_of(len(found.logit), 'text')}. They are direct effects: what later parts "
            "make of a part counts as theirs."
        ),
        control=f"All parts sum to the logit, {whole:+.3g}; those shown to {shown:+.3g}.",
    )


def _quote(word: str) -> str:
    """The token, or the two of a difference, each in quotation marks."""
    return " − ".join(f"“{visible(part)}”" for part in word.split(" − "))


def _map(
    reading: LensReading,
    values: Tensor,
    text: int,
    most: float,
    words: list[list[str]] | None = None,
    hover: str = NATS,
) -> Figure:
    rows = [f"layer {layer}" for layer in reading.layers]
    return heat(values[:, text].tolist(), reading.tokens[text], rows, most=most, texts=words, hover=hover)


def _most(values: Tensor) -> float:
    return max(float(values.nan_to_num(0).abs().max()), 1e-9)
