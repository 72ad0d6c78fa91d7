"""The k largest of each row and what is above a threshold, exactly, without ordering whole rows."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from math import gcd
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

NARROW: Final = 4  # rows of up to this many times k are partitioned as they are


@torch.no_grad()
def top_k_places(x: Float[Tensor, "n _"], k: int) -> Int[Tensor, "n _"]:
    """Where the k largest entries of each row are, in no order.

    Exact: the k largest are in the k groups of columns whose maxima are largest, so a row is ranked by groups and
    then within those, each time the same way. On other devices than the CPU it is `topk`.

    Examples:
        >>> top_k_places(torch.tensor([[3.0, 1.0, 2.0]]), 2).sort().values.tolist()
        [[0, 2]]
    """
    n, w = x.shape
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
        return x.topk(k, sorted=False).indices
    size = gcd(w, max(1, w // (NARROW * k)))
    if size == 1:
        return _partition(x, k)
    step = w // size  # a group is every step-th column: maxima are then taken over whole vectors
    groups = top_k_places(x.view(n, size, step).amax(1), k)
    within = groups[:, None] + step * torch.arange(size)[:, None]
    candidates = within.view(n, size * k)
    return candidates.gather(1, top_k_places(x.gather(1, candidates), k))


def places_above(x: Float[Tensor, "n _"], threshold: float | Float[Tensor, "_"]) -> Int[Tensor, "_"]:
    """Where entries above a threshold, or above their columns' own, are in the flattened matrix, in order.

    Examples:
        >>> places_above(torch.tensor([[3.0, 1.0], [0.0, 2.0]]), 1.5).tolist()
        [0, 3]
    """
    above = x > threshold
    if x.device.type != "cpu":
        return above.flatten().nonzero().flatten()
    return torch.from_numpy(np.flatnonzero(above.numpy()))


def kth(x: Float[Tensor, "_"], k: int) -> Float[Tensor, ""]:
    """The k-th largest entry; on a GPU by a sort, because `kthvalue` uses a single block of threads there.

    Examples:
        >>> kth(torch.tensor([3.0, 1.0, 2.0]), 2).item()
        2.0
    """
    if x.device.type == "cuda":
        return x.sort(descending=True).values[k - 1]
    return x.kthvalue(len(x) - k + 1).values


def _partition(x: Tensor, k: int) -> Tensor:
    """By NumPy's partition, whose vectors are several times as fast as PyTorch's topk on narrow rows."""
    w = x.shape[1]
    if w == k:
        return torch.arange(w).expand(x.shape)
    return torch.from_numpy(_by_rows(lambda rows: np.argpartition(rows, w - k, axis=1)[:, w - k :], x.numpy()))


def _by_rows(function: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> np.ndarray:
    """The function of rows, rows shared by as many threads as PyTorch has."""
    threads = min(torch.get_num_threads(), len(x) // 64)
    if threads < 2:
        return function(x)
    return np.concatenate([*_pool(os.getpid(), threads).map(function, np.array_split(x, threads))])


@cache
def _pool(_pid: int, threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)
