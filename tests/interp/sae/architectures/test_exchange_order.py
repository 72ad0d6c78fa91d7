"""What processes exchange in a step begins when it is known, is on its way while others compute, and is awaited."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from hooks.store.processes import processes
from interp.sae import ShardedCrossLayerTranscoder, ShardedTopK
from tests.processes import do_in_processes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks")
D, LATENTS, ROWS, LAYERS = 16, 64, 40, 2


class _Pending:
    """An exchange that is made only when it is waited for, of what was given when it began."""

    def __init__(self, events: list[str], given: Tensor, into: list[Tensor], exchange: Any) -> None:
        self.events, self.given, self.into, self.exchange = events, given, into, exchange
        self.sent = given.clone()
        for place in into:
            place.fill_(torch.nan if place.is_floating_point() else -1)
        events.append("begin")

    def wait(self) -> None:
        if not any(self.given is place for place in self.into):
            assert torch.equal(self.given, self.sent), "what was given was changed on its way"
        self.events.append("wait")
        self.exchange(self.sent)


@contextmanager
def late() -> Iterator[list[str]]:
    """Every asynchronous exchange is as late as it may be, and until then its result is no number."""
    events: list[str] = []
    real_gather, real_reduce = torch.distributed.all_gather, torch.distributed.all_reduce

    def gather(parts: list[Tensor], x: Tensor, *, async_op: bool = False) -> Any:
        pending = _Pending(events, x, parts, lambda sent: real_gather(parts, sent))
        return pending if async_op else pending.wait()

    def reduce(x: Tensor, *args: Any, async_op: bool = False) -> Any:
        def exchange(sent: Tensor) -> None:
            real_reduce(sent, *args)
            x.copy_(sent)

        pending = _Pending(events, x, [x], exchange)
        return pending if async_op else pending.wait()

    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(torch.distributed, "all_gather", gather)
        changed.setattr(torch.distributed, "all_reduce", reduce)
        yield events


def in_processes(work: Any, world: int) -> None:
    def one() -> None:
        with processes(torch.device("cpu")):
            work()

    do_in_processes(one, world)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("kind", ["topk", "thresholds", "batch"])
def test_a_step_is_the_same_however_late_what_others_send_comes(kind: str, world: int) -> None:
    def made() -> tuple[Any, Tensor]:
        if kind == "topk":
            return ShardedTopK(D, LATENTS, k=4, k_aux=6), random(ROWS, D)
        k = None if kind == "thresholds" else 3
        return ShardedCrossLayerTranscoder(D, LATENTS, LAYERS, k=k, initial_threshold=0.2), random(ROWS, 2 * LAYERS, D)

    def work() -> None:
        dead = torch.arange(LATENTS) % 3 == 0
        steps, gradients = [], []
        for patient in (False, True):
            sae, x = made()
            objective = sae.objective()
            objective.initialise(x)
            if patient:
                with late() as events:
                    steps.append(objective.gradients(x, dead))
                    norm = objective.gradient_norm()
                    codes = sae.encode_sparse(x if kind == "topk" else x[:, :LAYERS])
                assert events.count("begin") == events.count("wait") > 0  # each is awaited, and once
                assert bool(norm.isfinite()) and bool(codes[0].isfinite().all()) and int(codes[1].min()) >= 0
            else:
                steps.append(objective.gradients(x, dead))
            gradients.append({name: p.grad.clone() for name, p in sae.named_parameters() if p.grad is not None})
        for name in ("loss", "squared_error", "l0", "largest"):
            assert torch.equal(getattr(steps[0], name), getattr(steps[1], name)), name
        assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])

    in_processes(work, world)


def test_codes_are_on_their_way_while_the_latents_of_the_next_rows_are_computed() -> None:
    def work() -> None:
        sae = ShardedTopK(D, LATENTS, k=4)
        real = sae._pre
        with late() as events, pytest.MonkeyPatch.context() as changed:
            changed.setattr(sae, "_pre", lambda centred: (events.append("compute"), real(centred))[1])
            sae._pass(random(ROWS, D))
        parts = "".join({"compute": "c", "begin": "b", "wait": "w"}[one] for one in events)
        # of each part the codes (values and numbers) begin; those of the part before are awaited, and its sum begins
        assert parts == "cbb" + "cbb" + "wwb" + "cbb" + "wwb" + "cbb" + "wwb" + "wwb" + "wwww"

    in_processes(work, 2)
