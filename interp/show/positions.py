"""Which tokens positions select, shown in the text itself."""

from collections.abc import Sequence

from markupsafe import Markup

from hooks import Model, Position, Tokens
from hooks.errors import InvalidArgument
from hooks.huggingface import Tokenizer
from hooks.model import Text
from hooks.pieces import pieces
from interp.show.html import Html, part, table, tokens
from interp.show.page import Panel


def positions_panel(model: Model, text: Text, positions: Position | Sequence[Position]) -> Panel:
    """Each text once per position, with the tokens it selects coloured; padding is left out.

    Raises:
        InvalidArgument: no position is given, or a text lacks what one speaks of.

    Examples:
        ```python
        positions_panel(model, ["Fog hid the bridge.", "Fog"], [last, substring("Fog")]).body
        ```
    """
    listed = [positions] if isinstance(positions, Position) else list(positions)
    if not listed:
        raise InvalidArgument("no positions were given to show: name at least one, such as last")
    read = model.tokens(text)
    masks = [at.mask(read) for at in listed]
    rows = [
        [part("code", at), _line(model.tokenizer, read, row, mask[row].tolist())]
        for at, mask in zip(listed, masks, strict=True)
        for row in range(len(read))
    ]
    return Panel(
        title="Which tokens a position selects",
        body=Html(part("block", "words", table(["position", "text"], rows))),
        caption=(
            "Coloured tokens are selected. A position is anchored to the text: it selects the same tokens whatever the "
            "padding, the batch or the KV cache."
        ),
        control=(
            "Special tokens are shown as they are written; no position selects one unless it asks for it (special, "
            "tokens), and none selects padding."
        ),
    )


def _line(tokenizer: Tokenizer, read: Tokens, row: int, selected: Sequence[bool]) -> Markup:
    real = read.mask[row].nonzero().flatten().tolist()
    texts = pieces(tokenizer, read.ids[row, real].tolist())
    return part("line", tokens(texts, [float(selected[column]) for column in real], largest=1.0))
