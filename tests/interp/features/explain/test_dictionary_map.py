"""A map of a dictionary keeps planted neighbourhoods, says how many, and names its library where that is absent."""

import builtins
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from interp.features import map_dictionary
from interp.sae import TopK

CLUSTERS, EACH = 6, 12


@pytest.fixture
def clustered() -> TopK:
    """Decoder rows around six centres that are orthogonal, twelve rows each, of all lengths."""
    generator = torch.Generator().manual_seed(0)
    sae = TopK(16, CLUSTERS * EACH, k=2)
    centres = torch.eye(16)[:CLUSTERS].repeat_interleave(EACH, 0)
    rows = centres + 0.05 * torch.randn(CLUSTERS * EACH, 16, generator=generator)
    with torch.no_grad():
        sae.W_dec.copy_(rows * torch.rand(len(rows), 1, generator=generator).add(0.5))
    return sae


class Projection:
    """In place of UMAP: the first two coordinates of what it is given."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def fit_transform(self, x: np.ndarray) -> np.ndarray:
        assert self.settings["metric"] == "cosine" and self.settings["n_jobs"] == 1
        assert np.allclose(np.linalg.norm(x, axis=1), 1.0, atol=1e-5)
        return x[:, :2]


@pytest.fixture
def planar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=Projection))


def flat(d: int, n: int, seed: int = 0) -> TopK:
    """A dictionary whose rows have two coordinates that are not 0, so that a projection on those loses nothing."""
    sae = TopK(d, n, k=2)
    angle = torch.rand(n, generator=torch.Generator().manual_seed(seed)) * 6.28
    with torch.no_grad():
        sae.W_dec.zero_()
        sae.W_dec[:, :2] = torch.stack([angle.cos(), angle.sin()], 1)
    return sae


@pytest.mark.usefixtures("planar")
def test_a_map_that_loses_nothing_keeps_every_neighbour() -> None:
    drawn = map_dictionary(flat(8, 40), neighbours=5)
    assert (drawn.kept.value, drawn.chance) == (1.0, pytest.approx(5 / 39))
    assert "keeps 100% of the 5 nearest neighbours" in str(drawn)


@pytest.mark.usefixtures("planar")
def test_a_map_of_noise_keeps_about_as_many_as_chance() -> None:
    sae = TopK(64, 600, k=2)
    with torch.no_grad():
        sae.W_dec.copy_(torch.randn(600, 64, generator=torch.Generator().manual_seed(1)))
    drawn = map_dictionary(sae, neighbours=10)
    assert drawn.chance < drawn.kept.value < 5 * drawn.chance


@pytest.mark.usefixtures("planar")
def test_a_part_of_the_dictionary_is_drawn_in_the_order_given() -> None:
    sae, chosen = flat(8, 40), [30, 3, 17, 8, 21, 5, 1]
    drawn = map_dictionary(sae, chosen, neighbours=2)
    assert drawn.latents == tuple(chosen) and torch.allclose(drawn.xy, sae.W_dec[chosen, :2])


@pytest.mark.usefixtures("planar")
def test_latents_that_cannot_be_drawn_are_refused(clustered: TopK) -> None:
    with pytest.raises(IndexError, match="latent 72 does not exist; this autoencoder has latents 0 to 71"):
        map_dictionary(clustered, [*range(40), 72])
    with pytest.raises(ValueError, match="a latent is given twice among 41"):
        map_dictionary(clustered, [*range(40), 3])
    with pytest.raises(ValueError, match="30 latents and 15 neighbours were given"):
        map_dictionary(clustered, range(30))


def test_without_the_library_the_error_says_how_to_get_it(clustered: TopK, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "umap":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.delitem(sys.modules, "umap", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'interp-workbench\[map\]'"):
        map_dictionary(clustered, neighbours=5)


@pytest.mark.usefixtures("planar")
def test_the_share_kept_is_by_counting_neighbours_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    sae = TopK(6, 50, k=2)
    with torch.no_grad():
        sae.W_dec.copy_(torch.randn(50, 6, generator=torch.Generator().manual_seed(2)))
        sae.W_dec[:, :2] *= 2
    whole = map_dictionary(sae, neighbours=4)
    unit = torch.nn.functional.normalize(sae.W_dec.detach(), dim=1)
    kept = []
    for i in range(50):
        others = [j for j in range(50) if j != i]
        by_cosine = sorted(others, key=lambda j: -float(unit[i] @ unit[j]))[:4]
        in_plane = sorted(others, key=lambda j: float((unit[i, :2] - unit[j, :2]).norm()))[:4]
        kept.append(len({*by_cosine} & {*in_plane}) / 4)
    assert whole.kept.value == pytest.approx(sum(kept) / 50) and 0.2 < whole.kept.value < 1
    assert whole.kept.n == 50 and whole.chance == pytest.approx(4 / 49)
    monkeypatch.setattr(sys.modules["interp.features.explain.dictionary_map"], "BLOCK", 7)
    assert map_dictionary(sae, neighbours=4).kept == whole.kept
    table = whole.to_pandas()
    assert table["x"].tolist() == pytest.approx(unit[:, 0].tolist()) and list(table.columns) == ["latent", "x", "y"]
