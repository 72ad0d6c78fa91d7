"""The page in a real browser: it loads without errors, streams, stops, edits, and works by keyboard and on a phone."""

import json
import shutil
import time
from collections.abc import Iterator
from typing import Any

import pytest

from interp.lenses import LogitLens, read
from interp.steering import add_direction, steer
from tests.interp.show.test_browser import CHROMIUM, CONTRAST, Browser
from tests.interp.workbench.conftest import Client

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    home = tmp_path_factory.mktemp("chromium")
    one = Browser(home)
    yield one
    one.process.kill()
    one.process.wait()
    shutil.rmtree(home, ignore_errors=True)


class Page:
    """The page of one workbench in a browser."""

    def __init__(self, browser: Browser, client: Client) -> None:
        self.browser, self.client = browser, client

    def open(self, scheme: str = "light", width: int = 1200) -> None:
        self.browser.do("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.browser.do(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        self.browser.do("Page.navigate", url="about:blank")
        self.browser.events.clear()
        self.browser.do("Page.navigate", url=self.client.page.url)
        self.until("document.body && document.body.dataset.ready === 'yes'")

    def js(self, code: str) -> Any:
        return self.browser.js(code)

    def until(self, condition: str) -> None:
        for _ in range(3000):
            if self.js(f"!!({condition})"):
                return
            time.sleep(0.05)
        said = self.js(
            "[...document.querySelectorAll('#error, #progress, figure p')].map(e => e.innerText).join(' | ')"
        )
        raise AssertionError(f"never: {condition}; the page says {said}")

    def click(self, selector: str) -> None:
        self.js(f"document.querySelector({json.dumps(selector)}).click()")

    def type(self, selector: str, text: str) -> None:
        self.js(f"document.querySelector({json.dumps(selector)}).value = {json.dumps(text)}")

    @property
    def complaints(self) -> list[Any]:
        kinds = ("Runtime.exceptionThrown", "Log.entryAdded", "Network.loadingFailed")
        return [event for event in self.browser.events if event.get("method") in kinds]

    @property
    def errors(self) -> list[Any]:
        """Complaints without streams of events that were left after their last one, which count as broken off."""
        return [event for event in self.complaints if event["method"] != "Network.loadingFailed"]

    @property
    def addresses(self) -> list[str]:
        sent = [event for event in self.browser.events if event.get("method") == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]


@pytest.fixture
def page(browser: Browser, served: Client) -> Page:
    made = Page(browser, served)
    made.open()
    return made


def test_it_opens_without_a_complaint_asks_nobody_else_and_hides_its_token(page: Page) -> None:
    assert "3 layers" in page.js("document.getElementById('model').textContent")
    assert page.complaints == []
    assert all(url.startswith((f"http://127.0.0.1:{page.client.port}/", "data:")) for url in page.addresses)
    assert page.client.page.token not in page.js("location.href")


def test_facts_of_the_bundled_model_are_no_values_but_examples_for_another(page: Page) -> None:
    fields = "[...document.querySelectorAll('#edit-form input, #trace-form input')]"
    assert page.js(f"{fields}.map(one => one.value).join('')") == ""
    assert page.js("document.getElementById('trace-clean').placeholder").startswith("The Golden Gate Bridge")


def test_the_lens_follows_pointer_and_keys_and_says_what_python_says(page: Page) -> None:
    page.type("#read-text", "Fog over")
    page.click("#read-form button")
    page.until("document.querySelector('#split table')")
    reading = read(LogitLens(page.client.model), "Fog over", top=5)
    shown = page.js("document.querySelector('#lens tbody tr td:nth-child(2)').textContent")
    assert f"{float(reading.probability[-1, 0, -1, 0]):.2f}" in shown
    page.js("document.querySelectorAll('.token')[1].focus()")
    page.browser.press("ArrowRight")
    chosen = page.js("[...document.querySelectorAll('.token')].findIndex(e => e.ariaSelected === 'true')")
    assert chosen == 2
    before = page.js("document.getElementById('lens').textContent")
    page.js("document.querySelectorAll('.token')[1].dispatchEvent(new MouseEvent('mouseenter'))")
    assert page.js("document.getElementById('lens').textContent") != before
    assert page.js("document.querySelectorAll('#features tbody tr').length") >= 1


def test_steering_fills_three_columns_with_what_python_generates(page: Page) -> None:
    page.click("#tab-steer")
    page.type("#steer-prompt", "Fog")
    page.type("#steer-n", "6")
    page.js("document.querySelector('[aria-label=Latent]').value = 2")
    page.js("document.querySelector('[aria-label=Dose]').value = 3")
    page.js(
        "window.changes = 0; new MutationObserver(l => { window.changes += l.length; })"
        ".observe(document.getElementById('out-steered'), { childList: true })"
    )
    page.click("#steer-form button:not([type=button])")
    page.until("document.getElementById('note-random').textContent")
    with steer(page.client.model, add_direction(page.client.sae.direction(2)), 3.0):
        expected = page.client.model.generate("Fog", max_new_tokens=6)
    assert page.js("document.getElementById('out-steered').textContent") == "Fog" + expected
    assert page.js("window.changes") >= 3
    assert "seed 0" in page.js("document.getElementById('note-random').textContent")
    assert "resid_post.1" in page.js("document.getElementById('receipt').textContent")


def test_escape_stops_what_runs(page: Page) -> None:
    page.click("#tab-steer")
    page.type("#steer-prompt", "Fog")
    page.type("#steer-n", "80")
    page.type("#steer-t", "1")
    page.click("#steer-form button:not([type=button])")
    page.until("document.getElementById('out-steered').childNodes.length > 1")
    page.browser.press("Escape")
    page.until("/stopped/.test(document.getElementById('progress').textContent)")


def test_names_and_prompts_that_look_like_html_stay_text(page: Page) -> None:
    hostile = "<img src=x onerror='document.body.dataset.hurt=1'><script>document.body.dataset.hurt=1</script>"
    page.type("#read-text", hostile)
    page.click("#read-form button")
    page.until("document.querySelector('#split table, #split p')")
    page.click("#tab-steer")
    page.type("#steer-prompt", hostile[:60])
    page.type("#steer-n", "2")
    page.click("#steer-form button:not([type=button])")
    page.until("document.getElementById('note-random').textContent || !document.getElementById('error').hidden")
    page.click("#tab-log")
    page.until("document.querySelectorAll('.entry').length > 2")
    assert page.js("document.body.dataset.hurt") is None and page.js("document.querySelectorAll('img').length") == 0


def test_a_search_finds_latents_opens_one_and_steers_with_it(page: Page) -> None:
    page.click("#tab-features-panel")
    page.type("#search-words", "fires")
    page.click("#search-form button")
    page.until("document.querySelector('#found td button')")
    latent = page.js("document.querySelector('#found td button').textContent")
    page.click("#found td button")
    page.until("document.querySelector('#latent figure')")
    page.click("#latent .row button")
    assert page.js("document.querySelector('[aria-label=Latent]').value") == latent
    assert page.js("!document.getElementById('steer').hidden")


def test_keys_alone_reach_every_panel(page: Page) -> None:
    for key, panel in (
        ("s", "steer"),
        ("e", "edit"),
        ("b", "trace"),
        ("f", "features-panel"),
        ("l", "log"),
        ("p", "read"),
    ):
        page.js("document.getElementById('main').focus()")
        page.browser.press("g", key)
        assert page.js(f"!document.getElementById('{panel}').hidden"), panel
    page.js("document.getElementById('main').focus()")
    page.browser.press("/")
    assert page.js("document.activeElement.id") == "search-words"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 820, 390])
def test_every_panel_fits_has_contrast_and_names_its_fields(
    scheme: str, width: int, browser: Browser, served: Client
) -> None:
    page = Page(browser, served)
    page.open(scheme, width)
    page.type("#read-text", "Fog over the bay")
    page.click("#read-form button")
    page.until("document.querySelector('#split table')")
    for panel in ("read", "steer", "edit", "trace", "features-panel", "log"):
        page.click(f"#tab-{panel}")
        assert page.js("document.documentElement.scrollWidth") <= width, panel
        assert page.js(CONTRAST) >= 4.5, panel
    unnamed = page.js(
        "[...document.querySelectorAll('input, select, textarea')]"
        ".filter(e => !e.labels.length && !e.ariaLabel).map(e => e.id)"
    )
    assert unnamed == []
    small = page.js(
        "[...document.querySelectorAll('header button, form button')]"
        ".filter(e => e.offsetParent && e.offsetHeight < 44).length"
    )
    assert small == 0


def test_a_reload_in_the_middle_takes_the_job_up_again(page: Page) -> None:
    page.click("#tab-steer")
    page.type("#steer-prompt", "Fog")
    page.type("#steer-n", "60")
    page.click("#steer-form button:not([type=button])")
    page.until("document.getElementById('out-steered').childNodes.length > 1")
    page.browser.do("Page.reload")
    page.until("document.body && document.body.dataset.ready === 'yes'")
    page.until("document.getElementById('note-random').textContent")
    with steer(page.client.model, add_direction(page.client.sae.direction(0)), 2.0):
        expected = page.client.model.generate("Fog", max_new_tokens=60)
    assert page.js("document.getElementById('out-steered').textContent") == "Fog" + expected


def test_without_its_token_the_page_says_where_it_is(browser: Browser, served: Client) -> None:
    browser.do("Page.navigate", url="about:blank")
    browser.do("Page.navigate", url=f"http://localhost:{served.port}/")
    page = Page(browser, served)
    page.until("document.getElementById('error') && !document.getElementById('error').hidden")
    assert "token" in page.js("document.getElementById('error').textContent")


def test_a_graph_is_walked_pinned_grouped_and_steered_by_keys(page: Page) -> None:
    page.click("#tab-graph")
    page.type("#graph-text", "Fog over")
    page.click("#graph-form button")
    page.until("document.querySelector('svg.graph')")
    session = page.client.page.session
    graph = session.made.graphs["graph_1"]
    kept, _ = graph.prune(0.8, 0.98)
    assert page.js("document.querySelectorAll('svg.graph .node').length") == int(kept.sum())
    page.js("document.querySelector('svg.graph').focus()")
    for key in ("ArrowUp", "ArrowDown", "Enter"):
        page.browser.press(key)
    page.until("document.getElementById('graph-pins').textContent !== 'Nothing is pinned.'")
    click = "e.dispatchEvent(new MouseEvent('click', {bubbles: true}))"
    page.js(f"document.querySelectorAll('svg.graph .node.feature').forEach(e => {click})")
    page.click("#nodes-form button")
    page.until("document.querySelector('#nodes-found table')")
    assert session.entries[-1].kind == "steer_nodes"
    page.click("#group-pins")
    page.until("document.querySelector('#groups b')")
    assert page.js("document.querySelector('#groups b').textContent") == "supernode 1"
    assert page.errors == []


def test_a_map_names_the_latent_under_the_keys_and_opens_it(page: Page) -> None:
    pytest.importorskip("umap")
    page.click("#tab-features-panel")
    page.click("#draw-map")
    page.until("!document.getElementById('map-figure').hidden")
    page.js("document.getElementById('map').focus()")
    page.browser.press("ArrowRight")
    named = page.js("document.getElementById('map-at').textContent")
    assert named.startswith("Latent ")
    page.browser.press("Enter")
    page.until("document.querySelector('#latent h2')")
    assert page.js("document.querySelector('#latent h2').textContent").startswith(named.split(":")[0])
    assert page.errors == []
