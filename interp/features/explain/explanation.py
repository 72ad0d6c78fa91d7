"""Explanations of latents by a language model, each scored by whether it lets a reader predict the latent.

They are scored against hard negatives: texts like those the latent fires on, on which it is off.
"""

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch

from hooks.border import Count, Natural
from hooks.errors import InvalidArgument
from interp.common.statistics import Estimate, share
from interp.features.evidence import Example
from interp.features.explain.llm import Ask
from interp.features.index.catalogue import FeatureIndex, Record

SHOWN = 15  # examples an explanation is made from
STRONG = 0.5  # of the largest activation: tokens marked in examples
REFUSED = re.compile(r"\b(i can(?:no|')t|i'm sorry|i am sorry|as an ai|unable to)\b", re.IGNORECASE)


@final
@dataclass(frozen=True)
class Explanation:
    """What a language model says a latent means, and how well a reader of that predicts it.

    `detection`: the share of texts sorted rightly into those the latent fires on and hard negatives. `fuzzing`: the
    share of firing texts for which a reader says rightly whether the marked tokens are the latent's. Each next to the
    same for an explanation of another latent (`by_chance`), which says what the texts alone give away. 0.5 is guessing.
    """

    latent: int
    text: str
    detection: Estimate
    fuzzing: Estimate
    detection_by_chance: Estimate
    fuzzing_by_chance: Estimate

    def __str__(self) -> str:
        return (
            f"latent {self.latent}: {self.text}\n  detection {self.detection.value:.2f} (another latent's explanation "
            f"{self.detection_by_chance.value:.2f}), fuzzing {self.fuzzing.value:.2f} "
            f"({self.fuzzing_by_chance.value:.2f}), {self.detection.n} texts"
        )


def explain_latent(
    ask: Ask, record: Record, negatives: Sequence[Example], other: str, *, seed: Natural = 0
) -> Explanation:
    """Explain a latent from its top texts, and score that on its sampled ones (Paulo et al. 2024, arXiv:2410.13928).

    `negatives` are texts on which the latent is off, preferably ones that resemble those it fires on
    (`find_hard_negatives`); `other` is the explanation of another latent. The texts that the explanation is made from
    take no part in the scores.

    Raises:
        InvalidArgument: no sampled text or no negative is left to score on, the model declines, or answers neither
            yes nor no.

    Cost: one request, and four for every text scored.

    Examples:
        ```python
        explain_latent(Endpoint(url, name), record, find_hard_negatives(found, record), other="mentions of rivers")
        ```
    """
    shown = record.evidence.examples[:SHOWN]
    used = {e.text for e in shown}
    positive = [e for e in record.sampled if e.text not in used]
    n = min(len(positive), len(negatives))
    if not n:
        raise InvalidArgument(
            f"latent {record.latent} has {len(positive)} sampled texts besides its top {len(shown)} and "
            f"{len(negatives)} negatives: index with more `sampled` than `top`, and give negatives"
        )
    rng = random.Random(seed)
    positive, negative = rng.sample(positive, n), rng.sample(list(negatives), n)
    text = ask_for_explanation(ask, shown)
    return Explanation(
        record.latent,
        text,
        score_by_detection(ask, text, positive, negative),
        score_by_fuzzing(ask, text, positive, seed),
        score_by_detection(ask, other, positive, negative),
        score_by_fuzzing(ask, other, positive, seed),
    )


def ask_for_explanation(ask: Ask, examples: Sequence[Example]) -> str:
    """What a language model says texts have in common, whose strongly active tokens are marked.

    Raises:
        InvalidArgument: no examples, or the model declines or says nothing.

    Cost: one request.

    Examples:
        ```python
        ask_for_explanation(ask, record.evidence.examples)
        ```
    """
    if not examples:
        raise InvalidArgument("no examples were given to explain: the latent never fires on the texts indexed")
    listed = "\n".join(f"{i}. {mark_tokens(e)}" for i, e in enumerate(examples, 1))
    answer = ask(
        "In each of these texts the words between << and >> make one feature of a language model fire. Say in one "
        f"short phrase, and nothing else, what makes it fire.\n\n{listed}\n\nPhrase:"
    )
    if REFUSED.search(answer):
        raise InvalidArgument(f"the model declined to explain: {answer[:200]}")
    if not answer.strip():
        raise InvalidArgument("a short phrase was asked for, and the answer is blank")
    return answer.strip().splitlines()[0].strip()


def score_by_detection(ask: Ask, text: str, positive: Sequence[Example], negative: Sequence[Example]) -> Estimate:
    """The share of texts rightly said to hold, or not to hold, what an explanation says.

    Examples:
        ```python
        score_by_detection(ask, "mentions of bridges", firing, silent).value
        ```
    """
    question = f"A feature fires on this: {text}\nDoes it fire anywhere in the text below? Answer yes or no.\n\n"
    right = [_yes(ask(f"{question}{''.join(e.tokens)}\n\nAnswer:")) for e in positive]
    right += [not _yes(ask(f"{question}{''.join(e.tokens)}\n\nAnswer:")) for e in negative]
    return share(torch.tensor(right))


def score_by_fuzzing(ask: Ask, text: str, positive: Sequence[Example], seed: int = 0) -> Estimate:
    """The share of firing texts for which a reader can say whether the marked tokens are those that fire.

    In every second text the marks are moved to tokens where the latent is off.

    Examples:
        ```python
        score_by_fuzzing(ask, "mentions of bridges", firing).value
        ```
    """
    rng = random.Random(seed)
    question = (
        f"A feature fires on this: {text}\nAre the words between << and >> below what it fires on? "
        "Answer yes or no.\n\n"
    )
    right = []
    for e in positive:
        right.append(_yes(ask(f"{question}{mark_tokens(e)}\n\nAnswer:")))
        right.append(not _yes(ask(f"{question}{mark_tokens(move_marks(e, rng))}\n\nAnswer:")))
    return share(torch.tensor(right))


def mark_tokens(example: Example) -> str:
    """A text with the tokens that are at least half as active as its peak between << and >>.

    Examples:
        >>> mark_tokens(Example(0, ("the", " fog"), (0.0, 2.0), 1))
        'the<< fog>>'
    """
    pairs = zip(example.tokens, example.activations, strict=True)
    parts = [f"<<{t}>>" if f > 0 and f >= STRONG * example.activation else t for t, f in pairs]
    return "".join(parts).replace(">><<", "")


def move_marks(example: Example, rng: random.Random) -> Example:
    """The same text with its activations moved to tokens where the latent is off, as many as there is room for."""
    off = [i for i, f in enumerate(example.activations) if f <= 0]
    on = [f for f in example.activations if f > 0]
    places = rng.sample(off, min(len(on), len(off)))
    acts = [0.0] * len(example.tokens)
    for place, f in zip(places, sorted(on, reverse=True), strict=False):
        acts[place] = f
    return Example(example.text, example.tokens, tuple(acts), max(range(len(acts)), key=acts.__getitem__))


def _yes(answer: str) -> bool:
    said = re.search(r"\b(yes|no)\b", answer, re.IGNORECASE)
    if said is None:
        raise InvalidArgument(f"a yes or no was asked for, and the answer has neither: {answer[:200]!r}")
    return said[0].lower() == "yes"


def find_hard_negatives(found: FeatureIndex, record: Record, count: Count = 20) -> tuple[Example, ...]:
    """Examples of other latents, from texts this one is not known to fire on, most like its own in their words first.

    Two are alike by the Jaccard index of the tokens in their windows, of the best match among the latent's examples.
    Windows that hold the token with most of its activation are left out: there it may fire.

    Examples:
        ```python
        find_hard_negatives(FeatureIndex.open("index"), record)
        ```
    """
    own = (*record.evidence.examples, *record.sampled)
    texts, bags = {e.text for e in own}, [frozenset(e.tokens) for e in own]
    peaks = Counter(e.tokens[e.peak] for e in own)
    table = found.table("examples").select(["latent", "text", "tokens", "peak"]).to_pydict()
    best: dict[int, tuple[float, Example]] = {}
    for text, tokens, peak in zip(table["text"], table["tokens"], table["peak"], strict=True):
        words = frozenset(tokens)
        if text in texts or words & peaks.keys():
            continue
        alike = max((len(words & bag) / len(words | bag) for bag in bags), default=0.0)
        if text not in best or alike > best[text][0]:
            best[text] = (alike, Example(text, tuple(tokens), (0.0,) * len(tokens), peak))
    ranked = sorted(best.values(), key=lambda pair: (-pair[0], pair[1].text))
    return tuple(example for _, example in ranked[:count])
