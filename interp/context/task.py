"""A task as pairs, and the prompts that demonstrate it: as it is, or with exactly one thing changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, get_args

from hooks.errors import InvalidArgument
from hooks.summary import summarise

Change = Literal[
    "none", "no label right", "random labels", "flipped labels", "other words as labels", "other words as inputs",
    "inputs alone", "labels alone", "other order", "no demonstrations",
]  # fmt: skip
CHANGES: tuple[Change, ...] = get_args(Change)
Pair = tuple[str, str]
TRIES = 200


@dataclass(frozen=True)
class PairTask:
    """A relation that a list of pairs demonstrates: `x : y ; x : y ; x :`.

    Attributes:
        name: of the task.
        pairs: inputs and labels; no input twice.
        between: what is written between an input and its label.
        after: what is written after a pair.

    Raises:
        InvalidArgument: fewer than two pairs, or an input twice.

    Examples:
        >>> task = PairTask("capital", (("France", "Paris"), ("Peru", "Lima"), ("Japan", "Tokyo"), ("Italy", "Rome")))
        >>> task.write([("Peru", "Lima")], "France")
        'Peru : Lima ; France :'
    """

    name: str
    pairs: tuple[Pair, ...]
    between: str = " : "
    after: str = " ; "

    __repr__ = summarise

    def __post_init__(self) -> None:
        if len(self.pairs) < 2 or len(dict(self.pairs)) < len(self.pairs):
            raise InvalidArgument(
                f"the task {self.name!r} has {len(self.pairs)} pairs and {len(dict(self.pairs))} inputs: give at least "
                "two pairs, and no input twice"
            )

    def write(self, shown: Sequence[Pair], asked: str) -> str:
        """The prompt that shows some pairs and ends where the label of another input is due."""
        return "".join(x + self.between + y + self.after for x, y in shown) + asked + self.between.rstrip()

    def halves(self, seed: int = 0) -> tuple["PairTask", "PairTask"]:
        """Two tasks that share no pair: choose on the one, report on the other.

        Examples:
            ```python
            chosen_on, reported_on = task.halves()
            ```
        """
        mixed = Random(seed).sample(self.pairs, len(self.pairs))
        half = len(mixed) // 2
        return (
            PairTask(self.name, tuple(mixed[:half]), self.between, self.after),
            PairTask(self.name, tuple(mixed[half:]), self.between, self.after),
        )


def deal_pairs(task: PairTask, n: int, seed: int) -> list[int]:
    """The numbers of n pairs to ask about, in an order that is drawn; none comes again before all have come.

    Examples:
        >>> sorted(deal_pairs(PairTask("letter", (("a", "A"), ("b", "B"))), 4, seed=0))
        [0, 0, 1, 1]
    """
    order = Random(seed).sample(range(len(task.pairs)), len(task.pairs))
    return [order[i % len(order)] for i in range(n)]


def derange(labels: Sequence[str], others: Sequence[str], rng: Random) -> list[str]:
    """The labels in an order that leaves none its old text; drawn from `others` where there is no such order.

    A permutation drawn at random leaves one label right on average, and only 37 % of prompts without a right one.

    Raises:
        InvalidArgument: there is only one label.

    Examples:
        >>> derange(["a", "b"], ["a", "b"], Random(0))
        ['b', 'a']
    """
    if len({*labels, *others}) < 2:
        raise InvalidArgument(f"all labels are {labels[0]!r}, so none can be made wrong: take a task with two or more")
    for _ in range(TRIES):
        mixed = rng.sample(labels, len(labels))
        if all(one != other for one, other in zip(mixed, labels, strict=True)):
            return mixed
    return [rng.choice([other for other in others if other != one]) for one in labels]


def demonstrate(
    task: PairTask, asked: Pair, shots: int, change: Change, rng: Random, words: Sequence[str] = ()
) -> tuple[str, str]:
    """A prompt with demonstrations of which one thing is changed, and the answer that follows the demonstrations.

    That answer is the true label, but for flipped labels, where it is what the flip makes of it, and for other words,
    where it is the word that takes the place of it.
    """
    x, y = asked
    if change == "no demonstrations":
        return task.write([], x), y
    shown = rng.sample([pair for pair in task.pairs if pair[0] != x], shots)
    inputs, labels = [one for one, _ in shown], [other for _, other in shown]
    space = sorted({label for _, label in task.pairs})
    if change in ("inputs alone", "labels alone"):
        listed = inputs if change == "inputs alone" else labels
        return "".join(one + task.after for one in listed) + x + task.between.rstrip(), y
    if change == "no label right":
        labels = derange(labels, space, rng)
    elif change == "random labels":
        labels = rng.sample(labels, shots)
    elif change in ("flipped labels", "other words as labels"):
        new = derange(space, space, rng) if change == "flipped labels" else _draw(words, len(space), rng)
        to = dict(zip(space, new, strict=True))
        labels, y = [to[label] for label in labels], to[y]
    elif change == "other words as inputs":
        inputs = _draw(words, shots, rng)
    elif change == "other order":
        return task.write(shown[::-1], x), y
    return task.write([*zip(inputs, labels, strict=True)], x), y


def _draw(words: Sequence[str], n: int, rng: Random) -> list[str]:
    if not words:
        raise InvalidArgument("words=() were given, and this change puts other words in: give some")
    return rng.sample([*words], n) if n <= len(words) else rng.choices([*words], k=n)
