"""From the final residual stream to logits: what a model does after its last block."""

from jaxtyping import Float
from torch import Tensor, nn

from hooks.errors import InvalidArgument
from hooks.huggingface import HFModel


def check_head(hf: HFModel) -> None:
    """Raise when a model has no output embeddings.

    Examples:
        ```python
        check_head(model.hf)
        ```
    """
    if hf.get_output_embeddings() is None:
        raise InvalidArgument(
            f"{type(hf).__name__} has no output embeddings, so no logits: load the model with its head"
        )


def unembed(
    hf: HFModel, final_norm: nn.Module | None, resid: Float[Tensor, "*n d_model"], head: nn.Module | None = None
) -> Float[Tensor, "*n vocab"]:
    """Return logits = cap * tanh(factor * W_U norm(x) / cap), without the cap or factor where the model has none.

    Args:
        hf: the model.
        final_norm: the norm before the unembedding, or None.
        resid: what the last block gives.
        head: a part that does more than unembed (BERT's), or None.

    Raises:
        InvalidArgument: the model has no output embeddings.

    Examples:
        ```python
        unembed(hf, hf.transformer.ln_f, resid)
        ```
    """
    check_head(hf)
    if head is not None:  # it transforms, normalises and unembeds
        return head(resid if final_norm is None else final_norm(resid))
    config = hf.config.get_text_config()
    factor = getattr(hf, "logit_scale", None) or 1.0 / getattr(config, "logits_scaling", 1.0)
    cap = getattr(config, "final_logit_softcapping", None)
    resid = resid if final_norm is None else final_norm(resid)
    decoder = hf.get_decoder() if hasattr(hf, "get_decoder") else None
    narrower = getattr(decoder, "project_out", None)  # OPT's embeddings can be narrower than its stream
    logits = hf.get_output_embeddings()(resid if narrower is None else narrower(resid))
    logits = logits if factor == 1.0 else logits * factor
    return logits if cap is None else (logits / cap).tanh() * cap
