"""The laws that every probe keeps: one table."""

import inspect
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.utils.data import DataLoader, TensorDataset

from hooks import Site
from hooks.errors import WrongState
from probes import (
    CCS,
    LDA,
    LEACE,
    MLP,
    AttentionProbe,
    DifferenceOfMeans,
    KSparse,
    LeastSquares,
    Logistic,
    MassMean,
    MeanProjection,
    Multinomial,
    Ridge,
)
from probes.cross_validation import scores
from probes.estimator import NotFitted

pytestmark = pytest.mark.usefixtures("unchecked")

LINEAR = [DifferenceOfMeans(), MassMean(), LDA(), Logistic(C=0.5), KSparse(k=3)]
TWO_CLASSES = [*LINEAR, MLP(width=8, steps=60)]
D = 6


def rows(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two overlapping classes of unequal size."""
    g = torch.Generator().manual_seed(seed)
    y = torch.rand(n, generator=g) < 0.4
    y[:2] = torch.tensor([True, False])
    return torch.randn(n, D, generator=g) * torch.linspace(0.5, 2, D) + y[:, None] * torch.linspace(1, 0, D), y


def continuous(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    x, _ = rows(n, seed)
    return x, x @ torch.linspace(-1, 1, D) + 0.5 * torch.randn(n, generator=torch.Generator().manual_seed(seed + 1))


def several(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    x, _ = continuous(n, seed)
    return x, x[:, :3].argmax(1)


def pairs(n: int, seed: int) -> tuple[torch.Tensor, None]:
    x, _ = rows(2 * n, seed)
    return x.reshape(n, 2, D), None


def sequences(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = rows(4 * n, seed)
    return x.reshape(n, 4, D), y[:n]


def scored(probe: Any, x: Any) -> Any:
    """The scores of a probe of classes, the prediction of a regression."""
    return getattr(probe, "decision_function", probe.predict)(x)


Data = Callable[[int, int], tuple[torch.Tensor, Any]]
ALL: list[tuple[Any, Data]] = [
    *((probe, rows) for probe in TWO_CLASSES),
    (Ridge(), continuous),
    (LeastSquares(), continuous),
    (Multinomial(), several),
    (CCS(restarts=2, steps=20), pairs),
    (AttentionProbe(heads=2, steps=20), sequences),
]


def called(value: object) -> str | None:
    return type(value).__name__ if hasattr(value, "fit") else None


every = pytest.mark.parametrize(("probe", "data"), ALL, ids=called)
of_two_classes = pytest.mark.parametrize("probe", TWO_CLASSES, ids=called)
linear = pytest.mark.parametrize("probe", LINEAR, ids=called)


@every
def test_fit_returns_the_probe_and_forgets_what_it_learnt_before(probe: Any, data: Data) -> None:
    x, y = data(60, 1)
    once = scored(clone(probe).fit(x, y), x)
    again = clone(probe).fit(*data(80, 2))
    assert again.fit(x, y) is again
    assert torch.equal(scored(again, x), once)


@every
def test_parameters_are_the_constructors_and_a_clone_has_them_and_nothing_learnt(probe: Any, data: Data) -> None:
    fitted = clone(probe).fit(*data(60, 1))
    twin = clone(fitted)
    assert twin.get_params() == probe.get_params()
    assert [name for name in vars(twin) if name.endswith("_")] == []
    assert eval(repr(probe), {type(probe).__name__: type(probe), **_rankings()}).get_params() == probe.get_params()


@every
def test_an_unfitted_probe_does_not_score(probe: Any, data: Data) -> None:
    with pytest.raises(RuntimeError, match=rf"this {type(probe).__name__} is not fitted: call fit\(x, y\) first"):
        scored(clone(probe), data(5, 1)[0])


@every
def test_an_unknown_parameter_is_refused(probe: Any, data: Data) -> None:
    with pytest.raises(ValueError, match=f"{type(probe).__name__} has no parameter 'colour'"):
        clone(probe).set_params(colour=2.0)


@every
def test_nan_is_refused(probe: Any, data: Data) -> None:
    x, y = data(12, 3)
    x[6, 1] = torch.nan
    with pytest.raises(ValueError, match=r"row 6 holds NaN or infinity|finite numbers"):
        clone(probe).fit(x, y)


@every
def test_doubling_the_precision_changes_no_score(probe: Any, data: Data) -> None:
    x, y = data(60, 4)
    single, double = scored(clone(probe).fit(x, y), x), scored(clone(probe).fit(x.double(), y), x)
    assert torch.allclose(single.double(), double.double(), atol=1e-4)


@every
def test_rows_in_half_precision_are_scored_as_the_same_rows_in_double(probe: Any, data: Data) -> None:
    x, y = data(60, 4)
    x = (x + 3).bfloat16()
    for half, double in ((x, x.double()), (x.half(), x.half().double())):
        score, exact = (scored(clone(probe).fit(form, y), form).double() for form in (half, double))
        assert torch.allclose(score, exact, atol=1e-4)
        parts = clone(probe)
        if hasattr(parts, "fit_batches"):
            parts.fit_batches([(half[:30], y[:30]), (half[30:], y[30:])])
            assert torch.allclose(scored(parts, half).double(), exact, atol=1e-3)


@pytest.mark.parametrize(("probe", "data"), [pair for pair in ALL if hasattr(pair[0], "score")], ids=called)
def test_labels_of_another_shape_or_number_give_no_score(probe: Any, data: Data) -> None:
    x, y = data(60, 4)
    fitted = clone(probe).fit(x, y)
    labels = y if y is not None else torch.arange(60) % 2 == 0
    assert fitted.score(x, labels) <= 1
    for odd in (labels[:, None], labels[None], labels[:1]):
        with pytest.raises(ValueError, match="give y.flatten|each row needs one label"):
            fitted.score(x, odd)
    if y is None or y.dtype == torch.bool:
        with pytest.raises(ValueError, match=r"the label 2 was not learnt from: the classes are \[False, True\]"):
            fitted.score(x, labels.long() + 1)
    else:
        with pytest.raises(ValueError, match="give y.flatten"):
            clone(probe).fit(x, labels[:, None])
        with pytest.raises(ValueError, match="give y.flatten"):
            clone(probe).fit_batches([(x, labels[:, None])])


@every
def test_scikit_learn_knows_what_it_is(probe: Any, data: Data) -> None:
    if isinstance(probe, Ridge | LeastSquares):
        assert is_regressor(probe)
    elif not isinstance(probe, CCS):
        assert is_classifier(probe)


@of_two_classes
def test_the_order_of_the_rows_does_not_matter(probe: Any) -> None:
    x, y = rows(60, 5)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    fitted = clone(probe).fit(x, y).decision_function(x)
    assert torch.allclose(clone(probe).fit(x[order], y[order]).decision_function(x), fitted, atol=2e-3)


@of_two_classes
def test_it_works_on_arrays_in_a_pipeline_and_in_cross_validation(probe: Any) -> None:
    x, y = rows(90, 6)
    piped = make_pipeline(StandardScaler(), clone(probe))
    found = cross_val_score(piped, x.numpy(), y.numpy(), cv=3)
    assert found.shape == (3,)
    assert cross_val_score(piped, x.numpy(), y.numpy(), cv=3, scoring="roc_auc").min() > 0.5
    fitted = clone(probe).fit(x.numpy().astype(np.float64), y.numpy())
    assert fitted.score(x.double(), y) == float((fitted.predict(x.double()) == y).double().mean())


def test_a_grid_search_finds_the_better_penalty() -> None:
    x, y = rows(40, 7)
    wide = torch.cat([x, 3 * torch.randn(40, 30, generator=torch.Generator().manual_seed(1))], 1)
    search = GridSearchCV(Logistic(), {"C": [1e-3, 1e3]}, cv=4).fit(wide.numpy(), y.numpy())
    ours = [cross_val_score(Logistic(C=C), wide.numpy(), y.numpy(), cv=4).mean() for C in (1e-3, 1e3)]
    assert search.best_score_ == pytest.approx(max(ours))
    assert ours[0] != ours[1]


@of_two_classes
def test_a_constant_label_is_refused(probe: Any) -> None:
    with pytest.raises(ValueError, match="all 4 labels are True; rows of both classes are needed"):
        clone(probe).fit(torch.randn(4, 3), torch.ones(4, dtype=torch.bool))


@of_two_classes
def test_another_number_of_labels_is_refused(probe: Any) -> None:
    with pytest.raises(Exception, match=r"5|shape|type-check"):
        clone(probe).fit(torch.randn(5, 3), torch.tensor([True, False]))


KINDS: list[tuple[Any, Any, Any]] = [
    ("a list of 0 and 1", lambda y: y.long().tolist(), [0, 1]),
    ("a list of bool", lambda y: y.tolist(), [False, True]),
    ("torch integers", lambda y: 3 + y.long(), [3, 4]),
    ("torch floats", lambda y: y.double() / 2, [0.0, 0.5]),
    ("-1 and 1", lambda y: np.where(y, 1, -1), [-1, 1]),
    ("strings", lambda y: np.where(y, "yes", "no"), ["no", "yes"]),
    ("a series", lambda y: pd.Series(y.long().numpy(), index=range(7, 7 + len(y))), [0, 1]),
    ("categories", lambda y: pd.Series(np.where(y, "on", "off"), dtype="category"), ["off", "on"]),
    ("a column", lambda y: np.where(y, 1, -1).astype(np.float32), [-1.0, 1.0]),
]


@of_two_classes
@pytest.mark.parametrize(("labels", "classes"), [kind[1:] for kind in KINDS], ids=[kind[0] for kind in KINDS])
@pytest.mark.parametrize("given", [lambda x: x, lambda x: x.numpy(), lambda x: pd.DataFrame(x.numpy())])
def test_labels_of_any_two_kinds_come_back_as_they_were_given(
    probe: Any, labels: Any, classes: list[Any], given: Any
) -> None:
    x, y = rows(60, 5)
    fitted, plain = clone(probe).fit(given(x), labels(y)), clone(probe).fit(x, y)
    assert fitted.classes_.tolist() == classes
    said = fitted.predict(given(x))
    assert [classes.index(one) for one in said.tolist()] == plain.predict(x).long().tolist()
    assert fitted.score(given(x), labels(y)) == pytest.approx(plain.score(x, y))
    assert torch.allclose(torch.as_tensor(fitted.decision_function(given(x))), plain.decision_function(x), atol=1e-5)


@every
def test_tensors_in_give_tensors_and_arrays_in_give_arrays(probe: Any, data: Data) -> None:
    x, y = data(60, 5)
    for kind, form in ((torch.Tensor, x), (np.ndarray, x.numpy())):
        fitted = clone(probe).fit(form, y)
        for name in ("predict", "decision_function", "predict_proba"):
            if hasattr(fitted, name):
                assert isinstance(getattr(fitted, name)(form), kind)
        if isinstance(getattr(fitted, "coef_", None), torch.Tensor | np.ndarray) and not isinstance(fitted, CCS):
            assert isinstance(fitted.coef_, kind)


@every
def test_nan_among_rows_to_score_is_refused(probe: Any, data: Data) -> None:
    x, y = data(12, 3)
    fitted = clone(probe).fit(x, y)
    x[6, 1] = torch.nan
    with pytest.raises(ValueError, match="row 6 holds NaN or infinity"):
        fitted.predict(x)
    if x.ndim == 2:
        with pytest.raises(ValueError, match="contains NaN"):
            fitted.predict(x.numpy())


@every
def test_a_probe_that_is_not_fitted_raises_what_scikit_learn_and_we_both_know(probe: Any, data: Data) -> None:
    for kind in (NotFittedError, WrongState, NotFitted):
        with pytest.raises(kind, match="is not fitted"):
            clone(probe).predict(data(5, 1)[0])


@every
def test_complex_rows_are_refused(probe: Any, data: Data) -> None:
    x, y = data(12, 3)
    with pytest.raises((ValueError, TypeError), match=r"rows are real numbers|[Cc]omplex"):
        clone(probe).fit(x.to(torch.complex64), y)


@pytest.mark.parametrize(
    ("probe", "data"),
    [(p, d) for p, d in ALL if "sample_weight" in inspect.signature(p.fit).parameters and not isinstance(p, KSparse)],
    ids=called,
)
def test_a_weight_counts_a_row_so_many_times_and_0_leaves_it_out(probe: Any, data: Data) -> None:
    x, y = data(60, 5)
    x = x.double()
    count = torch.randint(0, 4, (60,), generator=torch.Generator().manual_seed(1))
    tolerance = 2e-3 if isinstance(probe, MLP) else 1e-6
    heavy = clone(probe).fit(x, y, sample_weight=count)
    copied = clone(probe).fit(x.repeat_interleave(count, 0), y.repeat_interleave(count, 0))
    assert torch.allclose(scored(heavy, x), scored(copied, x), atol=tolerance)
    assert heavy.score(x, y, count) == pytest.approx(
        copied.score(x.repeat_interleave(count, 0), y.repeat_interleave(count, 0)), abs=0.02
    )
    for odd, text in ((torch.zeros(60), "zero"), (-count, "of 0 or more"), (count[1:], r"give \[60\]")):
        with pytest.raises(ValueError, match=text):
            clone(probe).fit(x, y, sample_weight=odd)


@pytest.mark.parametrize("probe", [Logistic(), Multinomial(), MLP(width=8, steps=60)], ids=called)
def test_balanced_classes_are_those_whose_rows_weigh_the_same_in_total(probe: Any) -> None:
    x, y = rows(120, 5)
    y = y & (torch.arange(120) % 3 == 0)
    n, k = y.sum(), (~y).sum()
    weight = torch.where(y, 120 / (2 * n), 120 / (2 * k))
    balanced = clone(probe).set_params(class_weight="balanced").fit(x, y)
    weighted = clone(probe).fit(x, y, sample_weight=weight)
    named = clone(probe).set_params(class_weight={True: float(120 / (2 * n)), False: float(120 / (2 * k))}).fit(x, y)
    assert torch.allclose(scored(balanced, x), scored(weighted, x), atol=1e-3)
    assert torch.allclose(scored(named, x), scored(weighted, x), atol=1e-3)
    assert float(balanced.predict(x).double().mean()) > float(clone(probe).fit(x, y).predict(x).double().mean())
    if isinstance(probe, Logistic):
        W, b = clone(probe).set_params(class_weight="balanced").columns(x, y[:, None], torch.ones(120, 1).bool())
        assert torch.allclose(W[:, 0].float(), balanced.coef_, atol=1e-5)


@of_two_classes
def test_shuffled_labels_stay_in_the_null_band_in_95_percent_of_200_runs(probe: Any) -> None:
    """On 100 fresh rows, labels drawn by a fair coin are met between 40 and 60 times in 96 % of runs, by any rule."""
    g = torch.Generator().manual_seed(11)
    x = torch.randn(160, D, generator=g) * torch.linspace(0.5, 2, D)
    y = torch.rand(160, 200, generator=g) < 0.5
    train = (torch.arange(160) < 60)[:, None].expand(-1, 200)
    quick = clone(probe).set_params(steps=15) if isinstance(probe, MLP) else probe
    right = ((scores(quick, x, y, train) > 0) == y)[60:].sum(0)
    assert int(((right >= 40) & (right <= 60)).sum()) >= 190


@linear
def test_many_columns_at_once_are_the_probes_of_each(probe: Any) -> None:
    x, y = rows(80, 8)
    labels = torch.stack([y, x[:, 1] > 0.3, x[:, 2] + x[:, 3] > 1], 1)
    train = torch.rand(80, 3, generator=torch.Generator().manual_seed(2)) < 0.7
    W, b = clone(probe).columns(x, labels, train)
    for c in range(3):
        alone = clone(probe).fit(x[train[:, c]].double(), labels[train[:, c], c])
        assert torch.allclose(W[:, c], alone.coef_, atol=1e-5)
        assert float(b[c]) == pytest.approx(alone.intercept_, abs=1e-5)


@linear
def test_batches_read_one_after_another_give_the_probe_of_all_rows(probe: Any) -> None:
    x, y = rows(90, 9)
    y, order = y.sort()
    x = x[order]  # the first batches hold one class only
    whole = clone(probe).fit(x, y)
    parts = clone(probe).fit_batches([(x[i : i + 17], y[i : i + 17]) for i in range(0, 90, 17)])
    assert torch.allclose(parts.coef_, whole.coef_, atol=1e-5)
    assert parts.intercept_ == pytest.approx(whole.intercept_, abs=1e-5)
    assert parts.scale_ == pytest.approx(whole.scale_, rel=1e-4)


@pytest.mark.parametrize(
    ("probe", "data"),
    [(Ridge(alpha=3.0), continuous), (LeastSquares(), continuous), (Multinomial(), several)],
    ids=called,
)
def test_batches_of_numbers_and_of_classes_give_the_probe_of_all_rows(probe: Any, data: Data) -> None:
    x, y = data(90, 9)
    whole = clone(probe).fit(x, y)
    parts = clone(probe).fit_batches([(x[i : i + 17], y[i : i + 17]) for i in range(0, 90, 17)])
    assert torch.allclose(scored(parts, x), scored(whole, x), atol=1e-5)
    for scale in ("scale_", "scales_"):
        assert torch.allclose(*(torch.as_tensor(getattr(p, scale, 1.0)) for p in (parts, whole)), rtol=1e-4)


def test_batches_give_the_hidden_layer_of_all_rows() -> None:
    x, y = rows(90, 9)
    whole = MLP(width=8, steps=20).fit(x, y).decision_function(x)
    parts = MLP(width=8, steps=20).fit_batches([(x[i : i + 17], y[i : i + 17]) for i in range(0, 90, 17)])
    assert torch.allclose(parts.decision_function(x), whole, atol=1e-3)


@pytest.mark.parametrize("eraser", [LEACE(), MeanProjection()], ids=called)
def test_batches_give_the_eraser_of_all_rows(eraser: Any) -> None:
    x, y = rows(90, 9)
    once = clone(eraser).fit(x, y).transform(x)
    parts = clone(eraser).fit_batches([(x[i : i + 17], y[i : i + 17]) for i in range(0, 90, 17)])
    assert torch.allclose(parts.transform(x), once, atol=1e-5)


@pytest.mark.parametrize("probe", [Ridge(), LeastSquares(), Multinomial(), LEACE(), MeanProjection()], ids=called)
def test_batches_of_nothing_and_of_nan_are_refused(probe: Any) -> None:
    with pytest.raises(ValueError, match="gave 0 rows at first"):
        clone(probe).fit_batches([])
    with pytest.raises(ValueError, match="row 2 holds NaN or infinity"):
        clone(probe).fit_batches([(torch.tensor([[0.0], [1.0], [torch.nan]]), torch.arange(3))])


@linear
def test_batches_that_cannot_be_read_again_are_refused(probe: Any) -> None:
    x, y = rows(20, 9)
    with pytest.raises(ValueError, match="gave 20 rows at first and 0 when read again"):
        clone(probe).fit_batches((x[i : i + 5], y[i : i + 5]) for i in range(0, 20, 5))


@pytest.mark.parametrize(
    ("probe", "data"),
    [(Ridge(), continuous), (Logistic(), rows), (LEACE(), rows), (Multinomial(), several)],
    ids=called,
)
def test_batches_that_come_back_in_another_order_are_refused(probe: Any, data: Data) -> None:
    shuffled = DataLoader(TensorDataset(*data(90, 9)), batch_size=17, shuffle=True)
    with pytest.raises(ValueError, match="not in the same order when read again: give shuffle=False"):
        clone(probe).fit_batches(shuffled)


def test_rows_that_come_back_in_another_order_next_to_the_same_labels_are_refused() -> None:
    x, y = rows(8, 9)
    with pytest.raises(ValueError, match="not in the same order when read again: give shuffle=False"):
        Logistic().fit_batches(Turning([(x, y)], [(x.flip(0), y)]))


class Turning:
    """Batches of which each pass gives the next."""

    def __init__(self, *passes: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        self.passes = cycle(passes)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return iter(next(self.passes))


@pytest.mark.parametrize("probe", [DifferenceOfMeans(), MassMean(), Logistic(C=0.5)], ids=called)
def test_fewer_rows_than_dimensions_give_the_same_scores_in_any_basis(probe: Any) -> None:
    x, y = rows(20, 10)
    wide = torch.cat([x, torch.randn(20, 30, generator=torch.Generator().manual_seed(3))], 1).double()
    turn = torch.linalg.qr(torch.randn(36, 36, generator=torch.Generator().manual_seed(4), dtype=torch.float64)).Q
    plain = clone(probe).fit(wide, y).decision_function(wide)
    assert torch.allclose(clone(probe).fit(wide @ turn, y).decision_function(wide @ turn), plain, atol=1e-5)


@linear
def test_shifting_the_data_changes_no_score(probe: Any) -> None:
    x, y = rows(120, 12)
    moved = clone(probe).fit(x + 7, y).decision_function(x + 7)
    assert torch.allclose(moved, clone(probe).fit(x, y).decision_function(x), atol=1e-3)


@linear
def test_swapping_the_labels_turns_the_direction_around(probe: Any) -> None:
    x, y = rows(120, 13)
    assert torch.allclose(clone(probe).fit(x, ~y).coef_, -clone(probe).fit(x, y).coef_, atol=1e-5)


@linear
def test_its_direction_reaches_from_the_negative_mean_to_the_farthest_row(probe: Any) -> None:
    x, y = rows(120, 14)
    direction = clone(probe).fit(x, y).direction(Site("resid_post", 2), "abc")
    along = (x - x[~y].mean(0)) @ direction.unit
    assert direction.scale == pytest.approx(float(along.max()), rel=1e-5)
    assert (str(direction.site), direction.source, direction.fingerprint) == ("resid_post.2", probe.name, "abc")


@linear
def test_a_probe_that_was_given_where_its_rows_come_from_has_their_direction_until_the_next_fit(probe: Any) -> None:
    x, y = rows(60, 14)
    site, fitted = Site("resid_post", 2), clone(probe).fit(x, y)
    with pytest.raises(AttributeError, match="rows do not say where they come from"):
        _ = fitted.direction_
    found = fitted.at_site(site, "abc").direction_
    assert torch.equal(found.vector, fitted.direction(site, "abc").vector)
    assert (found.site, found.fingerprint, found.scale) == (site, "abc", fitted.scale_)
    with pytest.raises(AttributeError, match="rows do not say where they come from"):
        _ = fitted.fit(x, y).direction_


@of_two_classes
def test_labels_that_scikit_learn_numbers_are_the_same_labels(probe: Any) -> None:
    """`cross_val_predict` turns bool into 0 and 1 before it fits."""
    x, y = rows(90, 6)
    said = cross_val_predict(probe, x.numpy(), y.numpy(), cv=3, method="decision_function")
    assert float(((torch.as_tensor(said) > 0) == y).double().mean()) > 0.5


@pytest.mark.parametrize("probe", [p for p in TWO_CLASSES if hasattr(p, "predict_proba")], ids=called)
def test_probabilities_sum_to_one_and_their_log_odds_are_the_score(probe: Any) -> None:
    x, y = rows(60, 6)
    fitted = clone(probe).fit(x, y)
    p = fitted.predict_proba(x)
    assert torch.allclose(p.sum(1), torch.ones(60))
    assert torch.allclose((p[:, 1] / p[:, 0]).log(), fitted.decision_function(x), atol=1e-3)
    assert cross_val_score(probe, x.numpy(), y.numpy(), cv=3, scoring="neg_log_loss").max() < 0


@linear
def test_rows_of_another_shape_give_no_number_and_whole_numbers_keep_their_weights(probe: Any) -> None:
    x, y = rows(60, 6)
    fitted = clone(probe).fit(x, y)
    with pytest.raises(ValueError, match="the rows have width 3, and those learnt from had 6"):
        fitted.predict(x[:, :3])
    for alone in (lambda: clone(probe).fit(x[:, 0], y), lambda: fitted.decision_function(x[0])):
        with pytest.raises(ValueError, match="rows have the shape"):
            alone()
    assert fitted.fit((10 * x).int(), y).coef_.dtype == torch.float32


@linear
def test_classes_that_do_not_differ_are_refused(probe: Any) -> None:
    with pytest.raises(ValueError, match="found no difference between the classes"):
        clone(probe).fit(torch.ones(4, 3), torch.tensor([True, False, True, False]))


def test_a_misspelt_parameter_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(ValueError, match="did you mean 'max_iter'"):
        Logistic().set_params(max_itre=3)


def _rankings() -> dict[str, object]:
    from probes import by_mean_difference

    return {"by_mean_difference": by_mean_difference}
