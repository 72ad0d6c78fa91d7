"""Activation patching: put another run's value in one place at a time, and see how the metric moves."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hooks import Activations, Model, Network, Position, Site, Tokens, capture
from hooks.direction import wide
from hooks.errors import InvalidArgument
from hooks.forward import forward
from hooks.network import AnyModel
from hooks.position import last
from hooks.progress import progress_bar
from hooks.resume import hold
from hooks.site import embedding, logits, resid_post
from hooks.taps import Edit
from hooks.temporary import Temporary
from interp.circuits.effect import PatchEffect
from interp.circuits.metric import Metric
from interp.circuits.patching import Patching, check_aligned, select_one_token
from interp.circuits.sweep_places import SweepPlaces


@torch.no_grad()
def patch_sweep(
    model: AnyModel,
    patching: Patching,
    metric: Metric,
    *,
    over: SweepPlaces,
    at: Position = last,
    batch_size: int = 64,
    progress: bool = True,
) -> PatchEffect:
    """Activation patching over sites, layers, heads and positions: m(run with a <- a_donor), a place at a time.

    Many patches share a forward pass, which begins at the patched layer and unembeds the token that is read; where
    the whole model's output is hooked, as by open blocks of interventions, it unembeds every token. A patch that would
    change no bit is not run: its effect is exactly 0.

    Args:
        model: the model.
        patching: `denoising(clean, corrupt)` or `noising(clean, corrupt)`; several texts or pictures are patched alike.
        metric: from the logits of one token per text to one number per text.
        over: what to patch, such as `each_position(resid_pre)`.
        at: the token whose logits the metric reads.
        batch_size: rows per forward pass; all texts of one patch go together.
        progress: whether to show a bar.

    Raises:
        InvalidArgument: texts whose tokens do not align, an unknown or read-only site, heads where there are none, a
            metric that does not give one finite number per text.

    Cost:
        Two forward passes, and for each patch the blocks from its layer on; of pictures a whole pass.

    After Vig et al. 2020; Meng et al. 2022; Zhang and Nanda 2023, arXiv:2309.16042.

    Examples:
        ```python
        metric = logit_difference(model, " Paris", " Rome")
        patch_sweep(model, denoising(clean, corrupt), metric, over=each_position(resid_pre)).effect
        ```
    """
    if batch_size < 1:
        raise InvalidArgument(f"batch_size is {batch_size}: give at least 1 row per forward pass")
    tokens, giver = patching.tokens(model)
    sites = over.find_sites(model)
    if "pos" in over.axes:
        check_aligned(tokens)
    at_once = max(1, batch_size // len(tokens))
    runs = (
        _of_texts(model, tokens, giver, sites, metric, at, at_once)
        if isinstance(model, Model)
        else _of_pictures(model, tokens, giver, sites, metric, at, at_once)
    )
    extents = {site: over.extent(runs.base[site].shape[1], model.tap(site).shape) for site in sites}
    if len({*extents.values()}) > 1:
        counts = ", ".join(f"{site}: {runs.base[site].shape[1]}" for site in sites)
        raise InvalidArgument(
            f"the sites have other numbers of places, {counts}, so one axis of positions does not fit them all: sweep "
            "over sites of one grid, or each_layer"
        )
    patched = []
    for site in progress_bar(sites, desc="patching", progress=progress):
        masks = over.masks(runs.base[site].shape[1], model.tap(site).shape)
        m = runs.patch(site, masks.to(model.device))
        patched.append(m.unflatten(1, extents[site]) if over.axes else m[:, 0])
    return PatchEffect(patching.kind, sites, over.axes, tokens, runs.m_base, runs.m_donor, torch.stack(patched, 1))


def measure_metric(metric: Metric, said: Float[Tensor, "example vocab"]) -> Float[Tensor, "example"]:
    """The metric of one row of logits per text, in float32 or better.

    Raises:
        InvalidArgument: it is not one finite number per text.
    """
    m = metric(wide(said))
    if m.shape != said.shape[:1] or not bool(torch.isfinite(m).all()):
        got = f"shape {tuple(m.shape)}" if m.shape != said.shape[:1] else "NaN or infinity"
        raise InvalidArgument(f"the metric gave {got} for {len(said)} texts: it must give one finite number for each")
    return wide(m)


@dataclass(frozen=True, eq=False)
class _Runs:
    """The base run, whose copies are patched with the donor's values, and how each is measured."""

    base: Activations
    donor: Activations
    metric: Metric
    m_base: Float[Tensor, "example"]
    m_donor: Float[Tensor, "example"]
    at_once: int
    read: Callable[[Site, Edit, int], Float[Tensor, "n vocab"]]

    def patch(self, site: Site, masks: Bool[Tensor, "n pos *d"]) -> Float[Tensor, "example n"]:
        """The metric with what each mask names replaced; patches that change nothing are not run."""
        given = self.donor[site]
        differs = (self.base[site] != given).any(-1).any(0)
        live = (masks & differs).flatten(1).any(1).nonzero().flatten()
        m = self.m_base[:, None].repeat(1, len(masks))
        for some in live.split(self.at_once) if len(live) else ():
            rows = self.read(site, _put(given, masks[some]), len(some)).unflatten(0, (-1, len(some))).unbind(1)
            m[:, some] = torch.stack([measure_metric(self.metric, row) for row in rows], 1)
        return m


def _of_texts(
    model: Model, tokens: Tokens, giver: Tokens, sites: tuple[Site, ...], metric: Metric, at: Position, at_once: int
) -> _Runs:
    """Runs of texts, which are taken up at the patched layer and read at one token."""
    end = logits if logits in sites or model.hf._forward_hooks else resid_post[model.n_layers - 1]
    kept = [*dict.fromkeys([*sites, end])]
    held, donor = hold(model, tokens, kept), capture(model, giver, kept, batch_size=len(giver))
    ends = select_one_token(tokens, at)
    m_base, m_donor = (
        measure_metric(metric, acts[logits][where] if end == logits else model.unembed(acts[end][where]))
        for acts, where in ((held.activations, ends), (donor, select_one_token(giver, at)))
    )

    def read(site: Site, edit: Edit, times: int) -> Float[Tensor, "n vocab"]:
        layer, where = site.layer or 0, ends.repeat_interleave(times, dim=0)
        if end == logits:
            return held.logits(layer, {site: edit}, times)[where]
        return model.unembed(held.resume(layer, {site: edit}, times)[where])

    return _Runs(held.activations, donor, metric, m_base, m_donor, at_once, read)


def _of_pictures(
    model: Network, tokens: Tokens, giver: Tokens, sites: tuple[Site, ...], metric: Metric, at: Position, at_once: int
) -> _Runs:
    """Runs of pictures, whole, of which the classes' scores are read, or without those the vector they end in."""
    if at != last:
        raise InvalidArgument(f"at={at} says whose logits are read, and a picture has one row of them: leave it out")
    end = next((one for one in (logits, embedding) if one in model.sites), None)
    if end is None:
        raise InvalidArgument(
            f"{model.name} has neither logits nor an embedding, so there is nothing for a metric to read"
        )
    kept = [*dict.fromkeys([*sites, end])]
    base, donor = (capture(model, one, kept, batch_size=len(one)) for one in (tokens, giver))
    m_base, m_donor = (measure_metric(metric, acts[end][:, 0]) for acts in (base, donor))

    def read(site: Site, edit: Edit, times: int) -> Float[Tensor, "n vocab"]:
        copies, got = _copy(tokens, times), list[Tensor]()
        with model.running.reading(copies), Temporary() as changes:
            model.tap(site).attach_during(changes, edit)
            model.tap(end).attach_during(changes, got.append)
            forward(model.hf, copies)
        return got[0][:, 0]

    return _Runs(base, donor, metric, m_base, m_donor, at_once, read)


def _copy(tokens: Tokens, times: int) -> Tokens:
    """Pictures, each so often in a row."""
    row = torch.arange(len(tokens), device=tokens.ids.device).repeat_interleave(times)
    images, inputs = tokens.images, tokens.inputs
    if images is not None:
        images = replace(images, pixels=images.pixels[row], masks={}, names=None)
    return replace(
        tokens, ids=tokens.ids[row], mask=tokens.mask[row], special=tokens.special[row], images=images,
        inputs=None if inputs is None else {slot: one[row] for slot, one in inputs.items()},
    )  # fmt: skip


def _put(given: Float[Tensor, "batch pos *d"], masks: Bool[Tensor, "n pos ..."]) -> Edit:
    """Replace what the masks name: mask i in copy i of each text."""
    where = masks.repeat(len(given), *(1 for _ in masks.shape[1:]))[..., None]

    def edit(a: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        a = a.expand(len(where), *a.shape[1:])  # a family may compute position embeddings once for all rows
        return torch.where(where, given.repeat_interleave(len(masks), dim=0).to(a), a)

    return edit
