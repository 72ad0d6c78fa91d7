"""How much an expert says of a text's label, in bits: with labels permuted by text, and once the word is known."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks.border import Count, Natural
from hooks.errors import InvalidArgument
from hooks.summary import summarise
from interp.experts.routing import Routing

CORRECTION = 1 / (2 * log(2))


@dataclass(frozen=True)
class Specialisation:
    """Mutual information of expert and label, in bits.

    Attributes:
        bits: I(E; D), corrected after Miller and Madow.
        shuffled: the mean of the same with labels permuted among texts, and the 95 % point of it.
        p: the share of permutations that say as much.
        given_word: I(E; D | token), corrected: what is left once the word is known.
        given_word_shuffled: its mean and 95 % point with labels permuted among texts.
        given_word_p: the share of permutations that say as much.
        label_bits: H(D), the most there could be.
    """

    bits: float
    shuffled: tuple[float, float]
    p: float
    given_word: float
    given_word_shuffled: tuple[float, float]
    given_word_p: float
    label_bits: float

    __repr__ = summarise

    def __str__(self) -> str:
        given = self.given_word, self.given_word_shuffled, self.given_word_p
        pairs = ("", self.bits, self.shuffled, self.p), ("given the word ", *given)
        lines = [
            f"{name}{bits:.4f} bits (labels permuted by text {drawn[0]:.4f}, 95% below {drawn[1]:.4f}, p = {p:.3f})"
            for name, bits, drawn, p in pairs
        ]
        return f"of {self.label_bits:.2f} bits " + "; ".join(lines)


def measure_specialisation(
    routing: Routing, labels: Sequence[str], *, permutations: Count = 100, seed: Natural = 0
) -> Specialisation:
    """Measure I(E; D) and I(E; D | token) of expert and text label, next to labels permuted by text.

    Tokens of one text are not independent, so permuting labels token by token would make everything significant. The
    correction is (|E| − 1)(|D| − 1) / (2 N ln 2), of what occurs, for each word where the word is given; no pair is
    left out for being rare.

    Args:
        routing: of one layer.
        labels: one for each text.
        permutations: how many.
        seed: of them.

    Raises:
        InvalidArgument: another number of labels than of texts, or one label alone.

    Cost: milliseconds for each permutation.

    Examples:
        ```python
        measure_specialisation(routing, genres)
        ```
    """
    names = sorted({*labels})
    if len(labels) != int(routing.document.max()) + 1 or len(names) < 2:
        raise InvalidArgument(
            f"{len(labels)} labels, {len(names)} of them different, for {int(routing.document.max()) + 1} texts: give "
            "one for each text, and two different ones at least"
        )
    seen, text = routing.document.unique(return_inverse=True)
    of_text = torch.tensor([names.index(label) for label in labels])[seen]
    words = routing.ids.unique(return_inverse=True)[1]
    random = torch.Generator().manual_seed(seed)
    D = len(names)
    plain, given = _information(routing, words, of_text[text], D)
    drawn = torch.tensor(
        [
            _information(routing, words, of_text[torch.randperm(len(of_text), generator=random)][text], D)
            for _ in range(permutations)
        ],
        dtype=torch.float64,
    )
    share = torch.bincount(of_text[text], minlength=D).double() / len(routing)
    H = float(torch.special.entr(share).sum() / log(2))
    at_least = [(1 + int((drawn[:, i] >= value).sum())) / (1 + permutations) for i, value in enumerate((plain, given))]
    ends = [(float(drawn[:, i].mean()), float(drawn[:, i].quantile(0.95))) for i in range(2)]
    return Specialisation(plain, ends[0], at_least[0], given, ends[1], at_least[1], H)


def _information(
    routing: Routing, words: Int[Tensor, "n"], labels: Int[Tensor, "n"], n_labels: int
) -> tuple[float, float]:
    """I(E; D) and I(E; D | word) in bits, corrected."""
    E, n_words = routing.n_experts, int(words.max()) + 1
    cell = (words[:, None] * n_labels + labels[:, None]) * E + routing.choice
    counts = torch.bincount(cell.flatten(), minlength=n_words * n_labels * E).double().view(n_words, n_labels, E)
    by_word = counts.sum((1, 2))
    each = mutual_information(counts)
    whole = float(mutual_information(counts.sum(0, keepdim=True))[0])
    return whole, float((by_word * each).sum() / by_word.sum())


def mutual_information(counts: Float[Tensor, "n class expert"]) -> Float[Tensor, "n"]:
    """I = Σ p log2(p / (p_d p_e)) − (|E| − 1)(|D| − 1) / (2 N ln 2), for each table of counts.

    Examples:
        >>> mutual_information(500.0 * torch.eye(2)[None]).round(decimals=3)
        tensor([0.9990], dtype=torch.float64)
    """
    N = counts.sum((1, 2)).clamp(min=1)
    p = counts / N[:, None, None]
    p_d, p_e = p.sum(2), p.sum(1)
    H = [torch.special.entr(one).flatten(1).sum(1) / log(2) for one in (p_d, p_e, p)]
    seen = [(one > 0).sum(1).double() for one in (p_d, p_e)]
    return H[0] + H[1] - H[2] - (seen[0] - 1).clamp(min=0) * (seen[1] - 1).clamp(min=0) * CORRECTION / N
