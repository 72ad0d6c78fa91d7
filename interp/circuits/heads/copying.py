"""Copying heads: raise the logit of the token they attend to."""

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Model
from hooks.layout import parts, width
from hooks.site import embed, v, z
from interp.circuits.heads.scores import HeadScores
from interp.circuits.norm_gain import norm_gain


@torch.no_grad()
def copying(model: Model, *, seed: int = 0) -> HeadScores:
    """Score = sum_i Re(lambda_i) / sum_i |lambda_i|, lambda the eigenvalues of W_E N_1 W_V W_O N_f W_U.

    That matrix says how much attending to one token raises the logit of another by the direct path (Elhage et al.
    2021, A Mathematical Framework for Transformer Circuits). 1 copies, -1 suppresses what it attends to. N are the
    norms' gains, centred where the norm centres; their divisors do not change the score, which says nothing of size.
    The eigenvalues that are not 0 are those of W_O N_f W_U W_E N_1 W_V, of width d_head.

    Control: the same with the unembedding's rows in random order, so that no token meets its own.

    Args:
        model: the model.
        seed: of that order.

    Raises:
        ValueError: an unembedding that does not read the stream itself.

    Cost: no forward pass; two products over the vocabulary.

    ```python
    copying(model).top()
    ```
    """
    W_E = model.module(embed).get_parameter("weight").float()
    W_U = model.hf.get_output_embeddings().weight.float()
    if W_E.shape != W_U.shape or W_E.shape[1] != model.d_model:
        raise ValueError(
            f"the embeddings of {model.name} have shape {tuple(W_E.shape)} and its unembedding {tuple(W_U.shape)}: a "
            f"copying score needs both to be of the stream's width, {model.d_model}"
        )
    order = torch.randperm(len(W_U), generator=torch.Generator().manual_seed(seed)).to(W_U.device)
    N_f = norm_gain(model.final_norm, model.d_model)
    own, other = (N_f.to(W_U) @ (rows.T @ W_E) for rows in (W_U, W_U[order]))
    values, control = (
        torch.stack([_scores(model, layer, UE) for layer in range(model.n_layers)]) for UE in (own, other)
    )
    return HeadScores("copying", values, control)


def _scores(model: Model, layer: int, UE: Float[Tensor, "d_model d_model"]) -> Float[Tensor, "head"]:
    """W_O N_f W_U W_E N_1 W_V of each head, and the share of its eigenvalues that is positive."""
    norm = None if model.paths.norms_last else parts(model.blocks[layer], model.paths).get("ln1")
    N_1 = norm_gain(norm, model.d_model).to(UE)
    W_V = _values(model, layer).float()
    W_V = W_V.repeat_interleave(model.n_heads // len(W_V), dim=0)
    W_O = _outputs(model, layer).float()
    eigenvalues = torch.linalg.eigvals(torch.einsum("hkd,de,hel->hkl", W_O, UE @ N_1, W_V))
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
