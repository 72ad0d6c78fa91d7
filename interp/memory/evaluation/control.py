"""The control of an edit: as large, at the same place, with something random written."""

from dataclasses import replace

import torch

from interp.memory.editing.change import LowRank, group_by_layer
from interp.memory.editing.edit import Edit


def make_control(edit: Edit, seed: int = 0) -> Edit:
    """The edit with what it writes replaced by something random of the same size at the same place.

    What is written into a layer's weights is turned to random directions, ‖ΔW‖ kept; the values of a codebook become
    random ones of equal norm, a datastore's tokens others; a preamble's tokens are put into another order.
    """
    random = torch.Generator().manual_seed(seed)
    others = [update for update in edit.updates if not isinstance(update, LowRank)]
    turned = tuple(update.control(random) for update in (*group_by_layer(edit.weights).values(), *others))
    return replace(edit, method=f"control of {edit.method}", updates=turned)
