"""The panel of positions colours the selected tokens and no other."""

import re
from collections.abc import Callable

import pytest
import torch

from hooks import Model
from hooks.position import first, generated, last, special, substring
from interp.show import positions_panel
from interp.show.html import Html


def lines(body: Html) -> list[tuple[str, str, str]]:
    """(position, coloured characters, plain characters) of every row."""
    found = []
    for row in re.findall(r"<tr><td>(.*?)</tr>", body.text):
        name = re.search(r"<code>(.*?)</code>", row)
        coloured = re.findall(r'<span class="t"[^>]*>(.*?)</span>', row)
        plain = re.findall(r"<span>(.*?)</span>", row)
        found.append((name[1] if name else "", "".join(coloured), "".join(plain)))
    return found


def test_each_text_is_shown_once_per_position_with_the_selected_tokens_coloured(
    gpt2: Model, padded_left: Callable[[Model], Model]
) -> None:
    for model in (gpt2, padded_left(gpt2)):
        body = positions_panel(model, ["Fog & on", "No"], [last, first(2), special]).body
        assert isinstance(body, Html)
        end = "&lt;|endoftext|&gt;"
        assert lines(body) == [
            ("last", "n", f"{end}Fog &amp; o"),
            ("last", "o", f"{end}N"),
            ("first(2)", "Fo", f"{end}g &amp; on"),
            ("first(2)", "No", end),
            ("special", end, "Fog &amp; on"),
            ("special", end, "No"),
        ]


def test_generated_tokens_are_shown_after_the_prompt(gpt2: Model) -> None:
    new = torch.tensor([[40, 41]])
    read = gpt2.tokens("Fog").extend(new, torch.ones_like(new).bool(), torch.zeros_like(new).bool())
    body = positions_panel(gpt2, read, generated).body
    assert isinstance(body, Html)
    assert lines(body) == [("generated", gpt2.tokenizer.decode([40, 41]), "&lt;|endoftext|&gt;Fog")]


def test_a_position_that_is_not_in_a_text_and_no_position_at_all_are_refused(gpt2: Model) -> None:
    with pytest.raises(ValueError, match="'Bay' is not in text 0"):
        positions_panel(gpt2, "Fog", substring("Bay"))
    with pytest.raises(ValueError, match="no positions were given to show: name at least one, such as last"):
        positions_panel(gpt2, "Fog", [])
