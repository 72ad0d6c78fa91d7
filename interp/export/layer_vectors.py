"""What recipes add to the stream at each layer, which is all that files of steering vectors can say."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hooks import Direction, Model, intervene
from hooks.errors import InvalidArgument, WrongModel
from hooks.fingerprint import is_of
from hooks.interventions import add
from hooks.position import everywhere, special
from hooks.site import resid_post
from interp.export.client import compare_logits, largest_difference, own_logits, plain_logits
from interp.export.report import ExportReport
from interp.steering import Recipe, SteeredModel

Vectors = Mapping[int, Float[Tensor, "d_model"]]


def vectors_of(model: Model, recipes: Sequence[Recipe]) -> dict[int, Float[Tensor, "d_model"]]:
    """What recipes add to the residual stream after each block: dose · s · v/|v|, summed where they share a layer.

    Args:
        model: the model they steer.
        recipes: each adds a direction at some `resid_post`, everywhere and on no condition.

    Raises:
        InvalidArgument: none were given, or one that does anything else.
        WrongModel: one of another model.
    """
    if not recipes:
        raise InvalidArgument("no recipes were given to export: give at least one")
    summed: dict[int, Tensor] = {}
    for recipe in recipes:
        layer = _layer(model, recipe)
        vector = recipe.direction.unit.float().cpu() * recipe.direction.scale * recipe.dose
        summed[layer] = summed[layer] + vector if layer in summed else vector
    return dict(sorted(summed.items()))


def _layer(model: Model, recipe: Recipe) -> int:
    direction = recipe.direction
    if not is_of(model, direction.fingerprint):
        raise WrongModel(f"{direction} was found in another model than {model.name}: export it with its own")
    if recipe.way != "add" or recipe.condition is not None or recipe.at != "everywhere":
        condition = " on a condition" if recipe.condition is not None else ""
        raise InvalidArgument(
            f"this recipe steers by {recipe.way!r} at {recipe.at!r}{condition}, and a file of vectors can only add "
            "everywhere: make a Recipe(direction, 'add', dose), or share the recipe's own file"
        )
    site = direction.site
    if site.name != "resid_post" or site.layer is None or site.stack:
        raise InvalidArgument(
            f"this recipe steers at {site}, and a file of vectors adds to the stream after a block: take a direction "
            f"at {resid_post[site.layer or 0]}"
        )
    return site.layer


def directions_of(vectors: Vectors, source: str) -> dict[int, Direction]:
    """Vectors of another tool as directions, of which a dose of 1 adds the vector itself.

    Raises:
        InvalidArgument: a vector that is zero or not finite.
    """
    return {
        layer: Direction(vector.float(), resid_post[layer], f"{source}, layer {layer}", float(vector.float().norm()))
        for layer, vector in sorted(vectors.items())
    }


@contextmanager
def add_everywhere(model: Model, vectors: Vectors) -> Iterator[None]:
    """Plain hooks on the blocks, as other tools steer: each vector is added to its block's output at every token."""
    with ExitStack() as stack:
        for layer, vector in vectors.items():
            handle = block_of(model, layer).register_forward_hook(_adding(vector))
            stack.callback(handle.remove)
        yield


def block_of(model: Model, layer: int) -> nn.Module:
    """The module whose output is the stream after a block.

    Raises:
        InvalidArgument: no such layer, or a model in which no module gives that stream.
    """
    tap = model.tap(resid_post[layer])
    if tap.side != "output":
        raise InvalidArgument(f"no block of {model.name} gives {resid_post[layer]}, so other tools cannot steer there")
    return tap.module


def _adding(vector: Float[Tensor, "d_model"]) -> Callable[..., Any]:
    def hook(_module: Any, _args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (output[0] + vector.to(output[0]), *output[1:])
        return output + vector.to(output)

    return hook


def compare_vectors(
    model: Model, recipes: Sequence[Recipe], vectors: Vectors, report: ExportReport, prompts: Sequence[str]
) -> ExportReport:
    """The report with what plain hooks that add the vectors at every token do, next to our adding at every token.

    Our own steering leaves special tokens, such as the first, as they are. How far that is from adding at every token
    is said among what is lost.

    Raises:
        WrongState: it is something else.
    """
    everywhere_at_all = everywhere | special
    with torch.no_grad():
        plain = own_logits(model, prompts)
        with ExitStack() as stack:
            for recipe in recipes:
                stack.enter_context(SteeredModel(model, recipe).steer())
            steered = own_logits(model, prompts)
        with intervene(model, {resid_post[i]: add(v, at=everywhere_at_all) for i, v in vectors.items()}):
            ours = own_logits(model, prompts)
        with add_everywhere(model, vectors):
            theirs = plain_logits(model.hf, model, prompts)
    skipped = largest_difference(steered, ours)
    lost = (
        f"that our steering leaves special tokens as they are: with them logits differ by up to {skipped:.3g} more",
    )
    report = replace(report, lost=(*report.lost, *(lost if skipped else ())))
    return compare_logits(report, "plain hooks that add at every token", plain=plain, ours=ours, theirs=theirs)
