"""A result's rows as a file that other tools read: Parquet, Arrow or CSV, with what it was made of in its schema."""

import json
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

from hooks.disk import write_file
from hooks.errors import InvalidArgument, InvalidType, nearest
from interp.export.report import ExportReport

FORMATS: Final = (".parquet", ".arrow", ".csv")


@runtime_checkable
class HasRows(Protocol):
    """A result that gives its rows as a pandas table."""

    def to_pandas(self) -> Any:
        """The rows."""


def to_table(result: HasRows, file: str | Path, *, about: dict[str, str] | None = None) -> ExportReport:
    """Write the rows of a result, one column per quantity, in the form that the file's name ends in.

    Parquet and Arrow keep types, and in their metadata the result's kind, its fingerprint where it has one, and
    `about`. CSV keeps the numbers at full precision and nothing else.

    Args:
        result: anything with `to_pandas()`: most results of this library.
        file: a name that ends in `.parquet`, `.arrow` or `.csv`.
        about: what else to say of it, such as units.

    Raises:
        InvalidType: a result without rows.
        InvalidArgument: a name that ends in anything else.

    Examples:
        ```python
        to_table(found, "latents.parquet", about={"score": "AUROC"})
        ```
    """
    if not isinstance(result, HasRows):
        raise InvalidType(f"a {type(result).__name__} has no rows: give a result that has to_pandas()")
    ending = Path(file).suffix
    if ending not in FORMATS:
        raise InvalidArgument(f"{file} ends in {ending!r}; did you mean {nearest(ending, FORMATS)}?")
    import pyarrow

    table = pyarrow.Table.from_pandas(result.to_pandas(), preserve_index=None)
    said = {"interp.result": type(result).__name__, **(about or {})}
    if isinstance(fingerprint := getattr(result, "fingerprint", None), str):
        said["interp.fingerprint"] = fingerprint
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **_bytes(said)})
    with write_file(file) as partial:
        _write(table, partial, ending)
    lost = ("types of columns, and what the table was made of",) if ending == ".csv" else ()
    return ExportReport(f"{table.num_rows:,} rows of a {type(result).__name__}", (Path(file),), lost=lost)


def _bytes(said: dict[str, str]) -> dict[bytes, bytes]:
    return {b"interp": json.dumps(said, sort_keys=True).encode()}


def _write(table: Any, file: Path, ending: str) -> None:
    from pyarrow import csv, feather, parquet

    if ending == ".parquet":
        parquet.write_table(table, file)
    elif ending == ".arrow":
        feather.write_feather(table, str(file), compression="uncompressed")
    else:
        csv.write_csv(table, file)
