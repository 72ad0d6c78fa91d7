"""One run of training: the same batches for all its autoencoders, checkpoints, and what callbacks are given."""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain, islice
from typing import Any, Final, final

import torch
from torch import Tensor

from hooks.errors import InvalidArgument, WrongModel
from hooks.progress import progress_bar
from hooks.store.processes import Process, processes
from interp.sae.architectures.objective import measure_variance
from interp.sae.data.distributed import distribute_source
from interp.sae.data.shuffle_buffer import ShuffleBuffer
from interp.sae.data.source import Source
from interp.sae.evaluation.evaluate import evaluate
from interp.sae.training.callbacks import Callback
from interp.sae.training.checkpoint import Checkpoint, CheckpointStore
from interp.sae.training.history import Point, TrainReport
from interp.sae.training.learner import Learner
from interp.sae.training.member import Member
from interp.sae.training.plan import Plan

EVALUATED: Final = 65_536  # rows for the report, at most; an eighth of the tokens
SAMPLE: Final = 16_384  # rows for initialisation, and for what is settled after training, at most

Report = Callable[[str, Point], None]


def run(
    members: Mapping[str, Member],
    source: Source,
    plan: Plan,
    *,
    checkpoint: Checkpoint | None,
    callbacks: Sequence[Callback],
    progress: bool,
) -> dict[str, TrainReport]:
    """Train all members as planned, from a checkpoint where there is one; `train` and `train_many` say how.

    Examples:
        ```python
        run({"": Member(sae)}, source, Plan(tokens=10_000), checkpoint=None, callbacks=[], progress=False)
        ```
    """
    if not members:
        raise InvalidArgument("there is nothing to train: members is empty")
    if plan.resampling is not None and (sharded := [name for name, member in members.items() if member.sae.sharded]):
        raise InvalidArgument(
            f"the latents of {sharded[0] or 'this autoencoder'} are shared among processes, and resampling needs all "
            "in one: leave resampling out, the auxiliary loss revives dead latents, or take TopK"
        )
    if plan.resampling is not None and any(len(m.sae.W_dec) != m.sae.d_sae for m in members.values()):
        raise InvalidArgument(
            "resampling restarts latents that write to one layer, and those of a cross-layer transcoder write to "
            "several: leave it out, pre_act_coefficient revives dead latents"
        )
    if source.texts == 1:
        warnings.warn(
            f"all {plan.tokens:,} tokens of this training are of one text, which is read again and again: give more "
            "texts; where the text is a file's, give its lines",
            stacklevel=3,
        )
    if checkpoint is not None and source.check_unchanged is not None:
        source.check_unchanged()
    device = next(iter(members.values())).sae.W_dec.device
    with processes(device) as here:
        with ExitStack() as refused, ExitStack() as stack:
            for member in members.values():
                refused.callback(member.belongs(source))
            work = _Run(members, source, plan, here, device)
            keeper = checkpoint and work.keeper(checkpoint)
            if keeper is not None:
                stack.enter_context(keeper.lock())
            start = work.begin() if keeper is None or (kept := keeper.read(device)) is None else work.resume(*kept)
            refused.pop_all()
            held = stack.pop_all()
        with held, _callbacks_open(callbacks if here.rank == 0 else (), (*members,), start * work.batch_size) as report:
            for step in work.steps_from(start, report, progress and here.rank == 0):
                if keeper is not None and checkpoint is not None and work.due(checkpoint, step):
                    keeper.write(step + 1, work.state(), work.buffer.fills, work.buffer.held)
        return work.reports()


@final
class _Run:
    """Autoencoders that learn from the same batches."""

    def __init__(
        self, members: Mapping[str, Member], source: Source, plan: Plan, here: Process, device: torch.device
    ) -> None:
        self.members, self.source, self.plan, self.here = members, source, plan, here
        generator = torch.Generator().manual_seed(plan.seed)
        self.buffer = ShuffleBuffer(
            distribute_source(source, here, device),
            buffer=plan.buffer,
            batch_size=plan.batch_size,
            generator=generator,
            ends=_count_wanted(plan.steps(plan.batch_size), plan.batch_size),
        )
        self.learners: dict[str, Learner] = {}

    @property
    def batch_size(self) -> int:
        return self.buffer.batch_size

    @property
    def steps(self) -> int:
        return self.plan.steps(self.batch_size)

    def begin(self) -> int:
        """Begin on a sample of the source, at step 0."""
        first = next(self.buffer)
        sample = torch.cat([first, *islice(self.buffer, SAMPLE // len(first))])
        for name, member in self.members.items():
            rows = member.rows(sample, self.source)
            self.learners[name] = learner = self._learner(member, measure_variance(member.sae, rows))
            learner.objective.initialise(rows)
        return 0

    def resume(self, step: int, state: Mapping[str, Any], held: Tensor) -> int:
        """Go on where another run was, at the step it had come to."""
        self._check_read(state)
        self.buffer.restore(state["buffer"], held)
        for name, member in self.members.items():
            self.learners[name] = self._learner(member, torch.ones((), device=member.sae.W_dec.device))
            self.learners[name].restore(state["learners"][name])
        return step

    def _check_read(self, state: Mapping[str, Any]) -> None:
        """Raise where a stream does not begin with what was read of it before."""
        if self.source.read is not None and self.source.read(state["taken"]) != state["read"]:
            raise WrongModel(
                f"the {self.source.dataset} are other data than those the checkpoint was made with, in what was read "
                "of them: give the same, or another folder"
            )

    def steps_from(self, start: int, report: Report, progress: bool) -> Iterator[int]:
        """Take every step that is left, and give its number."""
        n = self.batch_size
        with progress_bar(
            total=self.steps * n, initial=start * n, unit=" tokens", unit_scale=True, progress=progress
        ) as bar:
            for step in range(start, self.steps):
                batch = next(self.buffer)
                for name, member in self.members.items():
                    if (point := self._step(name, member, step, batch)) is not None:
                        report(name, point)
                        bar.set_postfix_str(f"{name}: {point}" if name else str(point), refresh=False)
                bar.update(n)
                yield step

    def reports(self) -> dict[str, TrainReport]:
        """Settle thresholds on the batches that come next, and measure the final weights on these and more."""
        n = self.batch_size
        following = islice(self.buffer, _count_reported(self.steps, n))
        first = [*islice(following, math.ceil(SAMPLE / n))]
        batches = chain(first, following) if len(self.members) == 1 else [*first, *following]
        reports = {}
        for name, member in self.members.items():
            course = self.learners[name].history
            self.learners[name].objective.settle(member.rows(batch, self.source) for batch in first)
            quality = evaluate(member.sae, (member.rows(batch, self.source) for batch in batches))
            member.sae.max_activation.copy_(torch.maximum(course.largest, quality.max_activation))
            found = (tuple(course.curve), course.tokens, course.dead_share, self.plan.dead_after)
            reports[name] = TrainReport(quality, *found)
        return reports

    def due(self, checkpoint: Checkpoint, step: int) -> bool:
        """Whether a checkpoint is to be written after this step."""
        n = self.batch_size
        return step + 1 == self.steps or checkpoint.due(step * n, (step + 1) * n)

    def keeper(self, checkpoint: Checkpoint) -> CheckpointStore:
        """What writes this run's checkpoints; each process its own where it holds its own latents."""
        sharded = any(member.sae.sharded for member in self.members.values())
        source = self.source
        about = {
            "data": source.dataset,
            "digest of the data": source.digest and source.digest(),
            "batch_size of the source": source.batch_size,
            "model": source.fingerprint,
        }
        members = {name: member.settings() for name, member in self.members.items()}
        settings = self.plan.settings() | about | {"members": members}
        return CheckpointStore(checkpoint, settings, self.here, mine=sharded or self.here.rank == 0)

    def state(self) -> dict[str, Any]:
        """Where the batches are, and every learner."""
        learners = {name: learner.state() for name, learner in self.learners.items()}
        taken = self.buffer.taken
        read = None if self.source.read is None else self.source.read(taken)
        return {"buffer": self.buffer.state(), "learners": learners, "taken": taken, "read": read}

    def _learner(self, member: Member, variance: Tensor) -> Learner:
        return Learner(member.sae, member.rate, variance, self.plan, self.steps, self.here)

    def _step(self, name: str, member: Member, step: int, batch: Tensor) -> Point | None:
        def more(n: int, generator: torch.Generator) -> Tensor:
            return member.rows(self.buffer.sample(n, generator), self.source)

        try:
            return self.learners[name].step(step, member.rows(batch, self.source), more)
        except ValueError as error:
            raise InvalidArgument(f"batch {step}{f' of {name}' if name else ''}: {error}") from error


@contextmanager
def _callbacks_open(callbacks: Sequence[Callback], names: tuple[str, ...], tokens: int) -> Iterator[Report]:
    """Begin all callbacks, give a function that gives them a point, and end them."""

    def report(name: str, point: Point) -> None:
        for callback in callbacks:
            callback.point(name, point)

    begun = []
    try:
        for callback in callbacks:
            callback.begin(names, tokens)
            begun.append(callback)
        yield report
    finally:
        for callback in begun:
            callback.end()


def _count_reported(steps: int, batch_size: int) -> int:
    """How many batches the report rests on."""
    return math.ceil(min(steps / 8, EVALUATED / batch_size))


def _count_wanted(steps: int, batch_size: int) -> int:
    """How many rows initialisation, training and report take."""
    return (1 + SAMPLE // batch_size + steps + _count_reported(steps, batch_size)) * batch_size
