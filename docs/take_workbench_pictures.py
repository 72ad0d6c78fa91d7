"""Take the README's strip of the workbench: `python docs/take_workbench_pictures.py`, which needs Chromium and Pillow.

It opens the page on the bundled model with the dictionary that `make workbench` keeps, reads, steers, previews an edit
and traces, and puts what is seen next to each other in docs/images/workbench.png.
"""

import base64
import io
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from hooks import load  # noqa: E402
from interp.features import FeatureIndex  # noqa: E402
from interp.sae import load as load_sae  # noqa: E402
from interp.workbench import Workbench  # noqa: E402
from interp.workbench import open as open_workbench  # noqa: E402
from tests.interp.show.test_browser import Browser  # noqa: E402

KEPT = ROOT / "build" / "workbench"
PICTURE = ROOT / "docs" / "images" / "workbench.png"
WIDTH, HEIGHT, SHOWN = 1000, 820, 760
STEPS = (  # a panel, what is pressed there, and what is there when it is done
    ("read", "#read-form button", "#split table"),
    ("steer", "#steer-form button:not([type=button])", "#note-random:not(:empty)"),
    ("edit", "#edit-form button", "#preview table"),
    ("trace", "#trace-form button", "#heat table"),
)


def main() -> None:
    """Open the page, take a picture of each panel, and join them."""
    if not (KEPT / "sae").is_dir():
        sys.exit(f"there is no dictionary in {KEPT}: run `make workbench` once")
    saes, indexes = {"main": load_sae(KEPT / "sae")}, {"main": FeatureIndex.open(KEPT / "index")}
    page = open_workbench(load("landmark"), saes=saes, indexes=indexes)
    try:
        pictures = [Image.open(io.BytesIO(one)) for one in taken(page)]
    finally:
        page.close()
    small = [one.resize((SHOWN, round(one.height * SHOWN / one.width)), Image.Resampling.LANCZOS) for one in pictures]
    strip = Image.new("RGB", (2 * SHOWN + 12, 2 * small[0].height + 12), "white")
    for i, one in enumerate(small):
        strip.paste(one, (i % 2 * (SHOWN + 12), i // 2 * (one.height + 12)))
    PICTURE.parent.mkdir(exist_ok=True)
    strip.quantize(96).save(PICTURE, optimize=True)


def taken(page: Workbench) -> list[bytes]:
    """The panels, each after its action ended."""
    browser, found = Browser(Path(tempfile.mkdtemp())), []
    try:
        browser.do("Emulation.setDeviceMetricsOverride", width=WIDTH, height=HEIGHT, deviceScaleFactor=1, mobile=False)
        browser.do("Page.navigate", url=page.url)
        wait(browser, "document.body && document.body.dataset.ready === 'yes'")
        browser.js("document.querySelector('[aria-label=Latent]').value = 2")
        for panel, pressed, there in STEPS:
            browser.js(f"document.querySelector('#tab-{panel}').click()")
            browser.js(f"document.querySelector('{pressed}').click()")
            wait(browser, f"document.querySelector('{there}')")
            found.append(base64.b64decode(browser.do("Page.captureScreenshot", format="png")["data"]))
    finally:
        browser.process.kill()
    return found


def wait(browser: Browser, condition: str) -> None:
    """Wait until something is so on the page."""
    for _ in range(1200):
        if browser.js(f"!!({condition})"):
            return
        time.sleep(0.1)
    sys.exit(f"never: {condition}")


if __name__ == "__main__":
    main()
