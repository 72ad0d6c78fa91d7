"""Reading texts through a model and an autoencoder once: every token's activation and sparse code."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from hooks import Activations, Model, Site, stream
from hooks.errors import InvalidArgument, WrongModel
from hooks.fingerprint import is_of
from interp.sae import SAE


@dataclass(frozen=True)
class Reading:
    """Tokens of some texts, special ones left out: activations, sparse codes, and where each is in which text.

    `x` is what the autoencoder reads of a token: its activation, or for a cross-layer transcoder one for each layer.
    """

    x: Float[Tensor, "n *d"]
    values: Float[Tensor, "n ..."]
    indices: Int[Tensor, "n ..."]
    text: Int[Tensor, "n"]
    start: Int[Tensor, "n"]
    end: Int[Tensor, "n"]
    d_sae: int


def find_sites(sae: SAE, model: Model) -> tuple[Site, ...]:
    """The sites that an autoencoder reads, having checked that it was trained on this very model.

    Raises:
        InvalidArgument: no site is known, or its weights read normalised activations.
        WrongModel: the autoencoder was trained on another model.

    Examples:
        ```python
        find_sites(sae, model)      # (resid_post.4,)
        ```
    """
    if sae.site is None:
        raise InvalidArgument("this autoencoder does not know its site: set sae.site, for example to resid_post[4]")
    if not is_of(model, sae.fingerprint):
        raise WrongModel(
            f"this autoencoder was trained on {sae.model_name or 'another model'} ({sae.fingerprint}), not on "
            f"{model.name} ({model.fingerprint}): load that model (in Python, set "
            "sae.fingerprint = None to go on all the same)"
        )
    return sae.raw().read_sites


def rows_of(acts: Activations, sites: Sequence[Site]) -> Float[Tensor, "n *d"]:
    """What an autoencoder reads of every token that is not special: at one site, or at each of several.

    Examples:
        ```python
        sae.encode_sparse(rows_of(acts, find_sites(sae, model)))
        ```
    """
    x = [acts.flat(site).flatten(1) for site in sites]
    return x[0] if len(x) == 1 else torch.stack(x, dim=1)


def describe_sites(sites: Sequence[Site]) -> str:
    """The name of one site, or of the first and last of several.

    Examples:
        >>> describe_sites([Site("mlp_in", 0), Site("mlp_in", 1), Site("mlp_in", 2)])
        'mlp_in.0 to mlp_in.2'
    """
    return str(sites[0]) if len(sites) == 1 else f"{sites[0]} to {sites[-1]}"


def encode_texts(
    sae: SAE, model: Model, texts: Sequence[str], *, batch_size: int = 32, progress: bool = True
) -> Reading:
    """Run texts through the model up to what the autoencoder reads and encode every token that is not special.

    Cost: one forward pass per text; memory for every token's activation and active latents.

    Raises:
        InvalidArgument: the autoencoder does not belong to the model, or the tokenizer gives no character offsets.

    Examples:
        ```python
        reading = encode_texts(sae, model, texts)
        reading.x.shape, reading.values.shape
        ```
    """
    sites = find_sites(sae, model)
    parts: list[tuple[Tensor, ...]] = []
    done = 0
    for acts in stream(model, list(texts), sites, batch_size=batch_size, progress=progress):
        tokens = acts.tokens
        if tokens.offsets is None:
            raise InvalidArgument(f"the tokenizer of {model.name} gives no character offsets: load its fast version")
        keep = tokens.content
        x = rows_of(acts, sites)
        spans = tokens.offsets[keep.to(tokens.offsets.device)]
        number = tokens.text_number
        parts.append((x, *sae.encode_sparse(x), number[keep.nonzero()[:, 0]] + done, spans[:, 0], spans[:, 1]))
        done += int(number[-1]) + 1
    x, values, indices, text, start, end = (_stack([p[i].cpu() for p in parts]) for i in range(6))
    return Reading(x, values, indices, text, start, end, sae.d_sae)


def encode_again(sae: SAE, reading: Reading) -> Reading:
    """The same tokens with the sparse codes of another autoencoder of the same site.

    Examples:
        ```python
        encode_again(other, encode_texts(sae, model, texts))
        ```
    """
    values, indices = sae.encode_sparse(reading.x.to(sae.W_dec.device))
    return replace(reading, values=values.cpu(), indices=indices.cpu(), d_sae=sae.d_sae)


def _stack(parts: list[Tensor]) -> Tensor:
    """One below the other; a sparse code is as wide as its fullest row, narrower ones get spare places of value 0."""
    width = max((part.shape[1] for part in parts if part.ndim == 2), default=0)
    return torch.cat([pad(part, (0, width - part.shape[1])) if part.ndim == 2 else part for part in parts])
