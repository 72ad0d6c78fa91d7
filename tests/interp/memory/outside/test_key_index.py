"""An index finds all there is with all cells, most with few, and its distances are those of the keys."""

from dataclasses import replace

import pytest
import torch

from hooks.errors import InvalidArgument
from hooks.site import mlp_in
from interp.memory.outside import TokenMemory, measure_recall


def memory(n: int = 4000, d: int = 12, mean: float = 50.0) -> TokenMemory:
    random = torch.Generator().manual_seed(0)
    keys = mean + torch.randn(n, d, generator=random)
    return TokenMemory(keys, torch.randint(9, (n,), generator=random), torch.zeros(n).long(), mlp_in[0], "none")


def queries(n: int = 30, d: int = 12, mean: float = 50.0) -> torch.Tensor:
    return mean + torch.randn(n, d, generator=torch.Generator().manual_seed(1))


def test_an_index_that_looks_into_every_cell_has_recall_one_and_the_same_distances() -> None:
    exact = memory()
    indexed = exact.with_index(cells=20, probes=20)
    recall = measure_recall(indexed, queries(), k=16)
    assert recall.value == 1.0 and recall.n == 30
    (one, at), (other, where) = exact.find(queries(), 16), indexed.find(queries(), 16)
    assert torch.equal(at, where) and torch.equal(one, other)


def test_recall_grows_with_the_cells_looked_into_and_what_is_found_has_its_true_distance() -> None:
    exact, found = memory(), []
    for probes in (1, 4, 20):
        indexed = exact.with_index(cells=20, probes=probes)
        found.append(measure_recall(indexed, queries(), k=16).value)
        squared, at = indexed.find(queries(), 16)
        true = ((exact.keys[at].double() - queries().double()[:, None]) ** 2).sum(2)
        assert torch.allclose(squared, true, rtol=1e-12)
        assert bool((squared[:, 1:] >= squared[:, :-1]).all())
    assert found == sorted(found) and 0.05 < found[0] < 0.9 and found[2] == 1.0


def test_entries_at_one_distance_count_as_one_another() -> None:
    plain = memory(300)
    many = replace(
        plain, keys=plain.keys.repeat(5, 1), tokens=plain.tokens.repeat(5), document=plain.document.repeat(5)
    )
    assert measure_recall(many.with_index(cells=10, probes=10), queries(), k=7).value == 1.0


def test_more_neighbours_than_the_cells_hold_are_looked_for_among_all_entries() -> None:
    indexed = memory(60, 3).with_index(cells=30, probes=1)
    squared, at = indexed.find(queries(5, 3), 50)
    assert at.shape == (5, 50) and bool((at >= 0).all()) and bool(squared.isfinite().all())
    assert measure_recall(indexed, queries(5, 3), k=50).value == 1.0


def test_an_index_stays_with_its_keys_and_goes_with_them() -> None:
    indexed = memory(200).with_index(cells=4)
    assert indexed.shuffle().index is indexed.index
    assert indexed.without(torch.tensor([3])).index is None and indexed.with_random_keys().index is None
    half = replace(indexed, keys=indexed.keys.half(), index=None).with_index(cells=4, probes=4)
    assert measure_recall(half, queries(), k=8).value == 1.0
    assert "200 keys in 4 cells" in repr(indexed.index)
    assert measure_recall(memory(200), queries(), k=8).value == 1.0


def test_more_cells_than_keys_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="give 1 to 50 cells"):
        memory(50).with_index(cells=51)
    with pytest.raises(InvalidArgument, match="no more probes"):
        memory(50).with_index(cells=5, probes=6)
