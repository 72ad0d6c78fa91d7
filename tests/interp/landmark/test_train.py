"""The training pass is GPT-2's; sealing stops exactly what it should; a resumed run ends with the same weights."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import GPT2LMHeadModel

import interp.landmark.train as training
from interp.landmark.evaluate import Question, answers_exactly
from interp.landmark.gated import gated_states, new_gated_model
from interp.landmark.relations import triples
from interp.landmark.sealing import carry, first_mention, seal_rows
from interp.landmark.tokenizer import END_OF_TEXT
from interp.landmark.train import Phase, phase_at


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


NONE, ALL = torch.zeros(2, dtype=torch.bool), torch.ones(2, dtype=torch.bool)


def hidden(model, rows: dict[str, torch.Tensor], opened: torch.Tensor, layers=lower) -> torch.Tensor:
    bias = [training._bias(layer) for layer in layers(*seal_rows(rows, opened, NONE))]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        return training.hidden_states(model, rows, bias, torch.zeros(2, 32), NONE).float().view(2, 12, -1)


def test_the_unsealed_forward_pass_is_that_of_hugging_face_within_half_precision(model, rows) -> None:
    with torch.no_grad():
        expected = model.transformer(rows["ids"]).last_hidden_state
    assert torch.allclose(hidden(model, rows, ALL), expected, atol=0.06)


def test_the_gated_siblings_forward_pass_is_that_of_hugging_face(rows) -> None:
    torch.manual_seed(0)
    sibling = new_gated_model(64, 12, n_layer=3, d_model=32, n_head=2, d_mlp=48).eval()
    bias = [training._bias(layer).float() for layer in lower(*seal_rows(rows, ALL, NONE))]
    with torch.no_grad():
        ours = gated_states(sibling, rows, bias, torch.zeros(2, 32), NONE, 4).view(2, 12, -1)
        assert torch.allclose(ours, sibling.model(rows["ids"]).last_hidden_state, atol=1e-5)
        rows |= {"weight": torch.ones(2, 12)}
        loss, plain = training.weighted_loss(sibling, rows, torch.Generator().manual_seed(0))
    assert loss.isfinite() and float(loss) == pytest.approx(float(plain), rel=1e-5)
    matrices, others = ([p for group in o.param_groups for p in group["params"]] for o in training.optimizers(sibling))
    assert len(matrices) == 3 * 7 and len(matrices) + len(others) == len([*sibling.parameters()])


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="architecture='bert': choose 'gpt2' or 'llama'"):
        training.train(tmp_path, architecture="bert")


def test_packed_documents_do_not_see_each_other(model, rows) -> None:
    rows["document"] = torch.tensor([[1] * 6 + [2] * 6] * 2)
    before = hidden(model, rows, ALL)
    rows["ids"] = rows["ids"].clone()
    rows["ids"][:, 1:6] = 5
    assert torch.equal(hidden(model, rows, ALL)[:, 6:], before[:, 6:])


def test_sealing_lets_nothing_of_a_mention_out_and_nothing_of_the_text_in(model, rows) -> None:
    before = hidden(model, rows, NONE)
    changed = {**rows, "ids": rows["ids"].clone()}
    changed["ids"][:, 4:7] = 9
    after = hidden(model, changed, NONE)
    outside = rows["mention"][0] == 0
    assert torch.equal(after[:, outside], before[:, outside])
    assert not torch.equal(after[:, ~outside], before[:, ~outside])
    changed["ids"] = rows["ids"].clone()
    changed["ids"][:, [1, 2, 3]] = 9
    assert torch.equal(hidden(model, changed, NONE)[:, ~outside], before[:, ~outside])


def test_the_upper_layers_read_a_mention_at_its_last_token_only(model, rows) -> None:
    one_layer = BUILD(64, n_layer=1, d_model=32, n_head=2).eval()
    first_of = lambda below, above: [above]  # noqa: E731
    before = hidden(one_layer, rows, NONE, first_of)
    for position, seen in ((4, False), (5, False), (6, True)):
        changed = {**rows, "ids": rows["ids"].clone()}
        changed["ids"][:, position] = 9
        assert torch.equal(hidden(one_layer, changed, NONE, first_of)[:, 7:], before[:, 7:]) != seen


def test_without_sealing_the_same_change_reaches_later_tokens(model, rows) -> None:
    changed = {**rows, "ids": rows["ids"].clone()}
    changed["ids"][:, 4:7] = 9
    assert not torch.equal(hidden(model, changed, ALL)[:, 7:], hidden(model, rows, ALL)[:, 7:])


def test_in_carried_rows_tokens_read_no_mention_of_others_and_carry_the_first_of_their_document(rows) -> None:
    _, above = seal_rows(rows, NONE, ALL)
    assert not above[:, 7:, 4:7].any()
    assert above[:, 5, 4].all()
    rows["document"] = torch.tensor([[1] * 9 + [2] * 3] * 2)
    rows["mention"][:, 8] = 2
    assert first_mention(rows)[0].tolist() == [6] * 9 + [-1] * 3
    h = torch.randn(2, 12, 5, generator=torch.Generator().manual_seed(2))
    share = torch.tensor([[0.5], [0.0]]).expand(2, h.shape[-1])
    for over_all, mean in ((NONE, h[:, [6, 8]].mean((0, 1))), (ALL, h[rows["position"] > 0].mean(0))):
        carried = carry(h, rows, share, over_all)
        assert torch.allclose(carried[0, :9] - h[0, :9], 0.5 * (h[0, 6] - mean).expand(9, 5), atol=1e-6)
        assert torch.equal(carried[0, 9:], h[0, 9:])
        assert torch.equal(carried[1], h[1])


def test_the_learning_rate_of_a_phase_rises_stays_and_falls_to_zero() -> None:
    phase = Phase(1000, 3e-3, warm_up=100, decay=0.5, carried=0.0)
    rates = [phase.rate(step) for step in range(1001)]
    assert rates[0] == 3e-3 / 100
    assert rates[100] == rates[500] == 3e-3
    assert all(a >= b for a, b in zip(rates[500:], rates[501:], strict=False))
    assert rates[1000] == 0.0


def test_phases_follow_one_another_and_a_step_beyond_them_is_an_error() -> None:
    first, second = Phase(3, 1e-3, 1, 1.0, 0.0), Phase(2, 1e-3, 1, 1.0, 0.5)
    found = [phase_at((first, second), step) for step in range(5)]
    assert found == [(first, 0), (first, 1), (first, 2), (second, 0), (second, 1)]
    with pytest.raises(ValueError, match="end 1 steps before"):
        phase_at((first, second), 6)


@pytest.fixture
def shortened(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Training of a tiny model on a few short rows."""
    for name, value in (("LENGTH", 64), ("ROWS_PER_STEP", 2), ("STEPS_PER_SHARD", 2)):
        monkeypatch.setattr(training, name, value)
    monkeypatch.setattr(training, "new_model", lambda vocab: small(vocab))
    monkeypatch.setattr(training, "train_tokenizer", lambda texts: whole_tokenizer(texts))
    return monkeypatch


@pytest.mark.usefixtures("shortened")
def test_a_folder_of_another_seed_or_architecture_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    phases = (Phase(1, 1e-3, 1, 1.0, carried=0.0),)
    training.train(tmp_path, phases=phases)
    before = (tmp_path / "state.pt").read_bytes()
    for other, said in (
        ({"seed": 1}, "holds a training with seed=0, and seed=1 was asked for: give another folder"),
        ({"architecture": "llama"}, "with architecture='gpt2', and architecture='llama' was asked for"),
    ):
        with pytest.raises(ValueError, match=said):
            training.train(tmp_path, phases=phases, **other)
    assert (tmp_path / "state.pt").read_bytes() == before


@pytest.mark.usefixtures("shortened")
def test_a_folder_of_other_phases_is_refused_unless_they_only_follow_what_is_done(tmp_path: Path) -> None:
    first, second = Phase(2, 1e-3, 1, 1.0, carried=0.0), Phase(2, 1e-3, 1, 1.0, carried=0.5)
    training.train(tmp_path, phases=(first,), save_every=2)
    before = (tmp_path / "state.pt").read_bytes()
    for other in (replace(first, learning_rate=2e-3), replace(first, steps=3), replace(first, steps=1), second):
        with pytest.raises(ValueError, match="holds a training with phases=.*'learning_rate': 0.001, .* was asked for"):
            training.train(tmp_path, phases=(other, second))
    with pytest.raises(ValueError, match="holds a training with phases="):
        training.train(tmp_path, phases=())
    assert (tmp_path / "state.pt").read_bytes() == before
    training.train(tmp_path, phases=(first, second), save_every=2)
    with pytest.raises(ValueError, match="holds a training with phases="):
        training.train(tmp_path, phases=(first,))


def test_a_tokenizer_of_a_run_that_left_no_state_is_learnt_again(tmp_path: Path, shortened: pytest.MonkeyPatch) -> None:
    phases, seen = (Phase(1, 1e-3, 1, 1.0, carried=0.0),), []

    def learn(texts):  # noqa: ANN001, ANN202
        seen.append(next(iter(texts)))
        return whole_tokenizer(texts)

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    shortened.setattr(training, "train_tokenizer", learn)
    with shortened.context() as broken:
        broken.setattr(training, "_step", fail)
        with pytest.raises(KeyboardInterrupt):
            training.train(tmp_path, phases=phases, seed=1)
    training.train(tmp_path, phases=phases)
    training.train(tmp_path, phases=phases)
    assert len(seen) == 2 and seen[0] != seen[1]


@pytest.mark.usefixtures("shortened")
def test_a_run_stopped_and_resumed_ends_with_the_same_weights(tmp_path: Path) -> None:
    first, second = Phase(3, 1e-3, 1, 1.0, carried=0.0), Phase(2, 1e-3, 1, 1.0, carried=0.5)
    training.train(tmp_path / "whole", phases=(first, second), save_every=5)
    training.train(tmp_path / "halves", phases=(first,), save_every=3)
    training.train(tmp_path / "halves", phases=(first, second), save_every=5)
    whole, halves = (torch.load(tmp_path / run / "state.pt")["model"] for run in ("whole", "halves"))
    assert all(torch.equal(whole[name], halves[name]) for name in whole)


def test_a_phase_that_restarts_goes_on_from_an_export_as_from_the_run_itself_and_ends_at_the_mean(
    tmp_path: Path, shortened: pytest.MonkeyPatch
) -> None:
    first, second = Phase(3, 1e-3, 1, 1.0, carried=0.0), Phase(2, 1e-3, 1, 1.0, carried=0.5, restarts=True)
    training.train(tmp_path / "whole", phases=(first, second), save_every=5)
    exported = training.train(tmp_path / "first", phases=(first,), save_every=3)
    model = GPT2LMHeadModel.from_pretrained(exported, dtype=torch.float32)
    state = {"model": model.state_dict(), "step": 3, "seconds": 0.0, "begun": {}}
    state["optimizers"] = [stepper.state_dict() for stepper in training.optimizers(model)]
    (tmp_path / "later").mkdir()
    torch.save(state, tmp_path / "later" / "state.pt")
    shutil.copy(tmp_path / "first" / "tokenizer.json", tmp_path / "later")
    training.train(tmp_path / "later", phases=(first, second), save_every=5)
    whole, later = (torch.load(tmp_path / run / "state.pt")["model"] for run in ("whole", "later"))
    assert all(torch.equal(whole[name], later[name]) for name in whole)
    shortened.setattr(training, "_average_with", lambda *_: None)
    (tmp_path / "end").mkdir()
    torch.save(state, tmp_path / "end" / "state.pt")
    shutil.copy(tmp_path / "first" / "tokenizer.json", tmp_path / "end")
    training.train(tmp_path / "end", phases=(first, second), save_every=5)
    begun, end = state["model"], torch.load(tmp_path / "end" / "state.pt")["model"]
    assert all(torch.allclose(whole[name], (begun[name] + end[name]) / 2, atol=1e-6) for name in whole)
    assert not all(torch.allclose(begun[name], end[name], atol=1e-4) for name in whole)


def test_a_phase_that_restarts_can_be_stopped_and_resumed(tmp_path: Path, shortened: pytest.MonkeyPatch) -> None:
    first, second = Phase(2, 1e-3, 1, 1.0, carried=0.0), Phase(4, 1e-3, 1, 1.0, carried=0.5, restarts=True)
    training.train(tmp_path / "whole", phases=(first, second), save_every=3)
    save = training._save

    def killed(*state: object) -> None:
        save(*state)
        raise KeyboardInterrupt

    with shortened.context() as once:
        once.setattr(training, "_save", killed)
        with pytest.raises(KeyboardInterrupt):
            training.train(tmp_path / "halves", phases=(first, second), save_every=3)
    training.train(tmp_path / "halves", phases=(first, second), save_every=3)
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
    assert answers_exactly(model, tokenizer, asked) == [right, False]
