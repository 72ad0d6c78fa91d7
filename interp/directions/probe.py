"""The direction of any probe fitted to texts that do and do not show something."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from hooks import Direction, Model, Position, Site
from hooks.position import last
from interp.common.texts import list_texts
from interp.directions.rows import capture_rows
from probes.linear import LinearProbe


def probe_direction(
    model: Model,
    positive: Sequence[str],
    negative: Sequence[str],
    site: Site,
    probe: LinearProbe,
    at: Position = last,
    *,
    progress: bool = True,
) -> Direction:
    """The direction along which the score of a probe rises, fitted to one token of each text.

    The probe is given unfitted, such as `Logistic()`, `LDA()` or `DifferenceOfMeans()`; its own file says what it
    finds.

    Raises:
        InvalidArgument: no texts of a kind, a string for them, a text in which `at` selects no token or several, or
            whatever the probe refuses.

    Cost:
        One forward pass per text, up to the site, and the fit.

    Examples:
        ```python
        probe_direction(model, honest, dishonest, resid_post[6], Logistic(C=0.1))
        ```
    """
    positive, negative = list_texts(positive), list_texts(negative)
    x = capture_rows(model, [*positive, *negative], site, at, progress=progress)
    y = torch.tensor([True] * len(positive) + [False] * len(negative))
    made = probe.fit(x, y).direction(model.tap(site).site, model.fingerprint)
    source = f"{made.source} on {len(positive)} and {len(negative)} texts at {at}"
    return replace(made, vector=made.vector.to(model.device, model.dtype), source=source)
