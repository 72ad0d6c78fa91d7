"""Archives: a folder as one file to take away, and a shared session, of which each part is checked as it is opened."""

import io
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from hooks.disk import check_new_folder, write_folder, write_text
from hooks.errors import DamagedFile
from interp.workbench.session import FILE, Session

LARGEST: Final = 1 << 30
"""Bytes that an archive may hold when it is opened."""


def zip_folder(folder: Path) -> bytes:
    """The files of a folder as one archive.

    Examples:
        ```python
        Path("adapter.zip").write_bytes(zip_folder(Path("adapter")))
        ```
    """
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, str(file.relative_to(folder)))
    return made.getvalue()


def pack_session(session: Session) -> bytes:
    """The session as an archive, which `unpack_session` makes a folder of again.

    Examples:
        ```python
        Path("session.zip").write_bytes(pack_session(session))
        ```
    """
    with TemporaryDirectory() as made:
        folder = Path(made)
        session.write(folder)
        write_text(folder / "session.ipynb", session.notebook())
        write_text(folder / "session.py", session.script())
        return zip_folder(folder)


def unpack_session(path: str | Path, folder: str | Path) -> Path:
    """Write what a workbench needs of a shared session to a new folder, and return it.

    Only the log and the edits are taken, and nothing of them is run: no file of another name, and no path. Opening the
    folder checks that each is whole, and that the model is the one the session was made with.

    Raises:
        DamagedFile: the file is no archive of a session, or one that holds more than a gigabyte.
        InvalidArgument: the folder holds something.

    Examples:
        ```python
        workbench.open(model, session=unpack_session("session.zip", "shared"))
        ```
    """
    check_new_folder(folder)
    try:
        with zipfile.ZipFile(path) as archive:
            kept = [one for one in archive.infolist() if one.filename == FILE or _is_edit(one.filename)]
            if sum(one.file_size for one in kept) > LARGEST:
                raise DamagedFile(
                    f"{path} holds more than {LARGEST:,} bytes: a session is smaller, so it was not opened"
                )
            found = {one.filename: archive.read(one) for one in kept}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise DamagedFile(f"{path} is no whole archive ({error}): have it sent again") from error
    if FILE not in found:
        raise DamagedFile(f"{path} holds no {FILE}, so it is no shared session: take one that a workbench downloaded")
    with write_folder(folder) as being_written:
        for name, content in found.items():
            with (being_written / name).open("wb") as file:
                file.write(content)
    return Path(folder)


def _is_edit(name: str) -> bool:
    return name.endswith(".safetensors") and Path(name).name == name and "\\" not in name and not name.startswith(".")
