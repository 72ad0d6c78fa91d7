"""Experts: a mixture of eight experts a layer, two for each token, on the encyclopaedia's corpus.

The planted truth is the genre and the language of every token, which `interp.landmark.corpus` says.
"""

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.landmark.documents import documents
from interp.landmark.tokenizer import FILE, read_tokenizer
from interp.worlds.recipe import BEGIN, Rows, World

if TYPE_CHECKING:
    from transformers import MixtralForCausalLM

LENGTH, ROWS, CHOSEN = 128, 16, 2
BALANCE = 0.01


def balance_loss(logits: Sequence[Float[Tensor, "n expert"]], chosen: int = CHOSEN) -> Float[Tensor, ""]:
    """How unevenly the experts of each layer are used: the mean over layers of E Σ_e f_e P_e, 1 at its least.

    f_e is the share of all choices that expert e gets and P_e its mean probability, both within one layer. Pooled over
    layers, as some implementations do, four layers that each use another expert alone would pass for balanced.

    Examples:
        >>> float(balance_loss([torch.zeros(6, 4)], chosen=4))
        1.0
    """
    each = []
    for layer in logits:
        p, n = layer.float().softmax(-1), layer.shape[-1]
        f = torch.nn.functional.one_hot(layer.topk(chosen).indices, n).float().sum(1).mean(0) / chosen
        each.append(n * (f * p.mean(0)).sum())
    return torch.stack(each).mean()


def _balance(given: Any) -> Float[Tensor, ""]:
    return BALANCE * balance_loss(given.router_logits)


def draw_experts(seed: int, step: int) -> Rows:
    """Documents of the corpus, one after the other, cut into rows."""
    encode, needed = read_tokenizer().encode_batch, ROWS * LENGTH
    stream, ids = documents(seed * 100_000 + step), []
    while len(ids) < needed:
        ids += [i for one in encode([d.text for d in islice(stream, 32)]) for i in one.ids]
    rows = torch.tensor(ids[:needed]).view(ROWS, LENGTH)
    weight = (rows > 0).float()
    weight[:, 0] = 0.0
    return Rows(rows, weight)


def experts_tokenizer():  # noqa: ANN201
    """The bundled model's tokenizer."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_file=str(FILE), bos_token=BEGIN, eos_token=BEGIN, pad_token=BEGIN, clean_up_tokenization_spaces=False
    )


def new_experts(seed: int) -> "MixtralForCausalLM":
    """The untrained model: a Mixtral of four layers, 128 wide, with eight experts of 64."""
    del seed
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        vocab_size=3072, hidden_size=128, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, num_local_experts=8, num_experts_per_tok=CHOSEN, max_position_embeddings=256,
        tie_word_embeddings=True, output_router_logits=True, router_aux_loss_coef=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return MixtralForCausalLM(config)


EXPERTS = World(
    "experts", new_experts, draw_experts, experts_tokenizer, steps=450, rate=3e-3, n_checkpoints=10, loss=_balance
)
