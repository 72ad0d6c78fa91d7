"""Weights under adapters of every kind are what the module multiplies by: as it answers zero and unit vectors."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing._internal.two_tensor import TwoTensor

from hooks import capture, load
from hooks.fingerprint import fingerprint
from hooks.weights import (
    base_of,
    bias_of,
    has_weight,
    is_quantised,
    is_tied,
    matrix_of,
    shape_of,
    weight_of,
    weights_of,
    width,
)

peft = pytest.importorskip("peft")


class Net(nn.Module):
    """An embedding and two layers, the second without a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Embedding(7, 6), nn.BatchNorm1d(6)
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 4, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        return self.second(self.first(self.embed(ids)).relu())


def adapted(*targets: str, rank: int = 2, **more: Any) -> Any:
    torch.manual_seed(0)
    config = peft.LoraConfig(r=rank, target_modules=[*targets], init_lora_weights=False, **more)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.get_peft_model(Net(), config).eval()


def answers(module: nn.Module) -> tuple[Tensor, Tensor]:
    """The weight and bias of a linear module by what it gives."""
    with torch.no_grad():
        zero, unit = torch.zeros(1, 6), torch.eye(6)
        return (module(unit) - module(zero)).T, module(zero)[0]


def check_answers(module: nn.Module) -> None:
    W, b = answers(module)
    torch.testing.assert_close(weight_of(module), W, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(bias_of(module), b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("more", [{}, {"lora_alpha": 6}, {"use_dora": True}, {"use_rslora": True}, {"lora_bias": True}])
def test_the_weight_and_bias_of_an_adapted_layer_are_those_that_it_computes_with(more: dict[str, Any]) -> None:
    layer = adapted("first", **more).base_model.model.first
    if "use_dora" in more:  # whose lengths are at first those of the sum
        layer.lora_magnitude_vector["default"].weight.data.mul_(torch.linspace(0.5, 2.0, 8))
    if "lora_bias" in more:
        nn.init.constant_(layer.lora_B["default"].bias, 0.7)
        layer.scaling["default"] = 3.0
    own = layer.base_layer.weight.detach()
    assert not torch.allclose(weight_of(layer), own, atol=1e-2)
    check_answers(layer)


def test_a_bias_that_only_an_adapter_has_is_a_bias_of_the_layer_while_the_adapter_is_on() -> None:
    model = adapted("second", lora_bias=True)
    layer = model.base_model.model.second
    layer.scaling["default"] = 2.0
    added = layer.lora_B["default"].bias.detach()
    assert has_weight(layer, "bias") and torch.equal(bias_of(layer), 2 * added)
    assert [name for name, _ in weights_of(nn.Sequential(layer))] == ["0.weight", "0.bias"]
    torch.testing.assert_close(layer(torch.zeros(1, 8))[0].detach(), bias_of(layer))
    with model.disable_adapter():
        assert bias_of(layer) is None
        assert [name for name, _ in weights_of(nn.Sequential(layer))] == ["0.weight"]
    model.base_model.model.second = adapted("second").base_model.model.second
    assert bias_of(model.base_model.model.second) is None


def test_several_adapters_add_up_where_they_are_and_one_that_is_merged_leaves_the_others_out() -> None:
    model = adapted("first", lora_bias=True)
    more = peft.LoraConfig(r=3, init_lora_weights=False, target_modules=["first", "second"])
    model.add_adapter("other", more)
    model.base_model.set_adapter(["default", "other"])
    first, second = model.base_model.model.first, model.base_model.model.second
    check_answers(first)
    only = second.base_layer.weight + second.lora_B["other"].weight @ second.lora_A["other"].weight * (8 / 3)
    torch.testing.assert_close(weight_of(second), only.detach())
    before = bias_of(first)
    model.base_model.merge_adapter(["default"])
    check_answers(first)
    torch.testing.assert_close(bias_of(first), before)
    assert torch.equal(weight_of(first), first.base_layer.weight)


def test_a_layer_whose_adapter_is_off_is_the_layer_inside_it() -> None:
    model = adapted("first")
    layer = model.base_model.model.first
    with model.disable_adapter():
        assert weight_of(layer).data_ptr() == layer.base_layer.weight.data_ptr()
        assert torch.equal(bias_of(layer), layer.base_layer.bias)


def test_an_adapter_around_an_adapter_adds_to_what_that_makes() -> None:
    inner = adapted("first").base_model.model.first
    outer = peft.tuners.lora.Linear(inner, "default", peft.LoraConfig(init_lora_weights=False), r=2, lora_alpha=2)
    with torch.no_grad():
        both = weight_of(inner) + outer.lora_B["default"].weight @ outer.lora_A["default"].weight
    torch.testing.assert_close(weight_of(outer), both)
    assert not torch.allclose(weight_of(inner), base_of(outer).get_parameter("weight"), atol=1e-2)


@pytest.mark.parametrize("on", [True, False])
def test_a_module_that_is_trained_whole_has_the_weights_of_its_copy_and_else_of_the_original(on: bool) -> None:
    model = adapted("first", modules_to_save=["embed", "second"])
    embed, second = model.base_model.model.embed, model.base_model.model.second
    for part in (embed, second):
        nn.init.constant_(part.modules_to_save["default"].weight, 0.25)
    for part in (embed, second):
        kept = part.modules_to_save["default"] if on else part.original_module
        part.set_adapter("default" if on else [])
        assert base_of(part) is kept and weight_of(part).data_ptr() == kept.weight.data_ptr()
        assert bias_of(part) is None and shape_of(part) == tuple(kept.weight.shape)
        part.enable_adapters(False)
        assert base_of(part) is part.original_module
        part.enable_adapters(True)
    names = [name for name, _ in weights_of(model.base_model.model)]
    assert names == [name for name, _ in weights_of(Net())]


def test_a_model_with_a_head_and_embeddings_trained_whole_is_the_merged_one(hf_model: Callable[..., Any]) -> None:
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["lm_head", "embed_tokens", "down_proj"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = peft.get_peft_model(hf_model("llama"), config).eval()
    random = torch.Generator().manual_seed(0)
    for name, weight in whole.named_parameters():
        if "modules_to_save" in name:
            weight.data.add_(0.1 * torch.randn(weight.shape, generator=random))
    model, merged = load(whole, check=False), load(copy.deepcopy(whole).merge_and_unload(), check=False)
    assert model.sites == merged.sites and fingerprint(model.hf) == fingerprint(merged.hf)
    assert torch.equal(model.w_out(1), merged.w_out(1))
    ids = torch.tensor([[5, 20, 30, 40, 50]])
    wanted, got = capture(merged, ids, merged.sites), capture(model, ids, merged.sites)
    for site in merged.sites:
        torch.testing.assert_close(got[site], wanted[site], atol=1e-4, rtol=1e-4)


class Packed(nn.Module):
    """A projection whose matrix is kept as whole numbers, and its scale apart."""

    def __init__(self, size: int, wide: int, first: bool, makes: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(0)
        shape = (wide, size) if first else (size, wide)
        numbers = torch.randint(-9, 9, shape, dtype=torch.int8, generator=random)
        self.weight = nn.Parameter(numbers, requires_grad=False)
        self.bias = nn.Parameter(torch.randn(wide, generator=random))
        self.makes, self.out_features = makes, wide
        if first:
            self.in_features = size

    def forward(self, x: Tensor) -> Tensor:
        W = self.weight.float() * 0.5
        return self.makes(x) @ (W.T if hasattr(self, "in_features") else W) + self.bias


@pytest.mark.parametrize("first", [True, False], ids=["as nn.Linear", "as Conv1D"])
@pytest.mark.parametrize("size", [5, 700])
def test_a_matrix_in_whole_numbers_is_read_as_the_module_multiplies(size: int, first: bool) -> None:
    module = Packed(size, 3, first)
    assert is_quantised(module) and width(module) == (size, 3)
    torch.testing.assert_close(weight_of(module), module.weight * 0.5, atol=1e-5, rtol=0)
    assert matrix_of(module).shape == (size, 3)


def test_a_module_that_is_linear_only_on_one_side_of_zero_has_no_matrix() -> None:
    with pytest.raises(ValueError, match="this Packed is no linear map of what it reads"):
        weight_of(Packed(5, 3, True, torch.relu))


def test_torchs_own_quantised_layers_have_the_numbers_that_they_hold() -> None:
    quantised: Any = torch.ao.quantization
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for dtype in (torch.qint8, torch.float16):
            torch.manual_seed(0)
            plain = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3, bias=False))
            small = quantised.quantize_dynamic(plain, {nn.Linear}, dtype=dtype)
            assert [is_quantised(layer) for layer in small] == [True, True]
            held = small[0].weight()
            exact = held.int_repr() * held.q_scale() if dtype == torch.qint8 else held
            torch.testing.assert_close(weight_of(small[0]), exact, atol=1e-7, rtol=0)
            assert [name for name, _ in weights_of(small)] == ["0.weight", "0.bias", "1.weight"]


def test_the_shape_of_a_packed_layer_is_that_of_its_matrix_and_of_a_bias_its_own() -> None:
    packed = nn.Linear(6, 4)
    packed.weight = nn.Parameter(torch.zeros(12, 1, dtype=torch.uint8), requires_grad=False)
    assert shape_of(packed) == (4, 6) and width(packed) == (6, 4)
    assert shape_of(nn.Linear(6, 4), "bias") == (4,) and shape_of(nn.Identity()) == ()


def test_weights_are_named_once_also_where_two_modules_share_one_and_with_saved_statistics() -> None:
    net = Net()
    names = [name for name, _ in weights_of(net)]
    assert names == [*net.state_dict()]
    pair = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
    assert not is_tied(pair[0], pair[1]) and not is_tied(nn.Identity(), nn.Identity())
    pair[1].weight = pair[0].weight
    assert is_tied(pair[0], pair[1])
    assert [name for name, _ in weights_of(pair)] == ["0.weight", "0.bias", "1.bias"]


def test_a_weight_that_is_computed_of_others_is_read_as_it_is_computed() -> None:
    layer: Any = nn.utils.parametrizations.weight_norm(nn.Linear(5, 4))
    with torch.no_grad():
        layer.parametrizations.weight.original0.mul_(3.0)
    torch.testing.assert_close(weight_of(layer), layer.weight.detach())
    assert not is_quantised(layer)


def test_what_is_no_parameter_is_no_weight() -> None:
    class Says(nn.Module):
        weight, bias = torch.ones(2), True

    assert not has_weight(Says()) and not has_weight(Says(), "bias")
    assert shape_of(Says()) == () and bias_of(nn.Linear(3, 5, bias=False)) is None


class Halves(TwoTensor):
    """Numbers that are kept as two tensors."""

    def dequantize(self, dtype: torch.dtype | None = None) -> Tensor:  # noqa: ARG002
        return self.a + self.b


def test_a_tensor_that_keeps_its_numbers_in_others_is_read_as_its_type_says() -> None:
    a, b = (torch.randn(4, 6, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    layer = nn.Linear(6, 4)
    layer.weight = nn.Parameter(Halves(a, b), requires_grad=False)
    assert is_quantised(layer) and torch.equal(weight_of(layer), a + b)
