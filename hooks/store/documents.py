"""The documents of a data set, in numbered blocks that are the same however many processes share them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, final

from hooks.encoding import strip_padding
from hooks.errors import InvalidArgument, InvalidType, MissingFile, nearest
from hooks.network import AnyModel, Network
from hooks.store.packing import Documents
from hooks.store.places import read_items
from hooks.store.processes import Process

if TYPE_CHECKING:
    from datasets import IterableDataset

Data: TypeAlias = Any
"""Texts, a `datasets.Dataset` or a `datasets.IterableDataset`."""
_READERS = {
    ".parquet": "parquet",
    ".jsonl": "json",
    ".json": "json",
    ".txt": "text",
    ".text": "text",
    ".csv": "csv",
    ".arrow": "arrow",
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".webp"), "imagefolder"),
}


@final
@dataclass(frozen=True)
class DocumentBlock:
    """Some consecutive documents: what becomes one shard.

    Attributes:
        name: its place in the data set, `source-number`; blocks are ordered by name.
        read: gives the documents.
        number: of this block in its source.
    """

    name: str
    read: Callable[[], Documents]
    number: int


def open_dataset(source: str | Path, split: str = "train") -> "IterableDataset":
    """Open a data set for streaming: a local file or folder, or a name of the Hugging Face hub.

    Args:
        source: files that end in .parquet, .jsonl, .json, .txt, .csv or .arrow (a text file is one document per
            line), pictures that end in .png, .jpg, .jpeg or .webp, a folder of such, a glob, or a hub name such as
            `roneneldan/TinyStories`.
        split: of a data set of the hub.

    Raises:
        MissingFile: neither a file nor a data set the hub gave.
        InvalidArgument: a kind of file that is not read.

    Examples:
        ```python
        harvest(model, open_dataset("corpus.jsonl"), [resid_post[6]], "store")
        ```
    """
    from datasets import load_dataset

    path = Path(source)
    files = sorted(map(str, path.parent.glob(path.name))) if "*" in path.name else [str(path)]
    if path.is_dir() or not files or not Path(files[0]).exists():
        try:
            return load_dataset(str(source), split=split, streaming=True)
        except (OSError, RuntimeError) as error:
            raise MissingFile(
                f"no data at '{source}': it is no file, and no data set the Hugging Face hub gave "
                f"({str(error).splitlines()[0]})"
            ) from error
    ending = Path(files[0]).suffix.lower()
    if ending not in _READERS:
        raise InvalidArgument(f"'{source}' ends in '{ending}', and what is read ends in {nearest(ending, _READERS)}")
    return load_dataset(_READERS[ending], data_files=files, split="train", streaming=True)


def count(source: str | Path) -> int | None:
    """Return how many documents local files of text, JSON lines, parquet or pictures hold; None for all others.

    Examples:
        ```python
        count("corpus.jsonl")
        ```
    """
    path = Path(source)
    files = sorted(path.parent.glob(path.name)) if "*" in path.name else [path]
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in _READERS)
        if not all(_READERS[file.suffix.lower()] == "imagefolder" for file in files):
            return None
    counts = [_count(file) for file in files if file.is_file()]
    return sum(n for n in counts if n is not None) if counts and None not in counts else None


def _count(file: Path) -> int | None:
    if file.suffix == ".parquet":
        from pyarrow.parquet import ParquetFile

        return ParquetFile(file).metadata.num_rows
    if _READERS.get(file.suffix.lower()) == "imagefolder":
        return 1
    if file.suffix not in (".txt", ".text", ".jsonl"):
        return None
    with file.open("rb") as lines:
        return sum(1 for _ in lines)


def as_dataset(data: Data) -> Data:
    """Return data as a `datasets` object with what is read of it: "input_ids" and their "attention_mask", or "text".

    Raises:
        InvalidType: something else than texts or a data set.
        InvalidArgument: no texts, or neither column.

    Examples:
        ```python
        as_dataset(["The Golden Gate Bridge", "Fog"])
        ```
    """
    import datasets

    if isinstance(data, datasets.DatasetDict | datasets.IterableDatasetDict):
        raise InvalidType(f"the data have splits {sorted(map(str, data))}: choose one, as in data['train']")
    if not isinstance(data, datasets.Dataset | datasets.IterableDataset):
        texts = list(data) if isinstance(data, Sequence) and not isinstance(data, str) else []
        if not texts or not all(isinstance(text, str) for text in texts):
            raise InvalidType(
                f"a store is harvested from a list of texts or a data set, got {type(data).__name__}: "
                "open_dataset(name) opens a file or a data set of the hub"
            )
        return datasets.Dataset.from_dict({"text": texts})
    columns = data.column_names or list(next(iter(data), {}))
    if not columns:
        raise InvalidArgument("got no documents: the dataset is empty")
    column = next((name for name in ("input_ids", "text") if name in columns), None)
    if column is None:
        raise InvalidArgument(f"the dataset has columns {sorted(columns)}, expected 'input_ids' or 'text': rename one")
    masked = ["attention_mask"] if column == "input_ids" and "attention_mask" in columns else []
    return data.with_format(None).select_columns([column, *masked])


def length(data: Data) -> int | None:
    """Return how many documents a data set says it holds; None for a stream.

    Examples:
        ```python
        length(as_dataset(["Fog"]))
        ```
    """
    return len(data) if hasattr(data, "__len__") else None


def sample(data: Data, n: int, model: AnyModel) -> Documents:
    """Return some documents: evenly spaced where the data set has a length, otherwise its first.

    Examples:
        ```python
        sample(as_dataset(["The Golden Gate Bridge", "Fog"]), 1, model)
        ```
    """
    if (size := length(data)) is not None:
        if isinstance(model, Network):
            return _documents(data[:: -(-size // n)], model)
        places = sorted({i * size // n for i in range(n)} if size > n else range(size))
        return _documents(data[places], model)
    return next((_documents(rows, model) for rows in data.iter(batch_size=n)), [])


def document_blocks(data: Data, size: int, here: Process, model: AnyModel) -> Iterator[DocumentBlock]:
    """Yield this process's blocks of `size` documents.

    Blocks are cut within each source shard of a stream, so that their content does not depend on the number of
    processes. What is divided among these, by `split_dataset_by_node`, is the list of blocks, or of source shards
    where there are enough; otherwise each process reads the stream and takes every n-th block.

    Examples:
        ```python
        [block.name for block in document_blocks(as_dataset(texts), 256, Process(0, 1), model)]
        ```
    """
    if (documents := length(data)) is not None:
        for number in _part(-(-documents // size), here):
            rows = slice(number * size, (number + 1) * size)
            yield DocumentBlock(_name(0, number), lambda rows=rows: _documents(data[rows], model), number)
        return
    shared = data.num_shards < here.world
    for source in range(data.num_shards) if shared else _part(data.num_shards, here):
        stream = data if data.num_shards == 1 else data.shard(data.num_shards, source)
        for number, rows in enumerate(stream.iter(batch_size=size)):
            if not shared or (source + number) % here.world == here.rank:
                yield DocumentBlock(_name(source, number), lambda rows=rows: _documents(rows, model), number)


def _part(n: int, here: Process) -> Iterator[int]:
    """This process's share of the numbers below n."""
    from datasets import Dataset
    from datasets.distributed import split_dataset_by_node

    numbers = Dataset.from_dict({"number": range(n)})
    yield from split_dataset_by_node(numbers, here.rank, here.world)["number"]


def _documents(columns: Any, model: AnyModel) -> Documents:
    if isinstance(model, Network):
        return read_items(model, columns)
    if "text" in columns:
        return ["" if text is None else text for text in columns["text"]]
    ids, masks = ([row or [] for row in rows] for rows in (columns["input_ids"], columns.get("attention_mask", ())))
    return strip_padding(model.tokenizer, ids, masks or None)


def _name(source: int, number: int) -> str:
    return f"{source:05}-{number:06}"
