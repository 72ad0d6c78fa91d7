"""A store is a source: the rows that were harvested, each once in every pass, at the sites asked for."""

from pathlib import Path

import pytest
import torch

from hooks import ActivationStore, Model, harvest
from hooks.site import mlp_act, resid_post, resid_pre, z
from interp.sae import TopK, read_across, read_activations, read_pairs, train

SITES = [resid_post[1], resid_pre[1], mlp_act[0], z[0]]


@pytest.fixture(scope="module")
def store(gpt2: Model, tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    texts = [f"fog {number} over the bay" for number in range(40)]
    return harvest(gpt2, texts, SITES, tmp_path_factory.mktemp("store"), dtype=torch.bfloat16)


def test_each_pass_has_every_row_once_in_float32(store: ActivationStore) -> None:
    source = read_activations(store, "z.0")
    first, second = (torch.cat([*source]) for _ in range(2))
    assert torch.equal(first, second)
    assert first.dtype == torch.float32
    expected = store[:][z[0]].flatten(1).float()
    assert torch.equal(first.sort(0).values, expected.sort(0).values)
    assert not torch.equal(first, expected)


def test_places_of_a_row_belong_to_one_token(store: ActivationStore) -> None:
    rows = store[:]
    reads, writes = rows[mlp_act[0]].float(), rows[resid_post[1]].float()
    one = {tuple(row) for row in torch.cat([reads, writes], 1).tolist()}
    assert {tuple(row) for part in read_pairs(store, mlp_act[0], resid_post[1]) for row in part.tolist()} == one
    both = torch.cat([*read_across(store, [resid_post[1], resid_pre[1]])])
    assert both.shape == (len(store), 2, 32)
    two = {tuple(row) for row in torch.cat([writes, rows[resid_pre[1]].float()], 1).tolist()}
    assert {tuple(row) for row in both.flatten(1).tolist()} == two


def test_an_autoencoder_trained_on_a_store_knows_its_place(store: ActivationStore, gpt2: Model) -> None:
    sae = TopK(gpt2.d_model, 48, k=8)
    report = train(sae, read_activations(store, resid_post[1]), tokens=20_000, batch_size=256, progress=False)
    assert report.explained_variance > 0.5
    assert sae.fingerprint == gpt2.fingerprint
    assert sae.dataset == f"the store at {store.url}"


def test_a_site_that_was_not_harvested_is_named(store: ActivationStore) -> None:
    with pytest.raises(KeyError, match="does not hold mlp_act.2; the nearest it holds"):
        read_activations(store, mlp_act[2])


def test_the_path_of_a_store_is_in_what_it_says(store: ActivationStore) -> None:
    assert Path(store.url).name in read_activations(store, resid_post[1]).dataset
