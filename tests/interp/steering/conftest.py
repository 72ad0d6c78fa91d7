"""The tiny GPT-2, and a sparse autoencoder whose latents are set by hand."""

import pytest
import torch

from hooks import Model
from hooks.site import resid_post
from interp.sae import TopK


@pytest.fixture(scope="session")
def model(gpt2: Model) -> Model:
    return gpt2


@pytest.fixture
def sae(model: Model) -> TopK:
    """Orthonormal latents, encoder and decoder alike, so that clamping one leaves the others' activations alone."""
    made = TopK(model.d_model, model.d_model, k=model.d_model)
    rows = torch.linalg.qr(torch.randn(model.d_model, model.d_model, generator=torch.Generator().manual_seed(1))).Q
    with torch.no_grad():
        made.W_dec.copy_(rows)
        made.W_enc.copy_(rows.T)
        made.b_dec.copy_(torch.randn(model.d_model, generator=torch.Generator().manual_seed(2)))
        made.max_activation.fill_(2.0)
    made.site, made.fingerprint = resid_post[1], model.fingerprint
    return made
