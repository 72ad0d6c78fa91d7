"""Copying heads: raise the logit of the token they attend to."""

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Model
from hooks.border import Natural
from hooks.errors import InvalidArgument
from hooks.layout import find
from hooks.norms import norm_after, norm_before
from hooks.site import embed, v, z
from hooks.weights import weight_of, width
from interp.circuits.heads.scores import HeadScores
from interp.circuits.norm_gain import norm_gain
from interp.common.unembedding import output_rows


@torch.no_grad()
def copying(model: Model, *, seed: Natural = 0) -> HeadScores:
    """Score = sum_i Re(lambda_i) / sum_i |lambda_i|, lambda the eigenvalues of E N_1 W_V W_O N_p N_f W_U.

    That matrix says how much attending to one token raises the logit of another by the direct path (Elhage et al.
    2021, A Mathematical Framework for Transformer Circuits). 1 copies, -1 suppresses what it attends to. E are the
    embeddings, after their own norm where they have one (Bloom). N_1, N_p and N_f are the gains of the norms before
    attention, after it (Gemma-2, OLMo-2) and before the unembedding, centred where the norm centres; a family has
    some of them. Their divisors depend on the whole stream, not on the token alone, and are left out: every token
    counts as if the norms divided it by the same. The eigenvalues that are not 0 are those of
    W_O N_p N_f W_U E N_1 W_V, of width d_head.

    Control: the same with the unembedding's rows in random order, so that no token meets its own.

    Args:
        model: the model.
        seed: of that order.

    Raises:
        InvalidArgument: an unembedding that does not read the stream itself, or a family that normalises the stream
            (BERT).

    Cost:
        No forward pass; two products over the vocabulary.

    Examples:
        ```python
        copying(model).top()
        ```
    """
    E, W_U = _embed(model), weight_of(model.hf.get_output_embeddings()).float()
    if E.shape != W_U.shape or E.shape[1] != model.d_model:
        raise InvalidArgument(
            f"the embeddings of {model.name} have shape {tuple(E.shape)} and its unembedding {tuple(W_U.shape)}: a "
            f"copying score needs both to be of the stream's width, {model.d_model}"
        )
    if model.paths.norms_after:
        raise InvalidArgument(
            f"{model.name} normalises the stream itself after every sublayer, so no head writes to the logits by a "
            "path of its own: score the heads of a model whose norms are off the stream, such as GPT-2"
        )
    output_rows(model, torch.tensor([0], device=model.device))  # refuses a head that is no linear map
    order = torch.randperm(len(W_U), generator=torch.Generator().manual_seed(seed)).to(W_U.device)
    N_f = norm_gain(model.final_norm, model.d_model).to(W_U)
    own, other = (N_f @ (rows.T @ E) for rows in (W_U, W_U[order]))
    values, control = (
        torch.stack([_scores(model, layer, UE) for layer in range(model.n_layers)]) for UE in (own, other)
    )
    return HeadScores("copying", values, control, "with the unembedding's rows in random order")


def _embed(model: Model) -> Float[Tensor, "vocab _"]:
    """What each token brings into the stream, without the bias that all bring."""
    W_E = weight_of(model.module(embed))
    norm = find(model.hf, model.paths.top.get("embed_ln"))
    return W_E.float() if norm is None else (norm(W_E) - norm(torch.zeros_like(W_E[:1]))).float()


def _scores(model: Model, layer: int, UE: Float[Tensor, "d_model d_model"]) -> Float[Tensor, "head"]:
    """W_O N_p N_f W_U E N_1 W_V of each head, and the share of its eigenvalues that is positive."""
    around = (norm_before(model, layer, "attn"), norm_after(model, layer, "attn"))
    N_1, N_p = (norm_gain(norm, model.d_model).to(UE) for norm in around)
    W_V = _values(model, layer).float()
    W_V = W_V.repeat_interleave(model.n_heads // len(W_V), dim=0)
    W_O = _outputs(model, layer).float()
    eigenvalues = torch.linalg.eigvals(torch.einsum("hkd,de,hel->hkl", W_O, N_p @ UE @ N_1, W_V))
    return eigenvalues.real.sum(-1) / eigenvalues.abs().sum(-1).clamp_min(1e-30)


def _values(model: Model, layer: int) -> Float[Tensor, "head d_model d_head"]:
    """W_V by head: the value projection of unit vectors, without its bias."""
    got: list[Tensor] = []
    tap = model.tap(v[layer])
    rows = torch.cat([torch.eye(model.d_model), torch.zeros(1, model.d_model)]).to(model.device, model.dtype)
    handle = tap.attach(got.append)
    try:
        tap.module(rows[None])
    finally:
        handle.remove()
    return (got[0][0, :-1] - got[0][0, -1:]).transpose(0, 1)


def _outputs(model: Model, layer: int) -> Float[Tensor, "head d_head d_model"]:
    """W_O by head, without its bias."""
    projection = model.module(z[layer])
    n = width(projection)[0]
    rows = torch.eye(n).to(model.device, model.dtype)
    return (projection(rows) - projection(torch.zeros_like(rows))).unflatten(0, (model.n_heads, -1))
