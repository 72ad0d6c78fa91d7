"""What else the sites of a model are called: by a layer counted from the last, or by a block's own module."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, final

from hooks.errors import InvalidArgument, UnknownSite
from hooks.site import Site


@final
@dataclass(frozen=True)
class SiteNames:
    """What else the sites of a model are called: by a layer counted from the last, or by a block's own module.

    Attributes:
        layers: how many layers each stack has, by its name; empty for the only one.
        blocks: the site that each block gives, by the block's name in the model.

    Examples:
        >>> SiteNames({"": 4}, {"model.layers.3": "resid_post.3"}).find("resid_post[-1]")
        resid_post.3
    """

    layers: Mapping[str, int] = field(default_factory=dict)
    blocks: Mapping[str, str] = field(default_factory=dict)

    def find(self, asked: Site | str, among: Iterable[Site] = ()) -> Site:
        """Return the site that is meant: by itself, by a name, or by the name of a module that is `among` the sites.

        Raises:
            UnknownSite: nothing is called so, or there are not so many layers.
            InvalidArgument: a layer counted from the last, where it is not known how many there are.
        """
        if isinstance(asked, str):
            asked = Site.module(asked) if Site.module(asked) in among else Site.parse(self.blocks.get(asked, asked))
        if asked.layer is None or asked.layer >= 0:
            return asked
        n = self.layers.get(asked.stack)
        if n is None:
            raise InvalidArgument(
                f"{asked} counts from the last layer, and how many there are is not known here: count from 0"
            )
        if n + asked.layer < 0:
            raise UnknownSite(f"{asked} counts from the last of {n} layers: count from 0")
        return replace(asked, layer=n + asked.layer)


def site_names(hf: Any, taps: Mapping[Site, Any]) -> SiteNames:
    """Return what else the sites of a model are called.

    Examples:
        ```python
        site_names(model.hf, model.taps).layers
        ```
    """
    layers: dict[str, int] = {}
    for site in taps:
        if site.layer is not None:
            layers[site.stack] = max(layers.get(site.stack, 0), site.layer + 1)
    given = {id(tap.module): str(site) for site, tap in taps.items() if site.name == "resid_post"}
    return SiteNames(layers, {path: given[id(one)] for path, one in hf.named_modules() if id(one) in given})
