"""What a sweep goes over: the sites, and whether their heads or token positions are patched one at a time."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Bool
from torch import Tensor

from hooks import Model, Site
from hooks.errors import InvalidArgument
from hooks.network import AnyModel
from hooks.site import LayerSites, find_sites
from hooks.summary import summarise

Sites: TypeAlias = LayerSites | Site | str | Iterable[Site | str]


@dataclass(frozen=True)
class SweepPlaces:
    """The places of a sweep, made by `each_layer`, `each_position`, `each_head` or `each_head_and_position`.

    `axes` says what is patched one at a time within a site: "head", "pos", both, or (neither) the site as a whole.
    """

    sites: Sites
    axes: tuple[str, ...] = ()

    __repr__ = summarise

    def __post_init__(self) -> None:
        if not isinstance(self.sites, LayerSites | Site | str):
            object.__setattr__(self, "sites", tuple(self.sites))

    def find_sites(self, model: AnyModel) -> tuple[Site, ...]:
        """The sites in a model, by themselves, by name or by globs; every layer, if none was named.

        Raises:
            InvalidArgument: a site that the model lacks or cannot change, one named twice, or heads of a site without
                heads.
        """
        asked = self.sites
        if isinstance(asked, LayerSites):
            every = model.sites if not isinstance(model, Model) else (asked[i] for i in range(model.n_layers))
            asked = [site for site in every if site.name == asked.name]
        asked = [asked] if isinstance(asked, Site | str) else asked
        found = [site for one in asked for site in find_sites(one, model.sites)]
        if not found:
            raise InvalidArgument("no sites were given to sweep over: name at least one, such as resid_pre[0]")
        for i, site in enumerate(found):
            if site in found[:i]:
                raise InvalidArgument(f"{site} is named twice: name each site of a sweep once")
            tap = model.tap(site)
            if tap.read_only:
                raise InvalidArgument(f"{site} can be captured but not patched: sweep over z or attn_out instead")
            if "head" in self.axes and len(tap.shape) != 2:
                raise InvalidArgument(
                    f"{site} has no heads: sweep over z, q, k or v, or take each_layer or each_position"
                )
        shapes = {model.tap(site).shape[0] for site in found} if "head" in self.axes else {0}
        if len(shapes) > 1:
            raise InvalidArgument(f"the sites have {sorted(shapes)} heads: sweep over sites with equally many")
        return tuple(found)

    def masks(self, n_pos: int, shape: tuple[int, ...]) -> Bool[Tensor, "n pos *d"]:
        """What each patch replaces, of one text at a site of this shape per token."""
        heads = shape[:1] if len(shape) == 2 else ()
        pos = torch.eye(n_pos, dtype=torch.bool) if "pos" in self.axes else torch.ones(1, n_pos, dtype=torch.bool)
        if not heads:
            return pos
        head = torch.eye(*heads, dtype=torch.bool) if "head" in self.axes else torch.ones(1, *heads, dtype=torch.bool)
        return (head[:, None, None, :] & pos[None, :, :, None]).flatten(0, 1)

    def extent(self, n_pos: int, shape: tuple[int, ...]) -> tuple[int, ...]:
        """How many patches there are along each of the axes."""
        return tuple(shape[0] if axis == "head" else n_pos for axis in self.axes)


def each_layer(sites: Sites) -> SweepPlaces:
    """Patch each site as a whole, all positions at once.

    Examples:
        >>> from hooks.site import mlp_out
        >>> each_layer(mlp_out).axes
        ()
    """
    return SweepPlaces(sites)


def each_position(sites: Sites) -> SweepPlaces:
    """Patch each site at one token position at a time.

    Examples:
        >>> from hooks.site import resid_pre
        >>> each_position([resid_pre[3]]).axes
        ('pos',)
    """
    return SweepPlaces(sites, ("pos",))


def each_head(sites: Sites) -> SweepPlaces:
    """Patch one head at a time, all positions at once.

    Examples:
        >>> from hooks.site import z
        >>> each_head(z).axes
        ('head',)
    """
    return SweepPlaces(sites, ("head",))


def each_head_and_position(sites: Sites) -> SweepPlaces:
    """Patch one head at one token position at a time.

    Examples:
        >>> from hooks.site import z
        >>> each_head_and_position(z).axes
        ('head', 'pos')
    """
    return SweepPlaces(sites, ("head", "pos"))
