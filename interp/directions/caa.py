"""Contrastive activation addition: the mean difference within pairs, read at the token of the answer."""

from hooks import Direction, Images, Position, Site
from hooks.network import AnyModel
from interp.directions.pairs import Pairs
from interp.directions.rows import capture_pairs, make_direction


def caa(model: AnyModel, pairs: Pairs, site: Site, at: Position | None = None, *, progress: bool = True) -> Direction:
    """v = (1/n) sum_i a(p_i, c_i+) - a(p_i, c_i-) (Rimsky et al. 2023, arXiv:2312.06681, equation 1).

    Read at the token where a text first differs from its partner, the answer's letter, unless `at` says otherwise;
    one token per text. Of pictures, such as a scene by night and by day, it is the mean over their places. The scale
    is the distance from the negative texts' mean to the farthest text.

    Raises:
        InvalidArgument: a text in which `at` selects no token or several, a picture without a place, or pairs without
            a difference at the site.

    Cost:
        One forward pass per text or picture, up to the site.

    Examples:
        ```python
        pairs = Pairs.of_answers(questions, [" (A"] * len(questions), [" (B"] * len(questions))
        with steer(model, caa(model, pairs, resid_post[6]), 2.0):
            model.generate("Should I go?")
        night = caa(net, Pairs(by_night, by_day), embedding)
        ```
    """
    positive, negative = capture_pairs(model, pairs, site, at, progress=progress)
    v = (positive - negative).mean(0)
    said = at if at is not None else "everywhere" if isinstance(pairs.positive, Images) else pairs.answer
    return make_direction(model, site, v, f"CAA over {pairs.n} pairs at {said}", negative.mean(0), positive)
