"""Capture: activations out of one plain forward pass that stops after the last site asked for."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

from torch import Tensor

from hooks.activations import Activations
from hooks.attention import check_kernels, eager_attention, needs_eager
from hooks.encoding import join, pad, strip_padding
from hooks.errors import InvalidArgument, WrongState
from hooks.fingerprint import fingerprint_now
from hooks.forward import forward
from hooks.images import is_picture
from hooks.model import resolve_sites
from hooks.network import AnyModel, Network
from hooks.progress import progress_bar
from hooks.rows import check_rows, in_rows
from hooks.site import PATTERNS, Site
from hooks.temporary import Temporary, grad_mode
from hooks.tokens import Tokens

Sites = Site | str | Iterable[Site | str]
Data: TypeAlias = Any


class _Enough(Exception):
    """Everything asked for has been computed."""


def capture(model: AnyModel, data: Data, sites: Sites, *, batch_size: int = 32, progress: bool = False) -> Activations:
    """Return the activations of texts at some sites.

    Args:
        model: a loaded model.
        data: of a model of pictures whatever `Processor.read` takes (files, PIL pictures, arrays, `Images`), or a data
            set with a column of pictures; of any other module that reads no text a tensor, or tensors by the names of
            its arguments; of a language model a text, texts, token ids, `Tokens`, or a `datasets.Dataset` with a
            column "input_ids" (preferred; padding is what a column "attention_mask" hides) or "text".
        sites: one or more sites, or globs such as "resid_post.*".
        batch_size: how many texts per forward pass.
        progress: show a progress bar.

    Returns:
        [batch pos *d] per site, in the model's dtype (the final norm's scale in float32). Nothing is
        copied when one batch suffices. A `pattern` is computed next to the model's own attention kernel, which leaves
        every other site as it is without it, bit for bit; only where the model's attention is neither "sdpa" nor
        "eager", or calls no kernel that can be read, the pass runs eager attention, which rounds differently.

    Raises:
        InvalidType: a mapping, such as a data set with all its splits, or a list of anything but texts.
        InvalidArgument: an unknown site, no data, a text that does not fit into the context.

    Cost: one forward pass per batch, up to the last site asked for.

    Examples:
        ```python
        acts = capture(model, ["The Golden Gate Bridge", "Fog"], [resid_post[6], mlp_act[6]])
        ```
    """
    wanted = resolve_sites(model, sites)
    tokens = _whole(model, data, batch_size)
    check_rows(model, tokens)
    return _passes(model, tokens, wanted, batch_size, progress=progress)


def _passes(
    model: AnyModel, tokens: Tokens, wanted: tuple[Site, ...], batch_size: int, *, progress: bool
) -> Activations:
    """As many passes as there are batches of rows, their activations in one."""
    if len(tokens) <= batch_size:
        return _one_pass(model, tokens, wanted)
    values: dict[Site, Tensor] = {}
    part: Activations | None = None
    for start in progress_bar(range(0, len(tokens), batch_size), "capture", unit="batch", progress=progress):
        batch = tokens[start : start + batch_size]
        part = _one_pass(model, batch, wanted)
        for site, value in part.values.items():
            own = tokens.read_at(site)
            if site not in values:
                values[site] = _room(site, value, own, tokens)
            keys = tokens if site.name == "cross_pattern" else own
            _put(values[site], value, site, start, (_shift(own, batch, start), _shift(keys, batch, start)))
    assert part is not None
    return replace(part, values=values, tokens=tokens)


def stream(
    model: AnyModel, data: Data, sites: Sites, *, batch_size: int = 32, progress: bool = False
) -> Iterator[Activations]:
    """Yield the activations of texts at some sites, batch by batch, so that memory stays bounded.

    Takes the same arguments as `capture`, and iterable datasets as well; texts keep their order. A text that is longer
    than the context is cut into rows that fit, `acts.tokens.text_number` says which text of its batch each row is from,
    and a warning at the end says how many texts were cut; `capture`, which gives each text its row, refuses it.

    Cost: one forward pass per batch, up to the last site asked for; memory for the rows of one batch of texts.

    Examples:
        ```python
        for acts in stream(model, dataset, [resid_post[6]]):
            train_on(acts.flat(resid_post[6]))
        ```
    """
    wanted = resolve_sites(model, sites)
    total = -(-len(data) // batch_size) if isinstance(data, Sized) and not isinstance(data, str) else None
    bar = progress_bar(_batches(model, data, batch_size), "capture", unit="batch", total=total, progress=progress)
    batches = in_rows(model, (tokens for tokens in bar))  # a bar has a length, and checkers of types sample such
    return (_passes(model, tokens, wanted, batch_size, progress=False) for tokens in batches)


def read_rows(model: AnyModel, data: Data, *, batch_size: int = 32) -> Iterator[Tokens]:
    """Yield the tokens that `stream` reads, batch by batch, without running the model.

    Examples:
        ```python
        for tokens in read_rows(model, texts):
            model.run(tokens)
        ```
    """
    return in_rows(model, _batches(model, data, batch_size))


@grad_mode(False)
def _one_pass(model: AnyModel, tokens: Tokens, sites: Sequence[Site]) -> Activations:
    got: dict[Site, Tensor] = {}

    def keep(site: Site, value: Tensor) -> None:
        got[site] = value
        if len(got) == len(sites):
            raise _Enough

    taps = {site: model.tap(site) for site in sites}
    made_of = fingerprint_now(model.hf), model.site_names, model.running.changed_by
    check_kernels(model.hf, taps.values())
    shown = eager_attention(model.hf) if needs_eager(taps.values()) else nullcontext()
    with model.running.reading(tokens), shown, Temporary() as changes:
        for site, tap in taps.items():
            tap.attach_during(changes, partial(keep, site))
        with suppress(_Enough):
            forward(model.hf, tokens)
    missed = [str(site) for site in sites if site not in got]
    if missed:
        raise WrongState(f"the forward pass of {model.name} did not reach {', '.join(missed)}")
    values = {site: _alone(got[site], tokens) for site in sites}
    return Activations(values, tokens, *made_of)


def _alone(value: Tensor, tokens: Tokens) -> Tensor:
    """Free what a view keeps alive, and give every text of the batch its row."""
    if value.untyped_storage().nbytes() > value.numel() * value.element_size():
        value = value.contiguous() if not value.is_contiguous() else value.clone()
    return value if value.shape[0] == len(tokens) else value.expand(len(tokens), *value.shape[1:])


def _batches(model: AnyModel, data: Data, batch_size: int) -> Iterator[Tokens]:
    if batch_size < 1:
        raise InvalidArgument(f"batch_size must be at least 1, got {batch_size}")
    if _is_dataset(data):
        for rows in data.iter(batch_size=batch_size):
            yield _from_rows(model, rows)
        return
    if isinstance(data, str | Tensor | Tokens) or not isinstance(data, Sequence):
        tokens = model.tokens(data)
        for start in range(0, len(tokens), batch_size):
            yield tokens if len(tokens) <= batch_size else tokens[start : start + batch_size]
        return
    if not data:
        raise InvalidArgument("got no texts: pass a text or a non-empty list of texts")
    for start in range(0, len(data), batch_size):
        yield model.tokens(data[start : start + batch_size])


def _is_dataset(data: Data) -> bool:
    datasets = sys.modules.get("datasets")
    return datasets is not None and isinstance(data, datasets.Dataset | datasets.IterableDataset)


def _from_rows(model: AnyModel, rows: dict[str, Any]) -> Tokens:
    if "input_ids" in rows:
        ids = strip_padding(model.tokenizer, rows["input_ids"], rows.get("attention_mask"))
        return pad(model.tokenizer, ids, model.padding_side).to(model.device)
    if "text" in rows:
        return model.tokens(rows["text"])
    column = next((name for name, cells in rows.items() if cells and is_picture(cells[0])), None)
    if isinstance(model, Network) and column is not None:
        return model.tokens(rows[column])
    raise InvalidArgument(
        f"the dataset has columns {sorted(rows)}, expected 'input_ids' or 'text', or pictures for a model that reads "
        "them: rename one"
    )


def _whole(model: AnyModel, data: Data, batch_size: int) -> Tokens:
    is_one = isinstance(data, str | Tensor | Mapping | Tokens) or (isinstance(model, Network) and not _is_dataset(data))
    if is_one and batch_size > 0:
        return model.tokens(data)
    batches = [*_batches(model, data, batch_size)]
    if not batches:
        raise InvalidArgument("got no texts: the dataset is empty")
    if isinstance(model, Network):
        return model.join(batches)
    return join(model.tokenizer, batches, model.padding_side)


def _room(site: Site, value: Tensor, own: Tokens, read: Tokens) -> Tensor:
    shape, n_pos = [len(own), *value.shape[1:]], own.ids.shape[1]
    if own.are_places:
        return value.new_zeros(shape)
    if site.name in PATTERNS:
        shape[2:] = n_pos, read.ids.shape[1] if site.name == "cross_pattern" else n_pos
    else:
        shape[1] = n_pos
    return value.new_zeros(shape)


def _shift(tokens: Tokens, batch: Tokens, start: int) -> int:
    """At which column of the whole the batch, cut to its own longest text, begins."""
    return int(tokens.mask[start : start + len(batch)].any(dim=0).nonzero()[0])


def _put(whole: Tensor, value: Tensor, site: Site, start: int, shift: tuple[int, int]) -> None:
    rows = slice(start, start + value.shape[0])
    if site.name in PATTERNS:
        queries, keys = (slice(at, at + wide) for at, wide in zip(shift, value.shape[2:], strict=True))
        whole[rows, :, queries, keys] = value
    else:
        whole[rows, shift[0] : shift[0] + value.shape[1]] = value
