"""A GPU gives what the CPU gives: autoencoders trained and spliced, models steered, facts traced, edited and browsed.

The tests need a GPU. `INTERP_TEST_DEVICE=cpu` runs them without one, a CPU next to itself.
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hooks import Direction, Model, capture, intervene, load
from hooks.site import mlp_in, mlp_out, resid_post
from interp import landmark, sae
from interp.common.texts import begins_with
from interp.landmark.evaluate import answers_exactly, mean_loss, questions
from interp.memory import (
    Case,
    Covariance,
    Edit,
    Query,
    Subject,
    agreement,
    alphaedit,
    audit,
    composition,
    conflicts,
    covariances,
    key_rows,
    knowledge,
    locate,
    merge,
    pmet,
    preview,
    scorecard,
    silence_neurons,
    trace_attention,
    trace_mlp,
    trace_states,
    triggers,
    value_logits,
)
from interp.sae.architectures.initialisation import from_data, median_bias, tie
from interp.steering import (
    Conditional,
    Sampling,
    ablate_direction,
    add_direction,
    cap_projection,
    choose_by_effect,
    choose_dose,
    choose_sparing_threshold,
    choose_threshold,
    clamp_latent,
    estimate_naming_slope,
    measure_damage,
    measure_dose_response,
    measure_effects,
    measure_normal_range,
    measure_projections,
    rotate_in_plane,
    score_by_projection,
    set_from_origin,
    set_projection,
    steer,
)
from tests.contracts.test_editors import HOW, LIMA, PMET, RIVALS, ROME, WEIGHTS, Editor
from tests.contracts.words import FILLER, sentences, taught
from tests.gpu import DEVICE, on_a_gpu

pytestmark = on_a_gpu

D, LATENTS, ROWS = 16, 48, 512
EDITORS: dict[str, Editor] = {
    **WEIGHTS,
    **RIVALS,
    "alphaedit": lambda m, f, c: alphaedit(m, f, covariance=c[0], energy=0.01, **HOW),
    "pmet": lambda m, f, c: pmet(m, f, covariance=c, token="last prompt", **PMET),
}
MAKES: dict[str, Callable[[], sae.SAE]] = {
    "topk": lambda: sae.TopK(D, LATENTS, k=4),
    "batch topk": lambda: sae.BatchTopK(D, LATENTS, k=4),
    "matryoshka": lambda: sae.MatryoshkaBatchTopK(D, LATENTS, k=4, widths=(12,)),
    "gated": lambda: sae.Gated(D, LATENTS, coefficient=0.1),
    "jumprelu": lambda: sae.JumpReLU(D, LATENTS, initial_threshold=0.1),
    "jumprelu tanh": lambda: sae.JumpReLU(D, LATENTS, penalty="tanh", pre_act_coefficient=0.1),
    "jumprelu quadratic": lambda: sae.JumpReLU(D, LATENTS, penalty="quadratic", target_l0=4),
    "standard": lambda: sae.Standard(D, LATENTS, coefficient=0.1),
}
PROMPTS = ("fog", "the bay", "a red")
SAMPLING = Sampling(per_prompt=2, max_new_tokens=6, temperature=0.05)


@pytest.fixture(autouse=True)
def whole_precision() -> None:
    """Products in float32, as on a CPU."""
    assert not torch.backends.cuda.matmul.allow_tf32


def on(device: str, model: Model) -> Model:
    """A copy of a model on a device."""
    return load(copy.deepcopy(model.hf), model.tokenizer, device=device)


@cache
def worlds() -> tuple[Model, Model]:
    """A model that knows the facts of a small world, on the CPU and on the device."""
    return on("cpu", taught("gpt2")), on(DEVICE, taught("gpt2"))


@cache
def gated_worlds() -> tuple[Model, Model]:
    return on("cpu", taught("llama")), on(DEVICE, taught("llama"))


@cache
def landmarks() -> tuple[Model, Model]:
    return load("landmark"), load("landmark", device=DEVICE)


@cache
def known(family: str) -> tuple[tuple[Covariance, ...], tuple[Covariance, ...]]:
    a, b = (
        covariances(m, sentences(), (0, 1), batch_size=200) for m in (worlds() if family == "gpt2" else gated_worlds())
    )
    return a, b


@cache
def made(family: str, name: str) -> tuple[Edit, Edit]:
    """An edit of one fact, made on the CPU and on the device."""
    models = worlds() if family == "gpt2" else gated_worlds()
    a, b = (EDITORS[name](model, ROME, c) for model, c in zip(models, known(family), strict=True))
    return a, b


@pytest.fixture
def letters(gpt2: Model) -> tuple[Model, Model]:
    return gpt2, on(DEVICE, gpt2)


def close(a: Tensor, b: Tensor, rtol: float = 1e-3, atol: float = 1e-4) -> bool:
    return torch.allclose(b.detach().cpu().double(), a.detach().cpu().double(), rtol=rtol, atol=atol, equal_nan=True)


def near(a: float, b: float, rtol: float = 1e-3, atol: float = 1e-4) -> bool:
    return close(torch.tensor(a), torch.tensor(b), rtol, atol)


def rows(n: int = ROWS, d: int = D) -> Tensor:
    """Sums of a few of 24 known features."""
    g = torch.Generator().manual_seed(0)
    truth = torch.nn.functional.normalize(torch.randn(24, d, generator=g), dim=1)
    return ((torch.rand(n, 24, generator=g) < 0.12) * torch.rand(n, 24, generator=g)) @ truth + 0.1


def letter(model: Model, said: str = "z") -> Direction:
    """The unembedding row of a letter at the last stream, on the model's device."""
    row = model.hf.lm_head.weight.detach()[model.tokenizer.convert_tokens_to_ids(said)]
    return Direction(row, resid_post[model.n_layers - 1], f"the letter {said}", float(row.norm()), model.fingerprint)


def latents_of(model: Model) -> sae.TopK:
    """Latents at the last stream, on the model's device; two of them write a letter."""
    found = sae.TopK(model.d_model, 16, k=4)
    with torch.no_grad():
        for latent, said in ((7, "z"), (11, "y")):
            found.W_dec[latent] = letter(model, said).unit.cpu()
        found.max_activation.fill_(letter(model).scale)
    found.site, found.fingerprint = resid_post[model.n_layers - 1], model.fingerprint
    return found.to(model.device)


def says_z(text: str) -> bool:
    return "zz" in text


@pytest.mark.parametrize("name", MAKES)
def test_training_ends_with_the_same_losses_and_weights(name: str) -> None:
    ours, theirs = MAKES[name](), MAKES[name]().to(DEVICE)
    plain, there = (
        sae.train(one, sae.tensor_source(x), tokens=20 * 128, batch_size=128, lr=1e-3, buffer=ROWS, progress=False)
        for one, x in ((ours, rows()), (theirs, rows().to(DEVICE)))
    )
    assert theirs.W_dec.device.type == torch.device(DEVICE).type
    for a, b in zip(plain.curve, there.curve, strict=True):
        assert near(a.loss, b.loss, 1e-2) and near(a.explained_variance, b.explained_variance, 1e-2, 1e-3)
    for (key, a), b in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        assert close(a, b, 1e-2, 2e-3), key
    assert near(plain.explained_variance, there.explained_variance, 1e-2, 1e-3)


@pytest.mark.parametrize("name", MAKES)
def test_a_step_has_the_same_loss_and_the_same_gradients_with_dead_latents_and_without(name: str) -> None:
    ours = MAKES[name]()
    ours.objective().initialise(rows())
    theirs = copy.deepcopy(ours).to(DEVICE)
    for dead in (torch.zeros(LATENTS, dtype=torch.bool), torch.arange(LATENTS) % 3 == 0):
        ours.zero_grad()
        theirs.zero_grad()
        a, b = (
            ours.objective().gradients(rows(), dead),
            theirs.objective().gradients(rows().to(DEVICE), dead.to(DEVICE)),
        )
        assert near(float(a.loss), float(b.loss)) and near(float(a.squared_error), float(b.squared_error))
        for (key, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            assert (p.grad is None) == (q.grad is None), key
            assert p.grad is None or close(p.grad, q.grad), key


@torch.no_grad()
@pytest.mark.parametrize("name", MAKES)
def test_latents_reconstructions_and_quality_are_the_same(name: str) -> None:
    ours = MAKES[name]()
    sae.train(ours, sae.tensor_source(rows()), tokens=5 * 128, batch_size=128, lr=1e-3, buffer=ROWS, progress=False)
    theirs, x = copy.deepcopy(ours).to(DEVICE), rows()
    assert close(ours.encode(x), theirs.encode(x.to(DEVICE)))
    assert close(ours.decode(ours.encode(x)), theirs.decode(theirs.encode(x.to(DEVICE))))
    assert close(ours(x), theirs(x.to(DEVICE)))
    a, b = sae.evaluate(ours, sae.tensor_source(x)), sae.evaluate(theirs, sae.tensor_source(x.to(DEVICE)))
    assert near(a.explained_variance, b.explained_variance) and near(a.l0, b.l0, 1e-2)
    assert [len(part) for part in a.histogram()] == [len(part) for part in b.histogram()]
    kept, other = (
        sae.reconstruction(ours, sae.tensor_source(x)),
        sae.reconstruction(theirs, sae.tensor_source(x.to(DEVICE))),
    )
    assert near(kept.cosine, other.cosine) and near(kept.norm_ratio, other.norm_ratio)


@pytest.mark.parametrize("name", MAKES)
def test_an_autoencoder_saved_from_the_device_is_read_on_the_cpu_bit_for_bit(name: str, tmp_path: Path) -> None:
    theirs = MAKES[name]().to(DEVICE)
    sae.train(theirs, sae.tensor_source(rows().to(DEVICE)), tokens=256, batch_size=128, buffer=ROWS, progress=False)
    sae.save(theirs, tmp_path / "sae")
    read = sae.load(tmp_path / "sae")
    assert all(torch.equal(p.cpu(), q) for p, q in zip(theirs.parameters(), read.parameters(), strict=True))
    assert close(theirs.max_activation, read.max_activation)


class Dies:
    """A callback that ends a run at its third point."""

    def __init__(self) -> None:
        self.seen = 0

    def begin(self, names: tuple[str, ...], tokens: int) -> None:
        pass

    def point(self, name: str, point: object) -> None:
        self.seen += 1
        if self.seen == 3:
            raise InterruptedError

    def end(self) -> None:
        pass


@pytest.mark.parametrize("name", ["topk", "batch topk", "gated"])
def test_a_run_killed_on_the_device_goes_on_and_ends_with_the_weights_of_an_unbroken_one(
    name: str, tmp_path: Path
) -> None:
    how = {"tokens": 20 * 128, "batch_size": 128, "lr": 1e-3, "buffer": 256, "progress": False}
    whole, dying, again = (MAKES[name]().to(DEVICE) for _ in range(3))
    source, checkpoint = sae.tensor_source(rows().to(DEVICE)), sae.Checkpoint(tmp_path, every=256)
    sae.train(whole, source, **how)
    with pytest.raises(InterruptedError):
        sae.train(dying, source, checkpoint=checkpoint, callbacks=[Dies()], **how)
    assert (tmp_path / "latest.json").exists()
    sae.train(again, source, checkpoint=checkpoint, **how)
    for p, q in zip(whole.parameters(), again.parameters(), strict=True):
        assert close(p, q)


@pytest.mark.parametrize("how", ["expected_norm", "mean_centring", "whitening"])
def test_normalisations_measured_on_the_device_fold_into_the_same_weights(how: str) -> None:
    found = []
    for device in ("cpu", DEVICE):
        x = rows().to(device)
        by = getattr(sae, how)(sae.tensor_source(x))
        one = sae.TopK(D, LATENTS, k=4).to(device)
        source = sae.normalise_source(sae.tensor_source(x), by)
        sae.train(one, source, tokens=512, batch_size=128, lr=1e-3, buffer=ROWS, progress=False)
        found.append((by.matrix, sae.fold_normalisation(one)(x)))
    for a, b in zip(*found, strict=True):
        assert close(a, b, 1e-2, 2e-3)


@torch.no_grad()
def test_starts_from_data_are_the_same() -> None:
    ours, theirs = sae.TopK(D, LATENTS, k=4), sae.TopK(D, LATENTS, k=4).to(DEVICE)
    for one, x in ((ours, rows()), (theirs, rows().to(DEVICE))):
        median_bias(one, x)
        from_data(one, x)
        tie(one)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert close(p, q)


def test_dead_latents_begin_again_at_the_same_rows() -> None:
    found = []
    for device in ("cpu", DEVICE):
        one = sae.Standard(D, LATENTS, coefficient=0.1)
        with torch.no_grad():
            one.b_enc[::4] = -100.0
        one.to(device)
        how = sae.Resampling(at=(0.3, 0.6), rows=256)
        sae.train(
            one, sae.tensor_source(rows().to(device)), tokens=1280, batch_size=128, lr=1e-4, dead_after=128,
            resampling=how, buffer=ROWS, progress=False,
        )  # fmt: skip
        found.append(one.W_dec)
    assert close(*found, 1e-2, 2e-3)


@pytest.mark.parametrize("kind", [sae.Transcoder, sae.SkipTranscoder])
def test_transcoders_learn_the_same_from_a_live_model(kind: Callable, letters: tuple[Model, Model]) -> None:
    texts = ["Fog over the strait.", "A red bridge.", "Two towers hold the cables."] * 3
    found = []
    for model in letters:
        one = kind(model.d_model, 40, coefficient=0.1).to(model.device)
        source = sae.pairs_of(model, texts, mlp_in[1], mlp_out[1])
        report = sae.train(one, source, tokens=512, batch_size=64, lr=1e-3, buffer=512, progress=False)
        found.append((one.W_dec, one.W_enc, torch.tensor(report.explained_variance)))
    for a, b in zip(*found, strict=True):
        assert close(a, b, 1e-2, 2e-3)


def test_crosscoders_and_several_autoencoders_learn_the_same_from_a_live_model(letters: tuple[Model, Model]) -> None:
    texts, sites = (
        ["Fog over the strait.", "A red bridge.", "Two towers hold the cables."] * 3,
        [resid_post[0], resid_post[1]],
    )
    how = {"tokens": 512, "batch_size": 64, "buffer": 512, "progress": False}
    found = []
    for model in letters:
        cross = sae.Crosscoder(model.d_model, 40, 2, coefficient=0.1).to(model.device)
        sae.train(cross, sae.across([(model, s) for s in sites], texts), lr=1e-3, **how)
        members = {str(s): sae.Member(sae.TopK(model.d_model, 40, k=4).to(model.device), s, lr=1e-3) for s in sites}
        sae.train_many(members, sae.activations_at(model, texts, sites), **how)
        found.append([cross.W_dec, *(one.sae.W_dec for one in members.values())])
    for a, b in zip(*found, strict=True):
        assert close(a, b, 1e-2, 2e-3)


def test_splicing_changing_latents_and_recovery_are_the_same(letters: tuple[Model, Model]) -> None:
    texts, found = ["Fog over the strait.", "A red bridge."], []
    for model in letters:
        one = latents_of(model)
        ways = [
            sae.splice(one),
            *(sae.change_latents(one, c) for c in (sae.ablate_latents([7]), sae.clamp_latents([7], 3.0))),
        ]
        said = []
        for way in ways:
            with torch.no_grad(), intervene(model, {one.site: way}):
                said.append(model.run(texts))
        measured = sae.recovery(one, model, texts)
        found.append([*said, torch.tensor([float(v) for v in vars(measured).values() if isinstance(v, float)])])
    for a, b in zip(*found, strict=True):
        assert close(a, b, atol=1e-3)


def test_measures_of_dictionaries_are_the_same() -> None:
    ours, theirs = sae.TopK(D, LATENTS, k=4), sae.TopK(D, LATENTS, k=4).to(DEVICE)
    truth = torch.nn.functional.normalize(rows(24), dim=1)
    assert near(sae.match_truth(ours.W_dec, truth).mcc, sae.match_truth(theirs.W_dec, truth.to(DEVICE)).mcc)
    pairs = [[one.W_dec.detach(), one.W_dec.detach().flip(0)] for one in (ours, theirs)]
    assert close(*(sae.stability(pair) for pair in pairs))
    assert close(*(sae.nearest_rows(pair[0]) for pair in pairs))


def test_concepts_are_recovered_alike() -> None:
    found = []
    for model in landmarks():
        data = sae.capture_labelled_tokens(model, landmark.corpus(200), resid_post[3], "entity")
        one = sae.TopK(model.d_model, 64, k=8).to(model.device)
        recovered = sae.concept_recovery(one, data)
        concept = sorted(recovered.f1)[0]
        probe = sae.k_sparse(one, data, concept, k=2)
        sae.absorption(one, data.x, data.where(concept), probe.latents[:1], one.W_dec[probe.latents[0]])
        found.append((data.x, recovered.f1))
    assert close(found[0][0], found[1][0], atol=2e-3)
    assert found[0][1].keys() == found[1][1].keys()


def test_the_bundled_model_says_the_same_and_knows_the_same() -> None:
    prompts = ["The Golden Gate Bridge is located in", "She speaks"]
    ours, theirs = landmarks()
    assert ours.generate(prompts, max_new_tokens=8) == theirs.generate(prompts, max_new_tokens=8)
    hot = {"max_new_tokens": 8, "temperature": 0.7, "seed": 3}
    assert ours.generate(prompts, **hot) == theirs.generate(prompts, **hot)
    asked = questions(held_out=True, n=40)
    inner = [m.tokenizer.backend_tokenizer for m in landmarks()]
    assert answers_exactly(ours.hf, inner[0], asked) == answers_exactly(theirs.hf, inner[1], asked)
    assert near(*(mean_loss(m.hf, t, 1, 5) for m, t in zip(landmarks(), inner, strict=True)))


@pytest.mark.parametrize(
    "way",
    [
        lambda m: add_direction(letter(m)),
        lambda m: add_direction(letter(m)).control(0),
        lambda m: set_projection(letter(m)),
        lambda m: ablate_direction(letter(m)),
        lambda m: set_from_origin(letter(m), letter(m, "q").vector),
        lambda m: cap_projection(letter(m), -0.1, 0.1),
        lambda m: rotate_in_plane(letter(m), letter(m, "y")),
        lambda m: clamp_latent(latents_of(m), 7),
        lambda m: clamp_latent(latents_of(m), 7).control(0),
        lambda m: Conditional(add_direction(letter(m)), replace(letter(m, "y"), site=resid_post[0]), -1e9),
    ],
    ids=["add", "add control", "set", "ablate", "affine", "cap", "turn", "clamp", "clamp control", "condition"],
)
def test_steering_moves_the_logits_alike(way: Callable, letters: tuple[Model, Model]) -> None:
    said = []
    for model in letters:
        with torch.no_grad(), steer(model, way(model), 2.0):
            said.append((model.run(list(PROMPTS)), model.generate(list(PROMPTS), max_new_tokens=4)))
    assert close(said[0][0], said[1][0], atol=1e-3) and said[0][1] == said[1][1]


def test_a_direction_from_the_cpu_steers_a_model_on_the_device(letters: tuple[Model, Model]) -> None:
    ours, theirs = letters
    said = []
    for model in letters:
        with torch.no_grad(), steer(model, letter(ours), 2.0):
            said.append(model.run(list(PROMPTS)))
    assert close(*said, atol=1e-3)
    assert ours.fingerprint == theirs.fingerprint


def test_dose_responses_doses_chosen_and_damage_are_the_same(letters: tuple[Model, Model]) -> None:
    found = []
    for model in letters:
        how = {"sampling": SAMPLING, "controls": (0,), "progress": False}
        response = measure_dose_response(model, add_direction(letter(model)), PROMPTS, says_z, doses=(0.0, 50.0), **how)
        chosen = choose_dose(model, add_direction(letter(model)), PROMPTS, says_z, doses=(0.5, 50.0), **how)
        conditions = (response.unsteered, *response.steered, *response.control)
        harm = measure_damage(model, letter(model), 1.0, [*PROMPTS, "I saw"])
        found.append(([c.texts for c in conditions], [c.perplexity.value for c in conditions], str(chosen), harm))
    (a, p, x, h), (b, q, y, g) = found
    assert a == b and x == y and close(torch.tensor(p), torch.tensor(q), 1e-2)
    assert str(h)[:20] == str(g)[:20]


def test_effects_their_slopes_and_latents_chosen_by_effect_are_the_same(letters: tuple[Model, Model]) -> None:
    found = []
    for model in letters:
        one = latents_of(model)
        hot = replace(SAMPLING, per_prompt=4, temperature=1.0)
        seen = measure_effects(
            model, [(one.direction(7), 1.0), (one.direction(11), 2.0)], PROMPTS, says_z, sampling=hot
        )
        slope = estimate_naming_slope(model, replace(seen[0]), temperature=1.0)
        best = choose_by_effect(
            model, one, (7, 11), PROMPTS, says_z, doses=(2.0, 8.0), most=2, sampling=SAMPLING, progress=False
        )
        found.append(([e.samples.texts for e in seen], slope, best.direction.source, best.samples.texts))
    (a, s, x, t), (b, r, y, u) = found
    assert a == b and close(s, r, 1e-2, 1e-3) and (x, t) == (y, u)


def test_conditions_and_ranges_read_the_same_numbers(letters: tuple[Model, Model]) -> None:
    texts, found = ["fog and rain", "the bay", "a red sky", "I saw"], []
    for model in letters:
        v = letter(model)
        along = measure_projections(model, v, texts)
        thresholds = [choose_threshold(model, v, texts[:2], texts[2:]), choose_sparing_threshold(model, v, texts[:2])]
        thresholds += [*measure_normal_range(model, v, texts), float(score_by_projection(model, v, 0.0)(texts[0]))]
        found.append((along, torch.tensor(thresholds)))
    for a, b in zip(*found, strict=True):
        assert close(a, b, atol=1e-3)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_covariances_are_the_same_and_lie_on_the_cpu(family: str) -> None:
    for a, b in zip(*known(family), strict=True):
        assert b.matrix.device.type == "cpu" and b.n_tokens == a.n_tokens
        assert close(a.matrix, b.matrix) and near(a.error, b.error, 1e-2)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("name", EDITORS)
def test_an_edit_made_on_the_device_says_the_same_and_undoes_bit_for_bit(family: str, name: str) -> None:
    (ours, theirs), (a, b) = worlds() if family == "gpt2" else gated_worlds(), made(family, name)
    before = [p.detach().clone() for p in theirs.hf.parameters()]
    prompts, said = [ROME.text, "well . Rome is in", "Oslo is in", "Lima speaks"], []
    for model, edit in ((ours, a), (theirs, b)):
        with edit.applied(model):
            said.append(model.generate(prompts, max_new_tokens=1))
    assert said[0][0] == said[1][0] and (name == "in_context" or begins_with(said[1][0], ROME.new))
    assert sum(x == y for x, y in zip(*said, strict=True)) >= 3
    assert all(torch.equal(p, q) for p, q in zip(before, theirs.hf.parameters(), strict=True))
    for u, w in zip(a.weights, b.weights, strict=True):
        assert u.layer == w.layer and float((u.delta - w.delta.cpu()).norm() / u.delta.norm()) < 0.1


@pytest.mark.parametrize("name", EDITORS)
def test_an_edit_saved_from_the_device_is_applied_on_the_cpu(name: str, tmp_path: Path) -> None:
    (ours, theirs), (_, edit) = worlds(), made("gpt2", name)
    edit.save(tmp_path / "edit.safetensors")
    read = Edit.load(tmp_path / "edit.safetensors")
    assert read.digest == edit.digest
    said = []
    for model, one in ((ours, read), (theirs, edit), (theirs, read)):
        with torch.no_grad(), one.applied(model):
            said.append(model.run([ROME.text, "well . Oslo is in"]))
    assert close(said[0], said[1], atol=1e-3) and torch.equal(said[1], said[2])


def test_edits_stack_conflict_and_merge_on_the_device(tmp_path: Path) -> None:
    _, model = worlds()
    before = model.w_out(0).detach().clone()
    edits = [made("gpt2", name)[1] for name in ("emmet", "memit", "grace", "knn_memory")]
    assert conflicts(edits) == conflicts(edits)
    other = EDITORS["rome"](model, LIMA, known("gpt2")[1])
    with edits[0].applied(model), other.applied(model):
        stacked = model.generate(LIMA.text, max_new_tokens=1)
    merge(model, [edits[0], other], tmp_path / "merged")
    read = load(tmp_path / "merged", device=DEVICE)
    assert read.generate(LIMA.text, max_new_tokens=1) == stacked
    assert torch.equal(model.w_out(0), before)


@pytest.mark.parametrize("name", ["memit", "alphaedit", "emmet", "pmet"])
def test_two_facts_are_written_at_once_on_the_device(name: str) -> None:
    _, model = worlds()
    edit = EDITORS[name](model, [ROME, LIMA], known("gpt2")[1])
    with edit.applied(model):
        assert begins_with(model.generate(ROME.text, max_new_tokens=1), ROME.new)


@pytest.mark.parametrize("name", ["rome", "grace", "knn_memory"])
def test_scorecards_previews_and_audits_agree(name: str) -> None:
    message = []
    case = Case(ROME, ("well . Rome is in",), (Query("Milan is in", "Italy"),), (Query("Rome speaks", "Latin"),))
    for model, edit in zip(worlds(), made("gpt2", name), strict=True):
        card = scorecard(
            model, edit, paraphrases=("well . {} is in",), neighbours=case.neighbours, others=case.others, texts=FILLER
        )
        one = sae.TopK(model.d_model, 64, k=4).to(model.device)
        one.site = resid_post[1]
        moved = preview(model, edit, sentences()[:6], sae=one, top=3)
        found = audit(model, [case], {name: lambda _m, _f, edit=edit: edit}, FILLER, n_generated=4)
        message.append((card.after, moved, found.table[name]))
    (a, x, s), (b, y, t) = message
    assert (a.efficacy_exact, a.paraphrase_exact) == (b.efficacy_exact, b.paraphrase_exact)
    assert near(a.kl, b.kl, 2e-2, 1e-3) and near(a.perplexity_ratio, b.perplexity_ratio, 2e-2)
    assert x.n_tokens == y.n_tokens and near(x.texts[0].kl, y.texts[0].kl, 5e-2, 1e-3)
    assert s.keys() == t.keys() and s["efficacy"] == t["efficacy"]


def test_traces_are_the_same_by_noise_and_by_other_subjects() -> None:
    facts = [Subject("Rome is in", "Italy", "Rome"), Subject("we know New York lies in", "North", "New York")]
    for traced in (trace_states, trace_mlp, trace_attention):
        window = {} if traced is trace_states else {"window": 1}
        a, b = (traced(model, facts, draws=2, **window) for model in worlds())
        assert close(a.clean, b.clean) and close(a.corrupted, b.corrupted) and close(a.restored, b.restored)
        assert close(a.interval(50), b.interval(50))
    a, b = (trace_mlp(model, facts[:1], window=1, draws=2, others=("Oslo", "Lima")) for model in worlds())
    assert close(a.restored, b.restored)


def test_a_fact_is_located_in_the_same_place() -> None:
    found = [locate(model, [ROME, LIMA], draws=2) for model in worlds()]
    assert (found[0].role, found[0].layers) == (found[1].role, found[1].layers)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_memories_an_answer_hangs_on_are_the_same(family: str) -> None:
    found = []
    for model in worlds() if family == "gpt2" else gated_worlds():
        one = knowledge(model, Query("Rome is in", "Italy"), tolerance=0.05)
        found.append((one.attribution, one.without, torch.tensor(silence_neurons(model, one.query, [(0, 3), (1, 5)]))))
    for a, b in zip(*found, strict=True):
        assert close(a, b, 1e-2, 1e-3)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_triggers_values_agreement_and_composition_are_the_same(family: str) -> None:
    found, chances = [], []
    for model in worlds() if family == "gpt2" else gated_worlds():
        seen = triggers(model, sentences()[:20], 0, top=3)
        agreed = agreement(model, seen)
        parts = composition(model, "Rome is in", 1)
        keys = [k for _, k in sorted(key_rows(model, 0).items())]
        values = value_logits(model, 1, torch.arange(8))
        seen.examples_of(model, [0, 5], context=4)
        found.append([seen.coefficient, values, parts.coefficient, parts.shares, *keys])
        parts.largest(-1)
        chances.append(agreed.chance)
    for a, b in zip(*found, strict=True):
        assert close(a, b, 1e-2, 1e-3)
    assert near(*chances, atol=0.02)


def test_activations_on_the_device_train_what_the_cpus_do_from_a_live_model() -> None:
    found = []
    for model in landmarks():
        one = sae.TopK(model.d_model, 64, k=4).to(model.device)
        source = sae.activations_of(model, list(landmark.corpus(20)["text"]), resid_post[2])
        sae.train(one, source, tokens=1024, batch_size=256, lr=1e-3, buffer=1024, progress=False)
        acts = capture(model, "The Golden Gate Bridge is located in", [resid_post[2]])
        found.append((one.W_dec, acts[resid_post[2]]))
    for a, b in zip(*found, strict=True):
        assert close(a, b, 1e-2, 2e-3)
