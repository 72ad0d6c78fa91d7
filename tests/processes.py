"""Work that processes which have joined over gloo do at once, as torchrun would start them."""

import multiprocessing
import os
import signal
import socket
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

PATIENCE = 100  # seconds


def start(work: Callable[[], object], **environment: str) -> Any:
    """Begin some work in a forked process."""

    def child() -> None:
        torch.set_num_threads(1)  # OpenMP's threads do not survive a fork, and a child that waits for them hangs
        os.environ.update(environment)
        work()

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    return process


def do_in_processes(work: Callable[[], object], world: int = 2) -> None:
    """Do some work in several processes at once; what one raises is in the text of the failure."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    pipes = [multiprocessing.Pipe(duplex=False) for _ in range(world)]
    started = [
        start(lambda says=says: _say_failure(work, says), RANK=str(rank), **environment)
        for rank, (_, says) in enumerate(pipes)
    ]
    for process in started:
        process.join(PATIENCE)
    failed = [(rank, process.exitcode) for rank, process in enumerate(started) if process.exitcode != 0]
    for process in started:
        process.kill()
    assert not failed, f"processes and how they ended: {failed}\n" + _failures([heard for heard, _ in pipes])


def live_again(work: Callable[[int], object], lives: int = 2, world: int = 2) -> None:
    """Do some work in processes of which one kills itself, and again in new ones, as `torchrun --max-restarts` does.

    As there, one store serves all lives, and in each the processes are ended once one of them has died. `work` is given
    the number of the life; in the last all are to end well.
    """
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    environment = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    environment |= {"TORCHELASTIC_USE_AGENT_STORE": "True"}
    for life in range(lives):
        pipes = [multiprocessing.Pipe(duplex=False) for _ in range(world)]
        started = [
            start(lambda says=says, life=life: _say_failure(lambda: work(life), says), RANK=str(rank), **environment)
            for rank, (_, says) in enumerate(pipes)
        ]
        done = wait([one.sentinel for one in started], PATIENCE)
        for process in started:
            if process.sentinel in done or (done and life == lives - 1):
                process.join(PATIENCE)
        codes = [process.exitcode for process in started]
        for process in started:
            process.kill()
            process.join()
        expected = codes == [0] * world if life == lives - 1 else -signal.SIGKILL in codes
        assert expected, f"life {life} ended with {codes}\n" + _failures([heard for heard, _ in pipes])


def _say_failure(work: Callable[[], object], says: Connection) -> None:
    try:
        work()
    except BaseException:
        says.send(traceback.format_exc())
        raise


def _failures(heard: Sequence[Connection]) -> str:
    return "\n".join(one.recv() for one in heard if one.poll())
