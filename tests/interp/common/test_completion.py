"""What a model makes of a text is the same alone and in a batch, whichever side its padding is on."""

from typing import Any

import pytest
import torch
from tokenizers.processors import ByteLevel
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast

from hooks import Model, load
from hooks.errors import InvalidArgument
from interp.common.completion import mean_losses, score
from interp.landmark.guide.tune import next_token_loss
from interp.memory.evaluation.measurement import measure_reading
from interp.steering.fluency import measure_surprisal
from tests.conftest import END, tiny_hf, tiny_tokenizer

TEXTS = ["fog", "the bay is grey today", "a bridge"]


@pytest.fixture(scope="module", params=["left", "right"])
def bare(request: pytest.FixtureRequest) -> Model:
    """A model whose tokenizer puts nothing before a text."""
    return load(tiny_hf("gpt2"), without_beginning(request.param), check=False)


def without_beginning(side: str) -> Any:
    """The byte-level tokenizer without its beginning-of-text token."""
    inner = type(tiny_tokenizer().backend_tokenizer).from_str(tiny_tokenizer().backend_tokenizer.to_str())
    inner.post_processor = ByteLevel(trim_offsets=False)
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=END, padding_side=side)


def test_the_loss_of_a_text_is_the_same_alone_and_in_a_batch_whichever_side_is_padded(bare: Model) -> None:
    expected = []
    for text in TEXTS:
        ids = bare.tokens(text).ids
        expected.append(cross_entropy(bare.hf(ids).logits[0, :-1].detach(), ids[0, 1:], reduction="none"))
    means = torch.stack([nll.mean() for nll in expected]).double()
    assert torch.allclose(mean_losses(bare, TEXTS), means, atol=1e-5)
    assert torch.allclose(mean_losses(bare, TEXTS, batch_size=1), means, atol=1e-5)
    mean = float(torch.cat(expected).mean())
    assert measure_reading(bare, TEXTS).loss == pytest.approx(mean, abs=1e-5)
    assert float(next_token_loss(bare, bare.tokens(TEXTS)).detach()) == pytest.approx(mean, abs=1e-5)
    nats, lengths = measure_surprisal(bare, [""] * 3, TEXTS)
    assert torch.allclose(nats, torch.stack([nll.sum() for nll in expected]), atol=1e-4)
    assert lengths.tolist() == [len(nll) for nll in expected] == [len(text) - 1 for text in TEXTS]
    prompts, answers = ["the", "a grey sea or a", "on"], ["fog", "bay", "top"]
    alone = torch.cat([score(bare, [prompt], [answer]) for prompt, answer in zip(prompts, answers, strict=True)])
    assert torch.allclose(score(bare, prompts, answers), alone, atol=1e-5)


def test_the_predicted_tokens_are_those_of_text_that_a_token_comes_before(bare: Model) -> None:
    tokens = bare.tokens(TEXTS)
    assert tokens.predicted.sum(1).tolist() == [len(text) - 1 for text in TEXTS]
    begun = load(bare.hf, tiny_tokenizer(bare.padding_side), check=False).tokens(TEXTS)
    assert torch.equal(begun.predicted, begun.content), "what begins a text is before its first token"


def test_a_text_without_a_token_to_predict_has_no_loss(bare: Model) -> None:
    with pytest.raises(InvalidArgument, match="the text 'x' holds no token to predict"):
        mean_losses(bare, ["fog", "x"])
    nats, lengths = measure_surprisal(bare, ["", "the"], ["x", " fog"])
    assert float(nats[0]) == 0.0 and lengths.tolist() == [0, 4]
