"""Contrastive activation addition: the mean difference within pairs, read at the token of the answer."""

from hooks import Direction, Model, Position, Site
from interp.directions.pairs import Pairs
from interp.directions.rows import capture_rows, make_direction


def caa(model: Model, pairs: Pairs, site: Site, at: Position | None = None, *, progress: bool = False) -> Direction:
    """v = (1/n) sum_i a(p_i, c_i+) - a(p_i, c_i-) (Rimsky et al. 2023, arXiv:2312.06681, equation 1).

    Read at the token where a text first differs from its partner, the answer's letter, unless `at` says otherwise;
    one token per text. The scale is the distance from the negative texts' mean to the farthest text.

    Raises:
        InvalidArgument: a text in which `at` selects no token or several, or pairs without a difference at the site.

    Cost:
        One forward pass per text, up to the site.

    Examples:
        ```python
        pairs = Pairs.of_answers(questions, [" (A"] * len(questions), [" (B"] * len(questions))
        with steer(model, caa(model, pairs, resid_post[6]), 2.0):
            model.generate("Should I go?")
        ```
    """
    at = pairs.answer if at is None else at
    positive, negative = (
        capture_rows(model, texts, site, at, progress=progress) for texts in (pairs.positive, pairs.negative)
    )
    v = (positive - negative).mean(0)
    return make_direction(model, site, v, f"CAA over {pairs.n} pairs at {at}", negative.mean(0), positive)
