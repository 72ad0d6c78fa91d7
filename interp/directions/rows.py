"""One activation per text, and how far rows reach along a vector."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Direction, Images, Model, Position, Site, capture, stream
from hooks.errors import InvalidArgument
from hooks.network import AnyModel
from hooks.position import everywhere
from hooks.progress import progress_bar
from hooks.site import check_one_width
from interp.common.texts import list_texts
from interp.directions.pairs import Pairs


def capture_rows(
    model: Model, texts: Sequence[str], site: Site, at: Position, batch_size: int = 32, *, progress: bool = True
) -> Float[Tensor, "example d_model"]:
    """The activation of each text at the one token that a position selects, in float64.

    Raises:
        InvalidArgument: a string for a list, no texts, or a position that selects no token of a text, or several.

    Cost:
        One forward pass per batch, up to the site.

    Examples:
        ```python
        capture_rows(model, texts, resid_post[6], last)
        ```
    """
    check_one_width([site])
    rows, done, texts = [], 0, list_texts(texts)
    for start in progress_bar(range(0, len(texts), batch_size), desc="forward passes", progress=progress):
        acts = capture(model, texts[start : start + batch_size], [site], batch_size=batch_size)
        chosen = at.mask(acts.tokens).sum(1)
        for row in (chosen != 1).nonzero().flatten().tolist():
            raise InvalidArgument(
                f"{at} selects {int(chosen[row])} tokens of text {done + row} ({texts[done + row][:60]!r}); one token "
                "per text is read: use `last`, index(i), or the answer of the pairs"
            )
        rows.append(acts.flat(site, at=at).flatten(1).double().cpu())
        done += len(acts.tokens)
    return torch.cat(rows)


def capture_pairs(
    model: AnyModel, pairs: Pairs, site: Site, at: Position | None, *, progress: bool = True
) -> tuple[Float[Tensor, "example d_model"], Float[Tensor, "example d_model"]]:
    """The activations of both sides: a text's at its one token, a picture's mean over the places that are selected.

    Args:
        model: any model.
        pairs: of texts or of pictures.
        site: where.
        at: by default the answer of a text, and everywhere in a picture.
        progress: show a bar.

    Raises:
        InvalidArgument: a text with no selected token or several, or a picture with no selected place.

    Cost:
        One forward pass per text or picture, up to the site.

    Examples:
        ```python
        positive, negative = capture_pairs(model, Pairs(night, day), embedding, None)
        ```
    """
    if isinstance(pairs.positive, Images) or isinstance(pairs.negative, Images):
        if isinstance(model, Model):
            raise InvalidArgument(f"{model.name} reads texts, and the pairs are of pictures: give pairs of texts")
        at = everywhere if at is None else at
        positive, negative = (
            capture_mean_rows(model, one, site, at, progress=progress) for one in (pairs.positive, pairs.negative)
        )
        return positive, negative
    if not isinstance(model, Model):
        raise InvalidArgument(f"{model.name} reads no texts, and the pairs are of texts: give pairs of `Images`")
    at = pairs.answer if at is None else at
    positive, negative = (
        capture_rows(model, one, site, at, progress=progress) for one in (pairs.positive, pairs.negative)
    )
    return positive, negative


def capture_mean_rows(
    model: AnyModel,
    texts: Sequence[str] | Images,
    site: Site,
    at: Position,
    batch_size: int = 32,
    *,
    progress: bool = True,
) -> Float[Tensor, "example d_model"]:
    """The mean activation of each text over the tokens that a position selects, or picture over places, in float64.

    Raises:
        InvalidArgument: a string for a list, no texts, or a position that selects no token of a text.

    Cost:
        One forward pass per batch, up to the site.

    Examples:
        ```python
        capture_mean_rows(model, texts, resid_post[6], everywhere)
        ```
    """
    check_one_width([site])
    rows, done, texts = [], 0, texts if isinstance(texts, Images) else list_texts(texts)
    for acts in stream(model, texts, [site], batch_size=batch_size, progress=progress):
        mask = at.mask(acts.tokens.places(acts[site].shape[1], site))
        x = acts.flat(site, at=at).flatten(1).double().cpu()
        number = acts.tokens.text_number.cpu()
        text, texts_read = number[mask.nonzero()[:, 0].cpu()], int(number[-1]) + 1
        count = torch.bincount(text, minlength=texts_read)
        for row in (count == 0).nonzero().flatten().tolist():
            if isinstance(texts, Images):
                raise InvalidArgument(
                    f"{at} selects no place of picture {done + row}: leave it out, or say other places"
                )
            raise InvalidArgument(f"{at} selects no token of text {done + row} ({texts[done + row][:60]!r})")
        total = x.new_zeros(texts_read, x.shape[1]).index_add_(0, text, x)
        rows.append(total / count[:, None])
        done += texts_read
    return torch.cat(rows)


def make_direction(
    model: AnyModel,
    site: Site,
    vector: Float[Tensor, "d_model"],
    source: str,
    start: Float[Tensor, "d_model"],
    rows: Float[Tensor, "n d_model"],
) -> Direction:
    """A direction whose scale is the distance along it from a point to the farthest row, as for the probes.

    Raises:
        InvalidArgument: the vector is zero, or no row is on its side of the point.

    Examples:
        ```python
        make_direction(model, site, v, "difference of means", negative.mean(0), positive)
        ```
    """
    if float(vector.norm()) == 0:
        raise InvalidArgument(f"{source} at {site} found no difference: its vector is all 0")
    reach = float(((rows - start) @ (vector / vector.norm())).max())
    if reach <= 0:
        raise InvalidArgument(f"no text reaches beyond where {source} at {site} starts from, so it has no scale")
    at = model.tap(site).site
    dtype = model.dtype if isinstance(model, Model) else torch.get_default_dtype()
    return Direction(vector.to(dtype).to(model.device), at, source, reach, model.fingerprint)
