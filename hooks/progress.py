"""One progress bar for all that takes long: on stderr, from the second second on."""

from collections.abc import Iterable
from threading import RLock
from typing import NoReturn, TypeAlias, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
ProgressBar: TypeAlias = "tqdm[NoReturn]"
"""A bar over nothing, which is updated by hand."""

DELAY = 2.0
"""Seconds before a bar is shown: what takes less shows none."""


class _Bar(tqdm):
    """It starts no thread of its own, and a process killed while it writes keeps no lock of other processes."""

    monitor_interval = 0


_Bar.set_lock(RLock())


def progress_bar(
    items: Iterable[Item] | None = None,
    desc: str | None = None,
    *,
    progress: bool,
    total: int | None = None,
    initial: int = 0,
    unit: str = "it",
    unit_scale: bool = False,
) -> "tqdm[Item]":
    """A bar over these items, or one to `update` by hand; none where `progress` is false.

    Examples:
        >>> [2 * x for x in progress_bar(range(3), "doubling", progress=True)]
        [0, 2, 4]
    """
    return _Bar(
        items,
        desc,
        total,
        disable=not progress,
        initial=initial,
        unit=unit,
        unit_scale=unit_scale,
        delay=DELAY,
    )
