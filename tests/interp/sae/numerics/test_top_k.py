"""The largest of each row, and what is above a threshold, against a whole sort."""

import pytest
import torch

from interp.sae.numerics.top_k import places_above, top_k_places


@pytest.mark.parametrize(("w", "k"), [(24, 3), (97, 5), (512, 4), (768, 32), (40, 40)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_largest_of_each_row_are_those_of_a_sort(w: int, k: int, dtype: torch.dtype) -> None:
    x = torch.randn(130, w, generator=torch.Generator().manual_seed(0), dtype=dtype)
    assert torch.equal(top_k_places(x, k).sort(1).values, x.argsort(1, descending=True)[:, :k].sort(1).values)


def test_equal_entries_are_kept_once_each() -> None:
    x = torch.randint(3, (50, 256), generator=torch.Generator().manual_seed(0)).float()
    found = top_k_places(x, 9).sort(1).values
    assert bool((found.diff(dim=1) > 0).all())
    assert torch.equal(x.gather(1, found).sort(1).values, x.sort(1).values[:, -9:])


def test_what_is_above_a_threshold_is_found_in_order() -> None:
    x = torch.randn(30, 24, generator=torch.Generator().manual_seed(0))
    assert torch.equal(places_above(x, 0.7), (x.flatten() > 0.7).nonzero().flatten())
