"""JumpReLU: straight-through gradients of the threshold against the density they estimate, and what is refused."""

import math

import pytest
import torch

from interp.sae import JumpReLU
from interp.sae.architectures.jumprelu import jump, step


def density(t: float) -> float:
    return math.exp(-t * t / 2) / math.sqrt(2 * math.pi)


@pytest.mark.parametrize("theta", [0.3, 1.0])
def test_the_gradient_of_l0_by_a_threshold_is_minus_the_density_there(theta: float) -> None:
    z = torch.randn(400_000, 1, generator=torch.Generator().manual_seed(0))
    threshold = torch.tensor([theta], requires_grad=True)
    l0 = step(z, threshold, 0.1).sum(1).mean()
    assert float(torch.autograd.grad(l0, threshold)[0]) == pytest.approx(-density(theta), rel=0.05)


@pytest.mark.parametrize("theta", [0.3, 1.0])
def test_the_gradient_of_a_loss_by_a_threshold_is_that_of_its_expectation(theta: float) -> None:
    """d/dtheta E[c z 1(z > theta)] = -c theta pdf(theta), which the estimate approaches for any c."""
    z = torch.randn(400_000, 1, generator=torch.Generator().manual_seed(1))
    threshold = torch.tensor([theta], requires_grad=True)
    loss = 3.0 * jump(z, threshold, 0.1).sum(1).mean()
    assert float(torch.autograd.grad(loss, threshold)[0]) == pytest.approx(-3 * theta * density(theta), rel=0.05)


def test_latents_pass_whole_above_their_threshold_and_take_their_gradient_along() -> None:
    z = torch.tensor([[0.2, 0.5, 0.6, -1.0]], requires_grad=True)
    f = jump(z, torch.full((4,), 0.5), 0.1)
    assert f.tolist() == [[0.0, 0.0, pytest.approx(0.6), 0.0]]
    assert torch.autograd.grad(f.sum(), z)[0].tolist() == [[0.0, 0.0, 1.0, 0.0]]


def test_thresholds_stay_at_or_above_zero_and_in_float32() -> None:
    sae = JumpReLU(4, 8).to(torch.bfloat16)
    assert sae.threshold.dtype == torch.float32 and sae.W_enc.dtype == torch.bfloat16
    with torch.no_grad():
        sae.threshold -= 1
    sae.objective().constrain()
    assert bool((sae.threshold == 0).all())


def test_a_penalty_that_does_not_exist_or_lacks_its_target_is_refused() -> None:
    with pytest.raises(ValueError, match="no penalty is called 'steps'; did you mean 'step'"):
        JumpReLU(4, 8, penalty="steps")
    with pytest.raises(ValueError, match="penalty is 'quadratic' and target_l0 None"):
        JumpReLU(4, 8, penalty="quadratic")
    with pytest.raises(ValueError, match=r"penalty is 'step' and target_l0 3"):
        JumpReLU(4, 8, target_l0=3)
    with pytest.raises(ValueError, match="bandwidth is 0.* a bandwidth above 0 and a threshold of at least 0"):
        JumpReLU(4, 8, bandwidth=0.0)
