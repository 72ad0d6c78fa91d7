"""Passages found for a question: by the words they share, or by the states of an encoder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, final, runtime_checkable

import regex
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import Model, Position, Site, stream
from hooks.border import Count, Positive, Share
from hooks.errors import InvalidArgument, MissingExtra
from hooks.position import everywhere
from interp.common.texts import list_texts

UNSPACED: Final = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
WORD: Final = regex.compile(rf"{UNSPACED}|(?:(?!{UNSPACED})[\w])+")
Encoder = Callable[[Sequence[str]], Float[Tensor, "n _"]]
Hits = tuple[Float[Tensor, "n _"], Int[Tensor, "n _"]]


@runtime_checkable
class PassageSearch(Protocol):
    """What finds passages: `find` gives the scores and numbers of the best `k` for each question, best first."""

    @property
    def passages(self) -> tuple[str, ...]:
        """What is searched."""
        ...

    def find(self, questions: Sequence[str], k: Count = 5) -> Hits:
        """Scores and numbers of the best passages, a row a question."""
        ...


def split_words(text: str) -> list[str]:
    """The words of a text in lower case; in scripts without spaces its characters.

    Examples:
        >>> split_words("The Golden Gate, 東京")
        ['the', 'golden', 'gate', '東', '京']
    """
    return WORD.findall(text.casefold())


@final
@dataclass(frozen=True, eq=False, repr=False)
class WordSearch:
    """Passages by BM25: Σ over the question's words of idf(w) f/(f + k₁(1 − b + b |p|/mean |p|)).

    f is how often the passage has the word, idf = log(1 + (N − n + ½)/(n + ½)) with n of N passages that have it
    (Robertson and Zaragoza 2009, in the form that Lucene uses).
    """

    passages: tuple[str, ...]
    held: Any

    def __repr__(self) -> str:
        return f"WordSearch({len(self.passages):,} passages)"

    def find(self, questions: Sequence[str], k: Count = 5) -> Hits:
        """Scores and numbers of the best passages, a row a question."""
        rows = [torch.from_numpy(self.held.get_scores(split_words(one))) for one in list_texts(questions, "questions")]
        return _first(torch.stack(rows).double(), k)


@final
@dataclass(frozen=True, eq=False, repr=False)
class StateSearch:
    """Passages by cos(x − μ, y − μ) of what an encoder makes of question and passage, μ the mean over passages."""

    passages: tuple[str, ...]
    encode: Encoder
    mean: Float[Tensor, "_"]
    unit: Float[Tensor, "n _"]

    def __repr__(self) -> str:
        return f"StateSearch({len(self.passages):,} passages of {self.unit.shape[1]} numbers)"

    def find(self, questions: Sequence[str], k: Count = 5) -> Hits:
        """Scores and numbers of the best passages, a row a question."""
        asked = _encode(self.encode, list_texts(questions, "questions"))
        return _first(torch.nn.functional.normalize(asked - self.mean, dim=1) @ self.unit.T, k)


def index_words(passages: Sequence[str], *, k1: Positive = 1.2, b: Share = 0.75) -> WordSearch:
    """Index passages by their words.

    Args:
        passages: what is searched.
        k1: how much a word's further occurrences add: the smaller, the less.
        b: how much a passage's length counts against it, from 0, not at all, to 1.

    Raises:
        InvalidArgument: no passages, or none with a word.
        MissingExtra: bm25s is not installed.

    Examples:
        ```python
        index_words(["The tower of Vell is green.", "Goats eat hay."]).find(["What colour is the tower?"], 1)
        ```
    """
    words = [split_words(one) for one in list_texts(passages, "passages")]
    if not any(words):
        raise InvalidArgument(f"none of the {len(words)} passages has a word: give texts")
    held = _load().BM25(k1=k1, b=b, method="lucene")
    held.index(words, show_progress=False)
    return WordSearch(tuple(passages), held)


def index_states(passages: Sequence[str], encode: Encoder) -> StateSearch:
    """Index passages by any encoder: a function from texts to a row of numbers for each.

    Raises:
        InvalidArgument: no passages, or an encoder that gives no row of finite numbers for each text.

    Cost: one call of the encoder.

    Examples:
        ```python
        index_states(passages, encode_by_states(model, resid_post[5])).find(["What colour is the tower?"], 1)
        ```
    """
    rows = _encode(encode, list_texts(passages, "passages"))
    mean = rows.mean(0) if len(rows) > 1 else torch.zeros_like(rows[0])
    return StateSearch(tuple(passages), encode, mean, torch.nn.functional.normalize(rows - mean, dim=1))


def encode_by_states(model: Model, site: Site, at: Position = everywhere, *, batch_size: Count = 32) -> Encoder:
    """An encoder of texts: a model's mean state at a site over the tokens of each.

    Examples:
        ```python
        encode_by_states(load("landmark"), resid_post[5])(["The fog came in."]).shape
        ```
    """

    def encode(texts: Sequence[str]) -> Float[Tensor, "n _"]:
        sums, counts, done = torch.zeros(len(texts), 0), torch.zeros(len(texts)), 0
        for acts in stream(model, list(texts), [site], batch_size=batch_size):
            number = acts.tokens.text_number.cpu()
            of = number[at.mask(acts.tokens).nonzero()[:, 0].cpu()] + done
            states = acts.flat(site, at).float().cpu()
            sums = sums if sums.shape[1] else torch.zeros(len(texts), states.shape[1])
            sums.index_add_(0, of, states)
            counts.index_add_(0, of, torch.ones(len(of)))
            done += int(number[-1]) + 1
        return sums / counts[:, None]

    return encode


def _encode(encode: Encoder, texts: list[str]) -> Float[Tensor, "n _"]:
    rows = torch.as_tensor(encode(texts)).double().cpu()
    if rows.ndim != 2 or len(rows) != len(texts) or not bool(rows.isfinite().all()):
        raise InvalidArgument(
            f"the encoder made {tuple(rows.shape)} of {len(texts)} texts: it must give a row of finite numbers for each"
        )
    return rows


def _first(scores: Float[Tensor, "n _"], k: int) -> Hits:
    values, at = scores.sort(dim=1, descending=True, stable=True)
    return values[:, :k], at[:, :k]


def _load() -> Any:
    try:
        import bm25s  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise MissingExtra("search by words needs the library bm25s: pip install 'interp-workbench[search]'") from None
    return bm25s
