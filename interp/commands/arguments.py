"""What commands are given, and what they say of time: models by name, files to read and write, seconds in words."""

from pathlib import Path

from hooks import Model, load
from hooks.errors import InvalidArgument, MissingFile


def opened(model: str) -> Model:
    """The model of this name, loaded without progress bars."""
    silent()
    return load(model)


def silent() -> None:
    """Keep transformers from drawing a progress bar for every model it reads."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()


def lines(path: Path) -> list[str]:
    """The texts of a file, one per line, blank lines left out.

    Errors: `ValueError` when there are none or the file is not UTF-8, `FileNotFoundError` when there is no file.
    """
    if not path.is_file():
        raise MissingFile(f"there is no file {str(path)!r}: give a file with one text per line")
    try:
        found = [line.strip() for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"the file {str(path)!r} is not UTF-8 ({error}): save it as UTF-8 text") from error
    if not found:
        raise InvalidArgument(f"the file {str(path)!r} holds no text: give a file with one text per line")
    return found


def placed(path: Path) -> Path:
    """The same path, in a folder that is there: what a command will write is refused before its work, not after it.

    Errors: `OSError` when the folder cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def spelt(seconds: float) -> str:
    """A time, as roughly as it is known.

    >>> spelt(4), spelt(200), spelt(9000)
    ('less than 10 seconds', 'about 3 minutes', 'about 2.5 hours')
    """
    if seconds < 10:
        return "less than 10 seconds"
    if seconds < 100:
        return f"about {10 * round(seconds / 10):.0f} seconds"
    return f"about {seconds / 60:.0f} minutes" if seconds < 5400 else f"about {seconds / 3600:.1f} hours"
