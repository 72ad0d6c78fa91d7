"""A report fetches nothing, shares its script with its folder, and names what to look at and its control everywhere."""

import re
from pathlib import Path

import pytest
from plotly.graph_objects import Bar, Figure
from plotly.offline import get_plotlyjs

from interp.show import Panel, Section, Tile, bundle_page, report
from interp.show.html import Html
from interp.show.theme import draw_rule, style_figure


@pytest.fixture
def page(tmp_path: Path) -> str:
    bars = Figure(Bar(x=["</script><b>"], y=[1.0]))
    panels = (
        Panel("First", style_figure(bars, 300), "Look at the bar.", "The other bar."),
        Panel("Second", Html("<p id='mine'>mine</p>"), "Look & see <this>.", "That."),
    )
    path = report(
        tmp_path / "new" / "page.html",
        "A <title>",
        "A lead.",
        [Section("One", "Text.", panels)],
        [Tile("98 %", "kept", "of 50")],
        ["interp demo"],
    )
    return path.read_text(encoding="utf-8")


def test_a_page_of_one_figure_is_light_and_fetches_nothing(page: str, tmp_path: Path) -> None:
    (script,) = re.findall(r'<script src="([^"]+)"', page)
    assert (tmp_path / "new" / script).read_text(encoding="utf-8") == get_plotlyjs()
    assert len(page.encode()) < 100_000
    rest = page.replace(f'src="{script}"', "")
    assert not re.search(r"https?://|@import|url\(|<link(?![^>]*data:,)|<script[^>]+src=", rest)


def test_a_bundled_page_holds_its_script_once_and_needs_no_other_file(page: str, tmp_path: Path) -> None:
    made = bundle_page(tmp_path / "new" / "page.html", tmp_path / "one.html").read_text(encoding="utf-8")
    assert made.count(get_plotlyjs()) == 1
    assert not re.search(r"<script[^>]+src=", made.replace(get_plotlyjs(), ""))
    assert made.replace(get_plotlyjs(), "").count("<figcaption>") == page.count("<figcaption>") == 2


def test_a_script_that_was_changed_is_written_again_and_a_page_without_figures_has_none(tmp_path: Path) -> None:
    table = Panel("First", Html("<p>mine</p>"), "Look.", "Control.")
    report(tmp_path / "words.html", "Title", "Lead.", [Section("One", "Text.", (table,))])
    assert [file.name for file in tmp_path.iterdir()] == ["words.html"]
    bars = Panel("First", Figure(Bar(x=["a"], y=[1.0])), "Look.", "Control.")
    report(tmp_path / "bars.html", "Title", "Lead.", [Section("One", "Text.", (bars,))])
    (script,) = tmp_path.glob("*.js")
    script.write_text("alert(1)")
    report(tmp_path / "bars.html", "Title", "Lead.", [Section("One", "Text.", (bars,))])
    assert script.read_text(encoding="utf-8") == get_plotlyjs()


def test_every_panel_states_what_to_look_at_and_its_control(page: str) -> None:
    captions = re.findall(r"<figcaption>(.*?)<span class=\"control\">(.*?)</span></figcaption>", page, flags=re.S)
    assert captions == [("Look at the bar.", "The other bar."), ("Look &amp; see &lt;this&gt;.", "That.")]


def test_words_are_escaped_and_only_an_html_body_is_markup(page: str) -> None:
    assert "<h1>A &lt;title&gt;</h1>" in page
    assert "<p id='mine'>mine</p>" in page
    figure = page[page.index('<div id="figure-1-1"') : page.index("<figcaption>")]
    assert figure.count("</script>") == figure.count("<script")


def test_the_page_fits_a_phone(page: str) -> None:
    assert 'name="viewport" content="width=device-width, initial-scale=1"' in page
    assert '"responsive": true' in page


def test_the_same_results_make_the_same_page(tmp_path: Path) -> None:
    panel = Panel("First", Figure(Bar(x=["a"], y=[1.0])), "Look.", "Control.")
    first, second = (
        report(tmp_path / name, "Title", "Lead.", [Section("One", "Text.", (panel,))]) for name in ("a.html", "b.html")
    )
    assert first.read_bytes() == second.read_bytes()


def test_a_report_that_is_no_page_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"let the name end in \.html"):
        report(tmp_path / "page.pdf", "Title", "Lead.", [Section("One", "Text.")])
    with pytest.raises(ValueError, match="a report needs at least one section"):
        report(tmp_path / "page.html", "Title", "Lead.", [])


def test_the_label_of_a_rule_on_a_log_axis_is_at_its_line() -> None:
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=1, cols=1)
    figure.update_yaxes(type="log")
    draw_rule(figure, 1000.0, "limit", row=1)
    assert figure.layout.annotations[0].y == pytest.approx(3.0)
    assert figure.layout.shapes[0].y0 == 1000.0
