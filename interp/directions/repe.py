"""Representation reading: the first principal component of paired differences, its sign set by the pairs."""

import torch

from hooks import Direction, Position, Site
from hooks.network import AnyModel
from hooks.position import last
from interp.directions.pairs import Pairs
from interp.directions.rows import capture_pairs, make_direction


def repe(model: AnyModel, pairs: Pairs, site: Site, at: Position = last, *, progress: bool = True) -> Direction:
    """v = argmax_{|v|=1} sum_i (v . d_i)^2,  d_i = a(p_i+) - a(p_i-) (Zou et al. 2023, arXiv:2310.01405, LAT).

    The differences are not centred: that is what the published random order within pairs comes to, whose mean is 0.
    The sign is the one by which most pairs, and of equals their mean, point from negative to positive. Where every
    pair points the same way this is close to `caa`; where they differ in size it follows the largest.

    Raises:
        InvalidArgument: a text in which `at` selects no token or several, or pairs without a difference at the site.

    Cost:
        One forward pass per text, up to the site.

    Examples:
        ```python
        repe(model, Pairs(honest, dishonest), resid_post[6])
        ```
    """
    positive, negative = capture_pairs(model, pairs, site, at, progress=progress)
    d = positive - negative
    v = torch.linalg.svd(d, full_matrices=False).Vh[0] * d.norm(dim=1).mean()
    along = d @ v
    votes = int((along > 0).sum()) - int((along < 0).sum())
    sign = votes or float(along.sum())
    v = v if sign >= 0 else -v
    return make_direction(model, site, v, f"PCA of {pairs.n} paired differences at {at}", negative.mean(0), positive)
