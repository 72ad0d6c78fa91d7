"""What a model is called with, and where its components are, is what its class and configuration say."""

import copy
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.tiny_models import tiny_model
from hooks import Model, Tokens, load
from hooks.adapters import Paths, adapter_paths, component_paths
from hooks.devices import find_device
from hooks.forward import accepts, arguments, context, decoder_start, named_outputs, positions
from hooks.load import _picture_for, reads_pictures
from hooks.norms import norm_before
from hooks.processor import Processor
from hooks.towers import has_two_towers

TEXT = {"max_position_embeddings": 8, "pad_token_id": 3}


class Takes:
    """A model that takes positions, and says what it is given to say."""

    def __init__(self, text: dict[str, Any] | None = None, **said: Any) -> None:
        self.config = SimpleNamespace(get_text_config=lambda decoder=False: SimpleNamespace(**(text or {})), **said)

    def forward(self, input_ids: Tensor, position_ids: Tensor, decoder_input_ids: Tensor) -> None: ...


class TakesIds(Takes):
    """The same without positions, and without a decoder."""

    def forward(self, input_ids: Tensor) -> None: ...


def padded(*masks: list[int]) -> Tokens:
    mask = torch.tensor(masks).bool()
    ids = torch.arange(5, 5 + mask.numel()).view(mask.shape)
    return Tokens(ids, mask, ~mask)


def test_positions_are_counted_from_the_first_token_where_any_text_is_padded_on_the_left() -> None:
    hf: Any = Takes()
    mask = padded([0, 0, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]).mask
    found = positions(hf, mask)["position_ids"]
    assert found.tolist() == [[0, 0, 0, 1], [0, 0, 1, 2], [0, 1, 2, 3]]
    assert positions(hf, mask[1:])["position_ids"].tolist() == found[1:].tolist()
    right: Any = padded([1, 1, 0], [1, 1, 1]).mask
    assert positions(hf, right) == {} and positions(hf, mask[2:]) == {}
    plain: Any = TakesIds()
    assert positions(plain, mask) == {} and not accepts(plain, "position_ids")


def test_a_pass_is_asked_for_its_logits_alone_whatever_the_configuration_says(hf_model: Callable[..., Any]) -> None:
    hf, tokens = hf_model("gpt2"), padded([1, 1, 1])
    given = arguments(hf, tokens)
    assert given.pop("input_ids") is tokens.ids and torch.equal(given.pop("attention_mask"), tokens.mask.long())
    assert given == {"use_cache": False}
    hf.config.output_hidden_states = True
    hf.config.return_dict = False
    said = arguments(hf, tokens)
    assert (said["output_hidden_states"], said["return_dict"]) == (False, True) and "output_attentions" not in said
    plain: Any = TakesIds()
    assert arguments(plain, tokens).keys() == {"input_ids"}


def test_a_decoder_is_given_its_own_tokens_and_their_mask_only_where_it_hides_some() -> None:
    hf = tiny_model("bart", "BartForConditionalGeneration")
    text = padded([1, 1, 1], [1, 1, 1])
    for masks, hidden in (([[1, 1], [1, 1]], False), ([[1, 0], [1, 1]], True)):
        own = padded(*masks)
        given = arguments(hf, Tokens(text.ids, text.mask, text.special, decoder=own))
        assert given["decoder_input_ids"] is own.ids and ("decoder_attention_mask" in given) is hidden
        assert not hidden or torch.equal(given["decoder_attention_mask"], own.mask.long())
    start = hf.config.decoder_start_token_id
    moved = arguments(hf, text)["decoder_input_ids"]
    assert moved.tolist() == [[start, *row[:-1]] for row in text.ids.tolist()]


def test_a_class_without_a_decoder_is_given_none_though_its_configuration_speaks_of_one() -> None:
    alone: Any = TakesIds(is_encoder_decoder=True)
    silent: Any = Takes()
    for hf in (alone, silent):
        assert "decoder_input_ids" not in arguments(hf, padded([1, 1]))


def test_the_token_that_a_decoder_begins_with_is_the_first_that_is_said() -> None:
    def start(own: dict[str, Any], top: dict[str, Any], text: dict[str, Any], other: dict[str, Any]) -> int:
        hf: Any = SimpleNamespace(generation_config=SimpleNamespace(**own), config=SimpleNamespace(**top))
        hf.config.get_text_config = lambda decoder=False: SimpleNamespace(**(text if decoder else other))
        return decoder_start(hf)

    name, begin = "decoder_start_token_id", "bos_token_id"
    assert start({name: 7, begin: 1}, {name: 8}, {name: 9}, {}) == 7
    assert start({name: None, begin: 1}, {name: 8}, {name: 9}, {}) == 8
    assert start({begin: 1}, {}, {name: 9}, {name: 2}) == 9
    assert start({begin: None}, {begin: 5}, {begin: 6}, {}) == 5
    assert start({}, {}, {}, {name: 4}) == 0


def test_parts_name_their_outputs_inside_the_block_and_the_configuration_is_as_it_was_after_it() -> None:
    text = SimpleNamespace(return_dict=False)
    hf: Any = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: text))
    with named_outputs(hf):
        assert text.return_dict is True
    assert text.return_dict is False and not hasattr(hf.config, "return_dict")


@pytest.mark.parametrize(("limit", "wanted"), [(8, 8), (1, 1), (0, None), (-1, None), (None, None), ("many", None)])
def test_a_context_is_what_the_configuration_of_the_text_says(limit: Any, wanted: int | None) -> None:
    hf: Any = Takes({"max_position_embeddings": limit, "pad_token_id": 3})
    assert context(hf) == wanted
    assert context(Takes({"pad_token_id": 3})) is None  # pyright: ignore[reportArgumentType]


def test_components_are_where_an_adapter_says_and_nowhere_without_one(hf_model: Callable[..., Any]) -> None:
    import transformers

    neox, gpt2 = component_paths(hf_model("gpt_neox")), component_paths(hf_model("gpt2"))
    assert neox.parallel and not gpt2.parallel and not gpt2.norms_last and not gpt2.norms_after
    assert gpt2.block["attn.o"] == "attn.c_proj" and gpt2.top["blocks"] == "transformer.h"
    assert gpt2.final_norm == "transformer.ln_f"
    rows = neox.qkv_rows
    assert rows is not None  # head by head: its 8 queries, its 8 keys, its 8 values
    for at, name in enumerate("qkv"):
        assert rows[name].tolist() == [24 * head + 8 * at + i for head in range(4) for i in range(8)]
    bare = component_paths(transformers.GPT2Model(hf_model("gpt2").config))
    assert bare.block == gpt2.block and bare.top["blocks"] == "h"
    assert component_paths(hf_model("bert")).norms_after
    opt = transformers.OPTConfig(hidden_size=8, num_attention_heads=2, ffn_dim=8, num_hidden_layers=1, vocab_size=9)
    for before in (True, False):
        opt.do_layer_norm_before = before
        assert component_paths(transformers.OPTForCausalLM(copy.deepcopy(opt))).norms_after is not before
    nobody: Any = object()
    nothing = Paths({}, None, {}, parallel=False, norms_last=False, norms_after=False, qkv_rows=None)
    assert adapter_paths(nobody) == nothing


@pytest.mark.parametrize(
    ("said", "processor", "shape"),
    [
        ({"image_size": 16, "num_channels": 1}, Processor(9), (1, 1, 16, 16)),
        ({"image_size": (8, 12)}, None, (1, 3, 8, 12)),
        ({"image_size": None}, Processor(9, crop=(6, 4)), (1, 3, 6, 4)),
        ({}, Processor((10, 11)), (1, 3, 10, 11)),
        ({}, Processor(10), (1, 3, 10, 10)),
        ({}, Processor(), (1, 3, 224, 224)),
        ({}, None, (1, 3, 224, 224)),
    ],
)
def test_an_example_of_a_picture_has_the_size_that_the_model_reads(
    said: dict[str, Any], processor: Processor | None, shape: tuple[int, ...]
) -> None:
    hf: Any = torch.nn.Linear(1, 1)
    hf.config = SimpleNamespace(**said)
    made: Any = _picture_for(hf, processor)
    assert tuple(made["pixel_values"].shape) == shape and made.keys() == {"pixel_values"}


def test_one_tower_of_a_clip_is_no_clip_of_two() -> None:
    from transformers import CLIPVisionModelWithProjection

    from tests.hooks.test_pictures import clip

    whole = clip()
    one = CLIPVisionModelWithProjection(whole.config.vision_config)
    assert has_two_towers(whole) and reads_pictures(whole)
    assert not has_two_towers(one) and reads_pictures(one)


def test_what_a_model_has_none_of_is_counted_as_none(gpt2: Model) -> None:
    mamba = load(tiny_model("mamba", "MambaForCausalLM"), check=False)
    assert isinstance(mamba, Model)
    assert (mamba.n_heads, mamba.d_head, mamba.d_mlp) == (0, 0, 0) and mamba.d_model == 32
    assert find_device("cpu") == gpt2.device


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "bert", "olmo2"])
def test_the_norm_that_an_adapter_names_is_the_one_that_tracing_finds(
    hf_model: Callable[..., Any], family: str
) -> None:
    model = load(hf_model(family), check=False)
    blind = copy.copy(model)
    main = tuple(
        replace(block, part={name: one for name, one in block.part.items() if not name.endswith(".norm")})
        for block in model.structure.main
    )
    blind.structure = replace(model.structure, main=main)
    for layer in range(3):
        for part in ("attn", "mlp"):
            found = norm_before(model, layer, part)
            assert norm_before(blind, layer, part) is found
            assert (found is None) is (family in ("bert", "olmo2"))


def test_parts_of_a_block_are_those_found_and_named_unless_it_is_of_another_stack_or_runs_twice(
    hf_model: Callable[..., Any],
) -> None:
    model = load(hf_model("gpt2"), check=False)
    block = model.structure.main[1]
    named = model.parts(1)
    assert set(block.part) < set(named) and named["attn.qkv"] is model.hf.transformer.h[1].attn.c_attn
    for other in (replace(block, stack="decoder"), replace(block, repeated=True)):
        assert model.parts(other) == block.part
