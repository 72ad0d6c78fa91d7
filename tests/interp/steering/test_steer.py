"""Adding a direction in units of its own scale, and the random direction it is compared with."""

import pytest
import torch

from hooks import Direction, Model, capture
from hooks.site import resid_post
from interp.steering import add_direction, steer


@pytest.fixture
def direction(model: Model) -> Direction:
    vector = torch.randn(model.d_model, generator=torch.Generator().manual_seed(7))
    return Direction(vector, resid_post[1], "by hand", scale=3.0, fingerprint=model.fingerprint)


def test_a_dose_of_zero_changes_no_bit(model: Model, direction: Direction) -> None:
    plain = model.run(["a bridge", "fog"])
    with steer(model, direction, 0.0):
        assert torch.equal(model.run(["a bridge", "fog"]), plain)


def test_a_dose_moves_the_projection_by_that_many_training_scales(model: Model, direction: Direction) -> None:
    plain = capture(model, "fog", [resid_post[1]]).flat(resid_post[1])
    with steer(model, direction, 2.0):
        steered = capture(model, "fog", [resid_post[1]]).flat(resid_post[1])
    assert torch.allclose((steered - plain) @ direction.unit, torch.full((3,), 2.0 * 3.0), atol=1e-4)


def test_the_length_of_the_direction_does_not_matter(model: Model, direction: Direction) -> None:
    with steer(model, direction, 2.0):
        once = model.run("fog")
    with steer(model, direction * 10.0, 2.0):
        assert torch.allclose(model.run("fog"), once, atol=1e-5)


def test_opposite_doses_undo_each_other(model: Model, direction: Direction) -> None:
    plain = model.run("fog")
    with steer(model, direction, 2.0), steer(model, direction, -2.0):
        assert torch.allclose(model.run("fog"), plain, atol=1e-5)


def test_an_unembedding_row_added_to_the_last_stream_moves_its_logit_as_the_final_norm_predicts(model: Model) -> None:
    head, norm = model.hf.lm_head.weight.detach(), model.hf.transformer.ln_f
    site = resid_post[model.n_layers - 1]
    direction = Direction(head[90], site, "unembedding row 90", scale=float(head[90].norm()))
    x = capture(model, "fog", [site])[site][0, -1].double() + 4.0 * head[90].double()
    centred = x - x.mean()
    normed = centred / (centred.pow(2).mean() + norm.eps).sqrt() * norm.weight.double() + norm.bias.double()
    with steer(model, direction, 4.0):
        steered = model.run("fog")[0, -1].detach()
    assert float(steered[90]) == pytest.approx(float((normed @ head[90].double()).detach()), abs=1e-4)
    assert steered[90] > model.run("fog")[0, -1, 90] + 0.1


def test_the_control_has_the_norm_of_the_vector_and_shares_nothing_else_with_it(direction: Direction) -> None:
    steering = add_direction(direction)
    vectors = torch.stack([steering.control(seed).vector for seed in range(200)])
    assert torch.allclose(vectors.norm(dim=1), steering.vector.norm().expand(200), rtol=1e-6)
    cosines = vectors @ steering.vector / steering.vector.norm() ** 2
    assert abs(float(cosines.mean())) < 0.05
    assert float(cosines.std()) == pytest.approx(len(steering.vector) ** -0.5, rel=0.25)


def test_a_control_is_the_same_for_the_same_seed(direction: Direction) -> None:
    steering = add_direction(direction)
    assert torch.equal(steering.control(3).vector, steering.control(3).vector)
    assert steering.control(3).source == "random direction of equal norm, seed 3"


def test_a_direction_of_another_model_is_refused(model: Model, direction: Direction) -> None:
    stranger = Direction(direction.vector, direction.site, "by hand", 1.0, "another")
    with pytest.raises(ValueError, match="another model"), steer(model, stranger, 1.0):
        model.run("fog")


def test_nothing_is_left_after_the_block_even_when_it_fails(model: Model, direction: Direction) -> None:
    plain = model.run("fog")
    with pytest.raises(KeyError), steer(model, direction, 5.0):
        model.run("fog")
        raise KeyError
    assert torch.equal(model.run("fog"), plain)
