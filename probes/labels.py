"""Labels of any kind as numbers from 0, and the weights that rows have by label or by themselves."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from hooks.errors import InvalidArgument, InvalidType
from probes.arrays import Array, tensor
from probes.checks import check_axis

ClassWeight: TypeAlias = Mapping[Any, float] | str | None


def number_labels(y: Any, like: object = None) -> tuple[Int[Tensor, "n"], Shaped[Array, "class"]]:
    """The number of each label among the classes, and the classes in order: False and True, or what occurs.

    Classes are a tensor where the labels are one, or where rows (`like`) are one and a tensor can hold them.

    Raises:
        InvalidArgument: several axes, NaN, or fractions of more than two kinds, which are a target for a regression.

    Examples:
        >>> number_labels(["no", "yes", "no"])
        (tensor([0, 1, 0]), array(['no', 'yes'], dtype='<U3'))
    """
    y = _in_kind(y, like)
    check_axis(y)
    if isinstance(y, Tensor):
        if y.dtype == torch.bool:
            return y.long(), torch.tensor([False, True])
        _check_labels(y)
        classes, number = y.unique(return_inverse=True)
        classes = classes.cpu()
    else:
        if y.dtype == bool:
            return torch.from_numpy(y.astype(np.int64)), np.array([False, True])
        _check_labels(y)
        classes, inverse = np.unique(y, return_inverse=True)
        number = torch.from_numpy(inverse.reshape(-1).astype(np.int64))
    if len(classes) > 2 and _fractions(classes):
        raise InvalidArgument(
            f"Unknown label type: continuous, the labels are {len(classes)} different fractions: take a regression "
            "such as Ridge(), or labels such as y > 0"
        )
    return number, classes


def convert_truth(y: Any) -> Any:
    """Labels of two classes as bool: those that are, 0 and 1, or the larger of any two.

    Raises:
        InvalidType: more than two classes.

    Examples:
        >>> convert_truth([-1, 1])
        tensor([False,  True])
    """
    if isinstance(y, Tensor) and y.dtype == torch.bool:
        return y
    number, classes = number_labels(y)
    if len(classes) > 2:
        raise InvalidType(f"labels are of two classes here, these are of {len(classes)}: give y == the_positive_class")
    if len(classes) == 1 and np.asarray(classes).dtype.kind in "biuf":
        return torch.full_like(number, bool(classes[0] == 1), dtype=torch.bool)
    return number.bool()


def select_classes(classes: Shaped[Array, "class"], number: Int[Tensor, "n"], like: object) -> Any:
    """The classes with these numbers: a tensor where rows (`like`) are one and a tensor can hold the classes.

    Examples:
        >>> select_classes(np.array(["no", "yes"]), torch.tensor([1, 0]), [[0.0], [1.0]])
        array(['yes', 'no'], dtype='<U3')
    """
    if isinstance(like, Tensor) and (isinstance(classes, Tensor) or classes.dtype.kind in "biuf"):
        return torch.as_tensor(classes).to(number.device)[number]
    return np.asarray(classes)[number.cpu().numpy()]


def convert_weights(given: Any, n: int) -> Float[Tensor, "n"]:
    """The weights of rows in float64: as many copies of a row as its weight says.

    Raises:
        InvalidArgument: another number of weights than rows, NaN, weights below 0, or all 0.

    Examples:
        >>> convert_weights([1, 2], 2)
        tensor([1., 2.], dtype=torch.float64)
    """
    numbers = given.detach().cpu().numpy() if isinstance(given, Tensor) else np.asarray(given)
    weight = torch.from_numpy(numbers.astype(np.float64))
    if weight.ndim == 0:
        weight = weight.expand(n)
    if weight.shape != (n,):
        raise InvalidArgument(f"sample_weight has the shape {list(weight.shape)}, and there are {n} rows: give [{n}]")
    odd = (~(weight.isfinite() & (weight >= 0))).nonzero().flatten()
    if len(odd):
        raise InvalidArgument(
            f"sample_weight holds {float(weight[odd[0]]):g} for row {int(odd[0])}: give finite weights of 0 or more"
        )
    if not bool(weight.any()):
        raise InvalidArgument(f"all {n} weights of sample_weight are zero: at least one row must count")
    return weight


def weigh_rows_by_class(
    number: Int[Tensor, "n"],
    classes: Shaped[Array, "class"],
    class_weight: ClassWeight,
    weight: Float[Tensor, "n"] | None = None,
) -> Float[Tensor, "n"]:
    """The weight of each row by its class: as a mapping says, 1 where it says nothing; or "balanced", n / (k n_c).

    Raises:
        InvalidArgument: neither a mapping nor "balanced".

    Examples:
        >>> weigh_rows_by_class(torch.tensor([0, 0, 0, 1]), np.array(["no", "yes"]), "balanced")
        tensor([0.6667, 0.6667, 0.6667, 2.0000], dtype=torch.float64)
    """
    if isinstance(class_weight, Mapping):
        named = np.asarray(classes).tolist()
        each = torch.tensor([float(class_weight.get(name, 1.0)) for name in named], dtype=torch.float64)
    elif class_weight == "balanced":
        rows = torch.ones(len(number), dtype=torch.float64) if weight is None else weight.cpu()
        count = torch.zeros(len(classes), dtype=torch.float64).index_add_(0, number.cpu(), rows)
        each = count.sum() / (len(classes) * count)
    else:
        raise InvalidArgument(f"class_weight is {class_weight!r}: give a weight for each class, 'balanced' or None")
    return each.to(number.device)[number]


def _in_kind(y: Any, like: object) -> Any:
    """Labels as an array, or as a tensor where rows (`like`) are one and a tensor can hold them."""
    if isinstance(y, Tensor):
        return y if like is None or isinstance(like, Tensor) else y.cpu().numpy()
    array = _list_labels(y)
    if isinstance(like, Tensor) and array.dtype.kind in "biuf":
        return tensor(array).to(like.device)
    return array


def _list_labels(y: Any) -> np.ndarray:
    """Labels as an array of one axis; a column loses its second with scikit-learn's warning."""
    from sklearn.utils import column_or_1d

    if y is None:
        raise InvalidArgument("this probe requires y to be passed, but the target y is None: give a label per row")
    array = np.asarray(y)
    return column_or_1d(array, warn=True) if array.ndim == 2 and array.shape[1] == 1 else array


def _check_labels(y: Any) -> None:
    if isinstance(y, Tensor):
        if y.is_complex():
            raise InvalidType(f"labels are {y.dtype}: give real numbers, bool or strings")
        if y.is_floating_point() and not bool(y.isfinite().all()):
            raise InvalidArgument(f"label {int((~y.isfinite()).nonzero()[0])} is NaN or infinity")
        return
    from sklearn.utils import assert_all_finite
    from sklearn.utils.multiclass import check_classification_targets

    try:
        assert_all_finite(y, input_name="y")
        if y.dtype.kind != "f":
            check_classification_targets(y)
    except ValueError as error:
        raise InvalidArgument(str(error)) from error


def _fractions(classes: Array) -> bool:
    values = np.asarray(classes)
    return values.dtype.kind == "f" and bool((values != np.floor(values)).any())
