"""The one protocol through which a run says how it goes."""

from typing import Protocol, runtime_checkable

from interp.sae.training.history import Point


@runtime_checkable
class Callback(Protocol):
    """Is given every point of the curve while training runs; `name` is the autoencoder's among those of a run.

    An example that keeps the last point of each:

    ```python
    class Latest(dict):
        def begin(self, names, tokens): ...
        def point(self, name, point): self[name] = point
        def end(self): ...
    train(sae, source, callbacks=[Latest()])
    ```
    """

    def begin(self, names: tuple[str, ...], tokens: int) -> None:
        """A run begins, or goes on after `tokens`: points after that were lost with the weights."""
        ...

    def point(self, name: str, point: Point) -> None:
        """A point of one autoencoder's curve."""
        ...

    def end(self) -> None:
        """The run is over, or has failed."""
        ...
