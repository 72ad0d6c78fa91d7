"""Every page of how-to runs as it is written, in an empty folder; blocks after a line that says `not run` aside."""

import re
from pathlib import Path

import pytest

from tests import shapes

PAGES = sorted((Path(__file__).resolve().parents[1] / "docs" / "how_to").glob("*.md"))


def blocks(text: str) -> list[str]:
    """The page's Python blocks that are to be run."""
    found = re.findall(r"(<!-- not run[^>]*-->\s*)?^```python\n(.*?)^```", text, flags=re.M | re.S)
    return [code for skipped, code in found if not skipped]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page.read_text("utf-8"))], ids=lambda page: page.stem
)
def test_the_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    with shapes.unchecked():
        for code in blocks(page.read_text("utf-8")):
            exec(compile(code, str(page), "exec"), names)


def test_every_page_is_in_the_index() -> None:
    index = (PAGES[0].parent / "index.md").read_text("utf-8")
    assert {f"({page.name})" for page in PAGES if page.stem != "index"} == set(re.findall(r"\(\w+\.md\)", index))
