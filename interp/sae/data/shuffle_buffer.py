"""Batches in random order, without end, from a buffer that half empties and is filled again."""

import math
from collections.abc import Iterator
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from hooks.errors import InvalidArgument
from interp.sae.data.source import Source


@final
class ShuffleBuffer:
    """Batches of a source's rows in random order; an iterator that never ends and can be resumed.

    A source that fits into the buffer is read once and permuted in memory from then on; a longer one is read pass
    after pass: the buffer's rows are permuted, half of them served, and their places filled again. Batches hold exactly
    `batch_size` rows, fewer only where the whole source does. With `ends`, no more of the source is read than so many
    rows take, and the last of them come from a buffer that is not filled again. `state()` and `held` are all that a
    twin needs to give the same batches from here on.

    Raises:
        InvalidArgument: when read, the source is empty, or gives nothing on a second pass.

    Examples:
        ```python
        batches = ShuffleBuffer(source, buffer=131_072, batch_size=2048, generator=torch.Generator().manual_seed(0))
        x = next(batches)
        ```
    """

    def __init__(
        self, source: Source, *, buffer: int, batch_size: int, generator: torch.Generator, ends: float | int = math.inf
    ) -> None:
        self.source, self.batch_size, self.ends = source, batch_size, ends
        self.rows = max(buffer, 2 * batch_size)
        self.held = torch.empty(0)
        self.fills = 0  # how often the buffer was filled: its rows are the same while this is
        self._generator, self._before = generator, generator.get_state()
        self._chunks, self._taken = source.begin(0), 0
        self._fits = False
        self._order = torch.empty(0, dtype=torch.long)
        self._at = self._end = self._served = 0

    def __iter__(self) -> Iterator[Float[Tensor, "n *d"]]:
        return self

    def __next__(self) -> Float[Tensor, "n *d"]:
        if self._at >= self._end:
            self._turn()
        rows = self._order[self._at : self._at + self.batch_size]
        self._at += self.batch_size
        self._served += self.batch_size
        return self.held[rows]

    @property
    def taken(self) -> int:
        """How many chunks of the source's pass were read."""
        return self._taken

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "n *d"]:
        """Up to n different rows of the buffer, which keeps them."""
        return self.held[torch.randperm(len(self.held), generator=generator)[:n]]

    def state(self) -> dict[str, Any]:
        """Where it is: chunks taken, and the order of the buffer as the random state that drew it."""
        names = ("fills", "batch_size", "_taken", "_fits", "_at", "_end", "_served")
        return {name: getattr(self, name) for name in names} | {"before": self._before}

    def restore(self, state: dict[str, Any], held: Float[Tensor, "n *d"]) -> None:
        """Go on where another buffer of the same source was."""
        state = dict(state)
        self._generator.set_state(state.pop("before").cpu())
        for name, value in state.items():
            setattr(self, name, value)
        self.held = held
        self._chunks = iter(()) if self._fits else self.source.begin(self._taken)
        self._permute()

    def _turn(self) -> None:
        """Permute the buffer again, having filled the places of rows that will not be served again."""
        if not self.fills:
            self.held, more = self._fill([])
            if not len(self.held):
                raise InvalidArgument(f"the source gives no activations: {self.source.dataset}")
            self._fits, self.fills = not more, 1
            self.batch_size = min(self.batch_size, len(self.held))
        elif not self._fits:
            self.held, _ = self._fill([self.held[self._order[self._end :]]])
            self.fills += 1
        self._permute()
        whole = len(self.held) // self.batch_size
        once = whole if self._fits or self._count_left() <= len(self.held) else len(self.held) // 2 // self.batch_size
        self._at, self._end = 0, max(1, once)
        self._end *= self.batch_size

    def _permute(self) -> None:
        self._before = self._generator.get_state()
        self._order = torch.randperm(len(self.held), generator=self._generator)

    def _fill(self, parts: list[Tensor]) -> tuple[Tensor, bool]:
        """At least as many rows as the buffer holds or are wanted, if the source has so many, and whether it had."""
        count, wanted = sum(len(part) for part in parts), min(self.rows, self._count_left())
        while count < wanted and (chunk := self._chunk()) is not None:
            parts.append(chunk)
            count += len(chunk)
        return torch.cat(parts) if parts else torch.empty(0), count >= wanted

    def _count_left(self) -> float | int:
        """How many rows are still to be served, a batch at least; beyond the end there is no other."""
        left = self.ends - self._served
        return max(left, self.batch_size) if left > 0 else math.inf

    def _chunk(self) -> Tensor | None:
        """The next chunk; after the last, the first again, once the buffer has been filled."""
        chunk = next(self._chunks, None)
        if chunk is None and self.fills:
            self._chunks, self._taken = self.source.begin(0), 0
            chunk = next(self._chunks, None)
            if chunk is None:
                raise InvalidArgument(
                    f"the source gives nothing when read again: {self.source.dataset}. "
                    "Make it from something that can be iterated more than once, such as a list"
                )
        self._taken += chunk is not None
        return chunk
