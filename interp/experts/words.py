"""Which words run through each expert, and how much the word says of the expert, in bits."""

from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks.border import Count, Natural
from hooks.summary import summarise
from interp.common.statistics import Estimate, wilson
from interp.experts.routing import Routing
from interp.experts.specialisation import mutual_information

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, eq=False)
class ExpertWords:
    """The words of each expert of a layer.

    Attributes:
        layer: which.
        used: the share of all tokens that run through each expert: what a word would have by chance.
        words: of each expert, the ids of its words and the share of their occurrences that run through it, those whose
            share is surely the largest first; the cases of its interval are the texts that have the word.
        bits: I(E; token), corrected after Miller and Madow.
        shuffled: the mean of the same with experts drawn from other tokens of the same text, and the 95 % point of it.
        token_bits: H(token), the most there could be.
    """

    layer: int
    used: Float[Tensor, "expert"]
    words: tuple[tuple[tuple[int, Estimate], ...], ...]
    bits: float
    shuffled: tuple[float, float]
    token_bits: float

    __repr__ = summarise

    def to_pandas(self) -> "DataFrame":
        """A row for each word of an expert."""
        from pandas import DataFrame

        return DataFrame(
            [
                {"expert": e, "token": token, "share": share.value, "low": share.low, "high": share.high}
                for e, words in enumerate(self.words)
                for token, share in words
            ]
        )


def find_expert_words(routing: Routing, *, k: Count = 10, permutations: Count = 20, seed: Natural = 0) -> ExpertWords:
    """Find the words that each expert serves most, N(e, x) / N(x), and I(E; token) in bits.

    Muennighoff et al. 2024, arXiv:2409.02060, leave pairs out that occur seldom and divide by all occurrences, which
    flatters; here words are ordered by the lower end of the share's 95 % interval, Wilson's over the texts that have
    the word, so that a word of one text is not first, however often it is there, and none is left out.

    Args:
        routing: of one layer.
        k: words of each expert.
        permutations: of the experts among the tokens of each text, for the control.
        seed: of them.

    Cost: milliseconds for each permutation.

    Examples:
        ```python
        find_expert_words(capture_routing(model, texts)[2]).words[0]
        ```
    """
    ids, at = routing.ids.unique(return_inverse=True)
    n, E = len(ids), routing.n_experts
    counts = _count(at, routing.choice, n, E)
    of_word = torch.bincount(at, minlength=n).double()
    document = routing.document.unique(return_inverse=True)[1]
    texts = torch.stack([at, document]).unique(dim=1)[0].bincount(minlength=n)
    words = tuple(_best(counts[:, e], of_word, texts, ids, k) for e in range(E))
    random = torch.Generator().manual_seed(seed)
    drawn = torch.tensor(
        [_bits(_count(at, routing.choice[_within_texts(routing.document, random)], n, E)) for _ in range(permutations)],
        dtype=torch.float64,
    )
    share = of_word / of_word.sum()
    return ExpertWords(
        routing.layer,
        counts.sum(0) / len(at),
        words,
        _bits(counts),
        (float(drawn.mean()), float(drawn.quantile(0.95))),
        float(torch.special.entr(share).sum() / log(2)),
    )


def _count(at: Int[Tensor, "n"], choice: Int[Tensor, "n choice"], n: int, E: int) -> Float[Tensor, "_ expert"]:
    return torch.bincount((at[:, None] * E + choice).flatten(), minlength=n * E).double().view(n, E)


def _bits(counts: Float[Tensor, "_ expert"]) -> float:
    return float(mutual_information(counts[None])[0])


def _best(
    counts: Float[Tensor, "_"], of_word: Float[Tensor, "_"], texts: Int[Tensor, "_"], ids: Int[Tensor, "_"], k: int
) -> tuple[tuple[int, Estimate], ...]:
    found = [
        (int(ids[i]), wilson(float(counts[i] / of_word[i]), int(texts[i]))) for i in counts.nonzero()[:, 0].tolist()
    ]
    return tuple(sorted(found, key=lambda one: (-one[1].low, one[0]))[:k])


def _within_texts(document: Int[Tensor, "n"], random: torch.Generator) -> Int[Tensor, "n"]:
    """An order of tokens that moves each to the place of another one of its text; texts are in order."""
    draw = torch.rand(len(document), generator=random, dtype=torch.float64)
    return (document.double() + draw).argsort()
