"""The pages in a real browser: they load without errors, a search finds the bridge, hover and keys show the values."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from interp.common.statistics import Estimate
from interp.features import DictionaryMap, Evidence, Example, FeatureIndex, Record, SearchResult
from interp.memory import Agreement, Audit, Case, Fact
from interp.memory.evaluation.answers import Answer
from interp.show import browse, concept_page, dose_page, map_page
from interp.show.edits_page import edits_page
from interp.show.memories import NORM, Memory, memories_page
from interp.steering import DoseResponse, Names

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--window-size=1200,1600"]
# Chromium reads commands from descriptor 3 and writes answers to 4, each ended by a zero byte.
START = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)
CONTRAST = """(() => {
  const parts = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = c => { const [r, g, b] = c.slice(0, 3).map(v => (v /= 255) <= 0.04045 ? v / 12.92
    : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = e => { for (; e; e = e.parentElement) { const c = parts(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] === 1) return c; } return [255, 255, 255]; };
  const shown = [...document.querySelectorAll("h1, h2, h3, h4, p, td, th, a, label, output, summary *, li, kbd, code")];
  const drawn = [...document.querySelectorAll(".js-plotly-plot text")].filter(e => e.textContent);
  const ratio = (e, colour) => { const [a, b] = [light(parts(colour)), light(ground(e))].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05); };
  return Math.min(...shown.filter(e => e.offsetParent).map(e => ratio(e, getComputedStyle(e).color)),
    ...drawn.map(e => ratio(e, getComputedStyle(e).fill)));
})()"""


class Browser:
    """One headless chromium, spoken to in the DevTools protocol over a pipe."""

    def __init__(self, home: Path) -> None:
        assert CHROMIUM is not None
        (there, out), (inn, back) = os.pipe(), os.pipe()
        words = [sys.executable, "-c", START, str(there), str(back), CHROMIUM, *FLAGS, f"--user-data-dir={home}"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(words, pass_fds=(there, back), **quiet)
        os.close(there)
        os.close(back)
        self.out, self.inn, self.number, self.rest = out, inn, 0, b""
        self.session, self.events = None, []
        target = self.do("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.do("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.do(f"{domain}.enable")

    def do(self, method: str, **params: Any) -> dict[str, Any]:
        self.number += 1
        said = {"id": self.number, "method": method, "params": params}
        said |= {"sessionId": self.session} if self.session else {}
        os.write(self.out, json.dumps(said).encode() + b"\0")
        while (heard := self.hear()).get("id") != self.number:
            self.events.append(heard)
        assert "error" not in heard, heard
        return heard["result"]

    def hear(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            chunk = os.read(self.inn, 1 << 16)
            assert chunk, "chromium went away"
            self.rest += chunk
        one, self.rest = self.rest.split(b"\0", 1)
        return json.loads(one)

    def open(self, path: Path, scheme: str = "light", after: str = "") -> None:
        self.do("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.do("Page.navigate", url="about:blank")
        self.events.clear()
        self.do("Page.navigate", url=path.as_uri() + after)
        while self.js("document.readyState") != "complete":
            time.sleep(0.01)

    def js(self, code: str) -> Any:
        found = self.do("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def hover(self, selector: str) -> str | None:
        """The text that appears when the mouse points at an element; None where nothing does."""
        box = f"document.querySelector({json.dumps(selector)}).getBoundingClientRect()"
        self.js(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center'}})")
        self.js("new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(() => drawn(null))))")
        x, y = self.js(f"(r => [r.x + r.width / 2, r.y + r.height / 2])({box})")
        self.do("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        return self.js("tip.hidden ? null : tip.textContent")

    def press(self, *keys: str) -> None:
        codes = {
            "Enter": "\r",
            "Escape": "",
            "Tab": "",
            "ArrowRight": "",
            "ArrowDown": "",
            "ArrowUp": "",
            "ArrowLeft": "",
        }
        for key in keys:
            text = codes.get(key, key)
            self.do("Input.dispatchKeyEvent", type="keyDown", key=key, text=text, windowsVirtualKeyCode=_virtual(key))
            self.do("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=_virtual(key))

    def complaints(self) -> list[Any]:
        """Exceptions, logged errors, and anything fetched besides the page itself."""
        self.js("0")  # whatever was said before has been heard after this
        wrong = [e for e in self.events if e["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")]
        asked = [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return wrong + [url for url in asked if not url.startswith(("file:", "data:", "about:"))]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.out)
        os.close(self.inn)


def _virtual(key: str) -> int:
    arrows = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
    return ({"Enter": 13, "Escape": 27, "Tab": 9} | arrows).get(key, ord(key[0].upper()))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    opened = Browser(tmp_path_factory.mktemp("chromium"))
    yield opened
    opened.close()


def record(latent: int) -> Record:
    name = " Bridge" if latent == 7 else " fog"
    example = Example(4, ("The", " Golden", " Gate", name), (0.0, 0.0, 1.25, 2.5), 3)
    counts = torch.tensor([5, 0, 3, 1])
    evidence = Evidence(latent, (example,), counts, torch.linspace(0, 2.5, 5), 0.25, 1.5, 2.5, 24, ((" bay", 1.5),), ())
    evidence = replace(evidence, suppressed=((" tea", -2.5),))
    none = torch.zeros(16, dtype=torch.long)
    return Record(evidence, (example,), 2.5, ((name, 0.75),), 0.0, none, ((3, 0.5),))


def label(one: Record) -> str:
    return "fires on Golden Gate Bridge" if one.latent == 7 else f"fires on fog {one.latent}"


def memories(path: Path) -> Path:
    agreed = [Agreement(i, Estimate(0.1, 0.05, 0.2, 40), 0.01, 0.02, 0.001, *torch.ones(2, 40).long()) for i in (0, 1)]
    shown = [Memory(i, record(i).evidence.examples, {NORM: ((" fog", 1.5),)}, i == 7) for i in range(40)]
    return memories_page(path, "m", {NORM: agreed}, shown, 1, (56, 1234))


def edits(path: Path) -> Path:
    fact = Fact("Golden Gate Bridge", "The {} is in", "San Francisco", "Sydney")
    reply = Answer("edited", fact.text, "Sydney", " San Francisco <b>", {"rome": " Sydney, and fog"})
    row = {"efficacy said": Estimate(0.5, 0.0, 1.0, 2), "drift": Estimate(0.01, 0.0, 0.02, 2)}
    table = {name: row for name in ("unedited", "rome", "rome control")}
    said = {name: {fact.text: " fog"} for name in table}
    return edits_page(path, "Edits", "Two.", Audit(table, {"rome": {}}, said), [(Case(fact), [reply])] * 8)


@pytest.fixture(scope="module")
def pages(found: SearchResult, response: DoseResponse, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, angle = tmp_path_factory.mktemp("pages"), torch.linspace(0, 6, 40)
    index = FeatureIndex(folder, {"model": "m", "site": "resid_post.1", "tokens": 1234, "texts": 56})
    circle = torch.stack([angle.cos(), angle.sin()], 1)
    drawn = DictionaryMap(tuple(range(40)), circle, 4, Estimate(1.0, 1.0, 1.0, 40), 0.1)
    labels = {i: label(record(i)) for i in range(40)}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(FeatureIndex, "records", lambda self, latents: list(map(record, latents)))
        return {
            "latents": browse(folder / "latents.html", index, range(500), label),
            "latent": browse(folder / "latent.html", index, [7], label),
            "concept": concept_page(folder / "concept.html", found, index, label),
            "dose": dose_page(folder / "dose.html", response, "the bridge", Names(("Golden Gate",)).spans),
            "map": map_page(folder / "map.html", drawn, labels, marked=[7], page="latents.html"),
            "memories": memories(folder / "memories.html"),
            "edits": edits(folder / "edits.html"),
        }


def test_every_page_loads_without_an_error_fetches_nothing_and_can_be_read_in_light_and_dark(
    browser: Browser, pages: dict[str, Path]
) -> None:
    for path in pages.values():
        for scheme in ("light", "dark"):
            browser.open(path, scheme, "#latent-7")
            assert browser.complaints() == [] and browser.js("document.querySelector('h1').offsetHeight") > 0
            assert browser.js(CONTRAST) >= 4.5, (path, scheme)
            assert browser.js("document.documentElement.scrollWidth <= innerWidth"), path


def test_a_latent_alone_on_its_page_is_open_with_nothing_to_search(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["latent"])
    assert browser.js("document.querySelectorAll('details[open] .t').length") > 0
    assert browser.js("document.getElementById('search').offsetHeight") == 0


def test_a_closed_fold_holds_nothing_and_an_address_opens_one(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["latents"])
    assert browser.js("document.querySelectorAll('details').length") == 500
    assert browser.js("document.querySelectorAll('.t').length") == 0
    browser.open(pages["latents"], after="#latent-7")
    assert browser.js("document.querySelector('#latent-7').open")
    assert browser.js("document.querySelectorAll('.t').length") == 4


def test_memories_and_facts_open_by_address_and_are_counted_as_what_they_are(
    browser: Browser, pages: dict[str, Path]
) -> None:
    browser.open(pages["memories"], after="#memory-7")
    assert browser.js("count.textContent") == "40 memories" and browser.hover("#memory-7 .t") == "1.25"
    browser.open(pages["edits"], after="#fact-7")
    assert browser.js("count.textContent") == "8 facts"
    cells = "[...document.querySelectorAll('#fact-7 td')].map(e => e.textContent)"
    assert browser.js(cells)[1:] == ["✗  San Francisco <b>", "✓  Sydney, and fog"]


def test_a_search_finds_the_bridge_in_labels_and_in_texts_of_closed_folds(
    browser: Browser, pages: dict[str, Path]
) -> None:
    shown = "[...document.querySelectorAll('details')].filter(d => !d.hidden).map(d => d.id)"
    browser.open(pages["latents"])
    browser.press("/", *"gate bridge")
    assert browser.js("document.getElementById('search').value") == "gate bridge"
    assert browser.js(shown) == ["latent-7"] and browser.js("count.textContent") == "1 of 500 latents"
    browser.press("Enter", "Enter")
    assert browser.js("document.querySelector('#latent-7').open")
    browser.press("/", "Escape", "/", *"golden gate fog")
    assert len(browser.js(shown)) == 499


def test_pointing_at_a_token_or_a_bar_shows_its_value_and_a_key_shows_them_all(
    browser: Browser, pages: dict[str, Path]
) -> None:
    browser.open(pages["concept"], after="#latent-7")
    assert browser.hover("#latent-7 .t") == "1.25"
    assert browser.hover("#latent-7 rect") == "0 to 0.625: 5 tokens"
    assert browser.hover("h1") is None
    browser.press("v")
    written = "getComputedStyle([...document.querySelectorAll('.t')].at(-1), '::after').content"
    assert "2.5" in browser.js(written)


def test_the_map_finds_the_bridge_says_what_it_is_and_can_be_walked_by_keys(
    browser: Browser, pages: dict[str, Path]
) -> None:
    browser.open(pages["map"])
    browser.press("/", *"golden gate")
    assert browser.js("tally.textContent") == "1 of 40 latents"
    assert browser.js("[...document.querySelectorAll('circle.found')].map(c => c.dataset.latent)") == ["7"]
    assert browser.hover("circle.found") == "7: fires on Golden Gate Bridge"
    browser.js("document.querySelector('#listed button').click()")
    assert browser.js("chosen.querySelector('a').getAttribute('href')") == "latents.html#latent-7"
    browser.js("document.querySelector('svg.map').focus()")
    browser.press("ArrowRight")
    assert browser.js("chosen.textContent").startswith("6: fires on fog 6")
