"""Folding: a normalisation becomes part of the weights, and the autoencoder reads activations as they are."""

import copy

from interp.sae.architectures.sae import SAE


def folded(sae: SAE) -> SAE:
    """The same function of activations as they are, for an autoencoder whose weights read normalised ones.

    With z = (x - m) M: latents f'(x) = f(z), and reconstructions x_hat'(x) = z_hat(z) M^-1 + m. Products are taken in
    float64 and rounded once. A copy; where nothing is normalised, an equal one.

    Example:
        ```python
        train(sae, normalised(source, expected_norm(source)))
        folded(sae).direction(17)
        ```
    """
    twin = copy.deepcopy(sae)
    if twin.normalisation is not None:
        twin.absorb(twin.normalisation)
        twin.normalisation = None
    return twin
