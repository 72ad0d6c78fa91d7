"""Watching changed values for NaN and infinity, without waiting for a GPU at each of them."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from hooks.errors import InvalidArgument


@final
class Watch:
    """Remembers on the device whether values were finite; asking once per forward pass is one wait.

    Examples:
        ```python
        watch = Watch()
        watch.note("add at resid_post.6", a, a + v)
        watch.check()
        ```
    """

    def __init__(self) -> None:
        self._seen: dict[str, Tensor] = {}

    def note(self, called: str, old: Float[Tensor, "n *d"], new: Float[Tensor, "n *d"]) -> None:
        """Look at the values of one site before and after a change.

        Examples:
            ```python
            watch.note("add at resid_post.6", a, a + v)
            ```
        """
        finite = torch.stack([_finite(new), _finite(old)])
        before = self._seen.get(called)
        self._seen[called] = finite if before is None else finite & before.to(finite.device)

    def check(self) -> None:
        """Raise when a change noted since the last check gave NaN or infinity.

        Raises:
            InvalidArgument: naming the first such change, and whether the values were finite before it.

        Examples:
            ```python
            watch.check()
            ```
        """
        seen, self._seen = self._seen, {}
        if not seen:
            return
        device = next(iter(seen.values())).device
        finite = torch.stack([one.to(device) for one in seen.values()]).tolist()
        for called, (after, before) in zip(seen, finite, strict=True):
            if not after:
                held = "did not hold" if before else "already held"
                raise InvalidArgument(f"{called} gave NaN or infinity; the model's own values there {held} some")


def _finite(value: Tensor) -> Tensor:
    return torch.isfinite(value.detach()).all()
