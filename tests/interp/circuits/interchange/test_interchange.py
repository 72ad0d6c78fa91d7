"""A model made for a program has its variables where they were put, and a search finds the subspace."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from hooks import Activations, capture
from hooks.errors import InvalidArgument, UnknownName
from hooks.position import last
from hooks.site import mlp_out, resid_post, resid_pre
from interp.circuits.interchange import CausalModel, Place, align_subspace, interchange_accuracy, interchange_table
from interp.circuits.interchange.das import find_moved_part
from interp.circuits.known import equality, equality_program

FIRST, SECOND = 12, 13


def axis(*features: int) -> torch.Tensor:
    width = equality().model.d_model
    return torch.eye(width)[:, list(features)]


def pairs(count: int = 400) -> tuple[dict, dict]:
    causal, random = equality_program(), torch.Generator().manual_seed(3)
    return causal.draw(count, random), causal.draw(count, random)


def test_the_model_does_what_the_program_says_on_every_input() -> None:
    made = equality()
    inputs = made.causal.every_input()
    said = made.model.run(made.ids(inputs))[:, -1, made.answers].argmax(-1)
    assert torch.equal(said, made.causal.run(inputs)["same"])
    assert len(said) == 81


def test_a_variable_is_where_it_was_put_and_its_complement_says_what_the_program_does_with_all_else() -> None:
    made = equality()
    base, source = pairs()
    width = made.model.d_model
    rest = axis(*(i for i in range(width) if i != FIRST))
    assert interchange_accuracy(made, "first", Place(resid_post[0], last, axis(FIRST)), base, source) == 1.0
    assert interchange_accuracy(made, "second", Place(resid_post[0], last, axis(SECOND)), base, source) == 1.0
    complement = interchange_accuracy(made, "first", Place(resid_post[0], last, rest), base, source)
    causal = made.causal
    swapped = causal.interchange("second", base, source)
    assert complement == pytest.approx(float((swapped == causal.interchange("first", base, source)).double().mean()))
    assert complement < 0.7


def test_an_interchange_of_a_run_with_itself_changes_nothing() -> None:
    made = equality()
    base, _ = pairs(50)
    for site, basis in ((resid_post[0], None), (resid_post[0], axis(FIRST)), (mlp_out[1], None), (resid_pre[1], None)):
        assert interchange_accuracy(made, "first", Place(site, last, basis), base, base) == 1.0


def test_a_table_over_every_pair_tells_where_each_variable_is_and_that_it_is_nowhere_else() -> None:
    made = equality()
    whole = interchange_table(made, {"first": Place(resid_post[0], last, axis(FIRST)), "same": Place(mlp_out[1], last)})
    assert whole == {"first": 1.0, "same": 1.0}
    elsewhere = interchange_table(made, {"first": Place(resid_pre[0], last)})
    base, source = made.causal.every_input(), made.causal.every_input()
    n = len(base["a"])
    one = {name: value.repeat_interleave(n) for name, value in base.items()}
    other = {name: value.repeat(n) for name, value in source.items()}
    stays = made.causal.run(one)["same"] == made.causal.interchange("first", one, other)
    assert elsewhere["first"] == pytest.approx(float(stays.double().mean()))


@pytest.mark.usefixtures("unchecked")
def test_a_search_finds_the_subspace_up_to_rotation_and_every_control_stays_below() -> None:
    made = equality()
    found = align_subspace(made, "first", resid_post[0], 1, last, steps=120, lr=0.1, n_test=200)
    assert found.accuracy == 1.0
    assert found.place.basis is not None
    assert 0 < found.dormant < 0.1  # a part writes to the answer's own feature, where nothing is yet
    moved = find_moved_part(made, found.place, made.causal.every_input())
    moved = moved / moved.norm()
    projection, true = moved @ moved.T, (axis(FIRST) @ axis(FIRST).T).double()
    assert float((projection - true).norm()) < 0.05
    for control in (found.random_subspace, found.random_model, found.shuffled_labels, found.unchanged):
        assert control < 0.8
    assert "held-out pairs" in str(found)
    assert found.dimension == 1


@pytest.mark.usefixtures("unchecked")
def test_every_control_is_printed_and_a_subspace_of_all_dimensions_is_no_better_than_a_random_one() -> None:
    made = equality()
    width = made.model.d_model
    found = align_subspace(made, "first", resid_post[0], width, last, steps=2, n_test=100)
    assert found.accuracy == found.random_subspace  # both exchange the whole stream, whatever was learnt
    said = str(found)
    for words in (
        f"in {width} dimensions",
        f"IIA {found.accuracy:.3f} on 100 held-out pairs",
        f"random subspace {found.random_subspace:.3f}",
        f"random weights {found.random_model:.3f}",
        f"shuffled labels {found.shuffled_labels:.3f}",
        f"nothing changed {found.unchanged:.3f}",
        "along directions that no input moves",
    ):
        assert words in said


@pytest.mark.usefixtures("unchecked")
def test_where_the_variable_is_not_a_search_does_no_better_than_its_controls() -> None:
    made = equality()
    found = align_subspace(made, "first", resid_pre[0], 2, last, steps=40, lr=0.1, n_test=200)
    assert found.accuracy == found.unchanged == found.shuffled_labels  # the last token says nothing of a and b yet


@pytest.mark.usefixtures("unchecked")
def test_pairs_are_tested_whose_inputs_no_step_of_any_search_has_seen() -> None:
    made, steps, trained, tested = equality(), 7, set(), set()

    def ids(inputs: dict) -> torch.Tensor:
        (trained if len(inputs["a"]) == steps else tested).update(
            map(tuple, torch.stack([*inputs.values()], 1).tolist())
        )
        return made.ids(inputs)

    align_subspace(
        replace(made, ids=ids), "first", resid_post[0], 1, last, steps=10, batch_size=steps, n_test=50, seed=1
    )
    assert len(trained) > 20 < 4 * len(tested)
    assert not trained & tested


def test_a_program_that_cannot_be_run_is_refused() -> None:
    causal = equality_program()
    with pytest.raises(UnknownName, match="did you mean 'first'"):
        causal.interchange("frist", *pairs(2))
    with pytest.raises(InvalidArgument, match="after them"):
        CausalModel({"a": 2}, {"x": ("y",), "y": ("a",)}, {"x": torch.neg, "y": torch.neg})
    with pytest.raises(InvalidArgument, match="were not given"):
        causal.run({"a": torch.zeros(1).long()})
    with pytest.raises(InvalidArgument, match="use draw"):
        CausalModel({"a": 200, "b": 200}, {"x": ("a", "b")}, {"x": torch.add}).every_input()
    with pytest.raises(InvalidArgument, match="without heads"):
        align_subspace(equality(), "first", resid_post[0], 0, last)


@pytest.mark.parametrize("size", [1e-4, 1e4])
def test_what_inputs_move_is_the_same_in_any_unit_of_the_stream(size: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a planted basis: one direction the inputs move, one they do not."""
    made = equality()
    base, _ = pairs(60)
    still = next(i for i in range(made.model.d_model) if float(find_moved_part(
        made, Place(resid_post[0], last, axis(i)), base).norm()) < 1e-6)  # fmt: skip
    place = Place(resid_post[0], last, axis(FIRST, still))
    plain = find_moved_part(made, place, base)
    scaled = capture_scaled_by(size)
    monkeypatch.setattr("interp.circuits.interchange.das.capture", scaled)
    torch.testing.assert_close(find_moved_part(made, place, base), plain, rtol=0, atol=1e-6)
    assert plain.norm(dim=0).tolist() == pytest.approx([float(plain[:, 0].norm()), 0.0], abs=1e-6)
    assert float(plain[:, 0].norm()) > 0.5


def capture_scaled_by(size: float) -> Callable[..., Activations]:
    def scaled(*given: Any) -> Activations:
        acts = capture(*given)
        return replace(acts, values={site: size * value for site, value in acts.values.items()})

    return scaled


@pytest.mark.parametrize(("most", "pairs"), [(6561, 6561), (10_000, 6561), (6560, 6560), (50, 50)])
def test_every_pair_of_inputs_is_asked_where_they_are_no_more_than_may_be(
    monkeypatch: pytest.MonkeyPatch, most: int, pairs: int
) -> None:
    made, seen = equality(), []
    monkeypatch.setattr(
        "interp.circuits.interchange.interchange.interchange_accuracy",
        lambda _i, _v, _p, base, source: seen.append((base, source)) or 0.5,
    )
    assert interchange_table(made, {"first": Place(resid_post[0], last)}, most=most) == {"first": 0.5}
    rows = torch.stack([one[name] for one in seen[0] for name in "abcd"], 1)
    assert len(rows) == pairs and (pairs < 6561 or len(rows.unique(dim=0)) == pairs)
