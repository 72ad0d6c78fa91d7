"""An autoencoder on the embeddings of a tiny model, each latent of which fires on one letter, with set strengths."""

import pytest
import torch

from hooks import Model
from hooks.site import embed
from interp.sae import TopK

LETTERS = "abcdefghijklmnop ."


@pytest.fixture
def letters(gpt2: Model) -> TopK:
    """Latent i fires on LETTERS[i] and on nothing else in them, by 1 + i / 10."""
    ids = torch.tensor([int(gpt2.tokens(letter).ids[0, -1]) for letter in LETTERS])
    rows = gpt2.hf.transformer.wte.weight.detach()[ids]
    sae = TopK(gpt2.d_model, len(LETTERS), k=4)
    strength = 1 + torch.arange(len(LETTERS)) / 10
    with torch.no_grad():
        sae.W_enc.copy_(torch.linalg.pinv(rows) * strength)
        sae.W_dec.copy_(rows / strength[:, None])
        sae.b_enc.fill_(-1e-4)  # so that rounding turns no latent on
        sae.max_activation.copy_(strength)
    sae.site, sae.model_name, sae.fingerprint = embed, gpt2.name, gpt2.fingerprint
    return sae
