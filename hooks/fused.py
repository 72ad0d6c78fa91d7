"""One kernel where transformers writes an activation as many operations."""

from torch import nn

from hooks.huggingface import HFModel


def fuse(hf: HFModel) -> HFModel:
    """Compute GPT-2's GELU, 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), by PyTorch's kernel; in place.

    transformers' own takes eight passes over memory, a sixth of the time of a small model's forward pass on a CPU. The
    results agree to rounding; the configuration stays as it is.

    Args:
        hf: a model that the library loaded itself; one that the user made must not be changed.

    Examples:
        ```python
        hf = fuse(GPT2LMHeadModel.from_pretrained("gpt2"))
        ```
    """
    from transformers.activations import NewGELUActivation

    for module in hf.modules():
        for name, child in module.named_children():
            if type(child) is NewGELUActivation:
                setattr(module, name, nn.GELU(approximate="tanh"))
    return hf
