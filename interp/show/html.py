"""Pieces of HTML: text made safe, tables, and tokens coloured by a value."""

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hooks.errors import InvalidArgument
from interp.show.theme import CONCEPT, rgba

STYLE = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Html:
    """A piece of a page that a notebook shows as it would look in the report.

    >>> Html("<b>bold</b>").text
    '<b>bold</b>'
    """

    text: str

    def _repr_html_(self) -> str:
        return f'<style>{STYLE}</style><div class="interp">{self.text}</div>'


def escape(text: str) -> str:
    """Text that a browser shows as it is.

    >>> escape("<s> & </s>")
    '&lt;s&gt; &amp; &lt;/s&gt;'
    """
    return html.escape(text, quote=True)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], emphasised: Sequence[bool] = ()) -> str:
    """A table of cells that are already HTML; its first column is words, the others are figures."""
    header = "".join(f"<th>{cell}</th>" for cell in head)
    lines = []
    for i, row in enumerate(rows):
        mark = ' class="strong"' if i < len(emphasised) and emphasised[i] else ""
        lines.append(f"<tr{mark}>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>")
    return f'<div class="wide"><table><thead><tr>{header}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def tokens(pieces: Sequence[str], values: Sequence[float], largest: float) -> str:
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
            joined.append((piece, value))
        else:
            joined[-1] = joined[-1][0], max(joined[-1][1], value)
    return "".join(_token(piece, value, value / largest) for piece, value in joined)


def _token(piece: str, value: float, share: float) -> str:
    shown = escape(piece.replace("\n", "↵"))
    if share <= 0:
        return f"<span>{shown}</span>"
    share = min(share, 1.0)
    ink = ";color:#fff" if share > 0.6 else ""
    colour = rgba(CONCEPT, 0.12 + 0.88 * share)
    return f'<span class="t" style="background:{colour}{ink}" title="{value:.3g}">{shown}</span>'


def highlighted(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """Text with some character spans marked, overlapping ones as one.

    >>> highlighted("a bridge", [(2, 8)])
    'a <mark>bridge</mark>'
    """
    marks: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if marks and start < marks[-1][1]:
            marks[-1] = marks[-1][0], max(stop, marks[-1][1])
        else:
            marks.append((start, stop))
    parts, end = [], 0
    for start, stop in marks:
        parts += [escape(text[end:start]), f"<mark>{escape(text[start:stop])}</mark>"]
        end = stop
    return "".join([*parts, escape(text[end:])])
