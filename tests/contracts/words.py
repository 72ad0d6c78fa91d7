"""A small world in whole words: a tokenizer, models of two families, and the facts they are taught."""

from functools import cache
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from hooks import Model, load

CITIES = {
    "Rome": ("Italy", "Latin"),
    "Milan": ("Italy", "Latin"),
    "Oslo": ("Norway", "Norse"),
    "Bergen": ("Norway", "Norse"),
    "Lima": ("Peru", "Quechua"),
    "Cusco": ("Peru", "Quechua"),
    "Lyon": ("France", "French"),
    "Kyoto": ("Japan", "Ainu"),
    "New York": ("North America", "Dutch"),
}
PLACE, WORDS = ("{} is in", "we know {} lies in"), ("{} speaks",)
CONTEXTS = ("", "well . ", "so they say . ")
FILLER = ("well . so they say . and then we know", "they speaks . is lies then in so", "know . well and say . they")
END = "[end]"


def sentences() -> list[str]:
    """Every fact in every phrasing, after every context."""
    said = [t.format(city) + f" {place}" for city, (place, _) in CITIES.items() for t in PLACE]
    said += [t.format(city) + f" {speech}" for city, (_, speech) in CITIES.items() for t in WORDS]
    return [context + text for context in CONTEXTS for text in said]


def tokenizer() -> Any:
    """One token per word, after a beginning-of-text token."""
    from transformers import PreTrainedTokenizerFast

    words = sorted({word for text in (*sentences(), *FILLER) for word in text.split()})
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*words, END])}, unk_token=END))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing(single=f"{END} $A", special_tokens=[(END, len(words))])
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=END, eos_token=END)


def untaught(family: str, seed: int = 0) -> Model:
    """A random model of two layers: GPT-2 with Conv1D and tied embeddings, Llama with Linear and a gate."""
    import transformers as hf

    words = tokenizer()
    n, size = len(words), {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"vocab_size": n, "bos_token_id": n - 1, "eos_token_id": n - 1, "max_position_embeddings": 48}
    torch.manual_seed(seed)
    if family == "gpt2":
        made: Any = hf.GPT2LMHeadModel(hf.GPT2Config(**size, **ends, n_inner=160))
    else:
        made = hf.LlamaForCausalLM(hf.LlamaConfig(**size, **ends, intermediate_size=160, num_key_value_heads=2))
    return load(made.eval(), words)


def taught(family: str, steps: int = 150) -> Model:
    """A model that knows every fact."""
    model = untaught(family)
    model.hf.load_state_dict(_learnt(family, steps))
    return load(model.hf, model.tokenizer)


@cache
def _learnt(family: str, steps: int) -> dict[str, torch.Tensor]:
    """The weights of a model after so many steps on every sentence."""
    model = untaught(family)
    tokens = model.tokens(sentences())
    adam = torch.optim.AdamW(model.hf.parameters(), lr=1e-2, weight_decay=0.01)
    inputs, targets = tokens.mask[:, :-1], tokens.mask[:, 1:]
    with torch.enable_grad():
        for _ in range(steps):
            logits = model.run(tokens)[:, :-1][inputs & targets]
            loss = torch.nn.functional.cross_entropy(logits, tokens.ids[:, 1:][inputs & targets])
            adam.zero_grad()
            loss.backward()
            adam.step()
    return model.hf.state_dict()
