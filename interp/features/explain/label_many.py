"""Labels for a whole dictionary by a language model at an endpoint: paced, within a budget, resumed, each scored.

1. A block of latents is read from the index, and each is explained from its top texts.
2. Its sampled texts, which it was not explained from, are mixed with texts of the block's other latents on which it is
   off, those most like its own first; the same with its marks moved. A reader of the label names the numbers of those
   that fit, all in one request, and once more with the label of another latent of the block: the control.
3. Every answer is kept by its request. What was answered before is not asked again, so that a run that was broken off,
   or whose budget was spent, goes on where it was.
"""

import json
import random
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from threading import Lock
from time import monotonic, sleep
from typing import TYPE_CHECKING, Final, final

import torch

from hooks.border import Count, Natural, Positive
from hooks.disk import append_text, checksum, lock
from hooks.errors import DamagedFile, InvalidArgument
from hooks.progress import progress_bar
from hooks.summary import summarise
from interp.common.statistics import Estimate, mean_share, share
from interp.features.evidence import Example
from interp.features.explain.explanation import SHOWN, ask_for_explanation, mark_tokens, move_marks
from interp.features.explain.llm import Answer, Endpoint
from interp.features.index.catalogue import FeatureIndex, Record
from interp.features.index.tables import BLOCK

if TYPE_CHECKING:
    from pandas import DataFrame

ANSWERS: Final = "answers.jsonl"
_NUMBERS: Final = re.compile(r"\d+")


@final
@dataclass(frozen=True)
class Limits:
    """How fast and how much an endpoint may be asked.

    Attributes:
        at_once: requests on their way at a time.
        per_minute: requests begun in a minute, evenly spaced; None for as many as come.
        requests: requests in this call, those answered before not counted; None for no limit.
        tokens: tokens read and written in this call, as the server counts them (a quarter of the characters where it
            does not); no request begins after they are spent, so that those on their way may go beyond.
    """

    at_once: Count = 16
    per_minute: Positive | None = None
    requests: Natural | None = None
    tokens: Natural | None = None


@final
@dataclass(frozen=True)
class LatentLabel:
    """What a language model says a latent means, and how well a reader of that predicts it.

    `detection` and `fuzzing` are shares of texts rightly named, next to the same for the label of another latent
    (`by_chance`); None, and `problem` says why, where the model gave no label or no numbers, or no text was left.
    """

    latent: int
    text: str
    detection: Estimate | None = None
    fuzzing: Estimate | None = None
    detection_by_chance: Estimate | None = None
    fuzzing_by_chance: Estimate | None = None
    problem: str = ""

    __repr__ = summarise


@final
@dataclass(frozen=True)
class LatentLabels:
    """The labels of many latents, what they cost, and the latents that are left because the budget was spent."""

    labels: tuple[LatentLabel, ...]
    left: tuple[int, ...]
    requests: int
    answered_before: int
    tokens: int

    __repr__ = summarise

    def __str__(self) -> str:
        scored = [one for one in self.labels if one.detection is not None and one.detection_by_chance is not None]
        named = sum(bool(one.text) for one in self.labels)
        says = f"{named} latents labelled, {len(self.labels) - named} answered without a label, {len(self.left)} left; "
        says += f"{self.requests} requests"
        says += f" ({self.answered_before} answered before), {self.tokens:,} tokens"
        if len(scored) < 2:
            return says
        own, other = (
            mean_share(torch.tensor([one.value for one in column if one is not None]))
            for column in zip(*((one.detection, one.detection_by_chance) for one in scored), strict=True)
        )
        return f"{says}\ndetection {own} over latents, by another latent's label {other}"

    def to_pandas(self) -> "DataFrame":
        """A row for each latent, with its label, scores and their controls."""
        from pandas import DataFrame

        scores = ("detection", "fuzzing", "detection_by_chance", "fuzzing_by_chance")
        rows = []
        for one in self.labels:
            values = {name: (None if (e := getattr(one, name)) is None else e.value) for name in scores}
            rows.append({"latent": one.latent, "label": one.text, **values, "problem": one.problem})
        return DataFrame(rows, columns=["latent", "label", *scores, "problem"])


def label_latents(
    found: FeatureIndex,
    endpoint: Endpoint,
    folder: str | Path,
    *,
    latents: Sequence[int] | None = None,
    limits: Limits = Limits(),  # noqa: B008
    scored: Count = 8,
    seed: Natural = 0,
    progress: bool = True,
) -> LatentLabels:
    """Label the latents of an index by a language model, and score every label next to another latent's.

    Answers are kept in `folder` as they come, by what was asked. Broken off, the same call asks only what was not
    answered; with a larger budget it goes on; a server that gives no answer ends it, and what came before is kept.

    Args:
        found: the index; its latents that never fire are left out.
        endpoint: whom to ask. Under load it answers slower, or 429: both are waited for.
        folder: where answers are kept.
        latents: which; by default all.
        limits: how fast, and how much at most.
        scored: texts of each kind that a label is scored on, at most.
        seed: of the order of the texts.
        progress: whether to show a bar.

    Raises:
        NotReachable: the server gave no answer after its retries, or refused.
        DamagedFile: kept answers were changed.
        WrongState: another call is writing to the folder.
        OutOfRange: a latent that the index does not have.

    Cost: five requests for each latent, of which four name texts by number; memory for one block of 256 latents.

    Examples:
        ```python
        found = FeatureIndex.open("index")
        endpoint = Endpoint("http://localhost:8000/v1", "model")
        labels = label_latents(found, endpoint, "labels", limits=Limits(per_minute=3000))
        print(labels)
        ```
    """
    asked = list(range(len(found))) if latents is None else list(dict.fromkeys(latents))
    with lock(folder, "labelling"):
        answers = _Answers(endpoint, Path(folder) / ANSWERS, limits)
        labels: list[LatentLabel] = []
        left: list[int] = []
        bar = progress_bar(total=len(asked), desc="labels", unit="latent", progress=progress)
        with ThreadPoolExecutor(limits.at_once) as pool:
            for block in _blocks(asked):
                records = [one for one in found.records(block) if one.evidence.examples]
                for record, label in zip(records, _label_block(records, answers, pool, scored, seed), strict=True):
                    if label is None:
                        left.append(record.latent)
                    else:
                        labels.append(label)
                bar.update(len(block))
        bar.close()
    return LatentLabels(tuple(labels), tuple(left), answers.requests, answers.before, answers.tokens)


def _blocks(latents: Sequence[int]) -> Iterator[list[int]]:
    """Those of one block of the index's tables at a time."""
    grouped: dict[int, list[int]] = {}
    for latent in latents:
        grouped.setdefault(latent // BLOCK, []).append(latent)
    yield from (grouped[number] for number in sorted(grouped))


class _Spent(Exception):
    """The budget is spent."""


@dataclass
class _Answers:
    """The answers of an endpoint, each kept by its request, asked for at a pace and within a budget."""

    endpoint: Endpoint
    path: Path
    limits: Limits
    requests: int = 0
    before: int = 0
    tokens: int = 0
    known: dict[str, Answer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lock, self._next = Lock(), 0.0
        self._met: set[str] = set()
        lines = self.path.read_text(encoding="utf-8").split("\n") if self.path.exists() else []
        whole = [line for line in lines if line]
        for number, line in enumerate(whole, 1):
            kept = _read_line(line)
            if kept is not None:
                self.known[kept[0]] = kept[1]
            elif number < len(whole):  # the last may be torn: it was being written when the process died
                raise DamagedFile(f"line {number} of {self.path} was changed: remove it, and it is asked again")

    def __call__(self, prompt: str) -> str:
        """The answer to a prompt; `_Spent` where it is not known and may not be asked for."""
        key = sha256(f"{self.endpoint.model}\0{prompt}".encode()).hexdigest()
        with self._lock:
            if key in self.known:
                self.before += key not in self._met
                self._met.add(key)
                return self.known[key].text
            self._begin()
        answer = self.endpoint.answer(prompt)
        with self._lock:
            self._met.add(key)
            self.known[key] = answer
            self.tokens += answer.tokens
            said = [key, answer.text, answer.tokens, checksum(key, answer.text, str(answer.tokens))]
            append_text(self.path, json.dumps(said) + "\n")
        return answer.text

    def _begin(self) -> None:
        """Count a request, and wait for its turn."""
        limits = self.limits
        if limits.requests is not None and self.requests >= limits.requests:
            raise _Spent
        if limits.tokens is not None and self.tokens >= limits.tokens:
            raise _Spent
        self.requests += 1
        if limits.per_minute is not None:
            now = monotonic()
            begins = max(now, self._next)
            self._next = begins + 60 / limits.per_minute
            sleep(begins - now)  # those after it wait for theirs as well


def _read_line(line: str) -> tuple[str, Answer] | None:
    """A kept answer and what was asked; None where its checksum is another."""
    try:
        key, text, tokens, kept = json.loads(line)
    except (ValueError, TypeError):
        return None
    return (key, Answer(text, tokens)) if kept == checksum(key, text, str(tokens)) else None


def _label_block(
    records: Sequence[Record], answers: _Answers, pool: ThreadPoolExecutor, scored: int, seed: int
) -> list[LatentLabel | None]:
    """The labels of a block, None where the budget did not suffice."""
    texts = [*pool.map(lambda record: _explain(answers, record), records)]
    named = [number for number, text in enumerate(texts) if isinstance(text, str)]
    others = dict(zip(named, [*named[1:], *named[:1]], strict=True))
    pools = [_examples(record) for record in records]

    def score(number: int) -> LatentLabel | None:
        record, text = records[number], texts[number]
        if not isinstance(text, str):
            return None if text is None else LatentLabel(record.latent, "", problem=str(text))
        rest = [e for other, own in enumerate(pools) if other != number for e in own]
        positive, negative = _choose(record, rest, scored, seed)
        if not positive or len(named) < 2:
            return LatentLabel(record.latent, text, problem="no sampled text, silent text or other label to score by")
        return _score(answers, record.latent, text, str(texts[others[number]]), positive, negative, seed)

    return [*pool.map(score, range(len(records)))]


def _explain(answers: _Answers, record: Record) -> str | InvalidArgument | None:
    """A label, the model's refusal, or None where the budget is spent."""
    try:
        return ask_for_explanation(answers, record.evidence.examples[:SHOWN])
    except InvalidArgument as error:
        return error
    except _Spent:
        return None


def _examples(record: Record) -> list[Example]:
    return list({e.text: e for e in (*record.sampled, *record.evidence.examples)}.values())


def _choose(record: Record, rest: Sequence[Example], scored: int, seed: int) -> tuple[list[Example], list[Example]]:
    """Texts that the latent fires on and was not explained from, and as many that are like them, on which it is off."""
    rng = random.Random(f"{seed} {record.latent}")
    used = {e.text for e in record.evidence.examples[:SHOWN]}
    positive = [e for e in record.sampled if e.text not in used]
    own = _examples(record)
    texts, peaks, bags = {e.text for e in own}, {e.tokens[e.peak] for e in own}, [frozenset(e.tokens) for e in own]
    alike: dict[int, tuple[float, Example]] = {}
    for e in rest:
        words = frozenset(e.tokens)
        if e.text not in texts and not words & peaks and e.text not in alike:
            alike[e.text] = max(len(words & bag) / len(words | bag) for bag in bags), e
    ranked = [e for _, e in sorted(alike.values(), key=lambda pair: (-pair[0], pair[1].text))]
    n = min(scored, len(positive), len(ranked))
    silent = [Example(e.text, e.tokens, (0.0,) * len(e.tokens), e.peak) for e in ranked[:n]]
    return rng.sample(positive, n), silent


def _score(
    answers: _Answers,
    latent: int,
    text: str,
    other: str,
    positive: Sequence[Example],
    negative: Sequence[Example],
    seed: int,
) -> LatentLabel | None:
    rng = random.Random(f"{seed} {latent} order")
    plain = [("".join(e.tokens), True) for e in positive] + [("".join(e.tokens), False) for e in negative]
    marked = [(mark_tokens(e), True) for e in positive] + [(mark_tokens(move_marks(e, rng)), False) for e in positive]
    rng.shuffle(plain)
    rng.shuffle(marked)
    detects = "In which of these texts does it fire anywhere?"
    fuzzes = "In which of these texts is what is between << and >> what it fires on?"
    try:
        each = [
            _share_named(answers, said, question, rows)
            for said in (text, other)
            for question, rows in ((detects, plain), (fuzzes, marked))
        ]
    except InvalidArgument as error:
        return LatentLabel(latent, text, problem=str(error))
    except _Spent:
        return None
    return LatentLabel(latent, text, each[0], each[1], each[2], each[3])


def _share_named(answers: _Answers, text: str, question: str, rows: Sequence[tuple[str, bool]]) -> Estimate:
    """The share of texts that a reader of a label rightly names, or rightly leaves out."""
    listed = "\n".join(f"{number}. {shown}" for number, (shown, _) in enumerate(rows, 1))
    answer = answers(
        f"A feature fires on this: {text}\n{question} Answer with their numbers, with commas between them, or with the "
        f"word none, and nothing else.\n\n{listed}\n\nNumbers:"
    )
    numbers = {int(one) for one in _NUMBERS.findall(answer)}
    if (not numbers and "none" not in answer.casefold()) or not numbers <= {*range(1, len(rows) + 1)}:
        raise InvalidArgument(
            f"numbers of texts were asked for, 1 to {len(rows)} or none, and the answer is {answer[:100]!r}"
        )
    right = [(number in numbers) == fires for number, (_, fires) in enumerate(rows, 1)]
    return share(torch.tensor(right))
