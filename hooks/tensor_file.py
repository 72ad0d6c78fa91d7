"""Files of tensors, with what is said about them: safetensors, written whole and for all who may read the folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import Shaped
from torch import Tensor

from hooks.errors import InvalidArgument


def save_tensors(
    path: str | Path, tensors: Mapping[str, Shaped[Tensor, "..."]], metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file, by a temporary one, so that a reader sees the whole file or the one before.

    What safetensors writes only its owner may read; this has the rights of any other file.

    Example:
        ```python
        save_tensors("weights.safetensors", {"W": W})
        ```
    """
    from safetensors.torch import save_file

    whole = Path(path)
    part = whole.with_name(whole.name + ".part")
    part.touch()
    rights = part.stat().st_mode
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, part, metadata)
    part.chmod(rights)
    part.replace(whole)


def write_tensors(
    path: str | Path, key: str, tensors: Mapping[str, Shaped[Tensor, "..."]], about: Mapping[str, Any]
) -> None:
    """Write tensors and, under a key of the file's metadata, what is said about them.

    Example:
        ```python
        write_tensors("direction.safetensors", "hooks.direction", {"vector": v}, {"site": "resid_post.3"})
        ```
    """
    apart = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
    save_tensors(path, apart, {key: json.dumps(about, sort_keys=True)})


def read_tensors(
    path: str | Path, key: str, holds: str, writer: str
) -> tuple[dict[str, Shaped[Tensor, "..."]], dict[str, Any]]:
    """Read what `write_tensors` wrote under a key: the tensors, and what is said about them.

    Args:
        path: the file.
        key: of its metadata.
        holds: what it should hold, for the error.
        writer: what writes such files, for the error.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds something else.

    Example:
        ```python
        read_tensors("direction.safetensors", "hooks.direction", "direction", "Direction.save")
        ```
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            told = (file.metadata() or {}).get(key)
            tensors = {name: file.get_tensor(name) for name in file.keys()} if told else {}  # noqa: SIM118
    except SafetensorError as error:
        raise InvalidArgument(f"{path} is no safetensors file ({error}): expected one written by {writer}") from error
    if told is None:
        raise InvalidArgument(f"{path} holds no {holds}: expected a file written by {writer}")
    return tensors, json.loads(told)
