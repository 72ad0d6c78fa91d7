"""The sweep: where the label is, what the choice of a cell costs, and each control against what it must show."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict

from hooks import Model, capture
from hooks.position import everywhere, index, last
from hooks.site import embed, resid_post
from hooks.statistics import Estimate, auroc_over_groups, balanced_accuracy_over_groups
from probes import LDA, MLP, Cells, DifferenceOfMeans, Examples, Logistic, gather, make_untrained_model, measure, sweep
from probes.cross_validation import best_of_shuffled, cross_validate
from probes.folds import grouped_folds
from probes.grid import Controls

pytestmark = pytest.mark.usefixtures("unchecked")

SITES = (resid_post[0], resid_post[1], resid_post[2])


def captured(
    signal: float, n_groups: int = 60, seed: int = 0, noise: int = 3
) -> tuple[Cells, Examples, dict[str, Cells]]:
    """Noise, and one cell, (resid_post.1, last), whose coordinate 0 knows the label; controls that know nothing."""
    g = torch.Generator().manual_seed(seed)
    group = torch.arange(n_groups).repeat_interleave(2)
    y = torch.arange(2 * n_groups) % 2 == 0
    keys = [(site, position) for site in SITES[:noise] for position in (last, index(-2))]
    rows = {key: torch.randn(2 * n_groups, 4, generator=g) for key in keys}
    if (SITES[1], last) in rows:
        rows[SITES[1], last][:, 0] += signal * torch.where(y, 1.0, -1.0)
    examples = Examples([f"text {i}" for i in range(len(y))], y.tolist(), [f"group {i}" for i in group.tolist()])
    rivals = {
        name: Cells({key: torch.randn(2 * n_groups, 4, generator=g) for key in keys})
        for name in ("embedding", "untrained")
    }
    return Cells(rows), examples, rivals


def test_the_cell_that_knows_the_label_is_found_by_every_fold_and_its_accuracy_is_bayes() -> None:
    cells, examples, rivals = captured(signal=1.5, n_groups=150)
    grid = measure(cells, examples, Logistic(), rivals, permutations=20)
    bayes = float(torch.special.ndtr(torch.tensor(1.5)))
    assert grid.chosen == ((SITES[1], last),) * 5
    assert grid.best == (SITES[1], last)
    assert grid.nested.low <= bayes <= grid.nested.high
    assert float(grid.accuracy[1, 0]) == pytest.approx(grid.nested.value)
    assert grid.p_value == pytest.approx(1 / 21)
    assert grid.controls.embedding.high < grid.nested.low
    assert grid.direction.site == SITES[1]
    assert abs(float(grid.direction.unit[0])) > 0.95


def test_searching_noise_finds_chance_although_its_best_cell_looks_better() -> None:
    """Over 10 data sets of nothing, the chosen cell's own accuracy is flattered and the nested one is not."""
    best, nested, low_p = [], [], 0
    for seed in range(10):
        cells, examples, rivals = captured(signal=0.0, n_groups=30, seed=seed)
        grid = measure(cells, examples, DifferenceOfMeans(), rivals, folds=4, permutations=9, seed=seed)
        best.append(float(grid.accuracy.max()))
        nested.append(grid.nested.value)
        low_p += grid.p_value <= 0.1
    assert sum(best) / 10 > 0.54
    assert abs(sum(nested) / 10 - 0.5) < 3 * 0.5 / (10 * 60) ** 0.5
    assert low_p <= 3


@pytest.mark.parametrize("probe", [Logistic(C=0.5), DifferenceOfMeans()], ids=lambda p: type(p).__name__)
def test_held_out_predictions_are_those_of_scikit_learns_grouped_cross_validation(probe: Any) -> None:
    cells, examples, _ = captured(signal=0.5)
    fold = grouped_folds(examples.group, examples.y, 5, 0)
    found = cross_validate(probe, cells.rows, examples.y, fold)
    for i, x in enumerate(cells.rows.values()):
        theirs = cross_val_predict(probe, x.numpy(), examples.y.numpy(), groups=fold.numpy(), cv=LeaveOneGroupOut())
        assert torch.equal(found.right[:, i], torch.from_numpy(theirs) == examples.y)


def test_the_cell_of_a_fold_is_chosen_without_looking_at_it() -> None:
    cells, examples, _ = captured(signal=0.4)
    fold = grouped_folds(examples.group, examples.y, 4, 0)
    honest = cross_validate(LDA(), cells.rows, examples.y, fold)
    assert len(honest.chosen) == 4
    for i in range(4):
        spoilt = {key: torch.where((fold == i)[:, None], torch.randn(1, 4), x) for key, x in cells.rows.items()}
        assert cross_validate(LDA(), spoilt, examples.y, fold).chosen[i] == honest.chosen[i]


def test_the_inner_accuracies_choose_what_a_plain_double_loop_chooses() -> None:
    cells, examples, _ = captured(signal=0.3, seed=4)
    y, fold = examples.y, grouped_folds(examples.group, examples.y, 4, 0)
    for i, chosen in enumerate(cross_validate(LDA(), cells.rows, y, fold).chosen):
        right = [
            sum(
                int(
                    (
                        LDA().fit(x[(fold != i) & (fold != j)], y[(fold != i) & (fold != j)]).predict(x[fold == j])
                        == y[fold == j]
                    ).sum()
                )
                for j in range(4)
                if j != i
            )
            for x in cells.rows.values()
        ]
        assert right[chosen] == max(right)


def test_a_probe_that_memorises_groups_has_no_selectivity() -> None:
    """Rows that say which group they are of: the label is read, and so is any label drawn at random per group."""
    g = torch.Generator().manual_seed(0)
    group = torch.arange(20).repeat_interleave(6)
    y = (torch.arange(20) % 2 == 0)[group]
    x = torch.nn.functional.one_hot(group, 20).float() + 0.01 * torch.randn(120, 20, generator=g)
    examples = Examples([f"text {i}" for i in range(120)], y.tolist(), [f"group {i}" for i in group.tolist()])
    rivals = {name: Cells({(SITES[0], last): x}) for name in ("embedding", "untrained")}
    controls = measure(Cells({(SITES[0], last): x}), examples, Logistic(C=10.0), rivals, permutations=3).controls
    assert controls.memorised is not None
    assert controls.memorised.value > 0.95
    assert controls.selectivity == pytest.approx(0, abs=0.05)


def test_a_label_along_a_direction_has_selectivity() -> None:
    cells, examples, rivals = captured(signal=2.0)
    controls = measure(cells, examples, Logistic(), rivals, permutations=3).controls
    assert controls.selectivity is not None
    assert controls.selectivity > 0.3


def test_controls_print_their_numbers_and_say_what_was_not_measured() -> None:
    made = Controls(
        majority=0.625,
        embedding=Estimate(0.7, 0.6, 0.8, 50),
        untrained=Estimate(0.65, 0.55, 0.75, 50),
        shuffled=torch.tensor([0.5, 0.6, 0.4, 0.7]),
        memorised=Estimate(0.75, 0.7, 0.8, 50),
        same_rows=Estimate(0.95, 0.9, 0.99, 50),
        elsewhere={},
    )
    lines = {line.split("  ")[1].strip(): line for line in str(made).splitlines()}
    assert made.selectivity == pytest.approx(0.2) and "selectivity +0.200" in lines["control task"]
    assert lines["majority label"].endswith("0.625") and "not measured" in lines["elsewhere"]
    assert lines["shuffled labels"].endswith("0.550, at most 0.700 in 4")
    many = str(replace(made, shuffled=torch.linspace(0.4, 0.6, 21)))
    assert "0.500, below 0.590 in 95% of 21" in many and "controls nothing" not in many
    assert "all texts have the same token there, so this controls nothing" in str(replace(made, embedding_same=True))
    more = str(replace(made, elsewhere={"cities": Estimate(0.8, 0.7, 0.9, 40)}, memorised=None))
    assert "on cities" in more and "not measured" not in more and "nothing to memorise" in more


def test_the_least_p_value_that_so_many_permutations_can_give_is_called_so() -> None:
    cells, examples, rivals = captured(signal=3.0)
    grid = measure(cells, examples, DifferenceOfMeans(), rivals, permutations=5)
    assert grid.p_value == grid.least_p_value == pytest.approx(1 / 6)
    assert "p = 0.167 or less: 1/6 is the least that 5 permutations can give" in str(grid)
    assert "or less" not in str(replace(grid, p_value=0.5))
    same = {name: Cells({cell: torch.ones_like(x) for cell, x in c.rows.items()}) for name, c in rivals.items()}
    alike = measure(cells, examples, DifferenceOfMeans(), same, permutations=5)
    assert alike.controls.embedding_same and not grid.controls.embedding_same
    assert alike.controls.embedding.value <= alike.controls.majority


def test_the_report_prints_every_control() -> None:
    cells, examples, rivals = captured(signal=2.0)
    said = str(measure(cells, examples, Logistic(), rivals, permutations=3))
    for words in (
        "majority",
        "token embeddings",
        "untrained",
        "shuffled",
        "control task",
        "elsewhere",
        "p = ",
        "selectivity",
    ):
        assert words in said


def test_the_width_that_is_printed_is_that_of_an_uncut_interval() -> None:
    cells, examples, rivals = captured(signal=5.0, n_groups=20, noise=2)
    grid = measure(cells, examples, DifferenceOfMeans(), rivals, folds=3, permutations=1)
    alone = replace(grid, accuracy=torch.tensor([[1.0]]), bounds=torch.tensor([[[0.8]], [[1.0]]]))
    alone = replace(alone, sites=grid.sites[:1], positions=grid.positions[:1])
    assert "all cells at once within 0.200" in str(alone)


def stories(n: int = 24) -> Examples:
    """Texts that end in x or in y, about n / 2 things."""
    things = [f"thing{i}" for i in range(n // 2)]
    texts = [f"the {thing} is {letter}" for thing in things for letter in "xy"]
    return Examples(texts, [text.endswith("x") for text in texts], [thing for thing in things for _ in "xy"])


def test_a_model_is_swept_with_its_embeddings_an_untrained_twin_and_another_data_set(gpt2: Model) -> None:
    other = Examples(["some x", "some y", "any x", "any y"], [True, False, True, False], ["some", "some", "any", "any"])
    grid = sweep(
        gpt2,
        stories(),
        [resid_post[0], resid_post[2]],
        [last],
        probe=Logistic(),
        folds=3,
        permutations=2,
        elsewhere={"other": other},
    )
    assert grid.accuracy.shape == (2, 1)
    assert grid.controls.embedding.value == 1.0  # the last letter is the label
    assert grid.nested.value > 0.9
    assert set(grid.controls.elsewhere) == {"other"}
    away = capture(gpt2, list(other.texts), [grid.best[0]]).flat(grid.best[0], last)
    assert grid.controls.elsewhere["other"].value == float((grid.probe.predict(away) == other.y).double().mean()) > 0.5
    assert grid.fingerprint == gpt2.fingerprint
    rows = capture(gpt2, list(stories().texts), [grid.best[0]]).flat(grid.best[0], last)
    again = Logistic().fit(rows, stories().y)
    assert torch.allclose(grid.direction.vector, again.coef_, atol=1e-4)


def test_the_control_of_an_untrained_model_reads_that_model(gpt2: Model) -> None:
    g = torch.Generator().manual_seed(0)
    examples = Examples(stories().texts, (torch.rand(24, generator=g) < 0.5).tolist(), stories().groups)
    options = {"folds": 3, "permutations": 1, "seed": 2}
    found = sweep(gpt2, examples, [resid_post[2]], probe=DifferenceOfMeans(), **options).controls.untrained
    cells, embedding = (gather(gpt2, examples.texts, [site], [last]) for site in (resid_post[2], embed))
    twin = gather(make_untrained_model(gpt2, 2), examples.texts, [resid_post[2]], [last])
    of_twin, of_itself = (
        measure(cells, examples, DifferenceOfMeans(), {"embedding": embedding, "untrained": rivals}, **options)
        for rivals in (twin, cells)
    )
    assert found == of_twin.controls.untrained != of_itself.controls.untrained


def test_each_control_is_measured_on_its_own_rows() -> None:
    cells, examples, rivals = captured(signal=1.0)
    knowing = captured(signal=3.0)[0]
    controls = measure(cells, examples, DifferenceOfMeans(), {**rivals, "embedding": knowing}, permutations=1).controls
    assert controls.embedding.value > 0.95
    assert controls.untrained.value < 0.7


def test_a_cell_has_the_accuracy_of_its_site_and_position_in_whatever_order_the_rows_come() -> None:
    cells, examples, rivals = captured(signal=0.0, noise=2)
    rows = {(site, position): cells.rows[site, position] for position in (last, index(-2)) for site in SITES[:2]}
    for site in SITES[:2]:
        rows[site, last][:, 0] += 5 * torch.where(examples.y, 1.0, -1.0)
    grid = measure(Cells(rows), examples, Logistic(), rivals, folds=3, permutations=1)
    assert float(grid.accuracy[:, 0].min()) == 1.0
    assert float(grid.accuracy[:, 1].max()) < 0.7


@pytest.mark.parametrize("turned", [False, True])
def test_the_majority_is_the_share_of_the_commoner_label(turned: bool) -> None:
    cells, examples, rivals = captured(signal=1.0, n_groups=30)
    y = (torch.arange(60) % 3 == 0) != turned
    examples = Examples(examples.texts, y.tolist(), examples.groups)
    controls = measure(cells, examples, DifferenceOfMeans(), rivals, folds=3, permutations=1).controls
    assert controls.majority == pytest.approx(2 / 3)


def test_another_data_set_may_hold_nothing_that_was_learnt_from(gpt2: Model) -> None:
    things = [(group,) for group in stories().groups]
    learnt = Examples(stories().texts, stories().labels, stories().groups, things)
    shared = Examples(["some x", stories().texts[1]], [True, False], ["some", "thing"])
    with pytest.raises(ValueError, match="the text 'the thing0 is y' of 'other' was learnt from"):
        sweep(gpt2, learnt, [resid_post[0]], elsewhere={"other": shared})
    about = Examples(["some x", "some y"], [True, False], ["some", "some"], [("thing3",), ("sea",)])
    with pytest.raises(ValueError, match="the entity 'thing3' of 'other' was learnt from"):
        sweep(gpt2, learnt, [resid_post[0]], elsewhere={"other": about})


def test_places_may_be_given_once_and_texts_may_not_be_one_string(gpt2: Model) -> None:
    examples = stories(8)
    listed, once = (
        sweep(gpt2, examples, sites, at, probe=DifferenceOfMeans(), folds=3, permutations=1)
        for sites, at in ((SITES[:2], [last]), ((site for site in SITES[:2]), iter([last])))
    )
    assert torch.equal(listed.accuracy, once.accuracy)
    assert torch.equal(
        gather(gpt2, "the fog", [embed], [last]).rows[embed, last], capture(gpt2, "the fog", embed)[embed][:, -1]
    )


def test_the_untrained_twin_has_the_shape_and_none_of_the_weights(gpt2: Model) -> None:
    twin, same, other = make_untrained_model(gpt2, 0), make_untrained_model(gpt2, 0), make_untrained_model(gpt2, 1)
    assert [p.shape for p in twin.hf.parameters()] == [p.shape for p in gpt2.hf.parameters()]
    assert twin.fingerprint == same.fingerprint
    assert len({twin.fingerprint, other.fingerprint, gpt2.fingerprint}) == 3


def test_gathered_rows_do_not_depend_on_the_batch(gpt2: Model) -> None:
    texts = list(stories().texts) + ["a much longer text about nothing"]
    one, many = (gather(gpt2, texts, SITES, [last, index(1)], batch_size=size) for size in (1, 8))
    for cell, rows in one.rows.items():
        assert torch.allclose(rows, many.rows[cell], atol=1e-4)


def test_a_position_of_several_tokens_is_refused(gpt2: Model) -> None:
    with pytest.raises(ValueError, match=r"everywhere selects 15 tokens of text 0 of its batch \('the thing0 is x'\)"):
        gather(gpt2, stories().texts, [embed], [everywhere])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c, e, b: (c, e, {"embedding": b["embedding"]}), "lacks 'untrained': a sweep is compared with both"),
        (lambda c, e, b: (Cells({k: x[:-1] for k, x in c.rows.items()}), e, b), "there are 120 texts, and 119 rows at"),
    ],
)
def test_rows_that_do_not_match_are_refused(spoil: Callable, message: str) -> None:
    cells, examples, rivals = spoil(*captured(signal=1.0))
    with pytest.raises(ValueError, match=message):
        measure(cells, examples, LDA(), rivals)


def test_nan_is_refused_with_its_text_and_cell() -> None:
    x = torch.zeros(3, 2)
    x[1, 0] = torch.nan
    with pytest.raises(ValueError, match=r"text 1 is NaN or infinity at resid_post\.0, last"):
        Cells({(SITES[0], last): x})


def test_a_grid_is_a_table_of_cells_and_a_line_with_its_best_cell_and_the_search() -> None:
    cells, examples, rivals = captured(signal=2.0, n_groups=20, noise=2)
    grid = measure(cells, examples, DifferenceOfMeans(), rivals, folds=3, permutations=1)
    frame = grid.to_pandas()
    assert len(frame) == grid.accuracy.numel()
    site, position = grid.best
    row = frame[(frame.site == str(site)) & (frame.position == str(position))]
    assert row.accuracy.item() == frame.accuracy.max() == pytest.approx(float(grid.accuracy.max()))
    assert row.low.item() < row.accuracy.item() < row.high.item() or row.high.item() == 1.0
    assert f"best at {site}, {position}" in repr(grid) and str(grid.nested) in repr(grid)


def test_two_folds_are_refused_because_nothing_could_be_chosen_inside_them() -> None:
    cells, examples, rivals = captured(signal=1.0)
    with pytest.raises(ValueError, match="folds is 2, and the examples have 60 groups: give 3 to 60"):
        measure(cells, examples, LDA(), rivals, folds=2)


def test_a_probe_without_a_direction_says_so() -> None:
    cells, examples, rivals = captured(signal=2.0, n_groups=20, noise=2)
    grid = measure(cells, examples, MLP(width=4, steps=5), rivals, folds=3, permutations=1)
    with pytest.raises(TypeError, match="a one-hidden-layer probe has no direction: sweep with a linear probe"):
        _ = grid.direction


def test_where_classes_are_of_one_normal_law_apart_the_search_has_their_auroc_and_balanced_accuracy() -> None:
    """Scores of two classes 3 deviations apart: accuracy Phi(1.5), AUROC Phi(3 / sqrt 2)."""
    cells, examples, rivals = captured(signal=1.5, n_groups=150)
    grid = measure(cells, examples, DifferenceOfMeans(), rivals, permutations=2)
    bayes, area = (float(torch.special.ndtr(torch.tensor(d))) for d in (1.5, 3 / 2**0.5))
    assert grid.balanced.low <= bayes <= grid.balanced.high
    assert grid.auroc.low <= area <= grid.auroc.high
    assert grid.auroc.high - grid.auroc.low < 0.05
    assert f"balanced accuracy         {grid.balanced}" in str(
        grid
    ) and f"AUROC                     {grid.auroc}" in str(grid)


def test_a_probe_that_always_says_the_commoner_label_is_at_chance_in_balanced_accuracy_and_auroc() -> None:
    y = torch.arange(200) % 10 == 0
    group, fold = torch.arange(200), torch.arange(200) // 40
    said = balanced_accuracy_over_groups(~y, y, group)
    assert said.value == 0.5 and said.low <= 0.5 <= said.high
    assert auroc_over_groups(torch.zeros(200), y, group, fold).value == 0.5


def test_the_auroc_over_folds_is_that_of_scikit_learn_in_each_weighted_by_its_pairs() -> None:
    g = torch.Generator().manual_seed(0)
    y, fold = torch.rand(120, generator=g) < 0.4, torch.arange(120) % 3
    score = torch.randn(120, generator=g).round(decimals=1) + y + 10 * fold  # folds are not comparable
    total, pairs = 0.0, 0
    for one in range(3):
        rows = fold == one
        n = int(y[rows].sum()) * int((~y[rows]).sum())
        total, pairs = total + n * roc_auc_score(y[rows].numpy(), score[rows].numpy()), pairs + n
    found = auroc_over_groups(score, y, torch.arange(120), fold)
    assert found.value == pytest.approx(total / pairs)
    assert found.low < found.value < found.high


def test_the_interval_of_the_auroc_covers_the_truth_95_times_in_100() -> None:
    truth, held = float(torch.special.ndtr(torch.tensor(1 / 2**0.5))), 0
    for seed in range(200):
        g = torch.Generator().manual_seed(seed)
        y, group = torch.arange(120) % 2 == 0, torch.arange(120)
        score = torch.randn(120, generator=g) + y
        found = auroc_over_groups(score, y, group, torch.zeros(120, dtype=torch.long), draws=200)
        held += found.low <= truth <= found.high
    assert 180 <= held <= 199


def test_the_p_value_counts_the_labels_as_they_are_among_the_exchanges() -> None:
    """Of 4 exchanges none does as well: (1 + 0) / (1 + 4). Where every cell is equally good, all do: 1."""
    cells, examples, rivals = captured(signal=1.5, n_groups=60)
    assert measure(cells, examples, DifferenceOfMeans(), rivals, permutations=4).p_value == pytest.approx(1 / 5)


def test_the_best_of_exchanged_labels_is_the_best_cell_and_not_the_worst_and_counts_what_is_right() -> None:
    cells, examples, _ = captured(signal=1.5, n_groups=60)
    fold = grouped_folds(examples.group, examples.y, 5, 0)
    own = cross_validate(DifferenceOfMeans(), cells.rows, examples.y, fold).right.float().mean(0)
    best = best_of_shuffled(DifferenceOfMeans(), cells.rows, examples.y[:, None], fold)
    assert float(best[0]) == pytest.approx(float(own.max()))
