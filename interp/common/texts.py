"""Texts in any script: a list of them checked, long ones cut to fit a model, words and names found in them.

Words end where Unicode's default word boundaries are (UAX #29), with letters composed (NFC). Chinese, Japanese, Thai,
Lao, Khmer and Burmese put no space between words, so a word may begin at every character there. In other scripts a word
ends where letters, marks and digits do: "5" is no word of "5.5", nor "1" of "1,000", nor a Korean noun with a particle
the noun. In one thing words are shorter here than in UAX #29: an apostrophe, full stop or colon between letters ends
one, so that "Paris" is a word of "Paris's".
"""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Final
from unicodedata import is_normalized, normalize

import regex
import torch
from jaxtyping import Int
from torch import Tensor

from hooks import Model
from hooks.errors import InvalidArgument
from hooks.forward import context
from hooks.rows import cut_texts, note_cut

_INNER: Final = r"[\p{WB=MidLetter}\p{WB=MidNumLet}\p{WB=Single_Quote}]"
_EDGE: Final = rf"(?:\b|(?<=\p{{L}}\p{{M}}*)(?={_INNER})|(?<={_INNER})(?=\p{{L}}))"
_UNSPACED: Final = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}ー、。「」『』（）：，？！]\Z"
)
_WIDE: Final = regex.WORD | regex.UNICODE


def list_texts(texts: Sequence[str], called: str = "texts") -> list[str]:
    """The texts as a list.

    Raises:
        InvalidArgument: a single string, or no texts.

    Examples:
        >>> list_texts(("fog", "sea"), "prompts")
        ['fog', 'sea']
    """
    if isinstance(texts, str) or not texts:
        raise InvalidArgument(f"the {called} are {texts!r}: give a list of at least one {called.removesuffix('s')}")
    return list(texts)


def find_phrases(text: str, phrases: Sequence[str], *, ignore_case: bool = False) -> list[tuple[int, int, int]]:
    """Where a text has any of the phrases as whole words: start and end character, and the number of the phrase.

    From left to right without overlaps, the longest phrase first. A space in a phrase is any white space in the text.

    Examples:
        >>> find_phrases("Iranian cities of Iran", ["Iran"])
        [(18, 22, 0)]
        >>> find_phrases("東京です。", ["東京"])
        [(0, 2, 0)]
    """
    composed, origin = _compose(text)
    pattern = _pattern(tuple(phrases), ignore_case)
    found = ((match.start(), match.end(), (match.lastindex or 1) - 1) for match in pattern.finditer(composed))
    order = _longest_first(phrases)
    return [(origin[start], origin[end], order[number]) for start, end, number in found]


def begins_with(text: str, phrase: str) -> bool:
    """Whether a text begins with the phrase as whole words, white space before it left out.

    Examples:
        >>> begins_with(" Paris, France", "Paris"), begins_with(" Parish", "Paris"), begins_with(" 5.5 m", "5")
        (True, False, False)
    """
    return _pattern((phrase,), False).match(normalize("NFC", text).lstrip()) is not None


def join_words(before: str, after: str) -> str:
    """A text and the words that continue it, with a space between them unless its script puts none there.

    Examples:
        >>> join_words("The capital of France is", "Paris"), join_words("法国的首都是", "巴黎")
        ('The capital of France is Paris', '法国的首都是巴黎')
    """
    return f"{before}{'' if _UNSPACED.search(before) else ' '}{after}"


def fold_text(text: str) -> str:
    """The text as one that differs only in normalisation or white space reads: composed, single spaces, none around.

    Examples:
        >>> fold_text("Zoe\u0308  sang ") == fold_text("Zo\u00eb sang")
        True
    """
    return " ".join(normalize("NFC", text).split())


def unique_texts(texts: Sequence[str]) -> list[str]:
    """The texts, the first of those that read alike by `fold_text`: so that none is on both sides of a split.

    Examples:
        >>> unique_texts(["fog", "fog ", "sea"])
        ['fog', 'sea']
    """
    first: dict[str, str] = {}
    for text in texts:
        first.setdefault(fold_text(text), text)
    return list(first.values())


def number_texts(texts: Sequence[str]) -> Int[Tensor, "example"]:
    """For each text the number of the first that reads like it by `fold_text`: what texts share, to split or draw by.

    Examples:
        >>> number_texts(["fog", "sea", "fog "]).tolist()
        [0, 1, 0]
    """
    place = {text: i for i, text in enumerate(dict.fromkeys(map(fold_text, texts)))}
    return torch.tensor([place[fold_text(text)] for text in texts], dtype=torch.long)


def check_unlike(texts: Sequence[str], called: str = "texts") -> list[str]:
    """The texts as a list, of which no two read alike: cases of an interval.

    Raises:
        InvalidArgument: two that read alike by `fold_text`.

    Examples:
        >>> check_unlike(["fog", "sea"])
        ['fog', 'sea']
    """
    if repeated := [text for text, n in Counter(map(fold_text, texts)).items() if n > 1]:
        raise InvalidArgument(
            f"{len(repeated)} of the {called} are there more than once, such as {repeated[0]!r}: an interval takes "
            "each for a case of its own, so give each once"
        )
    return list(texts)


def split_long_texts(model: Model, texts: Sequence[str]) -> list[str]:
    """The same texts, those longer than the model's context cut into pieces that fit, between words where it can be.

    A warning says how many were cut.

    Raises:
        InvalidArgument: the tokenizer gives no character offsets.

    Cost:
        Reading the tokens of every text.

    Examples:
        ```python
        split_long_texts(model, lines(path))
        ```
    """
    pieces = cut_texts(model, texts)
    if long := [len(each) for each in pieces if len(each) > 1]:
        note_cut(model, len(pieces), len(long), sum(long))
    return [piece for each in pieces for piece in each]


def cut_to_context(model: Model, texts: Sequence[str]) -> list[str]:
    """The beginning of each text, as far as the model can read at once; texts that fit are the same.

    Raises:
        InvalidArgument: the tokenizer gives no character offsets.

    Cost: reading the tokens of every text.

    Examples:
        ```python
        cut_to_context(model, continued)
        ```
    """
    room = context(model.hf)
    return list(texts) if room is None else [_cut_end(model, text, room) for text in texts]


def _cut_end(model: Model, text: str, room: int) -> str:
    most = room
    while (tokens := model.tokens(text)).ids.shape[1] > room:
        if tokens.offsets is None:
            raise InvalidArgument(f"the tokenizer of {model.name} gives no character offsets: load its fast version")
        text, most = text[: int(tokens.offsets[0, most - 1, 1])], most - 1
    return text


def _longest_first(phrases: Sequence[str]) -> list[int]:
    return sorted(range(len(phrases)), key=lambda i: -len(normalize("NFC", phrases[i]).strip()))


@lru_cache(maxsize=256)
def _pattern(phrases: tuple[str, ...], ignore_case: bool) -> "regex.Pattern[str]":
    """One group for each phrase, the longest first, each between two edges of words."""
    words = [normalize("NFC", phrases[i]).split() for i in _longest_first(phrases)]
    either = "|".join("(" + r"\s+".join(map(regex.escape, each)) + ")" for each in words)
    return regex.compile(rf"{_EDGE}(?:{either}){_EDGE}", _WIDE | (regex.IGNORECASE if ignore_case else 0))


def _compose(text: str) -> tuple[str, Sequence[int]]:
    """The text in NFC, and for each of its characters, and its end, the character of the given text it comes from."""
    if is_normalized("NFC", text):
        return text, range(len(text) + 1)
    parts, origin = [], []
    for cluster in regex.finditer(r"\X", text):
        parts.append(normalize("NFC", cluster.group()))
        origin += [cluster.start()] * len(parts[-1])
    return "".join(parts), [*origin, len(text)]
