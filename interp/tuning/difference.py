"""The mean difference of activations at the first tokens of texts that have nothing to do with the tuning.

It is the bias that tuning left in every context (Minder et al. 2025). What depends on the context is what is left of
each text's difference: its first principal direction over all tokens, next to the mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import Direction, Model, Site, capture
from hooks.border import Count, Natural
from hooks.direction import wide
from hooks.errors import InvalidArgument, UnknownName
from hooks.fingerprint import fingerprint
from hooks.position import everywhere
from hooks.progress import progress_bar
from hooks.site import resid_post
from interp.common.texts import list_texts
from interp.tuning.pair import ModelPair

if TYPE_CHECKING:
    from pandas import DataFrame


@final
@dataclass(frozen=True, eq=False, repr=False)
class Difference:
    """The difference of activations, tuned less base, at the first tokens of unrelated texts.

    Attributes:
        sites: where it was measured.
        mean: δ̄ at each site and each of the first tokens.
        relative: its length over the mean length of the base's activations there.
        by_chance: the 95 % quantile of that ratio when which model is the tuned one is drawn for each text.
        halves: the cosine of δ̄ of one half of the texts with that of the other, over tokens.
        context: the first principal direction of what is left of each token's difference without its mean over texts,
            with the sign of its largest value.
        context_share: the share of the squared length of differences at all tokens that is along `context`.
        n: how many texts have each of the first tokens.
        fingerprints: of the two models.
    """

    sites: tuple[Site, ...]
    mean: Float[Tensor, "site pos d_model"]
    relative: Float[Tensor, "site pos"]
    by_chance: Float[Tensor, "site pos"]
    halves: Float[Tensor, "site"]
    context: Float[Tensor, "site d_model"]
    context_share: Float[Tensor, "site"]
    n: Int[Tensor, "pos"]
    fingerprints: tuple[str, str]

    def __repr__(self) -> str:
        lines = [
            f"Difference at the first {self.mean.shape[1]} tokens of {int(self.n[0])} texts, over the base's length"
        ]
        for i, site in enumerate(self.sites):
            moved = ", ".join(f"{float(r):.3f}" for r in self.relative[i])
            lines.append(f"  {site}: {moved} (by chance at most {float(self.by_chance[i].max()):.3f})")
        return "\n".join(lines)

    def to_pandas(self) -> "DataFrame":
        """A row for each site and token."""
        from pandas import DataFrame

        return DataFrame(
            {
                "site": str(site),
                "token": pos,
                "relative": float(self.relative[i, pos]),
                "by_chance": float(self.by_chance[i, pos]),
                "halves": float(self.halves[i]),
                "context_share": float(self.context_share[i]),
                "n": int(self.n[pos]),
            }
            for i, site in enumerate(self.sites)
            for pos in range(self.mean.shape[1])
        )

    def vector(self, site: Site, token: int | None = None) -> Float[Tensor, "d_model"]:
        """δ̄ at a token, or its mean over all of the first tokens but the very first, whose size is often an artefact.

        Raises:
            UnknownName: a site that was not measured.
        """
        row = self.mean[self._at(site)]
        if token is not None:
            return row[token]
        return row[1:].mean(0) if len(row) > 1 else row[0]

    def direction(self, site: Site, token: int | None = None) -> Direction:
        """The same as a direction of the base model, its scale its own length.

        Raises:
            UnknownName: a site that was not measured.
            InvalidArgument: the models do not differ there.
        """
        v = self.vector(site, token)
        if float(v.norm()) == 0:
            raise InvalidArgument(f"the two models do not differ at {site}: there is no direction")
        return Direction(v, site, "tuned less base", float(v.norm()), self.fingerprints[0])

    def context_direction(self, site: Site) -> Direction:
        """What of the difference depends on the context, as a direction of length 1.

        Raises:
            UnknownName: a site that was not measured.
            InvalidArgument: nothing of it does.
        """
        v = self.context[self._at(site)]
        if float(v.norm()) == 0:
            raise InvalidArgument(f"the difference at {site} is the same in every context")
        return Direction(v, site, "tuned less base, by context", 1.0, self.fingerprints[0])

    def _at(self, site: Site) -> int:
        if site not in self.sites:
            raise UnknownName(f"the difference was not measured at {site}: it was at {', '.join(map(str, self.sites))}")
        return self.sites.index(site)


@dataclass
class _Sums:
    """What is added up of one site over the batches of texts."""

    rows: list[Tensor]  # per text [first, d], NaN where it is shorter
    base: list[Tensor]  # lengths of the base's [text, first]
    total: Tensor  # over all tokens
    moment: Tensor
    count: int = 0


def measure_difference(
    pair: ModelPair,
    texts: Sequence[str],
    sites: Site | Sequence[Site] | None = None,
    *,
    first: Count = 5,
    draws: Count = 200,
    seed: Natural = 0,
    batch_size: Count = 32,
    progress: bool = True,
) -> Difference:
    """Measure δ̄_{l,j}, the mean over texts of h_tuned − h_base at token j < `first`.

    Minder et al. 2025, arXiv:2510.13900: it names what a model was tuned for on texts that have nothing to do with it.
    The texts are to have nothing to do with what was tuned. By chance: the lengths of means of ±δ, with a sign drawn
    for each text, which is what two models that differ by noise alone would show.

    Args:
        pair: the two models.
        texts: texts of any kind; tokens are counted from the first that is no special one.
        sites: where; by default after every block.
        first: how many tokens.
        draws: of the signs.
        seed: of the draws.
        batch_size: texts a pass.
        progress: show a bar.

    Raises:
        InvalidArgument: fewer than four texts that are long enough, or no texts.

    Cost: two forward passes per text, and an eigenvector of a d_model by d_model matrix for each site.

    Examples:
        ```python
        measure_difference(ModelPair(base, tuned), texts).relative
        ```
    """
    texts = list_texts(texts)
    chosen = list_sites(pair.base, sites)
    sums: dict[Site, _Sums] = {}
    for start in progress_bar(range(0, len(texts), batch_size), desc="difference", progress=progress):
        tokens = pair.base.tokens(texts[start : start + batch_size])
        acts = [capture(model, tokens, chosen, batch_size=len(tokens)) for model in (pair.base, pair.tuned)]
        mask = everywhere.mask(tokens)
        for site in chosen:
            base, tuned = (wide(one[site]).cpu() for one in acts)
            _add(sums, site, base, tuned - base, mask.cpu(), first)
    rows = torch.stack([torch.cat(sums[site].rows) for site in chosen])
    n = (~rows[0, :, :, 0].isnan()).sum(0)
    if int(n.min()) < 4:
        raise InvalidArgument(f"{int(n.min())} of {len(texts)} texts have {first} tokens: give longer ones, or first=1")
    base_length = torch.stack([torch.cat(sums[site].base) for site in chosen]).nanmean(1)
    mean = rows.nanmean(1)
    context, shares = zip(*(_context(sums[site]) for site in chosen), strict=True)
    return Difference(
        sites=chosen,
        mean=mean,
        relative=mean.norm(dim=-1) / base_length,
        by_chance=_by_chance(rows, draws, seed) / base_length,
        halves=_halves(rows, seed),
        context=torch.stack(context),
        context_share=torch.tensor(shares),
        n=n,
        fingerprints=(fingerprint(pair.base.hf), fingerprint(pair.tuned.hf)),
    )


def list_sites(model: Model, sites: Site | Sequence[Site] | None) -> tuple[Site, ...]:
    """The sites asked for as the model has them; those after every block if none are.

    Examples:
        ```python
        list_sites(model, resid_post[3])
        ```
    """
    if sites is None:
        return tuple(model.tap(resid_post[layer]).site for layer in range(model.n_layers))
    return tuple(model.tap(site).site for site in ([sites] if isinstance(sites, Site) else sites))


def _add(sums: dict[Site, _Sums], site: Site, base: Tensor, delta: Tensor, mask: Tensor, first: int) -> None:
    """Add one batch: the rows of the first tokens, and the second moment over all tokens."""
    rows, lengths = (torch.full((len(mask), first, *tail), torch.nan) for tail in (delta.shape[2:], ()))
    number = mask.cumsum(1) - 1
    at = mask & (number < first)
    text = at.nonzero()[:, 0]
    rows[text, number[at]] = delta[at].float()
    lengths[text, number[at]] = base[at].float().norm(dim=-1)
    if site not in sums:
        d = delta.shape[-1]
        sums[site] = _Sums([], [], torch.zeros(d, dtype=torch.float64), torch.zeros(d, d, dtype=torch.float64))
    held, flat = sums[site], delta[mask].double()
    held.rows.append(rows)
    held.base.append(lengths)
    held.total += flat.sum(0)
    held.moment += flat.T @ flat
    held.count += len(flat)


def _context(sums: _Sums) -> tuple[Float[Tensor, "d_model"], float]:
    """The first principal direction of the differences about their mean, and its share of their squared length."""
    mean, whole = sums.total / sums.count, float(sums.moment.trace())
    if whole == 0:
        return torch.zeros_like(mean).float(), 0.0
    values, vectors = torch.linalg.eigh(sums.moment / sums.count - mean.outer(mean))
    if float(values[-1]) * sums.count <= 1e-12 * whole:
        return torch.zeros_like(mean).float(), 0.0
    v = vectors[:, -1]
    v = v * v[v.abs().argmax()].sign()
    return v.float(), float(values[-1]) * sums.count / whole


def _by_chance(rows: Tensor, draws: int, seed: int) -> Float[Tensor, "site pos"]:
    """The 95 % quantile of the length of the mean difference with a random sign for each text."""
    generator = torch.Generator().manual_seed(seed)
    there = ~rows[..., 0].isnan()
    filled, count = rows.nan_to_num(), there.sum(1).clamp_min(1)
    lengths = []
    for _ in range(draws):
        sign = torch.randint(2, (rows.shape[1],), generator=generator) * 2.0 - 1.0
        lengths.append(torch.einsum("stpd,t->spd", filled, sign).norm(dim=-1) / count)
    return torch.stack(lengths).quantile(0.95, dim=0)


def _halves(rows: Tensor, seed: int) -> Float[Tensor, "site"]:
    order = torch.randperm(rows.shape[1], generator=torch.Generator().manual_seed(seed))
    one, other = (rows[:, part].nanmean(1).nan_to_num().flatten(1) for part in order.tensor_split(2))
    return torch.nn.functional.cosine_similarity(one, other, dim=1)
