"""Processes that are started again after one died find each other, and end with what undisturbed ones make."""

import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from inspect import unwrap
from pathlib import Path

import pytest
import torch

from hooks import Model, harvest
from hooks.site import resid_post
from hooks.store.packing import packed
from hooks.store.processes import PATIENCE, _ask_life, _name_life, processes
from interp.sae import Checkpoint, TopK, activations_of, train
from tests.processes import do_in_processes, live_again

pytestmark = [pytest.mark.skipif(sys.platform != "linux", reason="forks"), pytest.mark.usefixtures("unchecked")]
TEXTS = [f"fog {number} over the bay {number * number}" for number in range(40)]
CPU = torch.device("cpu")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def files(folder: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in folder.iterdir() if ".lock" not in one.name}


def kill_at(pass_number: int) -> Callable[..., None]:
    left = iter(range(pass_number - 1, -1, -1))

    def count(*_: object) -> None:
        if next(left, -1) == 0:
            die()

    return count


def test_processes_of_a_second_life_never_wait_for_those_of_the_first() -> None:
    def work(life: int) -> None:
        if life == 1 and os.environ["RANK"] == "1":
            time.sleep(1)  # the other finds what the dead one left, long before this one is there
        with processes(CPU) as here:
            assert here.total(1) == 2
            if life == 0 and here.rank == 1:
                die()
            here.total(0)

    live_again(work)


def test_processes_that_died_while_they_joined_are_not_waited_for() -> None:
    def work(life: int) -> None:
        if life == 0 and os.environ["RANK"] == "1":
            time.sleep(0.3)
            die()
        if life == 1 and os.environ["RANK"] == "0":
            time.sleep(1)  # the other finds the port of the dead first process
        with processes(CPU) as here:
            assert here.all(here.rank) == [0, 1]

    live_again(work)


def test_processes_join_and_part_as_often_as_they_like() -> None:
    def work(_: int) -> None:
        for round_ in range(3):
            if os.environ["RANK"] == str(round_ % 2):
                time.sleep(0.3)
            with processes(CPU) as here:
                assert here.total(round_) == 2 * round_

    live_again(work, lives=1)


SCRIPT = """
import os, signal, sys
from pathlib import Path
import torch
torch.distributed.init_process_group("gloo")
rank, total = torch.distributed.get_rank(), torch.ones(1)
torch.distributed.all_reduce(total)
assert float(total) == 2
if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" and rank == 1:
    os.kill(os.getpid(), signal.SIGKILL)
torch.distributed.barrier()
Path(sys.argv[1], f"{os.environ['TORCHELASTIC_RESTART_COUNT']}-{rank}").write_text("")
torch.distributed.destroy_process_group()
"""


def test_a_script_that_begins_the_group_itself_is_started_again_by_torchrun_with_a_store_for_each_life(
    tmp_path: Path,
) -> None:
    script, ended = tmp_path / "script.py", tmp_path / "ended"
    script.write_text(SCRIPT)
    ended.mkdir()
    given = {name: value for name, value in os.environ.items() if not name.startswith(("TORCHELASTIC", "MASTER"))}
    given |= {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "--max-restarts", "1", str(script), str(ended)]
    done = subprocess.run(command, env=given, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert {one.name for one in ended.iterdir()} == {"1-0", "1-1"}


def test_a_group_that_a_script_began_itself_and_torchrun_may_start_again_is_warned_of_with_the_cure() -> None:
    def work() -> None:
        torch.distributed.init_process_group("gloo")
        os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_MAX_RESTARTS": "3"}
        said, module = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1", sys.modules["hooks.store.processes"]
        module._warn_of_restarts = unwrap(module._warn_of_restarts)  # type: ignore[attr-defined]
        with pytest.warns(UserWarning, match=said) as seen, processes(CPU) as here:
            assert here.world == 2
        assert seen[0].filename == __file__
        os.environ["TORCHELASTIC_MAX_RESTARTS"] = "0"
        with processes(CPU):
            torch.distributed.barrier()
        torch.distributed.destroy_process_group()

    do_in_processes(work)

    def ours(_: int) -> None:
        os.environ["TORCHELASTIC_MAX_RESTARTS"] = "3"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with processes(CPU), processes(CPU) as here:
                assert here.total(1) == 2

    live_again(ours, lives=1)


@pytest.mark.parametrize("moment", [1, 6])
def test_a_shared_harvest_of_which_a_process_is_killed_is_that_of_one_process(
    gpt2: Model, moment: int, tmp_path: Path
) -> None:
    def share(folder: Path) -> None:
        harvest(gpt2, TEXTS, resid_post[1], folder, packing=packed(24), batch_size=2, documents_per_shard=5)

    def work(life: int) -> None:
        if life == 0 and os.environ["RANK"] == "1":
            gpt2.hf.register_forward_pre_hook(kill_at(moment))
        share(tmp_path / "killed")

    share(tmp_path / "one")
    live_again(work)
    assert files(tmp_path / "killed") == files(tmp_path / "one")


@pytest.mark.parametrize("moment", [2, 9])
def test_a_shared_training_of_which_a_process_is_killed_ends_with_the_bits_of_one_never_killed(
    gpt2: Model, moment: int, tmp_path: Path
) -> None:
    def learn(name: str) -> None:
        source = activations_of(gpt2, TEXTS, resid_post[1], batch_size=4)
        kept = Checkpoint(tmp_path / f"run-{name}", every=300)
        options = {"tokens": 3_000, "batch_size": 100, "buffer": 300, "progress": False}
        sae = TopK(gpt2.d_model, 48, k=4)
        train(sae, source, checkpoint=kept, **options)
        torch.save(sae.state_dict(), tmp_path / f"{name}-{os.environ.get('RANK', '0')}.pt")

    def work(life: int) -> None:
        if life == 0 and os.environ["RANK"] == "1":
            gpt2.hf.register_forward_pre_hook(kill_at(moment))
        learn("killed")

    do_in_processes(lambda: learn("whole"))
    live_again(work)
    for rank in (0, 1):
        whole, killed = (torch.load(tmp_path / f"{name}-{rank}.pt") for name in ("whole", "killed"))
        assert all(torch.equal(whole[name], killed[name]) for name in whole)


class Board:
    """A store of torch's at a port, without a network."""

    def __init__(self) -> None:
        self.port, self.said, self.counts = 4711, dict[str, str](), dict[str, int]()

    def set(self, name: str, value: str) -> None:
        self.said[name] = value

    def get(self, name: str) -> bytes:
        return self.said[name].encode()

    def add(self, name: str, n: int) -> int:
        self.counts[name] = self.counts.get(name, 0) + n
        return self.counts[name]


@pytest.fixture
def life(monkeypatch: pytest.MonkeyPatch) -> tuple[Board, list[tuple[object, ...]]]:
    """The store of one life, and how it was opened."""
    board, opened = Board(), list[tuple[object, ...]]()

    def open_store(host: str, port: int, *, is_master: bool, timeout: object, wait_for_workers: bool) -> Board:
        opened.append((host, port, is_master, timeout if is_master else None, wait_for_workers))
        return board

    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    monkeypatch.setattr(torch.distributed, "TCPStore", open_store)
    return board, opened


@pytest.mark.parametrize("world", [1, 2, 4])
def test_the_first_process_of_a_life_waits_at_a_free_port_until_every_other_has_asked(
    life: tuple[Board, list[tuple[object, ...]]], world: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (board, opened), others = life, Board()
    asked: list[int] = []

    def another_asks(_: float) -> None:
        asked.append(1)
        assert len(asked) < world, "it waits for more than there are"
        board.add("asked", 1)

    monkeypatch.setattr(time, "sleep", another_asks)
    name = _name_life(others, world)  # type: ignore[arg-type]
    assert opened == [("10.0.0.1", 0, True, PATIENCE, False)]
    assert board.said == {"life": name} and others.said == {"port of the first process": "4711"}
    assert len(asked) == board.counts["asked"] == world - 1


def test_another_process_asks_once_and_again_only_where_it_asked_in_this_life_before(
    life: tuple[Board, list[tuple[object, ...]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (board, opened), others = life, Board()
    others.set("port of the first process", "4711")
    board.set("life", "fog")
    assert _ask_life(others, 3) == "fog"  # type: ignore[arg-type]
    assert opened == [("10.0.0.1", 4711, False, None, False)] and board.counts == {"asked by 3": 1, "asked": 1}

    def follow(_: object, name: str) -> bytes:
        if name == "life":
            lives.append(1)
            if len(lives) == 2:
                board.counts.clear()  # a life begins in which nobody asked yet
            assert len(lives) < 3
        return board.said.get(name, "4711").encode()

    lives: list[int] = []
    monkeypatch.setattr(Board, "get", follow)
    assert _ask_life(others, 3) == "fog" and board.counts == {"asked by 3": 1, "asked": 1}  # type: ignore[arg-type]
