"""Edits apply, undo bit for bit, stack in any order, travel, and are refused where they do not belong."""

from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import pytest
import torch

from hooks import Model
from interp.memory import Edit, Fact, conflicts
from interp.memory.edit import LowRank

FACT = Fact("Rome", "{} is in", "Italy", "France")


def edit(model: Model, seed: int, layer: int = 1, fact: Fact = FACT) -> Edit:
    random = torch.Generator().manual_seed(seed)
    key = torch.randn(1, model.d_mlp, generator=random, dtype=torch.float64)
    value = torch.randn(1, model.d_model, generator=random, dtype=torch.float64)
    return Edit((fact,), "by hand", (LowRank(layer, key, value),), model.fingerprint, {"norm": 1.0})


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_applying_adds_exactly_the_outer_product_and_undoing_restores_every_bit(family: str, fresh: Callable) -> None:
    model = fresh(family)
    before = model.w_out(1).detach().clone()
    one = edit(model, 0)
    one.apply(model)
    assert torch.equal(model.w_out(1), (before.double() + one.updates[0].delta).float())
    one.undo(model)
    assert torch.equal(model.w_out(1), before)


def test_a_stack_undone_in_any_order_leaves_at_each_step_what_the_rest_alone_would_give(fresh: Callable) -> None:
    model = fresh("gpt2")
    before = model.w_out(1).detach().clone()
    edits = [edit(model, seed) for seed in range(3)]
    alone = []
    for one in edits:
        with one.applied(model):
            alone.append(model.w_out(1).detach().clone())
    for order in permutations(range(3)):
        for number in range(3):
            edits[number].apply(model)
        edits[order[0]].undo(model)
        edits[order[1]].undo(model)
        assert torch.equal(model.w_out(1), alone[order[2]])
        edits[order[2]].undo(model)
        assert torch.equal(model.w_out(1), before)


def test_an_error_inside_the_block_leaves_the_weights_as_they_were(fresh: Callable) -> None:
    model = fresh("gpt2")
    before = model.w_out(1).detach().clone()
    with pytest.raises(KeyError), edit(model, 0).applied(model):
        raise KeyError
    assert torch.equal(model.w_out(1), before)


def test_an_edit_is_read_back_as_written_in_a_few_kilobytes(tmp_path: Path, gpt2: Model) -> None:
    one = edit(gpt2, 4)
    one.save(tmp_path / "edit.safetensors")
    read = Edit.load(tmp_path / "edit.safetensors")
    assert torch.equal(read.updates[0].delta, one.updates[0].delta)
    assert (read.facts, read.method, read.fingerprint, read.measured) == (
        one.facts, one.method, one.fingerprint, one.measured,
    )  # fmt: skip
    assert (tmp_path / "edit.safetensors").stat().st_size < 4096


def test_an_edit_of_another_model_is_refused(fresh: Callable, gpt2: Model) -> None:
    with pytest.raises(ValueError, match="this edit was made for model .* make the edit again on this model"):
        edit(gpt2, 0).apply(fresh("gpt2", seed=9))


def test_applying_twice_and_undoing_what_is_not_applied_are_refused(fresh: Callable) -> None:
    model = fresh("gpt2")
    one = edit(model, 0)
    with pytest.raises(ValueError, match="is not applied to .*: nothing to undo"):
        one.undo(model)
    with one.applied(model), pytest.raises(ValueError, match="is already applied to .*: undo it first"):
        one.apply(model)


def test_contradicting_facts_and_overlapping_keys_are_reported_and_unrelated_edits_are_not(gpt2: Model) -> None:
    one, same = edit(gpt2, 0), edit(gpt2, 0, fact=Fact("Rome", "{} is in", "Italy", "Spain"))
    found = conflicts([one, same])
    assert found[0] == "'Rome is in' is edited to both 'France' and 'Spain'"
    assert found[1].startswith("keys of 'Rome' and 'Rome' overlap at layer 1 (cosine 1.00")
    assert conflicts([one, edit(gpt2, 1, fact=Fact("Oslo", "{} is in", "Norway", "Peru"))]) == ()


def test_a_fact_needs_one_place_for_its_subject_and_two_different_objects() -> None:
    with pytest.raises(ValueError, match="has 0 places for the subject: write {} once"):
        Fact("Rome", "Rome is in", "Italy", "France")
    with pytest.raises(ValueError, match="old and new object are both 'Italy'"):
        Fact("Rome", "{} is in", "Italy", "Italy")
    with pytest.raises(ValueError, match="new=' France': give a text without spaces around it"):
        Fact("Rome", "{} is in", "Italy", " France")
