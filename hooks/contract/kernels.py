"""The laws of a pattern that is read at a kernel: it averages the values into what the kernel gives, and into z."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import final

from torch import Tensor

from hooks.attention import KernelAccessor, KernelCall, every_kernel
from hooks.contract.block_identities import average_laws
from hooks.contract.report import Check
from hooks.contract.rounding import SLACK, Values, miss, unit
from hooks.forward import forward
from hooks.model import Model
from hooks.taps import Accessor, Tap
from hooks.temporary import Temporary
from hooks.tokens import Tokens


@final
@dataclass(frozen=True)
class _Read:
    """What the kernels of a pass gave, and for each module, call by call, what its own gave and should give."""

    given: list[Tensor] = field(default_factory=list)
    own: dict[Accessor | None, list[tuple[Tensor, Tensor]]] = field(default_factory=dict)

    def note(self, tap: Tap, call: KernelCall) -> None:
        both = _by_token(tap, call.output()), _by_token(tap, call.average())
        self.own.setdefault(tap.inside, []).append(both)


def kernel_laws(model: Model, acts: Values, text: Tokens) -> Iterator[Check]:
    """Yield, for each pattern that is read at a kernel: the kernel gives the values averaged by it, and so z is.

    A gate or a norm after the kernel leaves no law of z, and a norm of the values none of v: what is measured then is
    the kernel alone, and z where it is what some kernel gives.

    Cost: one forward pass.

    Examples:
        ```python
        [check.error for check in kernel_laws(model, acts.values, tokens)]
        ```
    """
    taps = {site: tap for site, tap in model.taps.items() if isinstance(tap.inside, KernelAccessor)}
    if not taps:
        return
    read, allowed = _read(model, text), SLACK * unit(model.dtype, text.ids.shape[1])
    given = [_by_token(next(iter(taps.values())), one) for one in read.given]
    for site, tap in taps.items():
        own, number = read.own.get(tap.inside, []), 0 if tap.call is None else tap.call.number
        if number >= len(own):
            continue
        output, average = own[number]
        z = replace(site, name=site.name.removesuffix("pattern") + "z")
        ends = z in acts and miss(acts[z], output) <= allowed
        law = Check("pattern averages", "the attention kernel gives Σ_pos pattern v", miss(output, average), allowed,
                    (site, z) if ends else (site,))  # fmt: skip
        yield law
        met = z in acts and any(miss(acts[z], one) <= allowed for one in given if one.shape == acts[z].shape)
        yield from (one for one in average_laws(model, acts, site) if met and (one.holds or not (ends and law.holds)))


def _read(model: Model, text: Tokens) -> _Read:
    read = _Read()
    inside = {tap.inside: tap for tap in model.taps.values() if isinstance(tap.inside, KernelAccessor)}
    with Temporary() as changes, every_kernel(read.given.append):
        for one, tap in inside.items():
            changes.make(lambda: None, one.end)
            (_, module, enter), (_, _, leave) = one.watching(partial(read.note, tap))
            changes.pre_hook(module, enter)
            changes.hook(module, leave, always=True, with_kwargs=True)
        forward(model.hf, text)
    return read


def _by_token(tap: Tap, given: Tensor) -> Tensor:
    """[batch pos head d] of what a kernel gives, [batch head pos d], the heads of all processes together."""
    return (given if tap.shard is None else tap.shard.gather(given)).transpose(1, 2)
