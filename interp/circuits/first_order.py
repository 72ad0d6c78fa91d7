"""From slopes to effects: (a_donor - a_base) . slope, summed over what each patch of a sweep replaces."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Activations, Model, Position, Site, Tokens, capture
from interp.circuits.effect import PatchEffect
from interp.circuits.metric import Metric
from interp.circuits.patch_sweep import measure_metric
from interp.circuits.patching import Patching, check_aligned, select_one_token
from interp.circuits.sweep_places import SweepPlaces


@torch.no_grad()
def first_order(
    model: Model,
    patching: Patching,
    metric: Metric,
    over: SweepPlaces,
    at: Position,
    slopes: Mapping[Site, Float[Tensor, "batch pos *d"]],
    how: str,
) -> PatchEffect:
    """The effect of every patch if the metric went along these slopes: m(base) + (a_donor - a_base) . slope.

    Cost:
        Four forward passes.
    """
    tokens, giver = patching.tokens(model)
    sites = tuple(slopes)
    base, donor = (capture(model, run, [*sites], batch_size=len(run)) for run in (tokens, giver))
    m_base, m_donor = (measure_metric(metric, model.run(run)[select_one_token(run, at)]) for run in (tokens, giver))
    moved = [_sum_products(base, donor, site, slope, over) for site, slope in slopes.items()]
    moves = torch.stack(moved, 1)
    patched = m_base.view(-1, *(1 for _ in moves.shape[1:])) + moves
    return PatchEffect(f"{patching.kind}, {how}", sites, over.axes, tokens, m_base, m_donor, patched)


def prepare_sweep(model: Model, patching: Patching, over: SweepPlaces) -> tuple[Tokens, tuple[Site, ...]]:
    """The tokens of the base run and the sites of a sweep, checked against each other.

    Raises:
        InvalidArgument: as `Patching.tokens`, `check_aligned` and `SweepPlaces.find_sites`.
    """
    tokens, _ = patching.tokens(model)
    if "pos" in over.axes:
        check_aligned(tokens)
    return tokens, over.find_sites(model)


def _sum_products(
    base: Activations, donor: Activations, site: Site, slope: Float[Tensor, "batch pos *d"], over: SweepPlaces
) -> Float[Tensor, "batch ..."]:
    """The products of move and slope, summed over all that the sweep patches together."""
    product = (donor[site] - base[site]) * slope
    each = product.sum(-1) if product.ndim == 4 else product.sum(-1, keepdim=True)
    each = each.transpose(1, 2)  # batch head pos
    each = each if "head" in over.axes else each.sum(1, keepdim=True)
    each = each if "pos" in over.axes else each.sum(2, keepdim=True)
    kept = [size for axis, size in zip(("head", "pos"), each.shape[1:], strict=True) if axis in over.axes]
    return each.reshape(len(each), *kept)
