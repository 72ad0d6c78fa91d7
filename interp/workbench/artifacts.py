"""What a session made and keeps as long as its server runs: graphs that were drawn, and files to take away."""

from dataclasses import dataclass, field
from typing import Final, final
from uuid import uuid4

from hooks.errors import OutOfRange, UnknownName, nearest
from interp.graphs import AttributionGraph

FILES: Final = 20
GRAPHS: Final = 8
"""How many are kept; older ones are let go."""


@final
@dataclass(eq=False)
class Artifacts:
    """Graphs by name, and files by id, the latest of each."""

    graphs: dict[str, AttributionGraph] = field(default_factory=dict)
    files: dict[str, tuple[str, bytes]] = field(default_factory=dict)

    def keep_graph(self, name: str, graph: AttributionGraph) -> None:
        """Keep a graph, and let go of the oldest one where there are too many."""
        self.graphs[name] = graph
        while len(self.graphs) > GRAPHS:
            del self.graphs[next(iter(self.graphs))]

    def graph(self, name: str) -> AttributionGraph:
        """A graph that was drawn.

        Raises:
            UnknownName: none of that name is kept.
        """
        if name not in self.graphs:
            there = nearest(name, self.graphs) if self.graphs else "none"
            raise UnknownName(f"no graph is called {name!r}; there is {there}: draw it again")
        return self.graphs[name]

    def keep_file(self, name: str, content: bytes) -> str:
        """Keep a file, and return the id by which it is taken away."""
        file = uuid4().hex
        self.files[file] = (name, content)
        while len(self.files) > FILES:
            del self.files[next(iter(self.files))]
        return file

    def file(self, file: str) -> tuple[str, bytes]:
        """The name and content of a file.

        Raises:
            OutOfRange: there is none of that id.
        """
        if file not in self.files:
            raise OutOfRange(f"there is no file {file[:40]!r}: it was let go, or the server was started again")
        return self.files[file]
