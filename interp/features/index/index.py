"""The feature index: one pass over text gathers the evidence for every latent, on disk, for anyone to query."""

from dataclasses import asdict
from pathlib import Path
from shutil import rmtree
from typing import Any, Final

import torch
from typing_extensions import TypedDict

from hooks import Model, stream
from hooks.capture import Data
from hooks.disk import lock, record_file
from hooks.errors import InvalidArgument, WrongModel
from hooks.fingerprint import fingerprint
from hooks.json_file import Kind, parse_contents, write_json
from hooks.progress import progress_bar
from hooks.store.processes import Process
from hooks.tensor_file import read_tensors, write_tensors
from interp.common.digests import StreamDigest, digest_of_data, is_stream
from interp.features.index.accumulator import Accumulator, IndexSize
from interp.features.index.catalogue import ABOUT, KIND, FeatureIndex
from interp.features.index.digest import digest_of_sae, process_of
from interp.features.index.tables import TABLES, join_tables, write_tables
from interp.features.reading import describe_sites, find_sites, rows_of
from interp.sae import SAE
from interp.sae.architectures.latent_share import LatentShare

WORK, STATE = "unfinished", "state.safetensors"


class IndexState(TypedDict):
    """What the state of an index says: what it is being made of, and what was read so far."""

    about: dict[str, Any]


UNFINISHED: Final = Kind("interp.features.index.state", "state of a feature index", "index", IndexState)
PAUSES = 200  # batches between two savings of what is known


def index(
    sae: SAE,
    model: Model,
    data: Data,
    folder: str | Path,
    *,
    top: int = 20,
    sampled: int = 20,
    context: int = 16,
    batch_size: int = 32,
    progress: bool = True,
) -> FeatureIndex:
    """Read data once and write what every latent does on them: three tables in parquet, which `FeatureIndex` opens.

    Per latent: its `top` texts and a random sample of those it fires on, in the order of their peaks (quantiles),
    each with `context` tokens on both sides; firing rate, mean, second moment, histogram; the tokens and positions it
    fires on; the latents that fire with it; and the next tokens it promotes through the final norm. BOS, other
    special tokens and padding are left out. The result does not depend on `batch_size`. Broken off, the same call
    goes on where it last saved; complete, it returns at once.

    Where processes share the latents each calls it, reads every text, and gathers its own latents' evidence; the first
    puts the tables together, row group by row group, in a folder that all see.

    Cost: one forward pass per text up to the autoencoder's site; memory for one batch and some kilobytes per latent.

    Raises:
        InvalidArgument: the autoencoder belongs to another model, no text, text that can be read
            once only, or a folder with an index of something else.
        WrongState: a block of interventions is open.

    Examples:
        ```python
        found = index(sae, model, dataset, "index", progress=True)
        print(found.record(17))
        ```
    """
    find_sites(sae, model)
    model.running.check_unchanged(
        "an index says what latents do in the unchanged model: make it outside the block, and open it inside"
    )
    if min(top, sampled, batch_size) < 1 or context < 0:
        raise InvalidArgument(
            f"top, sampled and batch_size must be at least 1 and context at least 0: {top}, {sampled}, "
            f"{batch_size}, {context} were given"
        )
    shape = IndexSize(sae.d_sae, model.d_vocab, top, sampled, context)
    folder = Path(folder)
    about = _about(sae, model, data, shape, batch_size)
    if (folder / ABOUT).exists():
        return _same(FeatureIndex.open(folder), about | {"data": digest_of_data(data)})
    here = process_of(sae)
    work = folder / (WORK if here.world == 1 else f"{WORK}-{here.rank}")
    with lock(folder if here.world == 1 else work, "index"):
        return _make_index(sae, model, data, folder, work, here, shape, about, batch_size, progress)


def _make_index(
    sae: SAE,
    model: Model,
    data: Data,
    folder: Path,
    work: Path,
    here: Process,
    shape: IndexSize,
    about: dict[str, Any],
    batch_size: int,
    progress: bool,
) -> FeatureIndex:
    read = StreamDigest(data)
    gathered = _resume(work, shape, sae.own, about, read)
    if len({*here.all(gathered.texts)}) > 1:  # they were broken off at different pauses
        rmtree(work)
        gathered = _resume(work, shape, sae.own, about, read)
    _gather(sae, model, data, gathered, work, about, batch_size, progress and here.rank == 0, read)
    if not gathered.tally.tokens:
        raise InvalidArgument("the data hold no tokens besides special ones: give texts")
    write_tables(folder if here.world == 1 else work, gathered, sae, model)
    if about["weights"] != fingerprint(model.hf):
        raise WrongModel(f"the weights of {model.name} were changed while it was indexed: index again")
    about |= {"texts": gathered.texts, "tokens": gathered.tally.tokens, "data": digest_of_data(data)}
    here.all(0)  # every process has written its part
    if here.rank == 0:
        _finish(folder, [folder / f"{WORK}-{rank}" for rank in range(here.world)] if here.world > 1 else [], about)
    here.all(0)
    rmtree(work)
    return FeatureIndex.open(folder)


def _finish(folder: Path, parts: list[Path], about: dict[str, Any]) -> None:
    """Put the tables of all processes together, and say what they are of."""
    if parts:
        join_tables(folder, parts)
    files = {f"{name}.parquet": record_file(folder / f"{name}.parquet") for name in TABLES}
    write_json(folder / ABOUT, KIND, about | {"files": files})


@torch.no_grad()
def _gather(
    sae: SAE,
    model: Model,
    data: Data,
    gathered: Accumulator,
    work: Path,
    about: dict[str, Any],
    size: int,
    show: bool,
    read: StreamDigest,
) -> None:
    sites = find_sites(sae, model)
    rest = _after(data, gathered.texts)
    batches = iter(()) if rest is None else stream(model, rest, sites, batch_size=size)
    bar = progress_bar(desc="index", unit="text", initial=gathered.texts, progress=show)
    for number, acts in enumerate(batches, 1):
        keep, text = acts.tokens.content, acts.tokens.text_number
        codes, texts = sae.encode_sparse(rows_of(acts, sites)), int(text[-1]) + 1
        parts = (acts.tokens.ids[keep], text[keep.nonzero()[:, 0]], *codes)
        gathered.add(*(part.cpu() for part in parts), texts=texts)
        bar.update(texts)
        if number % PAUSES == 0:
            _pause(work, gathered, about, read)
    bar.close()
    _pause(work, gathered, about, read)


def _pause(work: Path, gathered: Accumulator, about: dict[str, Any], read: StreamDigest) -> None:
    said = about | {"read": read.of_first(gathered.texts)}
    write_tensors(work / STATE, UNFINISHED, gathered.state(), {"about": said})


def _resume(work: Path, shape: IndexSize, own: LatentShare, about: dict[str, Any], read: StreamDigest) -> Accumulator:
    saved = work / STATE
    if not saved.exists():
        rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        return Accumulator(work, shape, own)
    state, said = read_tensors(saved, UNFINISHED)
    _check(said["about"], about, work.parent)
    gathered = Accumulator(work, shape, own)
    parse_contents(saved, UNFINISHED, lambda: gathered.restore(state))
    _check(said["about"], {"read": read.of_first(gathered.texts)}, work.parent)
    return gathered


def _same(found: FeatureIndex, about: dict[str, Any]) -> FeatureIndex:
    _check(found.about, about, found.folder)
    return found


def _check(found: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    other = [name for name in wanted if found.get(name) != wanted[name]]
    if other:
        raise WrongModel(
            f"{folder} holds an index made with another {', '.join(other)}: give another folder, or remove that one"
        )


def _about(sae: SAE, model: Model, data: Data, shape: IndexSize, batch_size: int) -> dict[str, Any]:
    """What an index was made of, so that two indexes are never confused."""
    return {
        "model": model.name,
        "fingerprint": model.fingerprint,
        "site": describe_sites(sae.read_sites),
        "autoencoder": digest_of_sae(sae),
        "weights": fingerprint(model.hf),
        "data": _identify(data),
        "batch_size": batch_size,
        **asdict(shape),
    }


def _identify(data: Data) -> str:
    """What identifies the data: their digest; of a stream it is known once all of it was read."""
    if hasattr(data, "__next__"):
        raise InvalidArgument("the data can be read once only: give a list, or a data set, which can be read again")
    return "a stream" if is_stream(data) else str(digest_of_data(data))


def _after(data: Data, done: int) -> Data:
    """The data without the texts already read; None where none are left."""
    if not done:
        return data
    if hasattr(data, "__len__") and len(data) <= done:
        return None
    if isinstance(data, str):
        return None
    if hasattr(data, "skip"):
        return data.skip(done)
    return data[done:]
