"""The page of an atlas in a real browser: it moves, finds, shows a cell's evidence and walks, by hand and by keys."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from hooks import Images
from hooks.errors import InvalidArgument
from hooks.site import embedding
from interp.atlas import Atlas, Sample, Space, cut_cells, find_walk, link_neighbours
from interp.atlas.icons import Icons
from interp.atlas.sample import unit_rows
from interp.show import atlas_page
from tests.interp.show.test_browser import CHROMIUM, CONTRAST, Browser

NAMES = ("bridge <b>", "tower", "fog", "bay")


def ring(n: int = 48) -> Atlas:
    """Rows on a ring, which is its own map, four labels along it."""
    angle = torch.linspace(0, 6.0, n)
    rows = torch.stack([angle.cos(), angle.sin()], 1)
    labels = tuple(NAMES[i * 4 // n] for i in range(n))
    space = Space(rows, tuple(f"{label} {i}" for i, label in enumerate(labels)), site=embedding)
    sample = Sample(space, torch.arange(n), torch.zeros(n, dtype=torch.long), labels)
    cells = cut_cells(rows, unit_rows(space), labels, side=6, least=1)
    return Atlas(sample, rows, rows, link_neighbours(space, 4), cells, 1)


def whole_page(path: Path) -> Path:
    atlas = ring()
    n = len(atlas.cells.cells)
    icons = Icons(Images(torch.rand(n, 3, 8, 8)), torch.full((n,), 0.9), torch.zeros(n))
    words = tuple((("word <i>", 1.5),) for _ in range(n))
    pictures = Images(torch.rand(48, 3, 8, 8))
    return atlas_page(
        path, atlas, icons=icons, pictures=pictures, words=words, walks={"round": find_walk(atlas, 0, 30)}
    )


def test_words_are_escaped_and_all_cells_and_the_walk_are_in_the_page(tmp_path: Path) -> None:
    text = whole_page(tmp_path / "atlas.html").read_text("utf-8")
    assert "bridge <b>" not in text and "word <i>" not in text and text.count("data:image/png") > 40
    assert "95th percentile" in text and "http" not in text.replace("http://www.w3.org", "")
    with pytest.raises(InvalidArgument, match="2 words were given"):
        atlas_page(tmp_path / "atlas.html", ring(), words=((), ()))
    with pytest.raises(InvalidArgument, match="html"):
        atlas_page(tmp_path / "atlas.txt", ring())


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium is installed")
    opened = Browser(tmp_path_factory.mktemp("chromium"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_page(tmp_path_factory.mktemp("atlas") / "atlas.html")


def test_a_search_marks_the_cells_of_a_label_and_enter_shows_the_first(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.press("/", *"tower", "Enter")
    wanted = sum(cell.label == "tower" for cell in ring().cells.cells)
    assert browser.js("document.querySelectorAll('.cell.found').length") >= wanted > 0
    assert "tower" in browser.js("document.querySelector('#cell').textContent")
    assert browser.js("document.querySelectorAll('#cell .strip img').length") >= 1
    assert browser.js("document.querySelectorAll('.cell.chosen').length") == 1
    assert browser.complaints() == []


def test_keys_go_from_cell_to_cell_and_walk_over_neighbours_round_the_ring(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.js("document.querySelector('svg.atlas').focus()")
    browser.press("ArrowRight")
    first = browser.js("document.querySelector('.cell.chosen').dataset.cell")
    browser.press("f", "ArrowRight")
    second = browser.js("document.querySelector('.cell.chosen').dataset.cell")
    assert first != second
    browser.press("t")
    assert browser.js("document.querySelector('#way').getAttribute('d').length") > 0
    walked = browser.js("document.querySelectorAll('.cell.walked').length")
    assert walked >= 2 and f"{walked} cells" in browser.js("document.querySelector('#walk').textContent")
    assert "Control. The straight line" in browser.js("document.querySelector('#walk').textContent")
    browser.js("document.querySelector('#stop').click()")
    assert browser.js("document.querySelectorAll('.cell.walked').length") == 0
    assert browser.complaints() == []


def test_labels_typed_into_the_form_are_walked_between(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.js("document.querySelector('#from').value = 'bridge'; document.querySelector('#to').value = 'bay'")
    browser.js("document.querySelector('#go button').click()")
    assert browser.js("document.querySelectorAll('#walk .strip li').length") > 3
    assert "changes of label" in browser.js("document.querySelector('#walk').textContent")


def test_dragging_moves_the_map_the_wheel_and_buttons_enlarge_it_and_nought_shows_all(
    browser: Browser, page: Path
) -> None:
    browser.open(page)
    view = "document.querySelector('svg.atlas').getAttribute('viewBox')"
    whole = browser.js(view)
    browser.js("document.querySelector('svg.atlas').scrollIntoView()")
    x, y = browser.js(
        "(r => [r.x + r.width / 2, r.y + r.height / 2])(document.querySelector('svg.atlas').getBoundingClientRect())"
    )
    browser.do("Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, button="left", clickCount=1)
    browser.do("Input.dispatchMouseEvent", type="mouseMoved", x=x + 60, y=y + 20, button="left", buttons=1)
    browser.do("Input.dispatchMouseEvent", type="mouseReleased", x=x + 60, y=y + 20, button="left", clickCount=1)
    moved = browser.js(view)
    assert moved != whole and moved.split()[2] == whole.split()[2]
    browser.do("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=-200)
    browser.js("new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(() => drawn(null))))")
    assert float(browser.js(view).split()[2]) < float(whole.split()[2])
    browser.js("document.querySelector('#in').click()")
    browser.press("0")
    assert browser.js(view) == whole
    assert browser.complaints() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_can_be_read_in_both_schemes_and_fits_a_phone(browser: Browser, page: Path, scheme: str) -> None:
    browser.open(page, scheme)
    browser.js("document.querySelector('.cell').dispatchEvent(new MouseEvent('click', {bubbles: true}))")
    assert browser.js(CONTRAST) >= 4.5
    browser.do("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=True)
    assert browser.js("document.documentElement.scrollWidth") <= 390
    browser.do("Emulation.clearDeviceMetricsOverride")
