"""Where training activations come from: a live model read again on each pass, or a tensor already in memory."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Activations, Model, Site, stream
from hooks.capture import Data
from interp.sae.normalisation import Normalisation


@final
@dataclass(frozen=True)
class Source:
    """Batches of activations, the same on each pass, with where they come from.

    `batches` begins a pass. Iterating over a source does the same. `sites` are the places a row covers, in order.
    Where there are several models, `model_name` and `fingerprint` hold one part for each place.

    Example:
        ```python
        for x in activations_of(model, texts, resid_post[4]):
            x.shape                       # n d_model
        ```
    """

    batches: Callable[[], Iterator[Float[Tensor, "n *d"]]]
    dataset: str
    sites: tuple[Site, ...] = ()
    model_name: str | None = None
    fingerprint: str | None = None
    normalisation: Normalisation | None = None

    def __iter__(self) -> Iterator[Float[Tensor, "n *d"]]:
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
        return (rows for _, (rows,) in _rows(model, data, [site], batch_size))

    return Source(batches, _described(data), (site,), model.name, model.fingerprint)


def pairs_of(model: Model, data: Data, reads: Site, writes: Site, *, batch_size: int = 32) -> Source:
    """What a transcoder is trained on: the activations of two sites of the same tokens, side by side in each row.

    Costs and errors as for `activations_of`.

    Example:
        ```python
        train(Transcoder(model.d_model, 4096), pairs_of(model, texts, mlp_in[3], mlp_out[3]))
        ```
    """

    def batches() -> Iterator[Tensor]:
        return (torch.cat(pair, dim=1) for _, pair in _rows(model, data, [reads, writes], batch_size))

    return Source(batches, _described(data), (reads, writes), model.name, model.fingerprint)


def across(places: Sequence[tuple[Model, Site]], data: Data, *, batch_size: int = 32) -> Source:
    """What a crosscoder is trained on: the activations of several places for the same tokens, `[n layer d_model]`.

    A place is a model and a site of it: several sites of one model, or a site of several models that read text
    alike. Costs one forward pass of each model per batch, up to its last site; errors as for `activations_of`.

    Raises:
        ValueError: no places; while read, models that do not make the same tokens of a text, or places of other widths.

    Example:
        ```python
        source = across([(model, resid_post[3]), (model, resid_post[4])], texts)
        next(iter(source)).shape              # n, 2, d_model
        ```
    """
    if not places:
        raise ValueError("across was given no places: give at least one (model, site).")
    models = list({id(model): model for model, _ in places}.values())
    sites = {id(model): [site for other, site in places if other is model] for model in models}

    def batches() -> Iterator[Tensor]:
        passes = [_rows(model, data, sites[id(model)], batch_size) for model in models]
        for parts in zip(*passes, strict=True):
            if any(not torch.equal(ids, parts[0][0]) for ids, _ in parts):
                raise ValueError("The models of a crosscoder need the same tokens, and theirs differ: give token ids.")
            found = {id(model): iter(rows) for model, (_, rows) in zip(models, parts, strict=True)}
            rows = [next(found[id(model)]) for model, _ in places]
            if len({part.shape for part in rows}) > 1:
                widths = ", ".join(f"{m.name} {s}: {p.shape[1]}" for (m, s), p in zip(places, rows, strict=True))
                raise ValueError(f"Places of a crosscoder need one width; these have {widths}.")
            yield torch.stack(rows, dim=1)

    single = len(models) == 1
    name = models[0].name if single else " and ".join(model.name for model, _ in places)
    prints = models[0].fingerprint if single else " ".join(model.fingerprint for model, _ in places)
    return Source(batches, _described(data), tuple(site for _, site in places), name, prints)


def normalised(source: Source, normalisation: Normalisation) -> Source:
    """The same activations, normalised; what is trained on them is read as it is by `folded`, and saved so.

    Example:
        ```python
        train(sae, normalised(source, expected_norm(source)))
        folded(sae).encode(x)                 # x as the model has it
        ```
    """
    return replace(
        source, batches=lambda: (normalisation(rows) for rows in source.batches()), normalisation=normalisation
    )


def _rows(model: Model, data: Data, sites: list[Site], batch_size: int) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Batch by batch, the ids of its content tokens and their rows at each site, checked to be finite."""
    wanted = list(dict.fromkeys(sites))
    for number, acts in enumerate(stream(model, data, wanted, batch_size=batch_size)):
        rows = {site: acts.flat(site).flatten(1) for site in wanted}
        for site, part in rows.items():
            if not bool(part.isfinite().all()):
                raise ValueError(_where(model, acts, site, number))
        yield acts.tokens.ids[acts.tokens.content], [rows[site] for site in sites]


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


def stored(x: Float[Tensor, "n *d"], *, site: Site | None = None, dataset: str = "stored activations") -> Source:
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
        row = int((~x.isfinite()).flatten(1).any(1).nonzero()[0])
        raise ValueError(f"Activations{at} hold NaN or infinity, first in row {row}.")
    return Source(lambda: iter(x.split(8192)), dataset, () if site is None else (site,))


def shuffled(
    source: Source, *, buffer: int, batch_size: int, generator: torch.Generator
) -> Iterator[Float[Tensor, "n *d"]]:
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
