"""The gated autoencoder: which parameters each term of its loss moves."""

import torch

from interp.sae import Gated


def test_the_gates_own_reconstruction_teaches_the_gate_and_not_the_decoder() -> None:
    sae = Gated(8, 24, coefficient=0.2)
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=g)
    x = torch.randn(30, 8, generator=g)
    W_dec, b_dec = sae.W_dec.detach().clone().requires_grad_(), sae.b_dec.detach().clone().requires_grad_()
    pi = (x - b_dec) @ sae.W_enc
    on, gate = (pi + sae.b_gate > 0).float(), (pi + sae.b_gate).relu()
    f = on * (sae.r_mag.exp() * pi + sae.b_mag).relu()
    main = (x - f @ W_dec - b_dec).pow(2).sum(1).mean()
    rest = 0.2 * gate.sum(1).mean() + (x - gate @ sae.W_dec.detach() - sae.b_dec.detach()).pow(2).sum(1).mean()
    expected = torch.autograd.grad(main + rest, [W_dec, b_dec])
    step = sae.objective().gradients(x, torch.zeros(24, dtype=torch.bool))
    assert torch.allclose(step.loss, (main + rest).detach(), rtol=1e-5)
    assert sae.W_dec.grad is not None and torch.allclose(sae.W_dec.grad, expected[0], atol=1e-5)
    assert sae.b_dec.grad is not None and torch.allclose(sae.b_dec.grad, expected[1], atol=1e-5)
