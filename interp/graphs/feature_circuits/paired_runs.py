"""Two runs of the same places, clean and corrupt, and how far apart the features and errors of each site are."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hooks import Activations, Model, Site, Tokens
from hooks.direction import wide
from hooks.errors import InvalidArgument, nearest
from hooks.resume import HeldPass, hold
from hooks.taps import Edit
from interp.circuits.edges.running import measure_streams
from interp.circuits.edges.task import Task
from interp.circuits.patching import check_aligned
from interp.graphs.feature_circuits.dictionaries import Dictionaries, split
from interp.sae import SAE

AGAINST = ("corrupt", "zero")


@dataclass(frozen=True, eq=False)
class SitePair:
    """What one site has in the two runs.

    Attributes:
        x: what is there in the clean run.
        a: its features.
        error: what they leave of it.
        move_a: the features of the other run less these; 0 at padding.
        move_error: the error of the other run less this one; 0 at padding.
    """

    x: Float[Tensor, "batch pos d_model"]
    a: Float[Tensor, "batch pos latent"]
    error: Float[Tensor, "batch pos d_model"]
    move_a: Float[Tensor, "batch pos latent"]
    move_error: Float[Tensor, "batch pos d_model"]


@dataclass(frozen=True, eq=False)
class PairedRuns:
    """Some texts of a task, run clean and corrupt. Made by `pair_runs`.

    Attributes:
        model: the model.
        dictionaries: autoencoders by site, in the order of the forward pass.
        task: with the metric.
        tokens: of the clean run.
        texts: which of the task's texts these are.
        count: how many texts the task has.
        held: the clean run, to be taken up again.
        at: what each site has in both runs.
        m_clean: the metric of the clean run.
        m_corrupt: that of the corrupt one.
    """

    model: Model
    dictionaries: Dictionaries
    task: Task
    tokens: Tokens
    texts: Int[Tensor, "batch"]
    count: int
    held: HeldPass
    at: Mapping[Site, SitePair]
    m_clean: Float[Tensor, "batch"]
    m_corrupt: Float[Tensor, "batch"]

    def move(self, site: Site) -> Float[Tensor, "batch pos d_model"]:
        """Return how far apart the two runs are at a site: features times decoders, and errors."""
        pair = self.at[site]
        return pair.move_a @ self.dictionaries[site].W_dec.detach().to(pair.move_a) + pair.move_error

    def resume(self, site: Site, edit: Edit, times: int = 1) -> Float[Tensor, "batch n"]:
        """Return the metric of copies of the clean run taken up again with a site changed; gradients flow."""
        final = self.held.resume(0 if site.layer is None else site.layer, {site: edit}, times)
        return self.measure(final.unflatten(0, (-1, times)))

    def measure(self, final: Float[Tensor, "batch n pos d_model"]) -> Float[Tensor, "batch n"]:
        """Return the metric at last streams."""
        return measure_streams(self.model, self.task, self.tokens, final, int(self.texts[0]), self.count)


def pair_runs(
    model: Model, dictionaries: Dictionaries, task: Task, against: str, batch_size: int, *, by_position: bool
) -> Iterator[PairedRuns]:
    """Give the texts of a task in batches, with both runs of each.

    Raises:
        InvalidArgument: texts that do not align, or, by position, that differ in length; another `against` than
            "corrupt" (features and errors of the corrupt run) or "zero" (0).

    Cost: two forward passes.

    Examples:
        ```python
        next(pair_runs(model, order_dictionaries(model, saes), task, "corrupt", 16, by_position=False))
        ```
    """
    if against not in AGAINST:
        raise InvalidArgument(f"nodes are not held against '{against}'; did you mean {nearest(against, AGAINST)}?")
    clean, corrupt = task.tokens(model)
    if by_position:
        check_aligned(clean)
    for i in range(0, len(clean), batch_size):
        rows = slice(i, i + batch_size)
        yield _pair_batch(model, dictionaries, task, against, clean[rows], corrupt[rows], i, len(clean))


@torch.no_grad()
def _pair_batch(
    model: Model,
    dictionaries: Dictionaries,
    task: Task,
    against: str,
    clean: Tokens,
    corrupt: Tokens,
    first: int,
    count: int,
) -> PairedRuns:
    sites = [*dictionaries]
    held = hold(model, clean, sites)
    there = hold(model, corrupt, sites)
    at = {site: _pair_site(dictionaries[site], held, there, site, clean.mask, against) for site in sites}
    texts = torch.arange(first, first + len(clean), device=model.device)
    m_clean, m_corrupt = (
        measure_streams(model, task, run.activations.tokens, run.final[:, None], first, count)[:, 0]
        for run in (held, there)
    )
    return PairedRuns(model, dictionaries, task, clean, texts, count, held, at, m_clean, m_corrupt)


def _pair_site(
    sae: SAE, here: HeldPass, there: HeldPass, site: Site, mask: Bool[Tensor, "batch pos"], against: str
) -> SitePair:
    x = wide(here.activations[site])
    clean, corrupt = split(sae, x), split(sae, wide(there.activations[site]))
    other = corrupt if against == "corrupt" else tuple(torch.zeros_like(part) for part in clean)
    a, error = clean
    move_a, move_error = ((new - old) * mask[:, :, None] for new, old in zip(other, clean, strict=True))
    return SitePair(x, a, error, move_a, move_error)


def fresh_run(model: Model, tokens: Tokens) -> HeldPass:
    """Return a pass over some texts that keeps nothing, to be run from the first block on under edits.

    Examples:
        ```python
        fresh_run(model, tokens).resume(0, {site: edit}, times=4)
        ```
    """
    return HeldPass(model, Activations({}, tokens, model.fingerprint), lambda value: value)
