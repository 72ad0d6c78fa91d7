"""What a result rests on where nothing is said is what docs/defaults.md says."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from interp.memory import Search

ROOT = Path(__file__).resolve().parents[2]
WRITTEN = (ROOT / "docs" / "defaults.md").read_text("utf-8")


def _writer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_defaults", ROOT / "docs" / "write_defaults.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WRITER = _writer()


@pytest.mark.parametrize("package", WRITER.CORES)
def test_the_numbers_used_by_default_are_those_of_the_page(package: str) -> None:
    section = WRITTEN.split(f"## `{package}`\n")[1].split("\n## ")[0]
    written = [line for line in section.splitlines() if line.startswith("| `")]
    assert [*WRITER.rows(package)] == written, "run `python docs/write_defaults.py` and read what changed"


def test_a_default_or_constant_that_changes_is_seen() -> None:
    import hooks.statistics as statistics

    def drawn(draws: int = 500, exact: bool = False, name: str = "a", of: tuple[float, ...] = (0.5,)) -> None: ...

    assert WRITER.defaults_of(drawn) == {"draws": "500", "exact": "False", "of": "(0.5,)"}
    assert WRITER.text_of(Search(steps=7)).startswith("Search(steps=7, ") and WRITER.is_setting(Search())
    assert any("`Z=1.95" in row for row in WRITER.rows("hooks"))
    before = statistics.Z
    try:
        statistics.Z = 2.0
        assert any("`Z=2.0`" in row for row in WRITER.rows("hooks"))
    finally:
        statistics.Z = before
