"""Receipts: what an intervention really did."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from hooks.errors import InvalidArgument, UnknownName, WrongState, nearest
from hooks.model import Text
from hooks.network import AnyModel
from hooks.position import Position, everywhere
from hooks.site import Site
from hooks.site_names import SiteNames
from hooks.temporary import grad_mode
from hooks.tokens import Tokens


@final
@dataclass(frozen=True)
class SiteReceipt:
    """What happened at one site.

    Attributes:
        fired: in how many forward passes at least one token was changed.
        prefill_tokens: tokens changed in passes over a prompt.
        decode_tokens: tokens changed while decoding with a KV cache.
        relative_change: mean of ||a' - a|| / ||a|| over the tokens changed.
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

    Examples:
        ```python
        with intervene(model, {resid_post[6]: add(direction, 8.0)}) as receipt:
            model.generate("I am")
        receipt[resid_post[6]].decode_tokens
        ```
    """

    def __init__(
        self,
        sites: tuple[Site, ...],
        measure: Callable[[Text, Position], Tensor],
        names: SiteNames = SiteNames(),  # noqa: B008
    ) -> None:
        self._names = names
        self.passes = 0
        self._counts = {site: [0, 0, 0] for site in sites}
        self._change = {site: torch.zeros(()) for site in sites}
        self._measure: Callable[[Text, Position], Tensor] | None = measure

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites with interventions."""
        return tuple(self._counts)

    def __getitem__(self, site: Site | str) -> SiteReceipt:
        site = self._names.find(site, self._counts)
        if site not in self._counts:
            raise UnknownName(
                f"nothing intervenes at {site}; the nearest site is {nearest(str(site), map(str, self.sites))}"
            )
        fired, *touched = self._counts[site]
        return SiteReceipt(fired, *touched, relative_change=float(self._change[site]) / max(1, sum(touched)))

    def as_dict(self) -> Mapping[Site, SiteReceipt]:
        """Return what happened at every site.

        Examples:
            ```python
            receipt.as_dict()
            ```
        """
        return {site: self[site] for site in self.sites}

    def kl(self, text: Text, at: Position = everywhere) -> Float[Tensor, "n"]:
        """Return KL(p_clean || p_changed) = sum_t p_clean(t) log(p_clean(t) / p_changed(t)), token by token.

        p_clean is the next-token distribution with no block open, p_changed that of this block and of
        those around it. The changed pass counts in the receipt like any other.

        Args:
            text: a text, texts, token ids or `Tokens`.
            at: after which tokens; text after text.

        Returns:
            nats, at least 0.

        Raises:
            WrongState: the block has ended.

        Cost: two forward passes.

        Examples:
            ```python
            with intervene(model, {resid_post[6]: add(direction, 8.0)}) as receipt:
                print(receipt.kl("I am", at=last))
            ```
        """
        if self._measure is None:
            raise WrongState("the block has ended, so nothing is changed any more: call receipt.kl inside it")
        return self._measure(text, at)

    def close(self) -> None:
        """Let go of the model, as happens when the block ends.

        Examples:
            ```python
            receipt.close()
            ```
        """
        self._measure = None

    def __repr__(self) -> str:
        head = f"{'site':<16}{'fired':>7}{'prefill':>9}{'decode':>8}{'change':>9}"
        lines = [
            f"{site!s:<16}{did.fired:>7}{did.prefill_tokens:>9}{did.decode_tokens:>8}{did.relative_change:>9.3f}"
            for site, did in self.as_dict().items()
        ]
        return "\n".join([head, *lines])

    def note(self, site: Site, before: Float[Tensor, "n *d"], after: Float[Tensor, "n *d"], *, prefill: bool) -> None:
        """Count the tokens changed at a site in one pass.

        Examples:
            ```python
            receipt.note(resid_post[6], a, a_changed, prefill=True)
            ```
        """
        counts = self._counts[site]
        counts[0] += 1
        counts[1 if prefill else 2] += before.shape[0]
        before, after = before.detach().flatten(1).float(), after.detach().flatten(1).float()
        change = (after - before).norm(dim=1)
        relative = torch.where(change == 0, change, change / before.norm(dim=1)).sum()
        self._change[site] = self._change[site].to(relative.device) + relative


@grad_mode(False)
def kl_from_clean(model: AnyModel, text: Text, at: Position) -> Float[Tensor, "n"]:
    """Return KL(p_clean || p_changed) in nats after the selected tokens, under the blocks now open.

    Cost: two forward passes.

    Examples:
        ```python
        kl_from_clean(model, "I am", last)
        ```
    """
    tokens = model.tokens(text)
    with model.running.at_rest():
        clean = _chances(model.run(tokens), tokens, at)
    changed = _chances(model.run(tokens), tokens, at)
    return (clean.exp() * (clean - changed)).sum(dim=-1).clamp_min(0.0)


def _chances(logits: Tensor, tokens: Tokens, at: Position) -> Float[Tensor, "n vocab"]:
    """The logarithms of the chances after the selected tokens; what has no axis of them is of one."""
    if not isinstance(logits, Tensor) or logits.ndim not in (2, 3):
        raise InvalidArgument(
            f"kl compares logits [batch pos vocab] or [batch vocab], and the model gives {logits!r:.80}"
        )
    logits = logits[:, None] if logits.ndim == 2 else logits
    return logits[at.mask(tokens.places(logits.shape[1], Site("logits")))].float().log_softmax(dim=-1)
