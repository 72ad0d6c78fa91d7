"""Which next tokens a direction in the residual stream promotes."""

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Model, Site
from hooks.errors import InvalidArgument
from hooks.pieces import piece

RESIDUAL = ("embed", "resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")


@torch.no_grad()
def measure_logit_effect(model: Model, vector: Float[Tensor, "d_model"]) -> Float[Tensor, "vocab"]:
    """The logits of a residual stream that is this vector alone, less those of one that is 0: what biases give.

    unembed(norm(v)) - unembed(norm(0)): the order in which v promotes tokens, on the scale of a stream that holds
    nothing else; in a text, where the final norm divides by the whole stream's length, the effect is smaller by that
    ratio.

    Raises:
        InvalidArgument: the vector does not have the width of the residual stream.

    Examples:
        ```python
        measure_logit_effect(model, sae.W_dec[17]).topk(10)
        ```
    """
    if len(vector) != model.d_model:
        raise InvalidArgument(
            f"a vector of {len(vector)} dimensions is not in the residual stream of {model.name}, "
            f"which has {model.d_model}"
        )
    return measure_logit_effects(model, vector[None])[0]


@torch.no_grad()
def measure_logit_effects(model: Model, vectors: Float[Tensor, "n d_model"]) -> Float[Tensor, "n vocab"]:
    """`measure_logit_effect` of several vectors; memory for a row of logits each.

    Examples:
        ```python
        measure_logit_effects(model, sae.W_dec[:64])
        ```
    """
    alone = model.unembed(vectors.to(model.device, model.dtype)).float()
    return alone - model.unembed(torch.zeros_like(vectors[:1]).to(model.device, model.dtype)).float()


def add_layers(rows: Float[Tensor, "n *layer d_model"]) -> Float[Tensor, "n d_model"]:
    """What latents add to the stream in all: their rows, or the sum over layers where they write to several.

    Examples:
        >>> add_layers(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])).tolist()
        [[4.0, 6.0]]
    """
    return rows if rows.ndim == 2 else rows.sum(1)


def promotes_tokens(model: Model, site: Site) -> bool:
    """Whether a direction at this site can be read as next tokens: in the residual stream of a model with an output.

    Examples:
        ```python
        promotes_tokens(model, resid_post[3])
        ```
    """
    return site.name in RESIDUAL and model.hf.get_output_embeddings() is not None


def find_promoted_tokens(model: Model, vector: Float[Tensor, "d_model"], count: int) -> tuple[tuple[str, float], ...]:
    """The tokens whose logits a direction raises most, with how much; for those it lowers most, negate it.

    Examples:
        ```python
        find_promoted_tokens(model, sae.W_dec[17], 10)         # ((" bridge", 4.1), ...)
        ```
    """
    effect = measure_logit_effect(model, vector)
    top = effect.topk(min(count, len(effect)))
    pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return tuple((piece(model.tokenizer, i), v) for i, v in pairs)
