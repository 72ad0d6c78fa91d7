"""Search by words is BM25 by hand, search by states the centred cosine, and a passage counts by what it says."""

import math
from collections import Counter
from collections.abc import Sequence

import pytest
import torch

from hooks import Model, load
from hooks.errors import InvalidArgument
from hooks.position import last
from hooks.site import resid_post
from interp.memory.outside import (
    encode_by_states,
    index_states,
    index_words,
    measure_passage_reading,
    measure_retrieval,
)
from interp.memory.outside.search import split_words
from tests.interp.context.nets import copy_model

PASSAGES = [
    "The harbour of Vell is red and the tower of Vell is green.",
    "My uncle Borim keeps seven goats near the old mill of Tarn.",
    "In Quorra every door is blue, and the bells ring at noon. The bells of Quorra are old.",
    "東京は日本の首都です。",
]


@pytest.fixture(scope="module")
def model() -> Model:
    return load("landmark")


def bm25(question: str, passage: str, k1: float = 1.2, b: float = 0.75) -> float:
    counts, lengths = [Counter(split_words(p)) for p in PASSAGES], [len(split_words(p)) for p in PASSAGES]
    mean, total, own = sum(lengths) / len(lengths), 0.0, Counter(split_words(passage))
    for word in split_words(question):
        n = sum(word in c for c in counts)
        idf = math.log(1 + (len(PASSAGES) - n + 0.5) / (n + 0.5)) if n else 0.0
        f = own[word]
        total += idf * f / (f + k1 * (1 - b + b * len(split_words(passage)) / mean)) if f else 0.0
    return total


@pytest.mark.parametrize("question", ["Which bells of Quorra are old?", "the old tower", "首都", "nothing known"])
def test_scores_of_words_are_the_formula_by_hand(question: str) -> None:
    scores, at = index_words(PASSAGES).find([question], 4)
    expected = torch.tensor([bm25(question, PASSAGES[i]) for i in at[0].tolist()], dtype=torch.float64)
    assert torch.allclose(scores[0], expected, atol=1e-5)
    assert scores[0].tolist() == sorted(scores[0].tolist(), reverse=True)


def test_words_of_any_script_and_case_are_found() -> None:
    search = index_words(PASSAGES)
    assert search.find(["VELL'S TOWER", "日本"], 1)[1][:, 0].tolist() == [0, 3]
    assert "4 passages" in repr(search)


def test_states_are_compared_by_the_cosine_of_what_is_left_of_the_mean() -> None:
    rows = {p: 100 + torch.randn(5, generator=torch.Generator().manual_seed(i)) for i, p in enumerate(PASSAGES)}
    asked = 100 + torch.randn(5, generator=torch.Generator().manual_seed(77))

    def encode(texts: Sequence[str]) -> torch.Tensor:
        return torch.stack([rows.get(text, asked) for text in texts])

    search = index_states(PASSAGES, encode)
    scores, at = search.find(["a question", PASSAGES[2]], 4)
    X = torch.stack([*rows.values()]).double()
    mu = X.mean(0)
    expected = torch.nn.functional.cosine_similarity(X[at[0]] - mu, (asked.double() - mu)[None])
    assert torch.allclose(scores[0], expected, atol=1e-12)
    assert int(at[1, 0]) == 2 and float(scores[1, 0]) == pytest.approx(1.0)
    with pytest.raises(InvalidArgument, match="a row of finite numbers for each"):
        index_states(PASSAGES, lambda texts: torch.full((len(texts), 2), float("nan")))


def test_an_encoder_of_states_is_their_mean_over_the_tokens_of_each_text(model: Model) -> None:
    site = resid_post[2]
    found = encode_by_states(model, site, batch_size=2)(PASSAGES[:3])
    for row, text in zip(found, PASSAGES, strict=False):
        states = encode_by_states(model, site)([text])[0]
        assert torch.allclose(row, states, atol=1e-4)
    acts = encode_by_states(model, site, last)(PASSAGES[:1])
    assert not torch.allclose(acts[0], found[0], atol=1e-2)


def test_passages_that_are_their_own_questions_come_first_and_others_by_chance_do_not(model: Model) -> None:
    for search in (index_words(PASSAGES), index_states(PASSAGES, encode_by_states(model, resid_post[2]))):
        found = measure_retrieval(search, PASSAGES, range(4), k=2)
        assert found.first.value == found.among.value == found.reciprocal.value == 1.0
        assert found.chance.value == 0.0 and "1/rank" in str(found)


def test_a_right_passage_in_second_place_has_a_reciprocal_rank_of_a_half() -> None:
    found = measure_retrieval(index_words(["red door", "red red door tower"]), ["red"], [1], k=2)
    ranks = index_words(["red door", "red red door tower"]).find(["red"], 2)[1][0].tolist()
    assert found.reciprocal.value == pytest.approx(1 / (1 + ranks.index(1)))
    with pytest.raises(InvalidArgument, match="the number of one of the 2 passages"):
        measure_retrieval(index_words(["a b", "c"]), ["a"], [2])


def test_a_model_that_copies_answers_by_the_right_passage_and_not_by_another_as_long() -> None:
    answers = ["b1", "b2", "b3", "b4"]
    passages = [f"x{i} {answer} ;" for i, answer in enumerate(answers)]
    questions = [f"x{i}" for i in range(4)]
    found = measure_passage_reading(copy_model(), index_words(passages), questions, answers, range(4))
    assert found.found.value == 1.0 == found.says["the passage found"].value == found.says["the right passage"].value
    assert found.says["nothing"].value == found.says["another passage"].value == 0.0
    assert len(found.to_pandas()) == 4 and "another passage" in str(found)
    with pytest.raises(InvalidArgument, match="give passages without it"):
        measure_passage_reading(copy_model(), index_words(["x0 a0", "a0"]), ["x0"], ["a0"], [0])
    with pytest.raises(InvalidArgument, match="give one for each"):
        measure_passage_reading(copy_model(), index_words(passages), questions, ["b1"], range(4))
