"""The laws of every sparse autoencoder: a new architecture is one line in the table."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hooks.site import mlp_in, mlp_out
from interp.sae import (
    SAE,
    BatchTopK,
    Crosscoder,
    Gated,
    JumpReLU,
    MatryoshkaBatchTopK,
    SkipTranscoder,
    Standard,
    TopK,
    Transcoder,
    evaluate,
    expected_norm,
    fold_normalisation,
    load,
    mean_centring,
    save,
    tensor_source,
    train,
    whitening,
)
from interp.sae.architectures import chunked_gradients
from interp.sae.architectures.initialisation import from_data, median_bias, tie
from interp.sae.architectures.registry import ARCHITECTURES
from interp.sae.architectures.sae import convert_rows
from interp.sae.data.normalisation import Normalisation, side_by_side

N, D, OUT, LATENTS = 60, 8, 6, 20


@dataclass(frozen=True)
class Case:
    """How an architecture is made, how wide its rows are, and which parameters' gradients are not the loss's slope."""

    make: Callable[[], SAE]
    row: tuple[int, ...] = (D,)
    estimated: frozenset[str] = frozenset()


CASES = {
    "standard": Case(lambda: Standard(D, LATENTS, coefficient=0.1)),
    "gated": Case(lambda: Gated(D, LATENTS, coefficient=0.1), estimated=frozenset({"W_dec", "b_dec"})),
    "jumprelu": Case(lambda: JumpReLU(D, LATENTS, initial_threshold=0.1), estimated=frozenset({"threshold"})),
    "jumprelu quadratic": Case(
        lambda: JumpReLU(D, LATENTS, penalty="quadratic", target_l0=4), estimated=frozenset({"threshold"})
    ),
    "jumprelu tanh": Case(
        lambda: JumpReLU(D, LATENTS, penalty="tanh", pre_act_coefficient=0.1), estimated=frozenset({"threshold"})
    ),
    "topk": Case(lambda: TopK(D, LATENTS, k=4)),
    "batchtopk": Case(lambda: BatchTopK(D, LATENTS, k=3.5)),
    "matryoshka_batchtopk": Case(lambda: MatryoshkaBatchTopK(D, LATENTS, k=4, widths=(5, 11))),
    "transcoder": Case(lambda: Transcoder(D, LATENTS, d_out=OUT, coefficient=0.1), row=(D + OUT,)),
    "skip_transcoder": Case(lambda: SkipTranscoder(D, LATENTS, d_out=OUT, coefficient=0.1), row=(D + OUT,)),
    "crosscoder": Case(lambda: Crosscoder(D, LATENTS, n_layers=3, coefficient=0.1), row=(3, D)),
}


def rows_for(case: Case, n: int = N, seed: int = 0) -> Tensor:
    """Rows that vary unequally and lie off the origin."""
    g = torch.Generator().manual_seed(seed)
    stretched = torch.randn(n, *case.row, generator=g) * torch.linspace(0.3, 2.0, case.row[-1])
    return stretched + torch.linspace(-1, 1, case.row[-1])


def shaken(case: Case, seed: int = 1) -> SAE:
    """The architecture with no parameter at a special value, in float64; BatchTopK with a threshold."""
    g = torch.Generator().manual_seed(seed)
    sae = case.make()
    sae.objective().initialise(rows_for(case))
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter += 0.1 * torch.rand(parameter.shape, generator=g)
        sae.objective().constrain()
        if "threshold" in dict(sae.named_buffers()):
            sae.get_buffer("threshold").fill_(0.3)
    return sae.double()


def nobody(sae: SAE) -> Tensor:
    return torch.zeros(sae.d_sae, dtype=torch.bool)


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


OF_ITS_OWN = {"cross_layer_transcoder"}  # its latents write to several layers: its laws have a file of their own


def test_every_architecture_is_in_the_table() -> None:
    assert {case.make().architecture for case in CASES.values()} == set(ARCHITECTURES) - OF_ITS_OWN


def test_shapes_are_those_of_what_is_read_and_written(case: Case) -> None:
    sae = shaken(case)
    x, y = sae.parts(rows_for(case).double())
    f = sae.encode(x)
    assert f.shape == (N, LATENTS) and bool((f >= 0).all()) and bool((f > 0).any())
    assert sae.decode(f).shape == sae(x).shape == y.shape
    assert sae.W_dec.shape == (LATENTS, *y.shape[1:]) and sae.b_dec.shape == y.shape[1:]


def test_leading_axes_and_what_else_is_encoded_change_no_latent(case: Case) -> None:
    sae = shaken(case)
    x, _ = sae.parts(rows_for(case).double())
    f = sae.encode(x)
    assert torch.allclose(sae.encode(x.unflatten(0, (4, 15))).flatten(0, 1), f)
    assert torch.allclose(sae.encode(x[7:8]), f[7:8])
    assert torch.allclose(sae(x[7:8]), sae(x)[7:8])


def test_forward_is_decode_of_encode_next_to_the_linear_path(case: Case) -> None:
    sae = shaken(case)
    x, _ = sae.parts(rows_for(case).double())
    path = x @ sae.W_skip.T if isinstance(sae, SkipTranscoder) else 0
    by_hand = torch.einsum("nf,f...->n...", sae.encode(x), sae.W_dec) + sae.b_dec + path
    assert torch.allclose(sae(x), by_hand)


def test_sparse_and_dense_codes_and_reconstructions_are_the_same(case: Case) -> None:
    sae = shaken(case)
    x, _ = sae.parts(rows_for(case).double())
    values, indices = sae.encode_sparse(x)
    assert torch.allclose(torch.zeros(N, LATENTS).double().scatter(1, indices, values), sae.encode(x))
    assert torch.allclose(sae.reconstruct_sparse(x, values, indices), sae(x))


def penalty(sae: SAE, rows: Tensor) -> Tensor:
    """What each architecture without a k declares that its latents cost."""
    x, _ = sae.parts(rows)
    f = sae.encode(x)
    if isinstance(sae, JumpReLU):
        l0 = (f > 0).double().sum(1)
        bounded = (sae.tanh_scale * f * sae.W_dec.norm(dim=1)).tanh().sum(1)
        squared = 2 / (sae.target_l0 or 1) * (l0 - (sae.target_l0 or 1)).pow(2)
        return {"step": l0, "tanh": bounded, "quadratic": squared}[sae.penalty].mean()
    if isinstance(sae, Gated):
        return ((x - sae.b_dec) @ sae.W_enc + sae.b_gate).relu().sum(1).mean()
    cost = (f @ sae.W_dec.flatten(2).norm(dim=2).sum(1)) if sae.W_dec.ndim == 3 else f @ sae.W_dec.norm(dim=1)
    return cost.mean() / (sae.get_buffer("variance") if isinstance(sae, SkipTranscoder) else 1)


def test_sparsity_is_as_declared(case: Case) -> None:
    """k latents a row, or k a row of the batch on average, or the penalty that the docstring says, times lambda."""
    sae, rows = shaken(case), rows_for(case).double()
    if isinstance(sae, TopK | BatchTopK | MatryoshkaBatchTopK):
        code = sae.objective().code(rows - sae.b_dec)
        on = torch.bincount(code.rows[code.values > 0], minlength=N)
        assert int(on.sum()) == int(N * sae.k)  # all are positive enough here
        assert not isinstance(sae, TopK) or bool((on == sae.k).all())
        return
    losses, objective = [], sae.objective()
    for objective.sparsity_share in (1.0, 0.25):
        losses.append(float(objective.loss(rows, nobody(sae)).loss.detach()))
    declared = float(sae.coefficient * penalty(sae, rows).detach())  # pyright: ignore[reportOperatorIssue]
    assert losses[0] - losses[1] == pytest.approx(0.75 * declared, rel=1e-6)


def test_renaming_latents_changes_no_reconstruction(case: Case) -> None:
    sae, twin = shaken(case), shaken(case)
    order = torch.randperm(LATENTS, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        for _, tensor in [*twin.named_parameters(), *twin.named_buffers()]:
            axis = next((i for i, size in enumerate(tensor.shape) if size == LATENTS), None)
            if axis is not None:
                tensor.copy_(tensor.index_select(axis, order))
    x, _ = sae.parts(rows_for(case).double())
    assert torch.allclose(twin.encode(x), sae.encode(x)[:, order])
    assert torch.allclose(twin(x), sae(x))


@pytest.mark.parametrize("few", [0.0, 2.0], ids=["dense", "sparse"])
@pytest.mark.parametrize("n_dead", [0, 6], ids=["none dead", "some dead"])
def test_gradients_are_autograds_of_the_loss(
    case: Case, n_dead: int, few: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunked_gradients, "SPARSE_SHARE", few)
    sae, rows = shaken(case), rows_for(case).double()
    dead = nobody(sae)
    dead[:n_dead] = True
    names, parameters = zip(*sae.named_parameters(), strict=True)
    said = sae.objective().loss(rows, dead)
    expected = torch.autograd.grad(said.loss, parameters, allow_unused=True)
    step = sae.objective().gradients(rows, dead)
    assert float(step.loss) == pytest.approx(float(said.loss.detach()), rel=1e-10)
    assert torch.allclose(step.largest, said.largest) and float(step.l0) == pytest.approx(float(said.l0))
    for name, parameter, truth in zip(names, parameters, expected, strict=True):
        assert parameter.grad is not None and truth is not None, name
        rounding = 1e-9 if truth.dtype == torch.float64 else 1e-6  # thresholds stay in float32
        assert float((parameter.grad - truth).norm()) <= rounding * float(truth.norm()) + 1e-12, name


def test_gradients_are_the_slopes_of_the_loss(case: Case) -> None:
    sae, rows = shaken(case), rows_for(case).double()
    sae.objective().gradients(rows, nobody(sae))
    h, loss = 1e-6, sae.objective().loss
    for seed, (name, parameter) in enumerate(sae.named_parameters()):
        if name in case.estimated:
            continue
        g = torch.Generator().manual_seed(seed)
        v = torch.randn(parameter.shape, generator=g, dtype=torch.float64)
        slope = float((parameter.grad * v).sum())  # pyright: ignore[reportOptionalOperand]
        with torch.no_grad():
            start = parameter.clone()
            losses = [
                float(loss(rows, nobody(sae)).loss) for p in (h, -h) if parameter.copy_(start + p * v) is not None
            ]
            parameter.copy_(start)
        assert (losses[0] - losses[1]) / (2 * h) == pytest.approx(slope, rel=1e-5, abs=1e-7), name


def test_the_step_says_what_the_reconstruction_does(case: Case) -> None:
    sae, rows = shaken(case), rows_for(case).double()
    step = sae.objective().loss(rows, nobody(sae))
    x, y = sae.parts(rows)
    if not isinstance(sae, BatchTopK | MatryoshkaBatchTopK):  # they select otherwise in training
        error = (y - sae(x)).pow(2).flatten(1).sum(1).mean()
        assert float(step.squared_error.detach()) == pytest.approx(float(error.detach()))
        assert float(step.l0) == pytest.approx(float((sae.encode(x) > 0).double().sum(1).mean()))
        assert torch.allclose(step.largest, sae.encode(x).amax(0))


def test_a_saved_one_comes_back_whole(case: Case, tmp_path: Path) -> None:
    sae = shaken(case).float()
    sae.sites, sae.model_name, sae.fingerprint, sae.dataset = (mlp_in[1], mlp_out[1]), "a", "b", "c"
    sae.max_activation.copy_(torch.arange(LATENTS) / 7)
    back = load(save(sae, tmp_path))
    assert type(back) is type(sae) and back.settings() == sae.settings()
    x, _ = sae.parts(rows_for(case))
    assert torch.equal(back.encode(x), sae.encode(x)) and torch.equal(back(x), sae(x))
    for name in ("sites", "model_name", "fingerprint", "dataset", "d_in", "d_sae"):
        assert getattr(back, name) == getattr(sae, name), name
    assert torch.equal(back.max_activation, sae.max_activation)


def measured(kind: Callable[..., Normalisation], case: Case, rows: Tensor) -> Normalisation:
    """The normalisation of a case's rows: of each side by itself for transcoders."""
    if case.row == (D + OUT,):
        return side_by_side(kind([rows[:, :D]]), kind([rows[:, D:]]))
    return kind([rows])


@pytest.mark.parametrize("kind", [expected_norm, mean_centring, whitening], ids=lambda kind: kind.__name__)
def test_folding_a_normalisation_is_exact(case: Case, kind: Callable[..., Normalisation], tmp_path: Path) -> None:
    sae, rows = shaken(case), rows_for(case, n=400).double()
    sae.normalisation = n = measured(kind, case, rows)
    assert torch.allclose(n.back(n(rows)), rows)
    twin = fold_normalisation(sae)
    z, x = sae.parts(n(rows))[0], sae.parts(rows)[0]
    assert torch.allclose(twin.encode(x), sae.encode(z), atol=1e-9)
    wide = n(rows)
    z_hat = torch.cat([z, sae(z)], dim=1) if wide.shape[1:] == (D + OUT,) else sae(z)
    assert torch.allclose(twin(x), sae.parts(n.back(z_hat))[1], atol=1e-9)
    back = load(save(sae, tmp_path))
    assert torch.allclose(back(x.float()), twin(x).float(), atol=1e-4)


def test_the_weights_of_a_normalised_one_are_refused_where_activations_are_as_they_are(case: Case) -> None:
    sae, rows = shaken(case), rows_for(case)
    sae.normalisation = measured(expected_norm, case, rows)
    sae.sites = (mlp_in[1], mlp_out[1])
    sae.max_activation.fill_(1.0)
    with pytest.raises(ValueError, match=r"read normalised activations: use fold_normalisation\(sae\)"):
        sae.direction(0)
    with pytest.raises(ValueError, match="reads activations normalised and the source gives them as they are"):
        evaluate(sae, tensor_source(rows))
    assert fold_normalisation(sae).direction(0).site == (mlp_in[1] if case.row == (3, D) else mlp_out[1])


def test_training_explains_more_of_planted_features_than_it_did(case: Case) -> None:
    g = torch.Generator().manual_seed(0)
    truth = torch.nn.functional.normalize(torch.randn(16, *case.row, generator=g).flatten(1), dim=1)
    x = ((torch.rand(3000, 16, generator=g) < 0.1).float() @ truth).view(3000, *case.row) * 3
    sae = case.make()
    sae.objective().initialise(x)
    before = evaluate(sae, tensor_source(x)).explained_variance
    report = train(sae, tensor_source(x), tokens=30_000, batch_size=250, lr=5e-3, progress=False)
    assert report.explained_variance > max(before, 0) + 0.2
    assert evaluate(sae, tensor_source(x)).explained_variance == pytest.approx(report.explained_variance, abs=0.05)
    assert report.curve[-1].l0 == pytest.approx(report.l0, abs=0.35 * report.l0 + 0.1)


def test_decoder_rows_can_start_as_data_about_their_median(case: Case) -> None:
    sae, rows = case.make(), rows_for(case)
    with torch.no_grad():
        sae.W_dec *= torch.linspace(0.5, 2, LATENTS).view(-1, *[1] * (sae.W_dec.ndim - 1))
    norms = sae.W_dec.flatten(1).norm(dim=1).detach()
    median_bias(sae, rows)
    from_data(sae, rows)
    about = (sae.parts(rows)[1] - sae.b_dec).flatten(1).detach()
    cosines = torch.nn.functional.cosine_similarity(sae.W_dec.flatten(1)[:, None].detach(), about[None], dim=2)
    assert torch.allclose(cosines.amax(1), torch.ones(LATENTS), atol=1e-5)
    assert len(cosines.argmax(1).unique()) == LATENTS
    assert torch.allclose(sae.W_dec.flatten(1).norm(dim=1), norms)


def test_an_encoder_can_be_tied_to_the_decoder_where_it_writes_what_it_reads(case: Case) -> None:
    sae = shaken(case)
    if case.row == (D + OUT,):
        with pytest.raises(ValueError, match="only where it reads and writes the same width"):
            tie(sae)
        return
    tie(sae)
    assert torch.equal(sae.W_enc.flatten(0, -2), sae.W_dec.flatten(1).T)


def test_the_weight_of_a_term_of_the_loss_is_finite_and_not_negative(case: Case) -> None:
    sae = case.make()
    for name in {"coefficient", "aux_coefficient", "pre_act_coefficient"} & sae.settings().keys():
        for value in (-5.0, math.nan, math.inf):
            with pytest.raises(ValueError, match=f"{name} is {value}; the weight of a term of the loss must be finite"):
                type(sae)(**{"d_in": D, "d_sae": LATENTS} | sae.settings() | {name: value})


def test_other_widths_and_nan_are_refused(case: Case) -> None:
    sae, rows = case.make(), rows_for(case)
    with pytest.raises(ValueError, match="dimensions; it was given"):
        convert_rows(sae, rows[..., :-1])
    with pytest.raises(ValueError, match="all 60 activations are the same vector"):
        sae.objective().initialise(torch.ones(N, *case.row))
    rows[9] = torch.nan
    with pytest.raises(ValueError, match="hold NaN or infinity, first in row 9"):
        convert_rows(sae, rows)


def test_a_step_counts_the_latents_that_are_on_where_fewer_are_than_may_be(case: Case) -> None:
    sae, rows = shaken(case), rows_for(case).double()
    with torch.no_grad():
        for name, bias in sae.named_parameters():
            bias -= 2.0 * (name.startswith("b_") and not name.startswith("b_dec"))
    said, step = (work(rows, nobody(sae)) for work in (sae.objective().loss, sae.objective().gradients))
    assert float(step.l0) == pytest.approx(float(said.l0)) and torch.allclose(step.largest, said.largest)
    assert float(step.squared_error) == pytest.approx(float(said.squared_error.detach()))
    assert float(step.l0) < getattr(sae, "k", LATENTS)
