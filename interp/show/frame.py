"""The frame of every page: one file, one look in light and dark, values on hover, and nothing fetched."""

from pathlib import Path
from typing import Any

from markupsafe import Markup

from hooks.disk import write_text
from hooks.errors import InvalidArgument
from interp.show.html import read_source, render


def render_page(template: str, title: str, *, head: Markup = Markup(), **values: Any) -> str:  # noqa: B008
    """A whole page from a template that extends `frame.html`; `head` is put into its head.

    Examples:
        >>> "<h1>Fog</h1>" in render_page("browse.html", "Fog", lead="Grey.", latents="")
        True
    """
    shared = {"style": read_source("style.css"), "script": read_source("frame.js")}
    return render(template, title=title, head=head, **shared, **values) + "\n"


def page_at(path: str | Path) -> Path:
    """Where a page will be written, in a folder that is there; commands ask before their work, not after it.

    Raises:
        InvalidArgument: the name does not end in `.html`.
        OSError: the folder cannot be made.
    """
    path = Path(path)
    if path.suffix != ".html":
        raise InvalidArgument(f"a report is one HTML page, but its path is {str(path)!r}: let the name end in .html")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def save_page(path: str | Path, page: str) -> Path:
    """Write a page and return where it is.

    Raises:
        InvalidArgument: the name does not end in `.html`.
        StorageFailed: it cannot be written.
    """
    path = page_at(path)
    write_text(path, page)
    return path
