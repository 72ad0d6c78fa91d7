"""A tiny random GPT-2 that reads bytes, and a sparse autoencoder whose latents are set by hand."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from hooks import Model, load
from hooks.site import resid_post
from interp.sae import TopK

BOS = "<|endoftext|>"


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, a beginning-of-text token before each text."""
    vocab = {BOS: 0} | {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()), start=1)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS, eos_token=BOS, pad_token=BOS)


@pytest.fixture(scope="session")
def model() -> Model:
    torch.manual_seed(0)
    shape = {"n_layer": 3, "n_head": 2, "n_embd": 32, "n_positions": 128, "vocab_size": 257}
    config = GPT2Config(**shape, bos_token_id=0, eos_token_id=0)
    return load(GPT2LMHeadModel(config), byte_tokenizer())


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
