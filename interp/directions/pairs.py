"""Pairs of texts or pictures that differ in one thing, and the token at which a text first differs from its partner."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Bool
from torch import Tensor

from hooks import Images, Position, Tokens
from hooks.border import Natural
from hooks.errors import InvalidArgument
from hooks.summary import summarise


@final
@dataclass(frozen=True)
class Pairs:
    """Text i of `positive` shows what text i of `negative` does not, and is otherwise alike; or so for pictures.

    Raises:
        InvalidArgument: none, a string for a list, not as many of one kind as of the other, a pair of equal texts or
            pictures, an empty text, pictures of two sizes, or texts next to pictures.

    Examples:
        >>> Pairs(["The fog is thick"], ["The fog is thin"]).n
        1
    """

    positive: Sequence[str] | Images
    negative: Sequence[str] | Images

    __repr__ = summarise

    def __post_init__(self) -> None:
        if isinstance(self.positive, Images) or isinstance(self.negative, Images):
            _check_pictures(self.positive, self.negative)
            return
        for kind in ("positive", "negative"):
            if isinstance(getattr(self, kind), str):
                raise InvalidArgument(f"the {kind} texts are {getattr(self, kind)!r}: give a list of at least one text")
            object.__setattr__(self, kind, tuple(getattr(self, kind)))
        if not self.positive or len(self.positive) != len(self.negative):
            raise InvalidArgument(
                f"{len(self.positive)} positive and {len(self.negative)} negative texts were given: give at least "
                "one pair, and a negative text for each positive one"
            )
        for number, (one, other) in enumerate(zip(self.positive, self.negative, strict=True)):
            if not one.strip() or not other.strip():
                raise InvalidArgument(f"pair {number} has an empty text: {one!r} and {other!r}")
            if one == other:
                raise InvalidArgument(f"pair {number} is the same text twice, so nothing differs: {one!r}")

    @staticmethod
    def of_answers(questions: Sequence[str], matching: Sequence[str], other: Sequence[str]) -> "Pairs":
        """Questions, each followed by the answer that shows the behaviour and by the one that does not.

        Examples:
            >>> Pairs.of_answers(["Agree? (A) Yes (B) No. Answer:"], [" (A)"], [" (B)"]).positive
            ('Agree? (A) Yes (B) No. Answer: (A)',)
        """
        if not len(questions) == len(matching) == len(other):
            raise InvalidArgument(
                f"{len(questions)} questions, {len(matching)} matching and {len(other)} other answers were given: "
                "give one of each per question"
            )
        return Pairs(
            tuple(q + a for q, a in zip(questions, matching, strict=True)),
            tuple(q + a for q, a in zip(questions, other, strict=True)),
        )

    def shuffle(self, seed: Natural) -> "Pairs":
        """The same pairs, each swapped or not at random: a direction found in them is what chance gives."""
        turn = torch.rand(self.n, generator=torch.Generator().manual_seed(seed)) < 0.5
        positive, negative = self.positive, self.negative
        if isinstance(positive, Images) or isinstance(negative, Images):
            assert isinstance(positive, Images) and isinstance(negative, Images)
            a, b = positive.pixels, negative.pixels
            turned = turn.to(a.device)[:, None, None, None]
            sides = torch.where(turned, b, a), torch.where(turned, a, b)
            return Pairs(*(replace(positive, pixels=pixels, masks={}, names=None) for pixels in sides))
        pairs = list(zip(positive, negative, strict=True))
        both = [(b, a) if turned else (a, b) for turned, (a, b) in zip(turn.tolist(), pairs, strict=True)]
        return Pairs(*zip(*both, strict=True))

    @property
    def n(self) -> int:
        """The number of pairs."""
        return len(self.positive)

    @property
    def answer(self) -> Position:
        """The token with the first character in which a text differs from its partner: the answer's letter.

        Where one text begins with the whole of the other, that is the last character they share.

        Raises:
            InvalidArgument: of pictures; when used on other texts, on bare token ids, or where one text has two such
                places.
        """
        if isinstance(self.positive, Images) or isinstance(self.negative, Images):
            raise InvalidArgument(
                "pictures have no answer's token: say at which places, such as `everywhere` or where(name)"
            )
        place: dict[str, int] = {}
        for one, other in zip(self.positive, self.negative, strict=True):
            at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
            at = min(len(one), len(other)) - 1 if at is None else at
            for text in (one, other):
                if place.setdefault(text, at) != at:
                    raise InvalidArgument(f"the text {text!r} is in two pairs that differ at different places")
        name = hashlib.sha256(repr(sorted(place.items())).encode()).hexdigest()[:8]
        return Position(f"answer of {self.n} pairs ({name})", lambda tokens: _cover(tokens, place))


def _check_pictures(positive: Sequence[str] | Images, negative: Sequence[str] | Images) -> None:
    if not isinstance(positive, Images) or not isinstance(negative, Images):
        raise InvalidArgument("one kind are pictures and the other are not: give `Images` for both")
    if positive.pixels.shape != negative.pixels.shape:
        raise InvalidArgument(
            f"positive pictures are {list(positive.pixels.shape)} and negative ones {list(negative.pixels.shape)}: "
            "give a partner of the same size for each"
        )
    same = (positive.pixels == negative.pixels.to(positive.pixels)).flatten(1).all(1)
    if bool(same.any()):
        raise InvalidArgument(f"pair {int(same.nonzero()[0])} is the same picture twice, so nothing differs")


def _cover(tokens: Tokens, place: dict[str, int]) -> Bool[Tensor, "batch pos"]:
    if tokens.texts is None or tokens.offsets is None:
        raise InvalidArgument("the answer of a pair is found by its characters: read texts, with a fast tokenizer")
    strange = [text for text in tokens.texts if text not in place]
    if strange:
        raise InvalidArgument(f"the answer of a pair is asked for in a text of no pair: {strange[0]!r}")
    at = torch.tensor([place[text] for text in tokens.texts], device=tokens.ids.device)[:, None]
    start, end = tokens.offsets[..., 0], tokens.offsets[..., 1]
    covers = tokens.given & (start <= at) & (end > at)
    return covers & (covers.long().cumsum(1) == covers.sum(1, keepdim=True))
