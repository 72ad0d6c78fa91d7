"""The words of generated texts: how varied they are, and how near to texts on a subject."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import torch


def measure_fluency(text: str) -> float:
    """GE = 100 · (⅓ H₂ + ⅔ H₃), H_n the entropy in bits of the sequences of n words of the text (Zhang et al. 2018).

    Examples:
        >>> measure_fluency("a b c d") > measure_fluency("a a a a") == 0.0
        True
    """
    words, found = text.split(), 0.0
    for n, weight in ((2, 1 / 3), (3, 2 / 3)):
        grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        if grams:
            p = torch.tensor([*Counter(grams).values()], dtype=torch.float64) / len(grams)
            found += weight * float(-(p * p.log2()).sum())
    return 100 * found


def measure_rarity(texts: Sequence[str]) -> dict[str, float]:
    """log((1 + n) / (1 + texts with the word)) + 1 of each word: its inverse document frequency, smoothed."""
    counts = Counter(word for text in texts for word in {*_words(text)})
    return {word: math.log((1 + len(texts)) / (1 + count)) + 1 for word, count in counts.items()}


def measure_consistency(text: str, references: Sequence[str], idf: Mapping[str, float]) -> float:
    """RS: the cosine of the TF-IDF vectors of a text and of all references as one text (Meng et al. 2022).

    A word that `idf` lacks weighs as much as the rarest one.

    Examples:
        >>> measure_consistency("fog over Rome", ["fog over Rome"], {}) > 0.99
        True
    """
    rarest = max(idf.values(), default=1.0)
    one, other = (
        {word: count * idf.get(word, rarest) for word, count in Counter(_words(said)).items()}
        for said in (text, " ".join(references))
    )
    sizes = [math.sqrt(sum(weight**2 for weight in vector.values())) for vector in (one, other)]
    shared = sum(weight * other.get(word, 0.0) for word, weight in one.items())
    return shared / (sizes[0] * sizes[1]) if min(sizes) > 0 else 0.0


def _words(text: str) -> list[str]:
    return [word.strip(".,;:!?()\"'").lower() for word in text.split()]
