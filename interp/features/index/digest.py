"""What identifies an autoencoder: a hash of its kind, its settings and every number it computes with."""

import hashlib

from hooks.store.processes import Process
from interp.sae import SAE

TRAINING = "variance"  # of the data, which divides the loss of some kinds and is not kept in files


def digest_of_sae(sae: SAE) -> str:
    """SHA-256 over the class, `settings()` and `state_dict()`, as hexadecimal digits; the same once saved and loaded.

    Where processes share the latents it is that of what all of them hold, and each must call it.

    Examples:
        ```python
        digest_of_sae(sae) == digest_of_sae(load(folder))
        ```
    """
    digest = hashlib.sha256(repr((type(sae).__name__, sae.settings())).encode())
    state = {name: tensor for name, tensor in sae.state_dict().items() if name != TRAINING}
    for name, tensor in sorted(state.items()):
        digest.update(repr((name, tuple(tensor.shape), tensor.dtype)).encode())
        digest.update(tensor.detach().cpu().contiguous().double().numpy().tobytes())
    each = process_of(sae).all(digest.hexdigest())
    return each[0] if len(each) == 1 else hashlib.sha256("".join(each).encode()).hexdigest()


def process_of(sae: SAE) -> Process:
    """Return this process among those that share an autoencoder's latents.

    Examples:
        ```python
        process_of(sae).world      # 1, unless processes share its latents
        ```
    """
    return Process(sae.own.rank, sae.own.world)
