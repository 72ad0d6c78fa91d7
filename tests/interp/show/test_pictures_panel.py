"""Pictures are shown as they are, in the order given, with their words."""

import re
from base64 import b64decode
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from hooks import Images
from hooks.errors import InvalidArgument
from interp.show import pictures_panel

PIXELS = torch.rand(3, 3, 5, 7, generator=torch.Generator().manual_seed(0))
SAYS = {"title": "Seen", "caption": "Look.", "control": "Compare."}


def test_each_picture_is_in_the_panel_pixel_by_pixel_with_its_words() -> None:
    panel = pictures_panel(Images(PIXELS), ["a bridge", "<fog>", "sea"], **SAYS)
    found = re.findall(r'base64,([^"]+)" alt="([^"]+)"', panel.body.text)
    assert [words for _, words in found] == ["a bridge", "&lt;fog&gt;", "sea"]
    for (data, _), pixels in zip(found, PIXELS, strict=True):
        shown = np.asarray(Image.open(BytesIO(b64decode(data))))
        assert np.array_equal(shown, (pixels * 255).round().byte().permute(1, 2, 0).numpy())
    assert (panel.title, panel.caption, panel.control) == ("Seen", "Look.", "Compare.")


def test_a_picture_without_words_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="3 pictures were given with 1 words"):
        pictures_panel(Images(PIXELS), ["a bridge"], **SAYS)
