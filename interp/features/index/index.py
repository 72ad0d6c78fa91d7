"""The feature index: one pass over text gathers the evidence for every latent, on disk, for anyone to query."""

import json
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from shutil import rmtree
from typing import Any

import torch
from tqdm import tqdm

from hooks import Model, stream
from hooks.capture import Data
from hooks.errors import InvalidArgument
from hooks.tensor_file import read_tensors, save_tensors
from interp.common.digests import digest_of_data
from interp.features.index.accumulator import Accumulator, IndexSize
from interp.features.index.catalogue import ABOUT, FeatureIndex
from interp.features.index.digest import digest_of_sae
from interp.features.index.tables import write_tables
from interp.features.reading import find_site
from interp.sae import SAE

WORK, STATE = "unfinished", "state.safetensors"
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
    progress: bool = False,
) -> FeatureIndex:
    """Read data once and write what every latent does on them: three tables in parquet, which `FeatureIndex` opens.

    Per latent: its `top` texts and a random sample of those it fires on, in the order of their peaks (quantiles),
    each with `context` tokens on both sides; firing rate, mean, second moment, histogram; the tokens and positions it
    fires on; the latents that fire with it; and the next tokens it promotes through the final norm. BOS, other
    special tokens and padding are left out. The result does not depend on `batch_size`. Broken off, the same call
    goes on where it last saved; complete, it returns at once.

    Costs one forward pass per text up to the autoencoder's site; memory for one batch and some kilobytes per latent.

    Raises:
        InvalidArgument: the autoencoder belongs to another model, no text, text that can be read
            once only, or a folder with an index of something else.

    Example:
        ```python
        found = index(sae, model, dataset, "index", progress=True)
        print(found.record(17))
        ```
    """
    find_site(sae, model)
    if min(top, sampled, batch_size) < 1 or context < 0:
        raise InvalidArgument(
            f"top, sampled and batch_size must be at least 1 and context at least 0: {top}, {sampled}, "
            f"{batch_size}, {context} were given"
        )
    shape = IndexSize(sae.d_sae, model.d_vocab, top, sampled, context)
    folder = Path(folder)
    about = _about(sae, model, data, shape, batch_size)
    if (folder / ABOUT).exists():
        return _same(FeatureIndex.open(folder), about)
    gathered = _resumed(folder, shape, about)
    _gather(sae, model, data, gathered, folder, about, batch_size, progress)
    if not gathered.tally.tokens:
        raise InvalidArgument("the data hold no tokens besides special ones: give texts")
    write_tables(folder, gathered, sae, model)
    about |= {"texts": gathered.texts, "tokens": gathered.tally.tokens}
    (folder / ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    rmtree(folder / WORK)
    return FeatureIndex.open(folder)


@torch.no_grad()
def _gather(
    sae: SAE,
    model: Model,
    data: Data,
    gathered: Accumulator,
    folder: Path,
    about: dict[str, Any],
    size: int,
    show: bool,
) -> None:
    site = find_site(sae, model)
    rest = _after(data, gathered.texts)
    batches = iter(()) if rest is None else stream(model, rest, [site], batch_size=size)
    bar = tqdm(desc="index", unit="text", initial=gathered.texts, disable=not show)
    for number, acts in enumerate(batches, 1):
        keep = acts.tokens.content
        codes = sae.encode_sparse(acts.flat(site).flatten(1))
        parts = (acts.tokens.ids[keep], keep.nonzero()[:, 0], *codes)
        gathered.add(*(part.cpu() for part in parts), texts=len(acts.tokens))
        bar.update(len(acts.tokens))
        if number % PAUSES == 0:
            _pause(folder, gathered, about)
    bar.close()
    _pause(folder, gathered, about)


def _pause(folder: Path, gathered: Accumulator, about: dict[str, Any]) -> None:
    save_tensors(folder / WORK / STATE, gathered.state(), {"about": json.dumps(about)})


def _resumed(folder: Path, shape: IndexSize, about: dict[str, Any]) -> Accumulator:
    saved = folder / WORK / STATE
    if not saved.exists():
        rmtree(folder / WORK, ignore_errors=True)
        (folder / WORK).mkdir(parents=True)
        return Accumulator(folder / WORK, shape)
    state, made_of = read_tensors(saved, "about", "state of a feature index", "index")
    _check(made_of, about, folder)
    gathered = Accumulator(folder / WORK, shape)
    gathered.restore(state)
    return gathered


def _same(found: FeatureIndex, about: dict[str, Any]) -> FeatureIndex:
    _check(found.about, about, found.folder)
    return found


def _check(found: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    other = [name for name in wanted if found.get(name) != wanted[name]]
    if other:
        raise InvalidArgument(
            f"{folder} holds an index made with another {', '.join(other)}: give another folder, or remove that one"
        )


def _about(sae: SAE, model: Model, data: Data, shape: IndexSize, batch_size: int) -> dict[str, Any]:
    """What an index is of, so that no two are taken for one another."""
    return {
        "model": model.name,
        "fingerprint": model.fingerprint,
        "site": str(sae.site),
        "autoencoder": digest_of_sae(sae),
        "data": _told(data),
        "batch_size": batch_size,
        **asdict(shape),
    }


def _told(data: Data) -> str:
    """What tells the data from others: their digest, or that of the beginning of a stream."""
    if hasattr(data, "__next__"):
        raise InvalidArgument("the data can be read once only: give a list, or a data set, which can be read again")
    return digest_of_data(data) or str(digest_of_data([str(one) for one in islice(iter(data), 8)]))


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
