"""Autoencoders by their site, in the order of the forward pass, and the names of their features and errors."""

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hooks import Model, Site
from hooks.errors import InvalidArgument, UnknownName, WrongModel, nearest
from hooks.fingerprint import is_of
from interp.sae import SAE, fold_normalisation

Dictionaries: TypeAlias = Mapping[Site, SAE]
Nodes: TypeAlias = Mapping[Site, Bool[Tensor, "n node"]]
"""Which nodes, by site: a row for each token, or one for all; a column for each feature, and the last for errors."""

WRITES: Final = ("embed", "resid_pre", "attn_out", "mixer_out", "resid_mid", "cross_out", "mlp_out", "resid_post")
"""Sites that nodes may have, in the order of the forward pass."""
ERROR: Final = "error"


def order_dictionaries(model: Model, autoencoders: Sequence[SAE]) -> dict[Site, SAE]:
    """Return autoencoders by site, folded, in the order of the forward pass.

    Raises:
        InvalidArgument: none; two of one site; a transcoder or crosscoder; a site that is unknown, or is neither the
            stream nor added to it; rows normalised one by one, whose errors no fixed decoder gives.
        WrongModel: trained on other weights.

    Examples:
        ```python
        order_dictionaries(model, [load("sae_at_2"), load("sae_at_4")])
        ```
    """
    if not autoencoders:
        raise InvalidArgument("no autoencoders were given: give one for each site whose features are to be nodes")
    found: dict[Site, SAE] = {}
    for one in autoencoders:
        site = _site(model, one)
        if site in found:
            raise InvalidArgument(f"two autoencoders read {site}: give one for each site")
        found[site] = fold_normalisation(one).to(model.device)
    return dict(sorted(found.items(), key=lambda item: depth(item[0])))


def depth(site: Site) -> tuple[int, int]:
    """Return a key that sorts sites in the order of the forward pass.

    Examples:
        >>> from hooks.site import mlp_out, resid_post
        >>> depth(mlp_out[3]) < depth(resid_post[3])
        True
    """
    return -1 if site.layer is None else site.layer, WRITES.index(site.name)


def _site(model: Model, sae: SAE) -> Site:
    name = type(sae).__name__
    if sae.transcodes or len(sae.sites) > 1:
        raise InvalidArgument(
            f"a {name} reads and writes at several sites, and a node of a feature circuit is of one: give autoencoders"
        )
    if sae.site is None:
        raise InvalidArgument(f"this {name} does not know its site: set sae.site, such as resid_post[3]")
    if sae.row_norm is not None:
        raise InvalidArgument(f"this {name} normalises each row by itself, so its features have no fixed decoder")
    if sae.site.name not in WRITES or sae.site not in model.taps:
        raise InvalidArgument(
            f"this {name} reads {sae.site}, and nodes are in the stream or are added to it: give autoencoders of "
            f"{', '.join(WRITES)}, at layers that {model.name} has"
        )
    if not is_of(model, sae.fingerprint):
        raise WrongModel(f"this {name} was trained on other weights than {model.name} has: load those")
    return sae.site


def split(sae: SAE, x: Float[Tensor, "*n d_model"]) -> tuple[Float[Tensor, "*n latent"], Float[Tensor, "*n d_model"]]:
    """Return the features a of x, and the error x - (a W_dec + b_dec); both differentiable in x.

    Examples:
        ```python
        a, error = split(sae, x)
        ```
    """
    a = sae.encode(x.flatten(0, -2)).unflatten(0, x.shape[:-1])
    return a, x.to(a) - sae.decode(a)


def name_node(site: Site, place: int | None, node: int, d_sae: int) -> str:
    """Return how a node prints: `resid_post.3/120@5`, `resid_post.3/error@5`, without `@5` where tokens are summed.

    Examples:
        >>> from hooks.site import resid_post
        >>> name_node(resid_post[3], 5, 120, 2048), name_node(resid_post[3], None, 2048, 2048)
        ('resid_post.3/120@5', 'resid_post.3/error')
    """
    return f"{site}/{ERROR if node == d_sae else node}" + ("" if place is None else f"@{place}")


def find_node(name: str, dictionaries: Dictionaries, places: int) -> tuple[Site, int, int]:
    """Return the site, place and column of a node by its name.

    Raises:
        UnknownName: no node is called that.

    Examples:
        ```python
        find_node("resid_post.3/120", dictionaries, 1)
        ```
    """
    whole, _, at = name.partition("@")
    where, _, which = whole.rpartition("/")
    sites = {str(site): site for site in dictionaries}
    if where not in sites:
        raise UnknownName(
            f"no node is called '{name}': nothing has nodes at '{where}'; did you mean {nearest(where, sites)}?"
        )
    sae = dictionaries[sites[where]]
    node = sae.d_sae if which == ERROR else int(which) if which.isdecimal() else -1
    place = int(at) if at.isdecimal() else 0 if not at and places == 1 else -1
    if not (0 <= node <= sae.d_sae and 0 <= place < places) or (bool(at) and places == 1):
        token = f", and @0 to @{places - 1} for the token" if places > 1 else ""
        raise UnknownName(
            f"no node is called '{name}': give {where}/0 to {where}/{sae.d_sae - 1} or {where}/{ERROR}{token}"
        )
    return sites[where], place, node


def no_nodes(dictionaries: Dictionaries, places: int, *, every: bool = False) -> dict[Site, Bool[Tensor, "n node"]]:
    """Return a mask of no nodes, or of every node.

    Examples:
        ```python
        no_nodes(dictionaries, 1, every=True)
        ```
    """
    return {
        site: torch.full((places, sae.d_sae + 1), every, dtype=torch.bool, device=sae.W_dec.device)
        for site, sae in dictionaries.items()
    }
