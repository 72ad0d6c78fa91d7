"""Take the README's picture: `make demo`, then `python docs/take_picture.py`, which needs Chromium.

The top of the demonstration's page becomes docs/images/demonstration.png.
"""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REPORT = ROOT / "reports" / "golden_gate_bridge.html"
PICTURE = ROOT / "docs" / "images" / "demonstration.png"
SIZE = "1200,1000"


def main() -> None:
    """Draw the page in a headless browser and keep what a window of SIZE shows."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None or not REPORT.exists():
        sys.exit(f"this needs Chromium on the path, and {REPORT}, which `make demo` writes")
    PICTURE.parent.mkdir(exist_ok=True)
    window = [f"--window-size={SIZE}", "--hide-scrollbars", "--virtual-time-budget=8000"]
    quiet = ["--headless", "--no-sandbox", "--disable-gpu"]
    subprocess.run([browser, *quiet, *window, f"--screenshot={PICTURE}", REPORT.as_uri()], check=True)


if __name__ == "__main__":
    main()
