"""Loading a model: from the hub, a folder, an object in memory, or the package's own."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hooks.adapters import unwrap
from hooks.contract.check import checked
from hooks.errors import InvalidArgument, InvalidType, MissingFile
from hooks.fused import fuse
from hooks.huggingface import HFModel, Tokenizer
from hooks.model import Model

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


def load(
    source: str | Path | nn.Module,
    tokenizer: Tokenizer = None,
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    check: bool = True,
    device_map: str | Mapping[str, Any] | None = None,
    attn_implementation: str | None = None,
    revision: str | None = None,
    quantization_config: Any = None,
    trust_remote_code: bool = False,
) -> Model:
    """Load a transformer for capturing and intervening, in evaluation mode, and check its contract.

    Args:
        source: a Hugging Face id, a local folder, a `PreTrainedModel` (with its tokenizer) as it is or inside what
            `torch.compile` or PEFT made of it, a
            TransformerLens `TransformerBridge`, or "landmark", the bundled model. A model in memory is itself cast
            and moved, not a copy of it, and gives named outputs from then on.
        tokenizer: needed for text when `source` is a model in memory.
        dtype: of the weights; by default as stored. Frequencies of rotation, and what else a model computes rather
            than learns, stay as exact as they are.
        device: where to put the weights; by default where they are.
        check: measure its contract now, in seconds; otherwise when `check(model)` is called.
        device_map, attn_implementation, revision, quantization_config: handed to transformers, which reads the model.
        trust_remote_code: let a model run the code that lies next to its weights; never unless asked for.

    Raises:
        MissingFile: nothing is found there, or the bundled model is not in the package.
        InvalidType: an object in memory that is neither a `PreTrainedModel` nor something around one.
        InvalidArgument: no blocks can be found in the model, or a model in memory is to be read in some way.

    Cost: that of `check`, unless an equal model was checked before.

    Examples:
        ```python
        model = load("gpt2")
        ```
    """
    asked = {
        "device_map": device_map,
        "attn_implementation": attn_implementation,
        "revision": revision,
        "quantization_config": quantization_config,
        "trust_remote_code": trust_remote_code or None,
    }
    reading = {name: value for name, value in asked.items() if value is not None}
    if isinstance(source, str | Path):
        folder = _bundled() if source == "landmark" else source
        hf, tokenizer = _pretrained(folder, tokenizer, dtype, reading)
        name = str(source)
    else:
        if reading:
            raise InvalidArgument(
                f"{', '.join(reading)} says how to read a model from a folder or the hub, and this one is in memory: "
                "leave it out"
            )
        source = _unwrapped(source)
        bridged = getattr(source, "original_model", None) is not None
        hf: Any = None
        hf, found = unwrap(source) if bridged else (source, None)
        _check_kind(hf, source)
        tokenizer = tokenizer or found
        name = getattr(hf.config, "name_or_path", "") or type(hf).__name__
        hf = hf if dtype is None else _cast(hf, dtype)
    hf = hf if device is None else hf.to(device)
    model = Model(hf, tokenizer, name)
    if check:
        checked(model)
    return model


def _unwrapped(source: Any) -> Any:
    """The model inside what `torch.compile` or PEFT made of it; its adapters stay where they are."""
    inner = source._modules.get("_orig_mod") if isinstance(source, nn.Module) else None
    if inner is not None:
        return _unwrapped(inner)
    base: Any = getattr(source, "get_base_model", None)
    return source if base is None else base()


def _check_kind(hf: HFModel, source: object) -> None:
    import transformers

    if not isinstance(hf, transformers.PreTrainedModel):
        raise InvalidType(
            f"load takes a transformers.PreTrainedModel or a TransformerBridge around one, got {type(source).__name__}"
            f"{'' if hf is source else f' around {type(hf).__name__}'}: put the weights into the transformers class "
            "of their architecture (GPT2LMHeadModel fits most small TransformerLens models), or name a folder or hub id"
        )


def _cast(hf: HFModel, dtype: torch.dtype) -> HFModel:
    """The model itself with weights of a type; buffers that are not saved with them stay as they are."""
    kept = [(part, name, part._buffers[name]) for part in hf.modules() for name in part._non_persistent_buffers_set]
    hf.to(dtype=dtype)
    for part, name, buffer in kept:
        part._buffers[name] = buffer
    return hf


def _pretrained(
    folder: str | Path, tokenizer: Tokenizer, dtype: torch.dtype | None, reading: Mapping[str, Any]
) -> tuple[HFModel, Tokenizer]:
    import transformers

    found = {name: reading[name] for name in ("revision", "trust_remote_code") if name in reading}
    try:
        config = transformers.AutoConfig.from_pretrained(folder, **found)
    except (OSError, ValueError) as error:
        raise MissingFile(
            f"no model at '{folder}': it is no folder with a config.json, and the Hugging Face hub did not give it "
            f"({str(error).splitlines()[0]}); pass a folder, a hub id, a model in memory, or 'landmark'"
        ) from error
    named = (config.architectures or ["AutoModelForCausalLM"])[0]
    with _quietly():
        kind = getattr(transformers, named, transformers.AutoModelForCausalLM)
        hf = kind.from_pretrained(folder, dtype="auto" if dtype is None else dtype, **reading)
    without = Path(folder).is_dir() and not any((Path(folder) / file).exists() for file in _TOKENIZER_FILES)
    if tokenizer is None and not without:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **found)
    return fuse(hf), tokenizer


@contextmanager
def _quietly() -> Iterator[None]:
    """No progress bars for reading weights from disk, and as it was afterwards."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _bundled() -> Path:
    spec = find_spec("interp")
    places = [] if spec is None else [Path(place) for place in spec.submodule_search_locations or ()]
    for place in places:
        if (place / "landmark" / "model" / "config.json").exists():
            return place / "landmark" / "model"
    looked = " or ".join(str(place / "landmark" / "model") for place in places) or "an installed interp package"
    raise MissingFile(
        f"the bundled model 'landmark' is not at {looked}: reinstall the package, or train it with "
        "`interp landmark train`"
    )
