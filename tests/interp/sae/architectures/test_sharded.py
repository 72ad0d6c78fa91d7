"""A dictionary whose latents processes share is drawn, kept, measured, searched and indexed as one process would."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hooks import Model
from hooks.errors import DamagedFile, InvalidArgument, InvalidType
from hooks.site import resid_post
from hooks.store.processes import processes
from interp.features import Concept, FeatureIndex, collect_evidence, find_similar, index, search
from interp.sae import (
    ShardedTopK,
    TopK,
    change_latents,
    decoder_rows,
    evaluate,
    load_shards,
    save,
    save_shards,
    tensor_source,
    train,
)
from interp.sae.architectures import initialisation
from interp.sae.architectures.initialisation import random_rows
from interp.scale import count_traffic, sharded_step_bytes
from tests.processes import do_in_processes

pytestmark = [pytest.mark.skipif(sys.platform != "linux", reason="forks"), pytest.mark.usefixtures("unchecked")]
D, LATENTS = 32, 48
TEXTS = [f"fog {number} over the bay {number * number}" for number in range(24)]


def in_processes(work: Any, world: int = 2) -> None:
    def one() -> None:
        with processes(torch.device("cpu")):
            work()

    do_in_processes(one, world)


def set_weights(sae: TopK | ShardedTopK, model: Model) -> None:
    """The same random weights whether shared or not, and where it belongs."""
    g = torch.Generator().manual_seed(3)
    b_enc, peaks = 0.1 * torch.randn(LATENTS, generator=g), torch.rand(LATENTS, generator=g)
    with torch.no_grad():
        sae.b_enc.copy_(sae.own.part(b_enc))
        sae.b_dec.copy_(torch.randn(D, generator=g))
        sae.max_activation.copy_(peaks)
    sae.site, sae.fingerprint, sae.model_name = resid_post[1], model.fingerprint, model.name


def test_each_process_draws_its_own_rows_alone_and_they_are_those_of_one_process(monkeypatch: Any) -> None:
    monkeypatch.setattr(initialisation, "BLOCK", 8)
    whole = random_rows(30, D, seed=4)
    for own in (range(0, 15), range(15, 30), range(7, 9), range(29, 30)):
        assert torch.equal(random_rows(30, D, seed=4, own=own), whole[own.start : own.stop])
    assert not torch.equal(whole[:8], whole[8:16])
    drawn: list[int] = []
    real = torch.randn
    monkeypatch.setattr(torch, "randn", lambda *size, **rest: (drawn.append(size[0]), real(*size, **rest))[1])
    random_rows(8_000, D, seed=4, own=range(4_000, 4_010))
    assert sum(drawn) == 16  # the two blocks that hold them, and none before


def test_a_shared_dictionary_begins_as_the_whole_one_at_any_number_of_processes() -> None:
    whole = TopK(D, LATENTS, k=4, seed=5)

    def work() -> None:
        sae = ShardedTopK(D, LATENTS, k=4, seed=5)
        assert torch.equal(sae.W_dec, sae.own.part(whole.W_dec))
        assert torch.equal(sae.W_enc.T, sae.own.part(whole.W_enc.T))
        assert sae.k_aux == whole.k_aux
        rows = decoder_rows(sae, [47, 0, 13])
        assert torch.equal(rows, whole.W_dec[[47, 0, 13]])

    in_processes(work)
    in_processes(work, world=4)


def test_shards_are_written_without_gathering_and_read_by_another_number_of_processes(
    gpt2: Model, tmp_path: Path
) -> None:
    def write() -> None:
        sae = ShardedTopK(D, LATENTS, k=4, seed=5)
        set_weights(sae, gpt2)
        sae.dataset = "fog"
        with count_traffic() as traffic:
            save_shards(sae, tmp_path / "kept")
        assert traffic.tensors == 0, traffic  # names and checksums only
        with pytest.raises(InvalidType, match="this process holds 24 of 48 latents, and this format"):
            save(sae, tmp_path / "one")

    in_processes(write)
    whole = TopK(D, LATENTS, k=4, seed=5)
    set_weights(whole, gpt2)

    def read() -> None:
        sae = load_shards(tmp_path / "kept")
        (held,) = sae.own.ranges
        part = slice(held.start, held.stop)
        assert torch.equal(sae.W_dec, whole.W_dec[part]) and torch.equal(sae.W_enc, whole.W_enc[:, part])
        assert torch.equal(sae.b_enc, whole.b_enc[part]) and torch.equal(sae.b_dec, whole.b_dec)
        assert torch.equal(sae.max_activation, whole.max_activation)
        assert (sae.sites, sae.fingerprint, sae.dataset, sae.k) == (whole.sites, whole.fingerprint, "fog", 4)

    in_processes(read, world=4)
    in_processes(read, world=3)
    in_processes(lambda: save_shards(load_shards(tmp_path / "kept"), tmp_path / "alone"), world=1)
    in_processes(lambda: torch.testing.assert_close(load_shards(tmp_path / "alone").W_dec, whole.W_dec), world=1)
    damaged = next(iter(sorted((tmp_path / "kept").glob("latents-*"))))
    data = bytearray(damaged.read_bytes())
    data[-5] ^= 1
    damaged.write_bytes(data)

    def refuse() -> None:
        torch.distributed.barrier()
        if torch.distributed.get_rank() == 0:
            with pytest.raises(DamagedFile, match=damaged.name):
                load_shards(tmp_path / "kept")

    in_processes(refuse)


def test_a_shared_dictionary_is_evaluated_searched_and_read_as_the_whole_one(gpt2: Model) -> None:
    x = torch.randn(200, D, generator=torch.Generator().manual_seed(1))
    labels = [number % 2 == 0 for number in range(len(TEXTS))]
    concept = Concept("even", TEXTS, labels)
    whole = TopK(D, LATENTS, k=4, seed=5)
    set_weights(whole, gpt2)

    def read(sae: TopK | ShardedTopK) -> tuple[Any, ...]:
        quality = evaluate(sae, tensor_source(x))
        found = search(sae, gpt2, concept)
        seen = collect_evidence(sae, gpt2, TEXTS, 40)
        near = find_similar(sae, sae.direction(40), top=5)
        return quality, str(found), str(seen), near, sae.direction(3).vector, sae.direction(40).vector

    expected = read(whole)

    def work() -> None:
        sae = ShardedTopK(D, LATENTS, k=4, seed=5)
        set_weights(sae, gpt2)
        quality, found, seen, near, *directions = read(sae)
        assert torch.equal(quality.firings, expected[0].firings) and quality.l0 == expected[0].l0
        assert quality.explained_variance == pytest.approx(expected[0].explained_variance, abs=1e-6)
        assert found == expected[1] and seen == expected[2]
        assert [i for i, _ in near.latents] == [i for i, _ in expected[3].latents]
        assert near.chance == pytest.approx(expected[3].chance, abs=1e-6)
        assert all(torch.equal(a, b) for a, b in zip(directions, expected[4:], strict=True))
        with pytest.raises(InvalidType, match="a change of its latents needs all of them"):
            change_latents(sae, lambda f: f)
        with pytest.raises(InvalidArgument, match="dense, would be .* GB: take encode_sparse"):
            sae.encode(torch.empty(1, D).expand(10_000_000, D))

    in_processes(work)


def test_a_shared_dictionary_is_indexed_as_the_whole_one_row_for_row(gpt2: Model, tmp_path: Path) -> None:
    whole = TopK(D, LATENTS, k=4, seed=5)
    set_weights(whole, gpt2)
    alone = index(whole, gpt2, TEXTS, tmp_path / "one", top=3, sampled=3, context=2, batch_size=5)

    def work() -> None:
        sae = ShardedTopK(D, LATENTS, k=4, seed=5)
        set_weights(sae, gpt2)
        for _ in range(2):  # the second finds it done
            found = index(sae, gpt2, TEXTS, tmp_path / "two", top=3, sampled=3, context=2, batch_size=5)
            for name in ("latents", "examples", "coactivation"):
                assert found.table(name).to_pylist() == alone.table(name).to_pylist(), name

    in_processes(work)
    assert not [*(tmp_path / "two").glob("unfinished*")]
    assert str(FeatureIndex.open(tmp_path / "two").record(40)) == str(alone.record(40))


@pytest.mark.parametrize("world", [2, 4])
def test_the_bytes_of_a_step_are_those_of_the_formula(world: int) -> None:
    n, d, k, latents, k_aux = 96, 24, 3, 64, 5
    x = torch.randn(n * 6, d, generator=torch.Generator().manual_seed(1))

    def steps(dead: bool) -> float:
        """Received by this process in a step, of batches after the first."""
        sae = ShardedTopK(d, latents, k=k, k_aux=k_aux)
        objective = sae.objective()
        objective.initialise(x)
        off: Tensor = torch.zeros(latents, dtype=torch.bool)
        off[::2] = dead
        with count_traffic() as traffic:
            for rows in x.split(n):
                objective.gradients(rows, off)
                objective.gradient_norm()
        return traffic.received / 6

    def work() -> None:
        for dead in (False, True):
            formula = sharded_step_bytes(n, d, k, world, k_aux=k_aux if dead else 0)
            assert steps(dead) == pytest.approx(formula, rel=0.01), dead

    in_processes(work, world)


def test_each_further_step_of_training_sends_what_the_formula_says() -> None:
    n, d, k, latents = 100, 24, 3, 64
    x = torch.randn(2_000, d, generator=torch.Generator().manual_seed(1))

    def received(tokens: int) -> float:
        sae = ShardedTopK(d, latents, k=k)
        with count_traffic() as traffic:
            train(sae, tensor_source(x), tokens=tokens, batch_size=n, buffer=600, dead_after=10**9, progress=False)
        return traffic.received

    def work() -> None:
        more = received(8_000) - received(4_000)
        step = sharded_step_bytes(n, d, k, 2)
        evaluated = step - 4 * (d + 1)  # the report reads an eighth as many rows, and has no gradients
        assert more == pytest.approx(40 * step + 5 * evaluated, rel=0.01)

    in_processes(work)


@pytest.mark.parametrize("dead_share", [0.0, 0.5, 1.0])
def test_the_gradients_of_all_processes_are_those_that_autograd_has_of_the_whole_dictionarys_loss(
    gpt2: Model, dead_share: float
) -> None:
    """With latents that are dead and without, of rows far from 0; the loss, what is counted and the norm as well."""
    g = torch.Generator().manual_seed(1)
    x = 3 + torch.randn(96, D, generator=g)
    dead = torch.rand(LATENTS, generator=g) < dead_share
    whole = TopK(D, LATENTS, k=4, k_aux=6, seed=5)
    set_weights(whole, gpt2)
    objective = whole.objective()
    objective.initialise(x)
    step = objective.loss(x, dead)
    step.loss.backward()
    grads = {name: p.grad for name, p in whole.named_parameters() if p.grad is not None}
    norm = torch.cat([grad.flatten() for grad in grads.values()]).norm()

    def work() -> None:
        sae = ShardedTopK(D, LATENTS, k=4, k_aux=6, seed=5)
        set_weights(sae, gpt2)
        shared = sae.objective()
        shared.initialise(x)
        assert float(sae.get_buffer("variance")) == pytest.approx(float(whole.get_buffer("variance")), rel=1e-5)
        mine, (held,) = shared.gradients(x, dead), sae.own.ranges
        own = slice(held.start, held.stop)
        parts = {"W_dec": grads["W_dec"][own], "W_enc": grads["W_enc"][:, own], "b_enc": grads["b_enc"][own]}
        for name, expected in (parts | {"b_dec": grads["b_dec"]}).items():
            torch.testing.assert_close(getattr(sae, name).grad, expected, rtol=1e-4, atol=1e-6, msg=name)
        for name in ("loss", "squared_error", "l0"):
            assert float(getattr(mine, name)) == pytest.approx(getattr(step, name).item(), rel=1e-5), name
        torch.testing.assert_close(mine.largest, step.largest, rtol=1e-5, atol=1e-6)
        assert float(shared.gradient_norm()) == pytest.approx(float(norm), rel=1e-5)

    in_processes(work)
