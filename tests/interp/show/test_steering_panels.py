"""The dose-response and the generations are shown as they are, with their controls."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from plotly.graph_objects import Figure

from interp.show import comparison_panel, dose_page, dose_panel, generations_panel, panels_of
from interp.show.html import Html
from interp.steering import ChosenDose, DoseResponse, MethodComparison, Names


def traces(figure: Figure, name: str) -> list[object]:
    return [trace for trace in figure.data if trace.name == name]


def test_naming_and_perplexity_are_plotted_against_dose(response: DoseResponse) -> None:
    panel = dose_panel(response, "the bridge")
    naming, ratio = traces(panel.body, "steered")
    assert list(naming.x) == [1, 2, 4] and list(naming.y) == [25.0, 100.0, 100.0]
    assert list(ratio.y) == pytest.approx([1.0, 1.6487, 7.389], rel=1e-3)


def test_the_control_has_the_same_doses_and_its_own_band(response: DoseResponse) -> None:
    panel = dose_panel(response, "the bridge")
    naming, _ = traces(panel.body, "random direction of equal norm")
    assert list(naming.y) == [0.0, 0.0, 25.0]
    low, high = naming.customdata[2]
    assert low < 25.0 < high
    assert "they name it at most 25.0% of the time (dose 4). Unsteered: 0.0%." in panel.control


def test_the_caption_gives_the_best_fluent_dose(response: DoseResponse) -> None:
    assert (
        "At dose 2, 100% of continuations name the bridge, at 1.65 times" in dose_panel(response, "the bridge").caption
    )


def test_the_caption_admits_that_no_dose_is_fluent(response: DoseResponse) -> None:
    loud = replace(response, steered=response.steered[2:], control=response.control[2:])
    assert "Here no dose is that fluent." in dose_panel(loud, "the bridge").caption


def test_the_first_continuation_of_each_prompt_is_shown_on_both_sides(response: DoseResponse) -> None:
    panel = generations_panel(response.unsteered, response.best(), Names(("Golden Gate",)).spans)
    assert isinstance(panel.body, Html)
    shown = panel.body.text
    assert shown.count('<span class="prompt">I saw</span>') == 2
    assert shown.count("the <mark>Golden Gate</mark>") == 2
    assert shown.count(" a &lt;b&gt;kettle&lt;/b&gt; &amp; cup") == 2


def test_continuations_of_other_prompts_are_not_set_side_by_side(response: DoseResponse) -> None:
    other = replace(response.best(), prompts=("elsewhere",) * 4)
    with pytest.raises(ValueError, match="sample both from the same prompts and seed"):
        generations_panel(response.unsteered, other, Names(("Golden Gate",)).spans)


def test_a_way_whose_name_holds_markup_is_shown_by_its_name(response: DoseResponse) -> None:
    found = MethodComparison({"<script>alert(1)</script>": None}, response.unsteered, response.unsteered)
    rows = (("<script>alert(1)</script>", None, response.unsteered.naming, response.unsteered.naming),)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(MethodComparison, "rows", lambda _: rows)
        body = comparison_panel(found, "the <b>").body
    assert isinstance(body, Html) and "<script" not in body.text and "&lt;script&gt;" in body.text


def test_the_share_on_the_tile_of_a_page_is_that_of_its_panels_on_the_same_prompts(
    response: DoseResponse, tmp_path: Path
) -> None:
    """On the prompts that chose the dose all continuations name the concept, on the others a quarter of them."""
    names = Names(("Golden Gate",))
    other = response.control[2]
    chosen = ChosenDose(2.0, response, response.unsteered, replace(other, dose=2.0), response.control[1])
    page = dose_page(tmp_path / "chosen.html", response, "the bridge", names.spans, chosen).read_text(encoding="utf-8")
    tile = re.search(r'class="tile"><b>([^<]*)<', page)
    assert tile is not None and tile[1] == "25%"
    assert "The curves are of the half of the prompts that it was chosen on, which flatters it. Look for" in page
    assert "On the other half, dose 2 makes 25% (3% to 80%) of continuations name the bridge, at 12.18 times" in page
    assert "of all 4 continuations 25% name it" in page
    page = dose_page(tmp_path / "whole.html", response, "the bridge", names.spans).read_text(encoding="utf-8")
    tile = re.search(r'class="tile"><b>([^<]*)<', page)
    assert tile is not None and tile[1] == "100%"
    assert "At dose 2, 100% of continuations name the bridge" in page
    assert "of all 4 continuations 100% name it" in page and "other half" not in page


def test_a_chosen_dose_shows_itself_with_what_it_does_on_other_prompts(response: DoseResponse) -> None:
    chosen = ChosenDose(2.0, response, response.unsteered, response.control[2], response.control[1])
    (panel,) = panels_of(chosen)
    assert "On the other half, dose 2 makes 25%" in panel.caption


def test_the_sentences_of_a_page_are_true_of_it(response: DoseResponse, tmp_path: Path) -> None:
    """Four continuations are of two prompts, which is what intervals are over; a script next to the page draws it."""
    panel = dose_panel(response, "the bridge")
    assert "4 continuations of 2 prompts per point; bands are 95% intervals over prompts" in panel.caption
    assert "At dose 2, 100% of continuations" in panel.caption
    shown = generations_panel(response.unsteered, response.best(), Names(("Golden Gate",)).spans, at_most=1)
    assert "for 1 of 2 prompts; of all 4 continuations 100% name it" in shown.caption
    page = dose_page(tmp_path / "true.html", response, "the bridge", Names(("Golden Gate",)).spans)
    assert (
        "holds all it needs" not in page.read_text(encoding="utf-8") and "script next to the page" in page.read_text()
    )
