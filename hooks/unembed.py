"""From the final residual stream to logits: what a model does after its last block."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from hooks.huggingface import HFModel

Unembed = Callable[[Float[Tensor, "*n d_model"]], Float[Tensor, "*n vocab"]]


def unembedding(hf: HFModel, final_norm: nn.Module | None) -> Unembed:
    """Return the function logits = cap * tanh(W_U norm(x) / cap), without the cap where the model has none.

    Raises:
        ValueError: the model has no output embeddings.

    Example:
        ```python
        unembedding(hf, hf.transformer.ln_f)(resid)
        ```
    """
    head = hf.get_output_embeddings()
    if head is None or final_norm is None:
        raise ValueError(f"{type(hf).__name__} has no output embeddings, so no logits: load the model with its head")
    if _is_bert(hf):
        return hf.cls
    config = hf.config.get_text_config()
    cap = getattr(config, "final_logit_softcapping", None)
    factor = getattr(hf, "logit_scale", None) or 1.0 / getattr(config, "logits_scaling", 1.0)

    def unembed(resid: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n vocab"]:
        logits = head(final_norm(resid))
        logits = logits if factor == 1.0 else logits * factor
        return logits if cap is None else (logits / cap).tanh() * cap

    return unembed


def _is_bert(hf: HFModel) -> bool:
    """BERT's masked-language head transforms, normalises and unembeds in one module."""
    return hf.config.model_type == "bert"
