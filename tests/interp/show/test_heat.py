"""A heat map can be read: its texts have room, its hover says them whole, its caption says what full colour is."""

import pytest
import torch

from interp.circuits.heads import HeadScores
from interp.show import Panel, Section, heads_panel, report
from interp.show.heat import LETTER, heat
from interp.show.html import Html


def scores() -> HeadScores:
    values = torch.tensor([[0.001, -0.004], [0.003, 0.0]])
    return HeadScores("task", values, values / 2, "with wrong labels")


@pytest.mark.parametrize("columns", [2, 12, 40])
def test_columns_are_as_wide_as_their_longest_text(columns: int) -> None:
    figure = heat([[0.5] * columns], ["·tok"] * columns, ["layer 0"], most=1.0, texts=[["abcdefgh"] * columns])
    assert figure.layout.meta["least_width"] >= columns * 8 * LETTER
    assert (figure.layout.width is None) == (figure.layout.meta["least_width"] <= 800)
    assert figure.data[0].to_plotly_json()["textfont"] == {"size": 11}, "not shrunk until it fits"


def test_a_long_text_is_cut_in_its_cell_and_whole_on_hover() -> None:
    figure = heat([[0.5]], ["a"], ["layer 0"], most=1.0, texts=[["·Constantinople"]], hover="%{hovertext}")
    cells = figure.data[0].to_plotly_json()
    assert cells["text"][0][0] == "·Constan…" and cells["hovertext"][0][0] == "·Constantinople"


def test_a_page_scrolls_a_figure_that_is_wider_than_it(tmp_path: object) -> None:
    figure = heat([[0.5] * 60], ["a"] * 60, ["layer 0"], most=1.0)
    panels = (Panel("wide", figure, "c", "d"), Panel("words", Html("<p>w</p>"), "c", "d"))
    page = report(f"{tmp_path}/wide.html", "t", "l", [Section("s", "t", panels)]).read_text(encoding="utf-8")
    assert f'<div class="wide"><div style="min-width:{figure.layout.meta["least_width"]}px">' in page
    assert page.count('<div class="wide">') == 1
    assert '<div class="tiles">' not in page and "<footer>" not in page, "an empty part of a page is not drawn"


def test_scores_that_are_small_are_not_written_as_nothing_and_full_colour_is_said() -> None:
    panel = heads_panel(scores())
    assert "layer 1, with 0.003; full colour is 0.004" in panel.caption
    assert "that head scores 0.0015, and no head more than 0.0015" in panel.control
