"""Gradients: activations and the gradient of a scalar metric there, from one forward and one backward pass."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias, final

import torch
from jaxtyping import Float
from torch import Tensor

from hooks.activations import Activations
from hooks.capture import Sites
from hooks.errors import InvalidArgument, WrongState
from hooks.fingerprint import fingerprint_now
from hooks.model import Text, resolve_sites
from hooks.network import AnyModel
from hooks.site import Site
from hooks.summary import summarise
from hooks.taps import Tap
from hooks.temporary import Temporary, grad_mode

Metric: TypeAlias = Callable[[Float[Tensor, "batch pos vocab"]], Tensor]


@final
@dataclass(frozen=True, eq=False)
class Gradients:
    """Activations a at some sites, and dm/da there of a scalar metric m.

    Attributes:
        metric: m.
        activations: a, [batch pos *d] per site.
        gradients: dm/da, of the same shapes.

    Examples:
        ```python
        found = capture_gradients(model, "The bridge is in", [mlp_out[3]], lambda logits: logits[0, -1, 7])
        (found.gradients[mlp_out[3]] * found.activations[mlp_out[3]]).sum(dim=-1)
        ```
    """

    metric: Float[Tensor, ""]
    activations: Activations
    gradients: Activations

    __repr__ = summarise


def capture_gradients(model: AnyModel, text: Text, sites: Sites, metric: Metric) -> Gradients:
    """Return activations at some sites and the gradients of a scalar metric with respect to them.

    The gradient at a site is that of everything after it, other sites asked for included. Parameters
    collect no gradients. Interventions of open blocks act, and the gradients are those after them.

    Args:
        model: a loaded model.
        text: a text, texts, token ids or `Tokens`, read as one batch.
        sites: one or more sites that can be changed.
        metric: m, from logits to a tensor without axes. In a batch of unequal lengths the last column
            is padding in some rows: take the tokens from `model.tokens`, as in the example.

    Raises:
        InvalidArgument: an unknown site, one that is only derived, a metric that is no finite scalar or does
            not depend on the logits, a gradient that is not finite.

    Cost: one forward and one backward pass, down to the first site; memory as for training from there
    on, without gradients of the parameters.

    Examples:
        ```python
        tokens = model.tokens(["The bridge is in", "Fog"])
        ends = last.mask(tokens)
        found = capture_gradients(model, tokens, [resid_post[3]], lambda logits: logits[ends][:, 7].sum())
        ```
    """
    wanted = resolve_sites(model, sites)
    for site in wanted:
        if site.name == "expert_choice":
            raise InvalidArgument(f"{site} is which experts are chosen, so that it has no gradient: use router_logits")
        if model.tap(site).read_only:
            raise InvalidArgument(f"{site} is derived from what flows to the logits, so it has no gradient of its own")
    tokens, got = model.tokens(text), dict[Site, Tensor]()
    made_of = fingerprint_now(model.hf), model.site_names, model.running.changed_by
    with model.running.reading(tokens), torch.inference_mode(False), grad_mode(True), Temporary() as changes:
        for parameter in [parameter for parameter in model.hf.parameters() if parameter.requires_grad]:
            changes.make(partial(parameter.requires_grad_, False), partial(parameter.requires_grad_, True))
        for site in wanted:
            tap = model.tap(site)
            tap.attach_during(changes, partial(_keep, got, tap, len(tokens)))
        m = _scalar(metric(model.run(tokens)))
        slopes = torch.autograd.grad(m, [_require(got, site) for site in wanted], materialize_grads=True)
    _check_finite(wanted, slopes)
    a = {site: got[site].detach() for site in wanted}
    slope = dict(zip(wanted, slopes, strict=True))
    activations = Activations(a, tokens, *made_of)
    return Gradients(m.detach(), activations, replace(activations, values=slope))


def _keep(got: dict[Site, Tensor], tap: Tap, batch: int, value: Tensor) -> Tensor:
    """Note the value and let it flow on; the first one begins the graph, and one tensor at two sites is two nodes."""
    value = value if value.shape[0] == batch else value.expand(batch, *value.shape[1:])
    node = got[tap.site] = value.clone() if value.requires_grad else value.detach().requires_grad_()
    return node.clone() if "overwritten" in tap.alias else node


def _require(got: dict[Site, Tensor], site: Site) -> Tensor:
    if site not in got:
        raise WrongState(f"the forward pass did not reach {site}")
    return got[site]


def _scalar(m: object) -> Tensor:
    if not isinstance(m, Tensor) or m.ndim != 0:
        got = f"shape {tuple(m.shape)}" if isinstance(m, Tensor) else type(m).__name__
        raise InvalidArgument(f"the metric must give a tensor without axes, got {got}: take a mean or a sum of it")
    if not m.requires_grad:
        raise InvalidArgument(
            "the metric does not depend on the logits by differentiable steps, so it has no gradient: "
            "compute it without detach, item, argmax or no_grad"
        )
    if not bool(torch.isfinite(m.detach())):
        raise InvalidArgument(f"the metric is {float(m.detach())}: its gradient would mean nothing")
    return m


def _check_finite(sites: Sequence[Site], slopes: Sequence[Tensor]) -> None:
    for site, slope in zip(sites, slopes, strict=True):
        if not bool(torch.isfinite(slope).all()):
            raise InvalidArgument(
                f"the gradient at {site} holds NaN or infinity: look for a root, logarithm or quotient of 0 in the "
                "metric, or load the model in float32"
            )
