"""Digests of all the texts, token ids or tensors of a run, order included, by which its data are recognised."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from itertools import islice
from typing import Any, final

import numpy as np
from jaxtyping import Shaped
from torch import Tensor

from hooks import Images, Tokens
from hooks.capture import Data
from hooks.disk import checksum

READ = ("input_ids", "attention_mask", "text")


@final
class DataDigest:
    """A digest of texts or token ids that grows as they are read; of anything else, such as a dataclass, all it holds.

    Examples:
        >>> one, other = DataDigest(), DataDigest()
        >>> one.add(["fog", "sea"])
        >>> other.add(["sea", "fog"])
        >>> one.read == other.read, one.hexdigest() == other.hexdigest()
        (True, False)
    """

    def __init__(self) -> None:
        self._hash, self.read = hashlib.sha256(), 0

    def add(self, items: Iterable[object]) -> None:
        """Take in the next texts, token ids, or rows of a data set: of these what `capture` reads of them."""
        for item in items:
            self._hash.update(_bytes_of(item))
            self.read += 1

    def hexdigest(self) -> str:
        """Return the first 32 digits over all that was read."""
        return self._hash.copy().hexdigest()[:32]


@final
class StreamDigest:
    """A digest of the beginning of a stream, however far it has been read; it reads the stream by itself.

    Examples:
        ```python
        StreamDigest(dataset).of_first(1000)
        ```
    """

    def __init__(self, data: Data) -> None:
        self._data = data
        self._begin()

    def of_first(self, n: int) -> str:
        """Return the digest of the first n items, or of all where there are fewer."""
        if n < self._digest.read:
            self._begin()
        self._digest.add(islice(self._items, n - self._digest.read))
        return self._digest.hexdigest()

    def _begin(self) -> None:
        self._digest, self._items = DataDigest(), items_of(self._data)


def is_stream(data: Data) -> bool:
    """Return whether data are read one after the other and do not say how many they are.

    Examples:
        >>> is_stream(["fog"])
        False
    """
    return not isinstance(data, str | Tensor | Tokens) and not hasattr(data, "__len__")


def digest_of_tensors(*tensors: Shaped[Tensor, "..."]) -> str:
    """Return a digest of some tensors: their kinds, shapes and bits.

    Examples:
        >>> import torch
        >>> digest_of_tensors(torch.zeros(2)) == digest_of_tensors(torch.zeros(1, 2))
        False
    """
    return checksum(*tensors)


def digest_of_data(data: Data) -> str | None:
    """Return a digest of all that `capture` would read; None for what can be read once only, which is not touched.

    Cost:
        All of the data are read once; of a stream too.

    Examples:
        >>> digest_of_data(["fog", "sea"]) == digest_of_data(["fog", "bay"])
        False
    """
    if isinstance(data, Tokens):
        return digest_of_tensors(data.ids, data.mask)
    if isinstance(data, Tensor):
        return digest_of_tensors(data)
    if isinstance(data, Images):
        return digest_of_tensors(data.pixels, *(mask for _, mask in sorted(data.masks.items())))
    if hasattr(data, "__next__"):
        return None
    digest = DataDigest()
    digest.add(items_of(data))
    return digest.hexdigest()


def items_of(data: Data) -> Iterator[object]:
    """Yield what `capture` reads one after the other: texts, or rows of a data set.

    Examples:
        >>> list(items_of("Fog"))
        ['Fog']
    """
    if isinstance(data, str):
        yield data
    elif hasattr(data, "column_names") and hasattr(data, "iter"):
        for columns in data.with_format(None).iter(batch_size=1024):
            wanted = {name: columns[name] for name in READ if name in columns} or columns
            for values in zip(*wanted.values(), strict=True):
                yield dict(zip(wanted, values, strict=True))
    else:
        yield from data


def _bytes_of(item: object) -> bytes:
    if isinstance(item, Mapping):
        row: dict[Any, Any] = {name: item[name] for name in READ if name in item} or dict(item)
        if "input_ids" in row:
            row.pop("text", None)
        item = row["text"] if [*row] == ["text"] else [(name, _plain(value)) for name, value in sorted(row.items())]
    text = item if isinstance(item, str) else json.dumps(_plain(item), default=_said)
    said = text.encode("utf-8", "surrogatepass")
    return b"%d%s:" % (len(said), b"t" if isinstance(item, str) else b"j") + said


def _plain(value: object) -> object:
    return value.tolist() if isinstance(value, Tensor | np.ndarray) else value


def _said(value: object) -> object:
    """What JSON has no word for: bytes, tensors, pictures and dataclasses by all that is in them."""
    if isinstance(value, bytes):
        return checksum(value)
    if isinstance(value, Tensor):
        return digest_of_tensors(value)
    if is_dataclass(value):
        return [type(value).__name__, {one.name: getattr(value, one.name) for one in fields(value)}]
    held = getattr(value, "tobytes", None)  # of Pillow's pictures
    return repr(value) if held is None else [checksum(held()), getattr(value, "size", None)]
