"""Loading a model: from the hub, a folder, an object in memory, or the package's own."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor, nn

from hooks.adapters import unwrap
from hooks.contract.check import contract_of
from hooks.devices import find_device
from hooks.errors import InvalidArgument, InvalidType, MissingFile
from hooks.huggingface import HFModel, Tokenizer
from hooks.model import Model
from hooks.network import Example, Network, check_network, guess_example
from hooks.offload import is_offloaded, place_of
from hooks.processor import Processor, read_processor
from hooks.towers import Towers, has_two_towers, towers_of

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


@overload
def load(
    source: nn.Module,
    tokenizer: None = None,
    *,
    inputs: Example,
    places: int | tuple[int, ...] | None = None,
    processor: Processor | None = None,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    check: bool = True,
) -> Network: ...


@overload
def load(
    source: str | Path | nn.Module,
    tokenizer: Tokenizer = None,
    *,
    places: int | tuple[int, ...] | None = None,
    processor: Processor,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    check: bool = True,
) -> Network | Towers: ...


@overload
def load(
    source: str | Path | nn.Module,
    tokenizer: Tokenizer = None,
    *,
    places: int | tuple[int, ...] | None = None,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    check: bool = True,
    device_map: str | Mapping[str, Any] | None = None,
    attn_implementation: str | None = None,
    revision: str | None = None,
    quantization_config: Any = None,
    trust_remote_code: bool = False,
) -> Model: ...


def load(
    source: str | Path | nn.Module,
    tokenizer: Tokenizer = None,
    *,
    inputs: Example | None = None,
    places: int | tuple[int, ...] | None = None,
    processor: Processor | None = None,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    check: bool = True,
    device_map: str | Mapping[str, Any] | None = None,
    attn_implementation: str | None = None,
    revision: str | None = None,
    quantization_config: Any = None,
    trust_remote_code: bool = False,
) -> Model | Network | Towers:
    """Load a transformer, or any module, for capturing and intervening, in evaluation mode, and check its contract.

    A transformer or convnet that reads pictures gives a `Network`, and a CLIP `Towers`, whose `image` is a `Network`
    and whose `text` a `Model`.

    Args:
        source: a Hugging Face id, a local folder, a `PreTrainedModel` (with its tokenizer) as it is or inside what
            `torch.compile` or PEFT made of it, a
            TransformerLens `TransformerBridge`, or "landmark", the bundled model. A model in memory is itself cast
            and moved, not a copy of it, and gives named outputs from then on. Any other module gives a `Network`,
            whose sites are its modules.
        tokenizer: needed for text when `source` is a model in memory.
        inputs: an example of what a module that is no `PreTrainedModel` reads, the batch first; without it one is made,
            if the first weights are of an embedding or a linear layer.
        places: which axes of such a module's tensors count places, as (2, 3) for a convnet's maps or 1 for a sequence;
            by default 1 where the example is of ids [batch pos], and none where it is not; where it is of pictures
            [batch channel row column], rows and columns of maps and pos of [batch pos d].
        processor: how a model of pictures reads them; by default as the file next to its weights says.
        dtype: of the weights; by default as stored. Frequencies of rotation, and what else a model computes rather
            than learns, stay as exact as they are.
        device: where to put the weights; by default where they are.
        check: measure its contract now, in seconds; otherwise when `check(model)` is called.
        device_map, attn_implementation, revision, quantization_config: passed to transformers, which reads the model.
        trust_remote_code: let a model run the code that is stored next to its weights; never unless asked for.

    Raises:
        MissingFile: nothing is found there, or the bundled model is not in the package.
        InvalidType: an object in memory that is no module, or example inputs for a transformer that reads text.
        InvalidArgument: no blocks can be found in the model, a model in memory is to be read in some way, or a model
            needs code of its own that was not trusted; a file in place of its folder, or no such device.

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
    device = None if device is None else find_device(device)
    if isinstance(source, str | Path):
        folder = _find_bundled() if source == "landmark" else source
        if Path(folder).is_file():
            raise InvalidArgument(f"'{source}' is a file, and a model is a folder: give '{Path(folder).parent}'")
        hf, tokenizer = _load_folder(folder, tokenizer, dtype, reading)
        name = str(source)
        if processor is None and reads_pictures(hf):
            processor = read_processor(folder, revision)
    else:
        if reading:
            raise InvalidArgument(
                f"{', '.join(reading)} says how to read a model from a folder or the hub, and this one is in memory: "
                "leave it out"
            )
        source = _unwrap(source)
        _check_movable(source, {"device": device, "dtype": dtype})
        bridged = getattr(source, "original_model", None) is not None
        hf: Any = None
        hf, found = unwrap(source) if bridged else (source, None)
        if _is_plain(hf, source, inputs, tokenizer):
            hf = hf if dtype is None else _cast(hf, dtype)
            return _network(hf if device is None else hf.to(device), inputs, places, check, processor)
        tokenizer = tokenizer or found
        name = getattr(hf.config, "name_or_path", "") or type(hf).__name__
        hf = hf if dtype is None else _cast(hf, dtype)
    hf = hf if device is None else hf.to(device)
    if has_two_towers(hf):
        image, text = towers_of(hf)
        seen = _network(image, _picture_for(image, processor), None, check, processor)
        return Towers(hf.eval(), seen, _model(text, tokenizer, name, check))
    if reads_pictures(hf):
        return _network(hf, _picture_for(hf, processor), places, check, processor)
    return _model(hf, tokenizer, name, check)


def _model(hf: HFModel, tokenizer: Tokenizer, name: str, check: bool) -> Model:
    model = Model(hf, tokenizer, name)
    if check:
        contract_of(model)
    return model


def reads_pictures(hf: HFModel) -> bool:
    """Return whether a Hugging Face model, or a tower of it, reads pictures.

    Examples:
        ```python
        reads_pictures(ViTModel(config))
        ```
    """
    return getattr(hf, "main_input_name", "") == "pixel_values" or has_two_towers(hf)


def _picture_for(hf: HFModel, processor: Processor | None) -> Example:
    """A picture of noise, of the size that a model of pictures reads."""
    size = getattr(hf.config, "image_size", None) or (None if processor is None else processor.crop or processor.size)
    height, width = (size or 224,) * 2 if isinstance(size, int | None) else size
    shape = (1, getattr(hf.config, "num_channels", 3), height, width)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    device, dtype = place_of(hf)
    return {"pixel_values": noise.to(device, dtype)}


def _check_movable(source: Any, asked: Mapping[str, Any]) -> None:
    named = [name for name, value in asked.items() if value is not None]
    if named and isinstance(source, nn.Module) and is_offloaded(source):
        raise InvalidArgument(
            f"{' and '.join(named)} would move or cast a model whose weights are partly offloaded, and accelerate "
            "keeps those where they are: leave it out, and give from_pretrained the dtype and a device_map"
        )


def _unwrap(source: Any) -> Any:
    """The model inside what `torch.compile` or PEFT made of it; its adapters stay where they are."""
    inner = source._modules.get("_orig_mod") if isinstance(source, nn.Module) else None
    if inner is not None:
        return _unwrap(inner)
    base: Any = getattr(source, "get_base_model", None)
    return source if base is None else base()


def _is_plain(hf: HFModel, source: object, inputs: Example | None, tokenizer: Tokenizer) -> bool:
    """Whether a module is loaded as a `Network`: one of plain torch, and a transformer with an example of its inputs.

    Raises:
        InvalidType: what is neither a module nor something around one.
    """
    import transformers

    if isinstance(hf, transformers.PreTrainedModel):
        return inputs is not None
    if tokenizer is not None or hf is not source or not isinstance(hf, nn.Module):
        raise InvalidType(
            f"load takes a transformers.PreTrainedModel or a TransformerBridge around one, got {type(source).__name__}"
            f"{'' if hf is source else f' around {type(hf).__name__}'}: put the weights into the transformers class "
            "of their architecture (GPT2LMHeadModel fits most small TransformerLens models), or name a folder or hub id"
        )
    return True


def _network(
    module: nn.Module,
    inputs: Example | None,
    places: int | tuple[int, ...] | None,
    check: bool,
    processor: Processor | None,
) -> Network:
    given = guess_example(module) if inputs is None else inputs
    ids = isinstance(given, Tensor) and given.ndim == 2 and not given.is_floating_point()
    axes = (places,) if isinstance(places, int) else (1,) if ids and places is None else places
    if any(axis < 1 for axis in axes or ()) or len(set(axes or ())) < len(axes or ()):
        raise InvalidArgument(f"places are axes after the batch, each once and counted from 1; got {places}")
    network = Network(module, given, axes, processor)
    if check:
        check_network(network)
    return network


def _cast(hf: HFModel, dtype: torch.dtype) -> HFModel:
    """The model itself with weights of a type; buffers that are not saved with them stay as they are."""
    kept = [(part, name, part._buffers[name]) for part in hf.modules() for name in part._non_persistent_buffers_set]
    hf.to(dtype=dtype)
    for part, name, buffer in kept:
        part._buffers[name] = buffer
    return hf


def _load_folder(
    folder: str | Path, tokenizer: Tokenizer, dtype: torch.dtype | None, reading: Mapping[str, Any]
) -> tuple[HFModel, Tokenizer]:
    import transformers

    reading = {"trust_remote_code": False, **reading}  # else transformers asks on the terminal
    found = {name: reading[name] for name in ("revision", "trust_remote_code") if name in reading}
    try:
        config = transformers.AutoConfig.from_pretrained(folder, **found)
    except (OSError, ValueError) as error:
        _check_own_code(folder, found, error)
        if (Path(folder) / "config.json").is_file():
            raise InvalidArgument(
                f"the config.json in '{folder}' cannot be read as a model of transformers "
                f"({str(error).splitlines()[0].rstrip('.')}): correct it, or pass a model in memory"
            ) from error
        raise MissingFile(
            f"no model at '{folder}': it is no folder with a config.json, and the Hugging Face hub did not give it "
            f"({str(error).splitlines()[0]}); pass a folder, a hub id, a model in memory, or 'landmark'"
        ) from error
    named = (config.architectures or ["AutoModelForCausalLM"])[0]
    with _quietly():
        kind = getattr(transformers, named, transformers.AutoModelForCausalLM)
        hf = kind.from_pretrained(folder, dtype="auto" if dtype is None else dtype, **reading)
    if getattr(hf, "main_input_name", "") == "pixel_values":
        return hf, tokenizer
    without = Path(folder).is_dir() and not any((Path(folder) / file).exists() for file in _TOKENIZER_FILES)
    if tokenizer is None and not without:
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **found)
        except ValueError as error:
            _check_own_code(folder, found, error)
            raise
    return _fuse(hf), tokenizer


def _check_own_code(folder: str | Path, found: Mapping[str, Any], error: Exception) -> None:
    """Refuse, with its files named, a model that cannot be read without the code next to its weights.

    Raises:
        InvalidArgument: there is such code, and it was not said that it may run.
    """
    import transformers
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    if found["trust_remote_code"]:
        return
    said: list[str] = []
    config = transformers.PretrainedConfig
    for read in (lambda: config.get_config_dict(folder)[0], lambda: get_tokenizer_config(folder)):
        with suppress(OSError, ValueError):
            for way in (read().get("auto_map") or {}).values():
                said += [one for one in (way if isinstance(way, list) else [way]) if one]
    named = {one.split("--")[-1].split(".")[0] for one in said}
    if named:
        files = ", ".join(f"{one}.py" for one in sorted(named))
        raise InvalidArgument(
            f"the model at '{folder}' is read by code of its own ({files}), which was not run: read that code, and if "
            "you trust it, load(..., trust_remote_code=True)"
        ) from error


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


def _find_bundled() -> Path:
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


def _fuse(hf: HFModel) -> HFModel:
    """Compute GPT-2's GELU, 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), by PyTorch's kernel; in place.

    transformers' own takes eight passes over memory, a sixth of the time of a small model's forward pass on a CPU. The
    results agree to rounding; the configuration stays as it is.

    Args:
        hf: a model that the library loaded itself; one that the user made must not be changed.
    """
    from transformers.activations import NewGELUActivation

    for module in hf.modules():
        for name, child in module.named_children():
            if type(child) is NewGELUActivation:
                setattr(module, name, nn.GELU(approximate="tanh"))
    return hf
