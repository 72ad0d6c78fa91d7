"""Tuning brings a lens to what the model says, and an interruption changes no bit of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import interp.lenses.tuning as source
from hooks import Model
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
    assert calls[0] == 6 + 3  # steps 5 to 7: the last checkpoint was behind step 4
    assert torch.equal(whole.A, resumed.A) and torch.equal(whole.b, resumed.b)
    assert float(whole.A.abs().max()) > 0
    again = tune(gpt2, TEXTS, steps=7, batch_size=2, checkpoint=file)
    assert calls[0] == 9 and torch.equal(again.A, whole.A)
    assert torch.equal(TunedLens.load(file, gpt2).A, whole.A)
    with pytest.raises(ValueError, match="was made with another settings"):
        tune(gpt2, TEXTS, steps=8, batch_size=2, checkpoint=file)
    with pytest.raises(ValueError, match="was made with another texts"):
        tune(gpt2, TEXTS[:3], steps=7, batch_size=2, checkpoint=file)


def test_a_lens_survives_its_file_and_is_refused_by_another_model(gpt2: Model, llama: Model, tmp_path: Path) -> None:
    lens = tune(gpt2, TEXTS, steps=2, batch_size=2)
    lens.save(tmp_path / "lens")
    again = TunedLens.load(tmp_path / "lens", gpt2)
    assert torch.equal(again.A, lens.A) and torch.equal(again.b, lens.b)
    with pytest.raises(ValueError, match="was tuned on another model"):
        TunedLens.load(tmp_path / "lens", llama)
    with pytest.raises(ValueError, match="has 2 layers of width 32, got A of"):
        TunedLens(gpt2, lens.A[:1], lens.b[:1])
    with pytest.raises(ValueError, match="0 texts"):
        tune(gpt2, [])
