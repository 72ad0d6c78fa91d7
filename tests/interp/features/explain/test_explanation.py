"""Explanations: what a model is shown, what counts as right, which texts are hard negatives; by hand-made records."""

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from interp.features import Describer, Evidence, Example, FeatureIndex
from interp.features.explain.explanation import (
    ask_for_explanation,
    explain_latent,
    find_hard_negatives,
    mark_tokens,
    move_marks,
    score_by_detection,
    score_by_fuzzing,
)
from interp.features.explain.label_many import Limits, _Answers, _blocks, _choose, _score
from interp.features.explain.labels import _surprise
from interp.features.explain.llm import Answer, Endpoint
from interp.features.index.catalogue import Record


def example(text: int, words: str, peak: int = 0, height: float = 1.0) -> Example:
    """Words of a text, of which one makes the latent fire."""
    tokens = tuple(words.split())
    return Example(text, tokens, tuple(height * (i == peak) for i in range(len(tokens))), peak)


def record(
    top: Sequence[Example],
    sampled: Sequence[Example] = (),
    *,
    latent: int = 0,
    tokens: tuple[tuple[str, float], ...] = (),
    promoted: tuple[tuple[str, float], ...] = (),
) -> Record:
    """What an index might know of a latent."""
    ends = torch.ones(2, dtype=torch.long), torch.linspace(0, 1, 3)
    seen = Evidence(latent, tuple(top), *ends, 0.5, 1.0, 1.0, 100, promoted, ())
    return Record(seen, tuple(sampled), 1.0, tokens, 0.0, torch.ones(16, dtype=torch.long), ())


def write_examples(folder: Path, rows: Sequence[tuple[int, str, Example]]) -> FeatureIndex:
    """An index with a table of examples, each of a latent and a kind, and no others."""
    import pyarrow as pa
    from pyarrow import parquet

    names = ("latent", "kind", "text", "tokens", "peak")
    listed = [dict(zip(names, (i, kind, e.text, list(e.tokens), e.peak), strict=True)) for i, kind, e in rows]
    parquet.write_table(pa.Table.from_pylist(listed), folder / "examples.parquet")
    return FeatureIndex(folder, {"d_sae": 9, "tokens": 100})


def test_a_model_is_shown_the_top_fifteen_texts_by_number_and_says_a_phrase_in_a_line() -> None:
    prompts: list[str] = []

    def ask(prompt: str) -> str:
        prompts.append(prompt)
        return "  a phrase \nand more" if "Phrase:" in prompt else "yes"

    top = [example(i, f"t{i} end") for i in range(20)]
    sampled = [*(example(i, f"t{i} end") for i in range(14, 18)), *(example(i, f"s{i} end") for i in range(30, 34))]
    negatives = [example(100 + i, f"n{i} end") for i in range(40)]
    said = explain_latent(ask, record(top, sampled, latent=7), negatives, "another")
    listed = prompts[0].split("\n\n")[1].splitlines()
    assert listed == [f"{i + 1}. <<t{i}>>end" for i in range(15)]
    assert (said.latent, said.text) == (7, "a phrase")
    # text 14 was shown; 15 to 17 and the sampled ones were not: seven of each kind
    assert said.detection.n == said.detection_by_chance.n == said.fuzzing.n == said.fuzzing_by_chance.n == 14
    scored = {prompt.split("\n\n")[1].split("end")[0] for prompt in prompts[1:15]}
    assert {one for one in scored if not one.startswith("n")} == {f"t{i}" for i in (15, 16, 17)} | {
        f"s{i}" for i in range(30, 34)
    }
    assert len({one for one in scored if one.startswith("n")}) == 7


def test_as_many_texts_are_scored_as_there_are_of_the_rarer_kind() -> None:
    few = record([example(0, "a b")], [example(i, "a b") for i in range(1, 9)])
    said = explain_latent(lambda _: "yes", few, [example(50 + i, "c d") for i in range(3)], "x")
    assert said.detection.n == 6 and said.detection.value == 0.5


def test_detection_and_fuzzing_are_shares_of_right_answers() -> None:
    positive, negative = (
        [example(i, f"p{i} x y z") for i in range(4)],
        [example(9 + i, f"n{i} x y z") for i in range(4)],
    )
    knows = lambda prompt: "Yes" if any(f"p{i}" in prompt.split("\n\n")[1] for i in (0, 1, 2)) else "No"  # noqa: E731
    found = score_by_detection(knows, "x", positive, negative)
    assert (found.value, found.n) == (7 / 8, 8)
    assert score_by_detection(lambda _: "yes", "x", positive, negative[:1]).value == 4 / 5
    marks = lambda prompt: "yes" if "<<p0" in prompt or "<<p1" in prompt else "no"  # noqa: E731
    found = score_by_fuzzing(marks, "x", positive)
    assert (found.value, found.n) == (6 / 8, 8)  # two of four are known with their marks, all four with them moved


def test_marks_move_to_as_many_tokens_as_are_off_the_strongest_first() -> None:
    crowded = Example(3, tuple("abcde"), (3.0, 0.0, 1.0, 2.0, 0.0), 0)
    moved = move_marks(crowded, random.Random(0))
    assert sorted(moved.activations) == [0.0, 0.0, 0.0, 2.0, 3.0] and moved.activations[moved.peak] == 3.0
    assert {i for i, f in enumerate(moved.activations) if f} == {1, 4}
    assert (moved.text, moved.tokens) == (3, crowded.tokens)
    silent = Example(0, ("a", "b"), (0.0, 0.0), 0)
    assert mark_tokens(silent) == "ab" and mark_tokens(move_marks(silent, random.Random(0))) == "ab"
    assert mark_tokens(Example(0, tuple("abc"), (4.0, 2.0, 1.9), 0)) == "<<ab>>c"


def test_hard_negatives_are_ordered_by_their_best_match_and_then_by_text(tmp_path: Path) -> None:
    own = record([example(0, "fog over the bay")], [example(1, "fog at sea", height=0.5)])
    rows = [
        (0, "top", own.evidence.examples[0]),
        (3, "top", example(7, "sun over land", 1)),
        (4, "top", example(7, "sun over the bay", 1)),  # the same text, more like it: 3 words of 5
        (5, "top", example(7, "one two three", 1)),
        (3, "top", example(5, "rain at sea", 0)),  # 2 words of 4
        (3, "top", example(4, "wind at sea", 0)),
        (3, "top", example(3, "nothing alike", 0)),
        (3, "top", example(2, "the bay holds fog", 0)),  # it may fire there
        (3, "top", example(1, "over the bay", 0)),  # a text it fires on
    ]
    found = find_hard_negatives(write_examples(tmp_path, rows), own)
    assert [(e.text, " ".join(e.tokens), e.peak) for e in found] == [
        (7, "sun over the bay", 1),
        (4, "wind at sea", 0),
        (5, "rain at sea", 0),
        (3, "nothing alike", 0),
    ]
    assert all(e.activations == (0.0,) * len(e.tokens) for e in found)
    index = FeatureIndex(tmp_path, {"d_sae": 9})
    assert find_hard_negatives(index, own, 2) == found[:2]
    assert len(find_hard_negatives(index, record([]))) == 7  # of a latent that fired nowhere: one for each text


def test_of_texts_to_score_a_label_on_none_was_shown_and_as_many_are_silent() -> None:
    top = [example(i, f"t{i} end") for i in range(18)]
    sampled = [example(i, f"t{i} end") for i in range(12, 17)] + [example(20 + i, "fog at sea") for i in range(4)]
    rest = [
        example(40, "rain on land", 2),
        example(41, "rain at sea", 1),
        example(41, "fog at sea", 1),  # the same text again
        example(42, "wind at sea", 2),
        example(43, "fog on land", 1),  # holds what it fires on
        example(20, "rain at sea", 1),  # a text it fires on
        example(44, "none here", 1),
    ]
    positive, silent = _choose(record(top, sampled, latent=2), rest, 3, 0)
    assert len(positive) == 3 and {e.text for e in positive} <= {15, 16, 20, 21, 22, 23}
    assert [(e.text, e.tokens, e.peak) for e in silent] == [
        (41, ("rain", "at", "sea"), 1),
        (42, ("wind", "at", "sea"), 2),
        (40, ("rain", "on", "land"), 2),
    ]
    assert all(e.activations == (0.0,) * len(e.tokens) for e in silent)
    positive, silent = _choose(record(top, sampled, latent=2), rest, 50, 0)
    assert len(positive) == len(silent) == 4


class Reader:
    """Answers by a function of the prompt, in place of a server; notes what it was asked."""

    def __init__(self, reply: Any) -> None:
        self.reply, self.prompts = reply, []

    def __call__(self, prompt: str) -> str:
        self.prompts.append(prompt)
        return self.reply(prompt)


@pytest.mark.usefixtures("unchecked")
def test_each_score_of_a_label_is_of_its_own_question() -> None:
    positive, negative = [example(i, f"p{i} x y") for i in range(4)], [example(9 + i, f"n{i} x y") for i in range(4)]

    def reply(prompt: str) -> str:
        lines = dict(line.split(". ", 1) for line in prompt.split("\n\n")[1].splitlines())
        own, fuzzing = "own label" in prompt, "<<" in prompt.split("\n")[1]
        right = {n for n, shown in lines.items() if ("<<p" in shown if fuzzing else shown.startswith("p"))}
        wrong = sorted(lines)[: {(True, False): 0, (True, True): 1, (False, False): 2, (False, True): 3}[own, fuzzing]]
        return ", ".join(sorted(right ^ {*wrong})) or "none"

    reader = Reader(reply)
    label = _score(reader, 5, "own label", "the other", positive, negative, 0)  # pyright: ignore[reportArgumentType]
    assert label is not None and (label.latent, label.text, label.problem) == (5, "own label", "")
    each = (label.detection, label.fuzzing, label.detection_by_chance, label.fuzzing_by_chance)
    assert [one.value for one in each if one is not None] == [8 / 8, 7 / 8, 6 / 8, 5 / 8]
    assert [one.n for one in each if one is not None] == [8] * 4
    listed = reader.prompts[0].split("\n\n")[1].splitlines()
    assert [line.split(". ")[0] for line in listed] == [str(i) for i in range(1, 9)]
    assert any("p" in line for line in listed[:4]) and any("n" in line.split(". ")[1] for line in listed[:4])  # mixed
    for answer in ("0", "9, 1", "perhaps"):
        said = _score(Reader(lambda _, answer=answer: answer), 5, "x", "y", positive, negative, 0)  # pyright: ignore[reportArgumentType]
        assert said is not None and "1 to 8 or none" in said.problem and said.detection is None


def test_latents_are_labelled_block_by_block_in_the_order_of_blocks() -> None:
    assert [*_blocks([300, 5, 256, 255, 0, 700])] == [[5, 255, 0], [300, 256], [700]]


def test_what_was_answered_before_is_counted_once_and_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(Endpoint, "answer", lambda self, prompt: (asked.append(prompt), Answer(prompt[::-1], 10))[1])  # noqa: ARG005
    endpoint = Endpoint("http://nowhere", "m")
    first = _Answers(endpoint, tmp_path / "kept", Limits())
    assert [first("ab"), first("ab"), first("cd")] == ["ba", "ba", "dc"]
    assert (first.requests, first.before, first.tokens) == (2, 0, 20)
    again = _Answers(endpoint, tmp_path / "kept", Limits())
    assert [again("ab"), again("ab"), again("ef")] == ["ba", "ba", "fe"]
    assert (again.requests, again.before, again.tokens) == (1, 1, 10) and asked == ["ab", "cd", "ef"]


@pytest.mark.parametrize(
    ("n", "of", "common", "every", "expected"),
    [
        (3, 4, 2, 10, 2 * 4 * (0.75 * math.log(0.75 / 0.2) + 0.25 * math.log(0.25 / 0.8))),
        (5, 5, 1, 4, 2 * 5 * math.log(4)),
        (5, 5, 0, 4, 2 * 5 * math.log(4)),  # a word of no sampled text counts as of one
        (1, 5, 1, 5, 0.0),
        (1, 5, 2, 5, 0.0),
        (2, 2, 3, 0, 0.0),
    ],
)
def test_the_surprise_of_a_word_is_its_g_statistic(n: int, of: int, common: int, every: int, expected: float) -> None:
    assert _surprise(n, of, common, every) == pytest.approx(expected, abs=1e-6)


def test_words_near_are_named_by_their_surprise_three_at_most_and_not_below_one_chance_in_a_thousand(
    tmp_path: Path,
) -> None:
    def shown(text: int, *words: str) -> Example:
        return Example(text, tuple(f" {w}" for w in ("peak", *words)), (1.0, *[0.0] * len(words)), 0)

    others = [shown(100 + i, "plain", "gull" if i < 6 else "tern", "kelp" if i < 5 else "sand") for i in range(40)]
    own = [
        shown(i, "plain", "gull", "fog", *(["bay"] if i < 7 else []), *(["pier"] if i < 6 else []), "kelp")
        for i in range(8)
    ]
    rows = [(1, "sampled", e) for e in others] + [(1, "sampled", e) for e in others] + [(1, "top", e) for e in own]
    rows += [(0, "sampled", e) for e in own[:4]]
    describe = Describer(write_examples(tmp_path, rows))
    # 44 different sampled examples: "plain" in all, "gull" in 10, "fog" in 4, "bay" in 4, "pier" in 4, "kelp" in 9
    surprise = {
        word: 2 * 8 * (q * math.log(q / p) + ((1 - q) * math.log((1 - q) / (1 - p)) if q < 1 else 0))
        for word, q, p in (("gull", 1, 10 / 44), ("fog", 1, 4 / 44), ("bay", 7 / 8, 4 / 44), ("pier", 6 / 8, 4 / 44))
        + (("kelp", 1, 9 / 44),)
    }
    order = sorted(surprise, key=lambda word: -surprise[word])
    said = describe(record(own, own[:4], promoted=((" ", 3.0), (" bay", 2.0), ("\n", 1.5), (" sea", 1.0))))
    assert order[:3] == ["fog", "bay", "kelp"]
    assert said == "fires on many different tokens, near fog, bay, kelp; promotes bay"
    by_name = "fires on many different tokens, near bay, fog, pier"  # equally surprising
    assert describe(record(own[:3], promoted=())) == by_name
    # one example: 2 log(44 / 4) = 4.8 is too little to name a word by
    assert describe(record(own[:1], tokens=((" peak", 0.5),))) == "fires on 'peak' (50%)"
    assert describe(record([])) == "never fires"


def test_a_phrase_is_asked_for_once_and_is_one_line() -> None:
    reader = Reader(lambda _: "one\ntwo")
    assert ask_for_explanation(reader, [example(0, "a b")]) == "one" and len(reader.prompts) == 1


@pytest.mark.parametrize("seed", range(8))
def test_marks_move_to_as_many_places_as_a_draw_of_their_number_gives(seed: int) -> None:
    """Of a long text too, where a draw of more places would begin with others."""
    acts = [0.0] * 80
    acts[5], acts[40], acts[41] = 1.0, 3.0, 2.0
    moved = move_marks(Example(0, tuple("x" * 80), tuple(acts), 40), random.Random(seed))
    places = random.Random(seed).sample([i for i in range(80) if not acts[i]], 3)
    assert [moved.activations[i] for i in places] == [3.0, 2.0, 1.0] and moved.peak == places[0]
