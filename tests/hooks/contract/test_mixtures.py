"""The laws of mixtures of experts, by what they compare and allow, on planted values that can be worked out by hand."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hooks import Model, Site, capture, load
from hooks.contract.families import tiny
from hooks.contract.mixtures import _choice_follows, _experts_add, _experts_give, _turn_logits, mixture_laws
from hooks.contract.report import Check
from hooks.contract.rounding import unit
from hooks.site import mlp_out
from hooks.structure import Block
from hooks.tokens import Tokens
from hooks.tracing.experts import TracedMixture
from hooks.view import View

pytestmark = pytest.mark.usefixtures("unchecked")

LOGITS, CHOICE, WEIGHTS = (Site(name, 0) for name in ("router_logits", "expert_choice", "expert_weights"))
ACT, OUT, SHARED = (Site(name, 0) for name in ("expert_act", "expert_out", "shared_out"))


@pytest.fixture
def model() -> Model:
    return load(tiny("mixtral"), check=False)


def text(model: Model, n_pos: int = 6) -> Tokens:
    return model.tokens(torch.arange(6, 6 + n_pos)[None])


def first(model: Model) -> tuple[Block, TracedMixture, int]:
    """The first block, its mixture, and which term of its sum it is."""
    block = model.structure.main[0]
    ((term, found),) = block.mixtures.items()
    return block, found, term


def values(model: Model, n_pos: int = 6) -> dict[Site, Tensor]:
    """Weights and outputs of two experts, and what shared ones give, drawn at random."""
    random = torch.Generator().manual_seed(0)
    shapes = {WEIGHTS: (2,), OUT: (2, model.d_model), SHARED: (model.d_model,), ACT: (2, 3)}
    return {site: torch.randn(1, n_pos, *shape, generator=random) for site, shape in shapes.items()}


class Turned(nn.Module):
    """A norm that turns the sign and does nothing else."""

    def forward(self, x: Tensor) -> Tensor:
        return -x


@pytest.mark.parametrize("total", [mlp_out[0], Site.module("model.layers.0.mlp")], ids=str)
def test_what_a_mixture_adds_is_its_factor_times_the_weighted_sum_and_the_shared_ones(
    model: Model, total: Site
) -> None:
    """3 norm(2 Σ_k weights_k out_k + shared), where the norm here turns the sign."""
    block, found, term = first(model)
    model.taps = {**model.taps, total: replace(model.tap(total), view=View(factor=3.0))}
    found = replace(found, mixture=replace(found.mixture, factor=2.0, shared=nn.Identity()))
    normed: Any = SimpleNamespace(module=Turned())
    sublayers = tuple(replace(one, norm=normed if one is block.sublayers[term] else None) for one in block.sublayers)
    terms = tuple(total if site == block.terms[term] else site for site in block.terms)
    block = replace(block, sublayers=sublayers, terms=terms)
    acts = values(model)
    summed = acts[WEIGHTS][..., :1] * acts[OUT][..., 0, :] + acts[WEIGHTS][..., 1:] * acts[OUT][..., 1, :]
    acts[total] = -3 * (2 * summed + acts[SHARED])
    (check,) = _experts_add(model, block, found, term, acts, text(model))
    assert check.error < 1e-6 and check.allowed == 4 * unit(torch.float32, model.d_model)
    called = {"mlp_out": "mlp_out", "module": "module(model.layers.0.mlp)"}[total.name]
    assert check.states == f"{called} = Σ_k expert_weights expert_out + shared_out"
    assert check.sites == (total, WEIGHTS, OUT, ACT, SHARED)
    (check,) = _experts_add(model, block, found, term, {**acts, total: 3 * acts[total]}, text(model))
    assert check.error == pytest.approx(2 / 4)


def test_what_experts_give_is_compared_with_the_weighted_sum_of_each(model: Model) -> None:
    block, found, term = first(model)
    tokens = text(model)
    acts = capture(model, tokens, [WEIGHTS, OUT]).values
    (check,) = _experts_give(model, block, found, term, acts, tokens)
    assert check.error < 1e-6 and check.allowed == 4 * unit(torch.float32, model.d_model)
    assert check.sites == (WEIGHTS, OUT) and check.states == "Σ_k expert_weights expert_out = what the experts give"
    (check,) = _experts_give(model, block, found, term, {**acts, WEIGHTS: 3 * acts[WEIGHTS]}, tokens)
    assert check.error == pytest.approx(2 / 4)
    assert not found.mixture.experts._forward_hooks


def test_a_sum_is_compared_with_the_sublayer_only_where_that_gives_it_and_is_read(model: Model) -> None:
    tokens = text(model)
    acts = {site: value for site, value in capture(model, tokens, model.sites).values.items() if site.layer == 0}
    add, give = "mlp_out = Σ_k expert_weights expert_out", "Σ_k expert_weights expert_out = what the experts give"

    def said(acts: dict[Site, Tensor]) -> list[str]:
        return [check.states for check in mixture_laws(model, acts, tokens) if check.law == "experts add"]

    assert said(acts) == [add]
    assert said({site: value for site, value in acts.items() if site != mlp_out[0]}) == [give]
    for lost in (WEIGHTS, OUT):
        less = {site: value for site, value in acts.items() if site != lost}
        assert said(less) == said({site: value for site, value in less.items() if site != mlp_out[0]}) == []
    blocks = [replace(one, mixtures={term: replace(found, explained=False) for term, found in one.mixtures.items()})
              for one in model.structure.blocks]  # fmt: skip
    model.structure = replace(model.structure, blocks=tuple(blocks))
    assert said(acts) == [give]


@pytest.fixture
def follows(model: Model, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Check]:
    """The law of a router whose choice and weights, one token a row, are planted before and after the writing."""

    def law(choice: list[list[float]], weights: list[list[float]]) -> Check:
        before = {CHOICE: torch.tensor([[[0.0, 1.0]] * 4]), WEIGHTS: torch.tensor([[[0.5, 0.5]] * 4])}
        after = {CHOICE: torch.tensor([choice]), WEIGHTS: torch.tensor([weights])}
        passes = iter([SimpleNamespace(values=before), SimpleNamespace(values=after)])
        monkeypatch.setattr("hooks.contract.mixtures.capture", lambda *_: next(passes))
        (check,) = _choice_follows(model, first(model)[0], text(model, 4))
        assert check.sites == (LOGITS, CHOICE) and check.allowed == 0.0
        return check

    return law


def test_the_choice_follows_where_one_expert_or_one_weight_of_the_token_changes(follows: Callable[..., Check]) -> None:
    choice, weights = [[0.0, 1.0]] * 4, [[0.5, 0.5]] * 4
    assert follows(choice, weights).error == 1.0
    assert follows([*choice[:1], [0.0, 3.0], *choice[2:]], weights).error == 0.0
    assert follows(choice, [*weights[:1], [0.5, 0.25], *weights[2:]]).error == 0.0


def test_every_other_token_whose_choice_or_weights_change_is_counted(follows: Callable[..., Check]) -> None:
    choice, weights = [[0.0, 1.0]] * 4, [[0.5, 0.5]] * 4
    both = follows([[0.0, 2.0], [3.0, 2.0], *choice[2:]], [*weights[:2], [0.25, 0.5], [0.25, 0.25]])
    assert both.error == 3.0 and not both.holds
    assert follows([[0.0, 2.0], *choice[1:]], weights).error == 1.0  # and nothing where it was written


def test_the_choice_is_asked_for_where_logits_choice_and_weights_can_be_read(model: Model) -> None:
    block, taps = first(model)[0], model.taps
    three = {site: taps[site] for site in (LOGITS, CHOICE, WEIGHTS)}
    model.taps = three
    (check,) = _choice_follows(model, block, text(model))
    assert check.holds
    for lost in three:
        model.taps = {site: tap for site, tap in taps.items() if site != lost}
        assert not list(_choice_follows(model, block, text(model)))


def test_the_logits_of_the_second_token_are_turned_threefold_and_the_last_is_preferred_of_equals() -> None:
    logits = torch.tensor([[[1.0, 0.0, 0.0], [2.0, 0.0, -1.0], [0.0, 5.0, 0.0]], torch.ones(3, 3).tolist()])
    kept = logits.clone()
    turned = _turn_logits(logits)
    assert torch.equal(turned[:, 1], torch.tensor([[-6.0, 0.5, 4.0], [-3.0, -2.5, -2.0]]))
    assert torch.equal(turned[:, [0, 2]], kept[:, [0, 2]]) and torch.equal(logits, kept)
