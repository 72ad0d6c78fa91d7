"""Where sites are: what an adapter says and what tracing finds, apart from each other, agree; each alone is enough."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from benchmarks.tiny_models import tiny_model
from hooks.adapters import Paths, adapter_paths
from hooks.errors import InvalidArgument
from hooks.layout import blocks, find_paths, gate_up_rows, parts, taps
from hooks.site import Site
from hooks.structure import find_structure
from hooks.taps import Tap
from tests.hooks.tracing.planted import VOCAB, Attention, D, FeedForward, planted

pytestmark = pytest.mark.filterwarnings("ignore")
BOTH = {
    "llama": "LlamaForCausalLM",
    "gpt2": "GPT2LMHeadModel",
    "gpt_neox": "GPTNeoXForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "granite": "GraniteForCausalLM",
    "falcon": "FalconForCausalLM",
    "opt": "OPTForCausalLM",
    "olmo2": "Olmo2ForCausalLM",
}


def placed(tap: Tap) -> tuple[object, ...]:
    """All that a tap says of where its site is."""
    view, rows = tap.view, None if tap.view.rows is None else tap.view.rows.tolist()
    return tap.module, tap.side, tap.shape, tap.part, tap.alias, tap.axes, tap.call, view.heads, view.factor, rows


@pytest.mark.parametrize("kind", BOTH)
def test_what_an_adapter_says_is_what_tracing_finds(kind: str) -> None:
    hf = tiny_model(kind, BOTH[kind])
    said, structure = adapter_paths(hf), find_structure(hf)
    guessed, traced = taps(hf, said), taps(hf, said, structure)
    assert {*guessed} == {*traced}
    for site, tap in guessed.items():
        assert placed(tap) == placed(traced[site]), site
        assert tap.view.rows is None or tap.view.rows.dtype == torch.int64
    assert (Site("pos_embed") in traced) == ("pos_embed" in said.top)
    assert traced[Site("embed")].module is hf.get_input_embeddings()
    assert traced[Site("embed")].shape == (hf.config.hidden_size,)
    assert traced[Site("logits")].shape == (hf.config.vocab_size,)
    assert traced[Site("ln_final_scale")].shape == (1,)


@pytest.mark.parametrize("kind", BOTH)
def test_without_an_adapter_the_rest_is_where_it_was(kind: str) -> None:
    """An adapter alone knows the embedding of places, and which rows of a joint projection are what."""
    hf = tiny_model(kind, BOTH[kind])
    said, structure = adapter_paths(hf), find_structure(hf)
    alone = find_paths(replace(said, top={}), structure, hf)
    assert find_paths(said, structure, hf) is said
    assert (alone.top, alone.block, alone.qkv_rows) == ({"blocks": said.top["blocks"]}, {}, None)
    assert (alone.final_norm, alone.parallel) == (said.final_norm, said.parallel)
    assert (alone.norms_last, alone.norms_after) == (False, False)
    with_it, without = taps(hf, said, structure), taps(hf, alone, structure)
    joint = {"q", "k", "v"} if said.qkv_rows else set[str]()
    lost = {site.name for site in with_it if site not in without}
    assert lost == joint | ({"pos_embed"} & {*said.top}) | ({"mlp_pre"} if kind == "phi3" else set[str]())
    assert {*without} <= {*with_it}
    for site, tap in without.items():
        assert placed(tap) == placed(with_it[site]), site


def test_the_sites_of_an_encoder_and_a_decoder_are_named_after_them_and_their_embedding_is_the_table_that_runs() -> (
    None
):
    hf = tiny_model("t5", "T5ForConditionalGeneration")
    structure = find_structure(hf)
    found = taps(hf, find_paths(adapter_paths(hf), structure, hf), structure)
    assert {site.stack for site in found if site.layer is not None} == {"encoder", "decoder"}
    assert found[Site("embed")].module is hf.encoder.embed_tokens


def test_the_parts_of_a_block_of_experts_are_no_parts_of_one_layer() -> None:
    hf = tiny_model("mixtral", "MixtralForCausalLM")
    said = adapter_paths(hf)
    found = parts(blocks(hf, said)[0], said)
    assert found["mlp"] is hf.model.layers[0].mlp and found["attn.o"] is hf.model.layers[0].self_attn.o_proj
    assert not [name for name in found if name.startswith("mlp.")]


class Normed(nn.Module):
    """Its stream is normalised after each addition."""

    def __init__(self) -> None:
        super().__init__()
        self.attn, self.mlp, self.one, self.two = Attention(), FeedForward(), nn.LayerNorm(D), nn.LayerNorm(D)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        x = self.one(x + self.attn(x, seen))
        return self.two(x + self.mlp(x))


class Parallel(nn.Module):
    """Attention and feed-forward layer read one stream."""

    def __init__(self) -> None:
        super().__init__()
        self.attn, self.mlp = Attention(), FeedForward()

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        return x + (self.attn(x, seen) + self.mlp(x))


NOTHING = Paths({}, None, {}, parallel=False, norms_last=False, norms_after=False, qkv_rows=None)


@pytest.mark.parametrize(
    ("kinds", "parallel", "after"),
    [
        ([Parallel, Parallel, Parallel], True, False),
        ([Parallel, Normed], False, False),
        ([Normed, Parallel], False, True),
        ([Normed], False, True),
    ],
)
def test_blocks_are_parallel_where_none_has_a_middle_and_their_norms_come_after_where_the_firsts_do(
    kinds: list[type[nn.Module]], parallel: bool, after: bool
) -> None:
    hf = planted(lambda layer: kinds[layer](), len(kinds))
    found = find_paths(NOTHING, find_structure(hf), hf)
    assert (found.parallel, found.norms_after, found.norms_last) == (parallel, after, False)
    assert (dict(found.top), found.final_norm) == ({"blocks": "blocks"}, "norm")


def test_what_has_no_weight_is_no_embedding_and_has_no_scale() -> None:
    hf = planted(lambda _: Parallel())
    hf.idle = nn.Identity()
    for path, there in (("embed", True), ("idle", False), ("nowhere", False)):
        found = taps(hf, replace(NOTHING, top={"pos_embed": path}, final_norm="norm" if there else path))
        assert (Site("pos_embed") in found) == (Site("ln_final_scale") in found) == there
        assert Site("embed") in found


def test_a_head_that_is_a_table_has_a_logit_for_each_of_its_rows() -> None:
    hf = planted(lambda _: Parallel())
    hf.add_module("head", nn.Embedding(VOCAB + 1, D))
    assert taps(hf, NOTHING)[Site("logits")].shape == (VOCAB + 1,)
    hf.add_module("head", nn.Linear(D, VOCAB + 2))
    assert taps(hf, NOTHING)[Site("logits")].shape == (VOCAB + 2,)


def test_the_gate_is_the_first_half_of_a_joint_projection() -> None:
    gate, up = gate_up_rows(nn.Linear(2, 6))
    assert (gate.tolist(), up.tolist()) == ([0, 1, 2], [3, 4, 5])


def test_a_path_that_holds_no_list_is_no_list_of_blocks() -> None:
    hf = planted(lambda _: Parallel())
    assert blocks(hf, replace(NOTHING, top={"blocks": "blocks"})) is hf.blocks
    with pytest.raises(InvalidArgument, match="Planted has no list of blocks at 'norm'"):
        blocks(hf, replace(NOTHING, top={"blocks": "norm"}))
