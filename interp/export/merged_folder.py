"""A model with its edits as a plain Hugging Face folder, loaded back by transformers alone and compared."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from hooks import Model
from hooks.plurals import count_of
from interp.export.client import compare_logits, own_logits, plain_logits
from interp.export.report import ExportReport
from interp.memory.editing.edit import Edit, suspend_edits
from interp.memory.editing.merge import merge


def to_folder(model: Model, edits: Sequence[Edit], folder: str | Path, *, prompts: Sequence[str] = ()) -> ExportReport:
    """Write the model with these edits in its weights, load it with transformers, and compare the logits.

    Args:
        model: the model; it is left as it is.
        edits: what its weights are to hold, and nothing else: edits that are applied now are left out.
        folder: where to write; it must be new or empty.
        prompts: what to compare logits on; the edited facts' own prompts where none are given.

    Raises:
        InvalidArgument: no edits, one that changes no weight, or one of another model; a folder that holds something.
        WrongState: what transformers loads does not hold the edits.

    Cost: three forward passes a prompt, and memory for a second copy of the model.

    Examples:
        ```python
        print(to_folder(model, [edit], "edited"))
        ```
    """
    asked = list(prompts) or list(dict.fromkeys(fact.text for edit in edits for fact in edit.facts))
    with suspend_edits(model):
        merge(model, edits, Path(folder))
        plain = own_logits(model, asked)
        with ExitStack() as stack:
            for edit in edits:
                stack.enter_context(edit.applied(model))
            ours = own_logits(model, asked)
    import transformers

    loaded = type(model.hf).from_pretrained(folder, dtype=model.dtype).to(model.device).eval()
    what = f"{model.name} with {count_of(len(edits), 'edit')} as a folder"
    report = ExportReport(what, tuple(sorted(Path(folder).iterdir())), lost=_say_lost(model))
    theirs = plain_logits(loaded, model, asked)
    return compare_logits(report, f"transformers {transformers.__version__}", plain=plain, ours=ours, theirs=theirs)


def _say_lost(model: Model) -> tuple[str, ...]:
    if torch.finfo(model.dtype).bits >= 32:
        return ()
    return (f"what of the edits is below half a step of {model.dtype}, the type of these weights",)
