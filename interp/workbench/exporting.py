"""Exports: an edit or a steering in a file that a person takes away, in our form or in another tool's."""

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from interp.export import ExportReport, to_gguf_vector, to_hook_script, to_peft
from interp.steering import Recipe
from interp.workbench.archive import zip_folder
from interp.workbench.arguments import ExportEditArguments, ExportSteeringArguments
from interp.workbench.log import Entry
from interp.workbench.progress import Document, Progress
from interp.workbench.session import Session
from interp.workbench.steering import resolve_direction


def export_edit(session: Session, given: ExportEditArguments, progress: Progress) -> Document:
    """An edit as our own file, or as a LoRA adapter that peft reads."""
    edit = session.edit(given.name)
    progress.check()
    with TemporaryDirectory() as folder:
        if given.form == "edit":
            file = Path(folder) / f"{given.name}.safetensors"
            edit.save(file)
            code = f"{given.name}.save({file.name!r})\nvalue = {given.name}.method"
            made = _Made(file.name, file.read_bytes(), "`Edit.load` and `interp apply` read it", code, edit.method)
        else:
            report = to_peft(session.model, edit, Path(folder) / "adapter")
            code = f"report = to_peft(model, {given.name}, '{given.name}_lora')\nvalue = report.difference"
            made = _Made.of(report, f"{given.name}_lora.zip", zip_folder(Path(folder) / "adapter"), code)
    return made.kept(session, "export_edit", given)


def export_steering(session: Session, given: ExportSteeringArguments, progress: Progress) -> Document:
    """A direction with its dose as a recipe, as a control vector, or as a script of plain hooks."""
    direction, line = resolve_direction(session, given.direction)
    recipe = Recipe(direction, "add", given.direction.dose)
    code = f"recipe = Recipe({line}, 'add', {given.direction.dose!r})\n"
    progress.check()
    with TemporaryDirectory() as folder:
        if given.form == "recipe":
            file = Path(folder) / "recipe.safetensors"
            recipe.save(file)
            code += f"recipe.save({file.name!r})\nvalue = recipe.dose"
            made = _Made(file.name, file.read_bytes(), "`Recipe.load` and `interp steer` read it", code, recipe.dose)
        else:
            name, write = ("vector.gguf", to_gguf_vector) if given.form == "gguf" else ("steer.py", to_hook_script)
            report = write(session.model, [recipe], Path(folder) / name)
            code += f"report = {write.__name__}(model, [recipe], {name!r})\nvalue = report.difference"
            content = zip_folder(Path(folder)) if given.form == "script" else (Path(folder) / name).read_bytes()
            made = _Made.of(report, "steer.zip" if given.form == "script" else name, content, code)
    return made.kept(session, "export_steering", given)


@dataclass(frozen=True)
class _Made:
    """A file to take away, what is said of it, and the Python that writes it, with the value of its last line."""

    name: str
    content: bytes
    said: str
    code: str
    value: float | str | None

    @staticmethod
    def of(report: ExportReport, name: str, content: bytes, code: str) -> "_Made":
        return _Made(name, content, str(replace(report, files=(Path(name),))), code, report.difference)

    def kept(self, session: Session, kind: str, given: ExportEditArguments | ExportSteeringArguments) -> Document:
        session.record(Entry(kind, given.model_dump(), self.code, self.value))
        file = session.made.keep_file(self.name, self.content)
        return {"file": file, "name": self.name, "bytes": len(self.content), "said": self.said}
