"""What scikit-learn asks of an estimator: parameters that are the constructor's, and tags that say what it is."""

import inspect
from typing import Any

from hooks.errors import InvalidArgument, WrongState, nearest


class Estimator:
    """A constructor's arguments, kept verbatim under their own names, readable and settable by name.

    Makes `sklearn.base.clone`, pipelines, cross-validation and grid searches work; scikit-learn is not imported
    before it asks.
    """

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: ARG002 scikit-learn's signature
        """The constructor's arguments."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **params: object) -> "Estimator":
        """Change constructor arguments; an unknown one raises `ValueError` with the nearest name."""
        for name, value in params.items():
            if name not in self.get_params():
                known = nearest(name, self.get_params()) if self.get_params() else "none: it has no parameters"
                raise InvalidArgument(f"{type(self).__name__} has no parameter '{name}'; did you mean {known}?")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={_called(value)}" for name, value in self.get_params().items())
        return f"{type(self).__name__}({given})"

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, RegressorTags, Tags, TargetTags

        kind = getattr(self, "_estimator_type", None)
        return Tags(
            estimator_type=kind,
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags() if kind == "classifier" else None,
            regressor_tags=RegressorTags() if kind == "regressor" else None,
        )


def _called(value: object) -> str:
    return getattr(value, "__name__", repr(value))


def check_fitted(estimator: Estimator, attribute: str) -> None:
    """Raise `RuntimeError` unless `fit` has set an attribute.

    Example:
        ```python
        check_fitted(self, "coef_")
        ```
    """
    if not hasattr(estimator, attribute):
        raise WrongState(f"This {type(estimator).__name__} is not fitted: call fit(x, y) first.")
