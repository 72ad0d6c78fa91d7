"""The activation store: writing next to a raw file and a plain forward pass, shuffled reading next to SAELens's cache.

`python benchmarks/store.py` prints each figure next to its bar and writes benchmarks/results/store.json.
"""

import argparse
import ctypes
import gc
import os
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.random_gpt2 import Shape  # noqa: E402
from benchmarks.timing import Timing, in_turn, write  # noqa: E402
from hooks import ActivationStore, harvest, load  # noqa: E402
from hooks.encoding import from_ids  # noqa: E402
from hooks.forward import forward  # noqa: E402
from hooks.site import mlp_act, resid_post  # noqa: E402
from hooks.store import ShuffledRows, packed  # noqa: E402
from hooks.store.folder import Folder  # noqa: E402
from hooks.store.manifest import Settings, entry_bytes, find_whole_shards, finish, settle  # noqa: E402
from hooks.store.shard import Sealer, ShardWriter, documents_checksum, raw  # noqa: E402

SITE, BATCH, CONTEXT = resid_post[3], 4096, 128


@dataclass(frozen=True)
class Figure:
    """One measured ratio with its quartiles, its bar, and what it is compared with."""

    name: str
    value: float
    low: float
    high: float
    bar: str
    note: str

    def __str__(self) -> str:
        return f"{self.value:>8.3g} [{self.low:.3g}, {self.high:.3g}]  {self.bar:<8} {self.name}  [{self.note}]"


def planted(folder: Path, rows: int, width: int, dtype: str, per_shard: int = 65_536) -> ActivationStore:
    """A store of random rows, written as a harvest writes, without a model."""
    settings = Settings("random", "none", {str(SITE): [width]}, {}, dtype, "packed()", "everywhere", 1)
    place = Folder(folder)
    data = torch.randn(BATCH, width, generator=torch.Generator().manual_seed(0)).to(getattr(torch, dtype))
    ids = torch.zeros(BATCH, dtype=torch.int32)
    with Sealer() as sealer:
        for number, first in enumerate(range(0, rows, per_shard)):
            length = min(per_shard, rows - first)
            writer = ShardWriter(place, f"00000-{number:06}", entry_bytes(settings))
            for start in range(0, length, BATCH):
                n = min(BATCH, length - start)
                if not bool(torch.stack(torch.aminmax(data[:n])).isfinite().all()):  # as a harvest looks at each batch
                    raise ValueError("random numbers are finite")
                writer.add(str(SITE), data[:n])
                writer.add("token", ids[:n])
            writer.add("document", torch.tensor([0, length]))
            sealer.seal(writer, rows=length, documents=1, read=documents_checksum([str(number)]))
    settle(place, settings)
    finish(place, settings, find_whole_shards(place, settings).values())
    return ActivationStore(folder)


def writing(work: Path, gigabytes: float, repeats: int) -> list[Figure]:
    """The store against a raw sequential write of the same bytes, both synced to the disk."""
    width = 768
    rows = int(gigabytes * 1e9) // (2 * width)
    batch = torch.randn(BATCH, width, generator=torch.Generator().manual_seed(0)).half()

    def plain() -> None:
        with open(work / "raw.bin", "wb") as file:
            for start in range(0, rows, BATCH):
                file.write(raw(batch[: min(BATCH, rows - start)]))
            file.flush()
            os.fsync(file.fileno())

    def ours() -> None:
        shutil.rmtree(work / "written", ignore_errors=True)
        planted(work / "written", rows, width, "float16")

    timed = in_turn({"raw": plain, "store": ours}, repeats=repeats, warm_up=1)
    speed = f"raw {rows * 2 * width / timed['raw'].median / 1e9:.2f} GB/s, {gigabytes:g} GB"
    return [figure("writing / raw sequential write", timed["store"], timed["raw"], ">= 0.8", speed)]


def model_bound(work: Path, tokens: int, repeats: int) -> list[Figure]:
    """A whole harvest against plain forward passes over the same rows of tokens."""
    from datasets import Dataset

    model = load(Shape(length=CONTEXT).gpt2())
    ids = torch.randint(8000, (tokens // CONTEXT, CONTEXT), generator=torch.Generator().manual_seed(0))
    data = Dataset.from_dict({"input_ids": ids.tolist()})
    sites = [kind[layer] for kind in (resid_post, mlp_act) for layer in range(6)]

    def plain() -> None:
        with torch.no_grad():
            for rows in ids.split(32):
                forward(model.hf, from_ids(None, rows, model.d_vocab))

    def ours() -> None:
        shutil.rmtree(work / "harvested", ignore_errors=True)
        harvest(model, data, sites, work / "harvested", packing=packed(CONTEXT), batch_size=32)

    timed = in_turn({"plain": plain, "harvest": ours}, repeats=repeats, warm_up=1)
    low, middle, high = sorted(
        h / p for h, p in zip(quartiles(timed["harvest"]), quartiles(timed["plain"]), strict=True)
    )
    speed = f"plain forward {tokens / timed['plain'].median:,.0f} tokens/s; 12 sites of 6 layers"
    return [Figure("harvest / plain forward, time", middle, low, high, "<= 1.10", speed)]


def reading(work: Path, rows: int, repeats: int) -> list[Figure]:
    """A shuffled pass against SAELens's cached-activation path over as many rows, both warm, float32."""
    width = 256
    store = planted(work / "read", rows, width, "float32")
    cache = saelens_cache(work / "saelens", rows, width)
    batches = rows // BATCH - 1

    def ours() -> None:
        served = sum(1 for _ in islice(ShuffledRows(store, SITE, batch_size=BATCH, buffer=16 * BATCH), batches))
        if served != batches:
            raise RuntimeError(f"{served} batches of {batches}")

    def theirs() -> None:
        for _ in islice(saelens_reader(cache, width), batches):
            pass

    timed = in_turn({"SAELens": theirs, "store": ours}, repeats=repeats, warm_up=1)
    speed = f"SAELens {batches * BATCH / timed['SAELens'].median / 1e3:,.0f} k rows/s of {width} float32"
    return [figure("shuffled reading / SAELens, speed", timed["store"], timed["SAELens"], ">= 4", speed)]


def saelens_cache(folder: Path, rows: int, width: int) -> Path:
    """Random activations in the format of SAELens's cache."""
    from datasets import Array2D, Dataset, Features, Sequence, Value

    features = Features(
        {
            SITE.transformer_lens_name: Array2D(shape=(CONTEXT, width), dtype="float32"),
            "token_ids": Sequence(Value("int32"), length=CONTEXT),
        }
    )

    def made() -> Iterator[dict[str, Any]]:
        data = torch.randn(CONTEXT, width, generator=torch.Generator().manual_seed(0)).numpy()
        for _ in range(rows // CONTEXT):
            yield {SITE.transformer_lens_name: data, "token_ids": [0] * CONTEXT}

    scratch = str(folder / "scratch")
    Dataset.from_generator(made, features=features, cache_dir=scratch).save_to_disk(folder / "cache")
    shutil.rmtree(scratch)
    return folder / "cache"


def saelens_reader(cache: Path, width: int) -> Iterator[torch.Tensor]:
    """SAELens's activations store over its cache, with a mixing buffer of as many rows as ours."""
    from sae_lens.training.activations_store import ActivationsStore

    nothing: Any = None  # a cache is read without a model
    return ActivationsStore(
        model=nothing,
        dataset=None,
        streaming=False,
        hook_name=SITE.transformer_lens_name,
        hook_head_index=None,
        context_size=CONTEXT,
        d_in=width,
        n_batches_in_buffer=16 * BATCH // CONTEXT,
        total_training_tokens=10**9,
        store_batch_size_prompts=BATCH // CONTEXT,
        train_batch_size_tokens=BATCH,
        prepend_bos=False,
        normalize_activations="none",
        device=torch.device("cpu"),
        dtype="float32",
        cached_activations_path=str(cache),
    )


def memory(work: Path, rows: int) -> list[Figure]:
    """How much a shuffled pass adds to the process's own memory, for a store and for one four times as large."""
    width, buffer = 256, rows // 8
    grown = []
    for times in (1, 4):
        store = planted(work / f"memory{times}", times * rows, width, "float32")
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # give back what was freed, or the buffer would hide in it
        before = own_memory()
        grown.append(max(own_memory() - before for _ in ShuffledRows(store, SITE, batch_size=BATCH, buffer=buffer)))
    held = buffer * width * 4
    low, high = sorted(more / held for more in grown)
    note = f"buffer {held / 1e6:.0f} MB; store {rows * width * 4 / 1e6:.0f} MB: {grown[0] / 1e6:.0f} MB"
    return [Figure("memory of a pass over the fourfold store / buffer", grown[1] / held, low, high, "<= 2", note)]


def own_memory() -> int:
    """Bytes of this process that are no files (Linux)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.findall(r"RssAnon:\s+(\d+)", status)[0])


def figure(name: str, ours: Timing, other: Timing, bar: str, note: str) -> Figure:
    """A ratio of speeds with its quartiles."""
    middle, low, high = ours.times(other)
    return Figure(name, middle, low, high, bar, note)


def quartiles(timed: Timing) -> tuple[float, float, float]:
    """The quartiles and the median of the seconds."""
    ordered = sorted(timed.seconds)
    return ordered[len(ordered) // 4], timed.median, ordered[-1 - len(ordered) // 4]


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=2.0, help="to write, model free")
    parser.add_argument("--tokens", type=int, default=131_072, help="to harvest")
    parser.add_argument("--rows", type=int, default=524_288, help="to read")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--folder", help="where to write; the disk that is measured", default=None)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        work = Path(name)
        figures = [
            *memory(work, asked.rows),  # first: later it would reuse what others freed
            *writing(work, asked.gigabytes, asked.repeats),
            *model_bound(work, asked.tokens, asked.repeats),
            *reading(work, asked.rows, asked.repeats),
        ]
    print("   value [quartiles]  bar      figure", *figures, sep="\n")
    command = " ".join(["python benchmarks/store.py", *sys.argv[1:]])
    print(f"written: {write('store', command, [asdict(one) for one in figures])}")


if __name__ == "__main__":
    main()
