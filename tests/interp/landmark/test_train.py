"""The training pass is GPT-2's; sealing stops exactly what it should; a resumed run ends with the same weights."""

from pathlib import Path

import pytest
import torch

import interp.landmark.train as training
from interp.landmark.evaluate import Question, exact, induction_scores
from interp.landmark.relations import triples
from interp.landmark.tokenizer import END_OF_TEXT


@pytest.fixture
def model() -> "training.GPT2LMHeadModel":
    torch.manual_seed(0)
    return training.new_model(64, n_layer=3, d_model=32, n_head=2).eval()


@pytest.fixture
def rows() -> dict[str, torch.Tensor]:
    ids = torch.randint(1, 64, (2, 12), generator=torch.Generator().manual_seed(1))
    ids[:, 0] = 0
    mention = torch.zeros_like(ids)
    mention[:, 4:7] = 1
    return {
        "ids": ids,
        "position": torch.arange(12).expand(2, 12),
        "mention": mention,
        "document": torch.ones_like(ids),
    }


def lower(below: torch.Tensor, above: torch.Tensor) -> list[torch.Tensor]:
    return [below] * 3


def upper(below: torch.Tensor, above: torch.Tensor) -> list[torch.Tensor]:
    return [above] * 3


def hidden(model, rows: dict[str, torch.Tensor], share: float, layers=lower) -> torch.Tensor:
    visible = training._visible(rows["document"])
    below, above = training._sealed(visible, rows, share, torch.Generator().manual_seed(0))
    bias = [training._bias(layer) for layer in layers(below, above)]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        return training.hidden_states(model, rows, bias).float().view(2, 12, -1)


def test_the_unsealed_forward_pass_is_that_of_hugging_face_within_half_precision(model, rows) -> None:
    with torch.no_grad():
        expected = model.transformer(rows["ids"]).last_hidden_state
    assert torch.allclose(hidden(model, rows, 0.0), expected, atol=0.06)


def test_packed_documents_do_not_see_each_other(model, rows) -> None:
    rows["document"] = torch.tensor([[1] * 6 + [2] * 6] * 2)
    before = hidden(model, rows, 0.0)
    rows["ids"] = rows["ids"].clone()
    rows["ids"][:, 1:6] = 5
    assert torch.equal(hidden(model, rows, 0.0)[:, 6:], before[:, 6:])


def test_sealing_lets_nothing_of_a_mention_out_and_nothing_of_the_text_in(model, rows) -> None:
    before = hidden(model, rows, 1.0)
    changed = {**rows, "ids": rows["ids"].clone()}
    changed["ids"][:, 4:7] = 9
    after = hidden(model, changed, 1.0)
    outside = rows["mention"][0] == 0
    assert torch.equal(after[:, outside], before[:, outside])
    assert not torch.equal(after[:, ~outside], before[:, ~outside])
    changed["ids"] = rows["ids"].clone()
    changed["ids"][:, [1, 2, 3]] = 9
    assert torch.equal(hidden(model, changed, 1.0)[:, ~outside], before[:, ~outside])


def test_the_upper_layers_read_a_mention_at_its_last_token_only(model, rows) -> None:
    one_layer = BUILD(64, n_layer=1, d_model=32, n_head=2).eval()
    first_of = lambda below, above: [above]  # noqa: E731
    before = hidden(one_layer, rows, 1.0, first_of)
    for position, seen in ((4, False), (5, False), (6, True)):
        changed = {**rows, "ids": rows["ids"].clone()}
        changed["ids"][:, position] = 9
        assert torch.equal(hidden(one_layer, changed, 1.0, first_of)[:, 7:], before[:, 7:]) != seen


def test_without_sealing_the_same_change_reaches_later_tokens(model, rows) -> None:
    changed = {**rows, "ids": rows["ids"].clone()}
    changed["ids"][:, 4:7] = 9
    assert not torch.equal(hidden(model, changed, 0.0)[:, 7:], hidden(model, rows, 0.0)[:, 7:])


def test_the_learning_rate_rises_stays_and_falls_to_zero() -> None:
    rates = [training.learning_rate(step, 1000) for step in range(1001)]
    assert rates[0] == training.LEARNING_RATE / training.WARM_UP
    assert rates[training.WARM_UP] == rates[500] == training.LEARNING_RATE
    assert all(a >= b for a, b in zip(rates[500:], rates[501:], strict=False))
    assert rates[1000] == 0.0


def test_a_run_stopped_and_resumed_ends_with_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("LENGTH", 64), ("ROWS_PER_STEP", 2), ("STEPS_PER_SHARD", 2)):
        monkeypatch.setattr(training, name, value)
    monkeypatch.setattr(training, "new_model", lambda vocab: small(vocab))
    monkeypatch.setattr(training, "train_tokenizer", lambda texts: whole_tokenizer(texts))
    monkeypatch.setattr(training, "learning_rate", lambda step, n_steps: 1e-3)
    training.train(tmp_path / "whole", n_steps=5, save_every=5)
    training.train(tmp_path / "halves", n_steps=3, save_every=3)
    training.train(tmp_path / "halves", n_steps=5, save_every=5)
    whole, halves = (torch.load(tmp_path / run / "state.pt")["model"] for run in ("whole", "halves"))
    assert all(torch.equal(whole[name], halves[name]) for name in whole)


BUILD = training.new_model
LEARN = training.train_tokenizer


def small(vocab_size: int) -> "training.GPT2LMHeadModel":
    return BUILD(vocab_size, n_layer=2, d_model=16, n_head=2)


def whole_tokenizer(texts) -> object:
    return LEARN([next(iter(texts))], vocab_size=300)


def test_exact_agrees_with_greedy_generation(model) -> None:
    tokenizer = LEARN(["one two three four five six"], vocab_size=280)
    model = BUILD(tokenizer.get_vocab_size(), n_layer=2, d_model=32, n_head=2).eval()
    prompt = "one two"
    ids = torch.tensor([tokenizer.encode(prompt).ids])
    best = tokenizer.decode([int(model(ids).logits[0, -1].argmax())])
    asked = tuple(Question(prompt, answer, triples()[0]) for answer in (best.strip(), "zzz"))
    assert tokenizer.encode(prompt).tokens[0] == END_OF_TEXT
    generated = model.generate(
        ids, max_new_tokens=1, do_sample=False, attention_mask=torch.ones_like(ids), pad_token_id=0
    )
    right = tokenizer.encode(f"{prompt} {best.strip()}").ids[:4] == generated[0].tolist()[:4]
    assert exact(model, tokenizer, asked) == [right, False]


def test_a_head_attending_to_the_token_after_the_earlier_occurrence_scores_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Planted:
        config = type("config", (), {"vocab_size": 500})
        device = "cpu"

        def set_attn_implementation(self, name: str) -> None:
            pass

        def __call__(self, ids: torch.Tensor, output_attentions: bool) -> object:
            n = ids.shape[1]
            heads = torch.zeros(len(ids), 2, n, n)
            for t in range(n):
                heads[:, 0, t, max(0, t - 9)] = 1.0
                heads[:, 1, t, max(0, t - 10)] = 1.0
            return type("out", (), {"attentions": (heads,)})

    assert induction_scores(Planted(), length=10).tolist() == [[1.0, 0.0]]  # type: ignore[arg-type]
