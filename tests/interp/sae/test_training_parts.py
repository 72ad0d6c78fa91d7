"""Schedules, resampling, what a run tells, and how it stops on bad activations."""

import builtins
import csv
import json
import math
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from hooks import ActivationStore, Model, harvest
from hooks.errors import InvalidArgument, InvalidType
from hooks.position import index
from hooks.site import resid_post
from hooks.store import separate
from hooks.store.processes import Process
from interp.sae import (
    SAE,
    CSVWriter,
    Gated,
    JSONLWriter,
    JumpReLU,
    Member,
    Resampling,
    Schedule,
    Source,
    Standard,
    TensorBoard,
    TopK,
    TrainReport,
    Transcoder,
    WeightsAndBiases,
    evaluate,
    expected_norm,
    mean_centring,
    read_activations,
    tensor_source,
    train,
    whitening,
)
from interp.sae.architectures.gated import GatedObjective
from interp.sae.architectures.objective import Step, measure_variance
from interp.sae.architectures.sae import check_count
from interp.sae.architectures.topk import TopKObjective
from interp.sae.data.store_source import _check_finite
from interp.sae.training.adam import Adam
from interp.sae.training.history import History
from interp.sae.training.learner import Learner
from interp.sae.training.plan import Plan
from interp.sae.training.resample import resample
from tests.interp.sae.planted import activations, features

OPTIONS = {"tokens": 3_000, "batch_size": 100, "progress": False}


def rows(n: int = 2_000) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    return activations(features(24, 16, g), n, 0.1, g)


def test_a_linear_rate_rises_stays_and_falls_to_nothing() -> None:
    rate = Schedule(warm_up=0.1, decay=0.5).rate
    assert [rate(t) for t in (0.1, 0.3, 0.5, 1.0)] == [1, 1, 1, 0]
    assert rate(0.05) == pytest.approx(0.52) and 0 < rate(0) < 0.03
    assert rate(0.75) == pytest.approx(0.5) and rate(0.9) == pytest.approx(0.2)


def test_a_cosine_falls_as_a_cosine_and_a_constant_rate_does_not() -> None:
    cosine = Schedule(warm_up=0, decay=1, shape="cosine").rate
    assert all(cosine(i / 10) == pytest.approx((1 + math.cos(math.pi * i / 10)) / 2) for i in range(11))
    assert {Schedule(warm_up=0, decay=0).rate(i / 10) for i in range(11)} == {1.0}


def test_the_penalty_rises_while_the_run_warms_up() -> None:
    assert [Schedule(sparsity_warm_up=0.5).sparsity(t) for t in (0.1, 0.5, 1.0)] == [0.2, 1, 1]
    assert Schedule(sparsity_warm_up=0).sparsity(0.0) == 1
    seen = []

    class Watching(Gated):
        def objective(self) -> GatedObjective:
            return WatchingObjective(self)

    class WatchingObjective(GatedObjective):
        def gradients(self, rows: Any, dead: Any) -> Any:
            seen.append(self.sparsity_share)
            return super().gradients(rows, dead)

    train(Watching(16, 32), tensor_source(rows()), schedule=Schedule(sparsity_warm_up=0.5), **OPTIONS)
    assert seen == pytest.approx([min(1, i / 15) for i in range(1, 31)])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"warm_up": 2}, r"warm_up is 2; it is a share of the run, from 0 to 1"),
        ({"warm_up": 0.6, "decay": 0.6}, r"together they are longer than the run"),
        ({"shape": "cosin"}, r"no decay has the shape 'cosin'; did you mean 'cosine'"),
    ],
)
def test_a_schedule_that_cannot_be_kept_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Schedule(**given)


def test_a_tiny_rate_changes_no_weight_and_clipping_bounds_what_a_constant_one_does() -> None:
    sae = TopK(16, 32, k=3)
    before = sae.W_dec.detach().clone()
    train(sae, tensor_source(rows()), lr=1e-12, **OPTIONS)
    assert torch.allclose(sae.W_dec, before, atol=1e-6)
    loose, tight = (TopK(16, 32, k=3) for _ in range(2))
    for sae, clip in ((loose, None), (tight, 1e-12)):  # Adam's epsilon is then larger than the gradient
        train(sae, tensor_source(rows()), lr=1e-3, clip=clip, **OPTIONS)
    moved, still = (float((sae.W_dec - before).norm().detach()) for sae in (loose, tight))
    assert still < 0.02 * moved


def resampled(sae: SAE, x: torch.Tensor, dead: torch.Tensor) -> Adam:
    optimiser = Adam(sae.parameters(), lr=1e-3)
    sae.objective().gradients(x, torch.zeros(sae.d_sae, dtype=torch.bool))
    optimiser.step()
    assert resample(sae.objective(), optimiser, x, dead, torch.Generator().manual_seed(0)) == int(dead.sum())
    return optimiser


def test_dead_latents_begin_again_at_activations_and_the_living_are_left() -> None:
    x, sae = rows(), JumpReLU(16, 32)
    dead = torch.zeros(32, dtype=torch.bool)
    dead[5:9] = True
    twin = JumpReLU(16, 32)
    twin_optimiser = Adam(twin.parameters(), lr=1e-3)
    twin.objective().gradients(x, ~dead)
    twin_optimiser.step()
    optimiser = resampled(sae, x, dead)
    about = torch.nn.functional.normalize(x - x.mean(0), dim=1)
    cosines = torch.nn.functional.normalize(sae.W_dec[dead].detach(), dim=1) @ about.T
    assert torch.allclose(cosines.amax(1), torch.ones(4), atol=1e-5)
    encoders = sae.W_enc.detach().norm(dim=0)
    assert torch.allclose(encoders[dead], 0.2 * encoders[~dead].mean().expand(4), rtol=1e-4)
    assert not bool(sae.b_enc[dead].any()) and torch.allclose(sae.threshold[dead], sae.threshold[~dead].mean())
    for (name, ours), theirs in zip(sae.named_parameters(), twin.parameters(), strict=True):
        axis = next(i for i, size in enumerate((*ours.shape, 32)) if size == 32)
        if axis < ours.ndim:
            keep = (~dead).nonzero().flatten()
            assert torch.equal(ours.index_select(axis, keep), theirs.index_select(axis, keep)), name
            for moments in optimiser.moments(ours):
                assert bool(moments.any()) or name == "b_enc"
                assert not bool(moments.index_select(axis, dead.nonzero().flatten()).any()), name


@pytest.mark.parametrize("kind", [Standard, TopK, Transcoder])
def test_resampling_leaves_the_decoders_bias_also_where_there_are_as_many_latents_as_dimensions(kind: Any) -> None:
    sae = kind(16, 16, **({"k": 4} if kind is TopK else {"coefficient": 1.0}))
    x = rows().repeat(1, 2) if kind is Transcoder else rows()
    with torch.no_grad():
        sae.b_dec.fill_(3.0)
    optimiser = Adam(sae.parameters(), lr=0.0)
    resample(sae.objective(), optimiser, x, torch.arange(16) < 5, torch.Generator().manual_seed(0))
    assert bool((sae.b_dec == 3).all()) and not bool(sae.b_enc[:5].any())


def test_new_decoder_rows_have_the_mean_length_of_the_living() -> None:
    x, sae = rows(), Standard(16, 32)
    with torch.no_grad():
        sae.W_dec *= torch.linspace(0.5, 4, 32)[:, None]
    dead = torch.arange(32) % 5 == 0
    resample(sae.objective(), Adam(sae.parameters(), lr=0.0), x, dead, torch.Generator().manual_seed(0))
    lengths = sae.W_dec.detach().norm(dim=1)
    assert torch.allclose(lengths[dead], lengths[~dead].mean().expand(int(dead.sum())))


def test_activations_are_drawn_by_the_square_of_their_loss() -> None:
    sae = Standard(2, 4_000)
    with torch.no_grad():
        sae.b_enc.fill_(-100)  # nothing fires, so the loss of a row is its squared length
    x, dead = torch.tensor([[1.0, 0.0], [0.0, 2**0.5]]), torch.arange(4_000) > 0
    resample(sae.objective(), Adam(sae.parameters(), lr=0.0), x, dead, torch.Generator().manual_seed(0))
    share = float((sae.W_dec[1:, 1] > 0).double().mean())
    assert share == pytest.approx(4 / 5, abs=0.03)


def test_a_latent_that_began_again_is_not_dead_until_it_was_silent_as_long_again() -> None:
    sae, x = TopK(16, 32, k=3), rows(100)
    plan = Plan(tokens=1_000, batch_size=100, dead_after=5_000, resampling=Resampling(at=(0.5,)))
    learner = Learner(sae, 1e-3, measure_variance(sae, x), plan, steps=10, here=Process(0, 1))
    learner.history.silent[:5] = 6_000
    with torch.no_grad():
        sae.b_enc[:5] = -100.0
    learner.step(4, x, lambda n, _: x[:n])
    assert bool(learner.history.dead[:5].all())
    learner.step(5, x, lambda n, _: x[:n])
    assert int(learner.history.silent.max()) <= 200


def course_of(*largest: float, settled: bool, n: int = 100) -> History:
    course, nothing = History(len(largest), torch.ones(()), dead_after=1_000, every=10), torch.zeros(())
    course.add(Step(nothing, nothing, nothing, torch.tensor(largest)), n, settled=settled)
    return course


def test_in_a_run_shorter_than_dead_after_the_dead_are_those_that_never_fired() -> None:
    assert course_of(1.0, 0.0, 0.0, 2.0, settled=False).dead_share == 0.5
    long = course_of(1.0, 0.0, 0.0, 2.0, settled=False, n=1_500)
    nothing = torch.zeros(())
    long.add(Step(nothing, nothing, nothing, torch.tensor([0.0, 3.0, 0.0, 0.0])), 900, settled=False)
    assert long.dead_share == 0.25  # one alone was silent for 1,000 tokens


def test_a_report_says_of_how_many_tokens_it_speaks_and_that_they_were_trained_on() -> None:
    quality = evaluate(TopK(4, 8, k=2), tensor_source(rows()[:, :4]))
    short = TrainReport(quality, (), tokens=2_048, dead_share=0.5, dead_after=100_000)
    assert short.silent_over == 2_048 and "50.0% of latents silent in all 2,048 tokens" in str(short)
    assert "of the training tokens, not held out" in str(short)
    long = TrainReport(quality, (), tokens=200_000, dead_share=0.5, dead_after=100_000)
    assert long.silent_over == 100_000 and "silent in the last 100,000 tokens" in str(long)


def test_a_latent_is_silent_for_the_tokens_since_the_batch_it_fired_in_and_not_one_more() -> None:
    course, nothing = course_of(1.0, 0.0, settled=False), torch.zeros(())
    assert course.silent.tolist() == [0, 100]
    course.add(Step(nothing, nothing, nothing, torch.zeros(2)), 899, settled=False)
    assert course.silent.tolist() == [899, 999] and not bool(course.dead.any())
    course.add(Step(nothing, nothing, nothing, torch.zeros(2)), 1, settled=False)
    assert course.dead.tolist() == [False, True]


def test_largest_activations_count_once_the_weights_have_settled() -> None:
    assert not bool(course_of(1.0, 2.0, settled=False).largest.any())
    assert course_of(1.0, 2.0, settled=True).largest.tolist() == [1.0, 2.0]


def test_the_rate_is_gaos_by_the_square_root_of_the_latents_and_betas_are_the_papers() -> None:
    assert Member(TopK(1, 2**14, k=1)).rate == pytest.approx(2e-4)
    assert Member(TopK(4, 2**10, k=1)).rate == pytest.approx(8e-4)
    betas = {
        kind: Learner(kind(4, 8), 1e-3, torch.ones(()), Plan(), 10, Process(0, 1)).optimiser.param_groups[0]["betas"]
        for kind in (Gated, JumpReLU, Standard)
    }
    assert betas == {Gated: (0.0, 0.999), JumpReLU: (0.0, 0.999), Standard: (0.9, 0.999)}


def test_an_activation_that_is_explained_a_thousand_times_worse_is_where_they_begin() -> None:
    x, sae = rows(), Gated(16, 32)
    x[77] = 40 * torch.nn.functional.normalize(torch.randn(16, generator=torch.Generator().manual_seed(5)), dim=0)
    dead = torch.zeros(32, dtype=torch.bool)
    dead[:2] = True
    sae.b_gate.data.fill_(-100.0)  # nothing fires, so the loss of a row is its length
    resampled(sae, x, dead)
    worst = torch.nn.functional.normalize(x[77] - x.mean(0), dim=0)
    assert float((sae.W_dec[dead].detach() @ worst).max()) > 0.999


def test_resampling_revives_what_plain_training_leaves_dead() -> None:
    shares = []
    for resampling in (None, Resampling(at=(0.2, 0.4))):
        sae = Gated(16, 40, coefficient=0.05)
        with torch.no_grad():
            for bias in (sae.b_gate, sae.b_mag):
                bias[20:] = -3.0
        options = {"tokens": 20_000, "batch_size": 100, "dead_after": 1_000, "lr": 3e-3, "progress": False}
        shares.append(train(sae, tensor_source(rows()), resampling=resampling, **options).dead_share)
    assert shares[0] >= 0.45 and shares[1] < 0.1


def test_a_transcoders_new_latents_read_the_one_side_and_write_the_other() -> None:
    g = torch.Generator().manual_seed(1)
    x, sae = torch.randn(300, 14, generator=g), Transcoder(8, 20, d_out=6)
    dead = torch.arange(20) < 3
    resampled(sae, x, dead)
    reads, writes = (torch.nn.functional.normalize(part - part.mean(0), dim=1) for part in (x[:, :8], x[:, 8:]))
    unit = torch.nn.functional.normalize
    found = (unit(sae.W_enc.T[dead].detach(), dim=1) @ reads.T).argmax(1)
    assert torch.equal(found, (unit(sae.W_dec[dead].detach(), dim=1) @ writes.T).argmax(1))


def test_a_table_and_lines_of_json_hold_the_curve(tmp_path: Path) -> None:
    writers = [CSVWriter(tmp_path / "a.csv"), JSONLWriter(tmp_path / "a.jsonl")]
    report = train(TopK(16, 32, k=3), tensor_source(rows()), callbacks=writers, **OPTIONS)
    with (tmp_path / "a.csv").open(newline="") as file:
        table = [*csv.DictReader(file)]
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    for said in (table, lines):
        assert [(int(p["tokens"]), float(p["loss"]), float(p["l0"])) for p in said] == [
            (p.tokens, p.loss, p.l0) for p in report.curve
        ]
    for writer in writers:  # a line that a dying process left torn, and one later than the checkpoint
        with writer.path.open("a") as file:
            file.write('{"tok' if writer.path.suffix == ".jsonl" else ",31")
        writer.begin(("",), 2_000)
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 21
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 20


class Recording:
    """Replaces the writers of TensorBoard and Weights & Biases; keeps what it is given."""

    def __init__(self) -> None:
        self.said: list[Any] = []

    def __call__(self, *args: Any, **options: Any) -> "Recording":
        self.said.append((args, options))
        return self

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.said.append((name, value, step))

    def log(self, figures: dict[str, float], step: int) -> None:
        self.said.append((figures, step))

    def close(self) -> None:
        self.said.append("closed")

    finish = close


def test_tensorboard_is_given_every_figure_by_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, record = ModuleType("torch.utils.tensorboard"), Recording()
    module.SummaryWriter = record  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    report = train(TopK(16, 32, k=3), tensor_source(rows()), callbacks=[TensorBoard(tmp_path)], **OPTIONS)
    assert record.said[0] == ((str(tmp_path),), {"purge_step": None}) and record.said[-1] == "closed"
    assert [said[1:] for said in record.said[1:-1] if said[0] == "loss"] == [(p.loss, p.tokens) for p in report.curve]
    assert {said[0] for said in record.said[1:-1]} == {"loss", "explained_variance", "l0", "dead_share"}


def test_what_tensorboard_reads_back_is_the_curve(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    report = train(TopK(16, 32, k=3), tensor_source(rows()), callbacks=[TensorBoard(tmp_path)], **OPTIONS)
    read = reader.EventAccumulator(str(tmp_path))
    read.Reload()
    for figure in ("loss", "explained_variance", "l0", "dead_share"):
        points = [(p.tokens, pytest.approx(getattr(p, figure), rel=1e-6)) for p in report.curve]
        assert [(event.step, event.value) for event in read.Scalars(figure)] == points


def test_weights_and_biases_is_offline_unless_set_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = Recording()
    double = SimpleNamespace(init=record, Settings=lambda **options: options)
    monkeypatch.setitem(sys.modules, "wandb", double)
    writer = WeightsAndBiases("planted", run="one", folder=tmp_path)
    report = train(TopK(16, 32, k=3), tensor_source(rows()), callbacks=[writer], **OPTIONS)
    asked = record.said[0][1]
    assert (asked["project"], asked["mode"], asked["id"], asked["resume"]) == ("planted", "offline", "one", "allow")
    assert [(said[0]["l0"], said[1]) for said in record.said[1:-1]] == [(p.l0, p.tokens) for p in report.curve]
    assert record.said[-1] == "closed"


@pytest.mark.parametrize(
    ("writer", "package"),
    [(TensorBoard("a"), "tensorboard"), (WeightsAndBiases("a"), "wandb")],
    ids=["tensorboard", "wandb"],
)
def test_a_tracker_that_is_not_installed_names_the_extra(
    writer: Any, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if package in name:
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=rf"'{package}', which is not installed: pip install 'interp-workbench\[trac"):
        writer.begin(("",), 0)


def test_the_bar_shows_loss_l0_explained_variance_the_dead_and_the_rate(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hooks.progress.DELAY", 0.0)
    train(TopK(16, 32, k=3), tensor_source(rows()), **OPTIONS | {"progress": True})
    shown = capsys.readouterr().err.split("\r")[-1]
    for word in ("3.00k", "tokens/s", "loss 0.", "L0 ", "EV 0.", "dead "):
        assert word in shown
    train(TopK(16, 32, k=3), tensor_source(rows()), **OPTIONS)
    assert capsys.readouterr() == ("", "")


def test_nan_in_a_store_stops_with_its_batch_site_row_document_and_token(gpt2: Model, tmp_path: Path) -> None:
    store = harvest(gpt2, [f"fog {number}" for number in range(9)], [resid_post[1]], tmp_path, dtype=torch.float32)

    def spoilt(number: int, sites: Any, real: Any = store.chunk) -> Any:
        rows = real(number, sites)
        values = rows.values[resid_post[1]].clone()
        values[11] = torch.nan  # rows 0 to 4 are the first document's
        return type(rows)({resid_post[1]: values}, rows.ids, rows.number)

    opened = ActivationStore(tmp_path)
    opened.chunk = spoilt  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ValueError, match=r"at resid_post\.1 in batch 0, row 11 of .*document 2, token 1 of it, id \d+"):
        train(TopK(32, 48, k=4), read_activations(opened, resid_post[1]), **OPTIONS)


def test_nan_in_a_store_of_some_tokens_is_at_a_row_of_its_document_and_at_no_token(gpt2: Model, tmp_path: Path) -> None:
    how = {"packing": separate(), "at": index(1) | index(3), "dtype": torch.float32}
    store = harvest(gpt2, [f"fog {number}" for number in range(9)], [resid_post[1]], tmp_path, **how)
    rows = store[:]
    spoilt = type(rows)({resid_post[1]: rows[resid_post[1]].clone()}, rows.ids, rows.number)
    spoilt.values[resid_post[1]][3] = torch.nan
    with pytest.raises(ValueError, match=r"row 3 of .*document 1, row 1 of it, id \d+"):
        _check_finite(store, spoilt, (resid_post[1],), 0)


def test_nan_from_a_source_of_ones_own_stops_with_its_batch_and_row() -> None:
    x = rows(40_000)
    x[39_000] = torch.inf
    source = Source(lambda: iter(x.split(1_000)), "my own", (resid_post[2],))
    with pytest.raises(ValueError, match=r"batch \d+: activations at resid_post\.2 hold NaN or infinity, first in row"):
        train(TopK(16, 32, k=3), source, tokens=60_000, batch_size=100, buffer=2_000, progress=False)


def test_a_loss_that_is_not_finite_stops_the_run() -> None:
    sae = Gated(16, 32)
    with torch.no_grad():
        sae.W_enc.mul_(1e30)
    with pytest.raises(ValueError, match=r"batch \d+: the loss is (nan|inf) after .* tokens: training diverged"):
        train(sae, tensor_source(rows()), **OPTIONS)


def test_weights_that_the_last_step_makes_nan_end_in_no_report() -> None:
    class Spoilt(TopK):
        steps = 0

        def objective(self) -> TopKObjective:
            return SpoiltObjective(self)

    class SpoiltObjective(TopKObjective):
        def constrain(self) -> None:
            Spoilt.steps += 1
            if Spoilt.steps == 401:
                self.sae.W_dec.data[3] = torch.nan

    with pytest.raises(ValueError, match="hold NaN or infinity, so the weights do"):
        train(Spoilt(16, 32, k=3), tensor_source(rows()), tokens=4_010, batch_size=10, progress=False)
    assert Spoilt.steps == 401


def test_impossible_numbers_are_refused() -> None:
    for name, value in {"tokens": 0, "batch_size": 0, "clip": 0, "dead_after": 0, "buffer": 0}.items():
        with pytest.raises(ValueError, match=f"{name} is 0; it must be"):
            train(TopK(16, 32, k=3), tensor_source(rows()), **OPTIONS | {name: value})
    with pytest.raises(ValueError, match="give shares of the run between 0 and 1"):
        Resampling(at=(1.5,))


@pytest.mark.parametrize("value", [0, -1e-3, math.nan, math.inf])
def test_a_rate_or_clip_that_is_not_finite_and_above_0_is_refused_and_not_called_divergence(value: float) -> None:
    with pytest.raises(InvalidArgument, match=f"lr is {value}; it must be finite and above 0"):
        train(TopK(16, 32, k=3), tensor_source(rows()), lr=value, **OPTIONS)
    with pytest.raises(InvalidArgument, match=f"clip is {value}; it must be finite and above 0, or None"):
        train(TopK(16, 32, k=3), tensor_source(rows()), **OPTIONS | {"clip": value})


def test_numbers_of_rows_that_are_no_whole_numbers_are_refused() -> None:
    for value in (2.5, math.nan, "many", True, None):
        with pytest.raises(InvalidType, match=f"tokens is {value!r}; it must be a whole number, at least 1"):
            check_count("tokens", value)
    for value in (0, -3):
        with pytest.raises(InvalidArgument, match=f"d_sae is {value}; it must be at least 1"):
            Gated(16, value)
    with pytest.raises(InvalidArgument, match="initial_threshold nan"):
        JumpReLU(16, 32, initial_threshold=math.nan)
    with pytest.raises(InvalidArgument, match="tanh_scale is inf; it must be finite and above 0"):
        JumpReLU(16, 32, tanh_scale=math.inf)


def test_weights_that_are_not_finite_before_training_are_named_and_not_called_divergence() -> None:
    sae = Gated(16, 32)
    with torch.no_grad():
        sae.b_gate[3] = math.nan
    with pytest.raises(InvalidArgument, match="b_gate of this autoencoder holds NaN or infinity before"):
        train(sae, tensor_source(rows()), **OPTIONS)
    assert sae.dataset is None


def test_a_normalisation_is_not_measured_on_what_is_not_finite() -> None:
    x = rows()
    x[4, 2] = math.nan
    for measure in (expected_norm, mean_centring, whitening):
        with pytest.raises(InvalidArgument, match="activations hold NaN or infinity, first in row 4"):
            measure([x])
    with pytest.raises(InvalidArgument, match="epsilon is nan; it must be finite and at least 0"):
        whitening([rows()], epsilon=math.nan)
