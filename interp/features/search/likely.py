"""The latents of a search that are worth turning up."""

from interp.features.search.search import SearchResult
from interp.features.search.similar import similar
from interp.sae import SAE


def likely(sae: SAE, found: SearchResult, *, top: int = 10) -> tuple[int, ...]:
    """The `top` latents that tell the concept best, then those whose rows lie nearest the difference of means.

    What tells a concept need not make the model say it, so that `by_effect` tries both kinds. Latents that never fired
    in training are left out, and the second kind where the autoencoder writes at another site than it reads.

    Raises:
        ValueError: the search was made in another autoencoder.

    Example:
        ```python
        by_effect(model, sae, likely(sae, found), prompts, Names(("Golden Gate Bridge",)))
        ```
    """
    telling = [one.latent for one in found.latents[:top] if one.latent is not None]
    means = next((one.direction for one in found.baselines if one.direction is not None), None)
    beside = similar(sae, means, top=top).latents if means is not None and means.site == sae.sites[-1] else ()
    writing = [latent for latent, _ in beside]
    return tuple(i for i in dict.fromkeys([*telling, *writing]) if float(sae.max_activation[i]) > 0)
