"""A fitted linear probe as scikit-learn's own estimator, which joblib keeps and any of its tools take."""

from typing import Any, Final

import numpy as np

from hooks.errors import InvalidArgument
from probes import LDA, Logistic, Multinomial
from probes.arrays import tensor
from probes.estimator import check_fitted
from probes.linear import Linear, LinearProbe

WITH_PROBABILITIES: Final = (Logistic, LDA)


def to_sklearn(probe: Linear | Multinomial) -> Any:
    """The same scores w.x + b, classes and probabilities as a fitted estimator of scikit-learn.

    Probes whose scores are log-odds become a `LogisticRegression`, other classifiers a `LinearSVC`, which has no
    probabilities, and regressions a `LinearRegression`.

    Raises:
        InvalidArgument: a probe that is not linear.
        NotFitted: it is not fitted.

    Cost: none.

    Examples:
        ```python
        joblib.dump(to_sklearn(probe), "probe.joblib")
        ```
    """
    check_fitted(probe, "coef_")
    if isinstance(probe, Multinomial):
        return _multinomial(probe)
    made = _empty(probe)
    w, b = _numpy(probe.coef_), float(probe.intercept_)
    if isinstance(probe, LinearProbe):
        made.coef_, made.intercept_ = w[None], np.array([b])
        made.classes_ = np.asarray(probe.classes_)
    else:
        made.coef_, made.intercept_ = w, b
    made.n_features_in_ = w.shape[-1]
    return made


def _empty(probe: Linear) -> Any:
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from sklearn.svm import LinearSVC

    if isinstance(probe, WITH_PROBABILITIES):
        return LogisticRegression()
    return LinearSVC() if isinstance(probe, LinearProbe) else LinearRegression()


def _multinomial(probe: Multinomial) -> Any:
    """Its classes' rows; of two classes the one row that scikit-learn keeps, what the second has more."""
    from sklearn.linear_model import LogisticRegression

    made: Any = LogisticRegression()
    W, b = _numpy(probe.coef_), _numpy(probe.intercept_)
    two = len(W) == 2
    made.coef_, made.intercept_ = (W[1:] - W[:1], b[1:] - b[:1]) if two else (W, b)
    made.classes_ = np.asarray(probe.classes_)
    made.n_features_in_ = W.shape[1]
    return made


def _numpy(of: Any) -> Any:
    if isinstance(of, np.ndarray):
        return of.astype(np.float64)
    if not hasattr(of, "__len__"):
        raise InvalidArgument(f"this probe's coef_ is {of!r}, which is no vector: fit the probe first")
    return tensor(of).double().cpu().numpy()
