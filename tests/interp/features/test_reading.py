"""Reading texts: every token's code, whatever the architecture and however the texts are batched."""

import torch

from hooks import Model
from hooks.site import resid_post
from interp.features.reading import _stack, encode_again, encode_texts
from interp.sae import Standard, TopK

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


def test_tokens_know_their_text_and_characters_and_can_be_encoded_again(gpt2: Model) -> None:
    sae, other = (TopK(gpt2.d_model, 24, k=k, seed=k) for k in (2, 3))
    sae.sites = other.sites = (resid_post[1],)
    reading = encode_texts(sae, gpt2, [*TEXTS, "", "é"], batch_size=4)
    each = [(number, place) for number, text in enumerate(TEXTS) for place in range(len(text))]
    each += [(len(TEXTS) + 1, 0)] * 2  # two bytes of one character
    assert list(zip(reading.text.tolist(), reading.start.tolist(), strict=True)) == each
    assert reading.end.tolist() == [place + 1 for _, place in each] and reading.d_sae == 24
    again, alone = encode_again(other, reading), encode_texts(other, gpt2, [*TEXTS, "", "é"])
    dense = [torch.zeros(len(r.x), 24).scatter_add(1, r.indices, r.values) for r in (again, alone)]
    torch.testing.assert_close(dense[0], dense[1])
    assert torch.equal(again.text, reading.text) and (dense[0] > 0).sum(1).max() == 3


def test_codes_of_other_widths_are_put_below_one_another_with_spare_places_of_no_value() -> None:
    parts = [torch.tensor([[1.0]]), torch.tensor([[2.0, 3.0, 4.0]]), torch.tensor([[5.0, 6.0]])]
    assert _stack(parts).tolist() == [[1.0, 0.0, 0.0], [2.0, 3.0, 4.0], [5.0, 6.0, 0.0]]
    assert _stack([torch.tensor([1]), torch.tensor([2, 3])]).tolist() == [1, 2, 3]
