"""The rank-one update is exact, least and local; covariances are what they say; shrinkage follows the data."""

from pathlib import Path

import pytest
import torch

from hooks import Model, capture
from hooks.site import mlp_act
from interp.memory import Covariance, covariance
from interp.memory.covariance import SHRINKAGES, best_shrinkage, shrink
from interp.memory.rome import solve

D, OUT = 24, 10


def problem(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    keys = torch.randn(200, D, generator=random, dtype=torch.float64)
    k, delta = (torch.randn(n, generator=random, dtype=torch.float64) for n in (D, OUT))
    return k, delta, keys.T @ keys / 200


def test_the_update_maps_the_key_to_the_value_exactly() -> None:
    k, delta, c = problem()
    u, v = solve(k, delta, c)
    assert torch.linalg.norm(k @ torch.outer(u, v) - delta) / delta.norm() < 1e-12


def test_of_all_updates_that_do_so_it_moves_other_keys_least() -> None:
    k, delta, c = problem()
    update = torch.outer(*solve(k, delta, c))
    cost = torch.trace(update.T @ c @ update)
    random = torch.Generator().manual_seed(1)
    for _ in range(200):
        z = torch.randn(D, OUT, generator=random, dtype=torch.float64)
        feasible = update + z - torch.outer(k, k @ z) / (k @ k)
        assert torch.allclose(k @ feasible, delta)
        assert torch.trace(feasible.T @ c @ feasible) > cost


def test_facts_with_keys_orthogonal_in_the_covariance_do_not_move() -> None:
    random = torch.Generator().manual_seed(2)
    keys = torch.linalg.qr(torch.randn(D, D, generator=random, dtype=torch.float64))[0][:6]
    c = torch.eye(D, dtype=torch.float64)
    memory = keys.T @ torch.randn(6, OUT, generator=random, dtype=torch.float64)
    edited = memory + torch.outer(*solve(keys[0], torch.ones(OUT, dtype=torch.float64), c))
    assert torch.allclose(keys[1:] @ edited, keys[1:] @ memory, atol=1e-12)
    assert torch.allclose(keys[0] @ edited, keys[0] @ memory + 1)


def test_one_mean_key_throughout_stays_finite_where_mixing_bare_and_mean_keys_blows_up() -> None:
    bare = torch.zeros(D, dtype=torch.float64)
    bare[0] = 1.0
    mean = torch.zeros(D, dtype=torch.float64)
    mean[1], mean[0] = 1.0, 1e-9
    delta, c = torch.ones(OUT, dtype=torch.float64), torch.eye(D, dtype=torch.float64)
    inverse = torch.linalg.solve(c, mean)
    mixed = torch.outer(inverse / (bare @ inverse), delta)
    assert torch.outer(*solve(mean, delta, c)).norm() < 10 < 1e6 < mixed.norm()


def test_the_covariance_is_the_mean_outer_product_of_the_content_tokens_keys(gpt2: Model) -> None:
    texts = [f"text number {i} of some" for i in range(20)]
    found = covariance(gpt2, texts, 1, batch_size=4)
    k = capture(gpt2, texts, [mlp_act[1]]).flat(mlp_act[1]).double()
    assert found.n_tokens == len(k)
    assert torch.allclose(found.matrix, k.T @ k / len(k), atol=1e-5)


def test_fewer_tokens_than_keys_are_warned_about(gpt2: Model) -> None:
    with pytest.warns(UserWarning, match="10 tokens for 48 keys: the covariance cannot have full rank"):
        covariance(gpt2, ["ab"] * 5, 1, batch_size=1)


def test_too_few_texts_are_refused(gpt2: Model) -> None:
    with pytest.raises(ValueError, match="4 texts in 2 batches of data are too few to hold one out of five: give at"):
        covariance(gpt2, ["some text"] * 4, 1, batch_size=3)


def test_the_batch_size_changes_neither_covariance_nor_shrinkage(gpt2: Model) -> None:
    texts = [f"text number {i} of some that are longer" for i in range(23)]
    one, other = (covariance(gpt2, texts, 1, batch_size=n) for n in (4, 23))
    assert torch.allclose(one.matrix, other.matrix, atol=1e-6)
    assert (one.shrinkage, one.n_tokens) == (other.shrinkage, other.n_tokens)


def test_the_likelihood_of_each_shrinkage_is_that_of_a_gaussian() -> None:
    _, _, seen = problem(4)
    keys = torch.randn(50, D, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    losses = {
        shrinkage: -torch.distributions.MultivariateNormal(torch.zeros(D).double(), shrink(seen, shrinkage))
        .log_prob(keys)
        .mean()
        for shrinkage in SHRINKAGES
    }
    assert best_shrinkage(seen, keys.T @ keys / 50) == min(losses, key=losses.__getitem__)


def test_shrinkage_grows_as_data_become_scarce() -> None:
    random = torch.Generator().manual_seed(3)
    factor = torch.diag(torch.linspace(0.3, 2.0, D, dtype=torch.float64))

    def moment(n: int) -> torch.Tensor:
        keys = torch.randn(n, D, generator=random, dtype=torch.float64) @ factor
        return keys.T @ keys / n

    truth = moment(200_000)
    scarce, plenty = (best_shrinkage(moment(n), truth) for n in (30, 100_000))
    assert scarce >= 0.03 > 1e-3 >= plenty


def test_shrinking_keeps_the_trace() -> None:
    _, _, c = problem()
    assert torch.isclose(shrink(c, 0.3).trace(), c.trace())


def test_a_covariance_is_read_back_as_written(tmp_path: Path) -> None:
    _, _, c = problem()
    whole = Covariance(c, 0.01, 3, 200, "abc")
    whole.save(tmp_path / "c.safetensors")
    read = Covariance.load(tmp_path / "c.safetensors")
    assert torch.equal(read.matrix, c)
    assert (read.shrinkage, read.layer, read.n_tokens, read.fingerprint) == (0.01, 3, 200, "abc")
