"""Where training activations come from: a live model read again on each pass, or a tensor already in memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Activations, Model, Site, stream
from hooks.capture import Data


@final
@dataclass(frozen=True)
class Source:
    """Batches of activations at one site, the same on each pass, with where they come from.

    `batches` begins a pass. Iterating over a source does the same.

    Example:
        ```python
        for x in activations_of(model, texts, resid_post[4]):
            x.shape                       # n d_model
        ```
    """

    batches: Callable[[], Iterator[Float[Tensor, "n d_model"]]]
    dataset: str
    site: Site | None = None
    model_name: str | None = None
    fingerprint: str | None = None

    def __iter__(self) -> Iterator[Float[Tensor, "n d_model"]]:
        return self.batches()


def activations_of(model: Model, data: Data, site: Site, *, batch_size: int = 32) -> Source:
    """The activations of a model at one site over texts, as a source that runs the model anew on each pass.

    BOS, other special tokens and padding are left out. `data` is whatever `capture` takes: a text, texts, token ids
    or a dataset with a column "text" or "input_ids". Sites with heads are flattened to one axis. Costs, for each
    pass, one forward pass per batch up to the site; memory for one batch.

    Raises:
        ValueError: while read, an activation that is NaN or infinite, with its batch, text and token named.

    Example:
        ```python
        train(TopK(model.d_model, 2048, k=32), activations_of(model, texts, resid_post[4]))
        ```
    """

    def batches() -> Iterator[Tensor]:
        for number, acts in enumerate(stream(model, data, [site], batch_size=batch_size)):
            rows = acts.flat(site).flatten(1)
            if not bool(rows.isfinite().all()):
                raise ValueError(_where(model, acts, site, number))
            yield rows

    return Source(batches, _described(data), site, model.name, model.fingerprint)


def _where(model: Model, acts: Activations, site: Site, batch: int) -> str:
    """Which text and token of a batch is the first that is not finite."""
    bad = ~acts[site].flatten(2).isfinite().all(2) & acts.tokens.content
    text, pos = (int(i) for i in bad.nonzero()[0])
    token = int(acts.tokens.ids[text, pos])
    shown = repr(model.tokenizer.decode([token])) if model.tokenizer is not None else f"id {token}"
    return (
        f"NaN or infinity at {site} in batch {batch}, text {text} of the batch, token {pos} ({shown}): "
        "load the model in float32, or leave this text out."
    )


def stored(x: Float[Tensor, "n d_model"], *, site: Site | None = None, dataset: str = "stored activations") -> Source:
    """Activations already in memory, as a source.

    Raises:
        ValueError: no rows, or a row that holds NaN or infinity.

    Example:
        >>> len(list(stored(torch.zeros(10, 4))))
        1
    """
    at = f" at {site}" if site else ""
    if not len(x):
        raise ValueError(f"There are no activations{at}: x has 0 rows.")
    if not bool(x.isfinite().all()):
        row = int((~x.isfinite()).any(1).nonzero()[0])
        raise ValueError(f"Activations{at} hold NaN or infinity, first in row {row}.")
    return Source(lambda: iter(x.split(8192)), dataset, site)


def shuffled(
    source: Source, *, buffer: int, batch_size: int, generator: torch.Generator
) -> Iterator[Float[Tensor, "n d_model"]]:
    """Batches in random order, without end: rows are drawn from a buffer that half empties and is filled again.

    A source that fits into the buffer is read once and permuted in memory from then on; a longer one is read pass
    after pass. Batches hold exactly `batch_size` rows, fewer only where the whole source does.

    Raises:
        ValueError: the source is empty, or gives nothing on a second pass.

    Example:
        ```python
        batches = shuffled(source, buffer=131_072, batch_size=2048, generator=torch.Generator().manual_seed(0))
        x = next(batches)
        ```
    """
    chunks = iter(source)
    held, more = _filled([], chunks, max(buffer, 2 * batch_size))
    if not len(held):
        raise ValueError(f"The source gives no activations: {source.dataset}.")
    if not more:
        yield from _permuted(held, min(batch_size, len(held)), generator)
    chunks = chain(chunks, _again(source))
    while True:
        order = torch.randperm(len(held), generator=generator)
        served = max(1, len(held) // 2 // batch_size) * batch_size
        yield from (held[rows] for rows in order[:served].split(batch_size))
        held, _ = _filled([held[order[served:]]], chunks, max(buffer, 2 * batch_size))


def _filled(parts: list[Tensor], chunks: Iterator[Tensor], rows: int) -> tuple[Tensor, bool]:
    """At least `rows` rows if the chunks hold so many, and whether they did."""
    count = sum(len(part) for part in parts)
    for chunk in chunks:
        parts.append(chunk)
        count += len(chunk)
        if count >= rows:
            return torch.cat(parts), True
    return torch.cat(parts) if parts else torch.empty(0), False


def _permuted(held: Tensor, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    while True:
        order = torch.randperm(len(held), generator=generator)
        whole = len(held) // batch_size * batch_size
        yield from (held[rows] for rows in order[:whole].split(batch_size))


def _again(source: Source) -> Iterator[Tensor]:
    while True:
        empty = True
        for chunk in source:
            empty = False
            yield chunk
        if empty:
            raise ValueError(
                f"The source gives nothing when read again: {source.dataset}. "
                "Make it from something that can be iterated more than once, such as a list."
            )


def _described(data: Data) -> str:
    if isinstance(data, str):
        return "one text"
    columns = getattr(data, "column_names", None)
    size = f"{len(data)} " if hasattr(data, "__len__") else ""
    return f"{size}rows of a dataset" if columns else f"{size}texts"
