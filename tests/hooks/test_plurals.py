"""Numbers of things are written in one way."""

import re
from pathlib import Path

from hooks.plurals import count_of

ROOT = Path(__file__).resolve().parents[2]


def test_one_is_singular_and_no_text_of_ours_makes_a_plural_of_its_own() -> None:
    assert [count_of(n, "fact") for n in (0, 1, 2000)] == ["0 facts", "1 fact", "2,000 facts"]
    files = [path for name in ("hooks", "probes", "interp") for path in (ROOT / name).rglob("*.py")]
    own = re.compile(r"""[{]['"]s['"] (?:\*|if)""")
    assert [path.name for path in files if own.search(path.read_text("utf-8"))] == []
