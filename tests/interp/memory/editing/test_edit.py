"""Edits apply, undo bit for bit, stack in any order, travel, and are refused where they do not belong."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest
import torch

from hooks import Model, load
from hooks.errors import EditRefused
from interp.memory import Edit, Fact, conflicts
from interp.memory.editing.change import LowRank
from interp.memory.editing.checks import LIKELY, average_searches
from interp.memory.editing.value_search import ValueSearchResult

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


def test_an_edit_read_from_disk_undoes_the_one_that_was_written(tmp_path: Path, fresh: Callable) -> None:
    model = fresh("gpt2")
    before = model.w_out(1).detach().clone()
    one = edit(model, 5)
    one.save(tmp_path / "edit.safetensors")
    one.apply(model)
    Edit.load(tmp_path / "edit.safetensors").undo(model)
    assert torch.equal(model.w_out(1), before)


def test_a_weight_that_something_else_changed_meanwhile_is_not_overwritten(fresh: Callable) -> None:
    model = fresh("gpt2")
    before = model.w_out(1).detach().clone()
    one, two = edit(model, 0), edit(model, 1)
    one.apply(model)
    applied = model.w_out(1).detach().clone()
    with torch.no_grad():
        model.w_out(1)[3, 4] += 1.0
    trained = model.w_out(1).detach().clone()
    for act in (lambda: one.undo(model), lambda: two.apply(model)):
        with pytest.raises(RuntimeError, match="layer 1 of .* were changed by something else .* undo the other change"):
            act()
        assert torch.equal(model.w_out(1), trained)
    with torch.no_grad():
        model.w_out(1).copy_(applied)
    one.undo(model)
    assert torch.equal(model.w_out(1), before)


def test_edits_at_several_layers_are_undone_where_no_other_edit_remains(fresh: Callable) -> None:
    model = fresh("gpt2")
    before = [model.w_out(layer).detach().clone() for layer in range(3)]
    wide, narrow = edit(model, 0, layer=0), edit(model, 1, layer=2)
    both = Edit(wide.facts, "by hand", (*wide.updates, *edit(model, 2, layer=2).updates), model.fingerprint)
    both.apply(model)
    narrow.apply(model)
    both.undo(model)
    assert torch.equal(model.w_out(0), before[0]) and not torch.equal(model.w_out(2), before[2])
    narrow.undo(model)
    assert all(torch.equal(model.w_out(layer), before[layer]) for layer in range(3))


def test_an_edit_that_conflicts_with_one_applied_says_so_as_it_is_applied(fresh: Callable) -> None:
    model = fresh("gpt2")
    other = edit(model, 1, fact=Fact("Rome", "{} is in", "Italy", "Spain"))
    with edit(model, 0).applied(model), pytest.warns(UserWarning, match="'Rome is in' is edited to both 'France' and"):
        other.apply(model)
    other.undo(model)


def test_a_change_that_is_not_finite_is_no_edit() -> None:
    with pytest.raises(ValueError, match="the change of layer 3 holds NaN or infinity"):
        LowRank(3, torch.full((1, 4), torch.nan), torch.ones(1, 2))


def test_contradicting_facts_and_overlapping_keys_are_reported_and_unrelated_edits_are_not(gpt2: Model) -> None:
    one, same = edit(gpt2, 0), edit(gpt2, 0, fact=Fact("Rome", "{} is in", "Italy", "Spain"))
    found = conflicts([one, same])
    assert found[0] == "'Rome is in' is edited to both 'France' and 'Spain'"
    assert found[1].startswith("keys of 'Rome' and 'Rome' overlap at layer 1 (1.00 of")
    assert conflicts([one, edit(gpt2, 1, fact=Fact("Oslo", "{} is in", "Norway", "Peru"))]) == ()


def test_an_overlap_is_reported_in_either_order_where_one_edit_alone_writes_at_the_key_of_the_other(
    gpt2: Model,
) -> None:
    """Of what `one` writes 0.8 appears at the place of `other`, and of that nothing at the place of `one`."""
    e = torch.eye(gpt2.d_mlp, dtype=torch.float64)
    one, other = edit(gpt2, 0), edit(gpt2, 1, fact=Fact("Oslo", "{} is in", "Norway", "Peru"))
    one = replace(one, updates=(replace(one.updates[0], key=e[:1], at=e[:1]),))
    other = replace(other, updates=(replace(other.updates[0], key=e[1:2], at=0.8 * e[:1] + 0.6 * e[1:2]),))
    for pair in ([one, other], [other, one]):
        (said,) = conflicts(pair)
        assert "overlap at layer 1 (0.80 of what one writes appears at the other)" in said


def test_two_prompts_that_replace_one_object_by_different_ones_conflict_whatever_the_method(gpt2: Model) -> None:
    facts = [Fact("Rome", "{} is in", "a", "b"), Fact("Rome", "we know {} lies in", "a", "c")]
    edits = [Edit((fact,), "told", (), gpt2.fingerprint) for fact in facts]
    assert conflicts(edits) == ("'a' of 'Rome' is edited to both 'b' and 'c' in two prompts",)
    assert conflicts([edits[0], Edit((Fact("Rome", "{} has", "d", "c"),), "told", (), gpt2.fingerprint)]) == ()


def test_a_fact_needs_one_place_for_its_subject_and_two_different_objects() -> None:
    with pytest.raises(ValueError, match="has 0 places for the subject: write {} once"):
        Fact("Rome", "Rome is in", "Italy", "France")
    with pytest.raises(ValueError, match="old and new object are both 'Italy'"):
        Fact("Rome", "{} is in", "Italy", "Italy")
    with pytest.raises(ValueError, match="new=' France': give a text without spaces around it"):
        Fact("Rome", "{} is in", "Italy", " France")


def test_what_searches_measured_is_averaged_over_them() -> None:
    found = [
        ValueSearchResult({}, 0.2, 1.0, 10),
        ValueSearchResult({}, 0.6, 2.0, 25),
        ValueSearchResult({}, 1.0, 6.0, 25),
    ]
    averages = average_searches(found)
    assert averages["target_probability"] == pytest.approx(0.6) and averages["kl"] == pytest.approx(3.0)
    assert averages["steps"] == 20
    assert averages["reached_share"] == pytest.approx(sum(f.probability >= LIKELY for f in found) / 3)


@pytest.mark.filterwarnings("ignore")
def test_an_edit_of_a_model_under_adapters_is_the_edit_of_the_merged_one(fresh: Callable) -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(fresh("llama").hf, config).eval()
    merged = load(deepcopy(adapted).merge_and_unload(), check=False)
    model = load(adapted, check=False)
    ids = torch.tensor([[5, 20, 30, 40, 50]])
    clean = model.run(ids)
    with edit(model, 0).applied(model), edit(merged, 0).applied(merged):
        torch.testing.assert_close(model.run(ids), merged.run(ids), atol=1e-4, rtol=1e-4)
        assert not torch.allclose(model.run(ids), clean, atol=1e-2)
    assert torch.equal(model.run(ids), clean)


def test_an_edit_of_an_offloaded_model_is_that_of_one_in_memory_and_on_disk_it_is_refused(
    fresh: Callable, tmp_path: Path
) -> None:
    accelerate = pytest.importorskip("accelerate")
    plain, ids = fresh("llama"), torch.tensor([[5, 20, 30, 40, 50]])
    away = load(accelerate.cpu_offload(deepcopy(plain.hf)), check=False)
    on_disk = load(accelerate.disk_offload(deepcopy(plain.hf), str(tmp_path)), check=False)
    clean = plain.run(ids)
    with edit(plain, 0).applied(plain), edit(away, 0).applied(away):
        assert torch.equal(away.run(ids), plain.run(ids))
        assert not torch.allclose(away.run(ids), clean, atol=1e-2)
    assert torch.equal(away.run(ids), clean)
    with pytest.raises(EditRefused, match="offloaded to disk"):
        edit(on_disk, 0).apply(on_disk)
