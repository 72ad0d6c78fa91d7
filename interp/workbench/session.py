"""What a workbench works on: a model, dictionaries, indexes, directions and edits, and the log of what was done."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, final

from typing_extensions import TypedDict

from hooks import Direction, Model
from hooks.errors import InvalidArgument, UnknownName, nearest
from hooks.json_file import Kind, read_json, write_json
from interp.features import FeatureIndex
from interp.graphs import Transcoders
from interp.memory import Edit
from interp.sae import SAE
from interp.workbench.artifacts import Artifacts
from interp.workbench.log import Entry, write_notebook, write_script
from interp.workbench.search import LabelTable


class SessionHeader(TypedDict):
    """What the file of a session says."""

    fingerprint: str
    entries: list[dict[str, Any]]
    applied: list[str]


KIND: Final = Kind("interp.workbench", "session of the workbench", "the workbench", SessionHeader)
FILE: Final = "session.json"


@final
@dataclass(eq=False)
class Session:
    """One model and all that a page may use with it, named by what the command line or a notebook gave.

    Attributes:
        model: the model.
        saes: dictionaries by name, each with what loads it in a line of Python.
        indexes: what is known of their latents, by the dictionary's name.
        directions: directions by name.
        edits: edits by name; those that are on are `applied`.
        transcoders: transcoders by name.
        made: graphs and files, as long as the server runs.
        folder: where the session is kept; None where it is not.
        origins: for each name, the Python that gives the same object.
        entries: what was done.
    """

    model: Model
    saes: dict[str, SAE] = field(default_factory=dict)
    indexes: dict[str, FeatureIndex] = field(default_factory=dict)
    directions: dict[str, Direction] = field(default_factory=dict)
    edits: dict[str, Edit] = field(default_factory=dict)
    folder: Path | None = None
    origins: dict[str, str] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    applied: list[str] = field(default_factory=list)
    labels: dict[str, LabelTable] = field(default_factory=dict)
    transcoders: dict[str, Transcoders] = field(default_factory=dict)
    made: Artifacts = field(default_factory=Artifacts)

    def __post_init__(self) -> None:
        for name, index in self.indexes.items():
            self.labels[name] = LabelTable.of(index)
        if self.folder is not None and (self.folder / FILE).is_file():
            self._restore(self.folder)

    @property
    def head(self) -> str:
        """The Python that loads what the session works on."""
        lines = [f"model = {self.origins.get('model', f'load({self.model.name!r})')}"]
        for group in ("saes", "indexes", "directions", "transcoders", "edits"):
            for name in getattr(self, group):
                called = name_of(group, name)
                if origin := self.origins.get(f"{group}.{name}"):
                    lines.append(f"{called} = {origin}")
                elif group != "edits":
                    lines.append(f"# {called}: {group}[{name!r}], which was given as an object")
        return "\n".join(lines)

    def sae(self, name: str) -> SAE:
        """A dictionary by its name.

        Raises:
            UnknownName: there is none of that name.
        """
        return self._named(self.saes, name, "dictionary")

    def direction(self, name: str) -> Direction:
        """A direction by its name.

        Raises:
            UnknownName: there is none of that name.
        """
        return self._named(self.directions, name, "direction")

    def edit(self, name: str) -> Edit:
        """An edit by its name.

        Raises:
            UnknownName: there is none of that name.
        """
        return self._named(self.edits, name, "edit")

    def transcoders_of(self, name: str) -> Transcoders:
        """Transcoders by their name.

        Raises:
            UnknownName: there are none of that name.
        """
        return self._named(self.transcoders, name, "set of transcoders")

    def record(self, entry: Entry) -> None:
        """Keep an action in the log, and on disk where the session is kept."""
        self.entries.append(entry)
        self.save()

    def save(self) -> None:
        """Write the log and the edits to the session's folder, if it has one."""
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.write(self.folder)

    def write(self, folder: Path) -> None:
        """Write the log and the edits to a folder."""
        for name, edit in self.edits.items():
            edit.save(folder / f"{name}.safetensors")
        entries = [vars(entry) | {"given": dict(entry.given)} for entry in self.entries]
        content = {"fingerprint": self._unedited(), "entries": entries, "applied": self.applied}
        write_json(folder / FILE, KIND, content)

    def script(self) -> str:
        """The session as a Python file."""
        return write_script(self.head, self.entries)

    def notebook(self) -> str:
        """The session as a notebook."""
        return write_notebook(self.head, self.entries)

    def close(self) -> None:
        """Take every edit out again, so that the model is as it was given."""
        while self.applied:
            self.edits[self.applied.pop()].undo(self.model)

    def _restore(self, folder: Path) -> None:
        said = read_json(folder / FILE, KIND)
        if said["fingerprint"] != self.model.fingerprint:
            raise InvalidArgument(
                f"{folder} keeps a session with another model than {self.model.name}: name another folder"
            )
        self.entries = [Entry(**entry) for entry in said["entries"]]
        for file in sorted(folder.glob("*.safetensors")):
            self.edits.setdefault(file.stem, Edit.load(file))
        for name in said["applied"]:
            self.edit(name).apply(self.model)
            self.applied.append(name)

    def _unedited(self) -> str:
        """The fingerprint of the model without what is applied."""
        return next((self.edits[name].fingerprint for name in self.applied), self.model.fingerprint)

    def _named(self, held: Mapping[str, Any], name: str, what: str) -> Any:
        if name not in held:
            raise UnknownName(f"no {what} is called {name!r}; there is {nearest(name, held) if held else 'none'}")
        return held[name]


def name_of(group: str, name: str) -> str:
    """How a thing is called in the log's Python: `sae_main`, `edit_1`."""
    stem = {"saes": "sae", "indexes": "index", "directions": "direction", "edits": "edit"}.get(group, group)
    word = "".join(letter if letter.isalnum() and letter.isascii() else "_" for letter in name)
    return word if word.startswith(f"{stem}_") else f"{stem}_{word}"
