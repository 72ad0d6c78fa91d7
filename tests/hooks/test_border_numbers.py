"""Numbers outside what an argument takes are refused where they are given, by the argument's name."""

import ast
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hooks import Model, capture
from hooks.border import Count, Finite, NotNegative, Positive, guard_function
from hooks.errors import InvalidArgument, NotFinite
from hooks.mixture_hooks import check_experts
from hooks.site import resid_post
from interp.atlas import Space
from interp.lenses import tune
from interp.memory import Search
from interp.sae import Gated, JumpReLU, Schedule, TopK, tensor_source, train
from interp.steering import Sampling
from probes import DifferenceOfMeans


def call(rate: Positive = 1.0, weight: NotNegative = 0.0, dose: Finite = 0.0, n: Count = 1) -> float:
    return rate + weight + dose + n


@pytest.mark.parametrize(
    "given",
    [{name: bad} for name in ("rate", "weight", "dose") for bad in (math.nan, math.inf, -math.inf)]
    + [{"rate": 0.0}, {"rate": -1.0}, {"weight": -1e-9}, {"n": 0}, {"n": -3}],
    ids=str,
)
def test_a_number_outside_its_range_is_refused_by_name_and_value(given: dict[str, float]) -> None:
    ((name, value),) = given.items()
    with pytest.raises(InvalidArgument, match=rf"call takes {name} as a .*, got {value}"):
        guard_function(call)(**given)


def test_the_ends_of_a_range_are_taken_where_they_belong_to_it() -> None:
    assert guard_function(call)(rate=5e-324, weight=0, dose=-1e308, n=1) == call(5e-324, 0, -1e308, 1)


SETTINGS: list[tuple[Callable[..., Any], str, float]] = [
    *((Search, "learning_rate", bad) for bad in (0, math.nan, math.inf)),
    (Search, "clamp", math.inf),
    (Search, "kl", -1.0),
    (Search, "steps", 0),
    (Sampling, "temperature", math.inf),
    (Sampling, "per_prompt", 0),
    (Schedule, "warm_up", math.nan),
    (lambda **given: TopK(8, **given, k=2), "d_sae", 0),
    (lambda **given: TopK(8, 16, **given), "k", math.nan),
    (lambda **given: TopK(8, 16, 2, **given), "aux_coefficient", math.inf),
    (lambda **given: Gated(8, 16, **given), "coefficient", math.nan),
    (lambda **given: JumpReLU(8, 16, **given), "bandwidth", 0.0),
    *(
        (lambda **given: train(TopK(8, 16, k=2), tensor_source(torch.ones(4, 8)), **given), "lr", bad)
        for bad in (0, math.nan, math.inf)
    ),
]


@pytest.mark.parametrize(("make", "name", "value"), SETTINGS, ids=[f"{name} {value}" for _, name, value in SETTINGS])
def test_settings_and_trainings_refuse_what_no_run_could_use(make: Callable[..., Any], name: str, value: float) -> None:
    with pytest.raises(InvalidArgument, match=rf"{name}"):
        make(**{name: value})


def test_a_pass_is_not_begun_with_a_rate_or_a_size_that_is_none(gpt2: Model) -> None:
    for rate in (0, math.nan, math.inf):
        with pytest.raises(InvalidArgument, match="tune takes learning_rate as a finite number above 0"):
            tune(gpt2, ["fog"], learning_rate=rate)
    with pytest.raises(InvalidArgument, match="batch_size"):
        capture(gpt2, ["fog"], [resid_post[0]], batch_size=0)


def test_each_number_of_a_list_is_looked_at() -> None:
    def sweep(doses: list[Finite]) -> None: ...

    with pytest.raises(InvalidArgument, match="takes as each of doses a finite number, got nan"):
        guard_function(sweep)([1.0, math.nan])


SAYS_IT_IN_WORDS = {
    "a KV cache was filled outside the block": "which cache is not a number",
    "the logits are what every path ends in": "the receiver is named",
    "an interval over 1 text says nothing": "the number is 1",
    "what the head writes is the same": "the variance is 0",
    "one prompt was given": "the number is one",
    "all activations are 0": "the number is 0",
    "the condition selects no token": "the number is none",
    "one fact alone is no collection": "the number is one",
}


def _asks_for_a_range(test: ast.expr) -> bool:
    ordered = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
    compared = [one for node in ast.walk(test) if isinstance(node, ast.Compare) for one in node.ops]
    return "finite" in ast.unparse(test) or any(isinstance(one, ordered) for one in compared)


@pytest.mark.parametrize("package", ["hooks", "probes", "interp"])
def test_an_error_about_a_number_out_of_its_range_names_the_number_that_was_given(package: str) -> None:
    silent = []
    for file in sorted((Path(__file__).parents[2] / package).rglob("*.py")):
        found = (node for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.If))
        raised = (line for node in found if _asks_for_a_range(node.test) for line in node.body)
        for line in raised:
            if not isinstance(line, ast.Raise) or not isinstance(line.exc, ast.Call) or not line.exc.args:
                continue
            text = line.exc.args[0]
            if any(isinstance(part, ast.FormattedValue | ast.Name) for part in ast.walk(text)):
                continue
            reasons = any(start in ast.unparse(text) for start in SAYS_IT_IN_WORDS)
            silent += [] if reasons else [f"{file.name}:{line.lineno} {ast.unparse(text)}"]
    assert not silent


def test_what_is_refused_of_many_numbers_is_named_by_its_place_and_value() -> None:
    with pytest.raises(InvalidArgument, match=r"sample_weight holds -2 for row 1: give finite weights of 0 or more"):
        DifferenceOfMeans().fit(torch.eye(3), [0, 1, 1], sample_weight=[1.0, -2.0, 1.0])
    with pytest.raises(InvalidArgument, match=r"counted from 0, and 1\.5 was written"):
        check_experts(torch.tensor([[0.0, 1.5]]), 4)
    with pytest.raises(NotFinite, match="the row 'fog' of the space holds nan"):
        Space(torch.tensor([[1.0], [math.nan]]), ("bay", "fog"))
