"""Sites inside mixtures of experts, against the experts' weights and against plain edits of them."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.tiny_models import VOCAB, tiny_config, tiny_model
from hooks import Model, capture, intervene, load
from hooks.errors import InvalidArgument, UnknownSite, WrongState
from hooks.generate import decode
from hooks.gradients import capture_gradients
from hooks.interventions import add, replace, scale, zero
from hooks.position import everywhere, index
from hooks.site import (
    Site,
    expert_act,
    expert_choice,
    expert_out,
    expert_weights,
    mlp_in,
    mlp_out,
    router_logits,
    shared_out,
)
from tests.hooks.tracing.planted import IDS, Attention, D, planted

pytestmark = pytest.mark.filterwarnings("ignore")
FAMILIES = {
    "mixtral": "MixtralForCausalLM",
    "qwen2_moe": "Qwen2MoeForCausalLM",
    "olmoe": "OlmoeForCausalLM",
    "gpt_oss": "GptOssForCausalLM",
    "deepseek_v3": "DeepseekV3ForCausalLM",
}
LAYER = 1


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> Model:
    return load(tiny_model(request.param, FAMILIES[request.param]))


@pytest.fixture(scope="module")
def mixtral() -> Model:
    return load(tiny_model("mixtral", "MixtralForCausalLM"))


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(6, VOCAB, (1, 9), generator=torch.Generator().manual_seed(5))


def experts_of(hf: Any) -> Any:
    return hf.model.layers[LAYER].mlp.experts


def by_hand(experts: Any, x: Tensor, expert: int) -> tuple[Tensor, Tensor]:
    """What an expert's output projection reads and gives, from the packed weights."""
    if hasattr(experts, "gate_up_proj_bias"):  # gpt-oss
        act = experts._apply_gate(x @ experts.gate_up_proj[expert] + experts.gate_up_proj_bias[expert])
        return act, act @ experts.down_proj[expert] + experts.down_proj_bias[expert]
    gate, up = (x @ experts.gate_up_proj[expert].T).chunk(2, dim=-1)
    act = nn.functional.silu(gate) * up
    return act, act @ experts.down_proj[expert].T


def test_every_family_keeps_every_law_of_its_experts(model: Model) -> None:
    assert model.contract is not None
    laws = [check for check in model.contract.checks if check.law in ("experts add", "choice follows")]
    assert {check.law for check in laws} == {"experts add", "choice follows"}
    assert all(check.holds for check in laws)
    names = {"router_logits", "expert_choice", "expert_weights", "expert_act", "expert_out"}
    assert names <= {site.name for site in model.sites}


@torch.no_grad()
def test_what_experts_read_and_give_is_what_their_weights_say(model: Model, ids: Tensor) -> None:
    sites = [mlp_in[LAYER], expert_choice[LAYER], expert_act[LAYER], expert_out[LAYER]]
    acts, experts = capture(model, ids, sites), experts_of(model.hf)
    x, choice = acts[mlp_in[LAYER]][0], acts[expert_choice[LAYER]][0].long()
    for token in range(len(x)):
        for k, expert in enumerate(choice[token].tolist()):
            act, out = by_hand(experts, x[token], expert)
            torch.testing.assert_close(acts[expert_act[LAYER]][0, token, k], act)
            torch.testing.assert_close(acts[expert_out[LAYER]][0, token, k], out)


@torch.no_grad()
def test_the_weighted_sum_of_experts_and_the_shared_one_is_what_the_block_adds(model: Model, ids: Tensor) -> None:
    shared = [shared_out[LAYER]] if shared_out[LAYER] in model.sites else []
    acts = capture(model, ids, [expert_weights[LAYER], expert_out[LAYER], mlp_out[LAYER], *shared])
    made = (acts[expert_weights[LAYER]][..., None] * acts[expert_out[LAYER]]).sum(dim=2)
    torch.testing.assert_close(acts[mlp_out[LAYER]], made + (acts[shared[0]] if shared else 0))


@torch.no_grad()
def test_logits_choice_and_weights_are_the_routers(model: Model, ids: Tensor) -> None:
    mlp = model.hf.model.layers[LAYER].mlp
    router, given = mlp.router if hasattr(mlp, "router") else mlp.gate, []
    handle = router.register_forward_hook(lambda _m, _a, output: given.append(output))
    acts = capture(model, ids, [router_logits[LAYER], expert_weights[LAYER], expert_choice[LAYER]])
    handle.remove()
    for site, theirs in zip((router_logits, expert_weights, expert_choice), given[0], strict=True):
        torch.testing.assert_close(acts[site[LAYER]][0], theirs.reshape(acts[site[LAYER]].shape[1:]).float())


def edited(model: Model, change: Callable[[Any], None], ids: Tensor) -> Tensor:
    """The logits of a copy of the model with other weights."""
    hf = deepcopy(model.hf)
    with torch.no_grad():
        change(experts_of(hf))
        return hf(input_ids=ids).logits


def some_expert(model: Model, ids: Tensor) -> int:
    return int(capture(model, ids, expert_choice[LAYER])[expert_choice[LAYER]].mode(dim=1).values[0, 0])


def test_one_expert_ablated_is_one_whose_output_weights_are_zero(model: Model, ids: Tensor) -> None:
    expert = some_expert(model, ids)

    def without(experts: Any) -> None:
        experts.down_proj[expert].zero_()
        if hasattr(experts, "down_proj_bias"):
            experts.down_proj_bias[expert].zero_()

    with torch.no_grad(), intervene(model, {expert_out[LAYER, expert]: zero()}):
        ours = model.run(ids)
    torch.testing.assert_close(ours, edited(model, without, ids), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(ours, model.run(ids), atol=1e-3)


def test_one_experts_memories_doubled_are_output_weights_doubled(mixtral: Model, ids: Tensor) -> None:
    expert = some_expert(mixtral, ids)
    with torch.no_grad(), intervene(mixtral, {expert_act[LAYER, expert]: scale(2.0)}):
        ours = mixtral.run(ids)
    torch.testing.assert_close(
        ours, edited(mixtral, lambda experts: experts.down_proj[expert].mul_(2), ids), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("expert", [0, 3])
def test_an_expert_whose_logit_is_raised_above_all_is_chosen_at_every_token(
    model: Model, ids: Tensor, expert: int
) -> None:
    raised = torch.zeros(model.tap(router_logits[LAYER]).shape[0])
    raised[expert] = 100.0
    clean = model.run(ids)
    with torch.no_grad(), intervene(model, {router_logits[LAYER]: add(raised)}):
        choice = capture(model, ids, expert_choice[LAYER])[expert_choice[LAYER]]
        steered = model.run(ids)
    assert bool((choice == expert).any(dim=-1).all())
    assert not torch.allclose(clean, steered, atol=1e-4)


@torch.no_grad()
def test_weights_follow_edited_logits_as_the_softmax_of_the_highest_says(mixtral: Model, ids: Tensor) -> None:
    value = torch.tensor([3.0, -1.0, 2.0, 0.5])
    with intervene(mixtral, {router_logits[LAYER]: replace(value, at=everywhere)}):
        acts = capture(mixtral, ids, [expert_weights[LAYER], expert_choice[LAYER]])
    assert acts[expert_choice[LAYER]].unique(dim=1).squeeze().tolist() == [0, 2]
    wanted = value[[0, 2]].softmax(dim=0).expand(1, 9, 2)
    torch.testing.assert_close(acts[expert_weights[LAYER]], wanted)


@torch.no_grad()
def test_a_choice_that_is_written_is_the_one_that_runs(mixtral: Model, ids: Tensor) -> None:
    with intervene(mixtral, {expert_choice[LAYER]: replace(torch.tensor([1.0, 2.0]), at=everywhere)}):
        acts = capture(mixtral, ids, [mlp_in[LAYER], expert_weights[LAYER], mlp_out[LAYER]])
    both = [by_hand(experts_of(mixtral.hf), acts[mlp_in[LAYER]], expert)[1] for expert in (1, 2)]
    made = (acts[expert_weights[LAYER]][..., None] * torch.stack(both, dim=2)).sum(dim=2)
    torch.testing.assert_close(acts[mlp_out[LAYER]], made)


def test_tokens_that_are_not_written_keep_every_bit(mixtral: Model, ids: Tensor) -> None:
    clean = capture(mixtral, ids, mlp_out[LAYER])[mlp_out[LAYER]]
    for site in (expert_act[LAYER], expert_out[LAYER], expert_weights[LAYER]):
        with torch.no_grad(), intervene(mixtral, {site: scale(3.0, at=index(4))}):
            moved = capture(mixtral, ids, mlp_out[LAYER])[mlp_out[LAYER]] != clean
        assert moved.any(dim=-1).nonzero().tolist() == [[0, 4]]


@torch.no_grad()
def test_memories_and_outputs_written_together_act_one_after_the_other(mixtral: Model, ids: Tensor) -> None:
    with intervene(mixtral, {expert_act[LAYER]: scale(2.0), expert_out[LAYER]: scale(0.5)}):
        both = mixtral.run(ids)
    torch.testing.assert_close(both, mixtral.run(ids), rtol=1e-4, atol=1e-5)


def test_the_gradient_of_what_experts_give_is_their_weight_times_that_of_the_sum(mixtral: Model, ids: Tensor) -> None:
    found = capture_gradients(
        mixtral, ids, [expert_weights[LAYER], expert_out[LAYER], mlp_out[LAYER]], lambda logits: logits[0, -1, 7]
    )
    weights, slope = found.activations[expert_weights[LAYER]], found.gradients[mlp_out[LAYER]]
    torch.testing.assert_close(found.gradients[expert_out[LAYER]], weights[..., None] * slope[:, :, None])


def test_the_choice_has_no_gradient_and_says_so(mixtral: Model, ids: Tensor) -> None:
    with pytest.raises(InvalidArgument, match="which experts are chosen"):
        capture_gradients(mixtral, ids, [expert_choice[LAYER]], lambda logits: logits[0, -1, 7])


class Looped(nn.ModuleList):
    """Experts as modules of their own, called one after the other."""

    def __init__(self, packed: Any) -> None:
        super().__init__(self._one(packed, expert) for expert in range(packed.num_experts))

    @staticmethod
    def _one(packed: Any, expert: int) -> nn.Module:
        config = deepcopy(packed.config)
        from transformers.models.llama.modeling_llama import LlamaMLP

        config.mlp_bias = False
        one = LlamaMLP(config)
        gate, up = packed.gate_up_proj[expert].chunk(2)
        for projection, weight in ((one.gate_proj, gate), (one.up_proj, up), (one.down_proj, packed.down_proj[expert])):
            projection.weight = nn.Parameter(weight.detach().clone())
        return one

    def forward(self, x: Tensor, choice: Tensor, weights: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        for expert, module in enumerate(self):
            token, k = torch.where(choice == expert)
            total.index_add_(0, token, module(x[token]) * weights[token, k, None])
        return total


def test_experts_that_are_modules_in_a_loop_have_the_sites_of_packed_ones(mixtral: Model, ids: Tensor) -> None:
    hf = deepcopy(mixtral.hf)
    for layer in hf.model.layers:
        layer.mlp.experts = Looped(layer.mlp.experts)
    looped = load(hf)
    sites = [site for site in mixtral.sites if site.name.startswith(("expert", "router"))]
    assert set(sites) <= set(looped.sites)
    ours, theirs = capture(looped, ids, sites), capture(mixtral, ids, sites)
    for site in sites:
        torch.testing.assert_close(ours[site], theirs[site])
    with torch.no_grad(), intervene(looped, {expert_act[LAYER, 0]: scale(2.0)}):
        one = looped.run(ids)
    with torch.no_grad(), intervene(mixtral, {expert_act[LAYER, 0]: scale(2.0)}):
        torch.testing.assert_close(one, mixtral.run(ids), rtol=1e-4, atol=1e-5)


def test_an_expert_is_zero_where_it_does_not_run_and_what_it_gives_elsewhere(mixtral: Model, ids: Tensor) -> None:
    acts = capture(mixtral, ids, [expert_choice[LAYER], expert_out[LAYER], expert_out[LAYER, 2], "expert_act.1.2"])
    runs = (acts[expert_choice[LAYER]] == 2)[..., None]
    torch.testing.assert_close(acts[expert_out[LAYER, 2]], (acts[expert_out[LAYER]] * runs).sum(dim=2))
    assert acts[Site.parse("expert_act[1, 2]")].shape == (1, 9, mixtral.tap(expert_act[LAYER]).shape[1])


def test_texts_of_a_batch_have_the_experts_they_have_alone(mixtral: Model, ids: Tensor) -> None:
    other = ids.flip(1)
    together = capture(mixtral, torch.cat([ids, other]), [expert_choice[LAYER], expert_out[LAYER]])
    alone = capture(mixtral, other, [expert_choice[LAYER], expert_out[LAYER]])
    for site in (expert_choice[LAYER], expert_out[LAYER]):
        torch.testing.assert_close(together[site][1], alone[site][0])


def test_an_expert_that_there_is_not_is_refused(mixtral: Model) -> None:
    with pytest.raises(UnknownSite, match="has no expert 4: it has 4, so the last is 3"):
        mixtral.tap(expert_out[0, 4])
    with pytest.raises(InvalidArgument, match="is not of one expert"):
        Site("mlp_out", 0, expert=1)
    for value, why in ((4.0, "there are 4 experts, counted from 0, and 4 was written"), (0.5, "write whole numbers")):
        wrong = replace(torch.tensor([0.0, value]), at=everywhere)
        with pytest.raises(InvalidArgument, match=why), intervene(mixtral, {expert_choice[0]: wrong}):
            mixtral.run(torch.tensor([[7, 8, 9]]))


@torch.no_grad()
def test_experts_that_take_no_choice_of_one_are_asked_twice(ids: Tensor) -> None:
    """Longcat's module fails for one expert a token; its last experts give what they are given."""
    model = load(tiny_model("longcat_flash", "LongcatFlashForCausalLM"))
    acts = capture(model, ids, [expert_choice[0], expert_weights[0], expert_out[0]])
    moe, given = model.hf.model.layers[0].mlp.experts, []
    handle = moe.register_forward_hook(lambda _m, args, output: given.append((args[0], output)))
    model.run(ids)
    handle.remove()
    x, output = given[0]
    made = (acts[expert_weights[0]][..., None] * acts[expert_out[0]]).sum(dim=2)
    torch.testing.assert_close(made[0], output.reshape(made[0].shape))
    alike = acts[expert_choice[0]][0] >= moe.num_routed_experts
    assert bool(alike.any())
    torch.testing.assert_close(acts[expert_out[0]][0][alike], x.reshape(-1, 32)[:, None].expand(-1, 2, 32)[alike])


@pytest.fixture(scope="module")
def llama4() -> Model:
    return load(tiny_model("llama4_text", "Llama4ForCausalLM"))


@torch.no_grad()
def test_experts_that_run_over_every_token_read_it_times_their_score(llama4: Model, ids: Tensor) -> None:
    moe = llama4.hf.model.layers[LAYER].feed_forward
    sites = [mlp_in, router_logits, expert_choice, expert_weights, expert_act, expert_out, shared_out, mlp_out]
    acts = capture(llama4, ids, [one[LAYER] for one in sites])
    x, logits, choice, weights, act, out, shared, added = (acts[one[LAYER]][0] for one in sites)
    torch.testing.assert_close(logits, x @ moe.router.weight.T)
    torch.testing.assert_close(weights, logits.topk(2, dim=-1).values.sigmoid())
    assert torch.equal(choice.long(), logits.topk(2, dim=-1).indices)
    for token in range(len(x)):
        for k, expert in enumerate(choice[token].long().tolist()):
            gate, up = (weights[token, k] * x[token] @ moe.experts.gate_up_proj[expert]).chunk(2)
            memories = up * nn.functional.silu(gate)
            torch.testing.assert_close(act[token, k], memories)
            given = memories @ moe.experts.down_proj[expert] / weights[token, k]
            torch.testing.assert_close(out[token, k], given, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(shared, moe.shared_expert(x))
    torch.testing.assert_close(added, (weights[..., None] * out).sum(1) + shared)


@torch.no_grad()
def test_what_is_written_in_such_experts_is_as_if_their_weights_were_others(llama4: Model, ids: Tensor) -> None:
    def without(hf: Any) -> None:
        hf.model.layers[LAYER].feed_forward.experts.down_proj[1] = 0

    hf = deepcopy(llama4.hf)
    without(hf)
    theirs = hf(input_ids=ids).logits
    assert not torch.allclose(theirs, llama4.run(ids))
    for site in (expert_out[LAYER, 1], expert_act[LAYER, 1]):
        with intervene(llama4, {site: zero(at=everywhere)}):
            torch.testing.assert_close(llama4.run(ids), theirs)
    with intervene(llama4, {expert_weights[LAYER]: zero(at=everywhere)}):
        alone = capture(llama4, ids, [mlp_out[LAYER], shared_out[LAYER]])
    torch.testing.assert_close(alone[mlp_out[LAYER]], alone[shared_out[LAYER]])
    with intervene(llama4, {expert_choice[LAYER]: replace(torch.tensor([3.0, 2.0]), at=everywhere)}):
        forced = capture(llama4, ids, [expert_choice[LAYER], expert_weights[LAYER], expert_out[LAYER], mlp_in[LAYER]])
    assert {*forced[expert_choice[LAYER]].flatten().tolist()} == {2.0, 3.0}
    w, x = forced[expert_weights[LAYER]][0, 0], forced[mlp_in[LAYER]][0, 0]
    experts = llama4.hf.model.layers[LAYER].feed_forward.experts
    gate, up = (w[0] * x @ experts.gate_up_proj[3]).chunk(2)
    given = (up * nn.functional.silu(gate)) @ experts.down_proj[3] / w[0]
    torch.testing.assert_close(forced[expert_out[LAYER]][0, 0, 0], given, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_logits_written_after_what_follows_from_them_are_refused_there_too(llama4: Model, ids: Tensor) -> None:
    plan = {expert_weights[LAYER]: scale(0.5, at=everywhere), router_logits[LAYER]: scale(2.0, at=everywhere)}
    with intervene(llama4, plan), pytest.raises(WrongState, match="name it first"):
        llama4.run(ids)


def test_a_mixture_that_returns_its_routers_logits_continues_a_padded_batch_as_each_prompt_alone() -> None:
    hf = tiny_model("mixtral", "MixtralForCausalLM")
    hf.config.output_router_logits = True
    model, how = load(hf), {"max_new_tokens": 3, "temperature": 0.0, "seed": 0, "stop": frozenset()}
    long, short = [7, 9, 11, 8, 10], [12, 6]
    mask = torch.tensor([[1] * 5, [0] * 3 + [1] * 2])
    both = model.tokens({"input_ids": torch.tensor([long, [0] * 3 + short]), "attention_mask": mask})
    alone = [decode(hf, model.tokens(torch.tensor([row])), **how)[0] for row in (long, short)]  # type: ignore[arg-type]
    assert decode(hf, both, **how) == alone  # type: ignore[arg-type]


class Distracted(nn.Module):
    """A router that first computes something narrower than its logits, and something narrower after them."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.logits, self.after = (nn.Linear(D, n, bias=False) for n in (5, 6, 5))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        gain = self.before(x).mean(dim=-1, keepdim=True).sigmoid()
        logits = self.logits(x)
        weights, choice = logits.topk(2, dim=-1)
        return weights.softmax(dim=-1) * gain * self.after(x).mean(dim=-1, keepdim=True).sigmoid(), choice


class Few(nn.Module):
    """Six experts, each a matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, D, D))

    def forward(self, x: Tensor, choice: Tensor, weights: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        for expert in range(6):
            token, k = torch.where(choice == expert)
            total = total.index_add(0, token, x[token] @ self.weight[expert] * weights[token, k, None])
        return total


class Sparse(nn.Module):
    """The router and its experts."""

    def __init__(self) -> None:
        super().__init__()
        self.router, self.experts = Distracted(), Few()

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, 1)
        weights, choice = self.router(flat)
        return self.experts(flat, choice, weights).view(x.shape)


class Mixed(nn.Module):
    """Attention, and a mixture of six experts."""

    def __init__(self, _: int) -> None:
        super().__init__()
        self.attn, self.mlp = Attention(), Sparse()

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        x = x + self.attn(x, seen)
        return x + self.mlp(x)


@torch.no_grad()
def test_the_logits_are_the_routers_last_product_that_has_room_for_every_expert() -> None:
    hf = planted(Mixed)
    for block in hf.blocks:
        block.mlp.router.logits.weight *= 20  # so that every token's first choice is clear
    model = load(hf)
    acts = capture(model, IDS, [mlp_in[1], router_logits[1], expert_choice[1]])
    assert int(acts[expert_choice[1]].max()) == 5, "the last expert is chosen, as the test needs"
    assert torch.equal(acts[router_logits[1]], hf.blocks[1].mlp.router.logits(acts[mlp_in[1]]))


@torch.no_grad()
def test_two_experts_that_run_over_every_token_are_a_mixture_too(ids: Tensor) -> None:
    import transformers

    config = tiny_config("llama4_text")
    config.num_local_experts, config.num_experts_per_tok = 2, 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = load(transformers.Llama4ForCausalLM(config).eval())
    acts = capture(model, ids, [mlp_in[LAYER], router_logits[LAYER], expert_choice[LAYER]])
    logits = acts[mlp_in[LAYER]] @ model.hf.model.layers[LAYER].feed_forward.router.weight.T
    torch.testing.assert_close(acts[router_logits[LAYER]], logits)
    assert torch.equal(acts[expert_choice[LAYER]].long(), logits.topk(1, dim=-1).indices)
