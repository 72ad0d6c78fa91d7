"""The numbers of a search by hand: groups, their weights, intervals, baselines, what may be exchanged; no model."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from hooks import Direction
from hooks.errors import InvalidArgument
from hooks.site import embed, resid_post
from interp.common.statistics import wilson
from interp.features import Concept, Mention, find_similar
from interp.features.reading import Reading
from interp.features.search import baselines, candidates
from interp.features.search.baselines import score_components
from interp.features.search.concept import split_by_group
from interp.features.search.group import Member, _find_missed, _first, _fit_weights, find_group
from interp.features.search.ranking import Entries, Ranking, compare_halves, pool_entries
from interp.features.search.rows import Rows, by_text, draw_exchanges
from interp.features.search.score import Evaluation, Score, _f1, _of_groups, compare_scores
from interp.sae import TopK
from probes import detection


def bench_of(
    y: torch.Tensor, half: torch.Tensor, groups: Sequence[str] = (), apart: torch.Tensor | None = None, seed: int = 0
) -> Evaluation:
    """Rows that are texts, with these labels, searched where `half` is True."""
    n = len(y)
    labels = y.tolist()
    concept = Concept("c", [f"text {i}" for i in range(n)], labels, groups=groups or [f"g{i}" for i in range(n)])
    each = torch.arange(n)
    apart = torch.zeros(n, dtype=torch.bool) if apart is None else apart
    rows = Rows("text", y, each, each, {}, apart, each, torch.zeros(n, dtype=torch.long))
    return Evaluation(concept, rows, half, seed)


def entries_of(columns: torch.Tensor) -> Entries:
    """Latents by their activations on every row."""
    row, latent = columns.nonzero(as_tuple=True)
    return Entries(row, latent, columns[row, latent].float())


def covers(*hits: range, n: int = 200, extra: Sequence[range] = ()) -> tuple[TopK, Evaluation, Entries, torch.Tensor]:
    """Latents on these positives (0 to n) and negatives (n to 2 n) of the searched half, and the same of the other."""
    columns = torch.zeros(2 * n, len(hits))
    for latent, some in enumerate(hits):
        columns[list(some), latent] = 1.0
    y = torch.arange(2 * n) < n
    columns, y = columns.repeat(2, 1), y.repeat(2)
    half = torch.arange(4 * n) < 2 * n
    sae = TopK(32, max(2, len(hits)), k=1, seed=0)
    sae.site = embed
    sae.max_activation.fill_(1.0)
    return sae, bench_of(y, half), entries_of(columns), y


def grow(sae: TopK, bench: Evaluation, entries: Entries, y: torch.Tensor, most: int = 3):
    best = Ranking(entries.at(bench.searched), sae.d_sae).best(y, bench.counts(bench.searched)[1])
    return find_group(sae, bench, entries, best, most)


@pytest.mark.parametrize(("more", "grows"), [(3, False), (4, True)])
def test_a_latent_joins_a_group_from_a_hundredth_of_f1(more: int, grows: bool) -> None:
    """Alone 2 x 150 / 350 = .857; with three more 306 / 353 = .867, with four 308 / 354 = .870."""
    group = grow(*covers(range(150), range(150, 150 + more)))
    assert (group is not None) is grows
    if group is not None:
        assert group.latents == (0, 1) and group.score.searched_f1 == pytest.approx(308 / 354)
        assert group.score.held_out.f1 == pytest.approx(308 / 354)
        assert group.score.direction is not None and group.score.name == "latents 0 + 1"


@pytest.mark.parametrize("most", [1, 2, 3, 4])
def test_a_group_holds_no_more_latents_than_it_may_the_best_alone_first(most: int) -> None:
    sae, bench, entries, y = covers(range(150, 180), range(80), range(80, 150), range(180, 200))
    group = grow(sae, bench, entries, y, most)
    assert (group is None) if most == 1 else (group is not None and group.latents == (1, 2, 0, 3)[:most])
    if group is not None:
        assert len(group.weights) == most and max(group.weights) == pytest.approx(1.0)


def test_a_group_of_a_latent_that_never_fired_in_training_has_no_direction() -> None:
    sae, bench, entries, y = covers(range(100), range(100, 200))
    assert grow(sae, bench, entries, y).score.direction is not None  # pyright: ignore[reportOptionalMemberAccess]
    sae.max_activation[1] = 0.0
    group = grow(sae, bench, entries, y)
    assert group is not None and group.score.direction is None and group.latents == (0, 1)


def test_a_group_may_grow_from_the_fifth_of_the_best_and_from_none_later() -> None:
    """Latents that fire on every row are the best alone; the two halves of the concept come after them."""
    n = 200
    for others, grows in ((4, True), (5, False)):
        wide = [range(2 * n)] * others  # F1 2/3
        sae, bench, entries, y = covers(*wide, range(95), range(95, 190))  # F1 .644 and .644, together .974
        found = grow(sae, bench, entries, y)
        assert (found is not None) is grows
        if found is not None:
            assert found.latents == (others, others + 1)


def test_what_is_missed_is_sought_among_five_latents_that_are_on_there() -> None:
    sae, bench, entries, y = covers(range(100), *(range(100, 190 - 10 * i) for i in range(7)))
    start = Member(0, entries.column(0, len(y)), 0.5)
    assert [*_find_missed(sae, bench, entries, [start])] == [1, 2, 3, 4, 5]
    best = torch.tensor([0.2, 0.0, 0.9, 0.4]), torch.tensor([0.1, 0.2, 0.3, 0.4])
    some = entries_of(torch.eye(4))
    assert [(m.latent, m.threshold) for m in _first(some, best, 9, 4).values()] == [
        (2, pytest.approx(0.3)),
        (3, pytest.approx(0.4)),
        (0, pytest.approx(0.1)),
    ]
    assert [*_first(some, best, 2, 4)] == [2, 3] and _first(some, best, 1, 4)[2].column.tolist() == [0, 0, 1, 0]


def test_the_weights_of_a_group_are_scikit_learns_on_columns_of_height_one_and_do_not_hang_on_their_units() -> None:
    from sklearn.linear_model import LogisticRegression

    g = torch.Generator().manual_seed(0)
    y, searched = torch.rand(300, generator=g) < 0.5, torch.rand(300, generator=g) < 0.7
    columns = torch.rand(300, 2, generator=g) * torch.tensor([1.0, 5.0]) + y[:, None] * torch.tensor([0.6, 1.0])
    columns[~searched] *= 9  # which nothing is fitted to
    weights, threshold, f1 = _fit_weights([Member(i, columns[:, i], 0.0) for i in (0, 1)], y, searched)
    size = columns[searched].amax(0)
    x = (columns[searched] / size).numpy()
    w = LogisticRegression(C=10.0, tol=1e-8, max_iter=1000).fit(x, y[searched].numpy()).coef_[0] / size.numpy()
    assert weights.tolist() == pytest.approx((w / np.abs(w).max()).tolist(), rel=1e-3)
    assert f1 == pytest.approx(detection((columns @ weights)[searched], y[searched], threshold).f1)
    scaled = columns * torch.tensor([3.0, 0.5])
    others, _, same = _fit_weights([Member(i, scaled[:, i], 0.0) for i in (0, 1)], y, searched)
    ratio, expected = (others[0] / others[1]), weights[0] / 3 / (weights[1] / 0.5)
    assert float(ratio) == pytest.approx(float(expected), rel=1e-3) and same == pytest.approx(f1)
    assert float(others.abs().max()) == pytest.approx(1.0)


def test_columns_that_separate_nothing_have_no_weights() -> None:
    y, all_of = torch.arange(20) < 10, torch.ones(20, dtype=torch.bool)
    flat = torch.ones(20)
    weights, threshold, f1 = _fit_weights([Member(0, flat, 0.0), Member(1, flat, 0.0)], y, all_of)
    assert (weights.tolist(), threshold, f1) == ([0.0, 0.0], 0.0, 0.0)


def test_the_interval_is_the_middle_of_a_thousand_draws_of_the_groups_by_a_loop() -> None:
    g = torch.Generator().manual_seed(3)
    n, groups = 60, [f"g{i // 2}" for i in range(60)]
    y, scores = torch.rand(n, generator=g) < 0.4, torch.rand(n, generator=g)
    half = torch.tensor([i // 2 % 2 == 0 for i in range(n)])
    apart = torch.zeros(n, dtype=torch.bool)
    apart[[2, 3, 6]] = True
    bench = bench_of(y, half, groups, apart, seed=5)
    score = bench.score("x", scores + 0.5 * y, 0.6, None, None)
    found = (scores + 0.5 * y) > 0.6
    names = sorted({i // 2 for i in range(n) if not half[i] and not apart[i]})
    inside = [[i for i in (2 * name, 2 * name + 1) if not apart[i]] for name in names]
    drawn, f1s = torch.randint(len(names), (1000, len(names)), generator=torch.Generator().manual_seed(5)), []
    for draw in drawn.tolist():
        rows = [i for one in draw for i in inside[one]]
        hits = sum(bool(y[i] and found[i]) for i in rows)
        f1s.append(2 * hits / max(1, sum(bool(found[i]) for i in rows) + sum(bool(y[i]) for i in rows)))
    assert score.interval == pytest.approx(tuple(np.quantile(f1s, [0.025, 0.975]).tolist()), abs=1e-9)
    kept = [i for i in range(n) if not half[i] and not apart[i]]
    assert score.held_out.f1 == pytest.approx(detection((scores + 0.5 * y)[kept], y[kept], 0.6).f1)
    looked = [i for i in range(n) if half[i] and not apart[i]]
    assert score.searched_f1 == pytest.approx(detection((scores + 0.5 * y)[looked], y[looked], 0.6).f1)
    assert bench.counts(bench.searched) == (len(looked), int(y[looked].sum()))
    assert bench.counts(bench.reported) == (len(kept), int(y[kept].sum()))


def test_a_share_that_is_all_or_none_has_wilsons_end_over_the_groups_that_count() -> None:
    assert _of_groups(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 4.0])) == (0.5, 0.5)
    assert _of_groups(torch.tensor([0.0, 3.0]), torch.tensor([1.0, 3.0])) == (0.75, 0.75)
    all_of = _of_groups(torch.tensor([1.0, 2.0, 0.0]), torch.tensor([1.0, 2.0, 0.0]))
    assert all_of == (pytest.approx(wilson(1.0, 2).low), 1.0)
    none = _of_groups(torch.tensor([0.0, 0.0, 0.0]), torch.tensor([1.0, 2.0, 0.0]))
    assert none == (0.0, pytest.approx(wilson(0.0, 2).high))
    assert _of_groups(torch.zeros(3), torch.zeros(3)) == (0.0, 1.0)
    assert (_f1(0.5, 1.0), _f1(0.0, 0.0), _f1(0.0, 1.0)) == (pytest.approx(2 / 3), 0.0, 0.0)


def test_a_detector_that_finds_all_or_nothing_has_an_interval_that_says_how_little_that_is() -> None:
    y, half = torch.arange(20) % 2 == 0, torch.arange(20) < 10
    bench = bench_of(y, half)
    low = wilson(1.0, 5).low
    assert bench.score("all", y.float(), 0.5, None, None).interval == (pytest.approx(low), 1.0)
    nothing = bench.score("none", torch.zeros(20), 0.5, None, None)
    assert nothing.interval == (0.0, pytest.approx(_f1(1.0, wilson(0.0, 5).high)))


def test_the_null_is_the_best_f1_of_labels_exchanged_by_the_seed() -> None:
    g = torch.Generator().manual_seed(0)
    columns = torch.rand(40, 6, generator=g) * (torch.rand(40, 6, generator=g) < 0.6)
    y, half = torch.rand(40, generator=g) < 0.5, torch.arange(40) % 2 == 0
    bench, entries = bench_of(y, half, seed=4), entries_of(columns)
    null = bench.null(Ranking(entries.at(half), 6), 5)
    assert len(null) == 5
    for value, drawn in zip(
        null.tolist(), draw_exchanges(bench.rows, half, 5, torch.Generator().manual_seed(4)), strict=True
    ):
        assert not torch.equal(drawn, y) and int(drawn[half].sum()) == int(y[half].sum())
        best = max(
            detection(columns[half, i], drawn[half], float(v) - 1e-6).f1
            for i in range(6)
            for v in columns[half, i]
            if v > 0
        )
        assert value == pytest.approx(best)
    assert Ranking(entries.at(torch.zeros(40, dtype=torch.bool)), 6).highest(y, 3) == 0.0


def test_halves_are_compared_over_the_fifty_best_of_either() -> None:
    g = torch.Generator().manual_seed(0)
    here = torch.rand(400, generator=g)
    there = here + torch.rand(400, generator=g)
    either = sorted({*here.argsort(descending=True)[:50].tolist(), *there.argsort(descending=True)[:50].tolist()})
    found = compare_halves(here, there)
    assert found.correlation == pytest.approx(float(spearmanr(here[either], there[either]).statistic))
    assert found.rank == 1 + int((there > there[here.argmax()]).sum()) > 1
    flat = compare_halves(torch.tensor([0.5, 0.4, 0.1]), torch.ones(3))
    assert (flat.rank, flat.correlation) == (1, 0.0)


def test_entries_are_the_largest_activation_of_each_row_and_latent() -> None:
    values = torch.tensor([[0.5, 0.0], [0.9, 0.3], [0.2, 0.0], [0.7, 0.7]])
    indices = torch.tensor([[2, 0], [2, 1], [2, 0], [0, 2]])
    place = torch.arange(4)
    reading = Reading(torch.zeros(4, 3), values, indices, torch.tensor([0, 0, 1, 1]), place, place + 1, 3)
    each, none = torch.arange(2), torch.zeros(2, dtype=torch.bool)
    y = torch.tensor([True, False])
    rows = Rows("text", y, each, torch.tensor([0, 0, 1, -1]), {}, none, each, torch.zeros(2, dtype=torch.long))
    found = pool_entries(reading, rows)
    triples = sorted(zip(found.row.tolist(), found.latent.tolist(), found.value.tolist(), strict=True))
    assert triples == [(0, 1, pytest.approx(0.3)), (0, 2, pytest.approx(0.9)), (1, 2, pytest.approx(0.2))]
    pooled = rows.pool(torch.tensor([-3.0, -1.0, -2.0, 5.0]))
    assert pooled.tolist() == [-1.0, -2.0]


def test_only_what_labels_could_be_exchanged_between_is_in_one_block() -> None:
    """Clusters and blocks against their definition, over groups of one label, of both, and with texts set apart."""
    g = torch.Generator().manual_seed(1)
    n = 60
    groups = [f"g{j}" for j in torch.randint(20, (n,), generator=g).tolist()]
    labels = torch.rand(20, generator=g) < 0.5
    mixed_ones = {f"g{j}" for j in (3, 8, 11)}
    yes = [
        bool(torch.rand((), generator=g) < 0.5) if name in mixed_ones else bool(labels[int(name[1:])])
        for name in groups
    ]
    forms = ["out" if torch.rand((), generator=g) < 0.4 else "in" for _ in range(n)]
    mentions = [[Mention(0, 2, form)] if one else [] for one, form in zip(yes, forms, strict=True)]
    concept = Concept("c", [f"text {i}" for i in range(n)], yes, mentions, groups, apart=["out"])
    place = torch.arange(n)
    reading = Reading(
        torch.zeros(n, 1), torch.zeros(n, 1), torch.zeros(n, 1).long(), place, place * 0, place * 0 + 9, 1
    )
    rows = by_text(reading, concept)
    held: dict[str, set[bool]] = defaultdict(set)
    for name, one in zip(groups, yes, strict=True):
        held[name].add(one)
    apart = [one and form == "out" for one, form in zip(yes, forms, strict=True)]
    assert rows.apart.tolist() == apart
    kind = [(name, i) if len(held[name]) == 2 else (name, apart[i]) for i, name in enumerate(groups)]
    block = [name if len(held[name]) == 2 else "" for name in groups]
    cluster = rows.cluster.tolist()
    for i in range(n):
        for j in range(n):
            assert (cluster[i] == cluster[j]) == (kind[i] == kind[j])
            same = int(rows.block[cluster[i]]) == int(rows.block[cluster[j]])
            assert same == (block[i] == block[j])
    assert {form: at.tolist() for form, at in rows.forms.items()} == {
        form: [i for i in range(n) if yes[i] and forms[i] == form] for form in concept.forms
    }
    half = split_by_group(concept, 0)
    moved: set[tuple[bool, ...]] = set()
    for y in draw_exchanges(rows, half, 20, torch.Generator().manual_seed(0)):
        moved.add(tuple(y.tolist()))
        for side in (half, ~half):
            for marked in (True, False):
                some = side & (rows.apart == marked)
                found = torch.zeros(int(rows.cluster.max()) + 1, dtype=torch.bool)
                was = found.clone()
                found[rows.cluster[some]], was[rows.cluster[some]] = y[some], rows.y[some]
                assert int(found.sum()) == int(was.sum())
    assert len(moved) == 20


def reading_of(x: torch.Tensor, per_text: int) -> Reading:
    n = len(x)
    text, none = torch.arange(n // per_text).repeat_interleave(per_text), torch.zeros(n, 1)
    place = torch.arange(per_text).repeat(n // per_text)
    return Reading(x, none, none.long(), text, place, place + 1, 4)


@pytest.mark.parametrize(("number", "found"), [(3, True), (10, True), (11, False)])
def test_the_first_ten_components_are_tried_each_on_the_mean_of_the_searched_half(number: int, found: bool) -> None:
    g, n = torch.Generator().manual_seed(0), 400
    labels = [i % 2 == 0 for i in range(n)]
    spread = 30 * 0.7 ** torch.arange(14)
    x = torch.randn(n, 14, generator=g)
    x = torch.linalg.qr(x - x.mean(0)).Q * n**0.5 * spread
    x[:, number - 1] = (torch.tensor(labels).float() - 0.5) * 2 * spread[number - 1]
    reading, concept = reading_of(x + 7.0, 1), Concept("x", [f"{i:05}" for i in range(n)], labels)
    half = split_by_group(concept, 0)
    bench = Evaluation(concept, by_text(reading, concept), half, 0)
    score = score_components(reading.x, half, bench, resid_post[0], "f")
    assert (score.held_out.f1 > 0.95) is found
    if found:
        assert score.name == f"PCA, component {number}" and score.direction is not None
        assert abs(float(score.direction.unit[number - 1])) > 0.9
        assert abs(score.held_out.threshold) < 2 * float(spread[number - 1])


def test_components_are_those_of_every_so_many_tokens_of_the_searched_half(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "ROWS", 50)
    g, n = torch.Generator().manual_seed(2), 230
    labels = [i % 2 == 0 for i in range(n)]
    x = torch.randn(n, 4, generator=g) + 6.0 * torch.tensor(labels)[:, None] * torch.tensor([1.0, 0, 0, 0])
    reading, concept = reading_of(x, 1), Concept("x", [f"{i:05}" for i in range(n)], labels)
    half = split_by_group(concept, 0)
    rows = x[half].double()[:: len(x[half]) // 50]
    assert 50 < len(rows) < 60
    v = torch.linalg.svd(rows - rows.mean(0), full_matrices=False).Vh[0]
    v = v if v[0] > 0 else -v
    score = score_components(
        reading.x, half, Evaluation(concept, by_text(reading, concept), half, 0), resid_post[0], "f"
    )
    assert score.direction is not None and torch.allclose(score.direction.vector.double(), v, atol=1e-6)
    assert score.direction.scale == pytest.approx(float(((rows - rows.mean(0)) @ v).max()), rel=1e-6)


def test_chance_is_what_95_in_100_random_directions_stay_under() -> None:
    sae = TopK(12, 30, k=2, seed=3)
    sae.site = embed
    with torch.no_grad():
        sae.W_dec.mul_(torch.linspace(0.1, 9, 30)[:, None])
    v = torch.randn(12, generator=torch.Generator().manual_seed(8))
    found = find_similar(sae, Direction(v, embed, "x"), top=4, seed=6)
    unit = torch.nn.functional.normalize(sae.W_dec.detach().double(), dim=1)
    cosines = unit @ (v / v.norm()).double()
    order = cosines.argsort(descending=True)[:4]
    assert [i for i, _ in found.latents] == order.tolist()
    assert [c for _, c in found.latents] == pytest.approx(cosines[order].tolist(), abs=1e-5)
    drawn = torch.randn(200, 12, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    highest = (torch.nn.functional.normalize(drawn, dim=1) @ unit.T).amax(1)
    assert found.chance == pytest.approx(float(np.quantile(highest.numpy(), 0.95)), abs=1e-5)
    assert candidates.DRAWS == 200 and len(find_similar(sae, Direction(v, embed, "x"), top=99).latents) == 30


def test_detectors_whose_intervals_overlap_differ_where_one_errs_on_texts_that_the_other_finds() -> None:
    y = torch.arange(100) % 2 == 0
    bench = bench_of(y.repeat(2), torch.arange(200) >= 100)
    right = y.repeat(2).double()
    right[1] = 1.0  # one negative that both take for a positive
    wrong = right.clone()
    wrong[torch.arange(0, 12, 2)] = 0.0
    good, bad = (bench.score(name, x, 0.5, None, None) for name, x in (("good", right), ("bad", wrong)))
    assert good.interval[0] < bad.interval[1], "each alone could be as good as the other"
    found = compare_scores(good, bad)
    assert found.value == pytest.approx(good.held_out.f1 - bad.held_out.f1) and found.low > 0 and found.n == 100
    same = compare_scores(bad, bad)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    with pytest.raises(InvalidArgument, match="not scored on the same texts"):
        compare_scores(good, replace(bad, by_group=bad.by_group[:50]))


def test_a_score_says_its_figures_by_name() -> None:
    held = detection(torch.tensor([0.9, 0.8, 0.4, 0.3, 0.1]), torch.tensor([True, True, False, True, False]), 0.35)
    score = Score("latent 3", 3, None, 0.9, held, (0.4, 0.95), {"name": 0.5})
    assert score.as_row() == {
        "detector": "latent 3",
        "searched F1": 0.9,
        "F1": pytest.approx(2 / 3),
        "F1, low": 0.4,
        "F1, high": 0.95,
        "precision": pytest.approx(2 / 3),
        "recall": pytest.approx(2 / 3),
        "AUROC": pytest.approx(5 / 6),
        "recall, name": 0.5,
    }


def test_what_is_at_the_threshold_is_not_found() -> None:
    y, half = torch.tensor([True, True, False, False] * 2), torch.arange(8) < 4
    bench = bench_of(y, half)
    rows = Rows("text", y, bench.rows.text, bench.rows.row_of, {"name": torch.tensor([0, 4, 5])}, *(
        getattr(bench.rows, name) for name in ("apart", "cluster", "block")
    ))  # fmt: skip
    score = Evaluation(bench.concept, rows, half, 0).score(
        "x", torch.tensor([2.0, 2.0, 0.0, 0.0, 3.0, 1.0, 1.0, 0.0]), 1.0, None, None
    )
    assert score.recall_by_form == {"name": 0.5} and score.held_out.recall == 0.5 and score.held_out.precision == 1.0
    assert score.interval[1] < 1.0 or score.interval[0] == 0.0
