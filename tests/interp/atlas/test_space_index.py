"""An index that looks everywhere is exact, one that looks into few cells finds what its recall says."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from hooks.errors import InvalidArgument
from interp.atlas import Space, find_neighbours, index_space, link_neighbours, measure_index_recall

pytest.importorskip("faiss")


def space_of(n: int = 600, d: int = 12, metric: Any = "cosine", seed: int = 0) -> Space:
    random = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, d, generator=random) + 3.0  # all in one orthant, as after a ReLU
    return Space(rows, tuple(map(str, range(n))), metric)


@pytest.mark.parametrize("metric", ["cosine", "euclid"])
def test_an_index_that_looks_into_every_cell_answers_as_the_product_with_all_rows(metric: str) -> None:
    space = space_of(metric=metric)
    index = index_space(space, cells=15, probes=15)
    assert measure_index_recall(index, 10, queries=100).value == 1.0
    query = torch.randn(12, generator=torch.Generator().manual_seed(9))
    asked: list[tuple[Any, Any]] = [(0, None), (17, None), (query, None), (5, ["5", "9"])]
    for item, exclude in asked:
        exact = find_neighbours(space, item, 7, exclude=exclude)
        found = find_neighbours(space, item, 7, exclude=exclude, index=index)
        assert found.names == exact.names and found.excluded == exact.excluded
        assert torch.allclose(found.scores, exact.scores, atol=1e-5)


def test_the_graph_by_an_index_that_looks_everywhere_is_the_exact_one() -> None:
    space = space_of()
    exact, found = link_neighbours(space, 5), link_neighbours(space, 5, index=index_space(space, cells=15, probes=15))
    assert torch.equal(found.neighbours, exact.neighbours)
    assert torch.allclose(found.distances, exact.distances, atol=1e-5)


def test_recall_is_the_share_of_true_neighbours_among_those_found_and_grows_with_the_cells_looked_into() -> None:
    space = space_of()
    recalls = []
    for probes in (1, 4, 20):
        index = index_space(space, cells=20, probes=probes)
        scores = space.scores(space.rows).fill_diagonal_(-torch.inf).topk(10).indices
        found = index.find(space.rows, 11)
        shares = [
            len({*a.tolist()} & ({*b.tolist()} - {i})) / 10 for i, (a, b) in enumerate(zip(scores, found, strict=True))
        ]
        estimate = measure_index_recall(index, 10, queries=600)
        assert estimate.value == pytest.approx(sum(shares) / 600)
        recalls.append(estimate.value)
    assert recalls[0] < recalls[1] < recalls[2] == 1.0


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda s: find_neighbours(s, 0, 3, index=index_space(space_of(seed=1))), "the index is of another space"),
        (
            lambda s: find_neighbours(s, 0, 400, index=index_space(s, cells=15, probes=1)),
            "give index_space more probes",
        ),
        (lambda s: link_neighbours(s, 400, index=index_space(s, cells=15, probes=1)), "give index_space more probes"),
        (lambda s: measure_index_recall(index_space(s), 600), "600 neighbours were asked for of 600 rows"),
    ],
)
def test_what_an_index_cannot_answer_is_refused(call: Callable[[Space], object], text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        call(space_of())


def test_a_graph_of_cosines_is_not_made_from_distances() -> None:
    space = space_of(metric="euclid")
    with pytest.raises(InvalidArgument, match="index a space by cosine"):
        link_neighbours(space, 5, index=index_space(space))
