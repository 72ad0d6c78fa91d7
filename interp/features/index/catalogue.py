"""A feature index opened: the record of any latent, and the whole tables."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import torch
from jaxtyping import Int
from torch import Tensor
from typing_extensions import TypedDict

from hooks.disk import Record as FileRecord
from hooks.disk import check_record
from hooks.errors import InvalidArgument, MissingFile, OutOfRange
from hooks.json_file import Kind, read_json
from hooks.summary import summarise
from interp.features.evidence import Evidence, Example

ABOUT = "index.json"


class Origin(TypedDict):
    """What an index was made of."""

    model: str
    fingerprint: str
    weights: str
    site: str
    autoencoder: str
    data: str
    batch_size: int


class IndexHeader(Origin):
    """What an index says of itself: what it was made of, how large it is, and the checksums of its tables."""

    d_sae: int
    d_vocab: int
    top: int
    sampled: int
    context: int
    texts: int
    tokens: int
    files: dict[str, FileRecord]


KIND: Final = Kind("interp.features.index", "feature index", "index", IndexHeader)
Row = dict[str, Any]


@final
@dataclass(frozen=True)
class Record:
    """What an index knows of one latent.

    `evidence` as `collect_evidence` gives it; `sampled` a random sample of the texts it fires on, highest first;
    `second_moment` the mean square of its activations above 0. `tokens` are token types with their share of its
    activation, each at most `token_slack` too small. `positions` counts firings at token 0, 1-2, 3-6, 7-14, ... of a
    text. `partners` are the latents that fire with it, with the Jaccard index of their firings, each at most
    `partner_slack` too small (1 in an index that does not say).
    """

    evidence: Evidence
    sampled: tuple[Example, ...]
    second_moment: float
    tokens: tuple[tuple[str, float], ...]
    token_slack: float
    positions: Int[Tensor, "n"]
    partners: tuple[tuple[int, float], ...]
    partner_slack: float = 1.0

    __repr__ = summarise

    @property
    def latent(self) -> int:
        """Its number."""
        return self.evidence.latent

    def __str__(self) -> str:
        words = ", ".join(f"{word!r} {share:.0%}" for word, share in self.tokens[:5])
        others = ", ".join(f"{other} ({j:.2f})" for other, j in self.partners[:5])
        together = f"latents {others}" if others else "no other latent"
        return f"{self.evidence}\nfires on {words or 'no token'}; together with {together}"


@final
@dataclass(frozen=True)
class FeatureIndex:
    """An index that `index` wrote; `about` says what of, and any tool that knows parquet can read `tables`.

    Examples:
        ```python
        found = FeatureIndex.open("index")
        len(found), found.record(17).tokens
        ```
    """

    folder: Path
    about: dict[str, Any]

    __repr__ = summarise

    @staticmethod
    def open(folder: str | Path) -> "FeatureIndex":
        """Open an index, by its own folder or by the one that `interp discover` wrote it in.

        Raises:
            MissingFile: the folder holds none, or one that is not finished.
            DamagedFile: it is torn or changed.
        """
        places = Path(folder), Path(folder) / "index"
        folder = next((place for place in places if (place / ABOUT).exists()), folder)
        file = Path(folder) / ABOUT
        if not file.exists():
            raise MissingFile(
                f"{folder} holds no finished feature index: make one with index(sae, model, data), or by "
                "`interp discover`"
            )
        about = read_json(file, KIND)
        for name, recorded in about.pop("files").items():
            check_record(Path(folder) / name, recorded, f"remove {folder} and make the index again")
        return FeatureIndex(Path(folder), about)

    def __len__(self) -> int:
        return int(self.about["d_sae"])

    def table(self, name: str, latent: int | None = None) -> Any:
        """One of the tables "latents", "examples", "coactivation" as a pyarrow table: all of it, or a latent's rows.

        Raises:
            InvalidArgument: there is no such table.
        """
        from pyarrow import parquet

        file = self.folder / f"{name}.parquet"
        if not file.exists():
            raise InvalidArgument(f"an index has no table '{name}': it has 'latents', 'examples' and 'coactivation'")
        return parquet.read_table(file, filters=None if latent is None else [("latent", "=", latent)])

    def record(self, latent: int) -> Record:
        """What is known of one latent.

        Raises:
            OutOfRange: the latent does not exist.
        """
        return self.records([latent])[0]

    def records(self, latents: Sequence[int]) -> tuple[Record, ...]:
        """What is known of some latents, in their order, from one reading of each table.

        Raises:
            OutOfRange: one of them does not exist.
        """
        for latent in latents:
            if not 0 <= latent < len(self):
                raise OutOfRange(f"latent {latent} does not exist; this index has latents 0 to {len(self) - 1}")
        rows, examples, partners = (self._rows(name, latents) for name in ("latents", "examples", "coactivation"))
        return tuple(_record(rows[i][0], examples[i], partners[i], int(self.about["tokens"])) for i in latents)

    def _rows(self, name: str, latents: Sequence[int]) -> dict[int, list[Row]]:
        """The rows of some latents; of the table only the row groups that may hold them are read."""
        import pyarrow as pa
        from pyarrow import parquet

        grouped: dict[int, list[Row]] = {latent: [] for latent in latents}
        with parquet.ParquetFile(self.folder / f"{name}.parquet") as file:
            ordered = sorted(grouped)
            near = [group for group in range(file.num_row_groups) if _may_hold(file.metadata.row_group(group), ordered)]
            table = file.read_row_groups(near)
        kept = pa.array([latent in grouped for latent in table["latent"].to_pylist()], pa.bool_())
        for row in table.filter(kept).to_pylist():
            grouped[row["latent"]].append(row)
        return grouped


def _may_hold(group: Any, latents: Sequence[int]) -> bool:
    """Whether one of some latents, in order, is between the first and the last of a row group."""
    bounds = group.column(0).statistics
    if not group.num_rows or bounds is None:
        return bool(group.num_rows)
    following = bisect_left(latents, bounds.min)
    return following < len(latents) and latents[following] <= bounds.max


def _record(row: Row, examples: list[Row], partners: list[Row], tokens: int) -> Record:
    kinds = {kind: tuple(_example(e) for e in examples if e["kind"] == kind) for kind in ("top", "sampled")}
    return Record(
        evidence=_evidence(row, kinds["top"], tokens),
        sampled=kinds["sampled"],
        second_moment=row["second_moment"],
        tokens=tuple(zip(row["tokens"], row["token_mass"], strict=True)),
        token_slack=row["token_slack"],
        positions=torch.tensor(row["positions"]),
        partners=tuple(sorted(((p["other"], p["jaccard"]) for p in partners), key=lambda pair: -pair[1])),
        partner_slack=row.get("partner_slack", 1.0),
    )


def _example(row: Row) -> Example:
    return Example(row["text"], tuple(row["tokens"]), tuple(row["activations"]), row["peak"])


def _evidence(row: Row, examples: tuple[Example, ...], tokens: int) -> Evidence:
    return Evidence(
        latent=row["latent"],
        examples=examples,
        counts=torch.tensor(row["counts"]),
        edges=torch.linspace(0, row["top"], len(row["counts"]) + 1),
        firing_rate=row["firing_rate"],
        mean=row["mean"],
        largest=row["largest"],
        tokens=tokens,
        promoted=tuple(zip(row["promoted"], row["promoted_logits"], strict=True)),
        suppressed=tuple(zip(row["suppressed"], row["suppressed_logits"], strict=True)),
    )
