"""Labels for latents without a language model: the tokens they fire on, the words around, what they promote."""

import math
from collections import Counter
from collections.abc import Iterable
from typing import final

from interp.features.evidence import Example
from interp.features.index.catalogue import FeatureIndex, Record

LARGEST = 3  # tokens, words and promotions named at most
SHARE = 0.1  # of the activation, or a token is not named
NEAR = 8  # tokens on each side in which context words are counted


@final
class Describer:
    """Describes the latents of an index offline: "fires on 'Bridge' (82 %), near 'Golden', 'Francisco'".

    A context word is named where it is near more of the latent's examples than chance explains: n of the N
    examples of this latent hold it, against a share p of the examples of all latents, and the G-statistic
    2 N (q log(q / p) + (1 - q) log((1 - q) / (1 - p))), q = n / N > p, is at least 10.8 (one chance in 1,000).

    Cost: reading the index's examples once.

    Examples:
        ```python
        describe = Describer(FeatureIndex.open("index"))
        describe(found.record(17))
        ```
    """

    def __init__(self, found: FeatureIndex) -> None:
        table = found.table("examples").select(["kind", "tokens", "peak", "text"]).to_pydict()
        seen: dict[tuple[int, tuple[str, ...]], frozenset[str]] = {}
        for kind, tokens, peak, text in zip(*(table[n] for n in ("kind", "tokens", "peak", "text")), strict=True):
            if kind == "sampled":
                seen[text, tuple(tokens)] = find_words(tuple(tokens), peak)
        self.n = len(seen)
        self.common = Counter(word for words in seen.values() for word in words)

    def __call__(self, record: Record) -> str:
        """A line about one latent; "never fires" where it does not."""
        if not record.evidence.examples:
            return "never fires"
        parts = []
        tokens = [f"{word.strip() or word!r} ({share:.0%})" for word, share in record.tokens if share >= SHARE]
        parts.append(f"fires on {', '.join(tokens[:LARGEST])}" if tokens else "fires on many different tokens")
        near = self._near({(e.text, e.tokens): e for e in (*record.evidence.examples, *record.sampled)}.values())
        if near:
            parts.append("near " + ", ".join(near[:LARGEST]))
        words = [word.strip() for word, _ in record.evidence.promoted[:LARGEST] if word.strip()]
        if words:
            parts.append("promotes " + ", ".join(words))
        return ", ".join(parts[:2]) + ("; " + "; ".join(parts[2:]) if parts[2:] else "")

    def _near(self, examples: Iterable[Example]) -> list[str]:
        listed = list(examples)
        counts = Counter(word for e in listed for word in find_words(e.tokens, e.peak))
        scored = {word: _surprise(n, len(listed), self.common[word], self.n) for word, n in counts.items()}
        return sorted((w for w, g in scored.items() if g >= 10.8), key=lambda w: (-scored[w], w))


def find_words(tokens: tuple[str, ...], peak: int) -> frozenset[str]:
    """Whole words of letters near the peak, the one that the peak itself is part of left out.

    Examples:
        >>> sorted(find_words((" the", " red", " br", "idge"), 3))
        ['red', 'the']
    """
    start, end = max(0, peak - NEAR), min(len(tokens), peak + 1 + NEAR)
    words = [*_uncut(tokens, start, peak), *_uncut(tokens, peak + 1, end)]
    plain = (word.strip(".,;:!?\"'()").casefold() for word in words)
    return frozenset(word for word in plain if len(word) > 2 and word.isalpha())


def _uncut(tokens: tuple[str, ...], start: int, end: int) -> list[str]:
    """The words of some tokens, one that goes on outside of them marked by a NUL."""
    text = "".join(tokens[start:end])
    before = "" if start == 0 or text[:1].isspace() else "\0"
    after = "" if end == len(tokens) or tokens[end][:1].isspace() else "\0"
    return f"{before}{text}{after}".split()


def _surprise(n: int, of: int, common: int, all_of: int) -> float:
    """The G-statistic of finding a word in n of so many examples, at the rate it has among all; 0 if not above it."""
    q, p = n / of, min(max(common, 1) / max(all_of, 1), 1 - 1e-9)
    if q <= p:
        return 0.0
    rest = (1 - q) * math.log((1 - q) / (1 - p)) if q < 1 else 0.0
    return 2 * of * (q * math.log(q / p) + rest)
