"""The server: a thin layer, in which every route calls one action of the session through the queue."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from hooks.errors import InterpError, OutOfRange
from interp.common.json_values import plain
from interp.workbench.actions import ACTIONS, check_given
from interp.workbench.archive import pack_session
from interp.workbench.jobs import Job, Jobs, QueueFull
from interp.workbench.security import Guard
from interp.workbench.session import Session

PAGE: Final = Path(__file__).parent / "page"
FILES: Final = {"/": "index.html", "/app.js": "app.js", "/graph.js": "graph.js", "/style.css": "style.css"}
CHECKED: Final = 0.5
"""Seconds after which a quiet stream looks whether anybody still listens."""
PING: Final = 15.0
STREAM: Final = "text/event-stream"


class Server:
    """The application of one session.

    Args:
        jobs: the queue of the model.
    """

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs
        self.session: Session | None = None
        self.loading = "starting"

    def app(self, token: str, hosts: frozenset[str]) -> Guard:
        """The ASGI application, guarded."""
        files = [Route(path, _file(name)) for path, name in FILES.items()]
        api = [
            Route("/api/v1/healthz", self.healthz),
            Route("/api/v1/model", self.model),
            Route("/api/v1/jobs", self.submit, methods=["POST"]),
            Route("/api/v1/jobs/{job}", self.cancel, methods=["DELETE"]),
            Route("/api/v1/jobs/{job}/events", self.events),
            Route("/api/v1/files/{file}", self.file),
            Route("/api/v1/session", self.log),
            Route("/api/v1/session.zip", self.bundle),
            Route("/api/v1/session.py", self.script),
            Route("/api/v1/session.ipynb", self.notebook),
        ]
        return Guard(Starlette(routes=[*files, *api], exception_handlers={InterpError: _problem}), token, hosts)

    async def healthz(self, _request: Request) -> Response:
        """Whether the server runs."""
        return JSONResponse({"ok": True})

    async def model(self, _request: Request) -> Response:
        """What the session works on, or that it is being loaded."""
        if self.session is None:
            return JSONResponse({"state": "loading", "what": self.loading})
        session, model = self.session, self.session.model
        return JSONResponse(
            {
                "state": "ready",
                "name": model.name,
                "n_layers": model.n_layers,
                "d_model": model.d_model,
                "holds": model.contract is None or model.contract.holds,
                "refused": 0 if model.contract is None else len(model.contract.refused),
                "saes": {name: {"site": str(sae.site), "latents": sae.d_sae} for name, sae in session.saes.items()},
                "indexes": list(session.indexes),
                "directions": {name: str(direction.site) for name, direction in session.directions.items()},
                "transcoders": list(session.transcoders),
                "edits": {name: edit.facts[0].text for name, edit in session.edits.items()},
                "applied": session.applied,
                "actions": list(ACTIONS),
            }
        )

    async def submit(self, request: Request) -> Response:
        """Queue an action; its arguments are checked before it waits.

        A client that accepts `text/event-stream` gets the events of the job at once; any other gets its id.
        """
        try:
            asked = await request.json()
        except (ValueError, ClientDisconnect):
            return _problem_of(400, "the body is no JSON")
        if not isinstance(asked, dict) or set(asked) != {"kind", "args"}:
            return _problem_of(400, 'expected {"kind": …, "args": {…}}')
        if (session := self.session) is None:
            return _problem_of(503, "the model is being loaded: wait until it is there")
        kind = str(asked["kind"])
        given = check_given(kind, asked["args"])
        reader = _Reader() if STREAM in request.headers.get("accept", "") else None
        try:
            job, position = self.jobs.submit(
                lambda running: plain(ACTIONS[kind].run(session, given, running)), reader and reader.wake
            )
        except QueueFull as error:
            return _problem_of(429, str(error))
        if reader is not None:
            return StreamingResponse(_stream(request, job, 0, reader), media_type=STREAM)
        return JSONResponse({"id": job.id, "position": position}, status_code=202)

    async def cancel(self, request: Request) -> Response:
        """Stop a job."""
        self.jobs.job(request.path_params["job"]).cancel()
        return JSONResponse({"cancelled": True})

    async def events(self, request: Request) -> Response:
        """The events of a job from one number on, as they come."""
        job = self.jobs.job(request.path_params["job"])
        last = request.headers.get("last-event-id", "-1")
        start = int(last) + 1 if last.lstrip("-").isdigit() else 0
        return StreamingResponse(_stream(request, job, start, _Reader()), media_type=STREAM)

    async def log(self, _request: Request) -> Response:
        """What was done, and the Python of it."""
        session = self._ready()
        entries = [{"kind": e.kind, "given": dict(e.given), "code": e.code} for e in session.entries]
        return JSONResponse({"head": session.head, "entries": entries, "applied": session.applied})

    async def script(self, _request: Request) -> Response:
        """The session as a Python file."""
        return PlainTextResponse(self._ready().script(), headers=_download("session.py"))

    async def notebook(self, _request: Request) -> Response:
        """The session as a notebook."""
        return Response(
            self._ready().notebook(), media_type="application/x-ipynb+json", headers=_download("session.ipynb")
        )

    async def bundle(self, _request: Request) -> Response:
        """The session as one file: its log, notebook, script and edits."""
        content = pack_session(self._ready())
        return Response(content, media_type="application/zip", headers=_download("session.zip"))

    async def file(self, request: Request) -> Response:
        """A file that an export made."""
        name, content = self._ready().made.file(request.path_params["file"])
        return Response(content, media_type="application/octet-stream", headers=_download(name))

    def _ready(self) -> Session:
        if self.session is None:
            raise OutOfRange("the model is being loaded: wait until it is there")
        return self.session


class _Reader:
    """Waits on the server's loop for what the thread of the jobs sends."""

    def __init__(self) -> None:
        self.loop, self.woken = asyncio.get_running_loop(), asyncio.Event()

    def wake(self) -> None:
        """End the wait, from another thread."""
        with suppress(RuntimeError):  # the loop ended meanwhile
            self.loop.call_soon_threadsafe(self.woken.set)

    async def wait(self) -> None:
        """Wait until there is an event, or it is time to look whether anybody still listens."""
        with suppress(TimeoutError, asyncio.TimeoutError):
            await asyncio.wait_for(self.woken.wait(), CHECKED)


async def _stream(request: Request, job: Job, start: int, reader: _Reader) -> AsyncIterator[str]:
    """Server-sent events, with a comment now and then so that nothing between takes the connection for dead."""
    said = time.monotonic()
    with job.waking(reader.wake):
        while not await request.is_disconnected():
            reader.woken.clear()
            for number, event, data in job.events[start:]:
                yield f"id: {number}\nevent: {event}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
                start, said = number + 1, time.monotonic()
            job.mark_read()
            if job.ended is not None and start >= len(job.events):
                return
            await reader.wait()
            if time.monotonic() - said > PING:
                yield ": still here\n\n"
                said = time.monotonic()


def _file(name: str) -> Any:
    async def answer(_request: Request) -> Response:
        return FileResponse(PAGE / name)

    return answer


def _download(name: str) -> dict[str, str]:
    return {"content-disposition": f'attachment; filename="{name}"'}


async def _problem(_request: Request, error: Exception) -> Response:
    status = 404 if isinstance(error, OutOfRange) else 422
    return _problem_of(status, " ".join(str(error).split()), type(error).__name__)


def _problem_of(status: int, detail: str, title: str = "") -> Response:
    content = {"type": "about:blank", "status": status, "title": title, "detail": detail}
    return JSONResponse(content, status_code=status, media_type="application/problem+json")
