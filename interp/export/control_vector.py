"""Control vectors of llama.cpp and repeng: GGUF files of what is added to the stream after each block."""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Final

import numpy as np
import torch

from hooks import Direction, Model
from hooks.disk import read_foreign, write_file
from hooks.errors import DamagedFile, InvalidArgument, MissingExtra, MissingFile
from interp.export.layer_vectors import compare_vectors, directions_of, vectors_of
from interp.export.report import ExportReport
from interp.steering import Recipe

ARCHITECTURE: Final = "controlvector"
CURE: Final = "write it again by its tool, or by to_gguf_vector"


def to_gguf_vector(
    model: Model, recipes: Sequence[Recipe], file: str | Path, *, prompts: Sequence[str] = ("The",)
) -> ExportReport:
    """Write recipes as a control vector: `direction.i` is what is added at `resid_post[i]`, dose included.

    llama.cpp takes it with `--control-vector FILE`, at strength 1; repeng with `ControlVector.import_gguf`, at
    coefficient 1. Both add to every token, special ones too, and repeng counts layers as we do. llama.cpp has no place
    for layer 0.

    Args:
        model: the model they steer.
        recipes: each adds a direction at some `resid_post`, everywhere and on no condition.
        file: what to write, a name that ends in `.gguf`.
        prompts: what to compare on.

    Raises:
        InvalidArgument: a recipe that does anything else, or adds at layer 0.
        WrongModel: one of another model.
        MissingExtra: the package gguf is not installed.

    Cost: three forward passes a prompt.

    Examples:
        ```python
        print(to_gguf_vector(model, [Recipe(direction, "add", 4.0)], "bridge.gguf"))
        ```
    """
    vectors = vectors_of(model, recipes)
    if 0 in vectors:
        raise InvalidArgument(
            "a recipe adds at resid_post.0, and a control vector begins at layer 1: llama.cpp refuses 'direction.0'. "
            "Take a direction at resid_post.1 or later"
        )
    with write_file(file) as partial:
        writer = _gguf().GGUFWriter(partial, ARCHITECTURE)
        writer.add_string(f"{ARCHITECTURE}.model_hint", str(model.hf.config.model_type))
        writer.add_uint32(f"{ARCHITECTURE}.layer_count", len(vectors))
        for layer, vector in vectors.items():
            writer.add_tensor(f"direction.{layer}", vector.numpy().astype(np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    report = ExportReport(f"{len(recipes)} recipes as a control vector", (Path(file),))
    return compare_vectors(model, recipes, vectors, report, prompts)


def read_gguf_vector(file: str | Path) -> dict[int, Direction]:
    """Read a control vector that llama.cpp, repeng or `to_gguf_vector` wrote: the direction of each layer.

    A dose of 1 of a direction adds its vector as it is, which is strength 1 there. `direction.i` acts at
    `resid_post[i]`.

    Raises:
        MissingFile: there is no such file.
        DamagedFile: it is torn, or holds no control vector.
        MissingExtra: the package gguf is not installed.

    Examples:
        ```python
        read_gguf_vector("bridge.gguf")[4]
        ```
    """
    if not Path(file).is_file():
        raise MissingFile(f"there is no file {str(file)!r}: check its name and folder")
    reading = _gguf().GGUFReader

    def read() -> dict[int, torch.Tensor]:
        held = reading(file)
        found = [one for one in held.tensors if one.name.startswith("direction.")]
        if not found:
            raise DamagedFile(f"{file} holds no tensor called direction.1 or the like: expected a control vector")
        return {int(one.name.split(".")[1]): torch.from_numpy(np.array(one.data, dtype=np.float32)) for one in found}

    return directions_of(read_foreign(file, CURE, read), f"control vector {Path(file).name}")


def _gguf() -> ModuleType:
    try:
        import gguf
    except ImportError as error:
        raise MissingExtra("control vectors need the package gguf: pip install 'interp-workbench[export]'") from error
    return gguf
