"""Tiny random models of every family, and a tokenizer that spells every character, made in code."""

from collections.abc import Callable, Iterator
from functools import cache
from threading import RLock
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from tqdm import tqdm

from hooks import Model, Network, load
from interp.postcard import load_net, new_net
from tests import shapes

torch.set_num_threads(1)
tqdm.set_lock(RLock())  # a child killed while it writes must not keep a lock that processes share
END = "<|endoftext|>"
FAMILIES = ("gpt2", "gpt_neox", "llama", "gemma2", "qwen2", "bert")
DECODERS = tuple(family for family in FAMILIES if family != "bert")


@pytest.fixture(autouse=True)
def the_mode_of_gradients_is_given_back() -> Iterator[None]:
    """A test that leaves gradients off fails itself, and not those that come after it."""
    yield
    left = torch.is_grad_enabled()
    torch.set_grad_enabled(True)
    assert left, "this test left gradients off"


@pytest.fixture(scope="module")
def unchecked() -> Iterator[None]:
    """Thousands of steps without a check of every shape, which costs more than they do; shorter tests check them."""
    with shapes.unchecked():
        yield


@pytest.fixture(scope="module")
def convnet() -> Network:
    """An untrained small convnet of the bundled pictures."""
    net: Any = load_net(new_net("convnet", small=True))
    return net


@pytest.fixture(scope="module")
def tower() -> Network:
    """The picture tower of an untrained small CLIP of the bundled pictures."""
    clip: Any = load_net(new_net("clip", small=True))
    return clip.image


@cache
def tiny_tokenizer(side: str = "right") -> Any:
    """A byte-level tokenizer without merges: one token per byte, after a beginning-of-text token."""
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate([*letters, END])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.post_processor = processors.TemplateProcessing(single=f"{END} $A", special_tokens=[(END, vocabulary[END])])
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=END, eos_token=END, padding_side=side)


def tiny_hf(family: str, seed: int = 0, **changes: Any) -> Any:
    """A random Hugging Face model of a family: 3 layers, width 32, with every peculiarity switched on."""
    import transformers as hf

    common = {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "vocab_size": 257,
        "max_position_embeddings": 96,
        "bos_token_id": 256,
        "eos_token_id": 256,
        "pad_token_id": 256,
    }
    grouped = {**common, "num_key_value_heads": 2}
    kinds: dict[str, tuple[Any, Any, dict[str, Any]]] = {
        "gpt2": (hf.GPT2LMHeadModel, hf.GPT2Config, {**common, "n_inner": 48}),
        "gpt_neox": (hf.GPTNeoXForCausalLM, hf.GPTNeoXConfig, common),
        "llama": (hf.LlamaForCausalLM, hf.LlamaConfig, {**grouped, "attention_bias": True, "mlp_bias": True}),
        "gemma2": (
            hf.Gemma2ForCausalLM,
            hf.Gemma2Config,
            {**grouped, "head_dim": 16, "sliding_window": 8, "query_pre_attn_scalar": 16},
        ),
        "qwen2": (hf.Qwen2ForCausalLM, hf.Qwen2Config, grouped),
        "qwen3": (hf.Qwen3ForCausalLM, hf.Qwen3Config, {**grouped, "head_dim": 16}),
        "olmo2": (hf.Olmo2ForCausalLM, hf.Olmo2Config, grouped),
        "bert": (hf.BertForMaskedLM, hf.BertConfig, {**common, "pad_token_id": 0}),
    }
    make, config, settings = kinds[family]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make(config(**(settings | changes))).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * (0.2 if parameter.ndim > 1 else 0.1))
    return model


@cache
def tiny(family: str, side: str = "right") -> Model:
    return load(tiny_hf(family), tiny_tokenizer(side))


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """The tiny tokenizer, padding on the right."""
    return tiny_tokenizer()


@pytest.fixture(scope="session")
def hf_model() -> Callable[..., Any]:
    """Makes a fresh random Hugging Face model: `hf_model("llama", seed=1)`."""
    return tiny_hf


@pytest.fixture(scope="session")
def fresh() -> Callable[..., Model]:
    """Makes a fresh loaded model, to be changed at will: `fresh("gpt2")`."""
    return lambda family, **changes: load(tiny_hf(family, **changes), tiny_tokenizer())


@pytest.fixture(scope="session")
def padded_left() -> Callable[[Model], Model]:
    """The twin of a shared tiny model whose tokenizer pads on the left."""
    return lambda model: tiny(model.hf.config.model_type, "left")


@pytest.fixture(scope="session", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> Model:
    """A shared tiny model of each family in turn; leave its weights as they are."""
    return tiny(request.param)


@pytest.fixture(scope="session", params=DECODERS)
def decoder(request: pytest.FixtureRequest) -> Model:
    """A shared tiny causal language model of each family in turn; leave its weights as they are."""
    return tiny(request.param)


@pytest.fixture(scope="session")
def gpt2() -> Model:
    """The shared tiny GPT-2; leave its weights as they are."""
    return tiny("gpt2")


@pytest.fixture(scope="session")
def llama() -> Model:
    """The shared tiny Llama; leave its weights as they are."""
    return tiny("llama")
