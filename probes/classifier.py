"""What probes of classes share: labels of any kind in and out, weights of rows, and how often they are right."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int, Real, Shaped
from torch import Tensor

from hooks.errors import InvalidArgument
from probes.arrays import Array, Table
from probes.checks import check_lengths, check_two
from probes.estimator import Estimator
from probes.labels import ClassWeight, convert_weights, number_labels, select_classes, weigh_rows_by_class


class Classifier(Estimator, ABC):
    """A probe of classes, which are whatever the labels are: bool, numbers, strings, categories."""

    _estimator_type: ClassVar[str | None] = "classifier"
    classes_: Shaped[Array, "class"]
    class_weight: ClassWeight

    @abstractmethod
    def predict(self, x: Float[Array, "n *d"] | Table) -> Shaped[Array, "n"]:
        """The labels."""

    def score(
        self,
        x: Float[Array, "n *d"] | Table,
        y: Shaped[Array, "n"] | Table,
        sample_weight: Real[Array, "n"] | Table | None = None,
    ) -> float:
        """The share of rows labelled rightly.

        Raises:
            InvalidArgument: NaN or infinity, or labels that are not one per row.
        """
        said = self.predict(x)
        number, classes = number_labels(y, like=x)
        check_lengths(said, number)
        real = select_classes(classes, number, x)
        right = torch.as_tensor(said == real)
        if sample_weight is None:
            return float(right.double().mean())
        weight = convert_weights(sample_weight, len(right)).to(right.device)
        return float((weight * right).sum() / weight.sum())

    def _number_rows(
        self, x: Any, rows: Tensor, y: Any, sample_weight: Any
    ) -> tuple[Tensor, Int[Tensor, "n"], Float[Tensor, "n"] | None]:
        """The rows that count, the number of each one's class, and their weights, None where all weigh the same."""
        number, self.classes_ = number_labels(y, like=x)
        check_lengths(rows, number)
        number, weight = number.to(rows.device), None
        if sample_weight is not None:
            weight = convert_weights(sample_weight, len(rows)).to(rows.device)
            kept = weight > 0
            rows, number, weight = rows[kept], number[kept], weight[kept]
            self.classes_, number = _drop_absent(self.classes_, number)
        if getattr(self, "class_weight", None) is not None:
            by_class = weigh_rows_by_class(number, self.classes_, self.class_weight, weight)
            weight = by_class if weight is None else weight * by_class
        return rows, number, weight


class TwoClasses(Classifier, ABC):
    """A probe of two classes, whose score is above 0 for the second of `classes_`."""

    @abstractmethod
    def decision_function(self, x: Float[Array, "n *d"] | Table) -> Float[Array, "n"]:
        """The scores."""

    def predict(self, x: Float[Array, "n *d"] | Table) -> Shaped[Array, "n"]:
        """The second class where the score is above 0, and the first elsewhere."""
        score = self.decision_function(x)
        return select_classes(self.classes_, torch.as_tensor(score > 0).long(), x)

    def score(
        self,
        x: Float[Array, "n *d"] | Table,
        y: Shaped[Array, "n"] | Table,
        sample_weight: Real[Array, "n"] | Table | None = None,
    ) -> float:
        """The share of rows labelled rightly.

        Raises:
            InvalidArgument: NaN or infinity, labels that are not one per row, or that were not learnt from.
        """
        known = set(torch.as_tensor(self.classes_).tolist() if isinstance(self.classes_, Tensor) else self.classes_)
        strange = [label for label in number_labels(y, like=x)[1].tolist() if label not in known]
        if strange:
            raise InvalidArgument(f"the label {strange[0]!r} was not learnt from: the classes are {sorted(known)}")
        return super().score(x, y, sample_weight)

    def _two(
        self, x: Any, rows: Tensor, y: Any, sample_weight: Any = None
    ) -> tuple[Tensor, Bool[Tensor, "n"], Float[Tensor, "n"] | None]:
        """As `_number_rows`, with the class as True or False; `InvalidArgument` unless both classes are there."""
        plain = sample_weight is None and getattr(self, "class_weight", None) is None
        if plain and isinstance(x, Tensor) and isinstance(y, Tensor) and y.dtype == torch.bool:
            check_two(rows, y)
            self.classes_ = torch.tensor([False, True])
            return rows, y.to(rows.device), None
        rows, number, weight = self._number_rows(x, rows, y, sample_weight)
        if len(self.classes_) > 2:
            raise InvalidArgument(
                "Only binary classification is supported. The type of the target is multiclass, with "
                f"{len(self.classes_)} classes: take Multinomial(), or give y == the_positive_class"
            )
        if len(self.classes_) < 2:
            raise InvalidArgument(
                f"all {len(number)} labels are {self.classes_[0]}; rows of both classes are needed, and there is "
                "1 class"
            )
        labels = number.bool()
        check_two(rows, labels)
        return rows, labels, weight

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags


def _drop_absent(classes: Array, number: Tensor) -> tuple[Any, Tensor]:
    """The classes of the rows that are left, numbered again; False and True both stay."""
    if isinstance(classes, Tensor) and classes.dtype == torch.bool or str(classes.dtype) == "bool":
        return classes, number
    left, number = number.unique(return_inverse=True)
    return classes[left.cpu() if isinstance(classes, Tensor) else left.cpu().numpy()], number
