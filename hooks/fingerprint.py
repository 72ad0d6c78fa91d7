"""The fingerprint of a model: what its weights and shape hash to."""

import hashlib
import json

import torch
from jaxtyping import Shaped
from torch import Tensor

from hooks.huggingface import HFModel

_NOT_THE_MODEL = frozenset(
    ["_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures", "use_cache"]
    + ["output_attentions", "output_hidden_states", "return_dict", "id2label", "label2id", "problem_type"]
)
"""Settings that say where a model came from or how it is called, not what it computes."""


def fingerprint(hf: HFModel, sample: int = 1024) -> str:
    """Return the SHA-256 of a model's configuration and of some weights of every parameter.

    Of a matrix they are its diagonals, begun again at each edge until every row and column has one; of a long vector
    they are evenly spaced. Cheap for any size of model; a change to a whole row, column, vector or matrix changes it.

    Args:
        hf: a Hugging Face model.
        sample: parameters of no more numbers are hashed whole.

    Examples:
        ```python
        fingerprint(model.hf) == model.fingerprint
        ```
    """
    config = {key: value for key, value in hf.config.to_dict().items() if key not in _NOT_THE_MODEL}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, parameter in sorted(hf.named_parameters()):
        some = _some(parameter.detach(), sample).to("cpu", torch.float32)
        if bool(some.any()):  # a bias of zeros is no bias: libraries that wrap a model add some
            digest.update(f"{name}{tuple(parameter.shape)}".encode())
            digest.update(some.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _some(weight: Shaped[Tensor, "..."], sample: int) -> Shaped[Tensor, "n"]:
    if weight.ndim < 2 or weight.numel() <= sample or 1 in (columns := weight.shape[-1], weight.numel() // columns):
        return weight.flatten()[:: max(1, weight.numel() // sample)]
    matrix = weight.flatten(0, -2)
    rows = matrix.shape[0]
    i = torch.arange(max(rows, columns), device=weight.device)
    return matrix[i % rows, i % columns]
