"""The frame of every page: one file, one look in light and dark, values on hover, and nothing fetched."""

from pathlib import Path

from hooks.errors import InvalidArgument
from interp.show.html import STYLE, escape

SCRIPT = (Path(__file__).parent / "frame.js").read_text(encoding="utf-8")


def framed(title: str, body: str, head: str = "") -> str:
    """A whole page around a body that is already HTML; `head` is put into its head.

    >>> framed("Fog", "<p>Grey.</p>").count("<p>Grey.</p>")
    1
    """
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
{head}
</head>
<body class="interp">
<main>
<h1>{escape(title)}</h1>
{body}
</main>
<script>{SCRIPT}</script>
</body>
</html>
"""


def page_at(path: str | Path) -> Path:
    """Where a page will be written, in a folder that is there; commands ask before their work, not after it.

    Errors: `ValueError` when the name does not end in `.html`, `OSError` when the folder cannot be made.
    """
    path = Path(path)
    if path.suffix != ".html":
        raise InvalidArgument(f"a report is one HTML page, but its path is {str(path)!r}: let the name end in .html")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def saved(path: str | Path, page: str) -> Path:
    """Write a page and return where it is.

    Errors: as `page_at`.
    """
    path = page_at(path)
    path.write_text(page, encoding="utf-8")
    return path
