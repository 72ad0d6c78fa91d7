"""What commands refuse before they load a model: a layer it does not have, a place that is taken."""

from pathlib import Path

from hooks.errors import InvalidArgument
from interp.commands.arguments import check_reachable, folder_or_id


def check_layer(model: str, layer: int | None, option: str = "--layer") -> None:
    """Refuse a layer that a model does not have, by its config alone, before its weights are read.

    Raises:
        InvalidArgument: there are fewer layers.
    """
    if layer is None:
        return
    check_reachable(model)
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder_or_id(model), trust_remote_code=False)
    except (OSError, ValueError):
        return  # load says what is wrong in more detail
    n = getattr(config.get_text_config(decoder=True), "num_hidden_layers", None)
    if isinstance(n, int) and layer >= n:
        raise InvalidArgument(f"{option} {layer}: {model} has layers 0 to {n - 1}")


def check_new(path: Path) -> None:
    """Refuse a place where something is already, before the work, so that nothing is written over.

    Pages are written over: the same command makes them again.

    Raises:
        InvalidArgument: a file, or a folder that is not empty.

    Examples:
        >>> check_new(Path("a file that is not there"))
    """
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise InvalidArgument(f"{str(path)!r} is there already: name another place to write to, or remove it")
