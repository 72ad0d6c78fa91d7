"""Which sites of a tensor-parallel model are held in parts, by the styles of transformers' plan, and how they are read.

| style of the module | its input | its output |
| --- | --- | --- |
| `colwise` | whole | a part of the last axis |
| `packed_colwise` | whole | a part of each of the projections that are packed in it |
| `rowwise` | a part of the last axis | whole, after its all-reduce |
| any other, or none | whole where every process measures the same | likewise |

What is whole by this table and yet differs between the processes in one measured pass is refused, with the style named:
no part is ever given for the whole. A pattern is in parts, by heads, where the `z` it makes is.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeAlias, final

import torch
from torch import Tensor, nn

from hooks.forward import forward
from hooks.huggingface import HFModel
from hooks.shards import ModelRanks, TensorShard, ranks_of
from hooks.site import PATTERNS, Site
from hooks.structure import Structure, short_text
from hooks.taps import Tap
from hooks.temporary import Temporary, grad_mode
from hooks.view import View
from hooks.weights import width

Seen: TypeAlias = tuple[tuple[int, ...], float, float]
"""The shape of a tensor, and two sums that change when its numbers do."""
_OUTPUT: Final = {"colwise": 1, "packed_colwise": 2}
_INPUT: Final = {"rowwise": 1}
"""The styles that leave a part of the last axis, and how many projections are packed in it."""
_SAME: Final = 1e-2
"""By how much rounding changes a sum between two devices at most, relative to it: in bfloat16 less than one percent."""


@final
@dataclass(frozen=True, eq=False)
class SharedTaps:
    """The sites of a model that several processes compute, or one.

    Attributes:
        taps: where each site sits; of a part, with how it is gathered.
        structure: what was traced, its modules' sites likewise.
        refused: why a site cannot be gathered.
    """

    taps: Mapping[Site, Tap]
    structure: Structure
    refused: Mapping[Site, str]


def share_taps(hf: HFModel, taps: Mapping[Site, Tap], structure: Structure) -> SharedTaps:
    """Return where the sites of a model sit, gathered where processes hold parts of them.

    Cost: nothing for a model of one process; else one forward pass, at which every process must call it.

    Examples:
        ```python
        share_taps(hf, taps(hf, paths, structure), structure).refused
        ```
    """
    ranks = ranks_of(hf)
    if ranks is None:
        return SharedTaps(taps, structure, {})
    every = {**structure.modules, **taps}
    seen = ranks.exchange(_measure(hf, every))
    found: dict[Site, Tap] = {}
    refused: dict[Site, str] = {}
    for site, tap in every.items():
        if site.name not in PATTERNS:
            one = _shared(hf, ranks, tap, [rank[site] for rank in seen if site in rank])
            (found if isinstance(one, Tap) else refused)[site] = one  # pyright: ignore[reportArgumentType]
    for site, tap in every.items():
        if site.name in PATTERNS:
            z = found.get(replace(site, name=site.name.removesuffix("pattern") + "z"))
            if z is None or z.shard is None:
                refused[site] = "how its heads are shared is not known, since its z cannot be read"
            else:
                n = z.shape[0]
                split = TensorShard(ranks) if z.shard.axis is None else TensorShard(ranks, 1, n)
                found[site] = replace(tap, shape=(n,), shard=split)
    modules = {site: found[site] for site in structure.modules if site in found}
    in_order = {site: found[site] for site in taps if site in found}
    return SharedTaps(in_order, replace(structure, modules=modules), refused)


def _shared(hf: HFModel, ranks: ModelRanks, tap: Tap, seen: list[Seen]) -> Tap | str:
    """The tap with how its tensor is shared, or why it cannot be gathered."""
    style = _style(hf, tap.module)
    named = f"the plan gives its module, {type(tap.module).__name__}, " + (f"the style '{style}'" if style else "none")
    if len(seen) < ranks.size:
        return "one measured pass did not reach it in every process"
    packed = (_OUTPUT if tap.side == "output" else _INPUT).get(style or "", 0)
    if tap.inside is not None or not packed:
        same = all(one[0] == seen[0][0] and _is_near(one[1:], seen[0][1:]) for one in seen)
        return (
            replace(tap, shard=TensorShard(ranks)) if same else f"its values differ between the processes, and {named}"
        )
    size = width(tap.module)[1 if tap.side == "output" else 0]
    if sum(shape[-1] for shape, _, _ in seen) != size:
        return f"its parts do not make up {size} features, and {named}"
    if tap.view.rows is not None and packed == 1:
        return f"it is chosen features of a projection that is shared, and {named}"
    part = TensorShard(ranks, -1, size, packed)
    if tap.view.rows is not None:
        return replace(tap, shard=part)
    if tap.view.heads is None:
        return replace(tap, shape=(size,), shard=part)
    heads, left = divmod(size, tap.shape[-1])
    if left:
        return f"its {size} features are no whole number of heads of {tap.shape[-1]}"
    return replace(tap, shape=(heads, tap.shape[-1]), view=replace(tap.view, heads=heads), shard=part)


def _is_near(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    scale = max(abs(a[0]), abs(b[0]))
    return all(abs(x - y) <= _SAME * scale for x, y in zip(a, b, strict=True))


def _style(hf: HFModel, module: nn.Module) -> str | None:
    """The style that transformers shares a module by: stamped on it, or in the model's plan."""
    stamped = getattr(module, "_hf_tp_plan", None)
    if stamped is not None:
        return str(stamped)
    plan = getattr(hf, "_tp_plan", None) or {}
    path = next((path for path, one in hf.named_modules() if one is module), "")
    return plan.get(path, plan.get(re.sub(r"\.\d+(?=\.|$)", ".*", path)))


@grad_mode(False)
def _measure(hf: HFModel, taps: Mapping[Site, Tap]) -> dict[Site, Seen]:
    """What one pass over a short text gives at each site in this process."""
    seen: dict[Site, Seen] = {}

    def note(site: Site, value: Tensor) -> None:
        flat = value.detach().double().flatten()
        seen[site] = (tuple(value.shape), float(flat.norm()), float(flat @ torch.linspace(-1, 1, len(flat)).to(flat)))

    with Temporary() as changes:
        for site, tap in taps.items():
            if site.name not in PATTERNS:
                raw = replace(tap, view=View(), alias=frozenset(), shard=None)
                raw.attach_during(changes, lambda value, site=site: note(site, value))
        forward(hf, short_text(hf))
    return seen
