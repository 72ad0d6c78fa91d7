"""Weights are read and changed the same wherever they are kept: on disk, under an adapter, quantised."""

import copy
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from hooks import capture, intervene, load
from hooks.contract.families import tiny
from hooks.errors import EditRefused, InvalidArgument, WrongState
from hooks.fingerprint import fingerprint, fingerprint_now
from hooks.interventions import scale
from hooks.offload import is_offloaded, offloaded_value, place_of, refuse_meta, stays_in_memory
from hooks.site import mlp_act, resid_post
from hooks.weights import matrix_of, own_matrix, weight_of, weights_of, write_matrix

IDS = torch.tensor([[5, 20, 30, 40, 50]])
ROOT = Path(__file__).parents[2]


def offloaded(hf: nn.Module, where: str, folder: Path) -> nn.Module:
    import accelerate

    if where == "cpu":
        return accelerate.cpu_offload(copy.deepcopy(hf))
    return accelerate.disk_offload(copy.deepcopy(hf), str(folder))


@pytest.mark.parametrize("where", ["cpu", "disk"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_an_offloaded_model_equals_the_plain_one_bit_for_bit_at_every_site(
    hf_model: Callable[..., Any], family: str, where: str, tmp_path: Path
) -> None:
    hf = hf_model(family)
    plain, away = load(copy.deepcopy(hf)), load(offloaded(hf, where, tmp_path))
    assert away.fingerprint == plain.fingerprint and away.sites == plain.sites
    wanted, got = capture(plain, IDS, plain.sites), capture(away, IDS, plain.sites)
    assert all(torch.equal(got[site], wanted[site]) for site in plain.sites)
    assert torch.equal(away.w_out(1), plain.w_out(1))
    change = {mlp_act[1]: scale(0.0), resid_post[0]: scale(2.0)}
    with intervene(plain, change):
        wanted_logits = plain.run(IDS)
    with intervene(away, change):
        assert torch.equal(away.run(IDS), wanted_logits)
    assert torch.equal(away.unembed(got[resid_post[1]]), plain.unembed(got[resid_post[1]]))


def test_a_weight_offloaded_to_memory_is_changed_and_one_on_disk_is_refused(
    hf_model: Callable[..., Any], tmp_path: Path
) -> None:
    hf = hf_model("llama")
    W = torch.randn(load(hf, check=False).w_out(1).shape)
    plain, away = copy.deepcopy(hf), offloaded(hf, "cpu", tmp_path)
    for one in (plain, away):
        write_matrix(one.get_submodule("model.layers.1.mlp.down_proj"), W)
    assert torch.equal(load(away, check=False).run(IDS), load(plain, check=False).run(IDS))
    with pytest.raises(EditRefused, match="offloaded to disk"):
        write_matrix(offloaded(hf, "disk", tmp_path).get_submodule("model.layers.1.mlp.down_proj"), W)


def test_a_tensor_without_numbers_meets_no_arithmetic() -> None:
    empty = nn.Linear(3, 5, device="meta")
    with pytest.raises(WrongState, match="meta device"):
        matrix_of(empty)
    with refuse_meta(empty), pytest.raises(WrongState, match="offloaded"):
        nn.functional.linear(torch.ones(1, 3), empty.weight)


def test_numbers_and_names_of_an_operation_are_handed_on_where_tensors_without_numbers_are_refused() -> None:
    x, y, empty = torch.ones(2), torch.full((2,), 3.0), torch.empty(2, device="meta")
    with refuse_meta(nn.Linear(3, 5, device="meta")):
        assert torch.add(x, y, alpha=2).tolist() == [7.0, 7.0]
        assert torch.zeros(2, dtype=torch.int8).dtype == torch.int8
        assert (empty + empty).is_meta
        for given in ((lambda: torch.add(x, y, out=empty)), (lambda: torch.stack([x, empty])), (lambda: x * empty)):
            with pytest.raises(WrongState, match=r"got a weight of shape \(2,\) that is offloaded"):
                given()
    with refuse_meta(nn.Linear(3, 5)):
        assert torch.zeros(2).add(1).tolist() == [1.0, 1.0]
        with pytest.raises(RuntimeError) as raised:
            torch.stack([x, empty])
        assert not isinstance(raised.value, WrongState)  # free, and torch's own, where nothing is offloaded


def kept_by(module: nn.Module, weights: Any, runs_on: Any = "cpu") -> nn.Module:
    """As accelerate leaves it."""
    module._hf_hook = SimpleNamespace(execution_device=runs_on, weights_map=weights)  # type: ignore[assignment]
    return module


def test_a_module_is_where_its_hooks_run_it_where_its_weights_are_elsewhere_and_else_where_these_are() -> None:
    def away() -> nn.Linear:
        return nn.Linear(2, 3, device="meta", dtype=torch.float16)

    assert place_of(nn.ReLU()) == (torch.device("cpu"), torch.float32)
    assert place_of(nn.Linear(2, 3, dtype=torch.float64)) == (torch.device("cpu"), torch.float64)
    assert place_of(away()) == (torch.device("cpu"), torch.float16)
    assert place_of(kept_by(away(), None, "cuda:1")) == (torch.device("cuda:1"), torch.float16)
    assert place_of(kept_by(away(), None, None)) == (torch.device("cpu"), torch.float16)
    here = kept_by(nn.Linear(2, 3), None, "cuda:1")
    assert place_of(here) == (torch.device("cpu"), torch.float32)
    assert is_offloaded(nn.Sequential(nn.Linear(2, 3), away())) and not is_offloaded(nn.Sequential(nn.Linear(2, 3)))


def test_the_numbers_of_a_weight_elsewhere_are_those_of_the_first_map_that_holds_any() -> None:
    numbers, linear = torch.ones(3, 2), nn.Linear(2, 3, device="meta")
    with pytest.raises(WrongState, match="the weight of this Linear is on the meta device, and nothing says where"):
        offloaded_value(kept_by(linear, None), "weight")
    with pytest.raises(WrongState, match="nothing says where"):
        offloaded_value(kept_by(linear, {"weight": linear.weight}), "weight")
    assert offloaded_value(kept_by(linear, {"weight": numbers}), "weight") is numbers
    maps: list[Any] = [None, {"weight": None}, {"weight": linear.weight}, {"weight": numbers}]
    hooks = [SimpleNamespace(execution_device="cpu", weights_map=one) for one in maps]
    linear._hf_hook = SimpleNamespace(hooks=[*hooks, SimpleNamespace()])  # type: ignore[assignment]
    assert offloaded_value(linear, "weight") is numbers and stays_in_memory(linear, "weight")

    class FromDisk(dict[str, Any]):
        def __getitem__(self, name: str) -> Any:
            return super().__getitem__(name).clone()

    assert not stays_in_memory(kept_by(linear, FromDisk(weight=numbers)), "weight")


def test_a_device_map_is_handed_on_by_name(hf_model: Callable[..., Any], tmp_path: Path) -> None:
    hf = hf_model("llama")
    hf.save_pretrained(tmp_path)
    there = {"model.embed_tokens": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"}
    layers = {f"model.layers.{i}": ("disk", "cpu")[i % 2] for i in range(len(hf.model.layers))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        away = load(tmp_path, device_map=there | layers)
    plain = load(hf)
    assert away.sites == plain.sites and away.fingerprint == plain.fingerprint
    assert torch.equal(away.run(IDS), plain.run(IDS))


@pytest.fixture
def adapted(hf_model: Callable[..., Any]) -> Any:
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of what PEFT asks of transformers
        return peft.get_peft_model(hf_model("llama"), config).eval()


def test_a_lora_model_has_the_sites_and_weights_of_the_merged_one(adapted: Any) -> None:
    model, merged = load(adapted), load(copy.deepcopy(adapted).merge_and_unload())
    assert model.sites == merged.sites and model.contract is not None and model.contract.holds
    wanted, got = capture(merged, IDS, merged.sites), capture(model, IDS, merged.sites)
    for site in merged.sites:
        torch.testing.assert_close(got[site], wanted[site], atol=1e-4, rtol=1e-4)
    assert torch.equal(model.w_out(1), merged.w_out(1)) and model.w_out(1).shape == (model.d_mlp, model.d_model)
    assert fingerprint(model.hf) == fingerprint(merged.hf)


@pytest.mark.parametrize("family", ["gpt2", "phi3", "bert"])
def test_adapters_on_every_projection_leave_every_site_of_the_model(family: str) -> None:
    """A projection's own parts (its base, A and B) are no projections of the block next to it."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    every = ["c_attn", "c_proj", "c_fc"] if family == "gpt2" else "all-linear"
    config = peft.LoraConfig(r=4, target_modules=every, init_lora_weights=False, fan_in_fan_out=family == "gpt2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = peft.get_peft_model(tiny(family), config).eval()
        merged = load(copy.deepcopy(adapted).merge_and_unload())
    model = load(adapted)
    assert model.sites == load(tiny(family)).sites
    wanted, got = capture(merged, IDS, model.sites), capture(model, IDS, model.sites)
    for site in model.sites:
        torch.testing.assert_close(got[site], wanted[site], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "asked", [{"device": "cpu"}, {"dtype": torch.bfloat16}, {"device": "cpu", "dtype": torch.half}]
)
def test_an_offloaded_model_is_neither_moved_nor_cast(
    asked: dict[str, Any], hf_model: Callable[..., Any], tmp_path: Path
) -> None:
    away = offloaded(hf_model("llama"), "disk", tmp_path)
    with pytest.raises(InvalidArgument, match=f"{' and '.join(asked)} would move or cast .* give from_pretrained"):
        load(away, **asked)


def test_an_adapter_that_is_off_leaves_the_weights_of_the_model_without_it(
    adapted: Any, hf_model: Callable[..., Any]
) -> None:
    with adapted.disable_adapter():
        assert fingerprint(adapted.get_base_model()) == fingerprint(hf_model("llama"))


def test_an_adapter_that_is_switched_off_or_weighed_otherwise_is_seen_where_no_weight_is_written_to(
    adapted: Any, hf_model: Any
) -> None:
    hf = adapted.get_base_model()
    whole = fingerprint_now(hf)
    with adapted.disable_adapter():
        assert fingerprint_now(hf) == fingerprint(hf_model("llama")) != whole
    assert fingerprint_now(hf) == whole
    layer = next(module for module in hf.modules() if hasattr(module, "lora_A"))
    layer.set_scale("default", 3.0)
    assert fingerprint_now(hf) == fingerprint(hf) != whole
    layer.set_scale("default", 1.0)
    assert fingerprint_now(hf) == whole


def test_a_change_under_an_adapter_is_of_the_weight_inside_it(adapted: Any) -> None:
    model = load(adapted, check=False)
    projection, before = model.module(mlp_act[1]), model.w_out(1)
    own = own_matrix(projection).clone()
    write_matrix(projection, own + 1.0)
    torch.testing.assert_close(model.w_out(1), before + 1.0)
    write_matrix(projection, own)
    assert torch.equal(model.w_out(1), before)


def test_int8_is_read_dequantised_and_not_changed(hf_model: Callable[..., Any]) -> None:
    hf = hf_model("llama")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small = torch.ao.quantization.quantize_dynamic(copy.deepcopy(hf), {nn.Linear}, dtype=torch.qint8)
        model = load(small)
    assert model.fingerprint != load(hf, check=False).fingerprint
    assert [name for name, _ in weights_of(small)] == [name for name, _ in weights_of(hf)]
    here, there = (dict(weights_of(one))["model.layers.1.mlp.down_proj.weight"] for one in (small, hf))
    assert 0 < float((here - there).norm() / there.norm()) < 0.02
    projection = small.get_submodule("model.layers.1.mlp.down_proj")
    with pytest.raises(EditRefused, match="is quantised"):
        write_matrix(projection, matrix_of(projection))
    seen: list[torch.Tensor] = []
    handle = small.get_submodule("model.layers.1").register_forward_hook(lambda _m, _a, out: seen.append(out))
    got = capture(model, IDS, [resid_post[1]])[resid_post[1]]
    handle.remove()
    assert torch.equal(got, seen[-1])


def test_a_compiled_model_is_the_model_inside_it(hf_model: Callable[..., Any]) -> None:
    plain = load(hf_model("llama"))
    model = load(torch.compile(hf_model("llama"), backend="eager"))
    assert model.sites == plain.sites
    assert all(torch.equal(capture(model, IDS, [s])[s], capture(plain, IDS, [s])[s]) for s in plain.sites)


COMPILED = """
import torch
from hooks import capture, intervene, load
from hooks.contract.families import tiny
from hooks.interventions import zero
from hooks.site import mlp_act, mlp_out
ids, sites = torch.tensor([[5, 20, 30, 40, 50]]), [mlp_act[0], mlp_out[0]]
plain, model = load(tiny("llama"), check=False), load(tiny("llama"), check=False)
model.hf.model.layers[0].mlp.compile(backend="eager")
for _ in range(2):
    wanted, got = capture(plain, ids, sites), capture(model, ids, sites)
    assert all(torch.equal(got[site], wanted[site]) for site in sites)
    with intervene(plain, {mlp_act[0]: zero()}), intervene(model, {mlp_act[0]: zero()}):
        torch.testing.assert_close(model.run(ids), plain.run(ids))
assert torch.equal(model.run(ids), plain.run(ids))
print("the same")
"""
"""In a process of its own: what checks types in tests is no code that torch can compile."""


def test_a_part_compiled_in_place_is_read_and_changed_as_it_is_alone() -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", COMPILED], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert ran.stdout.split("\n")[-2:] == ["the same", ""], ran.stderr


def test_a_matrix_of_another_shape_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="is \\[3, 5\\], got \\[5, 3\\]"):
        write_matrix(nn.Linear(3, 5), torch.zeros(5, 3))
    with pytest.raises(InvalidArgument, match="has no weight"):
        weight_of(nn.Identity())
