"""Latents of an index by the words of their labels, the tokens they fire on, and the tokens they promote."""

from dataclasses import dataclass
from typing import final

from interp.features import Describer, FeatureIndex, Record


@final
@dataclass(frozen=True)
class Labelled:
    """The records of an index with their labels, in memory, so that a search reads nothing from disk.

    Examples:
        ```python
        find_by_label(Labelled.of(FeatureIndex.open("index")), "bridge")
        ```
    """

    records: tuple[Record, ...]
    labels: tuple[str, ...]
    folded: tuple[str, ...]

    @staticmethod
    def of(index: FeatureIndex) -> "Labelled":
        """Read all records of an index that ever fire, most often first.

        Cost: one reading of each table.
        """
        describe = Describer(index)
        records = [record for record in index.records(range(len(index))) if record.evidence.examples]
        records.sort(key=lambda record: (-record.evidence.firing_rate, record.latent))
        labels = tuple(describe(record) for record in records)
        folded = tuple(
            " ".join(
                [label, *(word for word, _ in record.tokens), *(word for word, _ in record.evidence.promoted)]
            ).casefold()
            for record, label in zip(records, labels, strict=True)
        )
        return Labelled(tuple(records), labels, folded)

    def record(self, latent: int) -> tuple[Record, str] | None:
        """The record and label of a latent; None where it never fires."""
        for record, label in zip(self.records, self.labels, strict=True):
            if record.latent == latent:
                return record, label
        return None


def find_by_label(labelled: Labelled, words: str, *, top: int = 50) -> list[int]:
    """The latents whose label, tokens or promoted tokens hold every one of the words, those that fire most first.

    Examples:
        ```python
        find_by_label(Labelled.of(index), "golden gate")
        ```
    """
    wanted = words.casefold().split()
    held = zip(labelled.records, labelled.folded, strict=True)
    return [record.latent for record, folded in held if all(word in folded for word in wanted)][:top]
