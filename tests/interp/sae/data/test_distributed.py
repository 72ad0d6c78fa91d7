"""Two processes that share batches, or latents, learn what one process learns."""

import os
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hooks import Model
from hooks.site import resid_post
from hooks.store.processes import processes
from interp.sae import (
    SAE,
    BatchTopK,
    Checkpoint,
    Gated,
    JumpReLU,
    MatryoshkaBatchTopK,
    Member,
    Resampling,
    ShardedTopK,
    Standard,
    TopK,
    activations_of,
    evaluate,
    tensor_source,
    train,
    train_many,
)
from interp.sae.data.distributed import share_batch
from tests.interp.sae.planted import activations, features
from tests.processes import do_in_processes

pytestmark = [pytest.mark.skipif(sys.platform != "linux", reason="forks"), pytest.mark.usefixtures("unchecked")]
D, LATENTS = 12, 40
OPTIONS = {"tokens": 4_000, "batch_size": 100, "buffer": 600, "dead_after": 500, "lr": 3e-3, "progress": False}
MANY = {name: value for name, value in OPTIONS.items() if name != "lr"}


def rows() -> Tensor:
    g = torch.Generator().manual_seed(0)
    return activations(features(24, D, g), 3_000, 0.1, g)


def every_kind() -> dict[str, SAE]:
    return {
        "standard": Standard(D, LATENTS, coefficient=0.1).double(),
        "gated": Gated(D, LATENTS, coefficient=0.1).double(),
        "jumprelu": JumpReLU(D, LATENTS, penalty="quadratic", target_l0=4).double(),
        "topk": with_dead(TopK(D, LATENTS, k=3)).double(),
        "batchtopk": with_dead(BatchTopK(D, LATENTS, k=2.5)).double(),
        "matryoshka": MatryoshkaBatchTopK(D, LATENTS, k=3, widths=(10,)).double(),
    }


def with_dead(sae: TopK | BatchTopK | ShardedTopK) -> TopK | BatchTopK | ShardedTopK:
    """Half of all latents off, for the auxiliary loss to revive."""
    with torch.no_grad():
        sae.b_enc[::2] = -5.0
    return sae


def learnt() -> tuple[dict[str, dict[str, Tensor]], list[str]]:
    members = {name: Member(sae, lr=3e-3) for name, sae in every_kind().items()}
    reports = train_many(members, tensor_source(rows()), resampling=Resampling(at=(0.6,), rows=400), **MANY)
    return {name: member.sae.state_dict() for name, member in members.items()}, [*map(str, reports.values())]


def test_two_processes_that_share_batches_learn_what_one_learns(tmp_path: Path) -> None:
    def work() -> None:
        with processes(torch.device("cpu")) as here:
            torch.save(learnt(), tmp_path / f"{here.rank}.pt")

    do_in_processes(work)
    one, said = learnt()
    for rank in range(2):
        two, also = torch.load(tmp_path / f"{rank}.pt")
        assert also == said
        for name, state in one.items():
            for part, value in state.items():
                assert torch.allclose(two[name][part], value, atol=1e-6, rtol=0), (name, part)


def test_two_processes_share_the_models_passes_and_their_order_is_that_of_one(gpt2: Model, tmp_path: Path) -> None:
    texts = [f"fog {number} over bay {number * number}" for number in range(22)]

    def read() -> tuple[Tensor, int]:
        calls = []
        handle = gpt2.hf.transformer.wte.register_forward_hook(lambda *_: calls.append(1))
        sae = TopK(32, 48, k=4).double()
        source = activations_of(gpt2, texts, resid_post[1], batch_size=2)
        checkpoint = Checkpoint(tmp_path / "state" / os.environ.get("WORLD_SIZE", "1"), every=500)
        train(sae, source, checkpoint=checkpoint, **OPTIONS | {"tokens": 1_500, "buffer": 200, "batch_size": 50})
        handle.remove()
        return sae.W_dec.detach(), len(calls)

    def work() -> None:
        found = read()
        torch.save(found, tmp_path / f"{os.environ['RANK']}.pt")

    (tmp_path / "state").mkdir()
    do_in_processes(work)
    alone, passes = read()
    for rank in range(2):
        two, shared = torch.load(tmp_path / f"{rank}.pt")
        assert torch.allclose(two, alone, atol=1e-6, rtol=0)
        assert shared <= passes * 6 / 11 + 1  # of eleven batches the first process makes six


def test_latents_shared_by_two_processes_learn_what_they_learn_in_one(tmp_path: Path) -> None:
    x = rows()

    def work() -> None:
        with processes(torch.device("cpu")) as here:
            sae = ShardedTopK(D, LATENTS, k=3)
            with torch.no_grad():
                sae.b_enc[::2] = -5.0
            report = train(sae.double(), tensor_source(x), **OPTIONS, checkpoint=Checkpoint(tmp_path / "state"))
            assert sae.W_dec.shape == (LATENTS // 2, D)
            again = ShardedTopK(D, LATENTS, k=3, seed=5).double()
            train(again, tensor_source(x), **OPTIONS, checkpoint=Checkpoint(tmp_path / "state"))  # finds it done
            assert torch.equal(again.W_enc, sae.W_enc)
            latents = sae.encode(x[:50].double())
            torch.save((sae.double().whole().state_dict(), str(report), latents), tmp_path / f"{here.rank}.pt")

    do_in_processes(work)
    one = with_dead(TopK(D, LATENTS, k=3)).double()
    report = train(one, tensor_source(x), **OPTIONS)
    for rank in range(2):
        state, said, latents = torch.load(tmp_path / f"{rank}.pt")
        assert said == str(report)
        assert torch.allclose(latents, one.encode(x[:50].double()), atol=1e-6)
        for name, value in one.state_dict().items():
            assert torch.allclose(state[name].double(), value.double(), atol=1e-6, rtol=0), name
    assert evaluate(one, tensor_source(x)).explained_variance > 0.3


def test_a_batch_that_cannot_be_shared_and_latents_without_processes_are_refused() -> None:
    with pytest.raises(RuntimeError, match="none have joined: call init_process_group"):
        ShardedTopK(D, LATENTS, k=3)

    def work() -> None:
        with processes(torch.device("cpu")):
            with pytest.raises(ValueError, match="101 rows cannot be shared equally by 2 processes: choose"):
                train(TopK(D, LATENTS, k=3), tensor_source(rows()), **OPTIONS | {"batch_size": 101})
            with pytest.raises(ValueError, match="d_sae must be a multiple of the 2"):
                ShardedTopK(D, LATENTS + 1, k=3)
            sharded, before = ShardedTopK(D, LATENTS, k=3), torch.get_rng_state()
            with pytest.raises(ValueError, match="shared among processes, and resampling needs all in one: leave"):
                train(sharded, tensor_source(rows()), resampling=Resampling(), **OPTIONS)
            assert sharded.dataset is None and torch.equal(torch.get_rng_state(), before)

    do_in_processes(work)


def test_the_threshold_follows_the_least_latent_of_all_processes_where_one_of_them_keeps_none(tmp_path: Path) -> None:
    def work() -> None:
        with processes(torch.device("cpu")) as here, share_batch(here):
            sae = BatchTopK(D, LATENTS, k=1)
            size = (10.0, 1e-3)[here.rank]
            sae.objective().gradients(size * rows()[here.rank : 100 : 2], torch.zeros(LATENTS) > 0)
            torch.save(sae.threshold, tmp_path / f"{here.rank}.pt")

    do_in_processes(work)
    one = BatchTopK(D, LATENTS, k=1)
    x = rows()[:100].clone()
    x[0::2], x[1::2] = 10 * x[0::2], 1e-3 * x[1::2]
    one.objective().gradients(x, torch.zeros(LATENTS) > 0)
    assert float(one.threshold[0]) > 0
    for rank in range(2):
        assert torch.equal(torch.load(tmp_path / f"{rank}.pt"), one.threshold)
