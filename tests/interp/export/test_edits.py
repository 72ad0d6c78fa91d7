"""An edit exported is the same change of the model when peft or transformers loads it, and nothing else is."""

import json
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from hooks import Model
from hooks.errors import EditRefused, InvalidArgument, WrongModel, WrongState
from interp.export import to_folder, to_peft
from interp.export.client import largest_difference, own_logits, plain_logits
from interp.export.report import ExportReport, check_difference
from interp.memory import Edit, Fact
from interp.memory.editing.change import LowRank
from interp.memory.editing.prompt_cache import Preamble

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # peft's own
FACT = Fact("Rome", "{} is in", "Italy", "France")
PROMPTS = ["Rome is in", "Fog over the bay"]


def edit(model: Model, ranks: dict[int, int], seed: int = 0) -> Edit:
    random = torch.Generator().manual_seed(seed)
    updates = []
    for layer, rank in ranks.items():
        key = torch.randn(rank, model.d_mlp, generator=random, dtype=torch.float64)
        value = torch.randn(rank, model.d_model, generator=random, dtype=torch.float64)
        updates.append(LowRank(layer, 0.3 * key, 0.3 * value))
    return Edit((FACT,), "by hand", tuple(updates), model.fingerprint)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gpt_neox"])
def test_peft_does_with_the_adapter_what_the_edit_does(family: str, fresh: Callable, tmp_path: Path) -> None:
    model = fresh(family)
    one = edit(model, {0: 1, 2: 3})
    report = to_peft(model, one, tmp_path / "adapter", prompts=PROMPTS)
    assert report.difference is not None and report.effect is not None
    assert report.difference < 1e-4 * report.effect and report.effect > 0.1
    loaded = peft.PeftModel.from_pretrained(fresh(family).hf, tmp_path / "adapter").eval()
    with one.applied(model):
        ours = own_logits(model, PROMPTS)
        edited = {layer: model.w_out(layer).detach().clone() for layer in (0, 2)}
    assert largest_difference(plain_logits(loaded, model, PROMPTS), ours) < 1e-4
    merged = loaded.merge_and_unload()
    twin = fresh(family)
    twin.hf.load_state_dict(merged.state_dict())
    for layer, W in edited.items():
        assert (twin.w_out(layer) - W).abs().max() < 1e-6


def test_only_the_edited_modules_get_an_adapter_and_each_layer_keeps_its_rank(fresh: Callable, tmp_path: Path) -> None:
    model = fresh("gpt2")
    to_peft(model, edit(model, {0: 1, 2: 3}), tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["target_modules"] == ["transformer.h.0.mlp.c_proj", "transformer.h.2.mlp.c_proj"]
    assert config["r"] == config["lora_alpha"] == 3
    assert config["rank_pattern"] == config["alpha_pattern"] == {"transformer.h.0.mlp.c_proj": 1}


def test_a_lower_rank_keeps_the_largest_singular_values_and_says_what_is_lost(fresh: Callable, tmp_path: Path) -> None:
    model = fresh("llama")
    one = edit(model, {1: 3})
    U, S, Vh = torch.linalg.svd(one.weights[0].delta, full_matrices=False)
    report = to_peft(model, one, tmp_path / "adapter", rank=2)
    left = float(S[2] / S[:3].norm())
    assert report.lost == (f"{left:.1%} of the norm of the change of layer 1, whose rank is above 2",)
    held = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    A, B = (next(t for name, t in held.items() if f"lora_{part}" in name) for part in "AB")
    torch.testing.assert_close((B @ A).T.double(), (U[:, :2] * S[:2]) @ Vh[:2], rtol=1e-5, atol=1e-6)


def test_a_rank_that_servers_take_is_reached_with_zeros_that_change_nothing(fresh: Callable, tmp_path: Path) -> None:
    model = fresh("gpt2")
    report = to_peft(model, edit(model, {1: 3}), tmp_path / "adapter", rank=8)
    assert not report.lost and report.difference is not None and report.difference < 1e-4
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["r"] == 8


def test_an_adapter_whose_tensors_have_other_names_is_not_taken_for_the_edit(
    fresh: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def misnamed(path: Path, tensors: dict, metadata: dict) -> None:
        save_file({name.replace("lora_A", "lora_C"): t.contiguous() for name, t in tensors.items()}, path, metadata)

    monkeypatch.setattr("interp.export.peft_adapter.save_tensors", misnamed)
    model = fresh("gpt2")
    with pytest.raises((UserWarning, WrongState)):
        to_peft(model, edit(model, {1: 1}), tmp_path / "adapter")


def test_what_holds_nothing_differs_by_the_whole_effect_and_is_refused() -> None:
    nothing = ExportReport("an edit", (), "a reader", difference=2.0, effect=2.0)
    with pytest.raises(WrongState, match="do not hold it"):
        check_difference(nothing)
    check_difference(ExportReport("an edit", (), "a reader", difference=1e-5, effect=2.0))
    with pytest.raises(WrongState):
        check_difference(ExportReport("an edit", (), "a reader", difference=float("nan"), effect=2.0))


def test_edits_next_to_the_weights_and_of_other_models_are_refused(fresh: Callable, tmp_path: Path) -> None:
    model = fresh("gpt2")
    compared = Edit((FACT,), "in_context", (Preamble(torch.tensor([1, 2])),), model.fingerprint)
    with pytest.raises(EditRefused, match="works next to the weights"):
        to_peft(model, compared, tmp_path / "adapter")
    with pytest.raises(WrongModel):
        to_peft(fresh("gpt2", seed=1), edit(model, {1: 1}), tmp_path / "adapter")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes").touch()
    with pytest.raises(InvalidArgument, match="no empty folder"):
        to_peft(model, edit(model, {1: 1}), tmp_path / "full")


def test_an_edit_is_exported_alike_while_it_is_applied(fresh: Callable, tmp_path: Path) -> None:
    model = fresh("gpt2")
    one = edit(model, {1: 2})
    apart = to_peft(model, one, tmp_path / "apart")
    with one.applied(model):
        applied = to_peft(model, one, tmp_path / "applied")
        assert applied.effect == apart.effect
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "apart" / name).read_bytes() == (tmp_path / "applied" / name).read_bytes()


def test_a_folder_is_what_transformers_loads_bit_for_bit(fresh: Callable, tmp_path: Path) -> None:
    model = fresh("llama")
    one = edit(model, {1: 2})
    before = model.fingerprint
    report = to_folder(model, [one], tmp_path / "edited", prompts=PROMPTS)
    assert report.difference == 0.0 and report.effect is not None and report.effect > 0.1
    assert model.fingerprint == before
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "edited").eval()
    with one.applied(model):
        ours = own_logits(model, PROMPTS)
    assert largest_difference(plain_logits(loaded, model, PROMPTS), ours) == 0.0
