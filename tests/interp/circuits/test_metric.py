"""Words and token ids as what a metric reads, and the log-probability of a word of several tokens."""

import pytest
import torch

from hooks import Model
from interp.circuits import first_token, logit_difference, word_log_probability

TEXTS = ["fog over", "a bay"]


def test_the_log_probability_of_a_word_is_the_sum_over_its_tokens_each_after_those_before(decoder: Model) -> None:
    found = word_log_probability(decoder, TEXTS, " red")
    for row, text in enumerate(TEXTS):
        total, said = 0.0, text
        for letter in " red":
            log_p = decoder.run(said)[0, -1].detach().double().log_softmax(-1)
            total += float(log_p[int(decoder.tokens(letter).ids[0, -1])])
            said += letter
        assert float(found[row]) == pytest.approx(total, rel=1e-4)


def test_all_words_of_one_token_and_all_of_two_have_probabilities_that_sum_to_one(gpt2: Model) -> None:
    ids = torch.tensor([[256, 5, 9]])
    one = torch.stack([word_log_probability(gpt2, ids, [i]) for i in range(gpt2.d_vocab)])
    assert float(one.exp().sum()) == pytest.approx(1, abs=1e-4)
    first = 7
    two = torch.stack([word_log_probability(gpt2, ids, [first, i]) for i in range(gpt2.d_vocab)])
    assert float(two.exp().sum()) == pytest.approx(float(one[first].exp()), rel=1e-3)


def test_answers_may_be_ids_and_the_first_token_of_a_word_is_its_first(gpt2: Model) -> None:
    logits = torch.randn(2, gpt2.d_vocab, generator=torch.Generator().manual_seed(0))
    a, b = (int(gpt2.tokens(letter).ids[0, -1]) for letter in "ab")
    for right, wrong in (("a", "b"), (a, b), ([a, "a"], [b, b]), (first_token(gpt2, "apple"), "b")):
        assert torch.equal(logit_difference(gpt2, right, wrong)(logits), logits[:, a] - logits[:, b])
    with pytest.raises(ValueError, match="'' has no tokens"):
        first_token(gpt2, "")
    with pytest.raises(ValueError, match=r"the first of the tokens \[' ', 'a', 'b'\] of ' ab' is white space alone"):
        first_token(gpt2, " ab")
    with pytest.raises(ValueError, match="end the text with that white space, and give the id of the token after it"):
        first_token(gpt2, " ab")
    asked, whole = gpt2.tokens("so ").ids[0].tolist(), gpt2.tokens("so ab").ids[0].tolist()
    assert whole[: len(asked)] == asked and whole[len(asked)] == first_token(gpt2, "ab")
    with pytest.raises(ValueError, match="a word of no tokens was given"):
        word_log_probability(gpt2, TEXTS, [])
    with pytest.raises(ValueError, match="300 is no token of .*: ids are 0 to 256"):
        logit_difference(gpt2, 300, "a")
