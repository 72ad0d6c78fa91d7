"""Steering vectors by layer in the files of other tools: JSON of activation-steering, tensors of steering-vectors."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Direction, Model
from hooks.disk import read_bytes, read_foreign, read_pickled, write_text
from hooks.errors import DamagedFile, InvalidArgument
from hooks.tensor_file import read_weights, save_tensors
from interp.export.layer_vectors import compare_vectors, directions_of, vectors_of
from interp.export.report import ExportReport
from interp.steering import Recipe

CURE: Final = "write it again by the tool it comes from"


def to_layer_tensors(
    model: Model, recipes: Sequence[Recipe], file: str | Path, *, prompts: Sequence[str] = ("The",)
) -> ExportReport:
    """Write recipes as safetensors: a tensor `resid_post.4` is what is added there at every token, dose included.

    steering-vectors takes them as `SteeringVector({4: tensor}, "decoder_block")` with multiplier 1.

    Raises:
        InvalidArgument: a recipe that does anything but add everywhere at some `resid_post`.
        WrongModel: one of another model.

    Cost: three forward passes a prompt.

    Examples:
        ```python
        to_layer_tensors(model, [Recipe(direction, "add", 4.0)], "bridge.safetensors")
        ```
    """
    vectors = vectors_of(model, recipes)
    about = {
        "model": model.name,
        "fingerprint": model.fingerprint,
        "method": "; ".join(recipe.direction.source for recipe in recipes),
        "unit": "added as they are at every token, at strength 1",
    }
    save_tensors(file, {f"resid_post.{layer}": vector for layer, vector in vectors.items()}, about)
    report = ExportReport(f"{len(recipes)} recipes as tensors by layer", (Path(file),))
    return compare_vectors(model, recipes, vectors, report, prompts)


def read_layer_tensors(file: str | Path) -> dict[int, Direction]:
    """Read the direction of each layer from safetensors, or from a dictionary of tensors that `torch.save` wrote.

    Names are a number, or end in one: `4`, `direction.4`, `resid_post.4`. A dose of 1 adds the vector as it is at
    `resid_post` of that layer, as steering-vectors does with "decoder_block" and repeng does. A file with any code
    in it is refused.

    Raises:
        MissingFile: there is no such file.
        DamagedFile: it is torn, or holds anything but one vector per layer.

    Examples:
        ```python
        read_layer_tensors("bridge.safetensors")[4]
        ```
    """
    if Path(file).suffix == ".safetensors":
        held: Any = read_weights(file, CURE)
    else:
        held = read_pickled(file, CURE)
    return directions_of(_by_layer(held, file), f"vectors {Path(file).name}")


def to_svec(
    model: Model, recipes: Sequence[Recipe], file: str | Path, *, prompts: Sequence[str] = ("The",)
) -> ExportReport:
    """Write recipes as the JSON of activation-steering (`.svec`), which adds to what a block is given.

    Its layer l is therefore our `resid_pre[l]`, which is `resid_post[l - 1]`: what is added at `resid_post[4]` is
    written under layer 5, and the last layer cannot be written.

    Raises:
        InvalidArgument: a recipe that does anything but add everywhere, or adds after the last block.
        WrongModel: one of another model.

    Cost: three forward passes a prompt.

    Examples:
        ```python
        to_svec(model, [Recipe(direction, "add", 4.0)], "bridge.svec")
        ```
    """
    vectors = vectors_of(model, recipes)
    if model.n_layers - 1 in vectors:
        raise InvalidArgument(
            f"a recipe adds at resid_post.{model.n_layers - 1}, after the last block, and this tool adds before "
            f"blocks: take a direction at resid_post.{model.n_layers - 2} or earlier"
        )
    content = {
        "model_type": str(model.hf.config.model_type),
        "directions": {str(layer + 1): vector.tolist() for layer, vector in vectors.items()},
        "explained_variances": {str(layer + 1): 1.0 for layer in vectors},
    }
    write_text(file, json.dumps(content))
    lost = ("how much variance each vector explains, which that tool's own vectors say; 1 is written",)
    report = ExportReport(f"{len(recipes)} recipes for activation-steering", (Path(file),), lost=lost)
    return compare_vectors(model, recipes, vectors, report, prompts)


def read_svec(file: str | Path) -> dict[int, Direction]:
    """Read a vector of activation-steering (`.svec`): the direction of each of our layers.

    That tool adds to what block l is given, which is `resid_post[l - 1]` here; what it would add before the first
    block has no such place and is refused.

    Raises:
        MissingFile: there is no such file.
        DamagedFile: it is torn, or holds anything else.
        InvalidArgument: it has a vector for layer 0.

    Examples:
        ```python
        read_svec("bridge.svec")[4]
        ```
    """

    def read() -> dict[int, Tensor]:
        directions = json.loads(read_bytes(file))["directions"]
        return {int(layer): torch.tensor(vector, dtype=torch.float32) for layer, vector in directions.items()}

    found = read_foreign(file, CURE, read)
    if 0 in found:
        raise InvalidArgument(f"{file} adds before the first block, where no resid_post is: leave layer 0 out of it")
    return directions_of({layer - 1: vector for layer, vector in found.items()}, f"vectors {Path(file).name}")


def _by_layer(held: object, file: str | Path) -> dict[int, Float[Tensor, "d_model"]]:
    if not isinstance(held, Mapping) or not held:
        raise DamagedFile(f"{file} holds a {type(held).__name__}, and a vector for each layer was expected: {CURE}")
    found = {}
    for name, vector in held.items():
        number = str(name).rpartition(".")[2]
        if not number.isdigit() or not isinstance(vector, Tensor) or vector.numel() != vector.shape[-1]:
            raise DamagedFile(f"{file} holds {name!r}, which is no vector of a layer such as 'resid_post.4': {CURE}")
        found[int(number)] = vector.reshape(-1)
    return found
