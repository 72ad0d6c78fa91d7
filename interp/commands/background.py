"""The texts that commands on feed-forward memories read: the user's, or the bundled model's own kind."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from hooks import Model
from hooks.errors import InvalidArgument
from hooks.forward import context
from interp import landmark
from interp.commands.arguments import read_lines
from interp.common.texts import split_long_texts
from interp.memory.editing.contexts import generate_texts

UNSEEN = 1_000_000  # documents from this seed on were never seen by the bundled model
DRIFT, OWN = 40, 60  # texts that drift is measured on, and tokens of each that a model writes itself
CHARACTERS = 400  # of a text on which drift is measured, at most


def check_background(model: str, texts: Path | None) -> None:
    """Refuse a model without texts, unless it is the bundled one, and a file that cannot be read.

    Raises:
        InvalidArgument: another model without a file, or a file without text.
        MissingFile: there is no such file.
    """
    if texts is not None:
        read_lines(texts)
    elif model != "landmark":
        raise InvalidArgument(f"{model} needs texts of the kind it was trained on: give --texts FILE, one per line")


def background(model: Model, texts: Path | None, n: int) -> list[str]:
    """The texts of a file, or `n` documents that the bundled model never saw, cut to its context where longer.

    Raises:
        InvalidArgument: another model without a file, or a file without text.
        MissingFile: there is no such file.

    Examples:
        ```python
        background(load("landmark"), None, 400)
        ```
    """
    check_background(model.name, texts)
    if texts is not None:
        return split_long_texts(model, read_lines(texts))
    return split_long_texts(model, [document.text for document in islice(landmark.documents(UNSEEN), n)])


def drift_texts(model: Model, given: Sequence[str] | None) -> list[str]:
    """Unrelated texts on which an edit should change nothing: the given ones, or new ones of the model's kind.

    The bundled model has unseen documents; another reads what it wrote itself.

    Cost: that of sampling them, for another model.
    """
    if given is None and model.name == "landmark":
        given = [document.text for document in islice(landmark.documents(UNSEEN + 1), DRIFT)]
    return [_half(model, text) for text in (given or generate_texts(model, DRIFT * OWN))[:DRIFT]]


def _half(model: Model, text: str) -> str:
    """The beginning of a text that leaves half of the context to what an edit may put before it."""
    room = context(model.hf)
    tokens = model.tokens(text[:CHARACTERS])
    if room is None or tokens.offsets is None or tokens.ids.shape[1] <= room // 2:
        return text[:CHARACTERS]
    return text[: int(tokens.offsets[0, room // 2, 0])].rstrip()
