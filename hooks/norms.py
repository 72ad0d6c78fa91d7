"""The norms around attention and feed-forward layers: as they were traced, else as an adapter names them."""

from typing import Literal

from torch import nn

from hooks.errors import InvalidArgument
from hooks.model import Model
from hooks.structure import Block
from hooks.tracing.residual import Stream

Part = Literal["attn", "mlp"]
_HINTED = {"attn": "ln1", "mlp": "ln2"}
_FIRST_READS = {"attn": "q", "mlp": "mlp_in"}


def norm_before(model: Model, layer: int, part: Part) -> nn.Module | None:
    """Return the norm through which a part reads the stream; None where it reads the stream as it is.

    Raises:
        InvalidArgument: it reads the stream in another way than these.

    Examples:
        ```python
        norm_before(model, 0, "attn")  # LayerNorm((768,), eps=1e-05, elementwise_affine=True)
        ```
    """
    block: Block = model.structure.main[layer]
    traced = block.part.get(f"{part}.norm")
    if traced is not None:
        return None if isinstance(traced, nn.Identity) else traced
    through, stage = block.reads.get(_FIRST_READS[part], ((), None))
    if (isinstance(stage, Stream) and not through) or model.paths.norms_last or model.paths.norms_after:
        return None
    hinted = model.parts(block)
    norm = hinted.get(_HINTED[part], hinted.get("ln1"))
    if norm is None:
        raise InvalidArgument(
            f"what {'attention' if part == 'attn' else 'feed-forward'} of layer {layer} of {model.name} reads "
            "is neither the stream nor a norm of it, so no closed form is known: patch_sweep works on any model"
        )
    return norm


def norm_after(model: Model, layer: int, part: Part) -> nn.Module | None:
    """Return the norm of what a part gives before it is added to the stream; None where it is added as it is.

    Examples:
        ```python
        norm_after(load("google/gemma-2-2b"), 0, "attn")
        ```
    """
    block: Block = model.structure.main[layer]
    traced = block.sublayer(f"{part}_out")
    if traced is not None:
        return None if traced.norm is None else traced.norm.module
    hinted = model.parts(block)
    return hinted.get(_HINTED[part] if model.paths.norms_last else f"{_HINTED[part]}_post")
