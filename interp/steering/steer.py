"""Steer a model inside a `with` block."""

from contextlib import AbstractContextManager

from hooks import Direction, Receipt, intervene
from hooks.border import Finite
from hooks.network import AnyModel
from interp.steering.conditional import Conditional
from interp.steering.steering import Steering, add_direction


def steer(model: AnyModel, what: Direction | Steering | Conditional, dose: Finite) -> AbstractContextManager[Receipt]:
    """Steer with a dose of a direction, or any other `Steering`, at every token or place while the block runs.

    A `Direction` v of scale s is added: x' = x + dose · s · v/|v|. The block yields the receipt of what was changed and
    leaves the model as it was.

    Raises:
        InvalidArgument: the direction was read from another model, the dose is not finite, or a condition is read after
            the place where it should act.

    Cost: none besides the forward passes inside the block.

    Examples:
        ```python
        with steer(model, direction, 4.0) as receipt:
            text = model.generate("I walked")
        ```
    """
    steering = add_direction(what) if isinstance(what, Direction) else what
    if isinstance(steering, Conditional):
        steering.check(model)
    return intervene(model, steering.interventions(dose))
