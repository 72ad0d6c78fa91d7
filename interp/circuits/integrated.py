"""Integrated attribution patching: slopes averaged along the straight line between the two runs' embeddings."""

from torch import Tensor

from hooks import Model, Position, Site, capture, capture_gradients, intervene
from hooks.errors import InvalidArgument
from hooks.interventions import replace
from hooks.position import last
from hooks.site import embed
from interp.circuits.effect import PatchEffect
from interp.circuits.first_order import first_order, prepare_sweep
from interp.circuits.metric import Metric
from interp.circuits.patch_sweep import measure_metric
from interp.circuits.patching import Patching, select_one_token
from interp.circuits.sweep_places import SweepPlaces

TOKENS = Position("every token", lambda tokens: tokens.mask)


def integrated_attribution(
    model: Model, patching: Patching, metric: Metric, *, over: SweepPlaces, steps: int = 8, at: Position = last
) -> PatchEffect:
    """Attribution patching with integrated gradients: (a_donor - a_base) . mean_k dm/da at embeddings x_k.

    x_k = x_base + (k + 1/2)/m (x_donor - x_base), k = 0 ... m-1: the midpoint rule, whose error falls as 1/m^2. The
    published code sums at the left ends (k/m), whose error falls as 1/m. Over the site `embed` the predicted effects
    sum to m(donor) - m(base) as m grows; elsewhere they need not, since the model's own path is curved.

    Args:
        model: the model, whose token embeddings can be changed.
        patching: `denoising(clean, corrupt)` or `noising(clean, corrupt)`.
        metric: from the logits of one token per text to one number per text, differentiable.
        over: what to patch, such as `each_head(z)`.
        steps: m.
        at: the token whose logits the metric reads.

    Raises:
        InvalidArgument: as `attribution_patching`, or no steps.

    Cost:
        Six forward passes, and a forward and a backward pass for each step.

    Sundararajan et al. 2017, arXiv:1703.01365; Hanna et al. 2024, arXiv:2403.17806.

    Examples:
        ```python
        integrated_attribution(model, denoising(clean, corrupt), metric, over=each_head(z)).difference
        ```
    """
    if steps < 1:
        raise InvalidArgument(f"steps is {steps}: give at least 1 point to take the slope at")
    tokens, sites = prepare_sweep(model, patching, over)
    ends = select_one_token(tokens, at)
    x, x_donor = (capture(model, run, embed, batch_size=len(run))[embed] for run in patching.tokens(model))
    slopes: dict[Site, Tensor] = {}
    for k in range(steps):
        x_k = x + (k + 0.5) / steps * (x_donor - x)
        with intervene(model, {embed: replace(x_k, at=TOKENS)}):
            found = capture_gradients(model, tokens, sites, lambda logits: measure_metric(metric, logits[ends]).sum())
        slopes = {site: slopes.get(site, 0) + found.gradients[site] / steps for site in sites}
    return first_order(model, patching, metric, over, at, slopes, f"integrated over {steps} steps")
