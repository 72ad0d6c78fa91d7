"""The small worlds of the package as models, by their names."""

from pathlib import Path

import torch

from hooks import Model, load
from hooks.errors import MissingFile

MODELS = Path(__file__).parent / "models"


def bundled_worlds() -> tuple[str, ...]:
    """The names of the worlds whose models are in the package.

    Examples:
        >>> isinstance(bundled_worlds(), tuple)
        True
    """
    return tuple(sorted(folder.name for folder in MODELS.glob("*") if (folder / "config.json").exists()))


def load_world(name: str, device: str | torch.device | None = None) -> Model:
    """The trained model of a world that is in the package.

    Args:
        name: of the world.
        device: where to put the weights; by default the CPU.

    Raises:
        MissingFile: it is not; `interp worlds train` makes it.

    Examples:
        ```python
        model = load_world("lists")
        ```
    """
    if name not in bundled_worlds():
        raise MissingFile(
            f"no bundled world is called {name!r}; the package has {', '.join(bundled_worlds())}; "
            f"`interp worlds train {name} FOLDER` trains one that is not in the package"
        )
    return load(MODELS / name, device=device)
