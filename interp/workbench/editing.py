"""Editing facts: an edit with what it would change, applied, and undone bit for bit."""

import warnings

from hooks.fingerprint import fingerprint
from interp.memory import Edit, Fact, conflicts, preview
from interp.memory.editors.registry import make_editors
from interp.workbench.arguments import EditArguments, NamedArguments
from interp.workbench.log import Entry
from interp.workbench.progress import Document, Progress
from interp.workbench.session import Session


def make_edit(session: Session, given: EditArguments, progress: Progress) -> Document:
    """An edit of a fact, not applied yet, with what it would change most."""
    fact = Fact(given.subject, given.prompt, given.old, given.new)
    editors, place = make_editors(session.model, [given.method], [fact], progress=False)
    progress.check()
    edit = editors[given.method](session.model, [fact])
    progress.check()
    seen = preview(session.model, edit, progress=False)
    number = 1 + sum(entry.kind == "edit" for entry in session.entries)
    while f"edit_{number}" in session.edits:
        number += 1
    name = f"edit_{number}"
    session.edits[name] = edit
    value = [[one.text, one.kl, one.control] for one in seen.texts]
    code = (
        f"fact = Fact({given.subject!r}, {given.prompt!r}, {given.old!r}, {given.new!r})\n"
        f"editors, place = make_editors(model, [{given.method!r}], [fact], progress=False)\n"
        f"{name} = editors[{given.method!r}](model, [fact])\n"
        f"value = [[one.text, one.kl, one.control] for one in preview(model, {name}).texts]"
    )
    session.record(Entry("edit", given.model_dump(), code, value))
    moved = [
        {"text": m.text, "kl": m.kl, "control": m.control, "before": m.before, "after": m.after} for m in seen.texts
    ]
    said = {"name": name, "method": edit.method, "fact": fact.text, "moved": moved, "place": str(place or "")}
    return said | {"conflicts": _conflicts(session, edit)}


def apply_edit(session: Session, given: NamedArguments, progress: Progress) -> Document:
    """The edit in the weights, and what the model says to its prompts before and with it."""
    edit = session.edit(given.name)
    prompts = [fact.text for fact in edit.facts]
    before = session.model.generate(prompts, max_new_tokens=8)
    against = _conflicts(session, edit)
    progress.check()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the page shows what it says
        edit.apply(session.model)
    session.applied.append(given.name)
    value = session.model.generate(prompts, max_new_tokens=8)
    code = f"{given.name}.apply(model)\nvalue = model.generate({prompts!r}, max_new_tokens=8)"
    session.record(Entry("apply", given.model_dump(), code, value))
    return {"prompts": prompts, "before": before, "after": value, "applied": session.applied, "conflicts": against}


def undo_edit(session: Session, given: NamedArguments, progress: Progress) -> Document:
    """The edit out of the weights again; with the last one gone they are bit for bit what they were."""
    edit = session.edit(given.name)
    progress.check()
    edit.undo(session.model)
    session.applied.remove(given.name)
    value = fingerprint(session.model.hf) == edit.fingerprint
    code = f"{given.name}.undo(model)\nvalue = fingerprint(model.hf) == {given.name}.fingerprint"
    session.record(Entry("undo", given.model_dump(), code, value))
    return {"identical": value, "applied": session.applied}


def _conflicts(session: Session, edit: Edit) -> list[str]:
    """What speaks against having an edit in the model with those that are in it."""
    return [said for name in session.applied for said in conflicts([session.edits[name], edit])]
