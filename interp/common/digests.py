"""What tells the data of one run from those of another: a digest of texts, token ids or tensors."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from hooks import Tokens
from hooks.capture import Data

SAMPLED: Final = 1024  # rows of a data set on disk, evenly spaced


def digest_of_tensors(*tensors: Shaped[Tensor, "..."]) -> str:
    """The first 16 digits of the SHA-256 of some tensors: their kinds, shapes and bits.

    Example:
        >>> digest_of_tensors(torch.zeros(2)) == digest_of_tensors(torch.zeros(1, 2))
        False
    """
    sha = hashlib.sha256()
    for tensor in tensors:
        sha.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        for part in tensor.detach().reshape(-1).split(1 << 24):
            sha.update(part.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()[:16]


def digest_of_data(data: Data) -> str | None:
    """The same of what `capture` takes: of all texts or ids in a list, of 1,024 rows of a data set and their number.

    None for what is read once or streams, such as a generator or an `IterableDataset`: they are not touched.

    Example:
        >>> digest_of_data(["fog", "sea"]) == digest_of_data(["fog", "bay"])
        False
    """
    if isinstance(data, Tokens):
        return digest_of_tensors(data.ids, data.mask)
    if isinstance(data, Tensor):
        return digest_of_tensors(data)
    if isinstance(data, str | list | tuple):
        return _digest_of_texts([data] if isinstance(data, str) else data)
    columns = getattr(data, "column_names", None)
    if not hasattr(data, "__len__") or not (columns or isinstance(data, Sequence)):
        return None
    some = [data[i] for i in range(0, len(data), max(1, len(data) // SAMPLED))]
    column = "input_ids" if "input_ids" in (columns or ()) else "text"
    return _digest_of_texts([len(data), *(row[column] if columns else row for row in some)])


def _digest_of_texts(texts: Iterable[object]) -> str:
    sha = hashlib.sha256()
    for text in texts:
        said = text.tolist() if isinstance(text, Tensor | np.ndarray) else text
        sha.update(f"{said!r}\0".encode())
    return sha.hexdigest()[:16]
