"""What a tokenizer or a processor returned is read whole: segments, pictures, and what a decoder reads."""

from typing import Any

import pytest
import torch

from benchmarks.tiny_models import tiny_model
from hooks import Model, capture, intervene, load, stream
from hooks.errors import InvalidArgument
from hooks.interventions import zero
from hooks.position import index, last
from hooks.site import decoder, encoder, logits, resid_post


@pytest.fixture(scope="module")
def llava() -> Model:
    import transformers as hf

    text = hf.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64,
    )  # fmt: skip
    sees = hf.CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=8, patch_size=4
    )
    config = hf.LlavaConfig(text_config=text, vision_config=sees, image_token_id=60)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return load(hf.LlavaForConditionalGeneration(config).eval())


@pytest.fixture(scope="module")
def translator() -> Model:
    return load(tiny_model("bart", "BartForConditionalGeneration"))


def test_the_segments_of_pairs_reach_the_model(hf_model: Any, tokenizer: Any) -> None:
    model = load(hf_model("bert"), tokenizer)
    tokens = model.tokens(["Fog", "The bay"])
    encoding = {"input_ids": tokens.ids, "attention_mask": tokens.mask.long()}
    segments = torch.ones_like(encoding["input_ids"])
    segments[:, 0] = 0
    given = {**encoding, "token_type_ids": segments}
    with torch.no_grad():
        wanted = model.hf(**given).logits
    real = encoding["attention_mask"].bool()
    torch.testing.assert_close(model.run(given)[real], wanted[real], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(model.run(given)[real], model.run(encoding)[real], atol=1e-3)
    whole = capture(model, given, logits)
    apart = capture(model, given, logits, batch_size=1)
    torch.testing.assert_close(whole[logits][real], apart[logits][real], atol=1e-5, rtol=1e-4)


def test_pictures_reach_a_model_that_sees(llava: Model) -> None:
    ids = torch.tensor([[1, 60, 60, 60, 60, 5, 6], [1, 60, 60, 60, 60, 9, 7]])
    pixels = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}
    with torch.no_grad():
        wanted = llava.hf(**given, output_hidden_states=True)
    acts = capture(llava, given, [resid_post[0], logits])
    assert torch.equal(acts[logits], wanted.logits) and torch.equal(acts[resid_post[0]], wanted.hidden_states[1])
    parts = [part[logits] for part in stream(llava, given, logits, batch_size=1)]
    torch.testing.assert_close(torch.cat(parts), wanted.logits, atol=1e-5, rtol=1e-4)
    with intervene(llava, {resid_post[0]: zero(at=last)}) as receipt:
        llava.run(given)
    assert receipt[resid_post[0]].prefill_tokens == 2
    assert torch.equal(capture(llava, ids[:, 5:], logits)[logits], llava.hf(ids[:, 5:]).logits)


def test_what_a_model_does_not_take_is_refused_by_name(gpt2: Model) -> None:
    ids = torch.tensor([[5, 6]])
    with pytest.raises(InvalidArgument, match=r"takes no pixel_values: leave it out"):
        gpt2.run({"input_ids": ids, "pixel_values": torch.zeros(1, 3, 8, 8)})
    with pytest.raises(InvalidArgument, match="takes no decoder_input_ids"):
        gpt2.run({"input_ids": ids, "decoder_input_ids": ids})
    with pytest.raises(InvalidArgument, match="return_tensors='pt'"):
        gpt2.run({"input_ids": [[5, 6]], "token_type_ids": [[0, 0]]})


def test_pictures_of_several_to_a_text_are_not_cut_apart(llava: Model) -> None:
    ids = torch.tensor([[1, *[60] * 8, 5], [1, *[60] * 8, 7]])
    given = {"input_ids": ids, "pixel_values": torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))}
    assert torch.equal(capture(llava, given, logits)[logits], llava.hf(**given).logits)
    with pytest.raises(InvalidArgument, match="pixel_values has 4 rows for 2 texts"):
        capture(llava, given, logits, batch_size=1)


def test_a_decoder_reads_what_it_is_given_and_its_positions_are_of_that(translator: Model) -> None:
    random = torch.Generator().manual_seed(0)
    ids, read = (torch.randint(6, 90, (3, n), generator=random) for n in (7, 4))
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "decoder_input_ids": read}
    with torch.no_grad():
        wanted = translator.hf(**given, output_hidden_states=True, use_cache=False)
    sites = [encoder.resid_post[0], decoder.resid_post[0], logits]
    for batch_size in (3, 2):
        acts = capture(translator, given, sites, batch_size=batch_size)
        torch.testing.assert_close(acts[logits], wanted.logits, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(acts[encoder.resid_post[0]], wanted.encoder_hidden_states[1], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(acts[decoder.resid_post[0]], wanted.decoder_hidden_states[1], atol=1e-5, rtol=1e-4)
        assert torch.equal(acts.flat(decoder.resid_post[0], last), acts[decoder.resid_post[0]][:, 3])
        assert torch.equal(acts.flat(encoder.resid_post[0], last), acts[encoder.resid_post[0]][:, 6])
    with intervene(translator, {decoder.resid_post[0]: zero(at=index(1)), encoder.resid_post[0]: zero(at=last)}) as got:
        changed = translator.run(given)
    assert got[decoder.resid_post[0]].prefill_tokens == got[encoder.resid_post[0]].prefill_tokens == 3
    assert not torch.equal(changed, wanted.logits)


def test_token_ids_alone_are_read_by_a_decoder_moved_right_by_one(translator: Model) -> None:
    ids = torch.tensor([[7, 8, 9, 10]])
    start = translator.hf.config.decoder_start_token_id
    read = torch.tensor([[start, 7, 8, 9]])
    assert torch.equal(translator.run(ids), translator.run({"input_ids": ids, "decoder_input_ids": read}))
