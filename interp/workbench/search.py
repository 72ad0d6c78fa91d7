"""Latents of an index by the words of their labels, the tokens they fire on, and the tokens they promote."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final, final

from interp.features import Describer, FeatureIndex, Record

BLOCK: Final = 512
"""How many records are held at once while the labels are made."""


@final
@dataclass(frozen=True)
class LabelTable:
    """The latents of an index that ever fire, those that fire most first, with what a search looks at.

    The records themselves stay on disk: of 8,192 latents they are 190 MB, and their labels 4 MB.

    Attributes:
        latents: their numbers.
        labels: a line about each.
        words: its label, the tokens it fires on and those it promotes, in one case.
        firing_rates: the share of tokens each fires on.
        largest: the largest activation of each.

    Examples:
        ```python
        find_by_label(LabelTable.of(FeatureIndex.open("index")), "bridge")
        ```
    """

    latents: tuple[int, ...]
    labels: tuple[str, ...]
    words: tuple[str, ...]
    firing_rates: tuple[float, ...]
    largest: tuple[float, ...]

    @staticmethod
    def of(index: FeatureIndex) -> "LabelTable":
        """Label all latents of an index that ever fire.

        Cost: one reading of each table for each 512 latents.
        """
        describe = Describer(index)
        rows = [_row(record, describe(record)) for record in _records(index)]
        rows.sort(key=lambda row: (-row[3], row[0]))
        latents, labels, words, rates, largest = zip(*rows, strict=True) if rows else ((), (), (), (), ())
        return LabelTable(latents, labels, words, rates, largest)

    def place(self, latent: int) -> int | None:
        """Where a latent is in the lists; None where it never fires."""
        return self._places.get(latent)

    @cached_property
    def _places(self) -> dict[int, int]:
        return {latent: place for place, latent in enumerate(self.latents)}


def find_by_label(labels: LabelTable, words: str, *, top: int = 50) -> list[int]:
    """The latents whose label, tokens or promoted tokens hold every one of the words, those that fire most first.

    Examples:
        ```python
        find_by_label(LabelTable.of(index), "golden gate")
        ```
    """
    wanted = words.casefold().split()
    held = zip(labels.latents, labels.words, strict=True)
    return [latent for latent, words_held in held if all(word in words_held for word in wanted)][:top]


def _records(index: FeatureIndex) -> Iterator[Record]:
    for start in range(0, len(index), BLOCK):
        block = index.records(range(start, min(start + BLOCK, len(index))))
        yield from (record for record in block if record.evidence.examples)


def _row(record: Record, label: str) -> tuple[int, str, str, float, float]:
    evidence = record.evidence
    tokens = [word for word, _ in (*record.tokens, *evidence.promoted)]
    return record.latent, label, " ".join([label, *tokens]).casefold(), evidence.firing_rate, evidence.largest
