"""scikit-learn's own checks, and its estimators of estimators, on probes and erasers."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.ensemble import BaggingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.feature_selection import SelectFromModel
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.utils import get_tags

from benchmarks.conformance_probes import ESTIMATORS, measure_conformance
from probes import CCS, LEACE, AttentionProbe, Logistic, MeanProjection, Multinomial
from probes.estimator import NotFitted

pytestmark = pytest.mark.usefixtures("unchecked")  # scikit-learn hands over what no signature allows


def called(value: object) -> str:
    return type(value).__name__


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=called)
def test_every_probe_of_two_dimensional_input_passes_scikit_learns_checks(estimator: Any) -> None:
    found = measure_conformance(clone(estimator))
    assert found.failed == {}
    assert found.passed > 40
    assert len(found.expected) <= 1


def problem() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    y = (random.random(200) < 0.3).astype(int)
    x = random.normal(size=(200, 6))
    x[:, 0] += y
    return x, y


def test_estimators_of_estimators_find_what_they_find_with_scikit_learns_logistic_regression() -> None:
    x, y = problem()
    ours, theirs = Logistic(), LogisticRegression(tol=1e-10, max_iter=10_000)
    for wrap, read in (
        (lambda p: BaggingClassifier(p, 3, random_state=0), lambda w: w.predict(x)),
        (SelectFromModel, lambda w: w.get_support()),
        (TunedThresholdClassifierCV, lambda w: w.predict(x)),
        (lambda p: FixedThresholdClassifier(p, threshold=0.4), lambda w: w.predict(x)),
        (lambda p: make_pipeline(SelectFromModel(p), clone(p)), lambda w: w.predict(x)),
    ):
        assert np.array_equal(read(wrap(ours).fit(x, y)), read(wrap(theirs).fit(x, y)))
    assert np.min(ours.fit(x, y).decision_function(x)) == ours.decision_function(x).min()


def test_weights_of_rows_and_of_classes_are_those_of_scikit_learn() -> None:
    x, y = problem()
    weight = np.random.default_rng(1).exponential(size=200)
    for class_weight in (None, "balanced", {0: 0.5, 1: 3.0}):
        theirs = LogisticRegression(class_weight=class_weight, tol=1e-12, max_iter=10_000, solver="newton-cholesky")
        theirs.fit(x, y, sample_weight=weight)
        ours = Logistic(class_weight=class_weight).fit(x, y, sample_weight=weight)
        np.testing.assert_allclose(ours.coef_, theirs.coef_[0], atol=1e-5)
        np.testing.assert_allclose(
            Multinomial(class_weight=class_weight).fit(x, y, weight).decision_function(x),
            Logistic(C=2.0, class_weight=class_weight).fit(x, y, weight).decision_function(x),
            atol=1e-4,
        )


def test_data_frames_go_through_an_eraser_with_their_names_and_their_rows() -> None:
    x, y = problem()
    frame = pd.DataFrame(x, columns=list("abcdef"), index=range(100, 300))
    for eraser in (LEACE(), MeanProjection()):
        plain = eraser.fit(frame, y).transform(frame)
        assert isinstance(plain, np.ndarray)
        assert eraser.get_feature_names_out().tolist() == list("abcdef")
        named = clone(eraser).set_output(transform="pandas").fit(frame, y).transform(frame)
        pd.testing.assert_frame_equal(named, pd.DataFrame(plain, columns=frame.columns, index=frame.index))
        assert isinstance(eraser.fit(torch.tensor(x), torch.tensor(y)).transform(torch.tensor(x)), torch.Tensor)


def test_the_means_of_several_classes_coincide_after_their_span_is_projected_out() -> None:
    x, y = problem()
    y = np.array(["red", "green", "blue"])[(np.arange(200) + y) % 3]
    x += np.array([[1.0, 0, 0, 0, 0, 0], [0, 2, 0, 0, 0, 0], [0, 0, 0, 3, 0, 0]])[(np.arange(200)) % 3]
    for eraser in (LEACE(), MeanProjection()):
        erased = eraser.fit(x, y).transform(x)
        means = np.stack([erased[y == colour].mean(0) for colour in ("red", "green", "blue")])
        np.testing.assert_allclose(means - means.mean(0), 0, atol=1e-9)
        assert np.linalg.matrix_rank(eraser.projection_) == 2


def test_probes_of_sequences_say_so_in_their_tags() -> None:
    for probe in (AttentionProbe(), CCS()):
        tags = get_tags(probe).input_tags
        assert tags.three_d_array and not tags.two_d_array
    assert get_tags(Multinomial()).classifier_tags.multi_class
    assert not get_tags(Logistic()).classifier_tags.multi_class


def test_a_refusal_of_what_is_not_fitted_survives_a_process() -> None:
    with pytest.raises(NotFittedError) as refused:
        Logistic().predict(np.ones((2, 2)))
    again = pickle.loads(pickle.dumps(refused.value))
    assert type(again) is NotFitted and str(again) == str(refused.value)


def test_scikit_learn_is_not_loaded_for_tensors() -> None:
    code = """
import sys, torch
from probes import Logistic, LEACE, Ridge
x = torch.randn(40, 3)
y = torch.arange(40) % 2 == 0
Logistic().fit(x, y).score(x, y), LEACE().fit(x, y).transform(x), Ridge().fit(x, x[:, 0]).score(x, x[:, 0])
print("sklearn" in sys.modules)
"""
    root = Path(__file__).resolve().parents[2]
    ran = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
