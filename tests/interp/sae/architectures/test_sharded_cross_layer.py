"""A cross-layer transcoder whose latents processes share is drawn, trained, kept and measured as one process would."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hooks import Model
from hooks.errors import DamagedFile, InvalidArgument, WrongState
from hooks.site import mlp_in, mlp_out
from hooks.store.processes import processes
from interp.features import Concept, collect_evidence, find_similar, index, search
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
from interp.scale import count_traffic, cross_layer_step_bytes
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
        with pytest.raises(InvalidArgument, match="k is 49; it must be above 0 and not above d_sae = 48"):
            ShardedCrossLayerTranscoder(D, LATENTS, L, k=49)
        clt, source = made(), tensor_source(rows())
        clt.normalisation = normalise_source(source, rms_scaling(source)).normalisation
        with pytest.raises(InvalidArgument, match="normalised activations"):
            save_cross_layer_shards(clt, "nowhere")
        with pytest.raises(InvalidArgument, match="dense, would be .* GB: take encode_sparse"):
            clt.encode(torch.empty(1, L, D).expand(10_000_000, L, D))

    in_processes(work)


def test_a_normalisation_is_folded_into_each_share_as_into_the_whole() -> None:
    def work() -> None:
        clt = made(skip=True)
        normalised = normalise_source(source := tensor_source(rows()), rms_scaling(source))
        clt.normalisation = normalised.normalisation
        mine, whole = fold_normalisation(clt).whole().double(), fold_normalisation(clt.whole().double())
        for name, weights in whole.state_dict().items():
            torch.testing.assert_close(mine.state_dict()[name], weights, rtol=1e-6, atol=1e-6)

    in_processes(work)


@pytest.mark.parametrize(("world", "k"), [(2, 4), (2, 0.5), (4, 3)])
def test_the_largest_of_a_batch_are_chosen_among_all_processes_latents(world: int, k: float) -> None:
    """One process has nearly all of them, and another none; the code, loss, thresholds and gradients are the same."""

    def work() -> None:
        clt = made(k=k)
        with torch.no_grad():
            clt.b_enc += 2.0 if clt.rank == 0 else -2.0
        whole = clt.whole().double()
        one, other = clt.objective(), whole.objective()
        for objective in (one, other):
            objective.initialise(rows())
        dead = torch.zeros(LATENTS, dtype=torch.bool)
        for seed in range(3):
            batch = rows() + seed
            a, b = one.gradients(batch, dead), other.gradients(batch, dead)
            assert float(a.l0) == float(b.l0) == pytest.approx(k)
            for name in ("loss", "squared_error", "largest"):
                torch.testing.assert_close(getattr(a, name), getattr(b, name))
            torch.testing.assert_close(clt.threshold, clt.own.part(whole.threshold.flatten()).view_as(clt.threshold))
            assert float(clt.threshold.detach().max()) > 0
            for name in ("W_enc", "b_enc"):
                theirs = whole.get_parameter(name).grad
                assert theirs is not None
                torch.testing.assert_close(
                    clt.get_parameter(name).grad.flatten(0, 1), clt.own.part(theirs.flatten(0, 1))
                )
        one.settle([rows(), rows() + 1])
        other.settle([rows(), rows() + 1])
        torch.testing.assert_close(clt.threshold.detach().max(), whole.threshold.detach().max())

    in_processes(work, world)


def test_training_by_k_in_two_processes_ends_as_in_one(tmp_path: Path) -> None:
    source = tensor_source(rows(800))
    options: dict[str, Any] = {"tokens": 3_000, "batch_size": 100, "buffer": 800, "progress": False, "lr": 1e-3}

    def learn() -> None:
        clt = made(k=4)
        train(clt, source, **options)
        save_cross_layer_shards(clt, tmp_path / f"kept-{clt.world}")
        read = load_cross_layer_shards(tmp_path / f"kept-{clt.world}")
        assert read.k == 4 and torch.equal(read.threshold, clt.threshold.float())
        torch.save(clt.whole().state_dict(), tmp_path / f"{clt.world}-{clt.rank}.pt")

    for world in (1, 2):
        in_processes(learn, world)
    one, two = (torch.load(tmp_path / name) for name in ("1-0.pt", "2-1.pt"))
    assert float(one["threshold"].max()) > 0
    for name in one:
        torch.testing.assert_close(two[name], one[name], atol=1e-6, rtol=1e-5)


WIDTH, LAYERS = 32, 2
TEXTS = [f"fog {number} over the bay {number * number}" for number in range(24)]


def read_of(model: Model, clt: CrossLayerTranscoder) -> None:
    """Weights for the tiny model, the same whether shared or not, and where it belongs."""
    g = torch.Generator().manual_seed(3)
    b_enc, peaks = 0.1 * torch.randn(LATENTS, generator=g), 0.5 + torch.rand(LATENTS, generator=g)
    with torch.no_grad():
        clt.b_enc.copy_(clt.own.part(b_enc).view_as(clt.b_enc))
        clt.max_activation.copy_(peaks)
    clt.sites = (*(mlp_in[i] for i in range(LAYERS)), *(mlp_out[i] for i in range(LAYERS)))
    clt.fingerprint, clt.model_name = model.fingerprint, model.name


@contextmanager
def sent() -> Iterator[dict[str, list[tuple[int, ...]]]]:
    """The shapes of what this process gives to others, by how."""
    shapes: dict[str, list[tuple[int, ...]]] = {"all_gather": [], "all_reduce": []}
    real_gather, real_reduce = torch.distributed.all_gather, torch.distributed.all_reduce

    def gather(parts: list[Tensor], x: Tensor, **rest: Any) -> Any:
        shapes["all_gather"].append(tuple(x.shape))
        return real_gather(parts, x, **rest)

    def reduce(x: Tensor, *args: Any, **rest: Any) -> Any:
        shapes["all_reduce"].append(tuple(x.shape))
        return real_reduce(x, *args, **rest)

    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(torch.distributed, "all_gather", gather)
        changed.setattr(torch.distributed, "all_reduce", reduce)
        yield shapes


def assert_same(a: object, b: object) -> None:
    """Equal, numbers to rounding: a product by fewer columns may be summed in another order."""
    if isinstance(a, dict) and isinstance(b, dict):
        assert a.keys() == b.keys()
        a, b = [*a.values()], [*b.values()]
    if isinstance(a, list) and isinstance(b, list):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            assert_same(one, other)
    else:
        assert a == (pytest.approx(b, rel=1e-6) if isinstance(b, float) else b)


@pytest.mark.parametrize("world", [2, 4])
def test_a_shared_transcoder_is_searched_and_indexed_as_the_whole_one_row_for_row(
    gpt2: Model, tmp_path: Path, world: int
) -> None:
    concept = Concept("even", TEXTS, [number % 2 == 0 for number in range(len(TEXTS))])

    def read(clt: CrossLayerTranscoder, folder: Path) -> tuple[Any, ...]:
        made_of = index(clt, gpt2, TEXTS, folder, top=3, sampled=3, context=2, batch_size=5)
        tables = [made_of.table(name).to_pylist() for name in ("latents", "examples", "coactivation")]
        directions = [clt.direction(latent, 1) for latent in (3, 20, 47)]
        near = [find_similar(clt, one, top=5) for one in directions]
        evidence = [str(collect_evidence(clt, gpt2, TEXTS, latent)) for latent in (3, 47)]
        return tables, str(search(clt, gpt2, concept, permutations=20)), directions, near, evidence

    def alone() -> None:
        clt = ShardedCrossLayerTranscoder(WIDTH, LATENTS, LAYERS, initial_threshold=0.1, seed=2)
        read_of(gpt2, clt)
        torch.save(clt.whole().state_dict(), tmp_path / "whole.pt")

    in_processes(alone, 1)
    whole = CrossLayerTranscoder(WIDTH, LATENTS, LAYERS, initial_threshold=0.1).double()
    whole.load_state_dict(torch.load(tmp_path / "whole.pt"))
    read_of(gpt2, whole)
    tables, found, directions, near, evidence = read(whole, tmp_path / "one")

    def work() -> None:
        clt = ShardedCrossLayerTranscoder(WIDTH, LATENTS, LAYERS, initial_threshold=0.1, seed=2).double()
        read_of(gpt2, clt)
        with sent() as shapes:
            mine = read(clt, tmp_path / "shared")
        assert WIDTH not in {shape[-1] for shape in shapes["all_gather"] if shape}  # codes, and no weights
        assert {shape[0] for shape in shapes["all_reduce"] if shape} <= {1, 2, 3}  # a few decoder rows at once
        again = index(clt, gpt2, TEXTS, tmp_path / "shared", top=3, sampled=3, context=2, batch_size=5)
        assert [again.table(name).to_pylist() for name in ("latents", "examples", "coactivation")] == mine[0]
        assert_same(mine[0], tables)
        assert mine[1] == found and mine[4] == evidence
        assert all(torch.equal(a.vector, b.vector) for a, b in zip(mine[2], directions, strict=True))
        assert [one.site for one in mine[2]] == [one.site for one in directions]
        for a, b in zip(mine[3], near, strict=True):
            assert [i for i, _ in a.latents] == [i for i, _ in b.latents]
            assert a.chance == pytest.approx(b.chance, abs=1e-6)

    in_processes(work, world)
    assert not [*(tmp_path / "shared").glob("unfinished*")]


@pytest.mark.parametrize("world", [2, 4])
def test_the_bytes_of_a_step_and_of_a_code_are_those_of_the_formulas(world: int) -> None:
    n, d, layers, latents = 96, 24, 3, 960
    batch = torch.randn(n, 2 * layers, d, generator=torch.Generator().manual_seed(1))

    def work() -> None:
        for k in (None, 6):
            clt = ShardedCrossLayerTranscoder(d, latents, layers, k=k, initial_threshold=0.5)
            objective = clt.objective()
            objective.initialise(batch)
            with count_traffic() as traffic:
                objective.gradients(batch, torch.zeros(latents, dtype=torch.bool))
                objective.gradient_norm()
            formula = cross_layer_step_bytes(n, d, layers, latents, world, k=k or 0)
            assert traffic.received == pytest.approx(formula, rel=0.01 if k is None else 0.05), (k, traffic)
        x = batch[:, :layers]
        dense = clt.whole().encode(x).unflatten(1, (layers, world, -1)) > 0
        fullest = int(dense.sum((1, 3)).max())
        with count_traffic() as traffic:
            clt.encode_sparse(x)
        assert traffic.received == pytest.approx(8 * n * fullest * (world - 1), rel=0.01), traffic

    in_processes(work, world)
