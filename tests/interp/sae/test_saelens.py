"""Parity with SAELens on shared weights: losses, gradients, latents, reconstructions, and files both ways."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hooks.site import mlp_in, mlp_out, resid_post
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
    load,
    load_pretrained,
    save,
)
from interp.sae.architectures.sparse_coder import SparseCoder
from interp.sae.io.saelens import from_saelens, saelens_architecture

saes: Any = None
inputs: Any = None
D, LATENTS, K, N = 12, 40, 4, 64


@pytest.fixture(scope="module", autouse=True)
def sae_lens() -> None:
    """Imported when its tests run: it takes seconds, which workers that run others need not spend."""
    global saes, inputs
    saes, inputs = pytest.importorskip("sae_lens.saes"), pytest.importorskip("sae_lens.saes.sae")


def shaken(sae: SAE, seed: int = 0) -> SAE:
    """No parameter at a special value; decoder rows and thresholds where training would leave them."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sae.named_parameters():
            size = 0.05 if name == "threshold" else 0.2
            parameter += size * (torch.rand if name == "threshold" else torch.randn)(parameter.shape, generator=g)
        sae.objective().constrain()
        for buffer in (buffer for name, buffer in sae.named_buffers() if name == "threshold"):
            buffer.fill_(0.7)
    return sae


def rows(width: int = D) -> Tensor:
    return torch.randn(N, width, generator=torch.Generator().manual_seed(9)) + 0.3


@dataclass(frozen=True)
class Pair:
    """An architecture of ours, SAELens's way of training it, its coefficient there, and gradients defined otherwise."""

    ours: Callable[[], SAE]
    theirs: Callable[[], Any]
    coefficient: dict[str, float]
    other: frozenset[str] = frozenset()


def trained_jumprelu(**options: Any) -> Any:
    return saes.JumpReLUTrainingSAE(
        saes.JumpReLUTrainingSAEConfig(d_in=D, d_sae=LATENTS, apply_b_dec_to_input=False, **options)
    )


def batch_config(kind: str, **options: Any) -> Any:
    config = getattr(saes, f"{kind}TrainingSAEConfig")
    return config(d_in=D, d_sae=LATENTS, k=3.5, rescale_acts_by_decoder_norm=False, **options)


PAIRS = {
    "standard": Pair(
        lambda: Standard(D, LATENTS, coefficient=0.3),
        lambda: saes.StandardTrainingSAE(
            saes.StandardTrainingSAEConfig(d_in=D, d_sae=LATENTS, apply_b_dec_to_input=False)
        ),
        {"l1": 0.3},
    ),
    # the gate's reconstruction holds the decoder constant in the paper, and not in SAELens
    "gated": Pair(
        lambda: Gated(D, LATENTS, coefficient=0.3),
        lambda: saes.GatedTrainingSAE(saes.GatedTrainingSAEConfig(d_in=D, d_sae=LATENTS)),
        {"l1": 0.3},
        frozenset({"W_dec", "b_dec"}),
    ),
    "jumprelu step": Pair(lambda: JumpReLU(D, LATENTS, coefficient=0.3), lambda: trained_jumprelu(), {"l0": 0.3}),
    "jumprelu tanh": Pair(
        lambda: JumpReLU(D, LATENTS, penalty="tanh", coefficient=0.3, pre_act_coefficient=0.02),
        lambda: trained_jumprelu(jumprelu_sparsity_loss_mode="tanh", pre_act_loss_coefficient=0.02),
        {"l0": 0.3},
    ),
    "jumprelu quadratic": Pair(
        lambda: JumpReLU(D, LATENTS, penalty="quadratic", target_l0=5, coefficient=0.3),
        lambda: trained_jumprelu(jumprelu_sparsity_loss_mode="quadratic", target_l0=5),
        {"l0": 0.3},
    ),
    "topk": Pair(
        lambda: TopK(D, LATENTS, k=K),
        lambda: saes.TopKTrainingSAE(
            saes.TopKTrainingSAEConfig(d_in=D, d_sae=LATENTS, k=K, rescale_acts_by_decoder_norm=False)
        ),
        {},
    ),
    "batchtopk": Pair(
        lambda: BatchTopK(D, LATENTS, k=3.5), lambda: saes.BatchTopKTrainingSAE(batch_config("BatchTopK")), {}
    ),
    "matryoshka": Pair(
        lambda: MatryoshkaBatchTopK(D, LATENTS, k=3.5, widths=(10, 25)),
        lambda: saes.MatryoshkaBatchTopKTrainingSAE(
            batch_config("MatryoshkaBatchTopK", matryoshka_widths=[10, 25, LATENTS])
        ),
        {},
    ),
}


@pytest.fixture(params=PAIRS.values(), ids=PAIRS)
def pair(request: pytest.FixtureRequest) -> Pair:
    return request.param


def share(ours: SAE, theirs: Any) -> None:
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            getattr(theirs, name).copy_(parameter)


def their_step(theirs: Any, x: Tensor, coefficient: dict[str, float], dead: Tensor | None) -> Any:
    return theirs.training_forward_pass(
        inputs.TrainStepInput(
            sae_in=x, coefficients=coefficient, dead_neuron_mask=dead, n_training_steps=0, is_logging_step=False
        )
    )


def test_losses_and_gradients_are_saelens_own_up_to_the_variance_they_are_divided_by(pair: Pair) -> None:
    ours, theirs, x = shaken(pair.ours()), pair.theirs(), rows()
    if isinstance(ours, TopK | BatchTopK | MatryoshkaBatchTopK):
        ours.objective().initialise(x)
    share(ours, theirs)
    dead = torch.arange(LATENTS) < 7 if isinstance(ours, JumpReLU) else torch.zeros(LATENTS, dtype=torch.bool)
    done = their_step(theirs, x, pair.coefficient, dead)
    done.loss.backward()
    step = ours.objective().gradients(x, dead)
    variance = float(ours.variance) if isinstance(ours, TopK | BatchTopK | MatryoshkaBatchTopK) else 1.0
    assert float(step.loss) * variance == pytest.approx(float(done.loss.detach()), rel=1e-5)
    assert float(step.squared_error) == pytest.approx(float(done.losses["mse_loss"].detach()), rel=1e-5)
    assert float(step.l0) == pytest.approx(float((done.feature_acts > 0).float().sum(1).mean()))
    for name, parameter in ours.named_parameters():
        truth = getattr(theirs, name).grad
        assert parameter.grad is not None
        if name not in pair.other:
            assert float((parameter.grad * variance - truth).norm() / truth.norm()) < 1e-5, name


@pytest.mark.parametrize("name", ["topk", "batchtopk", "matryoshka"])
def test_what_dead_latents_learn_is_saelens_own_where_none_of_them_is_cut_by_the_relu(name: str) -> None:
    """SAELens divides by no variance and has no ReLU: its coefficient is alpha V / V_e, and all dead latents are on."""
    ours, theirs, x = shaken(PAIRS[name].ours()), PAIRS[name].theirs(), rows()
    assert isinstance(ours, TopK | BatchTopK | MatryoshkaBatchTopK)
    ours.objective().initialise(x)
    dead = torch.arange(LATENTS) % 2 == 0
    with torch.no_grad():
        ours.b_enc += 8.0 * dead
        assert bool((ours.pre(x)[:, dead] > 0).all())
        centred = x - ours.b_dec
        e = centred - ours.objective().code(centred).decode(ours.W_dec)
    share(ours, theirs)
    V, V_e = float(ours.get_buffer("variance")), float((e - e.mean(0)).pow(2).sum(1).mean())
    theirs.cfg.aux_loss_coefficient = ours.aux_coefficient * V / V_e
    done = their_step(theirs, x, {}, dead)
    done.loss.backward()
    step = ours.objective().gradients(x, dead)
    auxiliary = float(done.losses["auxiliary_reconstruction_loss"].detach())
    assert auxiliary > 1e-3 * float(done.loss.detach())
    assert float(step.loss) * V == pytest.approx(float(done.loss.detach()), rel=1e-5)
    for part, parameter in ours.named_parameters():
        truth = getattr(theirs, part).grad
        assert parameter.grad is not None
        assert float((parameter.grad * V - truth).norm() / truth.norm()) < 1e-5, part


def test_a_batchtopk_threshold_follows_the_batches_as_saelens_does() -> None:
    ours, theirs = shaken(BatchTopK(D, LATENTS, k=3.5)), saes.BatchTopKTrainingSAE(batch_config("BatchTopK"))
    share(ours, theirs)
    theirs.topk_threshold.fill_(0.7)
    for seed in range(3):
        x = torch.randn(N, D, generator=torch.Generator().manual_seed(seed))
        their_step(theirs, x, {}, None)
        ours.objective().gradients(x, torch.zeros(LATENTS, dtype=torch.bool))
    assert float(ours.threshold[0]) == pytest.approx(float(theirs.topk_threshold), rel=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        *(pair.ours for pair in PAIRS.values()),
        lambda: Transcoder(D, LATENTS, d_out=7),
        lambda: SkipTranscoder(D, LATENTS, d_out=7),
    ],
    ids=[*PAIRS, "transcoder", "skip transcoder"],
)
def test_saelens_loads_what_is_saved_and_computes_the_same(make: Callable[[], SAE], tmp_path: Path) -> None:
    ours = shaken(make())
    ours.site, ours.model_name = resid_post[4], "landmark"
    kind = getattr(saes, type(ours).__name__) if isinstance(ours, Transcoder | SkipTranscoder) else inputs.SAE
    theirs = kind.load_from_disk(save(ours, tmp_path))
    assert torch.allclose(theirs.encode(rows()), ours.encode(rows()), atol=1e-5)
    assert torch.allclose(theirs(rows()), ours(rows()), atol=1e-5)
    assert theirs.cfg.metadata.hook_name == resid_post[4].transformer_lens_name
    assert theirs.cfg.metadata.model_name == "landmark"


def as_published(theirs: Any, folder: Path) -> Any:
    """What SAELens's own saving and loading makes of an autoencoder that it trained."""
    with torch.no_grad():
        g = torch.Generator().manual_seed(3)
        for name, parameter in theirs.named_parameters():
            parameter += 0.2 * (torch.rand if name == "threshold" else torch.randn)(parameter.shape, generator=g)
        if hasattr(theirs, "topk_threshold"):
            theirs.topk_threshold.fill_(0.4)
    theirs.cfg.metadata.hook_name = resid_post[2].transformer_lens_name
    theirs.save_inference_model(folder)
    return inputs.SAE.load_from_disk(folder)


PUBLISHED: dict[str, Callable[[bool], Any]] = {
    "standard": lambda c: saes.StandardTrainingSAE(
        saes.StandardTrainingSAEConfig(d_in=D, d_sae=LATENTS, apply_b_dec_to_input=c)
    ),
    "gated": lambda c: saes.GatedTrainingSAE(
        saes.GatedTrainingSAEConfig(d_in=D, d_sae=LATENTS, apply_b_dec_to_input=c)
    ),
    "jumprelu": lambda c: saes.JumpReLUTrainingSAE(
        saes.JumpReLUTrainingSAEConfig(d_in=D, d_sae=LATENTS, apply_b_dec_to_input=c)
    ),
    "topk": lambda c: saes.TopKTrainingSAE(
        saes.TopKTrainingSAEConfig(d_in=D, d_sae=LATENTS, k=K, apply_b_dec_to_input=c)
    ),
    "batchtopk": lambda c: saes.BatchTopKTrainingSAE(
        saes.BatchTopKTrainingSAEConfig(d_in=D, d_sae=LATENTS, k=3.5, apply_b_dec_to_input=c)
    ),
    "matryoshka_batchtopk": lambda c: saes.MatryoshkaBatchTopKTrainingSAE(
        saes.MatryoshkaBatchTopKTrainingSAEConfig(
            d_in=D, d_sae=LATENTS, k=3.5, matryoshka_widths=[10, LATENTS], apply_b_dec_to_input=c
        )
    ),
}


@pytest.mark.parametrize("centred", [True, False], ids=["b_dec taken from input", "input as it is"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_what_saelens_trains_and_saves_is_loaded_and_computes_the_same(
    name: str, centred: bool, tmp_path: Path
) -> None:
    theirs = as_published(PUBLISHED[name](centred), tmp_path)
    ours = load(tmp_path)
    assert ours.architecture == name
    assert torch.allclose(ours.encode(rows()), theirs.encode(rows()), atol=1e-5)
    assert torch.allclose(ours(rows()), theirs(rows()), atol=1e-5)
    assert ours.site == resid_post[2]


@pytest.mark.parametrize("rescale", [False, True], ids=["plain", "rescaled by decoder norm"])
@pytest.mark.parametrize("centred", [True, False], ids=["b_dec taken from input", "input as it is"])
def test_both_options_of_a_topk_file_are_folded_into_the_weights(rescale: bool, centred: bool, tmp_path: Path) -> None:
    theirs = saes.TopKSAE(
        saes.TopKSAEConfig(
            d_in=D, d_sae=LATENTS, k=K, rescale_acts_by_decoder_norm=rescale, apply_b_dec_to_input=centred
        )
    )
    share(shaken(TopK(D, LATENTS, K)), theirs)
    with torch.no_grad():
        theirs.W_dec *= torch.linspace(0.5, 2, LATENTS)[:, None]
    theirs.save_model(tmp_path)
    ours = load(tmp_path)
    assert torch.allclose(ours.encode(rows()), theirs.encode(rows()), atol=1e-5)
    assert torch.allclose(ours(rows()), theirs(rows()), atol=1e-5)


@pytest.mark.parametrize("kind", ["Transcoder", "SkipTranscoder"])
def test_transcoders_of_saelens_are_loaded_and_compute_the_same(kind: str, tmp_path: Path) -> None:
    config = getattr(saes, f"{kind}Config")(d_in=D, d_sae=LATENTS, d_out=7, apply_b_dec_to_input=False)
    theirs = getattr(saes, kind)(config)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    reads, writes = mlp_in[2].transformer_lens_name, mlp_out[2].transformer_lens_name
    theirs.cfg.metadata.hook_name, theirs.cfg.metadata.hook_name_out = reads, writes
    theirs.save_model(tmp_path / "theirs")
    ours = load(tmp_path / "theirs")
    assert torch.allclose(ours.encode(rows()), theirs.encode(rows()), atol=1e-5)
    assert torch.allclose(ours(rows()), theirs(rows()), atol=1e-5)
    assert ours.sites == (mlp_in[2], mlp_out[2])
    again = getattr(saes, kind).load_from_disk(save(ours, tmp_path / "ours"))
    assert (again.cfg.metadata.hook_name, again.cfg.metadata.hook_name_out) == (reads, writes)


def test_saelens_refuses_a_crosscoder_rather_than_misread_it(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="crosscoder"):
        inputs.SAE.load_from_disk(save(Crosscoder(D, LATENTS, n_layers=2), tmp_path))


def test_a_published_autoencoder_comes_through_saelens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    theirs, asked = as_published(PUBLISHED["standard"](True), tmp_path), []

    def from_pretrained(release: str, sae_id: str, **options: str) -> Any:
        asked.append((release, sae_id, options["dtype"]))
        return theirs

    monkeypatch.setattr(inputs.SAE, "from_pretrained", from_pretrained)
    ours = load_pretrained("some-release", "layer_2")
    assert asked == [("some-release", "layer_2", "float32")]
    assert torch.allclose(ours(rows()), theirs(rows()), atol=1e-5)
    assert ours.site == resid_post[2]
    theirs.cfg.normalize_activations = "layernorm"
    with pytest.raises(ValueError, match="some-release/layer_2 normalises its input by 'layernorm'"):
        load_pretrained("some-release", "layer_2")


INFERRED: dict[str, list[dict[str, Any]]] = {
    "standard": [{}],
    "gated": [{}],
    "jumprelu": [{}],
    "topk": [{"k": K, "rescale_acts_by_decoder_norm": True}],
    "abstopk": [{"k": K}, {"k": K, "rescale_acts_by_decoder_norm": True}],
    "transcoder": [{"d_out": 7}],
    "skip_transcoder": [{"d_out": 7}],
    "jumprelu_transcoder": [{"d_out": 7}],
    "jumprelu_skip_transcoder": [{"d_out": 7}],
    "matching_pursuit": [{}, {"residual_threshold": 0.0, "stop_on_duplicate_support": False, "max_iterations": 3}],
    "temporal": [
        {"n_heads": 2, "bottleneck_factor": 4, "kval_topk": K, "tied_weights": tied, "sae_diff_type": kind}
        for tied, kind in ((True, "topk"), (False, "topk"), (True, "relu"))
    ],
}
NORMALISATIONS = ("none", "layer_norm", "constant_norm_rescale", "expected_average_only_in")


def randomised(theirs: Any) -> Any:
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in theirs.named_parameters():
            p.copy_((torch.rand if name == "threshold" else torch.randn)(p.shape, generator=g) * 0.3)
        theirs.W_dec.mul_(torch.linspace(0.5, 2, LATENTS)[:, None])
    return theirs


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("name", INFERRED)
def test_every_architecture_and_normalisation_of_saelens_is_read_as_it_computes(
    name: str, centred: bool, normalisation: str, tmp_path: Path
) -> None:
    if centred and "transcoder" in name:
        pytest.skip("SAELens has no such transcoder")
    registry = pytest.importorskip("sae_lens.registry")
    for number, options in enumerate(INFERRED[name]):
        kind, config = registry.get_sae_class(name)
        given = {**options, "apply_b_dec_to_input": centred, "normalize_activations": normalisation}
        theirs = randomised(kind(config(d_in=D, d_sae=LATENTS, **given)))
        theirs.save_model(tmp_path / f"theirs{number}")
        x = rows().view(8, 8, D) if name == "temporal" else rows()
        f, x_hat = theirs.encode(x).detach(), theirs(x).detach()
        ours = load(tmp_path / f"theirs{number}")
        again = load(save(ours, tmp_path / f"ours{number}"))
        back = inputs.SAE.load_from_disk(tmp_path / f"ours{number}")
        assert bool((f != 0).any())
        assert ours.encode(x).allclose(f, atol=1e-5) and ours(x).allclose(x_hat, atol=1e-5)
        assert again.encode(x).equal(ours.encode(x)) and again(x).equal(ours(x))
        assert back.encode(x).allclose(f, atol=1e-5) and back(x).allclose(x_hat, atol=1e-5)


@pytest.mark.parametrize("rescaled", [True, False])
@pytest.mark.parametrize("kind", ["BatchTopK", "MatryoshkaBatchTopK"])
def test_a_training_checkpoint_of_saelens_is_read_as_what_it_infers_with(
    kind: str, rescaled: bool, tmp_path: Path
) -> None:
    options = {"matryoshka_widths": [10, 25, LATENTS]} if kind.startswith("M") else {}
    config = getattr(saes, f"{kind}TrainingSAEConfig")
    theirs = getattr(saes, f"{kind}TrainingSAE")(
        config(d_in=D, d_sae=LATENTS, k=3.5, rescale_acts_by_decoder_norm=rescaled, **options)
    )
    randomised(theirs).topk_threshold.fill_(0.4)
    theirs.save_model(tmp_path / "checkpoint")
    theirs.save_inference_model(tmp_path / "inference")
    inferring, ours = inputs.SAE.load_from_disk(tmp_path / "inference"), load(tmp_path / "checkpoint")
    assert type(ours).__name__ == kind
    assert ours.encode(rows()).allclose(inferring.encode(rows()), atol=1e-5)
    assert ours(rows()).allclose(inferring(rows()), atol=1e-5)


SCALED = {
    "TopK": [{"k": 3, "rescale_acts_by_decoder_norm": rescaled} for rescaled in (True, False)],
    "BatchTopK": [{"k": 3.0, "rescale_acts_by_decoder_norm": rescaled} for rescaled in (True, False)],
    "MatchingPursuit": [{"residual_threshold": 0.5, "decoder_init_norm": 1.0}],
}


@pytest.mark.parametrize(("kind", "options"), [(kind, options) for kind, each in SCALED.items() for options in each])
def test_a_checkpoint_of_scaled_activations_is_read_as_the_same_function_of_activations_as_they_are(
    kind: str, options: dict[str, Any]
) -> None:
    """x_hat(x) = bare(c x) / c, which is what SAELens's own fold gives; latents in units of x are divided by c too."""
    factor = 1.7
    config, training = (getattr(saes, f"{kind}Training{name}") for name in ("SAEConfig", "SAE"))
    theirs = randomised(training(config(d_in=D, d_sae=LATENTS, **options)))
    with torch.no_grad():
        theirs.W_dec.div_(theirs.W_dec.norm(dim=1, keepdim=True) if kind == "MatchingPursuit" else 1)
    if kind == "BatchTopK":
        theirs.topk_threshold.fill_(0.4)
    about = theirs.cfg.to_dict()
    weights = {name: tensor.detach().clone() for name, tensor in theirs.state_dict().items()}
    bare = from_saelens(about, weights, "bare")
    scaled = from_saelens(about, weights | {"scaler.factor": torch.tensor(factor)}, "scaled")
    unit = 1 if options.get("rescale_acts_by_decoder_norm") is False else factor
    f, x_hat = bare.encode(factor * rows()) / unit, bare(factor * rows()) / factor
    assert bool((f > 0).any()) and bool((f == 0).any())
    torch.testing.assert_close(scaled.encode(rows()), f, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scaled(rows()), x_hat, rtol=1e-4, atol=1e-5)
    if kind != "BatchTopK":  # whose training encoder ranks a batch, and does not use the threshold
        theirs.fold_activation_norm_scaling_factor(factor)
        torch.testing.assert_close(theirs(rows()), x_hat, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("activation", "d_out", "skip", "called"),
    [
        ("relu", None, False, "sparse_coder"),
        ("relu", 4, False, "transcoder"),
        ("relu", 4, True, "skip_transcoder"),
        ("jumprelu", 4, True, "jumprelu_skip_transcoder"),
        ("abstopk", None, False, "abstopk"),
        ("abstopk", 4, False, "sparse_coder"),
        ("topk", 4, False, "sparse_coder"),
    ],
)
def test_an_architecture_has_saelens_name_only_where_it_computes_the_same(
    activation: str, d_out: int | None, skip: bool, called: str
) -> None:
    k = None if activation in ("relu", "jumprelu") else 2
    sae = SparseCoder(4, 8, activation=activation, k=k, d_out=d_out, skip=skip)
    assert saelens_architecture(sae) == (sae.architecture if called == "sparse_coder" else called)
