"""Opening a workbench: a server on this machine's own address, with a token, next to a notebook or script."""

import importlib
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, final

from hooks import Direction, Model
from hooks.errors import InvalidArgument, MissingExtra, StorageFailed
from interp.features import FeatureIndex
from interp.graphs import Transcoders
from interp.memory import Edit
from interp.sae import SAE
from interp.workbench.archive import unpack_session
from interp.workbench.jobs import Jobs
from interp.workbench.session import FILE, Session

LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")


@final
class Workbench:
    """A page that is being served; `close` ends it and takes every edit out of the model.

    Attributes:
        url: the address to open, token included. Whoever has it can steer and edit the model.
    """

    def __init__(self, make: Callable[[], Session], *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._session: Session | None = None
        self._jobs, self._server, app = _application(make, self._loaded)
        self._socket = _bind(host, port)
        self.port = self._socket.getsockname()[1]
        self.token = secrets.token_urlsafe(32)
        names = LOOPBACK if host in ("127.0.0.1", "localhost", "::1") else (*LOOPBACK, host)
        hosts = frozenset(f"{name}:{self.port}" for name in names)
        self.url = f"http://{'127.0.0.1' if host in ('127.0.0.1', '0.0.0.0') else host}:{self.port}/#{self.token}"
        self._uvicorn = _uvicorn(app(self.token, hosts))
        self._thread = threading.Thread(target=self._uvicorn.run, args=([self._socket],), daemon=True)
        self._thread.start()
        while not self._uvicorn.started and self._thread.is_alive():
            time.sleep(0.01)

    def __repr__(self) -> str:
        return f"Workbench({self.url.partition('#')[0]!r}, {'closed' if not self._thread.is_alive() else 'open'})"

    def _repr_html_(self) -> str:
        return f'<iframe src="{self.url}" title="Workbench" width="100%" height="800" style="border:0"></iframe>'

    def _loaded(self, session: Session) -> None:
        self._session = session

    @property
    def session(self) -> Session | None:
        """What the page works on; None while it is loaded."""
        return self._session

    def wait(self) -> None:
        """Stay until the server ends, as Ctrl-C ends it."""
        while self._thread.is_alive():
            self._thread.join(0.2)

    def close(self) -> None:
        """End the server and what runs, and take every edit out of the model."""
        self._jobs.close()
        self._uvicorn.should_exit = True
        self._thread.join(timeout=10)
        if self._session is not None:
            self._session.close()


def open(  # noqa: A001
    model: Model,
    *,
    saes: Mapping[str, SAE] | None = None,
    indexes: Mapping[str, FeatureIndex] | None = None,
    directions: Mapping[str, Direction] | None = None,
    edits: Mapping[str, Edit] | None = None,
    transcoders: Mapping[str, Transcoders] | None = None,
    session: str | Path | None = None,
    port: int = 0,
) -> Workbench:
    """Open a page on which one reads, steers, edits and traces a model, and every action is logged as Python.

    It is served on this machine's own address only, and a notebook shows it inline.

    Args:
        model: the model. Edits that are applied on the page are in it until they are undone or the page is closed.
        saes: dictionaries by name.
        indexes: what is known of their latents, by the dictionaries' names.
        directions: directions by name.
        edits: edits by name.
        transcoders: transcoders by name, for attribution graphs.
        session: a folder in which the log and the edits are kept, and found again; or the file of a shared session,
            which is opened into a folder of that name next to it.
        port: where; a free one if 0.

    Raises:
        InvalidArgument: an index without its dictionary.
        MissingExtra: starlette and uvicorn are not installed.
        StorageFailed: the port is taken.

    Examples:
        ```python
        page = workbench.open(model, saes={"main": sae}, indexes={"main": index})
        page.url
        page.close()
        ```
    """
    lost = sorted(set(indexes or {}) - set(saes or {}))
    if lost:
        raise InvalidArgument(f"the index {lost[0]!r} has no dictionary of that name: give it in saes")
    made = Session(
        model,
        dict(saes or {}),
        dict(indexes or {}),
        dict(directions or {}),
        dict(edits or {}),
        None if session is None else session_folder(session),
        transcoders=dict(transcoders or {}),
    )
    return Workbench(lambda: made, port=port)


def session_folder(session: str | Path) -> Path:
    """The folder of a session; that of a shared file is made the first time.

    Raises:
        DamagedFile: the file is no shared session.
    """
    path = Path(session)
    if path.suffix != ".zip":
        return path
    folder = path.with_suffix("")
    return folder if (folder / FILE).is_file() else unpack_session(path, folder)


def _application(make: Callable[[], Session], loaded: Callable[[Session], None]) -> tuple[Any, Any, Any]:
    """The queue, the server and its application; the session is made as the queue's first job."""
    try:
        server_module = importlib.import_module(f"{__package__}.server")  # an extra brings what it needs
    except ImportError as error:
        raise MissingExtra(
            "the workbench needs starlette and uvicorn: pip install 'interp-workbench[workbench]'"
        ) from error
    jobs = Jobs()
    server = server_module.Server(jobs)

    def load(_job: Any) -> dict[str, Any]:
        try:
            server.session = make()
        except Exception as error:
            server.loading = f"failed: {error}"
            raise
        loaded(server.session)
        return {}

    jobs.submit(load)
    return jobs, server, server.app


def _uvicorn(app: Any) -> Any:
    import uvicorn

    config = uvicorn.Config(app, log_level="error", access_log=False, server_header=False, timeout_graceful_shutdown=2)
    return uvicorn.Server(config)


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # of this protocol asyncio sends at once
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise StorageFailed(f"nothing can listen at {host}:{port} ({error.strerror}): give another --port") from error
    return bound
