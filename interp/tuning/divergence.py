"""How far the tuned model's predictions are from the base's: token by token, and how much of it each site holds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Site, Tokens, capture, intervene
from hooks.border import Count
from hooks.errors import UnknownName
from hooks.interventions import replace
from hooks.pieces import piece
from hooks.position import everywhere, special
from hooks.progress import progress_bar
from interp.common.statistics import Estimate, bootstrap
from interp.common.texts import list_texts
from interp.tuning.difference import list_sites
from interp.tuning.pair import ModelPair

if TYPE_CHECKING:
    from pandas import DataFrame


@final
@dataclass(frozen=True, eq=False, repr=False)
class TokenDivergence:
    """KL(tuned ‖ base) of the next token after each token of each text, in nats.

    Attributes:
        tokens: the pieces of each text.
        kl: after each of them.
        said: what base and tuned find likeliest after each.
    """

    tokens: tuple[tuple[str, ...], ...]
    kl: tuple[Float[Tensor, "pos"], ...]
    said: tuple[tuple[tuple[str, str], ...], ...]

    @property
    def mean(self) -> Estimate:
        """The mean over tokens, with a bootstrap interval over texts."""
        return _mean_over_texts(self.kl)

    def __repr__(self) -> str:
        found = [one for one in self.largest(5) if one[0] > 0]
        if not found:
            return f"KL(tuned ‖ base) {self.mean} nats a token: the two models say the same after every token"
        lines = [f"KL(tuned ‖ base) {self.mean} nats a token; most after"]
        for kl, text, pos in found:
            base, tuned = self.said[text][pos]
            before = "".join(self.tokens[text][max(0, pos - 5) : pos + 1])
            lines.append(f"  {before!r}: {kl:.2f}, base {base!r}, tuned {tuned!r}")
        return "\n".join(lines)

    def to_pandas(self) -> "DataFrame":
        """A row for each token of each text."""
        from pandas import DataFrame

        return DataFrame(
            {"text": i, "position": pos, "token": token, "kl": float(kl), "base": said[0], "tuned": said[1]}
            for i, (tokens, kls, saids) in enumerate(zip(self.tokens, self.kl, self.said, strict=True))
            for pos, (token, kl, said) in enumerate(zip(tokens, kls, saids, strict=True))
        )

    def largest(self, n: Count = 10) -> list[tuple[float, int, int]]:
        """The largest divergences in nats, each with its text and its token in that.

        Examples:
            ```python
            measure_token_divergence(pair, texts).largest(3)
            ```
        """
        flat = [(float(kl), i, pos) for i, kls in enumerate(self.kl) for pos, kl in enumerate(kls)]
        return sorted(flat, key=lambda one: (-one[0], *one[1:]))[:n]


@torch.no_grad()
def measure_token_divergence(
    pair: ModelPair, texts: Sequence[str], *, batch_size: Count = 16, progress: bool = True
) -> TokenDivergence:
    """Measure KL(tuned ‖ base) = Σ_v p_tuned(v) log p_tuned(v)/p_base(v) after every token but special ones.

    Raises:
        InvalidArgument: no texts, or one that does not fit into the context.

    Cost: two forward passes per text.

    Examples:
        ```python
        measure_token_divergence(pair, texts).mean
        ```
    """
    texts, kls, pieces, said = list_texts(texts), [], [], []
    for start in progress_bar(range(0, len(texts), batch_size), desc="divergence", progress=progress):
        tokens = pair.base.tokens(texts[start : start + batch_size])
        log_p, log_q = (model.run(tokens).float().log_softmax(-1).cpu() for model in (pair.tuned, pair.base))
        kl, mask, ids = _kl(log_p, log_q), everywhere.mask(tokens).cpu(), tokens.ids.cpu()
        words = {
            i: piece(pair.base.tokenizer, i)
            for i in torch.cat([ids[mask], log_p.argmax(-1)[mask], log_q.argmax(-1)[mask]]).unique().tolist()
        }
        for i, row in enumerate(mask):
            kls.append(kl[i, row])
            pieces.append(tuple(words[t] for t in ids[i, row].tolist()))
            best = zip(log_q[i, row].argmax(-1).tolist(), log_p[i, row].argmax(-1).tolist(), strict=True)
            said.append(tuple((words[a], words[b]) for a, b in best))
    return TokenDivergence(tuple(pieces), tuple(kls), tuple(said))


@final
@dataclass(frozen=True, eq=False, repr=False)
class SiteDivergence:
    """How much of the divergence the base model shows with the tuned model's activations at one site.

    Attributes:
        whole: KL(tuned ‖ base) in nats a token.
        left: KL(tuned ‖ base with the tuned activations at the site).
        held: 1 − left / whole: 1 where the site brings all of it, below 0 where it takes the base further away.
    """

    whole: Estimate
    left: dict[Site, Estimate]
    held: dict[Site, Estimate]

    def __repr__(self) -> str:
        shown = "\n".join(f"  {site}: {held}" for site, held in self.held.items())
        return f"KL(tuned ‖ base) {self.whole} nats a token; the share that each site holds\n{shown}"

    def to_pandas(self) -> "DataFrame":
        """A row for each site."""
        from pandas import DataFrame

        return DataFrame(
            {"site": str(site), "left": self.left[site].value, "held": one.value, "low": one.low, "high": one.high}
            for site, one in self.held.items()
        )

    def __getitem__(self, site: Site) -> Estimate:
        if site not in self.held:
            raise UnknownName(f"{site} was not measured: {', '.join(map(str, self.held))} were")
        return self.held[site]


@torch.no_grad()
def measure_site_divergence(
    pair: ModelPair,
    texts: Sequence[str],
    sites: Site | Sequence[Site] | None = None,
    *,
    batch_size: Count = 16,
    progress: bool = True,
) -> SiteDivergence:
    """Measure how much of KL(tuned ‖ base) is left when the base is given the tuned activations at one site.

    At every token, special ones too. After the last block nothing is left where the two share norm and unembedding.

    Args:
        pair: the two models.
        texts: what both read.
        sites: where; by default after every block.
        batch_size: texts a pass.
        progress: show a bar.

    Raises:
        InvalidArgument: no texts.

    Cost: two forward passes per text, and one for each site.

    Examples:
        ```python
        measure_site_divergence(pair, texts).held
        ```
    """
    texts, chosen = list_texts(texts), list_sites(pair.base, sites)
    whole: list[Tensor] = []
    left: dict[Site, list[Tensor]] = {site: [] for site in chosen}
    for start in progress_bar(range(0, len(texts), batch_size), desc="sites", progress=progress):
        tokens = pair.base.tokens(texts[start : start + batch_size])
        log_p = pair.tuned.run(tokens).float().log_softmax(-1)
        whole += _by_text(log_p, pair.base.run(tokens), tokens)
        acts = capture(pair.tuned, tokens, chosen, batch_size=len(tokens))
        for site in chosen:
            with intervene(pair.base, {site: replace(acts[site], at=everywhere | special)}):
                left[site] += _by_text(log_p, pair.base.run(tokens), tokens)
    return SiteDivergence(
        _mean_over_texts(whole),
        {site: _mean_over_texts(rows) for site, rows in left.items()},
        {site: _share_held(whole, rows) for site, rows in left.items()},
    )


def _kl(log_p: Float[Tensor, "*n vocab"], log_q: Float[Tensor, "*n vocab"]) -> Float[Tensor, "*n"]:
    return (log_p.exp() * (log_p - log_q)).sum(-1).clamp_min(0)


def _by_text(log_p: Tensor, logits: Tensor, tokens: Tokens) -> list[Tensor]:
    kl, mask = _kl(log_p, logits.float().log_softmax(-1)).cpu(), everywhere.mask(tokens).cpu()
    return [row[kept] for row, kept in zip(kl, mask, strict=True)]


def _sums(rows: Sequence[Tensor]) -> Float[Tensor, "example 2"]:
    return torch.tensor([[float(row.sum()), len(row)] for row in rows], dtype=torch.float64)


def _mean_over_texts(rows: Sequence[Tensor]) -> Estimate:
    return bootstrap(lambda drawn: float(drawn[0][:, 0].sum() / drawn[0][:, 1].sum()), [_sums(rows)])


def _share_held(whole: Sequence[Tensor], left: Sequence[Tensor]) -> Estimate:
    """1 − Σ left / Σ whole; 0 where nothing differs: no site holds a part of nothing."""
    both = torch.stack([_sums(whole)[:, 0], _sums(left)[:, 0]], 1)

    def held(drawn: list[Tensor]) -> float:
        of, still = drawn[0].sum(0).tolist()
        return 1 - still / of if of > 0 else 0.0

    return bootstrap(held, [both])
