"""Words for cells: the classes that a net's cells speak for, or what a language model would say of a cell's mean."""

from collections.abc import Sequence
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import Images, Model, Network, capture_gradients
from hooks.border import Count
from hooks.errors import InvalidArgument, WrongModel
from hooks.pieces import piece
from hooks.progress import progress_bar
from interp.atlas.activation_atlas import Atlas
from interp.lenses import LogitLens

Words: TypeAlias = tuple[tuple[tuple[str, float], ...], ...]
"""For each cell its words, each with a number."""
CANDIDATES = 4


def attribute_cells(
    model: Network,
    pictures: Images,
    atlas: Atlas,
    classes: Sequence[str],
    *,
    examples: Count = 4,
    top: Count = 3,
    progress: bool = True,
) -> Words:
    """Return for each cell the classes that its activations speak for: `mean_i a_i · ∂logit_c/∂a_i`.

    The mean is over the cell's examples nearest to its mean, with `a_i` the activation at the place in the atlas. Only
    the classes with the largest mean logit over these examples are tried.

    Args:
        model: a net with classes.
        pictures: those that the atlas is of.
        atlas: of the model.
        classes: their names, in the order of the logits.
        examples: of each cell.
        top: classes of each cell.
        progress: show a bar.

    Raises:
        WrongModel: the model gives no logits of these classes.
        InvalidArgument: an atlas of no site.

    Cost: for each example five passes forward and as many backward.

    Examples:
        ```python
        attribute_cells(load_net("convnet"), pictures, atlas, LANDMARKS)
        ```
    """
    site = atlas.sample.space.site
    if site is None:
        raise InvalidArgument("the atlas is of no site: make its sample by sample_activations")
    rows = [cell.members[:examples] for cell in atlas.cells.cells]
    lengths = [len(one) for one in rows]
    flat = torch.cat(rows)
    item, place = atlas.sample.item[flat], atlas.sample.place[flat]
    scores = torch.cat([_logits(model, Images(part), len(classes)) for part in pictures.pixels[item].split(128)])
    likely = torch.stack([part.mean(0) for part in scores.split(lengths)]).topk(min(CANDIDATES, len(classes)))
    owner = torch.repeat_interleave(torch.arange(len(rows)), torch.tensor(lengths))
    tried = [likely.indices[owner, j] for j in range(likely.indices.shape[1])]
    effect = torch.stack(
        [
            _attribute(model, pictures, atlas, item, place, one)
            for one in progress_bar(tried, desc="cells", progress=progress)
        ],
        1,
    )
    means = [part.mean(0) for part in effect.split(lengths)]
    return tuple(
        tuple((classes[int(numbers[j])], float(mean[j])) for j in mean.argsort(descending=True)[:top])
        for mean, numbers in zip(means, likely.indices, strict=True)
    )


@torch.no_grad()
def _logits(model: Network, pictures: Images, n: int) -> Float[Tensor, "n class"]:
    found = _read_logits(model.run(pictures))
    if found is None or found.shape[-1] != n:
        raise WrongModel(f"{model.name} gives no logits of {n} classes, so no class can be attributed to a cell")
    return found


def _read_logits(output: object) -> Float[Tensor, "n class"] | None:
    found = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    return found if isinstance(found, Tensor) and found.ndim == 2 else None


def _attribute(
    model: Network,
    pictures: Images,
    atlas: Atlas,
    item: Int[Tensor, "n"],
    place: Int[Tensor, "n"],
    number: Int[Tensor, "n"],
) -> Float[Tensor, "n"]:
    """`a · ∂logit/∂a` at the place of each example, of its own class."""
    site, found = atlas.sample.space.site, []
    assert site is not None
    for part in torch.arange(len(item)).split(128):

        def metric(output: object, part: Tensor = part) -> Tensor:
            logits = _read_logits(output)
            assert logits is not None
            return logits.gather(1, number[part][:, None]).sum()

        got = capture_gradients(model, model.tokens(Images(pictures.pixels[item[part]])), site, metric)
        at = (torch.arange(len(part)), place[part])
        a, slope = got.activations[site].flatten(2)[at], got.gradients[site].flatten(2)[at]
        found.append((a * slope).sum(1))
    return torch.cat(found)


def read_cells(model: Model, atlas: Atlas, *, top: Count = 4) -> Words:
    """Return for each cell what the logit lens reads off its mean, by how much likelier than off the sample's mean.

    `log p(w | cell mean) − log p(w | mean of the sample)`, of the words that are among the 50 likeliest of the cell.

    Raises:
        InvalidArgument: an atlas of another site than the residual stream after a block.

    Cost: one unembedding for each cell.

    Examples:
        ```python
        read_cells(load("landmark"), atlas)
        ```
    """
    site = atlas.sample.space.site
    if site is None or site.name != "resid_post" or site.layer is None:
        raise InvalidArgument(f"a lens reads the residual stream after a block, and the atlas is of {site}")
    rows = torch.cat([atlas.means, atlas.sample.space.mean[None]]).to(model.device, model.dtype)
    with torch.no_grad():
        log_p = LogitLens(model).read(rows, site.layer).float().log_softmax(-1).cpu()
    found = []
    for own in log_p[:-1]:
        likely = own.topk(min(50, len(own))).indices
        more = (own - log_p[-1])[likely]
        best = more.topk(min(top, len(more)))
        words = [piece(model.tokenizer, int(likely[i])) for i in best.indices.tolist()]
        found.append(tuple(zip(words, best.values.tolist(), strict=True)))
    return tuple(found)
