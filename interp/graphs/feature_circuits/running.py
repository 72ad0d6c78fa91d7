"""Running feature circuits: the nodes that are kept have what this run computes, all others the other run's values."""

from collections.abc import Mapping, Sequence
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Model, Site
from hooks.border import Count
from hooks.errors import InvalidArgument, nearest
from hooks.progress import progress_bar
from hooks.taps import Edit
from interp.circuits.edges.task import Task
from interp.graphs.feature_circuits.dictionaries import Dictionaries, Nodes, order_dictionaries, split
from interp.graphs.feature_circuits.paired_runs import PairedRuns, fresh_run, pair_runs
from interp.sae import SAE

ERRORS: Final = ("circuit", "keep", "remove")


@torch.no_grad()
def run_feature_circuit(
    model: Model,
    autoencoders: Sequence[SAE],
    task: Task,
    circuits: Nodes | Sequence[Nodes],
    *,
    errors: str = "circuit",
    against: str = "corrupt",
    batch_size: Count = 16,
    progress: bool = True,
) -> Float[Tensor, "circuit example"]:
    """The metric of each text with only some nodes left: x' = x + Σ_i∉C (a_i* - a_i) W_dec,i + (e* - e if e ∉ C).

    x, a and e are of this very run, and * of the other one, so nodes that stay have the circuit's own values. With
    every node the model is what it is, bit for bit.

    Args:
        model: the model.
        autoencoders: as for `feature_effects`.
        task: likewise.
        circuits: the nodes that stay, of one circuit or of several, by site; as `FeatureEffects.nodes` gives them.
        errors: "circuit", as the nodes say; "keep", all errors stay, which flatters a circuit; "remove", all are 0.
        against: the run that other nodes are as in, "corrupt" or "zero".
        batch_size: texts times circuits per pass.
        progress: show a bar.

    Raises:
        InvalidArgument: no circuits, or with other sites or features; another word for errors; as `feature_effects`.

    Cost: a forward pass for each circuit and text, and the encoding of every site.

    Examples:
        ```python
        run_feature_circuit(model, saes, task, effects.nodes(0.1), errors="remove")
        ```
    """
    dictionaries = order_dictionaries(model, autoencoders)
    several = [circuits] if isinstance(circuits, dict) else [*circuits]
    check_nodes(dictionaries, several)  # type: ignore[arg-type]
    if errors not in ERRORS:
        raise InvalidArgument(f"errors are not treated as '{errors}'; did you mean {nearest(errors, ERRORS)}?")
    by_position = len(next(iter(several[0].values()))) > 1  # type: ignore[union-attr]
    found = []
    bar = progress_bar(desc="circuits", unit=" batches", progress=progress)
    for runs in pair_runs(model, dictionaries, task, against, batch_size, by_position=by_position):
        bar.update()
        size = max(1, batch_size // len(runs.texts))
        parts = [several[i : i + size] for i in range(0, len(several), size)]
        found.append(torch.cat([_run_circuits(runs, part, errors) for part in parts], 1))  # type: ignore[arg-type]
    bar.close()
    return torch.cat(found).T


def _run_circuits(runs: PairedRuns, circuits: Sequence[Nodes], errors: str) -> Float[Tensor, "batch circuit"]:
    edits = {site: _edit(runs, site, circuits, errors) for site in runs.dictionaries}
    final = fresh_run(runs.model, runs.tokens).resume(0, edits, len(circuits))
    return runs.measure(final.unflatten(0, (-1, len(circuits))))


def _edit(runs: PairedRuns, site: Site, circuits: Sequence[Nodes], errors: str) -> Edit:
    sae = runs.dictionaries[site]
    kept = torch.stack([nodes[site] for nodes in circuits]).to(runs.model.device)
    a_there = (runs.at[site].a + runs.at[site].move_a)[:, None]
    error_there = (
        torch.zeros_like(runs.at[site].error) if errors == "remove" else runs.at[site].error + runs.at[site].move_error
    )
    gone_error = ~kept[..., -1:] if errors == "circuit" else torch.full_like(kept[..., -1:], errors == "remove")
    real = runs.tokens.mask[:, None, :, None]

    def edit(x: Float[Tensor, "n pos d_model"]) -> Float[Tensor, "n pos d_model"]:
        a, error = (part.unflatten(0, (-1, len(circuits))) for part in split(sae, x))
        move = torch.where(kept[..., :-1] | ~real, 0.0, a_there - a) @ sae.W_dec.to(a)
        move = move + torch.where(gone_error & real, error_there[:, None] - error, 0.0)
        return x + move.flatten(0, 1).to(x)

    return edit


def check_nodes(dictionaries: Dictionaries, circuits: Sequence[Nodes]) -> None:
    """Raise unless circuits are masks over the nodes of these dictionaries.

    Raises:
        InvalidArgument: none, or with other sites or features.

    Examples:
        ```python
        check_nodes(dictionaries, [effects.nodes(0.1)])
        ```
    """
    if not circuits:
        raise InvalidArgument("no circuits were given to run: give at least one")
    wanted = {site: sae.d_sae + 1 for site, sae in dictionaries.items()}
    for nodes in circuits:
        given = {site: mask.shape[1] for site, mask in nodes.items()}
        if given != wanted:
            raise InvalidArgument(
                f"the circuit has nodes {_sizes(given)}, the autoencoders {_sizes(wanted)}: take "
                "FeatureEffects.nodes of the same autoencoders"
            )


def _sizes(nodes: Mapping[Site, int]) -> str:
    return ", ".join(f"{count} at {site}" for site, count in nodes.items())
