"""What tells one autoencoder from another: a hash of its kind, its settings and every number it computes with."""

import hashlib

from interp.sae import SAE


def digest(sae: SAE) -> str:
    """SHA-256 over the class, `settings()` and `state_dict()`, as hexadecimal digits.

    ```python
    digest(sae) == digest(load(folder))
    ```
    """
    told = hashlib.sha256(repr((type(sae).__name__, sae.settings())).encode())
    for name, tensor in sorted(sae.state_dict().items()):
        told.update(repr((name, tuple(tensor.shape), tensor.dtype)).encode())
        told.update(tensor.detach().cpu().contiguous().double().numpy().tobytes())
    return told.hexdigest()
