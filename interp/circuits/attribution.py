"""Attribution patching: what patching each place would do, to first order, from one backward pass."""

from hooks import Model, Position, capture_gradients
from hooks.position import last
from interp.circuits.effect import PatchEffect
from interp.circuits.first_order import first_order, prepare_sweep
from interp.circuits.metric import Metric
from interp.circuits.patch_sweep import measure_metric
from interp.circuits.patching import Patching, select_one_token
from interp.circuits.sweep_places import SweepPlaces


def attribution_patching(
    model: Model, patching: Patching, metric: Metric, *, over: SweepPlaces, at: Position = last
) -> PatchEffect:
    """The first-order estimate of every patch: m(base) + (a_donor - a_base) . dm/da, the slope taken in the base run.

    Exact where the model is linear after the place; elsewhere an estimate, which `patch_sweep` checks.

    Args:
        model: the model.
        patching: `denoising(clean, corrupt)` or `noising(clean, corrupt)`.
        metric: from the logits of one token per text to one number per text, differentiable.
        over: what to patch, such as `each_head(z)`.
        at: the token whose logits the metric reads.

    Raises:
        InvalidArgument: as `patch_sweep`, or a metric without a finite gradient.

    Cost:
        Five forward passes and one backward pass, whatever is swept over.

    Nanda 2023; Syed et al. 2023, arXiv:2310.10348.

    Examples:
        ```python
        attribution_patching(model, denoising(clean, corrupt), metric, over=each_head(z)).difference
        ```
    """
    tokens, sites = prepare_sweep(model, patching, over)
    ends = select_one_token(tokens, at)
    found = capture_gradients(model, tokens, sites, lambda logits: measure_metric(metric, logits[ends]).sum())
    slopes = {site: found.gradients[site] for site in sites}
    return first_order(model, patching, metric, over, at, slopes, "first order")
