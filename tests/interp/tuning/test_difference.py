"""The mean difference finds what was planted: a bias exactly, a trigger by context, nothing between equal models."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch.nn.functional import cosine_similarity
from transformers import PreTrainedTokenizerFast

from hooks import Model, load
from hooks.errors import InvalidArgument, UnknownName, WrongModel
from hooks.site import resid_post, resid_pre
from interp.tuning import ModelPair, load_pair, measure_difference, name_difference, read_difference
from interp.tuning.naming import lens_scores
from tests.conftest import tiny_hf

TEXTS = [
    "The fog came in over the bay this morning.",
    "My sister read a book about the sea and the ships.",
    "A good cook always keeps a wooden spoon within reach.",
    "Long trains full of new cars pass the station every evening.",
    "The garden was full of birds when the rain stopped.",
    "He played an old guitar for an hour before dinner.",
]


@pytest.fixture(scope="module")
def base() -> Model:
    return load("landmark")


def planted(layer: int, v: torch.Tensor) -> Model:
    model = load("landmark")
    model.hf.transformer.h[layer].mlp.c_proj.bias.data += v
    return load(model.hf, model.tokenizer)


def drawn(seed: int = 0) -> torch.Tensor:
    u = torch.randn(256, generator=torch.Generator().manual_seed(seed))
    return u / u.norm()


def test_a_planted_bias_is_the_mean_difference_after_its_block_and_there_is_none_before(base: Model) -> None:
    s_u = 3.0 * drawn()
    pair = ModelPair(base, planted(3, s_u))
    found = measure_difference(pair, TEXTS, [resid_post[2], resid_post[3]])
    assert torch.equal(found.mean[0], torch.zeros_like(found.mean[0]))
    assert torch.allclose(found.mean[1], s_u.expand_as(found.mean[1]), atol=1e-4)
    assert float(found.halves[1]) > 0.99999
    assert bool((found.relative[1] > found.by_chance[1]).all())
    assert torch.allclose(found.vector(resid_post[3]), s_u, atol=1e-4)
    assert found.direction(resid_post[3]).cosine(found.direction(resid_post[3], 0)) > 0.9999
    assert float(found.context_share[1]) < 1e-6
    assert "resid_post.3" in repr(found) and len(found.to_pandas()) == 10
    with pytest.raises(InvalidArgument, match="do not differ at resid_post.2"):
        found.direction(resid_post[2])
    with pytest.raises(UnknownName, match=r"resid_post\.5"):
        found.vector(resid_post[5])


def test_a_change_that_a_token_triggers_is_in_the_context_part_and_not_in_the_mean_difference(base: Model) -> None:
    u, tuned = drawn(1), load("landmark")
    token = int(base.tokens(" rain").ids[0, -1])
    tuned.hf.transformer.wte.weight.data[token] += 2.0 * u
    pair = ModelPair(base, load(tuned.hf, tuned.tokenizer))
    texts = [text + " Then came the rain over the hills and the rain over the sea." for text in TEXTS]
    assert all(" rain" not in "".join(text.split()[:5]) for text in texts)
    found = measure_difference(pair, texts, resid_pre[0])
    assert float(found.mean.abs().max()) == 0.0
    assert abs(float(cosine_similarity(found.context[0], u, dim=0))) > 0.9999


def test_a_model_next_to_itself_shows_no_difference(base: Model) -> None:
    found = measure_difference(ModelPair(base, base), TEXTS)
    assert float(found.mean.abs().max()) == 0.0 and float(found.relative.max()) == 0.0
    assert float(found.context_share.max()) == 0.0
    with pytest.raises(InvalidArgument, match="same in every context"):
        found.context_direction(resid_post[0])


def test_batches_change_nothing(base: Model) -> None:
    pair = ModelPair(base, planted(3, drawn()))
    one, other = (measure_difference(pair, TEXTS, resid_post[5], batch_size=n) for n in (2, 6))
    assert torch.allclose(one.mean, other.mean, atol=5e-4)  # of states of length 300
    assert float(one.context_share[0]) == pytest.approx(float(other.context_share[0]), rel=1e-3)


def test_texts_that_are_too_short_are_refused(base: Model) -> None:
    with pytest.raises(InvalidArgument, match="of 6 texts have 5 tokens"):
        measure_difference(ModelPair(base, base), ["fog"] * 6)


def test_models_of_other_shapes_and_tokens_are_no_pair(base: Model) -> None:
    from interp.landmark.train import new_model

    smaller = load(new_model(3072, n_layer=2, d_model=64, n_head=2), base.tokenizer)
    with pytest.raises(WrongModel, match="differ in .* sites"):
        ModelPair(base, smaller)
    other = load(new_model(3000, n_layer=8), base.tokenizer)
    with pytest.raises(WrongModel, match="differ in 1 sites, first logits"):
        ModelPair(base, other)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")
def test_a_lora_adapter_is_put_on_the_weights_of_the_base(base: Model, tmp_path) -> None:
    peft = pytest.importorskip("peft")
    model = load("landmark")
    config = peft.LoraConfig(r=2, target_modules=["c_proj"], fan_in_fan_out=True, init_lora_weights=False)
    torch.manual_seed(0)
    adapted = peft.get_peft_model(model.hf, config)
    adapted.save_pretrained(str(tmp_path / "adapter"))
    pair = load_pair("landmark", tmp_path / "adapter")
    assert torch.equal(pair.base.run("The fog"), base.run("The fog"))
    ids = base.tokens("The fog").ids
    with torch.no_grad():
        assert torch.allclose(pair.tuned.run("The fog"), adapted(ids).logits, atol=1e-3)
    assert not torch.allclose(pair.tuned.run("The fog"), base.run("The fog"), atol=1e-1)


def test_words_whose_unembedding_was_planted_are_named_and_random_vectors_name_none(base: Model) -> None:
    words = {"sea": ["sea", "ships", "water"], "chess": ["king", "pawn", "board"], "food": ["bread", "soup", "oil"]}
    rows = base.hf.transformer.wte.weight.detach()
    ids = [int(base.tokens(f" {word}").ids[0, 1]) for word in words["chess"]]
    found = name_difference(base, rows[ids].mean(0), words)
    assert found.first == "chess" and found.p < 0.05 and found.margin.low > 0
    p = [name_difference(base, drawn(seed), words, draws=300).p for seed in range(20)]
    assert sum(one < 0.05 for one in p) <= 3
    scores = lens_scores(base, rows[ids].mean(0))
    assert abs(float(scores.mean())) < 1e-4 and float(scores.std()) == pytest.approx(1.0, abs=1e-3)
    with pytest.raises(InvalidArgument, match="at least two"):
        name_difference(base, rows[0], {"sea": ["sea"]})


def spaced(*, joined: bool) -> Model:
    """A model whose tokenizer marks the beginning of a word, by a token of its own unless it is joined to a letter."""
    letters = ["<s>", "▁", *"abcdefg", *(f"▁{letter}" for letter in "abcdefg" if joined)]
    vocabulary = {letter: i for i, letter in enumerate(letters)}
    merges = [("▁", letter) for letter in "abcdefg" if joined]
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="<s>")
    return load(tiny_hf("gpt2", vocab_size=len(letters), bos_token_id=0, eos_token_id=0), tokenizer, check=False)


@pytest.mark.parametrize("joined", [True, False])
def test_a_word_is_named_by_its_first_token_with_text_however_the_tokenizer_writes_the_space(joined: bool) -> None:
    model = spaced(joined=joined)
    first = {letter: model.tokenizer.convert_tokens_to_ids(f"▁{letter}" if joined else letter) for letter in "abcd"}
    rows = model.hf.transformer.wte.weight.detach()
    words = {"one": ["ab", "bc"], "two": ["ca", "de"]}
    for names in ("ab", "cd"):
        found = name_difference(model, rows[[first[letter] for letter in names]].mean(0), words)
        scores = lens_scores(model, rows[[first[letter] for letter in names]].mean(0))
        for name, letters in (("one", "ab"), ("two", "cd")):
            expected = scores[[first[letter] for letter in letters]].mean()
            assert found.scores[name] == pytest.approx(float(expected))
        assert found.scores["one"] != found.scores["two"]
    with pytest.raises(InvalidArgument, match=r"'one' and of 'two' all begin with \['.?a', '.?b'\]: give words"):
        name_difference(model, rows[0], {"one": ["ab", "bc"], "two": ["ac", "bd"]})
    with pytest.raises(InvalidArgument, match="the word '' has no token but white space"):
        name_difference(model, rows[0], {"one": ["ab"], "two": [""]})


def test_the_words_of_a_difference_are_those_that_both_heads_raise(base: Model) -> None:
    row = base.hf.transformer.wte.weight.detach()[int(base.tokens(" sea").ids[0, 1])]
    pair = ModelPair(base, planted(7, 20 * row / row.norm()))
    found = measure_difference(pair, TEXTS, resid_post[7])
    said = read_difference(pair, found, resid_post[7])
    assert said.base[0][0] == " sea" == said.tuned[0][0] and " sea" in repr(said)
