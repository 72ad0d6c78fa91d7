"""How often a probe of two classes is right."""

from abc import ABC, abstractmethod

from jaxtyping import Bool, Float
from torch import Tensor

from probes.arrays import Array, classes, floats
from probes.checks import check_labelled


class TwoClasses(ABC):
    """A probe whose labels are True and False."""

    @abstractmethod
    def predict(self, x: Float[Array, "n *d"]) -> Bool[Tensor, "n"]:
        """The labels."""

    def score(self, x: Float[Array, "n *d"], y: Bool[Array, "n"]) -> float:
        """The share of rows labelled rightly.

        Raises:
            ValueError: NaN or infinity, or labels that are not one per row.
            TypeError: labels that are not bool.
        """
        rows, labels = floats(x), classes(y)
        check_labelled(rows, labels)
        return float((self.predict(rows) == labels).double().mean())
