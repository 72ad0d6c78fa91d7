"""Mean-centring: what texts of a kind have beyond texts in general."""

from collections.abc import Sequence

from hooks import Direction, Images, Position, Site
from hooks.errors import InvalidArgument
from hooks.network import AnyModel
from hooks.position import everywhere
from interp.directions.rows import capture_mean_rows, make_direction


def mean_centring(
    model: AnyModel,
    texts: Sequence[str] | Images,
    background: Sequence[str] | Images,
    site: Site,
    at: Position = everywhere,
    *,
    progress: bool = True,
) -> Direction:
    """v = mean of a(texts) - mean of a(background) (Jorgensen et al. 2023, arXiv:2312.03813, equation 2).

    For a concept that has examples but no opposite: the background is text in general. Each text counts once, by the
    mean over its tokens, however long it is. Pictures likewise, by the mean over their places.

    Raises:
        InvalidArgument: no texts of a kind, or a text of which `at` selects nothing.

    Cost:
        One forward pass per text, up to the site.

    Examples:
        ```python
        mean_centring(model, stories_of_the_sea, stories, resid_post[6])
        ```
    """
    if not len(texts) or not len(background):
        raise InvalidArgument(
            f"{len(texts)} texts and {len(background)} of background were given: give at least one of each"
        )
    target, rest = (capture_mean_rows(model, some, site, at, progress=progress) for some in (texts, background))
    source = f"mean of {len(texts)} texts, centred by {len(background)}, at {at}"
    return make_direction(model, site, target.mean(0) - rest.mean(0), source, rest.mean(0), target)
