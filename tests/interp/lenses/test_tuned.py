"""Tuning brings a lens to what the model says, and an interruption changes no bit of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import interp.lenses.tuning as source
from hooks import Model, load
from interp.lenses import LogitLens, TunedLens, read, tune
from tests.interp.circuits.handmade import linear_gpt2

TEXTS = ["fog over the bay", "the bridge is red", "a cold sea and", "who said that?"]


@pytest.fixture(scope="module")
def alone(hf_model: Callable[..., Any], tokenizer: Any) -> Model:
    """A linear network whose tokens do not look at each other: its last stream is an affine map of each before."""
    model = linear_gpt2(hf_model, tokenizer)
    with torch.no_grad():
        for block in model.blocks:
            block.get_submodule("attn.c_proj").get_parameter("weight").zero_()
    return model


def test_where_the_rest_of_the_network_is_affine_tuning_finds_it_on_texts_never_seen(alone: Model) -> None:
    lens = tune(alone, TEXTS, steps=60, batch_size=4, learning_rate=0.03)
    before, after = (read(one, ["so the fog and the sea"]).mean_kl for one in (LogitLens(alone), lens))
    assert bool((before[:-1] > 0.05).all())
    assert bool((after[:-1] < 0.2 * before[:-1]).all())
    assert float(after[-1]) == pytest.approx(0.0, abs=1e-6)


def test_each_step_goes_down_the_divergence_of_every_layer(gpt2: Model) -> None:
    """The gradient that tuning follows, against central differences of the divergence that reading measures."""
    lens = TunedLens.identity(gpt2)
    slopes = source._gradients(lens, TEXTS[:2])
    for w, slope in zip((lens.A, lens.b), slopes, strict=True):
        step = torch.randn(w.shape, generator=torch.Generator().manual_seed(2))
        ends = []
        for sign in (1.0, -1.0):
            w += sign * 1e-2 * step
            ends.append(read(lens, TEXTS[:2]).mean_kl[:-1])
            w -= sign * 1e-2 * step
        rise = (ends[0] - ends[1]) / 2e-2
        expected = (slope * step).flatten(1).sum(1)
        torch.testing.assert_close(rise, expected, rtol=0.05, atol=0.01)


def test_tuning_interrupted_and_resumed_gives_the_same_lens_bit_for_bit(
    gpt2: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "EVERY", 2)
    whole = tune(gpt2, TEXTS, steps=7, batch_size=2)
    descend, calls, file = source._gradients, [0], tmp_path / "lens.safetensors"

    def dying(*args: Any) -> Any:
        calls[0] += 1
        if calls[0] == 6:
            raise KeyboardInterrupt
        return descend(*args)

    monkeypatch.setattr(source, "_gradients", dying)
    with pytest.raises(KeyboardInterrupt):
        tune(gpt2, TEXTS, steps=7, batch_size=2, checkpoint=file)
    resumed = tune(gpt2, TEXTS, steps=7, batch_size=2, checkpoint=file)
    assert calls[0] == 6 + 3  # steps 5 to 7: the last checkpoint was after step 4
    assert torch.equal(whole.A, resumed.A) and torch.equal(whole.b, resumed.b)
    assert float(whole.A.abs().max()) > 0
    again = tune(gpt2, TEXTS, steps=7, batch_size=2, checkpoint=file)
    assert calls[0] == 9 and torch.equal(again.A, whole.A)
    assert torch.equal(TunedLens.load(file, gpt2).A, whole.A)
    with pytest.raises(ValueError, match="was made with another settings"):
        tune(gpt2, TEXTS, steps=8, batch_size=2, checkpoint=file)
    with pytest.raises(ValueError, match="was made with another texts"):
        tune(gpt2, TEXTS[:3], steps=7, batch_size=2, checkpoint=file)
    with pytest.raises(ValueError, match="was made with another texts"):
        tune(gpt2, ["\0".join(TEXTS[:2]), *TEXTS[2:]], steps=7, batch_size=2, checkpoint=file)


def test_a_lens_survives_its_file_and_is_refused_by_another_model(gpt2: Model, llama: Model, tmp_path: Path) -> None:
    lens = tune(gpt2, TEXTS, steps=2, batch_size=2)
    lens.save(tmp_path / "lens")
    again = TunedLens.load(tmp_path / "lens", gpt2)
    assert torch.equal(again.A, lens.A) and torch.equal(again.b, lens.b)
    with pytest.raises(ValueError, match="was made with other weights"):
        TunedLens.load(tmp_path / "lens", llama)
    with pytest.raises(ValueError, match="has 2 layers of width 32, got A of"):
        TunedLens(gpt2, lens.A[:1], lens.b[:1])
    with pytest.raises(ValueError, match="0 texts"):
        tune(gpt2, [])


def test_in_half_precision_tuning_goes_where_it_goes_in_single(
    fresh: Callable[..., Model], hf_model: Any, tokenizer: Any
) -> None:
    single = tune(fresh("gpt2"), TEXTS, steps=12, batch_size=4)
    half = tune(load(hf_model("gpt2").half(), tokenizer, check=False), TEXTS, steps=12, batch_size=4)
    assert half.A.dtype == half.b.dtype == torch.float16
    for ours, theirs in ((half.A, single.A), (half.b, single.b)):
        assert bool(ours.isfinite().all())
        assert float(torch.cosine_similarity(ours.float().flatten(), theirs.flatten(), dim=0)) > 0.9


def test_steps_are_those_of_torchs_adam_with_a_rate_that_falls_linearly(
    gpt2: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    g = torch.Generator().manual_seed(0)
    slopes = [[torch.randn(2, 32, 32, generator=g), torch.randn(2, 32, generator=g)] for _ in range(3)]
    given = iter(slopes)
    monkeypatch.setattr(source, "_gradients", lambda *_: next(given))
    ours = tune(gpt2, TEXTS, steps=3, learning_rate=0.01)
    w = [torch.zeros(2, 32, 32, requires_grad=True), torch.zeros(2, 32, requires_grad=True)]
    adam = torch.optim.Adam(w, lr=0.01)
    schedule = torch.optim.lr_scheduler.LinearLR(adam, start_factor=1.0, end_factor=1e-9, total_iters=3)
    for slope in slopes:
        for parameter, grad in zip(w, slope, strict=True):
            parameter.grad = grad.clone()
        adam.step()
        schedule.step()
    torch.testing.assert_close(ours.A, w[0].detach(), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(ours.b, w[1].detach(), rtol=1e-5, atol=1e-7)


def test_the_last_step_may_not_leave_what_is_no_number(gpt2: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = [torch.full((2, 32, 32), torch.nan), torch.zeros(2, 32)]
    monkeypatch.setattr(source, "_gradients", lambda *_: nothing)
    with pytest.raises(ValueError, match="the weights after step 1 are not finite: lower the learning rate"):
        tune(gpt2, TEXTS, steps=1)


def test_a_text_without_a_token_is_refused(gpt2: Model) -> None:
    with pytest.raises(ValueError, match="the text '' has no token to tune on: leave it out"):
        tune(gpt2, ["", "fog"], steps=4)


def test_a_lens_that_is_still_being_tuned_is_no_lens_yet(
    gpt2: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "EVERY", 1)
    monkeypatch.setattr(source, "_gradients", dying_after(2, source._gradients))
    with pytest.raises(KeyboardInterrupt):
        tune(gpt2, TEXTS, steps=5, checkpoint=tmp_path / "half")
    with pytest.raises(ValueError, match="was tuned for 2 of 5 steps: call tune again with this checkpoint"):
        TunedLens.load(tmp_path / "half", gpt2)


def dying_after(calls: int, function: Callable[..., Any]) -> Callable[..., Any]:
    left = iter(range(calls))

    def dying(*args: Any) -> Any:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return function(*args)

    return dying
