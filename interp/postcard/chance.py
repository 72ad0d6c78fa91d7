"""Chance without state: a number for each seed and purpose, the same in every order, batch and machine."""

import numpy as np
from jaxtyping import Float, Int, UInt

MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


def uniform(seeds: Int[np.ndarray, "n"], purpose: str, k: int = 0) -> Float[np.ndarray, "n"]:
    """Numbers in [0, 1), by the mixer of splitmix64 (Steele, Lea and Flood 2014) over seed, purpose and `k`.

    Examples:
        >>> a, b = uniform(np.array([1, 2]), "sun"), uniform(np.array([2]), "sun")
        >>> float(a[1]) == float(b[0])
        True
    """
    salt = int.from_bytes(purpose.encode()[:7].ljust(7, b"_"), "little") + 0x9E3779B97F4A7C15 * (k + 1)
    with np.errstate(over="ignore"):
        x = _mix(seeds.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15))
        x = _mix(x ^ np.uint64(salt & (2**64 - 1)))
    return (x >> np.uint64(11)).astype(np.float64) / 2**53


def _mix(x: UInt[np.ndarray, "n"]) -> UInt[np.ndarray, "n"]:
    for shift, factor in MIX:
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return x ^ (x >> np.uint64(31))


def between(seeds: Int[np.ndarray, "n"], purpose: str, low: float, high: float, k: int = 0) -> Float[np.ndarray, "n"]:
    """Numbers in [low, high)."""
    return low + (high - low) * uniform(seeds, purpose, k)
