"""A plan says the numbers of a calculation by hand, and names the limits that are passed."""

import json

import pytest
from typer.testing import CliRunner

from hooks.errors import InvalidArgument
from interp.commands.app import app
from interp.scale import Job, Machines, plan_job

LARGE = Job(70e9, 8192, 1e12, 10_000_000)
BY_HAND = {  # 70 billion parameters, 10^12 tokens, 10^7 latents, on 64 machines of eight H100 at 40 %
    "forward, operations": 1.4e23,
    "forward, device-hours": 97_000,
    "forward, days": 7.9,
    "one site, kept": 16.4e15,
    "weights of the model": 140e9,
    "devices for one copy of the model": 4,
    "dictionary, parameters": 1.64e11,
    "dictionary, in bf16": 328e9,
    "dictionary in training": 2.3e12,
    "devices that hold it": 29,
    "devices that train it": 64,
    "training, operations": 1.64e23,
    "training, device-hours": 114_000,
    "a step, computing": 0.84,
    "a step, Adam": 0.021,
    "steps": 7.6e6,
    "checkpoint, seconds": 29,
    "hours between failures": 100,
}


@pytest.mark.parametrize("item", BY_HAND)
def test_a_plan_says_what_a_calculation_by_hand_does(item: str) -> None:
    assert plan_job(LARGE, Machines.of("h100", 64))[item] == pytest.approx(BY_HAND[item], rel=0.025)


def test_the_network_of_a_step_is_what_is_sent_and_is_shorter_than_the_computing() -> None:
    found = plan_job(LARGE, Machines.of("h100", 64))
    sent = 6 * 131_072 * 64 * 8 + 2 * 131_072 * 8192
    assert found["a step, sent by each device"] == sent
    assert found["a step, network"] == sent / 50e9 < 0.1


def test_each_cost_grows_with_its_own_size_alone() -> None:
    small = Job(1e9, 2048, 1e9, 65_536)
    machines = Machines.of("h200", 2)
    base = plan_job(small, machines)
    for name, factor in (("tokens", 2e9), ("parameters", 2e9), ("latents", 131_072)):
        other = plan_job(Job(**(vars(small) | {name: factor})), machines)
        grown = {one.item for one in other.costs if one.value == pytest.approx(2 * base[one.item], rel=0.01)}
        expected = {
            "tokens": {"forward, operations", "one site, kept", "training, operations", "steps"},
            "parameters": {"forward, operations", "weights of the model"},
            "latents": {"dictionary, parameters", "training, operations", "dictionary in training"},
        }[name]
        assert expected <= grown
        assert ("training, operations" in grown) == (name != "parameters")
        assert ("forward, operations" in grown) == (name != "latents")


def test_a_limit_that_is_passed_is_named_with_its_number() -> None:
    found = plan_job(LARGE, Machines.of("h100", 2))
    said = " ".join(found.warnings)
    assert "29 devices" in said and "there are 16" in said
    assert "16.4 PB" in said and "a thousandth" in said
    assert plan_job(Job(1e8, 768, 1e8, 24_576), Machines.of("h100")).warnings == ()


def test_the_command_prints_the_table_and_its_document_and_knows_no_other_device() -> None:
    given = ["plan", "--model-params", "70e9", "--d-model", "8192", "--latents", "1e7", "--tokens", "1e12"]
    said = CliRunner().invoke(app, [*given, "--nodes", "64", "--json"])
    found = json.loads(said.stdout)
    assert {one["item"] for one in found["costs"]} >= set(BY_HAND)
    plain = CliRunner().invoke(app, [*given, "--nodes", "64", "--price", "2"])
    assert "price of both" in plain.output and "16.4 PB" in plain.output
    with pytest.raises(InvalidArgument, match="h100"):
        Machines.of("h10", 1)
