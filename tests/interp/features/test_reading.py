"""Reading texts: every token's code, whatever the architecture and however the texts are batched."""

import torch

from hooks import Model
from hooks.site import resid_post
from interp.features.reading import encode_texts
from interp.sae import Standard

TEXTS = ["a b c d e f g h", "a", "b c", "h h h h", "c", "d e"]


def test_codes_of_batches_with_different_numbers_of_latents_are_those_of_one_batch(gpt2: Model) -> None:
    sae = Standard(gpt2.d_model, 24)
    sae.sites = (resid_post[1],)
    with torch.no_grad():
        sae.b_enc.fill_(-0.4)
    one, each = encode_texts(sae, gpt2, TEXTS), encode_texts(sae, gpt2, TEXTS, batch_size=1)
    dense = [torch.zeros(len(r.x), 24).scatter_add(1, r.indices, r.values) for r in (one, each)]
    assert (dense[0] > 0).sum(1).unique().numel() > 1
    torch.testing.assert_close(dense[0], dense[1])
