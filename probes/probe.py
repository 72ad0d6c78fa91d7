"""What a probe is: something fitted to labelled activations that scores others."""

from typing import Any, ClassVar, Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor


@runtime_checkable
class Probe(Protocol):
    """scikit-learn's contract: `fit` returns self and forgets what it knew, learned names end in an underscore.

    Linear probes also have a direction: `probe.direction(resid_post[4])`, and `probe.direction_` where a store or a
    sweep has said where the rows come from.

    Examples:
        ```python
        probe = Logistic().fit(x, y)
        probe.predict(new_x), probe.direction(resid_post[4])
        ```
    """

    name: ClassVar[str]

    def fit(self, x: Float[Tensor, "n d_model"], y: Bool[Tensor, "n"]) -> "Probe":
        """Learn from labelled rows and return self."""
        ...

    def decision_function(self, x: Float[Tensor, "n d_model"]) -> Any:
        """Score rows, a number for each, in the kind of the rows; above 0 the label is more likely than not."""
        ...

    def predict(self, x: Float[Tensor, "n d_model"]) -> Any:
        """Label rows, in the kind of the rows."""
        ...
