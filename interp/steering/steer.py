"""Steer a model inside a `with` block."""

from contextlib import AbstractContextManager

from hooks import Direction, Model, Receipt, intervene
from interp.steering.steering import Steering, adding


def steer(model: Model, what: Direction | Steering, dose: float) -> AbstractContextManager[Receipt]:
    """Steer with a dose of a direction, or of any other `Steering`, at every token while the block runs.

    A `Direction` v of scale s is added: x' = x + dose · s · v/|v|. The block yields the receipt of what was changed and
    leaves the model as it was.

    Errors: `ValueError` when the direction was read from another model, or the dose is not finite. Cost: none besides
    the forward passes inside the block.

    ```python
    with steer(model, direction, 4.0) as receipt:
        text = model.generate("I walked")
    ```
    """
    steering = adding(what) if isinstance(what, Direction) else what
    return intervene(model, {steering.site: steering.dose(dose)})
