"""Latents of a crosscoder over checkpoints, whose births, deaths, splits and turns are planted."""

import pytest
import torch
from torch import Tensor

from hooks.errors import InvalidArgument
from interp.emergence import measure_lifetimes
from interp.sae import Crosscoder, tensor_source, train

STEPS = (10, 100, 1000, 10000)
WIDTH = 16
STAYS, COMES, GOES, WHOLE, HALF, OTHER_HALF, TURNS = range(7)


def planted() -> Tensor:
    """Directions of seven features at four checkpoints; zero where a feature is not there."""
    e, u = torch.eye(WIDTH), torch.zeros(7, 4, WIDTH)
    u[STAYS] = e[0]
    u[COMES, 2:] = e[1]
    u[GOES, :2] = e[2]
    u[WHOLE, :2] = (e[3] + e[4]) / 2**0.5
    u[HALF, 2:], u[OTHER_HALF, 2:] = e[3], e[4]
    u[TURNS, :3], u[TURNS, 3] = e[5], e[6]
    return u


def states(u: Tensor, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Which features are on in each row, one of the halves wherever the whole is, and the states of all checkpoints."""
    random = torch.Generator().manual_seed(seed)
    f = (torch.rand(n, 7, generator=random) < 0.12) * (0.5 + torch.rand(n, 7, generator=random))
    which = torch.rand(n, generator=random) < 0.5
    f[:, HALF], f[:, OTHER_HALF] = f[:, WHOLE] * which, f[:, WHOLE] * ~which
    return f, torch.einsum("nf,ftd->ntd", f, u)


def by_hand(u: Tensor, written: Tensor) -> Crosscoder:
    """A crosscoder that reads each feature off the checkpoint where it is alone, and writes given rows."""
    coder = Crosscoder(WIDTH, 7, n_layers=4)
    reads = torch.zeros(4, WIDTH, 7)
    for i in range(7):
        at = 1 if i in (GOES, WHOLE) else 2
        reads[at, :, i] = u[i, at]
    with torch.no_grad():
        coder.W_enc.copy_(reads)
        coder.W_dec.copy_(written)
        coder.b_enc.zero_()
        coder.b_dec.zero_()
    return coder


def test_born_gone_split_and_turned_are_found_where_they_are_planted() -> None:
    u = planted()
    found = measure_lifetimes(by_hand(u, u), states(u, 400, 0)[1], STEPS)
    assert found.born() == {STAYS: 10, COMES: 1000, GOES: 10, WHOLE: 10, HALF: 1000, OTHER_HALF: 1000, TURNS: 10}
    assert found.gone() == {GOES: 1000, WHOLE: 1000}
    assert found.splits == {WHOLE: (HALF, OTHER_HALF)} and found.splits_by_chance < 0.5
    turned = found.turned()
    assert turned[TURNS].tolist() == pytest.approx([1, 1, 0], abs=1e-5)
    assert turned[STAYS].tolist() == pytest.approx([1, 1, 1], abs=1e-5) and bool(turned[COMES, :2].isnan().all())
    assert found.to_pandas()["born"].tolist().count(1000) == 3


def test_young_latents_like_an_older_one_that_are_on_elsewhere_are_no_split_of_it() -> None:
    u = planted()
    f, _ = states(u, 400, 6)
    f[:, [HALF, OTHER_HALF]] = f[torch.randperm(400, generator=torch.Generator().manual_seed(7))][:, [HALF, OTHER_HALF]]
    found = measure_lifetimes(by_hand(u, u), torch.einsum("nf,ftd->ntd", f, u), STEPS)
    assert found.born()[HALF] == 1000 and found.splits == {}


def test_what_a_penalty_has_shrunk_comes_back_from_the_error() -> None:
    u = planted()
    shrunk = u.clone()
    shrunk[STAYS, 0] *= 0.2  # a norm alone would say that it is born at step 100
    alone = torch.zeros(300, 7)
    alone[torch.arange(300), torch.arange(300) % 3] = 1.0  # one feature at a time, so that the refit is exact
    rows = torch.einsum("nf,ftd->ntd", alone, u)
    found = measure_lifetimes(by_hand(u, shrunk), rows, STEPS)
    assert found.strength[STAYS].tolist() == pytest.approx([1, 1, 1, 1], abs=1e-5)
    assert found.born()[STAYS] == 10


def test_a_latent_that_never_fires_has_no_lifetime_and_noise_is_no_birth() -> None:
    u = planted()
    u[TURNS] = 0
    found = measure_lifetimes(by_hand(planted(), u), states(u, 400, 1)[1], STEPS)
    assert TURNS not in found.born() and float(found.strength[TURNS].max()) == 0
    noisy = states(planted(), 400, 2)[1] + 0.02 * torch.randn(400, 4, WIDTH, generator=torch.Generator().manual_seed(3))
    assert measure_lifetimes(by_hand(planted(), planted()), noisy, STEPS).born()[COMES] == 1000


def test_a_trained_crosscoder_finds_what_comes_and_goes_and_of_one_checkpoint_four_times_nothing_does() -> None:
    u = planted()
    u[[WHOLE, HALF, OTHER_HALF, TURNS]] = 0
    _, rows = states(u, 4000, 4)
    coder = Crosscoder(WIDTH, 6, n_layers=4, coefficient=0.05, seed=1)
    train(coder, tensor_source(rows), tokens=120_000, batch_size=256, lr=5e-3, dead_after=10**9, progress=False)
    found = measure_lifetimes(coder, rows, STEPS)

    def latent(feature: int, at: int) -> int:
        """The latent that is most of a planted direction there."""
        return int((found.rows[:, at] @ u[feature, at] * (found.fired > 200)).argmax())

    stays, comes, goes = latent(STAYS, 0), latent(COMES, 2), latent(GOES, 0)
    assert (found.born()[stays], found.born()[comes], found.born()[goes]) == (10, 1000, 10)
    assert stays not in found.gone() and comes not in found.gone() and found.gone()[goes] == 1000
    same = rows[:, 3:].expand(-1, 4, -1).contiguous()
    still = Crosscoder(WIDTH, 6, n_layers=4, coefficient=0.05, seed=1)
    train(still, tensor_source(same), tokens=120_000, batch_size=256, lr=5e-3, dead_after=10**9, progress=False)
    control = measure_lifetimes(still, same, STEPS)
    assert set(control.born().values()) == {10} and not control.gone() and not control.splits


def test_rows_and_steps_that_do_not_fit_are_refused() -> None:
    u = planted()
    coder, rows = by_hand(u, u), states(u, 20, 5)[1]
    with pytest.raises(InvalidArgument, match="later than the one before"):
        measure_lifetimes(coder, rows, (10, 100, 50, 1000))
    with pytest.raises(InvalidArgument, match="one layer for each step"):
        measure_lifetimes(coder, rows, (10, 100, 1000))
