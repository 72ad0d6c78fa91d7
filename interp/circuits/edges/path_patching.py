"""Path patching: the effect of some senders on some receivers by direct paths, by patching heads and rerunning."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Activations, Model, Site, capture
from hooks.errors import InvalidArgument, nearest
from hooks.resume import hold
from hooks.site import mlp_in, resid_post, resid_pre
from hooks.taps import Edit
from interp.circuits.edges.graph import edge_graph, receiver_number, sender_number
from interp.circuits.edges.task import Task, ends_of


@torch.no_grad()
def path_patching(
    model: Model,
    task: Task,
    senders: Sequence[str],
    receivers: Sequence[str],
    *,
    mlps: str = "recomputed",
) -> Float[Tensor, "example"]:
    """The metric when receivers read what they would if the senders alone wrote what they do in the corrupt run.

    Senders corrupt, all other heads as in the clean run; what the receivers then get is put into a clean run, whose
    rest is recomputed. Between the two, feed-forward layers are either "recomputed", so that a path through them
    counts as direct (Wang et al. 2022, arXiv:2211.00593), or "held" at the clean run, so that only edges themselves
    count (Goldowsky-Dill et al. 2023, arXiv:2304.05969). The two conventions give different numbers.

    Args:
        model: the model.
        task: clean and corrupt texts and the metric.
        senders: such as `h0.3`, `mlp1` or `embed`.
        receivers: such as `k2.1`, `mlp2` or `logits`.
        mlps: "held" or "recomputed".

    Raises:
        InvalidArgument: no senders or receivers, the logits among others, another convention, texts that do not
            align.
        UnknownName: a node that is not there.

    Cost: four forward passes.

    Examples:
        ```python
        path_patching(model, task, ["h0.3"], ["logits"], mlps="held")
        ```
    """
    if mlps not in ("held", "recomputed"):
        raise InvalidArgument(f"feed-forward layers are 'held' or 'recomputed', not '{mlps}': say which")
    graph = edge_graph(model)
    for names, number, kind in ((senders, sender_number, "senders"), (receivers, receiver_number, "receivers")):
        if not names:
            raise InvalidArgument(f"no {kind} were given: name at least one, {nearest('', getattr(graph, kind))}")
        for name in names:
            number(graph, name)
    if "logits" in receivers and len(set(receivers)) > 1:
        raise InvalidArgument(
            "the logits are what every path ends in: patch the paths to them alone, or to other receivers"
        )
    clean, corrupt = task.tokens(model)
    sites = [site for site in model.taps if site.name in ("z", "mlp_out")]
    here = hold(model, clean, sites)
    there = capture(model, corrupt, [resid_pre[0], *sites], batch_size=len(corrupt))
    first = _pass_one(here.activations, there, senders, sites, held=mlps == "held")
    read = {_site_read(name, model.n_layers) for name in receivers}
    got: dict[Site, Tensor] = {}
    noted: dict[Site, Edit] = {site: _note(got, site) for site in read if site.name != "resid_post"}
    final = here.resume(0, {**first, **noted})
    if "logits" not in receivers:
        final = here.resume(0, _pass_two(receivers, got))
    m = model.unembed(final[ends_of(task, clean)])
    return task.measure(m, torch.arange(len(clean), device=m.device), len(clean))


def _pass_one(
    here: Activations, there: Activations, senders: Sequence[str], sites: list[Site], *, held: bool
) -> dict[Site, Edit]:
    """Senders as in the corrupt run; other heads, and feed-forward layers if held, as in the clean one."""
    edits: dict[Site, Edit] = {}
    for site in sites:
        value = here[site].clone()
        if site.name == "z":
            mine = [int(name.partition(".")[2]) for name in senders if name.startswith(f"h{site.layer}.")]
            value[:, :, mine] = there[site][:, :, mine]
            edits[site] = _constant(value)
        elif f"mlp{site.layer}" in senders:
            edits[site] = _constant(there[site])
        elif held:
            edits[site] = _constant(value)
    if "embed" in senders:
        edits[resid_pre[0]] = _constant(there[resid_pre[0]])
    return edits


def _pass_two(receivers: Sequence[str], got: dict[Site, Tensor]) -> dict[Site, Edit]:
    """Each receiver as it was in the first pass."""
    edits: dict[Site, Edit] = {}
    for site, value in got.items():
        if site.name == "mlp_in":
            edits[site] = _constant(value)
        else:
            heads = [int(name.partition(".")[2]) for name in receivers if name.startswith(f"{site.name}{site.layer}.")]
            edits[site] = _some_heads(value, heads)
    return edits


def _site_read(receiver: str, n_layers: int) -> Site:
    if receiver == "logits":
        return resid_post[n_layers - 1]
    if receiver.startswith("mlp"):
        return mlp_in[int(receiver[3:])]
    return Site(receiver[0], int(receiver[1:].partition(".")[0]))


def _note(got: dict[Site, Tensor], site: Site) -> Edit:
    def note(a: Tensor) -> None:
        got[site] = a.clone()

    return note


def _constant(value: Tensor) -> Edit:
    return lambda _: value


def _some_heads(value: Tensor, heads: list[int]) -> Edit:
    def edit(a: Tensor) -> Tensor:
        a = a.clone()
        a[:, :, heads] = value[:, :, heads]
        return a

    return edit
