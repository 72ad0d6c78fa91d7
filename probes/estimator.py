"""scikit-learn's protocol for estimators, kept without importing it: parameters, tags, rows in, and what is refused.

scikit-learn is imported where it reads our tags, where it checks tables for us (arrays, lists and data frames; tensors
are checked here), and where `NotFitted` is raised.
"""

import inspect
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from hooks.errors import InvalidArgument, InvalidType, WrongState, nearest
from probes.arrays import floats
from probes.checks import check_finite, check_width

if TYPE_CHECKING:

    class NotFitted(WrongState):
        """A probe that scores before it has learnt: `WrongState`, and scikit-learn's `NotFittedError`."""


class Estimator:
    """A constructor's arguments, kept verbatim under their own names, readable and settable by name.

    It makes `sklearn.base.clone`, pipelines, cross-validation, grid searches and ensembles work. Rows come in as a
    tensor or as anything that scikit-learn takes; what comes out, and what `fit` learns, is of the same kind.
    """

    _estimator_type: ClassVar[str | None] = None
    n_features_in_: int

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: ARG002 scikit-learn's signature
        """The constructor's arguments."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **params: object) -> "Estimator":
        """Change constructor arguments; an unknown one raises `InvalidArgument` with the nearest name."""
        for name, value in params.items():
            if name not in self.get_params():
                known = nearest(name, self.get_params()) if self.get_params() else "none: it has no parameters"
                raise InvalidArgument(f"{type(self).__name__} has no parameter '{name}'; did you mean {known}?")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={_call_value(value)}" for name, value in self.get_params().items())
        return f"{type(self).__name__}({given})"

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, InputTags, RegressorTags, Tags, TargetTags, TransformerTags

        kind = self._estimator_type
        return Tags(
            estimator_type=kind,
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags(multi_class=False) if kind == "classifier" else None,
            regressor_tags=RegressorTags() if kind == "regressor" else None,
            transformer_tags=TransformerTags() if kind == "transformer" else None,
            input_tags=InputTags(),
        )

    def _table(self, x: Any, *, learn: bool) -> Float[Tensor, "n d_model"]:
        """Rows of two axes as floating numbers, finite and, unless they are learnt from, as wide as those that were."""
        if not isinstance(x, Tensor):
            return floats(self._check_by_sklearn(x, learn=learn))
        rows = floats(x)
        if rows.ndim != 2:
            raise InvalidArgument(f"rows have the shape [n, width], got {list(rows.shape)}: give x.flatten(0, -2)")
        check_finite(rows)
        if learn:
            self.n_features_in_ = rows.shape[1]
            vars(self).pop("feature_names_in_", None)
        else:
            check_width(rows, self.n_features_in_)
        return rows

    def _check_by_sklearn(self, x: Any, *, learn: bool) -> Any:
        from sklearn.utils.validation import validate_data

        try:
            return validate_data(self, x, reset=learn)
        except (ValueError, TypeError) as error:
            kind = InvalidArgument if isinstance(error, ValueError) else InvalidType
            raise kind(str(error)) from error


def _call_value(value: object) -> str:
    return getattr(value, "__name__", repr(value))


def check_fitted(estimator: Estimator, attribute: str) -> None:
    """Raise `NotFitted` unless `fit` has set an attribute.

    Examples:
        ```python
        check_fitted(self, "coef_")
        ```
    """
    if not hasattr(estimator, attribute):
        raise _not_fitted()(f"this {type(estimator).__name__} is not fitted: call fit(x, y) first")


@cache
def _not_fitted() -> type[WrongState]:
    from sklearn.exceptions import NotFittedError

    doc = {"__doc__": "A probe that scores before it has learnt.", "__module__": __name__}
    return type("NotFitted", (WrongState, NotFittedError), doc)


def __getattr__(name: str) -> Any:
    """`NotFitted`, which is made when it is first asked for, because half of it is scikit-learn's."""
    if name == "NotFitted":
        return _not_fitted()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
