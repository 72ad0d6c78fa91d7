"""Harvest: the activations of a data set into a store, in one pass that can be shared, and continued after a kill."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch
from jaxtyping import Int
from torch import Tensor

from hooks.capture import Sites
from hooks.errors import WrongModel, WrongState
from hooks.fingerprint import count_writes, fingerprint
from hooks.network import AnyModel
from hooks.position import Position, everywhere
from hooks.progress import ProgressBar, progress_bar
from hooks.site import Site
from hooks.store.documents import Data, DocumentBlock, document_blocks
from hooks.store.folder import Folder
from hooks.store.job import Job, duplicates, job
from hooks.store.manifest import (
    DOCUMENT,
    MANIFEST,
    TOKEN,
    Manifest,
    Settings,
    Shard,
    check_settings,
    entry_bytes,
    find_whole_shards,
    finish,
    settle,
    size,
)
from hooks.store.packing import DocumentLayout, Documents, Packing
from hooks.store.plan import HarvestSample, Plan, check_disk_space, estimate, probe
from hooks.store.processes import Process, processes
from hooks.store.shard import Sealer, ShardWriter, documents_checksum, token_checksums
from hooks.store.store import ActivationStore

Same: TypeAlias = dict[Site, Site]
"""Sites whose tensor is that of another."""


def plan(
    model: AnyModel,
    data: Data,
    sites: Sites,
    url: str | Path,
    *,
    packing: Packing | None = None,
    at: Position = everywhere,
    dtype: torch.dtype = torch.float16,
    batch_size: int = 32,
    documents: int | None = None,
) -> Plan:
    """Estimate what `harvest` with these arguments would take; nothing is written.

    Raises:
        TypeError, ValueError: as `harvest`.

    Cost: one forward pass of one batch, and one of a single row.

    Examples:
        ```python
        print(plan(model, dataset, [resid_post[6]], "store"))
        ```
    """
    task = job(
        model,
        data,
        sites,
        Folder(url),
        packing=packing,
        at=at,
        dtype=dtype,
        batch_size=batch_size,
        documents_per_shard=1,
    )
    probed = probe(task)
    settings = task.settings(probed.same_as)
    return estimate(task, probed, settings, documents=documents, processes=1, tokens_done=0)


def harvest(
    model: AnyModel,
    data: Data,
    sites: Sites,
    url: str | Path,
    *,
    packing: Packing | None = None,
    at: Position = everywhere,
    dtype: torch.dtype = torch.float16,
    batch_size: int = 32,
    documents_per_shard: int = 256,
    documents: int | None = None,
    tell: Callable[[str], None] | None = None,
    progress: bool = True,
) -> ActivationStore:
    """Write the activations of a data set at some sites to disk, one row for each token, or place of a picture.

    Killed at any moment, it goes on where it was when run again: a shard of documents is there whole or not at all.
    Under `torchrun` each process does its share of the shards, and the store is the same for any number of them.
    One harvest at a time writes to a place: on a disk a second one is refused, on an object store nothing can.

    Args:
        model: a loaded model.
        data: texts, a `datasets.Dataset` or an `IterableDataset` with a column "input_ids" (preferred) or "text"; of a
            model of pictures `Images`, files, arrays, or a data set with a column of pictures; of any other module that
            reads no text a tensor. A picture is a document, and its places are its tokens, whose ids are their numbers.
        sites: one or more sites; a tensor that two of them share is stored once. Of pictures all have one grid.
        url: a folder, or an fsspec URL such as `s3://bucket/store`.
        packing: how documents fill the rows the model reads: `packed(128)`, or `separate()`; `packed()` unless given.
        at: which tokens become rows: padding never, special tokens, such as a ViT's class token, where it asks for
            them. Where rows hold several documents only positions that select by the token itself have a meaning, such
            as `everywhere`.
        dtype: float32, float16 or bfloat16.
        batch_size: rows of tokens per forward pass.
        documents_per_shard: what is lost at most when it is killed.
        documents: how many the data hold, where a stream does not say.
        tell: is given the plan in words before anything is written, such as `print`.
        progress: show tokens done, rate and time left.

    Returns:
        The store, opened.

    Raises:
        InvalidType: data that are neither texts nor a data set.
        WrongModel: other settings, data or weights than those the store was begun with, or weights that change while
            it is made.
        DamagedFile: what was begun there is damaged.
        InvalidArgument: an unknown site; a value that the dtype does not hold.
        StorageFailed: the disk cannot hold it.
        WrongState: another harvest is writing there, or a block of interventions is open.

    Cost: one forward pass per batch, up to the last site, and the plan.

    Examples:
        ```python
        store = harvest(model, dataset, [resid_post[6], mlp_act[6]], "store", tell=print)
        ```
    """
    task = job(
        model,
        data,
        sites,
        Folder(url),
        packing=packing,
        at=at,
        dtype=dtype,
        batch_size=batch_size,
        documents_per_shard=documents_per_shard,
    )
    with processes(model.device) as here:
        probed = probe(task)
        settings = task.settings(probed.same_as)
        if _is_whole(task, settings, here):
            _plan(task, settings, probed, here, documents, tell)
        else:
            with task.folder.lock() if here.rank == 0 else nullcontext():
                _fill(task, settings, probed, here, documents, tell, progress)
    return ActivationStore(url)


def _is_whole(task: Job, settings: Settings, here: Process) -> bool:
    """Whether the store of exactly these data is there, so that nothing is to be written."""
    if MANIFEST not in (sizes := task.folder.sizes()):
        return False
    shards = Manifest.read(task.folder).shards
    done = find_whole_shards(task.folder, settings)
    unfinished = len(done) < len(shards) or any(shard.record in sizes for shard in shards)
    if here.total(int(unfinished)):
        return False
    check_settings(task.folder, Manifest.read(task.folder).settings, settings)
    seen = missing = 0
    for block in document_blocks(task.data, task.documents_per_shard, here, task.model):
        seen += 1
        missing += block.name not in done
        if block.name in done:
            _check_same(task, block, done[block.name])
    if here.total(missing):
        return False
    if here.total(seen) != len(done):
        raise WrongModel(_other_data(task, "it has shards that these data have not"))
    return True


def _plan(
    task: Job,
    settings: Settings,
    probed: HarvestSample,
    here: Process,
    documents: int | None,
    tell: Callable[[str], None] | None,
) -> Plan:
    """What there is to do and what is there already, said once."""
    rows = sum(shard.rows for shard in find_whole_shards(task.folder, settings).values())
    planned = estimate(task, probed, settings, documents=documents, processes=here.world, tokens_done=rows)
    if here.rank == 0 and tell is not None:
        tell(str(planned))
    return planned


def _fill(
    task: Job,
    settings: Settings,
    probed: HarvestSample,
    here: Process,
    documents: int | None,
    tell: Callable[[str], None] | None,
    progress: bool,
) -> None:
    """Write the shards that are missing, and then the manifest."""
    if here.rank == 0:
        settle(task.folder, settings)
    here.total(0)
    done = find_whole_shards(task.folder, settings)
    planned = _plan(task, settings, probed, here, documents, tell)
    planned.check_room()
    with _bar(planned, here, progress) as bar:
        seen = _write_part(task, settings, probed.same_as, done, here, bar)
    if here.total(seen) != len(shards := find_whole_shards(task.folder, settings)):
        raise WrongModel(_other_data(task, "it has shards that these data have not"))
    _check_weights(task, settings, partial(_give_up, task, [shards[name] for name in shards if name not in done]))
    here.total(0)  # all have read the shards' own files before the manifest takes their place
    if here.rank == 0:
        finish(task.folder, settings, shards.values())
    here.total(0)


def _write_part(
    task: Job, settings: Settings, same_as: Same, done: dict[str, Shard], here: Process, bar: ProgressBar
) -> int:
    """Write this process's missing shards; return how many it has. The finished ones are compared with the data."""
    seen, begun = 0, count_writes(task.model.hf)
    with Sealer() as sealer:
        for block in document_blocks(task.data, task.documents_per_shard, here, task.model):
            seen += 1
            if block.name in done:
                _check_same(task, block, done[block.name])
            else:
                written = _write(task, block, settings, same_as, bar)
                if begun is None or count_writes(task.model.hf) != begun:
                    _check_weights(task, settings, written[0].drop)
                sealer.seal(*written)
    return seen


def _check_weights(task: Job, settings: Settings, give_up: Callable[[BaseException], None]) -> None:
    """Raise where the weights are no longer those the harvest began with; what was written of them is dropped."""
    if fingerprint(task.model.hf) != settings.fingerprint:
        error = WrongModel(
            f"the weights of {task.model.name} were changed while it was harvested, so the store at "
            f"{task.folder.url} would mix two models: remove it and harvest again"
        )
        give_up(error)
        raise error


def _give_up(task: Job, shards: Sequence[Shard], _: BaseException) -> None:
    for shard in shards:
        task.folder.remove(shard.record)


def _write(
    task: Job, block: DocumentBlock, settings: Settings, same_as: Same, bar: ProgressBar
) -> tuple[ShardWriter, int, int, str]:
    """Write the rows of a block, all but sealed; return how many rows and documents, and what was read."""
    read = block.read()
    placed, ids, offsets = _place_documents(task, read)
    documents = len(offsets) - 1
    check_disk_space(task.folder.url, size(settings, len(ids), documents), task.folder.free())
    writer = ShardWriter(task.folder, block.name, entry_bytes(settings))
    try:
        writer.add(TOKEN, ids)
        writer.add(DOCUMENT, offsets)
        for acts in () if placed is None else task.batches(placed):
            if duplicates(acts, task.sites) != same_as:
                raise WrongState(f"sites that shared a tensor no longer do, or the reverse: {same_as}")
            for site in (site for site in task.sites if site not in same_as):
                writer.add(str(site), task.rows(acts, site))
            bar.update(int(task.at.mask(acts.tokens).sum()))
    except BaseException as error:
        writer.drop(error)
        raise
    return writer, len(ids), documents, documents_checksum(read)


def _place_documents(
    task: Job, documents: Documents
) -> tuple[DocumentLayout | None, Int[Tensor, "n"], Int[Tensor, "_"]]:
    """Documents laid out for the model, the ids of their rows, and where each document begins."""
    placed = task.place(documents)
    if placed is None:
        return None, torch.zeros(0, dtype=torch.int32), torch.zeros(len(documents) + 1, dtype=torch.long)
    return placed, *task.select_rows(placed, len(documents))


def _check_same(task: Job, block: DocumentBlock, shard: Shard) -> None:
    """Raise where a finished shard is of other documents, or the first of other tokens: of another tokenizer."""
    documents = block.read()
    same = documents_checksum(documents) == shard.read
    if same and block.number == 0:
        _, ids, offsets = _place_documents(task, documents)
        sums = token_checksums(ids, offsets)
        same = all(list(shard.checksums[column]) == sums[column] for column in sums)
    if not same:
        raise WrongModel(_other_data(task, f"the documents of its shard {shard.name} are others"))


def _other_data(task: Job, why: str) -> str:
    return f"the store at {task.folder.url} was begun with other data, for {why}: give the same, or take a new place"


def _bar(planned: Plan, here: Process, progress: bool) -> ProgressBar:
    """Progress in tokens, with rate and time left: this process's share, shown by the first."""
    return progress_bar(
        total=None if planned.tokens is None else planned.tokens // here.world,
        initial=planned.tokens_done // here.world,
        desc="harvest" if here.world == 1 else f"harvest, process 1 of {here.world}",
        unit=" tokens",
        unit_scale=True,
        progress=progress and here.rank == 0,
    )
