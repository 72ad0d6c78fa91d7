"""Receipts: what an intervention really did."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from hooks.errors import nearest
from hooks.site import Site


@final
@dataclass(frozen=True)
class Touched:
    """What happened at one site.

    Attributes:
        fired: in how many forward passes at least one token was changed.
        prefill_tokens: tokens changed in passes over a prompt.
        decode_tokens: tokens changed while decoding with a KV cache.
        relative_change: mean of ||a' - a|| over mean of ||a||, over the tokens changed.
    """

    fired: int
    prefill_tokens: int
    decode_tokens: int
    relative_change: float


@final
class Receipt:
    """What the interventions of one `with` block did, site by site; readable inside the block and after.

    Attributes:
        passes: how many forward passes ran inside the block.

    Example:
        ```python
        with intervene(model, {resid_post[6]: add(direction, 8.0)}) as receipt:
            model.generate("I am")
        receipt[resid_post[6]].decode_tokens
        ```
    """

    def __init__(self, sites: tuple[Site, ...]) -> None:
        self.passes = 0
        self._counts = {site: [0, 0, 0] for site in sites}
        self._norms = {site: torch.zeros(2) for site in sites}

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites with interventions."""
        return tuple(self._counts)

    def __getitem__(self, site: Site) -> Touched:
        if site not in self._counts:
            raise KeyError(
                f"nothing intervenes at {site}; the nearest site is {nearest(str(site), map(str, self.sites))}"
            )
        change, size = self._norms[site].tolist()
        relative = change / size if size else (math.inf if change else 0.0)
        return Touched(*self._counts[site], relative_change=relative)

    def as_dict(self) -> Mapping[Site, Touched]:
        """Return what happened at every site.

        Example:
            ```python
            receipt.as_dict()
            ```
        """
        return {site: self[site] for site in self.sites}

    def __repr__(self) -> str:
        head = f"{'site':<16}{'fired':>7}{'prefill':>9}{'decode':>8}{'change':>9}"
        lines = [
            f"{site!s:<16}{did.fired:>7}{did.prefill_tokens:>9}{did.decode_tokens:>8}{did.relative_change:>9.3f}"
            for site, did in self.as_dict().items()
        ]
        return "\n".join([head, *lines])

    def note(self, site: Site, before: Float[Tensor, "n *d"], after: Float[Tensor, "n *d"], *, prefill: bool) -> None:
        """Count the tokens changed at a site in one pass.

        Example:
            ```python
            receipt.note(resid_post[6], a, a_changed, prefill=True)
            ```
        """
        counts = self._counts[site]
        counts[0] += 1
        counts[1 if prefill else 2] += before.shape[0]
        before, after = before.detach().flatten(1).float(), after.detach().flatten(1).float()
        sums = torch.stack([(after - before).norm(dim=1).sum(), before.norm(dim=1).sum()])
        self._norms[site] = self._norms[site].to(sums.device) + sums
