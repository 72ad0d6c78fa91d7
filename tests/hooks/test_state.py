"""A block leaves nothing on the model, whatever interrupts it, and is seen by the thread that opened it only."""

import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor

from hooks import Model, capture, capture_gradients, intervene, load
from hooks.interventions import add, scale
from hooks.resume import hold
from hooks.site import mlp_out, resid_post, z
from tests.conftest import tiny_hf, tiny_tokenizer

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(scope="module")
def gpt2() -> Model:
    """A model of this file's own: transformers leaves hooks on one that was asked for its hidden states."""
    return load(tiny_hf("gpt2"), tiny_tokenizer())


POINTS = 250  # of each of the four runs below
V = torch.randn(32, generator=torch.Generator().manual_seed(5))


def captured(model: Model) -> None:
    capture(model, "Fog", [resid_post[1], z[0]])


def intervened(model: Model) -> None:
    with intervene(model, {resid_post[0]: scale(2.0), mlp_out[1]: add(V)}):
        model.run("Fog")
        model.hf.generate(torch.tensor([[1, 2]]), attention_mask=torch.ones(1, 2), max_new_tokens=2, pad_token_id=256)


def differentiated(model: Model) -> None:
    capture_gradients(model, "Fog", [resid_post[1]], lambda said: said.square().sum())


def resumed(model: Model) -> None:
    hold(model, "Fog").logits(1, {z[1]: lambda a: 0.5 * a})


MODES = ["/grad_mode.py"]  # torch's, whoever sets them
ALL = ["/hooks/", "/contextlib.py", *MODES]  # this library, and what opens and ends blocks
RUNS = [captured, intervened, differentiated, resumed]


class Interrupter:
    """Counts the bytecodes that run in some files, and interrupts at one."""

    def __init__(self, at: int | None = None, within: Sequence[str] = ALL) -> None:
        self.at, self.count, self.within = at, 0, within

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        if not any(part in frame.f_code.co_filename for part in self.within):
            return None
        if frame.f_code.co_name == "<genexpr>":
            return None  # one that `any` has left is closed where Python can raise nothing, nor takes a signal
        frame.f_trace_opcodes = True
        if event in ("call", "opcode"):
            self.count += 1
            if self.count == self.at:
                raise KeyboardInterrupt
        return self

    def during(self, run: Callable[[Model], None], model: Model) -> bool:
        """Whether the run was interrupted."""
        before = sys.gettrace()
        sys.settrace(self)
        try:
            run(model)
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(before)
        return False


def left_on(model: Model) -> list[str]:
    """What is not as it was loaded."""
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.hf.modules())
    extra = sum(len(m._forward_hooks_always_called) + len(m._forward_pre_hooks_with_kwargs) for m in model.hf.modules())
    found = [f"{hooks} hooks, {extra} notes about hooks"] if hooks or extra else []
    found += ["generate"] if "generate" in vars(model.hf) else []
    found += ["forward"] if any("forward" in vars(module) for module in model.hf.modules()) else []
    found += ["gradients off"] if not all(p.requires_grad for p in model.hf.parameters()) else []
    found += [] if torch.is_grad_enabled() else ["the mode of gradients"]
    found += ["the turn"] if model.running._turn.is_held() else []
    found += [] if model.running.current is None else ["a pass in flight"]
    return found + (["a block"] if model.running.active or model.running.resting else [])


@pytest.mark.parametrize("within", [ALL, MODES], ids=["library", "modes"])
@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.__name__)
def test_an_interrupt_between_any_two_bytecodes_leaves_nothing_on_the_model(
    gpt2: Model, run: Any, within: list[str]
) -> None:
    for parameter in gpt2.hf.parameters():
        parameter.requires_grad_(True)
    plain = gpt2.run("Fog").detach()
    counter = Interrupter(within=within)
    counter.during(run, gpt2)
    every = max(1, counter.count // POINTS)
    for at in range(1, counter.count, every):
        one = Interrupter(at, within)
        assert one.during(run, gpt2) or one.count < at, f"an interrupt at bytecode {at} of {counter.count} was lost"
        assert not left_on(gpt2), f"interrupted at bytecode {at} of {counter.count}"
    assert torch.equal(gpt2.run("Fog"), plain)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # inside weakref's own callbacks
def test_a_signal_at_any_time_leaves_nothing_on_the_model(gpt2: Model) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    generator = torch.Generator().manual_seed(3)
    try:
        for at in torch.rand(200, generator=generator).mul(0.015).add(0.0002).tolist():
            try:
                try:
                    signal.setitimer(signal.ITIMER_REAL, at)
                    differentiated(gpt2)
                    intervened(gpt2)
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                pass
            assert not left_on(gpt2)
    finally:
        signal.signal(signal.SIGALRM, before)


@contextmanager
def quick_switches() -> Any:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


def in_threads(works: list[Callable[[], None]]) -> list[BaseException]:
    """Run all at once; what they raised."""
    raised: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    with quick_switches():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return raised


def test_four_threads_with_four_interventions_each_get_what_they_get_alone(llama: Model) -> None:
    plans = [
        {resid_post[0]: scale(2.0)},
        {resid_post[1]: add(3 * V)},
        {mlp_out[1]: scale(-1.0), resid_post[1]: scale(0.5)},
        {z[0]: scale(0.0)},
    ]

    def results(plan: Any) -> list[Tensor]:
        with intervene(llama, plan), torch.no_grad():
            own = llama.run("Fog over")
            by_hand = llama.hf(torch.tensor([[5, 6, 7]])).logits
            kept = capture(llama, "Bay", resid_post[2])[resid_post[2]]
            return [own, by_hand, kept]

    alone = [results(plan) for plan in plans]
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(12):
            got = results(plans[number])
            if not all(torch.equal(a, b) for a, b in zip(got, alone[number], strict=True)):
                wrong.append(number)

    assert not in_threads([lambda number=number: work(number) for number in range(4)])
    assert not wrong and not left_on(llama)


def test_a_thread_that_opens_and_ends_blocks_does_not_disturb_one_that_generates(gpt2: Model) -> None:
    alone, said = gpt2.generate("Fog", max_new_tokens=4), []

    def opens() -> None:
        for _ in range(40):
            with intervene(gpt2, {resid_post[1]: scale(-3.0)}):
                gpt2.run("Fog over")

    def generates() -> None:
        said.extend(gpt2.generate("Fog", max_new_tokens=4) for _ in range(25))

    assert not in_threads([opens, generates])
    assert set(said) == {alone}


def test_an_open_block_of_one_thread_does_not_change_the_passes_of_another(gpt2: Model) -> None:
    plain, elsewhere = gpt2.run("Fog"), []
    with intervene(gpt2, {resid_post[1]: scale(2.0)}) as receipt:
        assert not in_threads([lambda: elsewhere.extend([gpt2.run("Fog"), gpt2.hf(gpt2.tokens("Fog").ids).logits])])
        assert receipt.passes == 0
        assert not torch.equal(gpt2.run("Fog"), plain)
    assert all(torch.equal(one, plain) for one in elsewhere)
