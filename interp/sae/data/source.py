"""Where training activations come from: a live model read again on each pass, or a tensor already in memory."""

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Activations, Images, Model, Position, Site, stream
from hooks.border import Count, Positive
from hooks.capture import Data
from hooks.errors import InvalidArgument
from hooks.fingerprint import fingerprint
from hooks.network import AnyModel
from hooks.pieces import piece
from hooks.position import everywhere
from hooks.site import check_one_width
from hooks.summary import summarise
from interp.common.digests import StreamDigest, digest_of_data, digest_of_tensors, is_stream
from interp.sae.data.normalisation import Normalisation


@final
@dataclass(frozen=True)
class Source:
    """Batches of activations, the same on each pass, with where they come from.

    `batches` begins a pass. Iterating over a source does the same. `sites` are the places a row covers, in order, and
    `widths` how many columns each has, where they are side by side. Where there are several models, `model_name` and
    `fingerprint` hold one part for each place. `every` gives batches start, start + step, ... of a pass, where they
    can be had without making the others: to go on in the middle, or to share a pass among processes. `digest`
    identifies its data and the weights of its model, and `batch_size` says how they are cut, for a checkpoint to
    compare. `texts` is how many texts are read, where that is known. Of a stream `read` gives the digest of what its
    first n batches read, which is compared when a run goes on. `check_unchanged` raises while a block of interventions
    is open on a model that is read.

    Examples:
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
    widths: tuple[int, ...] = ()
    every: Callable[[int, int], Iterator[Float[Tensor, "n *d"]]] | None = None
    digest: Callable[[], str | None] | None = None
    batch_size: int | None = None
    texts: int | None = None
    read: Callable[[int], str] | None = None
    check_unchanged: Callable[[], None] | None = None
    changed_by: Callable[[], tuple[str, ...]] = tuple

    __repr__ = summarise

    def __iter__(self) -> Iterator[Float[Tensor, "n *d"]]:
        return self.batches()

    @property
    def data(self) -> str:
        """What the activations are of now: the data set, and what changes a pass besides the weights."""
        return "; changed by ".join([self.dataset, *self.changed_by()])

    def begin(self, start: int) -> Iterator[Float[Tensor, "n *d"]]:
        """The batches of a pass from number `start` on."""
        if self.every is not None and start:
            return self.every(start, 1)
        return islice(self.batches(), start, None)


def activations_of(
    model: AnyModel, data: Data, site: Site, *, at: Position = everywhere, batch_size: Count = 32
) -> Source:
    """The activations of a model at one site over texts, as a source that runs the model again on each pass.

    BOS, other special tokens, a ViT's class token and padding are left out, and what `at` does not select; a text
    longer than the context is read in rows that fit it, with a warning that says how many were. `data` is whatever
    `capture` takes: a text, texts, token ids, pictures, or a dataset with a column "text", "input_ids" or of pictures.
    Sites with heads are flattened to one axis. Costs, for each pass, one forward pass per batch up to the site; memory
    for one batch.

    Raises:
        InvalidArgument: while read, an activation that is NaN or infinite, with its batch, text and token named.

    Examples:
        ```python
        train(TopK(model.d_model, 2048, k=32), activations_of(model, texts, resid_post[4]))
        ```
    """
    return activations_at(model, data, [site], at=at, batch_size=batch_size)


def activations_at(
    model: AnyModel, data: Data, sites: Sequence[Site], *, at: Position = everywhere, batch_size: Count = 32
) -> Source:
    """The activations of several sites of the same tokens, side by side in each row: one pass for many autoencoders.

    Costs and errors as for `activations_of`, for all the sites together.

    Examples:
        ```python
        source = activations_at(model, texts, [resid_post[3], resid_post[4]])
        members = {str(site): Member(TopK(model.d_model, 2048, k=32), site) for site in source.sites}
        train_many(members, source)
        ```
    """
    sites = [model.tap(site).site for site in sites]
    check_one_width(sites)

    def every(start: int, step: int) -> Iterator[Tensor]:
        found = _rows(model, data, sites, batch_size, start, step, at)
        return (rows[0] if len(rows) == 1 else torch.cat(rows, dim=1) for _, rows in found)

    widths = tuple(math.prod(model.tap(site).shape) for site in sites)
    about = (_describe(data), tuple(sites), model.name, fingerprint(model.hf))
    return Source(
        lambda: every(0, 1),
        *about,
        widths=widths,
        every=every,
        **_name_data([model], data, batch_size, at),
    )


def pairs_of(model: Model, data: Data, reads: Site, writes: Site, *, batch_size: Count = 32) -> Source:
    """What a transcoder is trained on: the activations of two sites of the same tokens, side by side in each row.

    Costs and errors as for `activations_of`.

    Examples:
        ```python
        train(Transcoder(model.d_model, 4096), pairs_of(model, texts, mlp_in[3], mlp_out[3]))
        ```
    """
    return activations_at(model, data, [reads, writes], batch_size=batch_size)


def across(places: Sequence[tuple[Model, Site]], data: Data, *, batch_size: Count = 32) -> Source:
    """What a crosscoder is trained on: the activations of several places for the same tokens, `[n layer d_model]`.

    A place is a model and a site of it: several sites of one model, or a site of several models that read text
    alike. Costs one forward pass of each model per batch, up to its last site; errors as for `activations_of`.

    Raises:
        InvalidArgument: no places; while read, models that do not make the same tokens of a text, or places of other
            widths.

    Examples:
        ```python
        source = across([(model, resid_post[3]), (model, resid_post[4])], texts)
        next(iter(source)).shape              # n, 2, d_model
        ```
    """
    if not places:
        raise InvalidArgument("across was given no places: give at least one (model, site)")
    places = [(model, model.tap(site).site) for model, site in places]
    check_one_width(site for _, site in places)
    models = list({id(model): model for model, _ in places}.values())
    sites = {id(model): [site for other, site in places if other is model] for model in models}

    def every(start: int, step: int) -> Iterator[Tensor]:
        passes = [_rows(model, data, sites[id(model)], batch_size, start, step) for model in models]
        for parts in zip(*passes, strict=True):
            if any(not torch.equal(ids, parts[0][0]) for ids, _ in parts):
                raise InvalidArgument(
                    "the models of a crosscoder need the same tokens, and theirs differ: give token ids"
                )
            found = {id(model): iter(rows) for model, (_, rows) in zip(models, parts, strict=True)}
            rows = [next(found[id(model)]) for model, _ in places]
            if len({part.shape for part in rows}) > 1:
                widths = ", ".join(f"{m.name} {s}: {p.shape[1]}" for (m, s), p in zip(places, rows, strict=True))
                raise InvalidArgument(f"places of a crosscoder need one width; these have {widths}")
            yield torch.stack(rows, dim=1)

    single = len(models) == 1
    name = models[0].name if single else " and ".join(model.name for model, _ in places)
    prints = {id(model): fingerprint(model.hf) for model in models}
    made_of = prints[id(models[0])] if single else " ".join(prints[id(model)] for model, _ in places)
    about = (_describe(data), tuple(site for _, site in places), name, made_of)
    return Source(lambda: every(0, 1), *about, every=every, **_name_data(models, data, batch_size))


def normalise_source(source: Source, normalisation: Normalisation) -> Source:
    """The same activations, normalised; what is trained on them is read as it is by `fold_normalisation`, and saved so.

    Examples:
        ```python
        train(sae, normalise_source(source, expected_norm(source)))
        fold_normalisation(sae).encode(x)                 # x as the model has it
        ```
    """
    every = source.every
    return replace(
        source,
        batches=lambda: (normalisation(rows) for rows in source.batches()),
        every=every and (lambda start, step: (normalisation(rows) for rows in every(start, step))),
        normalisation=normalisation,
    )


def drop_registers(source: Source, *, times: Positive = 4.0) -> Source:
    """The same activations without rows that are much longer than most: a ViT's registers, a text's sinks.

    Left out is a row whose norm is more than `times` the median norm of the first batch. A few patches of nothing,
    which a ViT uses as registers (Darcet et al. 2023, arXiv:2309.16588), would otherwise take latents of their own.

    Examples:
        >>> kept = drop_registers(tensor_source(torch.tensor([[1.0], [2.0], [90.0]])), times=4)
        >>> next(iter(kept)).flatten().tolist()
        [1.0, 2.0]
    """
    every, digest, held = source.every, source.digest, list[float]()

    def kept(rows: Float[Tensor, "n *d"]) -> Float[Tensor, "_ *d"]:
        if not held:
            held.append(times * float(next(iter(source)).flatten(1).norm(dim=1).median()))
        return rows[rows.flatten(1).norm(dim=1) <= held[0]]

    return replace(
        source,
        batches=lambda: (kept(rows) for rows in source.batches()),
        every=every and (lambda start, step: (kept(rows) for rows in every(start, step))),
        digest=digest and (lambda: f"{digest()} without rows longer than {times} times the median"),
    )


def _rows(
    model: AnyModel,
    data: Data,
    sites: list[Site],
    batch_size: int,
    start: int,
    step: int,
    at: Position = everywhere,
) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """For every step-th batch, the ids of its content tokens and their rows at each site, checked to be finite."""
    wanted = list(dict.fromkeys(sites))
    chosen, skipped = _every(data, batch_size, start, step)
    passing = islice(stream(model, chosen, wanted, batch_size=batch_size), *skipped)
    for number, acts in zip(count(start, step), passing, strict=False):
        rows = {site: acts.flat(site, at).flatten(1) for site in wanted}
        if len({len(part) for part in rows.values()}) > 1:
            counts = ", ".join(f"{site}: {len(part)}" for site, part in rows.items())
            raise InvalidArgument(
                f"the sites have other places in a picture, so their rows do not go together ({counts})"
            )
        for site, part in rows.items():
            if not bool(part.isfinite().all()):
                raise InvalidArgument(_where(model, acts, site, number))
        yield acts.tokens.ids[acts.tokens.content], [rows[site] for site in sites]


def _every(data: Data, batch_size: int, start: int, step: int) -> tuple[Data, tuple[int, int | None, int]]:
    """What `stream` is to read so as to make every step-th batch, and which of its batches to take of that."""
    datasets = sys.modules.get("datasets")
    if (start, step) == (0, 1):
        return data, (0, None, 1)
    if datasets is not None and isinstance(data, datasets.IterableDataset):
        kept = data.filter(lambda _, i: i // batch_size >= start and not (i // batch_size - start) % step, True)
        return kept, (0, None, 1)
    indexed = datasets is not None and isinstance(data, datasets.Dataset)
    block = isinstance(data, Tensor) and data.ndim > 1  # a row for each text, or a picture
    if not (indexed or block) and (isinstance(data, str) or not isinstance(data, Sequence)):
        return data, (start, None, step)  # one block of tokens: all of it is read
    firsts = range(start * batch_size, len(data), step * batch_size)
    places = [i for first in firsts for i in range(first, min(first + batch_size, len(data)))]
    if not places:
        return data, (0, 0, 1)
    chosen: Any = data
    if indexed:
        return chosen.select(places), (0, None, 1)
    return (chosen[places] if block else [chosen[i] for i in places]), (0, None, 1)


def _where(model: AnyModel, acts: Activations, site: Site, batch: int) -> str:
    """Which text and token of a batch is the first that is not finite."""
    tokens = acts.tokens.places(acts[site].shape[1], site)
    bad = ~acts[site].flatten(2).isfinite().all(2) & tokens.content
    text, pos = (int(i) for i in bad.nonzero()[0])
    token = int(tokens.ids[text, pos])
    shown = repr(piece(model.tokenizer, token)) if model.tokenizer is not None else f"id {token}"
    return (
        f"NaN or infinity at {site} in batch {batch}, text {text} of the batch, token {pos} ({shown}): "
        "load the model in float32, or leave this text out."
    )


def tensor_source(x: Float[Tensor, "n *d"], *, site: Site | None = None, dataset: str = "stored activations") -> Source:
    """Activations already in memory, as a source.

    Raises:
        InvalidArgument: no rows, or a row that holds NaN or infinity.

    Examples:
        >>> len(list(tensor_source(torch.zeros(10, 4))))
        1
    """
    at = f" at {site}" if site else ""
    if not len(x):
        raise InvalidArgument(f"there are no activations{at}: x has 0 rows")
    if not bool(x.isfinite().all()):
        row = int((~x.isfinite()).flatten(1).any(1).nonzero()[0])
        raise InvalidArgument(f"activations{at} hold NaN or infinity, first in row {row}")
    sites = () if site is None else (site,)
    return Source(lambda: iter(x.split(8192)), dataset, sites, digest=lambda: digest_of_tensors(x))


def _name_data(models: Sequence[AnyModel], data: Data, batch_size: int, at: Position = everywhere) -> dict[str, Any]:
    """What a checkpoint compares: all of the data, or of a stream what was read, and the weights as they are now."""

    def digest() -> str:
        said = "a stream" if is_stream(data) else str(digest_of_data(data))
        where = [] if at == everywhere else [str(at)]
        return " ".join([said, *where, *(fingerprint(model.hf) for model in models)])

    def check_unchanged() -> None:
        for model in models:
            model.running.check_unchanged(
                "a checkpoint is of activations of the unchanged model: train outside the block, or leave `checkpoint` "
                "out"
            )

    read: Callable[[int], str] | None = None
    if is_stream(data) and not hasattr(data, "__next__"):
        stream_digest = StreamDigest(data)
        read = lambda n: stream_digest.of_first(n * batch_size)  # noqa: E731
    about = {"digest": digest, "batch_size": batch_size, "read": read, "texts": _n_texts(data)}

    def changed_by() -> tuple[str, ...]:
        return tuple(dict.fromkeys(one for model in models for one in model.running.changed_by))

    return about | {"check_unchanged": check_unchanged, "changed_by": changed_by}


def _n_texts(data: Data) -> int | None:
    if isinstance(data, str) or (isinstance(data, Tensor) and data.ndim == 1):
        return 1
    return None if isinstance(data, Mapping) or not hasattr(data, "__len__") else len(data)


def _describe(data: Data) -> str:
    if isinstance(data, str):
        return "one text"
    if isinstance(data, Images):
        return f"{len(data)} pictures"
    columns = getattr(data, "column_names", None)
    size = f"{len(data)} " if hasattr(data, "__len__") else ""
    return f"{size}rows of a dataset" if columns else f"{size}texts"
