"""Intervene: a `with` block inside which chosen sites are changed, and after which nothing is left."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial, reduce
from operator import or_

from torch import Tensor

from hooks.compose import check_fits, check_overwriting, check_pass
from hooks.errors import InvalidArgument, NothingChanged, WrongState
from hooks.finite import Watch
from hooks.interventions import Intervention, Rows
from hooks.model import resolve_sites
from hooks.network import AnyModel
from hooks.passes import Pass
from hooks.position import Position
from hooks.receipt import Receipt, kl_from_clean
from hooks.running import InterventionPlan
from hooks.site import Site
from hooks.taps import Tap
from hooks.temporary import Temporary


def intervene(
    model: AnyModel, interventions: Mapping[Site | str, Intervention | Sequence[Intervention]]
) -> AbstractContextManager[Receipt]:
    """Change sites of a model inside a `with` block.

    Interventions at one site act in the order given, those of an outer block first. They act on every
    forward pass inside the block: `model.run`, `model.generate` (over the prompt and at each new
    token), `capture`, and calls of `model.hf` itself, its `generate` with beams, samples or an
    assistant included. Gradients flow through them. They act on the passes of the thread that opened
    the block, and on no others: threads that share a model take turns, pass by pass.

    Args:
        model: a loaded model.
        interventions: one or several per site, or per glob of sites.

    Returns:
        A context manager that gives the `Receipt`.

    Raises:
        InvalidArgument: before anything runs: an unknown or read-only site, one named twice, a value whose
            shape does not fit, a direction found in another model, interventions that undo each other.
            At the end of a pass: a changed value that is not finite.
        NothingChanged: at the end of the block, if an intervention changed no token.

    Cost: none beyond the passes run inside.

    Examples:
        ```python
        with intervene(model, {resid_post[6]: add(direction, 8.0)}) as receipt:
            print(model.generate("I am", max_new_tokens=40))
        ```
    """
    plan: dict[Site, tuple[Intervention, ...]] = {}
    for key, given in interventions.items():
        for site in resolve_sites(model, key):
            if site in plan:
                raise InvalidArgument(
                    f"{site} is named twice: give its interventions as one list, in the order they act"
                )
            plan[site] = (given,) if isinstance(given, Intervention) else tuple(given)
            check_fits(model, site, plan[site])
    if not plan:
        raise InvalidArgument("no interventions were given: name at least one site")
    check_overwriting(plan)
    return _block(model, plan)


@contextmanager
def _block(model: AnyModel, plan: InterventionPlan) -> Iterator[Receipt]:
    receipt, watch = Receipt(tuple(plan), partial(kl_from_clean, model), model.site_names), Watch()

    def begins(passing: Pass) -> None:
        receipt.passes += 1
        check_pass(model.running.active, passing)

    with Temporary() as temporary:
        temporary.make(lambda: None, receipt.close)
        block = model.running.follow(temporary, plan, begins)
        changes = [_Change(model, model.tap(site), chain, receipt, watch) for site, chain in plan.items()]
        for change in changes:
            change.tap.attach_during(temporary, change)
        temporary.hook(model.hf, lambda *_: watch.check())
        model.running.follow_end(temporary, block)
        check_overwriting(model.running.active)
        yield receipt
    watch.check()
    idle = [named for change in changes for named in change.idle]
    if idle:
        raise NothingChanged(_idle(", ".join(idle), receipt))


def _idle(listed: str, receipt: Receipt) -> str:
    if not receipt.passes:
        return f"nothing was changed by {listed}: no forward pass ran inside the block"
    return (
        f"nothing was changed by {listed}: {receipt.passes} forward pass(es) ran inside the block, "
        "but none reached a token it selects; check the position, or move the generation into the block"
    )


@dataclass(frozen=True, eq=False)
class _Change:
    """What happens at one site of an open block."""

    model: AnyModel
    tap: Tap
    chain: tuple[Intervention, ...]
    receipt: Receipt
    watch: Watch
    fired: set[int] = field(default_factory=set)

    @property
    def idle(self) -> list[str]:
        """The interventions of the chain that no token has met."""
        return [f"{one} at {self.tap.site}" for number, one in enumerate(self.chain) if number not in self.fired]

    @cached_property
    def at(self) -> Position:
        """The tokens any intervention of the chain selects."""
        return reduce(or_, {one.at.select: one.at for one in self.chain}.values())

    def __call__(self, a: Tensor) -> Tensor | None:
        if self.model.running.resting:
            return None
        passing = self._current_pass().places(a.shape[1], self.tap.site)
        begin = passing.end - a.shape[1]  # a model may compute the logits of the last columns only
        touched = passing.rows(self.at).from_column(begin, a.device)
        if not len(touched):
            return None
        batch = len(passing.tokens)
        a = new = a if a.shape[0] == batch else a.expand(batch, *a.shape[1:])
        for number, one in enumerate(self.chain):
            rows = touched if one.at.select is self.at.select else passing.rows(one.at).from_column(begin, a.device)
            if len(rows):
                self.fired.add(number)
                place = (rows.row, rows.column - begin)
                new = new.index_put(place, self._change(one, new[place], rows))
        place = (touched.row, touched.column - begin)
        self.receipt.note(self.tap.site, a[place], new[place], prefill=passing.prefill)
        return new

    def _current_pass(self) -> Pass:
        passing = self.model.running.current
        if passing is None:
            raise WrongState(
                f"{self.tap.site} was reached outside the model's own forward, so its tokens are unknown: "
                "call the whole model, not a part of it"
            )
        return passing

    def _change(self, one: Intervention, old: Tensor, rows: Rows) -> Tensor:
        site = self.tap.site
        try:
            new = one.fn(old, rows)
        except Exception as error:
            error.add_note(f"raised by {one} at {site}")
            raise
        if not isinstance(new, Tensor) or new.shape != old.shape or new.dtype != old.dtype:
            got = f"{new.dtype} {tuple(new.shape)}" if isinstance(new, Tensor) else type(new).__name__
            raise InvalidArgument(
                f"{one} at {site} must keep shape and dtype: it was given {old.dtype} {tuple(old.shape)} "
                f"and returned {got}"
            )
        self.watch.note(f"{one} at {site}", old, new)
        return new
