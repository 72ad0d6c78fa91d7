"""The effects of patching as a heat map: which places bring the behaviour back, or are needed for it."""

from plotly.graph_objects import Figure
from torch import Tensor

from hooks import Model
from hooks.pieces import piece
from hooks.plurals import count_of
from interp.circuits import PatchEffect
from interp.show.heat import heat
from interp.show.page import Panel

MEANING = {
    "denoising": "how much of the clean behaviour a clean value there brings back into the corrupt run",
    "noising": "how much of the clean behaviour a corrupt value there takes from the clean run",
}


def patch_panel(effect: PatchEffect, model: Model | None = None) -> Panel:
    """The share of the way that each patch goes, by site and by position or head.

    A position is named by its token in the base run, where all texts have the same there and the model is given, else
    by its number.

    Examples:
        ```python
        found = patch_sweep(model, denoising(clean, corrupt), metric, over=each_position(resid_pre))
        patch_panel(found, model).body.show()
        ```
    """
    shares, columns = _columns(effect, model)
    most = max(float(shares.abs().max()), 1e-9)
    figure: Figure = heat(shares.tolist(), columns, [*map(str, effect.sites)], most=most)
    kind = effect.kind.partition(",")[0]
    base, donor = float(effect.base.mean()), float(effect.donor.mean())
    return Panel(
        title=f"Patching, {effect.kind}",
        body=figure,
        caption=(
            f"A cell is {MEANING[kind]}: 0 is nothing, 1 all of it, less than 0 the contrary; full colour is "
            f"{most:.3g}. "
            f"Mean of {count_of(len(effect.base), 'pair')} of texts."
        ),
        control=(
            f"The metric is {base:+.3g} with nothing patched and {donor:+.3g} with everything; a place where the two "
            "runs agree has exactly 0."
        ),
    )


def _columns(effect: PatchEffect, model: Model | None) -> tuple[Tensor, list[str]]:
    shares, axes = effect.effect, list(effect.axes)
    if axes == ["head", "pos"]:
        n_pos = shares.shape[2]
        return shares.flatten(1), [f"head {i // n_pos}, position {i % n_pos}" for i in range(shares.shape[1] * n_pos)]
    if axes == ["head"]:
        return shares, [f"head {i}" for i in range(shares.shape[1])]
    if axes == ["pos"]:
        return shares, [
            piece(model.tokenizer, ids[0]) if model is not None and len(set(ids)) == 1 else f"position {i}"
            for i, ids in enumerate(effect.tokens.ids.T.tolist())
        ]
    return shares[:, None], ["whole"]
