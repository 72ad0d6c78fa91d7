"""Small models of others, whose behaviour is known: the contract holds on them, and they do through us what they do."""

from collections.abc import Iterator

import pytest
import torch

from hooks import Model, intervene, load
from hooks.interventions import replace
from hooks.position import index
from hooks.site import embed, ln_final_scale, mlp_in
from tests.toys import TOYS, toy

pytestmark = pytest.mark.skipif(not TOYS.is_dir(), reason="the toys are not beside this repository")
PRIME = 113


@pytest.fixture(scope="module")
def adder() -> Iterator[Model]:
    yield load(toy("grokking-wd-10-1-mod-addition-loss-curve"))


@pytest.mark.parametrize("name", ["grokking-induction-head-infinite", "arena-sorted-list"])
def test_a_toy_without_a_feed_forward_keeps_every_law_but_of_what_nothing_reads(name: str) -> None:
    model = load(toy(name))
    assert model.contract is not None
    assert {one.law for one in model.contract.checks if not one.holds} <= {"writing reaches"}
    assert {site.name for site in model.contract.refused} == {"mlp_in", "mlp_pre", "mlp_act"}
    with pytest.raises(ValueError, match=r"refuses mlp_in.0: 'what is written arrives at the next site' is missed"):
        model.tap(mlp_in[0])


def test_a_model_without_norms_keeps_the_contract_and_has_no_divisor_of_one(adder: Model) -> None:
    assert adder.contract is not None
    assert adder.contract.holds, adder.contract
    assert ln_final_scale not in adder.sites
    with pytest.raises(ValueError, match="has no ln_final_scale"):
        adder.tap(ln_final_scale)


def test_the_adder_adds_and_adds_what_is_put_in_place_of_a_number(adder: Model) -> None:
    torch.manual_seed(0)
    a, b, other = torch.randint(PRIME, (3, 256))
    asked = torch.stack([a, b, torch.full_like(a, PRIME)], dim=1)
    with torch.no_grad():
        assert torch.equal(adder.run(asked)[:, -1].argmax(-1), (a + b) % PRIME)
        numbers = adder.module(embed).get_parameter("weight")
        with intervene(adder, {embed: replace(numbers[other], at=index(1))}) as receipt:
            said = adder.run(asked)[:, -1].argmax(-1)
    assert torch.equal(said, (a + other) % PRIME)
    assert receipt[embed].prefill_tokens == 256


def test_the_sorter_sorts() -> None:
    model = load(toy("arena-sorted-list"), check=False)
    generator = torch.Generator().manual_seed(0)
    lists = torch.stack([torch.randperm(51, generator=generator)[:10] for _ in range(64)])
    ids = torch.cat([lists, torch.full((64, 1), 51), lists.sort(dim=1).values], dim=1)
    with torch.no_grad():
        said = model.run(ids)[:, 10:20].argmax(-1)
    assert float((said == ids[:, 11:]).float().mean()) > 0.99
