"""One queue per model: jobs run one after another on one thread, send events while they run, and can be stopped.

An action changes the whole model while it runs (interventions, edits), so a job, not a pass, holds it.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal, final
from uuid import uuid4

from hooks.errors import InterpError, OutOfRange, WrongState

WAITING: Final = 16
"""How many jobs may wait before more are refused."""
FORGOTTEN: Final = 10.0
"""A job is stopped when nobody has read its events for so many seconds."""
HANDED: Final = 0.005
"""Seconds at most that a job waits until an event is written, as the writing would wait longer while it computes."""
KEPT: Final = 200
"""How many finished jobs are remembered."""
FAULT: Final = "this is a fault of interp, not a mistake of yours: please report it with what the terminal shows"

Document = dict[str, Any]
Ended = Literal["result", "error", "cancelled"]
Work = Callable[["Job"], Document]


class JobCancelled(Exception):
    """Raised inside a job that is to stop."""


class QueueFull(WrongState):
    """No more jobs may wait."""


@final
@dataclass(eq=False)
class Job:
    """One action that waits, runs or ran, and the events it sent.

    Attributes:
        work: what it does.
        id: a name of its own.
        events: number, name and data of each event, in order.
        ended: how it ended; None before.
        wakes: what is called after each event, on the thread that works.
    """

    work: Work
    id: str = field(default_factory=lambda: uuid4().hex)
    events: list[tuple[int, str, Document]] = field(default_factory=list)
    ended: Ended | None = None
    wakes: set[Callable[[], None]] = field(default_factory=set)
    _stop: threading.Event = field(default_factory=threading.Event)
    _written: threading.Event = field(default_factory=threading.Event)
    _read: float | None = None

    def send(self, event: str, data: Document) -> None:
        """Add an event, and wait until who reads them has it."""
        self.add(event, data)
        self._wake()

    def add(self, event: str, data: Document) -> None:
        """Add an event, without a wait: on the thread of the server, or before it began."""
        self.events.append((len(self.events), event, data))

    @contextmanager
    def waking(self, wake: Callable[[], None]) -> Iterator[None]:
        """Inside the block `wake` is called after each event, on the thread that works."""
        self.wakes.add(wake)
        try:
            yield
        finally:
            self.wakes.discard(wake)

    def check(self) -> None:
        """Stop here if the job is cancelled, or nobody has read its events for a while.

        Raises:
            JobCancelled: it is.
        """
        if self._stop.is_set() or (self._read is not None and time.monotonic() - self._read > FORGOTTEN):
            raise JobCancelled

    def cancel(self) -> None:
        """Stop it at its next check; one that waits does not begin."""
        self._stop.set()

    def mark_read(self) -> None:
        """Say that somebody reads its events, and has all there were."""
        self._read = time.monotonic()
        self._written.set()

    def end(self, how: Ended, data: Document) -> None:
        """Add the last event."""
        self.add(how, data)
        self.ended = how
        self._wake()

    def _wake(self) -> None:
        self._written.clear()
        for wake in tuple(self.wakes):
            wake()
        if self.wakes:
            self._written.wait(HANDED)


@final
class Jobs:
    """The queue of one model, and the thread that works it off."""

    def __init__(self) -> None:
        self._queue: queue.Queue[Job | None] = queue.Queue()
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()
        self._waiting: list[Job] = []
        self._thread = threading.Thread(target=self._run, name="workbench", daemon=True)
        self._thread.start()

    def submit(self, work: Work, wake: Callable[[], None] | None = None) -> tuple[Job, int]:
        """Put work at the end of the queue; return its job and how many are before it.

        `wake` is called after each event from the first on, as inside `Job.waking`.

        Raises:
            QueueFull: too many wait.
        """
        job = Job(work)
        if wake is not None:
            job.wakes.add(wake)
        with self._lock:
            if len(self._waiting) >= WAITING:
                raise QueueFull(f"{WAITING} actions wait already: let some end, or stop them")
            position = len(self._waiting)
            self._waiting.append(job)
            self._jobs[job.id] = job
            for old in [one for one in self._jobs.values() if one.ended][: max(0, len(self._jobs) - KEPT)]:
                del self._jobs[old.id]
            job.add("queued", {"id": job.id, "position": position})
            self._queue.put(job)
        return job, position

    def job(self, name: str) -> Job:
        """A job by its id.

        Raises:
            OutOfRange: there is none.
        """
        if name not in self._jobs:
            raise OutOfRange(f"there is no job {name[:40]!r}: it was forgotten, or the server was started again")
        return self._jobs[name]

    def close(self) -> None:
        """Stop what runs, and end the thread."""
        with self._lock:
            for job in self._waiting:
                job.cancel()
        self._queue.put(None)
        self._thread.join(timeout=30)

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            try:
                job.check()
                job.send("started", {})
                job.end("result", job.work(job))
            except JobCancelled:
                job.end("cancelled", {})
            except (InterpError, OSError) as error:
                job.end("error", {"detail": " ".join(str(error).split()), "kind": type(error).__name__})
            except Exception as error:  # a fault must not end the thread that serves everybody
                import traceback

                traceback.print_exception(error)
                job.end("error", {"detail": FAULT, "kind": type(error).__name__})
            finally:
                with self._lock:
                    self._waiting.remove(job)
