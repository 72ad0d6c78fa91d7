"""A page to browse the latents of an index."""

from collections.abc import Callable, Iterable
from pathlib import Path

from hooks.errors import InvalidArgument
from interp.features import FeatureIndex, Record
from interp.show.collapsible_list import latent_list
from interp.show.frame import render_page, save_page


def browse(
    path: str | Path,
    found: FeatureIndex,
    latents: Iterable[int],
    describe: Callable[[Record], str],
    title: str = "Latents",
) -> Path:
    """Write a self-contained page of some latents of an index and return where it is.

    A fold per latent, opened by mouse or keyboard, and by an address that ends in #latent-17. All strings of the index
    are shown as they are.

    Raises:
        InvalidArgument: no latents or a name that does not end in `.html`.
        OutOfRange: a latent that does not exist.

    Examples:
        ```python
        browse("latents.html", FeatureIndex.open("index"), range(500), Describer(found))
        ```
    """
    listed = list(latents)
    if not listed:
        raise InvalidArgument("0 latents were given: give some of the index, such as range(100)")
    lead = (
        f"{found.about['model']} at {found.about['site']}; {found.about['tokens']:,} tokens of "
        f"{found.about['texts']:,} texts read. Top examples flatter any latent: look at the sampled ones as well."
    )
    latents_html = latent_list((record, describe(record), None) for record in found.records(listed))
    return save_page(path, render_page("browse.html", title, lead=lead, latents=latents_html))
