"""Directions read off the weights: values of feed-forward memories, rows of the unembedding and of the logit lens."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Direction, Model, Site, stream
from hooks.errors import InvalidArgument, OutOfRange
from hooks.position import everywhere
from hooks.site import mlp_act, mlp_out
from hooks.weights import weight_of
from interp.circuits.metric import Word, name_token, token_ids
from interp.common.texts import list_texts
from interp.common.unembedding import check_unembeds


def ffn_value(model: Model, layer: int, neuron: int, texts: Sequence[str]) -> Direction:
    """The value v_i of memory i of a feed-forward layer, row i of W_out (Geva et al. 2021, arXiv:2012.14913).

    Its scale is |v_i| times the largest coefficient m_i = mlp_act_i on the texts: what the memory adds at its most.

    Raises:
        OutOfRange: the layer has no such memory.
        InvalidArgument: no texts, a string for them, or a memory that is never above 0 on them.

    Cost:
        One forward pass per text, up to the layer.

    Examples:
        ```python
        ffn_value(model, 3, 117, texts)
        ```
    """
    W_out = model.w_out(layer)
    if not 0 <= neuron < len(W_out):
        raise OutOfRange(f"memory {neuron} does not exist: layer {layer} has memories 0 to {len(W_out) - 1}")
    site = model.tap(mlp_act[layer]).site
    largest = max(float(acts.flat(site)[:, neuron].max()) for acts in stream(model, list_texts(texts), [site]))
    if largest <= 0:
        raise InvalidArgument(
            f"memory {neuron} of layer {layer} is never above 0 on these texts: give texts that use it"
        )
    v = W_out[neuron].detach().clone()
    scale = largest * float(v.norm())
    return Direction(
        v, mlp_out[site.layer or 0], f"value of memory {neuron} of layer {site.layer}", scale, model.fingerprint
    )


def unembedding(model: Model, token: Word, site: Site, texts: Sequence[str]) -> Direction:
    """The row of the unembedding of one token, a word or its id, v = W_U[t], as a direction of the residual stream.

    Its scale is the largest projection on it that tokens of the texts have at the site.

    Raises:
        InvalidArgument: the token is a word of several, no texts or a string for them, or the model has no output
            embeddings or ones narrower than the stream.

    Cost:
        One forward pass per text, up to the site.

    Examples:
        ```python
        unembedding(model, " bridge", resid_post[10], texts)
        ```
    """
    v = _output_row(model, token).detach().clone()
    return _scale(model, v, site, f"unembedding of {name_token(model, token)!r}", texts)


def lens_row(model: Model, token: Word, site: Site, texts: Sequence[str]) -> Direction:
    """The row of the logit lens of one token, a word or its id: what raises its logit, the final norm's length held.

    v = J W_U[t] with J the norm's linear part, J = norm(I) - norm(0): both kinds of norm divide every axis by the
    same length, so that J is gamma (with the mean taken out, for LayerNorm) up to a factor. Scaled as `unembedding`.

    Raises:
        InvalidArgument: as `unembedding`.

    Cost:
        One forward pass per text, up to the site.

    Examples:
        ```python
        lens_row(model, " bridge", resid_post[10], texts)
        ```
    """
    w = _output_row(model, token).detach()
    if model.final_norm is not None:
        axes = torch.eye(model.d_model, dtype=model.dtype, device=model.device)
        with torch.no_grad():
            J = model.final_norm(axes) - model.final_norm(torch.zeros_like(axes))
        w = J @ w
    return _scale(model, w, site, f"logit lens of {name_token(model, token)!r}", texts)


def _output_row(model: Model, token: Word) -> Float[Tensor, "d_model"]:
    (number,) = token_ids(model, token).tolist()
    head = model.hf.get_output_embeddings() if model.hf.can_generate() else None
    if head is None:
        raise InvalidArgument(f"{model.name} has no unembedding that reads the residual stream directly")
    check_unembeds(model)
    row = weight_of(head)[number]
    if len(row) != model.d_model:
        raise InvalidArgument(
            f"the unembedding of {model.name} is {len(row)} wide, its residual stream {model.d_model}"
        )
    return row


def _scale(model: Model, v: Float[Tensor, "d_model"], site: Site, source: str, texts: Sequence[str]) -> Direction:
    unit = v / v.norm()
    if model.tap(site).shape != (model.d_model,):
        raise InvalidArgument(f"{site} is not in the residual stream of {model.name}, where {source} lives")
    reach = max(
        float((acts.flat(site, at=everywhere) @ unit).max()) for acts in stream(model, list_texts(texts), [site])
    )
    if reach <= 0:
        raise InvalidArgument(
            f"no token of these texts has a projection above 0 on the {source} at {site}: give others"
        )
    return Direction(v, model.tap(site).site, source, reach, model.fingerprint)
