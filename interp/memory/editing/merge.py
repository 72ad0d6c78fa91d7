"""Edits for good: a Hugging Face folder whose weights hold them, which plain transformers loads."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from hooks import Model
from hooks.disk import check_new_folder, write_folder
from hooks.errors import InvalidArgument
from interp.memory.editing.edit import Edit


def merge(model: Model, edits: Sequence[Edit], folder: Path) -> None:
    """Write the model with these edits in its weights, and its tokenizer; the model itself is left as it is.

    Raises:
        InvalidArgument: no edits, an edit that changes no weight, or one of another model; a folder that holds
            something.

    Warns:
        UserWarning: edits that conflict, as `conflicts` says.

    Examples:
        ```python
        merge(model, [edit], Path("edited"))
        transformers.AutoModelForCausalLM.from_pretrained("edited")
        ```
    """
    check_new_folder(folder)
    if not edits:
        raise InvalidArgument("no edits were given to merge: give at least one")
    for edit in edits:
        if len(edit.weights) < len(edit.updates) or not edit.updates:
            raise InvalidArgument(
                f"an edit by {edit.method} changes no weight, so it cannot be merged: take rome or memit"
            )
    with ExitStack() as stack:
        for edit in edits:
            stack.enter_context(edit.applied(model))
        with write_folder(folder) as partial:
            model.hf.save_pretrained(partial)
            if model.tokenizer is not None:
                model.tokenizer.save_pretrained(partial)
    rights = (folder / "config.json").stat().st_mode
    for weights in folder.glob("*.safetensors"):
        weights.chmod(rights)  # safetensors writes for its owner alone
