"""Attribution patching: what patching each place would do, to first order, from one backward pass."""

from hooks import Model, Position, capture_gradients
from hooks.position import last
from interp.circuits.effect import PatchEffect
from interp.circuits.first_order import first_order, prepared
from interp.circuits.metric import Metric
from interp.circuits.over import Over
from interp.circuits.patch_sweep import measured
from interp.circuits.patching import Patching, read_at


def attribution_patching(
    model: Model, patching: Patching, metric: Metric, *, over: Over, at: Position = last
) -> PatchEffect:
    """The first-order estimate of every patch: m(base) + (a_donor - a_base) . dm/da, the slope taken in the base run.

    Exact where the model is linear behind the place; elsewhere an estimate, which `patch_sweep` checks.

    Args:
        model: the model.
        patching: `denoising(clean, corrupt)` or `noising(clean, corrupt)`.
        metric: from the logits of one token per text to one number per text, differentiable.
        over: what to patch, such as `each_head(z)`.
        at: the token whose logits the metric reads.

    Raises:
        ValueError: as `patch_sweep`, or a metric without a finite gradient.

    Cost: five forward passes and one backward pass, whatever is swept over.

    Nanda 2023; Syed et al. 2023, arXiv:2310.10348.

    ```python
    attribution_patching(model, denoising(clean, corrupt), metric, over=each_head(z)).difference
    ```
    """
    tokens, sites = prepared(model, patching, over)
    ends = read_at(tokens, at)
    found = capture_gradients(model, tokens, sites, lambda logits: measured(metric, logits[ends]).sum())
    slopes = {site: found.gradients[site] for site in sites}
    return first_order(model, patching, metric, over, at, slopes, "first order")
