"""Logits as targets of a graph: which, how likely each is, and what they read of the last stream."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import Model
from hooks.direction import wide
from hooks.errors import ContractBroken, InvalidArgument
from hooks.unembed import check_head
from hooks.weights import bias_of, matrix_of
from interp.circuits.metric import Word, token_ids
from interp.graphs.cotangents import LOGITS, Targets
from interp.graphs.local_model import LocalModel, constant_of

MOST, ENOUGH = 10, 0.95
"""At most so many logits, or as many as have this probability together."""


@dataclass(frozen=True, eq=False)
class ChosenLogits:
    """The logits that a graph explains.

    Attributes:
        ids: their tokens.
        p: the probability of each.
        logit: each, less the mean of all logits, before any soft cap.
    """

    ids: Int[Tensor, "n"]
    p: Float[Tensor, "n"]
    logit: Float[Tensor, "n"]


@dataclass(frozen=True, eq=False)
class Unembedding:
    """What a model does to its normalised last stream, but for a soft cap: x W_U + b."""

    W_U: Float[Tensor, "d_model vocab"]
    b: Float[Tensor, "vocab"]


def unembedding_of(model: Model) -> Unembedding:
    """Return the linear part of the unembedding, its scale included.

    Raises:
        InvalidArgument: the model has no output embeddings, or a head that does more than unembed.

    Examples:
        ```python
        unembedding_of(model).W_U.shape
        ```
    """
    hf = model.hf
    check_head(hf)
    if model.head is not None:
        raise InvalidArgument(f"the head of {model.name} does more than unembed, so its logits are not linear")
    out = hf.get_output_embeddings()
    W, bias = wide(matrix_of(out).detach()), bias_of(out)
    b = W.new_zeros(W.shape[1]) if bias is None else bias.detach().to(W)
    decoder = hf.get_decoder() if hasattr(hf, "get_decoder") else None
    narrower = getattr(decoder, "project_out", None)
    if narrower is not None:
        W = matrix_of(narrower).detach().to(W) @ W
    factor = getattr(hf, "logit_scale", None) or 1.0 / getattr(hf.config.get_text_config(), "logits_scaling", 1.0)
    return Unembedding(W * factor, b * factor)


@torch.no_grad()
def choose_logits(local: LocalModel, unembedding: Unembedding, words: Sequence[Word] | None) -> ChosenLogits:
    """Return the likeliest next tokens, or those of some words, with what each has.

    Raises:
        InvalidArgument: a word that is not one token, or one that is named twice.
        ContractBroken: logits that are another function of the last stream.

    Examples:
        ```python
        choose_logits(local, unembedding_of(model), [" San"])
        ```
    """
    model, x = local.model, local.final[-1:]
    said = wide(model.unembed(x.to(model.dtype)))[0]
    logit = (local.final_norm(x.to(model.dtype)).to(x) @ unembedding.W_U + unembedding.b)[0]
    cap = getattr(model.hf.config.get_text_config(), "final_logit_softcapping", None)
    ours = logit if cap is None else (logit / cap).tanh() * cap
    tolerance = 1e-3 if model.dtype.itemsize >= 4 else 5e-2
    if float((ours - said).norm()) > tolerance * float(said.norm()):
        raise ContractBroken(f"the logits of {model.name} are no linear function of its normalised last stream")
    p = said.softmax(-1)
    ids = _likeliest(p) if words is None else token_ids(model, list(words))
    if len(ids.unique()) < len(ids):
        raise InvalidArgument(f"a target was given twice among {list(words or [])}: name each once")
    return ChosenLogits(ids, p[ids], (logit - logit.mean())[ids])


def _likeliest(p: Tensor) -> Tensor:
    best = p.topk(min(MOST, len(p)))
    return best.indices[: 1 + int((best.values.cumsum(0) < ENOUGH).sum())]


def logit_targets(local: LocalModel, unembedding: Unembedding, ids: Int[Tensor, "n"]) -> Targets:
    """Return logits at the last token as targets, each less the mean of all logits.

    Examples:
        ```python
        logit_targets(local, unembedding_of(model), torch.tensor([7]))
        ```
    """
    W, b = unembedding.W_U.to(local.final), unembedding.b.to(local.final)
    column = (W[:, ids] - W.mean(1, keepdim=True)).T
    constant = b[ids] - b.mean() + column @ constant_of(local.final_norm, local.final)
    slope = local.final_norm.pull_back(local.final[-1:], column, held=True)
    n, last = len(ids), len(local.ids) - 1
    whole = torch.full_like(ids, last)
    return Targets(torch.full((n,), LOGITS), torch.full((n,), len(local.layers)), whole, slope, constant)
