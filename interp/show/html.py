"""HTML from the templates of this folder: every value that is put into one is escaped, unless it is HTML already."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from hooks.errors import InvalidArgument
from interp.show.theme import CONCEPT, rgba

TEMPLATES = Path(__file__).parent / "templates"
ENVIRONMENT = Environment(
    loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)


@dataclass(frozen=True)
class Html:
    """A piece of a page that a notebook shows as it would look in the report.

    Examples:
        >>> Html("<b>bold</b>").text
        '<b>bold</b>'
    """

    text: str

    def _repr_html_(self) -> str:
        return render("notebook.html", style=read_source("style.css"), body=Markup(self.text))


def render(template: str, **values: Any) -> Markup:
    """The HTML of a template of this folder."""
    return Markup(ENVIRONMENT.get_template(template).render(**values))


def part(name: str, *args: Any, **values: Any) -> Markup:
    """The HTML of one of the small pieces in `parts.html`, such as an interval below its value.

    Examples:
        >>> part("code", "a <b>")
        Markup('<code>a &lt;b&gt;</code>')
    """
    return getattr(_parts().module, name)(*args, **values)


@cache
def _parts() -> Template:
    return ENVIRONMENT.get_template("parts.html")


@cache
def read_source(name: str) -> Markup:
    """A style sheet or script of this folder, as it goes into a page."""
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))


def table(head: Sequence[str], rows: Iterable[Sequence[str]], emphasised: Sequence[bool] = ()) -> Markup:
    """A table of cells, text or HTML from `part`; its first column is words, the others are figures."""
    listed = [*rows]
    marks = [*emphasised, *[False] * (len(listed) - len(emphasised))]
    return part("table", head, [*zip(listed, marks, strict=False)])


def tokens(pieces: Sequence[str], values: Sequence[float], largest: float) -> Markup:
    """One line of tokens, each coloured by its value as a share of `largest`, with the value on hover.

    A token without text of its own, a later part of a character, is shown with the one before it, by the larger value.

    Raises:
        InvalidArgument: not as many values as tokens, or a `largest` that is not positive.
    """
    if len(pieces) != len(values):
        raise InvalidArgument(f"{len(pieces)} tokens were given with {len(values)} values: give one value per token")
    if not largest > 0:
        raise InvalidArgument(f"largest is {largest}: give the positive value that gets the full colour")
    joined: list[tuple[str, float]] = []
    for piece, value in zip(pieces, values, strict=True):
        if piece or not joined:
            joined.append((piece.replace("\n", "↵"), value))
        else:
            joined[-1] = joined[-1][0], max(joined[-1][1], value)
    shares = [min(value / largest, 1.0) for _, value in joined]
    colours = [rgba(CONCEPT, 0.12 + 0.88 * share) if share > 0 else "" for share in shares]
    marks = zip(joined, colours, shares, strict=True)
    return part("tokens", [(text, colour, share > 0.6, value) for (text, value), colour, share in marks])


def visible(token: str) -> str:
    """A token so that its spaces and line ends show.

    Examples:
        >>> visible(" fog")
        '·fog'
    """
    return token.replace(" ", "·").replace("\n", "↵")


def highlight(text: str, spans: Iterable[tuple[int, int]]) -> Markup:
    """Text with some character spans marked, overlapping ones as one.

    Examples:
        >>> highlight("a bridge", [(2, 8)])
        Markup('a <mark>bridge</mark>')
    """
    marks: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if marks and start < marks[-1][1]:
            marks[-1] = marks[-1][0], max(stop, marks[-1][1])
        else:
            marks.append((start, stop))
    parts, end = [], 0
    for start, stop in marks:
        parts += [(text[end:start], False), (text[start:stop], True)]
        end = stop
    return part("marked", [*parts, (text[end:], False)])
