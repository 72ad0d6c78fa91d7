"""An object store at bucket://, in memory: a file arrives when all of it was sent, as on S3."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractBufferedFile


@dataclass
class Record:
    """The files that were begun, and the paths of those that arrived."""

    opened: list[Any] = field(default_factory=list)
    arrived: list[str] = field(default_factory=list)


def open_bucket(breaks_after: int) -> Record:
    """An empty bucket whose line is cut once more files than that have arrived."""
    seen = Record()

    class Upload(AbstractBufferedFile):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)
            seen.opened.append(self)

        def _initiate_upload(self) -> None:
            if len(seen.arrived) > breaks_after:
                raise OSError("the line was cut")

        def _upload_chunk(self, final: bool = False) -> bool:
            if final:
                self.fs.pipe_file(self.path, self.buffer.getvalue())
                seen.arrived.append(self.path)
            return final

    class Bucket(MemoryFileSystem):
        protocol = "bucket"
        store: ClassVar[dict[str, object]] = {}
        pseudo_dirs: ClassVar[list[str]] = [""]

        def _open(self, path: str, mode: str = "rb", **_: object) -> object:
            if mode == "wb":
                return Upload(self, self._strip_protocol(path), mode)
            return super()._open(path, mode)

        def cat_file(
            self, path: str, version_id: None = None, start: int | None = None, end: int | None = None
        ) -> bytes:
            assert version_id is None, "as s3fs has it, what comes after the path is a version, and no place"
            return super().cat_file(path, start=start, end=end)

        def pipe_file(self, path: str, value: bytes, **_: object) -> None:
            with super()._open(path, "wb") as file:
                file.write(value)

    fsspec.register_implementation("bucket", Bucket, clobber=True)
    Bucket.clear_instance_cache()
    return seen
