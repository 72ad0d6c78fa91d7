"""Stacks of blocks, where a model keeps them in no one list, or hands more than a stream from block to block."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from benchmarks.tiny_models import VOCAB, tiny_model
from hooks import Model, Site, capture, intervene, load
from hooks.contract.ends import end_laws
from hooks.errors import InvalidArgument
from hooks.forward import arguments
from hooks.interventions import replace, zero
from hooks.position import everywhere
from hooks.site import attn_out, decoder, encoder, mixer_out, mlp_in, mlp_out, q, resid_mid, resid_post, resid_pre
from tests.hooks.tracing.planted import IDS, Attention, D, FeedForward, planted

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def ids() -> Tensor:
    return torch.randint(6, VOCAB, (1, 9), generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def xlm() -> Model:
    return load(tiny_model("xlm", "XLMWithLMHeadModel"))


def test_lists_next_to_each_other_whose_items_run_in_turn_are_blocks(xlm: Model, ids: Tensor) -> None:
    with torch.no_grad():
        theirs = xlm.hf(input_ids=ids, output_hidden_states=True).hidden_states
    ours = capture(xlm, ids, ["resid_pre.*", "resid_post.*"])
    for layer in range(xlm.n_layers):
        torch.testing.assert_close(ours[resid_pre[layer]], theirs[layer])
        torch.testing.assert_close(ours[resid_post[layer]], theirs[layer + 1])


def test_what_is_written_before_such_a_block_is_read_by_all_of_it(xlm: Model, ids: Tensor) -> None:
    """The block adds attention to the stream itself, so that a change must reach the sum as well."""
    value = torch.randn(xlm.d_model, generator=torch.Generator().manual_seed(4))
    with intervene(xlm, {resid_pre[1]: replace(value, at=everywhere)}):
        ours = xlm.run(ids)
    before = xlm.hf.transformer.layer_norm2[0].register_forward_hook(lambda _m, _a, out: value.expand_as(out).clone())
    with torch.no_grad():
        theirs = xlm.hf(input_ids=ids).logits
    before.remove()
    torch.testing.assert_close(ours, theirs)


def test_what_a_router_hands_from_block_to_block_is_no_stream(ids: Tensor) -> None:
    zaya = load(tiny_model("zaya", "ZayaForCausalLM"))
    with torch.no_grad():
        theirs = zaya.hf(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
    torch.testing.assert_close(capture(zaya, ids, resid_pre[1])[resid_pre[1]], theirs[1])
    assert {attn_out[0], mlp_out[0], resid_post[1]} <= set(zaya.sites)


@pytest.mark.parametrize(
    ("kind", "name"),
    [("rwkv", "RwkvForCausalLM"), ("inkling_text", "InklingForCausalLM"), ("inkling2_text", "Inkling2ForCausalLM")],
)
def test_a_part_that_reaches_a_few_tokens_next_to_one_that_reaches_all_is_the_feed_forward(
    kind: str, name: str
) -> None:
    """RWKV's reads the token before too; Inkling's is followed by a convolution; Inkling-2's first drops its stream."""
    model = load(tiny_model(kind, name))
    assert {mixer_out[0], mlp_out[0], mixer_out[1], mlp_out[1]} <= set(model.sites)


def test_the_last_stream_is_vouched_for_by_what_reads_it_where_the_way_to_the_logits_is_longer() -> None:
    model = load(tiny_model("hy_v4", "HYV4ForCausalLM"))
    assert model.contract is not None
    law = next(check for check in model.contract.checks if check.law == "stream is read")
    assert law.holds
    assert resid_post[1] in model.sites


def test_the_last_stream_is_vouched_for_by_what_reads_it_where_logits_are_not_read() -> None:
    model = load(tiny_model("hy_v4", "HYV4ForCausalLM"))
    text = model.tokens(torch.arange(6, 15)[None])
    acts = capture(model, text, [resid_pre[0], resid_post[0], resid_pre[1], resid_post[1]])
    law = next(check for check in end_laws(model, acts.values, text) if check.law == "stream is read")
    assert law.holds and law.sites[0] == resid_post[1]


ODD = [
    ("cpmant", "CpmAntForCausalLM", "43 places where the text has 11 tokens"),
    ("prophetnet", "ProphetNetForCausalLM", "33 places where the text has 11 tokens"),
    ("perceiver", "PerceiverForMaskedLM", "256 places where the text has 11 tokens"),
    ("gemma3n_text", "Gemma3nForCausalLM", r"4 streams at once \[4 batch pos d\]"),
    ("reformer", "ReformerModelWithLMHead", "two streams at once"),
    ("squeezebert", "SqueezeBertForMaskedLM", "run by their forward alone, not called"),
]


@pytest.mark.parametrize(("kind", "name", "why"), ODD, ids=[kind for kind, *_ in ODD])
def test_a_model_without_a_stream_of_tokens_is_refused_with_what_its_blocks_pass_on(
    kind: str, name: str, why: str
) -> None:
    with pytest.raises(InvalidArgument, match=why):
        load(tiny_model(kind, name))


@pytest.mark.parametrize(
    ("kind", "name", "site", "why"),
    [
        ("deepseek_v4", "DeepseekV4ForCausalLM", "attn_out", "its stream is 4 copies, mixed by weights"),
        ("hy_v4", "HYV4ForCausalLM", "resid_mid", "its stream is 4 copies, mixed by weights"),
        ("longcat_flash", "LongcatFlashForCausalLM", "attn_out", r"adds 2 such parts.*self_attn\.0\.o_proj"),
        ("longcat_flash", "LongcatFlashForCausalLM", "resid_mid", "no stage of its stream"),
        ("gptj", "GPTJForCausalLM", "resid_mid", "in parallel"),
    ],
)
def test_what_a_block_adds_in_no_one_place_is_absent_with_the_reason(
    kind: str, name: str, site: str, why: str, ids: Tensor
) -> None:
    with pytest.raises(InvalidArgument, match=why):
        capture(load(tiny_model(kind, name)), ids, Site(site, 0))


@torch.no_grad()
def test_the_embedding_of_an_encoder_decoder_is_that_of_the_table_that_runs(ids: Tensor) -> None:
    """T5 and BART say that `shared` is their table, which no pass runs: the encoder's has its weight."""
    model = load(tiny_model("t5", "T5ForConditionalGeneration"))
    table = model.hf.get_input_embeddings()
    acts = capture(model, ids, [Site("embed"), decoder.resid_pre[0]])
    torch.testing.assert_close(acts[Site("embed")], table(ids))
    with intervene(model, {Site("embed"): zero()}):
        changed = capture(model, ids, [encoder.resid_pre[0], decoder.resid_pre[0]])
    assert not changed[encoder.resid_pre[0]].any()
    assert torch.equal(changed[decoder.resid_pre[0]], acts[decoder.resid_pre[0]])


@torch.no_grad()
@pytest.mark.parametrize(("kind", "name"), [("ctrl", "CTRLLMHeadModel"), ("xlnet", "XLNetLMHeadModel")])
def test_a_table_whose_rows_are_scaled_in_place_or_come_pos_first_is_read_as_it_is(
    kind: str, name: str, ids: Tensor
) -> None:
    model = load(tiny_model(kind, name))
    torch.testing.assert_close(capture(model, ids, Site("embed"))[Site("embed")], model.hf.get_input_embeddings()(ids))


@torch.no_grad()
def test_logits_have_the_width_of_a_head_that_is_a_table(ids: Tensor) -> None:
    model = load(tiny_model("fsmt", "FSMTForConditionalGeneration"))
    assert model.contract is not None
    assert not model.contract.refused
    text = model.tokens(ids)
    theirs = model.hf(**arguments(model.hf, text)).logits
    torch.testing.assert_close(capture(model, ids, Site("logits"))[Site("logits")], theirs)


@pytest.mark.parametrize(
    ("kind", "name", "site"),
    [
        ("doge", "DogeForCausalLM", mlp_in[1]),
        ("minimax", "MiniMaxForCausalLM", mlp_in[0]),
        ("minimax", "MiniMaxForCausalLM", q[0]),
    ],
)
def test_a_part_that_reads_another_stage_than_most_is_vouched_for_by_what_tracing_saw(
    kind: str, name: str, site: Site
) -> None:
    assert site in load(tiny_model(kind, name)).sites


class Kept(nn.Module):
    """A block that adds to its stream, or one that gives something else instead."""

    def __init__(self, keeps: bool) -> None:
        super().__init__()
        self.keeps, self.attn, self.mlp = keeps, Attention(), FeedForward()

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        mixed = self.attn(x, seen)
        if not self.keeps:
            return self.mlp(torch.tanh(mixed))
        return x + mixed + self.mlp(x + mixed)


@pytest.mark.parametrize(
    ("keeps", "between"),
    [
        ([True], None),
        ([False, False], None),
        ([True, False], None),
        ([True, True], torch.tanh),
        ([True, False], torch.tanh),
        ([False, True], torch.tanh),
        ([False], None),
        ([False, False], torch.tanh),
    ],
)
def test_modules_are_blocks_where_each_reads_what_the_one_before_gave_or_one_adds_to_its_stream(
    keeps: list[bool], between: Callable[[Tensor], Tensor] | None
) -> None:
    hf = planted(lambda layer: Kept(keeps[layer]), len(keeps), lambda x, _: x if between is None else between(x))
    if not any(keeps) and (len(keeps) == 1 or between is not None):
        with pytest.raises(InvalidArgument, match="no list of its modules passes a stream"):
            load(hf)
        return
    model, streams = load(hf), list[tuple[Tensor, Tensor]]()
    for block in hf.blocks:
        block.register_forward_hook(lambda _m, args, output: streams.append((args[0], output)))
    read = [site for site in model.sites if site.name in ("resid_pre", "resid_post")]
    acts = capture(model, IDS, read)
    for site in read:
        assert site.layer is not None
        assert torch.equal(acts[site], streams[site.layer][site.name == "resid_post"])


def test_a_stage_of_the_stream_that_a_block_computes_twice_is_one_stage() -> None:
    """`Kept` adds attention once for its feed-forward layer and once for its sum: its middle is in two places."""
    model = load(planted(lambda _: Kept(keeps=True)))
    assert model.contract is not None
    assert model.contract.holds, model.contract
    assert resid_mid[1] not in model.sites
    block, given = model.hf.blocks[1], list[Tensor]()
    block.mlp.register_forward_hook(lambda _m, args, output: given.extend((args[0], output)))
    with torch.no_grad():
        model.hf(IDS)
    acts = capture(model, IDS, [mlp_in[1], mlp_out[1]])
    assert torch.equal(acts[mlp_in[1]], given[0])
    assert torch.equal(acts[mlp_out[1]], given[1])
    with pytest.raises(InvalidArgument, match="its block computes that stream more than once"):
        capture(model, IDS, resid_mid[1])


class Convolved(nn.Module):
    """A convolution over a token and the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(D, D, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(nn.functional.pad(x.mT, (1, 0))).mT


class Averaged(nn.Module):
    """The mean of a token and all before it: no kernel, no softmax."""

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        return x.cumsum(dim=1) / torch.arange(1, len(seen[0, 0]) + 1)[:, None]


class Shifted(nn.Module):
    """Attention, and a convolution of the stream, or of what another mixer makes of it."""

    def __init__(self, late: nn.Module | None) -> None:
        super().__init__()
        self.attn, self.late, self.conv = Attention(), late, Convolved()

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        x = x + self.attn(x, seen)
        return x + self.conv(x if self.late is None else self.late(x, seen))


@pytest.mark.parametrize("late", [None, Attention, Averaged])
def test_a_short_convolution_of_what_mixes_tokens_mixes_them_and_one_alone_is_the_feed_forward(
    late: type[nn.Module] | None,
) -> None:
    model = load(planted(lambda _: Shifted(None if late is None else late())))
    assert [one.name for one in model.structure.blocks[0].sublayers] == [
        "attn_out", "mlp_out" if late is None else "mixer_out"
    ]  # fmt: skip


class Parallel(nn.Module):
    """Attention and feed-forward layer read one stream."""

    def __init__(self) -> None:
        super().__init__()
        self.attn, self.mlp = Attention(), FeedForward()

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        return x + self.attn(x, seen) + self.mlp(x)


def test_why_a_block_has_no_middle_is_said_of_that_block() -> None:
    model = load(planted(lambda layer: Kept(keeps=True) if layer else Parallel()))
    with pytest.raises(InvalidArgument, match="in parallel"):
        capture(model, IDS, resid_mid[0])
    with pytest.raises(InvalidArgument, match="more than once"):
        capture(model, IDS, resid_mid[1])


def test_blocks_that_add_nothing_to_their_stream_are_blocks_only_where_every_one_reads_what_the_one_before_gave() -> (
    None
):
    load(planted(lambda _: Kept(keeps=False), 3))
    with pytest.raises(InvalidArgument, match="no list of its modules passes a stream"):
        load(planted(lambda _: Kept(keeps=False), 3, lambda x, layer: torch.tanh(x) if layer == 2 else x))


class Scaled(nn.Module):
    """What a sublayer gives is multiplied by a number for each feature, kept with the axes of the stream."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.attn, self.mlp = nn.Parameter(torch.ones(1, 1, D)), Attention(), FeedForward()

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        x = x + self.scale * self.attn(x, seen)
        return x + self.mlp(x) * self.scale


def test_a_factor_for_each_feature_with_the_axes_of_the_stream_is_part_of_what_is_added() -> None:
    model = load(planted(lambda _: Scaled()))
    assert model.contract is not None
    assert model.contract.holds, model.contract
    block, made = model.hf.blocks[1], list[Tensor]()
    block.attn.register_forward_hook(lambda _m, _a, output: made.append(output * block.scale))
    block.mlp.register_forward_hook(lambda _m, _a, output: made.append(output * block.scale))
    with torch.no_grad():
        model.hf(IDS)
    acts = capture(model, IDS, [attn_out[1], mlp_out[1]])
    for site, wanted in zip((attn_out[1], mlp_out[1]), made[:2], strict=True):
        torch.testing.assert_close(acts[site], wanted)
