"""Files of tensors, with what is said about them: safetensors with a checksum of all of it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import Shaped
from torch import Tensor

from hooks.disk import checksum, read_bytes, write_file
from hooks.errors import DamagedFile, MissingFile
from hooks.json_file import FORMAT, Kind, parse_object

Tensors = Mapping[str, Shaped[Tensor, "..."]]


def save_tensors(path: str | Path, tensors: Tensors, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file, whole or not at all, with the rights of any other file.

    Raises:
        StorageFailed: it cannot be written.

    Examples:
        ```python
        save_tensors("weights.safetensors", {"W": W})
        ```
    """
    from safetensors.torch import save_file

    apart = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    with write_file(path) as partial:
        save_file(apart, partial, metadata)


def write_tensors(path: str | Path, kind: Kind, tensors: Tensors, about: Mapping[str, Any]) -> None:
    """Write tensors and, in the file's metadata, what is said about them and a checksum of both.

    Examples:
        ```python
        write_tensors("direction.safetensors", DIRECTION, {"vector": v}, {"site": "resid_post.3"})
        ```
    """
    said = json.dumps(about, sort_keys=True)
    header = {"format": str(FORMAT), "checksum": _checksum(kind, str(FORMAT), said, tensors)}
    save_tensors(path, tensors, {kind.name: said, **header})


def read_tensors(path: str | Path, kind: Kind) -> tuple[dict[str, Shaped[Tensor, "..."]], dict[str, Any]]:
    """Read what `write_tensors` wrote of a kind: the tensors, and what is said about them.

    Raises:
        MissingFile: there is no such file.
        DamagedFile: it is torn, changed, or of another kind.

    Examples:
        ```python
        read_tensors("direction.safetensors", DIRECTION)
        ```
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    data = read_bytes(path)  # not mapped: a mapped file that is truncated kills the process
    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__") or {}
    except (SafetensorError, ValueError, OverflowError, KeyError, RuntimeError, RecursionError) as error:
        raise DamagedFile(f"{path} is no safetensors file ({error}): {kind.expected}") from error
    said = header.get(kind.name)
    if said is None:
        raise DamagedFile(f"{path} holds no {kind.holds}: {kind.expected}")
    if header.get("checksum") != _checksum(kind, header.get("format", ""), said, tensors):
        raise DamagedFile(f"{path} is damaged, its checksum is another: {kind.cure}")
    about = parse_object(said, path, kind.cure)
    kind.check(about, path)
    return tensors, about


def read_weights(path: str | Path, cure: str) -> dict[str, Shaped[Tensor, "..."]]:
    """Read all tensors of a safetensors file of another library.

    Raises:
        MissingFile: there is no such file.
        DamagedFile: it is no safetensors file.

    Examples:
        ```python
        read_weights("sae_weights.safetensors", "download it again")
        ```
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not Path(path).is_file():
        raise MissingFile(f"there is no file {str(path)!r}: check its name and folder")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, OverflowError, KeyError) as error:
        raise DamagedFile(f"{path} is no safetensors file ({error}): {cure}") from error


def _checksum(kind: Kind, form: str, said: str, tensors: Tensors) -> str:
    parts = [part for name, tensor in sorted(tensors.items()) for part in (name, tensor)]
    return checksum(kind.name, form, said, *parts)
