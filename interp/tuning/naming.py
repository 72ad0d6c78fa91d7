"""What a difference of activations says: the tokens it raises, read with either head, and which candidate it names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Model, Site
from hooks.border import Count, Natural
from hooks.errors import InvalidArgument
from hooks.pieces import is_blank, piece
from interp.circuits.metric import word_ids
from interp.common.statistics import Estimate, percentile_ends
from interp.tuning.difference import Difference
from interp.tuning.pair import ModelPair


@final
@dataclass(frozen=True, eq=False, repr=False)
class WordsOfDifference:
    """The tokens that a difference raises most, read with the base model's own head and with the tuned one's.

    The tuned head alone could do the reading; what both say is in the difference. A difference of zero raises none.
    """

    site: Site
    base: tuple[tuple[str, float], ...]
    tuned: tuple[tuple[str, float], ...]

    def __repr__(self) -> str:
        if not self.base:
            return f"{self.site}: the two models do not differ there, so no words are raised"
        heads = (("base's head ", self.base), ("tuned head  ", self.tuned))
        return "\n".join(
            f"{self.site}, {name}: {', '.join(f'{word!r} {z:.1f}' for word, z in words)}" for name, words in heads
        )


@torch.no_grad()
def read_difference(
    pair: ModelPair, difference: Difference, site: Site, token: int | None = None, *, k: Count = 10
) -> WordsOfDifference:
    """Read δ̄ through the final norm and each model's unembedding: logits in standard deviations over the vocabulary.

    Raises:
        UnknownName: a site that was not measured.
        InvalidArgument: fewer tokens in the vocabulary than are asked for.

    Examples:
        ```python
        read_difference(pair, difference, resid_post[5])
        ```
    """
    if k > pair.base.d_vocab:
        raise InvalidArgument(f"k={k} tokens are asked for, and the vocabulary has {pair.base.d_vocab}")
    found, v = [], difference.vector(site, token)
    if not bool(v.any()):
        return WordsOfDifference(site, (), ())
    for model in (pair.base, pair.tuned):
        z = lens_scores(model, v)
        top = z.topk(k)
        found.append(
            tuple(
                (piece(model.tokenizer, i), s) for i, s in zip(top.indices.tolist(), top.values.tolist(), strict=True)
            )
        )
    return WordsOfDifference(site, found[0], found[1])


@torch.no_grad()
def lens_scores(model: Model, v: Float[Tensor, "d_model"]) -> Float[Tensor, "vocab"]:
    """What a vector of the stream raises, read as if it were the last: logits less those of no vector, standardised.

    Examples:
        ```python
        lens_scores(model, direction.vector).topk(5)
        ```
    """
    v = v.to(model.device, model.dtype)
    logits = (model.unembed(v) - model.unembed(torch.zeros_like(v))).float().cpu()
    return (logits - logits.mean()) / logits.std().clamp_min(1e-12)


@final
@dataclass(frozen=True, eq=False, repr=False)
class Naming:
    """Which of some candidates a difference names.

    Attributes:
        scores: the mean score of each candidate's words, in standard deviations over the vocabulary, largest first.
        margin: the first's less the second's, with an interval over the words of both.
        p: how often as many words drawn from those of all candidates score as high as the first's do, over the number
            of candidates (Bonferroni), at most 1.
    """

    scores: Mapping[str, float]
    margin: Estimate
    p: float

    @property
    def first(self) -> str:
        """The candidate that is named."""
        return next(iter(self.scores))

    def __repr__(self) -> str:
        shown = ", ".join(f"{name} {score:.2f}" for name, score in [*self.scores.items()][:4])
        return f"Naming({shown}; margin {self.margin}; p {self.p:.3g})"


def name_difference(
    model: Model,
    vector: Float[Tensor, "d_model"],
    candidates: Mapping[str, Sequence[str]],
    *,
    draws: Count = 2000,
    seed: Natural = 0,
) -> Naming:
    """Say which candidate, each some words, a difference raises most, read with one model's head.

    Each word is the first of its tokens that is more than white space, with a space before the word. Take the base
    model, so that the tuned head does no reading.

    Args:
        model: whose final norm and unembedding read.
        vector: such as `difference.vector(site)`.
        candidates: words that tell each candidate from the others.
        draws: of words, for p and the interval.
        seed: of the draws.

    Raises:
        InvalidArgument: fewer than two candidates, one without words, or two whose words begin with the same tokens.

    Examples:
        ```python
        name_difference(base, difference.vector(resid_post[5]), {name: words_of(name) for name in PERSONAS})
        ```
    """
    if len(candidates) < 2 or not all(candidates.values()):
        raise InvalidArgument(f"candidates are {[*candidates]}: give at least two, each with at least one word")
    z = lens_scores(model, vector)
    tokens = {name: _first_tokens(model, words) for name, words in candidates.items()}
    _check_apart(model, tokens)
    of = {name: z[ids] for name, ids in tokens.items()}
    order = sorted(of, key=lambda name: -float(of[name].mean()))
    pool, best, second = torch.cat([*of.values()]), of[order[0]], of[order[1]]
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.stack(
        [pool[torch.randperm(len(pool), generator=generator)[: len(best)]].mean() for _ in range(draws)]
    )
    both = [part[torch.randint(len(part), (draws, len(part)), generator=generator)].mean(1) for part in (best, second)]
    low, high = percentile_ends(both[0] - both[1]).tolist()
    margin = Estimate(float(best.mean() - second.mean()), low, high, len(best))
    p = min(1.0, len(candidates) * (1 + int((drawn >= best.mean()).sum())) / (1 + draws))
    return Naming({name: float(of[name].mean()) for name in order}, margin, p)


def _first_tokens(model: Model, words: Sequence[str]) -> list[int]:
    found = set[int]()
    for word in words:
        ids = [i for i in word_ids(model, f" {word}") if not is_blank(model.tokenizer, i)]
        if not ids:
            raise InvalidArgument(f"the word {word!r} has no token but white space: give a word")
        found.add(ids[0])
    return sorted(found)


def _check_apart(model: Model, tokens: Mapping[str, Sequence[int]]) -> None:
    """Raise where two candidates have the same tokens, so that they score alike whatever is read."""
    first: dict[tuple[int, ...], str] = {}
    for name, ids in tokens.items():
        if (other := first.setdefault(tuple(ids), name)) != name:
            raise InvalidArgument(
                f"the words of {other!r} and of {name!r} all begin with {[piece(model.tokenizer, i) for i in ids]}: "
                "give words that begin with other tokens"
            )
