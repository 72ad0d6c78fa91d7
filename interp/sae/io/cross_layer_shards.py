"""A cross-layer transcoder that processes share, on disk: a file for each process, read again by any number of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import torch
from safetensors import safe_open
from torch import Tensor

from hooks.disk import check_record
from hooks.json_file import Kind, read_json
from hooks.tensor_file import save_tensors
from interp.sae.architectures.sharded_cross_layer import ShardedCrossLayerTranscoder
from interp.sae.io.shards import CURE, INDEX, ShardFile, Shards, restore_origin, sorted_parts, write_index

_SAME: Final = ("b_dec", "W_skip", "variance")


KIND: Final = Kind(
    "interp.sae.cross_layer_shards", "cross-layer transcoder in parts", "save_cross_layer_shards", Shards
)


def save_cross_layer_shards(clt: ShardedCrossLayerTranscoder, folder: str | Path) -> Path:
    """Write the latents that this process holds; called in every process, the whole transcoder is on disk.

    Nothing is exchanged but names and checksums. The folder is one that all processes see. It holds no normalisation:
    a transcoder whose weights read normalised activations is refused.

    Raises:
        InvalidArgument: the weights read normalised activations.

    Examples:
        ```python
        save_cross_layer_shards(clt, "clt")          # in every process
        ```
    """
    clt.raw()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    name = f"latents-{clt.rank}-of-{clt.world}.safetensors"
    with torch.no_grad():
        own = {key: tensor.contiguous() for key, tensor, _ in _shares(clt)}
        same = {key: tensor for key in _SAME if (tensor := getattr(clt, key)) is not None}
        peaks = clt.own.part(clt.max_activation).view(clt.n_layers, -1)
    save_tensors(folder / name, own | same | {"max_activation": peaks})
    first = clt.rank * clt.per_layer
    write_index(KIND, clt, folder / name, first, first + clt.per_layer)
    return folder


def load_cross_layer_shards(folder: str | Path, *, device: torch.device | None = None) -> ShardedCrossLayerTranscoder:
    """Read what `save_cross_layer_shards` wrote, each process its own latents, however many processes wrote it.

    Of a file only the latents that are this process's are read into memory.

    Raises:
        MissingFile: there is no such transcoder, or one of its files is missing.
        DamagedFile: a file is torn or changed.
        WrongState: no processes have joined.

    Cost: one reading of each file that holds some of the latents, for its checksum.

    Examples:
        ```python
        clt = load_cross_layer_shards("clt")         # in every process
        ```
    """
    folder = Path(folder)
    about = read_json(folder / INDEX, KIND)
    clt = ShardedCrossLayerTranscoder(about["d_in"], about["d_sae"], **about["settings"])
    parts = sorted_parts(about, folder, clt.d_sae // clt.n_layers, "latents of each layer")
    peaks = torch.zeros(clt.n_layers, clt.per_layer)
    with torch.no_grad():
        for name, part in parts:
            _read_part(clt, peaks, folder / name, part)
    clt.max_activation.copy_(clt._join(peaks.flatten()))
    restore_origin(clt, about)
    return clt.to(device)


def _shares(clt: ShardedCrossLayerTranscoder) -> Iterator[tuple[str, Tensor, int]]:
    """What this process holds of each tensor, by its name in a file, and the axis of the latents."""
    for name in ("W_enc", "b_enc", "threshold"):
        yield name, getattr(clt, name), 1
    for i, D in enumerate(clt.decoders()):
        yield f"W_dec_{i}", D, 0


def _read_part(clt: ShardedCrossLayerTranscoder, peaks: Tensor, path: Path, part: ShardFile) -> None:
    """The latents of a file that are this process's, into their places."""
    begin = clt.rank * clt.per_layer
    first, end = max(part["first"], begin), min(part["end"], begin + clt.per_layer)
    if first >= end:
        return
    check_record(path, part["file"], CURE)
    there, here = slice(first - part["first"], end - part["first"]), slice(first - begin, end - begin)
    with safe_open(path, "pt") as file:
        for name, to, axis in (*_shares(clt), ("max_activation", peaks, 1)):
            held = file.get_slice(name)
            if axis:
                to[:, here] = held[:, there].to(to)
            else:
                to[here] = held[there].to(to)
        for name in _SAME:
            if getattr(clt, name) is not None:
                getattr(clt, name).copy_(file.get_tensor(name))
