"""A dictionary that processes share, on disk: one file of rows for each process, read again by any number of them."""

from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open
from torch import Tensor
from typing_extensions import TypedDict

from hooks import Site
from hooks.disk import Record, check_record, record_file
from hooks.errors import InvalidArgument
from hooks.json_file import Kind, read_json, write_json
from hooks.tensor_file import save_tensors
from interp.sae.architectures.sae import SAE
from interp.sae.architectures.sharded import ShardedTopK

INDEX: Final = "shards.json"
CURE: Final = "put it back from a copy, or save it again"
_BY_LATENT: Final = ("W_dec", "W_enc", "b_enc", "max_activation")
SAID: Final = ("model_name", "fingerprint", "dataset")


class ShardFile(TypedDict):
    """One file: the latents in it, from the first to the one after the last, and its checksum."""

    first: int
    end: int
    file: Record


class Shards(TypedDict):
    """What the index says: how to make the autoencoder again, where it belongs, and its files.

    `first` and `end` of a file of a cross-layer transcoder count the latents of each layer.
    """

    d_in: int
    d_sae: int
    settings: dict[str, Any]
    sites: list[str]
    said: dict[str, str | None]
    parts: dict[str, ShardFile]


KIND: Final = Kind("interp.sae.shards", "dictionary in parts", "save_shards", Shards)


def save_shards(sae: ShardedTopK, folder: str | Path) -> Path:
    """Write the latents that this process holds; called in every process, the whole dictionary is on disk.

    Nothing is exchanged but names and checksums. The folder is one that all processes see. It holds no normalisation:
    an autoencoder whose weights read normalised activations is refused.

    Raises:
        InvalidArgument: the weights read normalised activations.

    Examples:
        ```python
        save_shards(sae, "dictionary")          # in every process
        ```
    """
    sae.raw()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (held,) = sae.own.ranges
    name = f"latents-{held.start:09}-{held.stop:09}.safetensors"
    own = {"W_dec": sae.W_dec, "W_enc": sae.W_enc.T, "b_enc": sae.b_enc}
    same = {"b_dec": sae.b_dec, "variance": sae.get_buffer("variance")}
    peaks = sae.own.part(sae.max_activation)
    save_tensors(folder / name, own | same | {"max_activation": peaks})
    write_index(KIND, sae, folder / name, held.start, held.stop)
    return folder


def load_shards(folder: str | Path, *, device: torch.device | None = None) -> ShardedTopK:
    """Read what `save_shards` wrote, each process its own latents, however many processes wrote it.

    Of a file only the rows that are this process's are read into memory.

    Raises:
        MissingFile: there is no such dictionary, or one of its files is missing.
        DamagedFile: a file is torn or changed.
        WrongState: no processes have joined.

    Cost: one reading of each file that holds some of the latents, for its checksum.

    Examples:
        ```python
        sae = load_shards("dictionary")         # in every process
        ```
    """
    folder = Path(folder)
    about = read_json(folder / INDEX, KIND)
    parts = sorted_parts(about, folder, about["d_sae"], "latents")
    sae = ShardedTopK(about["d_in"], about["d_sae"], **about["settings"])
    with torch.no_grad():
        for name, part in parts:
            _read_part(sae, folder / name, part)
    restore_origin(sae, about)
    sae.max_activation.copy_(sae._join(sae.own.part(sae.max_activation)))
    return sae.to(device)


def write_index(kind: Kind, sae: SAE, path: Path, first: int, end: int) -> None:
    """Record this process's file, exchange the records, and have one process write the index next to the files."""
    mine: ShardFile = {"first": first, "end": end, "file": record_file(path)}
    heard: list[tuple[str, ShardFile]] = [(path.name, mine)] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(heard, (path.name, mine))
    if torch.distributed.get_rank() == 0:
        about: Shards = {
            "d_in": sae.d_in,
            "d_sae": sae.d_sae,
            "settings": sae.settings(),
            "sites": [str(site) for site in sae.sites],
            "said": {one: getattr(sae, one) for one in SAID},
            "parts": dict(heard),
        }
        write_json(path.parent / INDEX, kind, about)
    torch.distributed.barrier()


def sorted_parts(about: dict[str, Any], folder: Path, n: int, latents: str) -> list[tuple[str, ShardFile]]:
    """The files in the order of their latents, if they make up n of them without gap or overlap.

    Raises:
        InvalidArgument: they do not.
    """
    parts = sorted(about["parts"].items(), key=lambda one: one[1]["first"])
    ends = [0, *(part["end"] for _, part in parts)]
    if [part["first"] for _, part in parts] != ends[:-1] or ends[-1] != n:
        raise InvalidArgument(f"the files of {folder} do not make up {n} {latents}: {CURE}")
    return parts


def restore_origin(sae: SAE, about: dict[str, Any]) -> None:
    """Give a dictionary its sites, and what the index says of its model and data."""
    sae.sites = tuple(Site.parse(one) for one in about["sites"])
    for one, value in about["said"].items():
        setattr(sae, one, value)


def _read_part(sae: ShardedTopK, path: Path, part: ShardFile) -> None:
    """The rows of a file that are this process's, into their places."""
    (held,) = sae.own.ranges
    first, end = max(part["first"], held.start), min(part["end"], held.stop)
    if first >= end:
        return
    check_record(path, part["file"], CURE)
    to = {
        "W_dec": sae.W_dec,
        "W_enc": sae.W_enc.T,
        "b_enc": sae.b_enc,
        "max_activation": sae.max_activation[held.start : held.stop],
    }
    with safe_open(path, "pt") as file:
        for name in _BY_LATENT:
            rows: Tensor = file.get_slice(name)[first - part["first"] : end - part["first"]]
            to[name][first - held.start : end - held.start] = rows.to(to[name])
        sae.b_dec.copy_(file.get_tensor("b_dec"))
        sae.get_buffer("variance").copy_(file.get_tensor("variance"))
