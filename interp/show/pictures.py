"""Pictures in a row, each with what is said of it."""

from base64 import b64encode
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Images
from hooks.errors import InvalidArgument
from interp.postcard.sheet import png
from interp.show.html import Html, render
from interp.show.page import Panel


def pictures_panel(pictures: Images, said: Sequence[str], *, title: str, caption: str, control: str) -> Panel:
    """Pictures in the order given, each with its words below.

    Args:
        pictures: to show.
        said: of each: its label, or its value.
        title: of the panel.
        caption: what to look at.
        control: what to compare with.

    Raises:
        InvalidArgument: not as many words as pictures.

    Examples:
        ```python
        pictures_panel(pictures[:8], names, title="Most like it", caption="…", control="…")
        ```
    """
    if len(said) != len(pictures):
        raise InvalidArgument(f"{len(pictures)} pictures were given with {len(said)} words: give some for each")
    rows = [(picture_url(one), words) for one, words in zip(pictures.pixels, said, strict=True)]
    return Panel(title, Html(render("pictures.html", rows=rows)), caption, control)


def picture_url(pixels: Float[Tensor, "channel height width"]) -> str:
    """A picture as an address that holds it.

    Examples:
        >>> picture_url(torch.zeros(3, 1, 1))[:22]
        'data:image/png;base64,'
    """
    whole = (pixels * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return "data:image/png;base64," + b64encode(png(whole)).decode("ascii")
