"""The optimiser of the bundled model: PyTorch's Muon, in the precision asked for."""

import copy

import torch

from interp.landmark.muon import Muon, orthogonalise


def test_the_steps_are_those_of_pytorch_within_half_precision() -> None:
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in ((8, 24), (24, 8), (8, 8))]
    theirs = copy.deepcopy(ours)
    steppers = (
        Muon(ours, lr=0.02, dtype=torch.float32),
        torch.optim.Muon(theirs, lr=0.02, weight_decay=0.01, adjust_lr_fn="match_rms_adamw", ns_steps=4),
    )
    before = [w.detach().clone() for w in ours]
    for _ in range(5):
        for w, v in zip(ours, theirs, strict=True):
            w.grad = torch.randn_like(w)
            v.grad = w.grad.clone()
        for stepper in steppers:
            stepper.step()
    for w, v, start in zip(ours, theirs, before, strict=True):
        assert (w - v).norm() < 0.02 * (w - start).norm()


def test_singular_values_come_near_one_whatever_they_were() -> None:
    torch.manual_seed(0)
    U, _, Vh = torch.linalg.svd(torch.randn(12, 30), full_matrices=False)
    g = U @ torch.diag(torch.logspace(-1, 2, 12)) @ Vh
    s = torch.linalg.svdvals(orthogonalise(g, 8, torch.float32))
    assert float(s.min()) > 0.6 and float(s.max()) < 1.3


def test_singular_vectors_stay_as_they_are() -> None:
    torch.manual_seed(0)
    g = torch.randn(6, 9)
    x = orthogonalise(g, 4, torch.float32)
    product = x.T @ g
    torch.testing.assert_close(product, product.T, atol=1e-4, rtol=0)
