"""How results print: a few lines that fit a terminal, whatever tensors and lists they hold."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from textwrap import wrap
from typing import Final

import numpy as np
from torch import Tensor, nn

LINES: Final = 8
WIDTH: Final = 110
LONGEST: Final = 60  # of one value


def summarise(self: object) -> str:
    """Return a result as text of at most `LINES` lines: what it prints, or its fields in short.

    A class of results takes it as its `__repr__`. A tensor is shown by type and shape, a long list by its length.

    Examples:
        >>> from dataclasses import dataclass
        >>> import torch
        >>> @dataclass
        ... class Score:
        ...     name: str
        ...     scores: Tensor
        ...     __repr__ = summarise
        >>> Score("fog", torch.zeros(3, 4))
        Score(name='fog', scores=float32[3, 4])
    """
    name = type(self).__name__
    if type(self).__str__ is not object.__str__:
        lines = f"{name}: {self}".splitlines()
        return _cut_lines([part for line in lines for part in (_wrap(line) if len(line) > WIDTH else [line])])
    shown = [f"{one.name}={_short(getattr(self, one.name))}" for one in fields(self) if one.repr]  # pyright: ignore[reportArgumentType]
    return _cut_lines(_wrap(f"{name}({', '.join(shown)})"))


def _wrap(line: str) -> list[str]:
    return wrap(line, WIDTH, subsequent_indent="    ", break_on_hyphens=False)


def _cut_lines(lines: list[str]) -> str:
    """The first lines, and how many there are more."""
    more = len(lines) - LINES
    return "\n".join(lines if more <= 0 else [*lines[: LINES - 1], f"… and {more + 1} more lines"])


def _short(value: object) -> str:
    """A value of a field in at most `LONGEST` characters."""
    if isinstance(value, Tensor | np.ndarray):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}" if value.ndim else f"{value.item():.4g}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, nn.Module):
        return f"{type(value).__name__}(…)"
    if isinstance(value, Mapping | Sequence | set | frozenset) and not isinstance(value, str):
        return _of_several(value)
    if isinstance(value, Callable) and not is_dataclass(value):
        return getattr(value, "__name__", type(value).__name__)
    text = " ".join(repr(value).split())
    if len(text) <= LONGEST:
        return text
    return f"{text[: LONGEST - 2]}…{text[0]}" if isinstance(value, str) else f"{type(value).__name__}(…)"


def _of_several(value: Mapping | Sequence | set | frozenset) -> str:
    """A short list as it is, a longer one by how many it holds."""
    if len(value) <= 4:
        items = [f"{key!r}: {_short(one)}" for key, one in value.items()] if isinstance(value, Mapping) else None
        ends = "{}" if items is not None or isinstance(value, set | frozenset) else "()"
        text = ends[0] + ", ".join(items if items is not None else map(_short, value)) + ends[1]
        if len(text) <= LONGEST:
            return text
    return f"{len(value)} {'entries' if isinstance(value, Mapping) else 'items'}"
