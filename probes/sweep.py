"""Where a model can be read: one probe over sites and positions, chosen and tested on different groups."""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import replace
from itertools import chain

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hooks import Images, Model, Position, Site
from hooks.border import Count, Natural
from hooks.errors import InvalidArgument
from hooks.network import AnyModel
from hooks.position import last
from hooks.site import embed
from hooks.statistics import (
    Estimate,
    auroc_over_groups,
    balanced_accuracy_over_groups,
    share_over_groups,
    shares_over_groups,
)
from probes.cells import Cell, Cells, gather
from probes.cross_validation import best_of_shuffled, cross_validate, scores
from probes.examples import Examples, cut_examples, name_items
from probes.folds import draw_exchanges, grouped_folds, row_folds
from probes.grid import Controls, ProbeGrid, best_cell
from probes.linear import Linear
from probes.logistic import Logistic
from probes.probe import Probe
from probes.untrained_model import make_untrained_model


def sweep(
    model: AnyModel,
    examples: Examples,
    sites: Iterable[Site],
    positions: Iterable[Position] = (last,),
    *,
    probe: Probe | None = None,
    folds: int = 5,
    permutations: Count = 20,
    elsewhere: Mapping[str, Examples] | None = None,
    seed: Natural = 0,
    progress: bool = True,
) -> ProbeGrid:
    """Fit a probe at every site and position, and measure it on groups it has not seen, with every control.

    The probe is `Logistic()` unless given. Texts longer than the context are cut, as `cut_examples` does. Of pictures
    the control "embedding" is their pixels, averaged over squares to at most 16 by 16. The cell is chosen on inner
    folds only, and the choice is measured on the fold it has not seen. `elsewhere` names other data sets for the final
    probe, without a text or entity of this one.

    Cost:
        Two forward passes per text, one of them of an untrained model, and one per text elsewhere; k (k + 1) / 2 fits
        per cell for k folds, the same for the untrained model and the embeddings, and k per exchange of labels.

    Raises:
        InvalidArgument: fewer than 3 folds or than 1 permutation, fewer groups than folds, a position that selects no
            or several tokens, NaN; a text or entity elsewhere that was learnt from.

    Examples:
        ```python
        examples = Examples(statements, truth, cities)
        print(sweep(model, examples, [resid_post[i] for i in range(model.n_layers)], [last, index(-2)]))
        ```
    """
    probe = Logistic() if probe is None else probe
    sweep_folds(examples, folds, seed)
    for name, other in (elsewhere or {}).items():
        _check_apart(name, other, examples)
    examples = cut_examples(model, examples)
    sites, positions = tuple(sites), tuple(positions)
    places = {"sites": sites, "positions": positions, "progress": progress}
    cells = gather(model, examples.texts, **places)
    controls = {
        "embedding": _embeddings(model, examples, positions, progress),
        "untrained": gather(make_untrained_model(model, seed), examples.texts, **places),
    }
    grid = measure(
        cells, examples, probe, controls, folds=folds, permutations=permutations, seed=seed, progress=progress
    )
    others = {}
    for name, given in (elsewhere or {}).items():
        (site, position), other = grid.best, cut_examples(model, given)
        x = gather(model, other.texts, [site], [position], progress=progress).rows[grid.best]
        others[name] = share_over_groups(grid.probe.predict(x).cpu() == other.y, other.group, seed=seed)
    return replace(grid, controls=replace(grid.controls, elsewhere=others))


def measure(
    cells: Cells,
    examples: Examples,
    probe: Probe,
    controls: Mapping[str, Cells],
    *,
    folds: int = 5,
    permutations: Count = 20,
    seed: Natural = 0,
    progress: bool = True,
) -> ProbeGrid:
    """Measure rows already captured, here or from a store: `cells`, and as controls "embedding" and "untrained".

    Raises:
        InvalidArgument: as `sweep`; or a control without rows.

    Examples:
        ```python
        measure(cells, examples, LDA(), {"embedding": tokens, "untrained": random}, folds=10)
        ```
    """
    _check(cells, examples, controls)
    y, group, fold = examples.y, examples.group, sweep_folds(examples, folds, seed)
    found, *compared = (
        cross_validate(probe, c.rows, y, fold, progress=progress)
        for c in (cells, controls["embedding"], controls["untrained"])
    )
    null = best_of_shuffled(
        probe, cells.rows, draw_exchanges(y, group, fold, permutations, seed), fold, progress=progress
    )
    sites, positions = (tuple(dict.fromkeys(axis)) for axis in zip(*cells.rows, strict=True))
    order = [list(cells.rows).index((site, position)) for site in sites for position in positions]
    right = found.right[:, order].reshape(len(y), len(sites), len(positions))
    accuracy, low, high = shares_over_groups(right, group, seed=seed)
    best = best_cell(sites, positions, accuracy)
    memorised, same_rows = _control_task(probe, cells.rows[best], examples, folds, seed)
    return ProbeGrid(
        sites=sites,
        positions=positions,
        accuracy=accuracy,
        bounds=torch.stack([low, high]),
        nested=share_over_groups(found.nested, group, seed=seed),
        balanced=balanced_accuracy_over_groups(found.nested, y, group, seed=seed),
        auroc=auroc_over_groups(found.score, y, group, fold, seed=seed),
        chosen=tuple(list(cells.rows)[i] for i in found.chosen),
        p_value=(1 + int((null >= accuracy.max() - 1e-6).sum())) / (1 + permutations),
        controls=Controls(
            majority=max(float(y.double().mean()), 1 - float(y.double().mean())),
            embedding=share_over_groups(compared[0].nested, group, seed=seed),
            untrained=share_over_groups(compared[1].nested, group, seed=seed),
            shuffled=null,
            memorised=memorised,
            same_rows=same_rows,
            elsewhere={},
            embedding_same=all(bool((rows == rows[:1]).all()) for rows in controls["embedding"].rows.values()),
        ),
        probe=_final(probe, cells, best, y),
        fingerprint=cells.fingerprint,
    )


def _embeddings(model: AnyModel, examples: Examples, positions: tuple[Position, ...], progress: bool) -> Cells:
    """What can be read before the first block: a token's embedding, or a picture's colours."""
    if isinstance(model, Model):
        return gather(model, examples.texts, [embed], positions, progress=progress)
    if not isinstance(examples.texts, Images):
        raise InvalidArgument(f"{model.name} reads no texts: give Examples(Images(pixels), labels, groups)")
    pixels = examples.texts.pixels
    side = min(16, pixels.shape[2]), min(16, pixels.shape[3])
    rows = torch.nn.functional.adaptive_avg_pool2d(pixels, side).flatten(1)
    return Cells({(Site.module("", "input"), position): rows for position in positions}, model.fingerprint)


def _final(probe: Probe, cells: Cells, cell: Cell, y: Bool[Tensor, "example"]) -> Probe:
    """The probe of all texts at one cell, which knows its site."""
    fitted = deepcopy(probe).fit(cells.rows[cell], y.to(cells.rows[cell].device))
    if isinstance(fitted, Linear):
        fitted.at_site(cell[0], cells.fingerprint)
    return fitted


def _control_task(
    probe: Probe, x: Float[Tensor, "n d_model"], examples: Examples, folds: int, seed: int
) -> tuple[Estimate | None, Estimate | None]:
    """Accuracy on random labels per group, and on the labels, with every group on both sides of every split."""
    y, group = examples.y, examples.group
    if examples.n_groups == len(y):
        return None, None
    fold = row_folds(group, folds, seed)
    random = torch.rand(examples.n_groups, generator=torch.Generator().manual_seed(seed)).argsort() % 2 == 0
    train = torch.stack([fold != i for i in range(folds)], 1)
    found = []
    for labels in (random[group], y):
        columns = labels[:, None].expand(-1, folds)
        hit = (scores(probe, x, columns, train) > 0) == columns
        found.append(share_over_groups(hit.gather(1, fold[:, None])[:, 0], group, seed=seed))
    return found[0], found[1]


def _check_apart(name: str, other: Examples, learnt: Examples) -> None:
    for kind, here, there in (
        ("text", {*name_items(learnt.texts)}, name_items(other.texts)),
        ("entity", {*chain(*learnt.entities)}, chain(*other.entities)),
    ):
        shared = next((one for one in there if one in here), None)
        if shared is not None:
            raise InvalidArgument(
                f"the {kind} {shared!r} of '{name}' was learnt from, and would be remembered: leave it out"
            )


def sweep_folds(examples: Examples, folds: int, seed: Natural = 0) -> Int[Tensor, "example"]:
    """The fold of each example in a sweep; known from the examples alone, before a model is read.

    Raises:
        InvalidArgument: fewer than 3 folds, fewer groups than folds, or too few groups with one of the labels.

    Examples:
        >>> names = ["Lyon", "Oslo", "Rome", "Bern", "Cork", "Kyiv"]
        >>> sweep_folds(Examples(names, [1, 0, 1, 0, 1, 0], names), 3).unique().tolist()
        [0, 1, 2]
    """
    n = examples.n_groups
    if not 3 <= folds <= n:
        advice = f"give 3 to {n}" if n > 3 else "3 it must be" if n == 3 else "give examples of 3 groups at least"
        raise InvalidArgument(
            f"folds is {folds}, and the examples have {n} groups: {advice} (each fold has a group of its own, and with "
            "two nothing could be chosen inside them)"
        )
    return grouped_folds(examples.group, examples.y, folds, seed)


def _check(cells: Cells, examples: Examples, controls: Mapping[str, Cells]) -> None:
    for name in ("embedding", "untrained"):
        if name not in controls:
            raise InvalidArgument(f"controls has {list(controls)} and lacks '{name}': a sweep is compared with both")
    for name, given in {"cells": cells, **controls}.items():
        for cell, rows in given.rows.items():
            if len(rows) != len(examples.texts):
                raise InvalidArgument(
                    f"there are {len(examples.texts)} texts, and {len(rows)} rows at {cell[0]}, {cell[1]} of {name}; "
                    "give one per text"
                )
