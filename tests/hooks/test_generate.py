"""Generation is the Hugging Face model's own, one text or many."""

from collections.abc import Callable
from math import inf, nan
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from hooks import Model, Tokens
from hooks.generate import continuation, decode

PROMPTS = ["The Golden Gate Bridge", "Fog", "Over the bay."]


def test_greedy_generation_is_that_of_the_hugging_face_model(decoder: Model) -> None:
    for prompt in PROMPTS:
        ids = decoder.tokens(prompt).ids
        theirs = decoder.hf.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False, pad_token_id=256
        )
        expected = decoder.tokenizer.decode(theirs[0, ids.shape[1] :], skip_special_tokens=True)
        assert decoder.generate(prompt, max_new_tokens=8) == expected


def test_a_batch_of_prompts_is_continued_as_each_is_alone(decoder: Model) -> None:
    together = decoder.generate(PROMPTS, max_new_tokens=8)
    assert together == [decoder.generate(prompt, max_new_tokens=8) for prompt in PROMPTS]


def test_a_string_gives_a_string_and_a_list_a_list(gpt2: Model) -> None:
    assert isinstance(gpt2.generate("Fog", max_new_tokens=2), str)
    assert isinstance(gpt2.generate(["Fog"], max_new_tokens=2), list)


def test_sampling_follows_its_seed_and_the_model(gpt2: Model) -> None:
    def sample(seed: int, temperature: float = 1.0) -> str | list[str]:
        return gpt2.generate("Fog", max_new_tokens=20, temperature=temperature, seed=seed)

    assert sample(1) == sample(1) != sample(2)
    assert sample(1, temperature=1e-4) == gpt2.generate("Fog", max_new_tokens=20)


def test_samples_follow_the_probabilities(gpt2: Model) -> None:
    tokens = gpt2.tokens("Fog")
    many = Tokens(*(getattr(tokens, name).expand(2000, -1) for name in ("ids", "mask", "special")))
    said = decode(gpt2.hf, many, max_new_tokens=1, temperature=0.3, seed=0, stop=frozenset())
    counts = torch.tensor([one for (one,) in said]).bincount(minlength=257)
    chances = (gpt2.run(tokens)[0, -1] / 0.3).softmax(-1).detach()
    assert float((counts / 2000 - chances).abs().max()) < 0.05
    assert float(chances.max()) > 0.2


def test_an_end_of_text_ends_its_own_continuation_only(fresh: Callable[..., Model]) -> None:
    model = fresh("gpt2")
    free = model.generate(PROMPTS, max_new_tokens=8)
    stop = model.tokens(free[0][3]).ids[0, 1]
    model.hf.generation_config.eos_token_id = [256, int(stop)]
    stopped = model.generate(PROMPTS, max_new_tokens=8)
    cut = model.tokenizer.decode([int(stop)])
    assert stopped == [text.split(cut)[0] for text in free]


class Scripted:
    """A model whose logits at each step are those of a script [batch step vocab]."""

    config = SimpleNamespace(get_text_config=SimpleNamespace)

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    def forward(self, input_ids: Tensor) -> None: ...

    def __call__(self, past_key_values: int | None = None, **_: Any) -> SimpleNamespace:
        step = past_key_values or 0
        return SimpleNamespace(logits=self.logits[:, step : step + 1], past_key_values=step + 1)


def scripted(logits: Tensor, temperature: float = 0.0) -> list[list[int]]:
    given = torch.ones(len(logits), 2, dtype=torch.long)
    tokens = Tokens(given, given.bool(), ~given.bool())
    settings: dict[str, Any] = {"temperature": temperature, "seed": 0, "stop": frozenset({0})}
    return decode(Scripted(logits), tokens, max_new_tokens=logits.shape[1], **settings)


def test_nothing_is_added_after_an_end_of_text() -> None:
    script = torch.tensor([[5, 0, 6, 7], [1, 2, 3, 4]])
    assert scripted(torch.nn.functional.one_hot(script, 8).float()) == [[5], [1, 2, 3, 4]]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_give_no_text(temperature: float) -> None:
    for wrong in (nan, inf):
        logits = torch.zeros(2, 1, 8)
        logits[:, :, 1] = -inf
        assert len(scripted(logits, temperature)) == 2
        logits[1, 0, 3] = wrong
        with pytest.raises(ValueError, match=f"the highest logit of text 1 is {wrong}, so it has no next token"):
            scripted(logits, temperature)


def test_what_cannot_be_generated_is_reported(gpt2: Model, fresh: Callable[..., Model]) -> None:
    with pytest.raises(ValueError, match="97 tokens do not fit into the context of 96: .* ask for fewer new tokens"):
        gpt2.generate("x" * 50, max_new_tokens=46)
    with pytest.raises(ValueError, match="max_new_tokens is at least 1 and temperature at least 0, got 0 and 0.0"):
        gpt2.generate("Fog", max_new_tokens=0)
    with pytest.raises(ValueError, match="max_new_tokens is at least 1 and temperature at least 0, got 1 and -1.0"):
        gpt2.generate("Fog", max_new_tokens=1, temperature=-1.0)
    with pytest.raises(ValueError, match="BertForMaskedLM does not generate: load a causal language model"):
        fresh("bert").generate("Fog")
    with pytest.raises(ValueError, match="got no texts"):
        gpt2.generate([])


def test_nothing_said_generates_forty_tokens_of_the_likeliest(gpt2: Model) -> None:
    assert gpt2.generate("Fog") == gpt2.generate("Fog", max_new_tokens=40, temperature=0.0)
    sampled = gpt2.generate("Fog", temperature=1.0, max_new_tokens=12)
    assert sampled == gpt2.generate("Fog", temperature=1.0, max_new_tokens=12, seed=0)


def test_a_vocabulary_of_one_word_says_it_at_any_temperature() -> None:
    tokens = Tokens(torch.zeros(1, 2).long(), torch.ones(1, 2).bool(), torch.zeros(1, 2).bool())
    for temperature in (0.0, 0.5, 1.0):
        model: Any = Scripted(torch.zeros(1, 3, 1))
        said = decode(model, tokens, max_new_tokens=3, temperature=temperature, seed=0, stop=frozenset())
        assert said == [[0, 0, 0]]


def test_a_model_is_asked_for_no_more_than_it_knows_of() -> None:
    asked: list[dict[str, Any]] = []

    class Notes(Scripted):
        def __call__(self, past_key_values: int | None = None, **given: Any) -> SimpleNamespace:
            asked.append(given)
            return super().__call__(past_key_values)

    tokens = Tokens(torch.ones(1, 2).long(), torch.ones(1, 2).bool(), torch.zeros(1, 2).bool())
    for said in ({}, {"output_router_logits": False}, {"output_router_logits": True}):
        model: Any = Notes(torch.zeros(1, 1, 4))
        model.config = SimpleNamespace(get_text_config=SimpleNamespace, **said)
        decode(model, tokens, max_new_tokens=1, temperature=0.0, seed=0, stop=frozenset())
        plain = asked.pop()
        assert plain.get("output_router_logits", "unsaid") == (False if said.get("output_router_logits") else "unsaid")
        assert plain["use_cache"] is True


def test_a_continuation_keeps_its_spaces_and_leaves_out_what_is_special(tokenizer: Any) -> None:
    given, new = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("Fog ,", " it 's . Bay !"))
    assert continuation(tokenizer, given, new) == " it 's . Bay !"
    end = tokenizer.eos_token_id
    assert continuation(tokenizer, [end, *given], [end, *new, end]) == " it 's . Bay !"
