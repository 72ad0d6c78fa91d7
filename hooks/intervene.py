"""Intervene: a `with` block inside which chosen sites are changed, and after which nothing is left behind."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager

import torch
from torch import Tensor

from hooks.compose import check_fits, check_overwriting, check_pass
from hooks.interventions import Intervention, Rows
from hooks.model import Model, chosen
from hooks.receipt import Receipt
from hooks.running import Pass
from hooks.site import Site
from hooks.taps import Tap

Plan = Mapping[Site, tuple[Intervention, ...]]


def intervene(
    model: Model, interventions: Mapping[Site | str, Intervention | Sequence[Intervention]]
) -> AbstractContextManager[Receipt]:
    """Change sites of a model inside a `with` block.

    Interventions at one site act in the order given, those of an outer block first. They act on every
    forward pass inside the block: `model.run`, `model.generate` (over the prompt and at each new
    token), `capture`, and calls of `model.hf` itself. Gradients flow through them.

    Args:
        model: a loaded model.
        interventions: one or several per site.

    Returns:
        A context manager that gives the `Receipt`.

    Raises:
        ValueError: before anything runs: an unknown or read-only site, a value whose shape does not
            fit, a direction found in another model, interventions that undo each other.
        RuntimeError: at the end of the block, if an intervention changed no token.

    Cost: none beyond the passes run inside.

    Example:
        ```python
        with intervene(model, {resid_post[6]: add(direction, 8.0)}) as receipt:
            print(model.generate("I am", max_new_tokens=40))
        ```
    """
    plan: dict[Site, tuple[Intervention, ...]] = {}
    for key, given in interventions.items():
        (site,) = chosen(model, key)
        plan[site] = (given,) if isinstance(given, Intervention) else tuple(given)
        check_fits(model, site, plan[site])
    if not plan:
        raise ValueError("no interventions were given: name at least one site")
    check_overwriting(plan)
    return _block(model, plan)


@contextmanager
def _block(model: Model, plan: Plan) -> Iterator[Receipt]:
    receipt = Receipt(tuple(plan))

    def begins(passing: Pass) -> None:
        receipt.passes += 1
        check_pass(model.running.active, passing)

    with ExitStack() as stack:
        stack.enter_context(model.running.following(plan, begins))
        check_overwriting(model.running.active)
        for site, chain in plan.items():
            tap = model.tap(site)
            handle = tap.attach(lambda a, tap=tap, chain=chain: _changed(model, tap, chain, a, receipt))
            stack.callback(handle.remove)
        yield receipt
    idle = [site for site in plan if receipt[site].fired == 0]
    if idle:
        raise RuntimeError(_idle(plan, idle, receipt))


def _idle(plan: Plan, idle: list[Site], receipt: Receipt) -> str:
    listed = ", ".join(f"{one} at {site}" for site in idle for one in plan[site])
    if not receipt.passes:
        return f"nothing was changed by {listed}: no forward pass ran inside the block"
    return (
        f"nothing was changed by {listed}: {receipt.passes} forward pass(es) ran inside the block, "
        "but none reached a token it selects; check the position, or move the generation into the block"
    )


def _changed(model: Model, tap: Tap, chain: tuple[Intervention, ...], a: Tensor, receipt: Receipt) -> Tensor | None:
    passing = model.running.current
    if passing is None:
        raise RuntimeError(
            f"{tap.site} was reached outside the model's own forward, so its tokens are unknown: "
            "call the whole model, not a part of it"
        )
    batch, end = passing.tokens.ids.shape
    begin = end - a.shape[1]  # a model may compute the logits of the last columns only
    selected = [passing.rows(one.at).from_column(begin, a.device) for one in chain]
    if not any(map(len, selected)):
        return None
    a = a if a.shape[0] == batch else a.expand(batch, *a.shape[1:])
    new, touched = a, a.new_zeros(a.shape[:2], dtype=torch.bool)
    for one, rows in zip(chain, selected, strict=True):
        if len(rows):
            place = (rows.row, rows.column - begin)
            new = new.index_put(place, _made(one, tap.site, new[place], rows))
            touched[place] = True
    receipt.note(tap.site, a[touched], new[touched], prefill=passing.prefill)
    return new


def _made(one: Intervention, site: Site, old: Tensor, rows: Rows) -> Tensor:
    try:
        new = one.fn(old, rows)
    except Exception as error:
        error.add_note(f"raised by {one} at {site}")
        raise
    if not isinstance(new, Tensor) or new.shape != old.shape or new.dtype != old.dtype:
        got = f"{new.dtype} {tuple(new.shape)}" if isinstance(new, Tensor) else type(new).__name__
        raise ValueError(
            f"{one} at {site} must keep shape and dtype: it was given {old.dtype} {tuple(old.shape)} and returned {got}"
        )
    if not bool(torch.isfinite(new.detach()).all()):
        before = "already held" if not bool(torch.isfinite(old.detach()).all()) else "did not hold"
        raise ValueError(f"{one} at {site} gave NaN or infinity; the model's own values there {before} some")
    return new
