"""A direction is a vector with its provenance, and bad ones cannot be made."""

import math
from pathlib import Path

import pytest
import torch

from hooks import Direction
from hooks.site import mlp_out, resid_post

V = torch.tensor([3.0, 4.0])


def test_unit_has_length_one_and_points_the_same_way() -> None:
    assert torch.equal(Direction(V, resid_post[1], "by hand").unit, torch.tensor([0.6, 0.8]))


def test_directions_add_subtract_scale_and_turn_as_their_vectors_do() -> None:
    a, b = Direction(V, resid_post[1], "a", 2.0, "f"), Direction(torch.tensor([1.0, -1.0]), resid_post[1], "b", 5.0)
    assert torch.equal((a + b).vector, torch.tensor([4.0, 3.0]))
    assert torch.equal((a - b).vector, torch.tensor([2.0, 5.0]))
    assert torch.equal((2 * a).vector, (a * 2).vector) and torch.equal((a * 2).vector, torch.tensor([6.0, 8.0]))
    assert (a + b).scale == (b - a).scale == 5.0
    assert torch.equal((-a).vector, -V)
    assert (a + b).source == "(a + b)"
    assert (a - b).fingerprint == (b - a).fingerprint == (a + a).fingerprint == "f" and (b + b).fingerprint is None
    assert (-a).site == a.site


def test_the_cosine_knows_neither_length_nor_order() -> None:
    a, b = Direction(V, resid_post[1], "a"), Direction(torch.tensor([4.0, -3.0]), mlp_out[0], "b")
    assert a.cosine(3 * a) == pytest.approx(1.0)
    assert a.cosine(-a) == pytest.approx(-1.0)
    assert a.cosine(b) == b.cosine(a) == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_unit_vector_has_length_one_to_float32_whatever_the_vectors_type(dtype: torch.dtype) -> None:
    vector = (100 * torch.randn(768, generator=torch.Generator().manual_seed(0))).to(dtype)
    one = Direction(vector, resid_post[1], "by hand")
    assert one.unit.dtype == torch.float32
    assert float(one.unit.norm()) == pytest.approx(1.0, abs=1e-6) == one.cosine(one)


def test_a_direction_comes_back_from_disk_as_it_was(tmp_path: Path) -> None:
    one = Direction(V.to(torch.bfloat16), mlp_out[3], "sae latent 17", 2.5, "abc")
    one.save(tmp_path / "one.safetensors")
    back = Direction.load(tmp_path / "one.safetensors")
    assert torch.equal(back.vector, one.vector)
    assert (back.site, back.source, back.scale, back.fingerprint) == (mlp_out[3], "sae latent 17", 2.5, "abc")


def test_a_file_of_something_else_is_no_direction(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"vector": V}, tmp_path / "one.safetensors")
    with pytest.raises(ValueError, match="holds no direction: expected a file written by Direction.save"):
        Direction.load(tmp_path / "one.safetensors")


def test_a_direction_needs_a_finite_vector_of_positive_length_and_a_positive_scale() -> None:
    for vector in (torch.zeros(2), torch.tensor([math.nan, 1.0]), torch.tensor([math.inf, 1.0])):
        with pytest.raises(ValueError, match="a direction needs a finite vector of positive length"):
            Direction(vector, resid_post[0], "bad")
    for scale in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="scale is the largest projection seen, above 0; got"):
            Direction(V, resid_post[0], "bad", scale)


def test_directions_of_different_widths_or_models_do_not_mix() -> None:
    a = Direction(V, resid_post[1], "a", fingerprint="f")
    with pytest.raises(ValueError, match="have different widths: only directions of one width compare"):
        a.cosine(Direction(torch.ones(3), resid_post[1], "b"))
    with pytest.raises(ValueError, match="come from different models, so their sum means nothing"):
        a + Direction(V, resid_post[1], "b", fingerprint="g")
