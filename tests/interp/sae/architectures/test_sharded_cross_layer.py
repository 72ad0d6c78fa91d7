"""A cross-layer transcoder whose latents processes share is drawn, trained, kept and measured as one process would."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hooks.errors import DamagedFile, InvalidArgument, InvalidType, WrongState
from hooks.store.processes import processes
from interp.sae import (
    CrossLayerTranscoder,
    ShardedCrossLayerTranscoder,
    evaluate,
    fold_normalisation,
    load_cross_layer_shards,
    normalise_source,
    rms_scaling,
    save_cross_layer_shards,
    tensor_source,
    train,
)
from interp.scale import count_traffic
from tests.processes import do_in_processes

pytestmark = [pytest.mark.skipif(sys.platform != "linux", reason="forks"), pytest.mark.usefixtures("unchecked")]
D, L, LATENTS = 8, 3, 48


def in_processes(work: Callable[[], None], world: int = 2) -> None:
    def one() -> None:
        with processes(torch.device("cpu")):
            work()

    do_in_processes(one, world)


def rows(n: int = 60) -> Tensor:
    return torch.randn(n, 2 * L, D, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def made(**settings: Any) -> ShardedCrossLayerTranscoder:
    """With biases, thresholds and a linear path that are not 0, the same for any number of processes."""
    clt = ShardedCrossLayerTranscoder(D, LATENTS, L, bandwidth=0.5, initial_threshold=0.2, **settings).double()
    g = torch.Generator().manual_seed(4)
    b_enc = 0.1 * torch.randn(L, LATENTS // L, generator=g, dtype=torch.float64)
    with torch.no_grad():
        clt.b_enc.copy_(b_enc[:, clt.rank * clt.per_layer : (clt.rank + 1) * clt.per_layer])
        clt.b_dec.copy_(0.1 * torch.randn(L, D, generator=g))
        if clt.W_skip is not None:
            clt.W_skip.copy_(0.1 * torch.randn(L, D, D, generator=g))
    return clt


@pytest.mark.parametrize("world", [2, 4])
def test_the_first_weights_are_the_same_for_any_number_of_processes(world: int, tmp_path: Path) -> None:
    def work() -> None:
        clt = made()
        whole = clt.whole()
        assert all(bool((D.flatten(1).norm(dim=1) - 0.1).abs().max() < 1e-6) for D in whole.decoders())
        torch.save(whole.state_dict(), tmp_path / f"{clt.world}-{clt.rank}.pt")

    in_processes(work, 1)
    in_processes(work, world)
    one, several = (torch.load(tmp_path / f"{name}.pt") for name in ("1-0", f"{world}-{world - 1}"))
    assert all(torch.equal(one[name], several[name]) for name in one)


@pytest.mark.parametrize("settings", [{}, {"reach": 2, "skip": True}])
def test_gradients_latents_and_reconstructions_are_those_of_one_process(settings: dict[str, Any]) -> None:
    def work() -> None:
        clt = made(**settings, coefficient=0.7)
        whole = clt.whole().double()
        x = rows()[:, :L]
        torch.testing.assert_close(clt.encode(x), whole.encode(x))
        torch.testing.assert_close(clt(x), whole(x))
        torch.testing.assert_close(clt.decode(whole.encode(x)), whole.decode(whole.encode(x)))
        values, indices = clt.encode_sparse(x)
        dense = torch.zeros(len(x), LATENTS, dtype=x.dtype).scatter_add(1, indices, values)
        torch.testing.assert_close(dense, whole.encode(x).detach())
        torch.testing.assert_close(clt.reconstruct_sparse(x, values, indices), whole(x).detach())
        one, other = clt.objective(), whole.objective()
        clt.pre_act_coefficient = whole.pre_act_coefficient = 0.3
        dead = torch.zeros(LATENTS, dtype=torch.bool)
        dead[[1, 9, 17, 30, 47]] = True
        a, b = one.gradients(rows(), dead), other.gradients(rows(), dead)
        for name in ("loss", "squared_error", "l0", "largest"):
            torch.testing.assert_close(getattr(a, name), getattr(b, name))
        torch.testing.assert_close(one.gradient_norm(), other.gradient_norm())
        own = slice(clt.rank * clt.per_layer, (clt.rank + 1) * clt.per_layer)
        for name in ("W_enc", "b_enc", "threshold"):
            torch.testing.assert_close(clt.get_parameter(name).grad, whole.get_parameter(name).grad[:, own])
        for mine, all_ in zip(clt.decoders(clt.W_dec.grad), whole.decoders(whole.W_dec.grad), strict=True):
            torch.testing.assert_close(mine, all_[own])
        torch.testing.assert_close(clt.b_dec.grad, whole.b_dec.grad)

    in_processes(work)


def test_training_kept_read_and_measured_by_others_is_that_of_one_process(tmp_path: Path) -> None:
    source = tensor_source(rows(800))
    options: dict[str, Any] = {"tokens": 3_000, "batch_size": 100, "buffer": 800, "progress": False, "lr": 1e-3}

    def learn() -> None:
        clt = made()
        report = train(clt, source, **options)
        save_cross_layer_shards(clt, tmp_path / f"kept-{clt.world}")
        with count_traffic() as traffic:
            read = load_cross_layer_shards(tmp_path / f"kept-{clt.world}")
        assert torch.equal(read.W_dec, clt.W_dec.float()) and traffic.by.keys() <= {"all_gather"}
        assert torch.equal(read.max_activation, clt.max_activation.float())
        kept = (clt.whole().state_dict(), report.quality.explained_variance)
        torch.save(kept, tmp_path / (f"{clt.world}.pt" if clt.rank == 0 else "other.pt"))

    for world in (1, 2):
        in_processes(learn, world)
    (one, quality), (two, other) = (torch.load(tmp_path / f"{world}.pt") for world in (1, 2))
    for name in one:
        torch.testing.assert_close(two[name], one[name], atol=1e-6, rtol=1e-5)
    assert other == pytest.approx(quality, abs=1e-6)

    def read_again() -> None:
        clt = load_cross_layer_shards(tmp_path / "kept-2").double()
        assert len(clt.threshold[0]) == LATENTS // L // clt.world
        whole = CrossLayerTranscoder(D, LATENTS, L, bandwidth=0.5, initial_threshold=0.2).double()
        whole.load_state_dict(two)
        found, expected = evaluate(clt, source), evaluate(whole, source)
        assert found.explained_variance == pytest.approx(expected.explained_variance, abs=1e-5)
        assert torch.equal(found.firings, expected.firings)

    for world in (1, 2, 4):
        in_processes(read_again, world)

    def damaged() -> None:
        with pytest.raises(DamagedFile):
            load_cross_layer_shards(tmp_path / "kept-2")

    file = next((tmp_path / "kept-2").glob("latents-1*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    in_processes(damaged, 1)


def test_what_a_share_cannot_do_is_refused() -> None:
    with pytest.raises(WrongState, match="none have joined"):
        ShardedCrossLayerTranscoder(D, LATENTS, L)

    def work() -> None:
        with pytest.raises(InvalidArgument, match="multiple of 3 layers times 2 processes"):
            ShardedCrossLayerTranscoder(D, 45, L)
        with pytest.raises(InvalidArgument, match="leave k out"):
            ShardedCrossLayerTranscoder(D, LATENTS, L, k=4)
        clt, source = made(), tensor_source(rows())
        scaled = normalise_source(source, rms_scaling(source))
        clt.normalisation = scaled.normalisation
        with pytest.raises(InvalidType, match="a normalisation of its weights"):
            fold_normalisation(clt)
        with pytest.raises(InvalidArgument, match="normalised activations"):
            save_cross_layer_shards(clt, "nowhere")

    in_processes(work)
