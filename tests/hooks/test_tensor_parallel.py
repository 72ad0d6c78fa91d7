"""A model that two processes compute together, by transformers' own plan, gives what it gives in one process.

Before the first all-reduce nothing is added up in another order, so that what comes before it is equal bit for bit
(where a matrix product of half the columns rounds as that of all); all else is equal to 1e-5 of the largest value.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from hooks import Model, capture, capture_gradients, intervene, load
from hooks.errors import InvalidArgument, UnknownSite, WrongState
from hooks.interventions import add, replace
from hooks.position import everywhere
from hooks.sharded_taps import _is_near, share_taps
from hooks.shards import ModelRanks, TensorShard, _disagreement
from hooks.site import Site, embed, mlp_act, mlp_pre, pattern, q, resid_post, resid_pre, z
from hooks.temporary import grad_mode
from hooks.weights import matrix_of, write_matrix
from tests.processes import do_in_processes

pytestmark = [
    pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distribution"),
    pytest.mark.skipif(sys.platform != "linux", reason="forks"),
]
IDS = torch.arange(1, 23).view(2, 11)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers, four heads that share two keys, and a feed-forward layer of odd width."""
    config = AutoConfig.for_model(
        "llama", vocab_size=64, hidden_size=32, intermediate_size=43, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=32, pad_token_id=None, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.2) if weight.ndim > 1 else None
    path = tmp_path_factory.mktemp("llama")
    model.save_pretrained(path)
    return path


def read_shared(folder: Path, world: int = 2) -> Any:
    from transformers.distributed import DistributedConfig

    os.environ["LOCAL_RANK"] = os.environ["RANK"]
    torch.distributed.init_process_group("gloo")
    asked = DistributedConfig(tp_plan="auto", tp_size=world)
    return AutoModelForCausalLM.from_pretrained(folder, distributed_config=asked)


def in_two(folder: Path, work: Callable[[Model, Model], None]) -> None:
    """Do some work with the shared model and the whole one, in two processes."""

    def one() -> None:
        shared = load(read_shared(folder))
        work(shared, load(AutoModelForCausalLM.from_pretrained(folder)))
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()

    do_in_processes(one)


def check_near(a: Tensor, b: Tensor, what: object = "") -> None:
    assert a.shape == b.shape, (what, a.shape, b.shape)
    assert float((a - b).abs().max()) <= 1e-5 * float(b.abs().max()), what


def test_every_site_of_a_shared_model_is_that_of_the_whole_one(folder: Path) -> None:
    def work(shared: Model, whole: Model) -> None:
        assert shared.sites == whole.sites and shared.contract is not None
        assert shared.contract.holds, str(shared.contract)
        assert shared.fingerprint == whole.fingerprint
        assert [shared.tap(site).shape for site in shared.sites] == [whole.tap(site).shape for site in whole.sites]
        a, b = (capture(model, IDS, model.sites) for model in (shared, whole))
        for site in whole.sites:
            check_near(a[site], b[site], site)
        for site in (embed, resid_pre[0]):
            assert torch.equal(a[site], b[site]), site

    in_two(folder, work)


def test_what_is_written_at_a_site_of_a_shared_model_does_what_it_does_in_the_whole_one(folder: Path) -> None:
    def work(shared: Model, whole: Model) -> None:
        with grad_mode(False):
            for site in whole.sites:
                if whole.tap(site).read_only:
                    continue
                push = torch.randn(whole.tap(site).shape, generator=torch.Generator().manual_seed(1))
                logits: list[Tensor] = []
                for model in (shared, whole):
                    with intervene(model, {site: add(push, at=everywhere)}):
                        logits.append(model.run(IDS))
                check_near(logits[0], logits[1], site)
                assert not torch.allclose(logits[0], whole.run(IDS), atol=1e-3), site
            kept = capture(whole, IDS.flip(1), mlp_act[0])[mlp_act[0]]
            logits = []
            for model in (shared, whole):
                with intervene(model, {mlp_act[0]: replace(kept)}):
                    logits.append(model.run(IDS))
            check_near(logits[0], logits[1])
            with intervene(shared, {q[1]: add(torch.ones(4, 8))}), intervene(whole, {q[1]: add(torch.ones(4, 8))}):
                made = [model.hf.generate(IDS, max_new_tokens=6, do_sample=False) for model in (shared, whole)]
            assert torch.equal(*made)

    in_two(folder, work)


def test_gradients_at_every_site_of_a_shared_model_are_those_of_the_whole_one(folder: Path) -> None:
    def work(shared: Model, whole: Model) -> None:
        sites = [site for site in whole.sites if not whole.tap(site).read_only]
        a, b = (
            capture_gradients(model, IDS, sites, lambda logits: logits[:, -1, 5].sum()) for model in (shared, whole)
        )
        for site in sites:
            check_near(a.gradients[site], b.gradients[site], site)
        check_near(a.metric, b.metric)

    in_two(folder, work)


def test_a_shared_model_is_edited_as_the_whole_one_is(folder: Path) -> None:
    def work(shared: Model, whole: Model) -> None:
        assert torch.equal(shared.w_out(0), whole.w_out(0))
        change = torch.randn(43, 32, generator=torch.Generator().manual_seed(2))
        for model in (shared, whole):
            write_matrix(model.parts(1)["mlp.out"], model.w_out(1) + change)
            write_matrix(model.parts(0)["attn.q"], 2 * matrix_of(model.parts(0)["attn.q"]))
        assert torch.equal(shared.w_out(1), whole.w_out(1))
        with grad_mode(False):
            check_near(shared.run(IDS), whole.run(IDS))

    in_two(folder, work)


def test_processes_that_ask_for_different_sites_or_tokens_are_all_refused_and_none_waits(folder: Path) -> None:
    def work(shared: Model, whole: Model) -> None:
        rank = torch.distributed.get_rank()
        other = ("process 0: mlp_act.0 of", "process 1: resid_post.0 of")
        with pytest.raises(WrongState, match=f"{other[0]}.*{other[1]}"):
            capture(shared, IDS, (mlp_act[0], resid_post[0])[rank])
        with pytest.raises(WrongState, match="do not ask for the same"):
            capture(shared, IDS[rank : rank + 1], mlp_act[0])
        with grad_mode(False), pytest.raises(WrongState, match="process 1: no site of inputs"):
            if rank == 0:
                with intervene(shared, {z[0]: add(torch.ones(4, 8))}):
                    shared.run(IDS)
            shared.run(IDS)
        check_near(capture(shared, IDS, z[0])[z[0]], capture(whole, IDS, z[0])[z[0]])  # and nothing is left

    in_two(folder, work)


def test_what_the_plan_leaves_in_parts_without_a_rule_is_refused_by_name(folder: Path) -> None:
    def work() -> None:
        hf = read_shared(folder)
        model = load(hf)
        for side in ("output", "input"):
            with pytest.raises(UnknownSite, match="in parts, one in each process.*SiLUActivation, none; load"):
                capture(model, IDS, Site.module("model.layers.0.mlp.act_fn", side))
        of_module = Site.module("model.layers.1.mlp.down_proj", "input")
        assert capture(model, IDS, of_module)[of_module].shape == (2, 11, 43)
        assert capture(model, IDS, pattern[0])[pattern[0]].shape == (2, 4, 11, 11)
        hf._tp_plan = hf._tp_plan | {"model.layers.*.mlp.gate_proj": "in_a_new_way"}
        shared = share_taps(hf, model.taps, model.structure)
        assert "the style 'in_a_new_way'" in shared.refused[mlp_pre[0]] and mlp_pre[0] not in shared.taps
        assert mlp_act[0] in shared.taps
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()

    do_in_processes(work)


def test_other_ways_of_sharing_a_model_are_refused(folder: Path) -> None:
    hf = AutoModelForCausalLM.from_pretrained(folder)
    for name, kind in (("dp_size", "FSDP"), ("ep_size", "expert parallelism"), ("pp_size", "pipeline parallelism")):
        hf.config.distributed_config = type("Asked", (), {name: 2})()
        with pytest.raises(InvalidArgument, match=f"shared by {kind}"):
            load(hf, check=False)


def test_parts_of_unequal_and_packed_axes_are_gathered_in_order_and_scattered_back() -> None:
    def work() -> None:
        torch.distributed.init_process_group("gloo")
        rank = torch.distributed.get_rank()
        ranks = ModelRanks(torch.distributed.device_mesh.init_device_mesh("cpu", (2,)))
        whole = torch.arange(30.0).view(2, 3, 5)
        part = whole.chunk(2, dim=-1)[rank]
        odd = TensorShard(ranks, -1, 5)
        assert torch.equal(odd.gather(part), whole) and torch.equal(odd.scatter(whole), part)
        heads = TensorShard(ranks, 1, 3)
        assert torch.equal(heads.gather(whole.chunk(2, dim=1)[rank]), whole)
        gate, up = whole[..., :4], whole[..., :4] + 100
        packed = TensorShard(ranks, -1, 8, packed=2)
        mine = torch.cat([gate.chunk(2, dim=-1)[rank], up.chunk(2, dim=-1)[rank]], dim=-1)
        assert torch.equal(packed.gather(mine), torch.cat([gate, up], dim=-1))
        assert torch.equal(packed.scatter(torch.cat([gate, up], dim=-1)), mine)
        flat = torch.arange(16.0).view(2, 8)
        mine = torch.cat([one.chunk(2, dim=-1)[rank] for one in flat.chunk(2, dim=-1)], dim=-1)
        assert torch.equal(packed.gather(mine), flat) and torch.equal(packed.scatter(flat), mine)
        x = part.clone().requires_grad_()
        (slope,) = torch.autograd.grad((odd.scatter(odd.gather(x) * whole) ** 2).sum() / 2, x)
        assert torch.allclose(slope, part**3)
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()

    do_in_processes(work)


@pytest.mark.parametrize(
    ("sites", "said"),
    [
        (0, "no site"),
        (1, "s0"),
        (4, "s0, s1, s2, s3"),
        (5, "s0, s1, s2, s3 and 1 more"),
        (9, "s0, s1, s2, s3 and 5 more"),
    ],
)
def test_what_processes_ask_for_is_said_by_four_sites_and_how_many_more(sites: int, said: str) -> None:
    heard = [([f"s{number}" for number in range(sites)], [(2, 11)]), (["z.0"], [])]
    text = _disagreement(heard)
    assert f"(process 0: {said} of inputs [2, 11]; process 1: z.0 of inputs unknown; gradients" in text


def test_what_processes_hold_is_compared_by_its_length_also_where_its_weighted_sum_is_near_none() -> None:
    assert _is_near((1.0, 0.001), (1.0, 0.0015)) and _is_near((2.0, -0.5), (2.01, -0.49))
    assert _is_near((2.0, 0.0), (1.9801, 0.0)) and _is_near((1.9801, 0.0), (2.0, 0.0))  # a hundredth of the longer
    assert not _is_near((1.0, 0.5), (1.0, 0.52)) and not _is_near((1.0, 0.0), (1.1, 0.0))
