"""A GPU gives what the CPU gives: what is read, changed, searched and estimated on it against the same on the CPU."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hooks import Direction, Intervention, Model, capture, capture_gradients, harvest, intervene, load
from hooks.interventions import add, clamp, mean, noise, project_out, replace, scale, zero
from hooks.position import Position, after, everywhere, first, generated, index, last, prompt, special, substring
from hooks.position import slice as between
from hooks.site import attn_out, embed, logits, mlp_act, mlp_out, pattern, resid_post, resid_pre, z
from hooks.store import ActivationStore, ShuffledRows
from interp.circuits import (
    attribution_patching,
    denoising,
    each_head,
    each_head_and_position,
    each_layer,
    each_position,
    integrated_attribution,
    logit_difference,
    patch_sweep,
)
from interp.circuits.heads import copying, duplicate_token, induction, previous_token
from interp.directions import (
    Pairs,
    caa,
    compare,
    ffn_value,
    lens_row,
    mean_centring,
    probe_direction,
    refusal,
    repe,
    unembedding,
)
from interp.features import Concept, Mention, by_text, by_token, collect_evidence, search
from interp.lenses import (
    LogitLens,
    TunedLens,
    attribute,
    components,
    fit_jacobian,
    heads,
    linearise_norm,
    neurons,
    rank,
    read,
    tune,
)
from interp.lenses import latents as of_latents
from interp.sae import TopK
from probes import (
    CCS,
    LDA,
    LEACE,
    MLP,
    AttentionProbe,
    DifferenceOfMeans,
    Examples,
    KSparse,
    Logistic,
    MassMean,
    Multinomial,
    Ridge,
    auroc,
    best_threshold,
    detection,
    does_it_matter,
    sweep,
)
from probes import logit_difference as answer_difference
from tests.gpu import DEVICE, on_a_gpu

pytestmark = on_a_gpu
TEXTS = ["The Golden Gate Bridge is located in San Francisco", "Fog came over the bay", "Tower Bridge is in London"]
BRIDGE = [f"The Golden Gate Bridge {end}" for end in ("is red", "is in San Francisco", "is long", "opened in 1937")]
TOWER = [f"The Eiffel Tower {end}" for end in ("is high", "is in Paris", "is made of iron", "opened in 1889")]
CLEAN, CORRUPT = "The Golden Gate Bridge is located in", "The Golden Gate Tower is located in"
POSITIONS = [everywhere, prompt, special, first(2), index(-2), last, between(1, 3)]


@pytest.fixture(scope="module")
def cpu() -> Model:
    return load("landmark")


@pytest.fixture(scope="module")
def gpu() -> Model:
    return load("landmark", device=DEVICE)


@pytest.fixture(scope="module")
def direction(cpu: Model) -> Direction:
    vector = torch.randn(cpu.d_model, generator=torch.Generator().manual_seed(0))
    return Direction(vector, resid_post[3], "random", 5.0, cpu.fingerprint)


def same(got: Tensor, expected: Tensor, rtol: float = 1e-4, atol: float = 1e-4) -> None:
    torch.testing.assert_close(got.detach().cpu(), expected.detach().cpu(), rtol=rtol, atol=atol, equal_nan=True)


def on_gpu(tensor: Tensor) -> bool:
    return tensor.device.type == torch.device(DEVICE).type


def random_sae(model: Model) -> TopK:
    """An autoencoder of random directions in the stream after layer 3."""
    sae = TopK(model.d_model, 64, k=4)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        rows = torch.nn.functional.normalize(torch.randn(64, model.d_model, generator=generator), dim=1)
        sae.W_dec.copy_(rows)
        sae.W_enc.copy_(rows.T)
        sae.max_activation.fill_(3.0)
    sae.site, sae.model_name, sae.fingerprint = resid_post[3], model.name, model.fingerprint
    return sae.to(model.device)


def test_a_model_put_on_a_gpu_is_there_whole_and_keeps_its_contract(cpu: Model, gpu: Model) -> None:
    assert all(on_gpu(parameter) for parameter in gpu.hf.parameters())
    assert gpu.fingerprint == cpu.fingerprint
    assert gpu.contract is not None and cpu.contract is not None
    assert gpu.contract.refused == cpu.contract.refused


@pytest.mark.parametrize("at", POSITIONS, ids=str)
def test_a_gpu_captures_what_the_cpu_captures(cpu: Model, gpu: Model, at: Position) -> None:
    sites = [embed, resid_pre[0], resid_post[3], attn_out[2], mlp_out[1], mlp_act[2], z[1], logits]
    ours, theirs = (capture(model, TEXTS, sites) for model in (gpu, cpu))
    for site in sites:
        assert on_gpu(ours[site])
        same(ours.flat(site, at=at), theirs.flat(site, at=at))


def test_a_gpu_captures_the_attention_patterns_of_the_cpu_batch_by_batch(cpu: Model, gpu: Model) -> None:
    ours, theirs = (capture(model, TEXTS, [pattern[0], pattern[3]], batch_size=2) for model in (gpu, cpu))
    for site in ours.sites:
        same(ours[site], theirs[site])


@pytest.mark.parametrize("at", [substring("Bridge"), substring("Bridge", occurrence=0), after("Gate")], ids=str)
def test_a_gpu_finds_words_in_a_text_as_the_cpu_does(cpu: Model, gpu: Model, at: Position) -> None:
    assert at.mask(gpu.tokens(CLEAN)).tolist() == at.mask(cpu.tokens(CLEAN)).tolist()


def test_a_gpu_finds_the_gradients_of_the_cpu(cpu: Model, gpu: Model) -> None:
    def slopes(model: Model) -> Any:
        tokens = model.tokens(TEXTS)
        ends = last.mask(tokens)
        return capture_gradients(model, tokens, [resid_post[2], mlp_out[3]], lambda said: said[ends][:, 7].sum())

    ours, theirs = slopes(gpu), slopes(cpu)
    same(ours.metric, theirs.metric)
    for site in ours.gradients.sites:
        same(ours.gradients[site], theirs.gradients[site])


def every_intervention(direction: Direction, donor: Tensor) -> dict[str, Intervention]:
    value = torch.linspace(-1, 1, len(direction.vector))
    return {
        "add": add(direction, 2.0),
        "add to the last": add(direction, 2.0, at=last),
        "scale": scale(0.5, at=last),
        "zero": zero(at=last),
        "mean": mean(value, at=last),
        "replace by one": replace(value, at=last),
        "replace by one each": replace(torch.stack([value, 2 * value, 3 * value]), at=last),
        "replace by a capture": replace(donor, at=prompt),
        "project_out": project_out(direction),
        "clamp": clamp(direction, 3.0),
        "noise": noise(0.5, seed=3, at=everywhere),
    }


def test_a_gpu_changes_what_the_cpu_changes_under_every_intervention(
    cpu: Model, gpu: Model, direction: Direction
) -> None:
    donor = capture(cpu, TEXTS, resid_post[2])[resid_post[2]]
    for name, change in every_intervention(direction, donor).items():
        said = []
        for model in (gpu, cpu):
            with intervene(model, {resid_post[3]: change}) as receipt:
                tokens = model.tokens(TEXTS)
                said.append(model.run(tokens)[everywhere.mask(tokens)])
                divergence = receipt.kl(TEXTS, at=last)
            assert receipt[resid_post[3]].fired == 2, name
            said.append(divergence)
        same(said[0], said[2], rtol=1e-3, atol=1e-3)
        same(said[1], said[3], rtol=1e-3, atol=1e-3)


def test_vectors_on_the_gpu_change_a_model_there_as_vectors_on_the_cpu_do(gpu: Model, direction: Direction) -> None:
    moved = direction.vector.to(gpu.device)
    said = []
    for vector in (moved, direction.vector):
        with intervene(gpu, {resid_post[3]: [project_out(vector, at=last), add(vector, 2.0, at=last)]}):
            said.append(gpu.run(TEXTS))
    torch.testing.assert_close(said[0], said[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_gpu_writes_what_the_cpu_writes(cpu: Model, gpu: Model, direction: Direction, temperature: float) -> None:
    prompts, said = ["The Golden Gate Bridge is", "In the morning"], []
    for model in (gpu, cpu):
        plain = model.generate(prompts, max_new_tokens=12, temperature=temperature, seed=1)
        with intervene(model, {resid_post[3]: add(direction, 0.3, at=generated | prompt)}) as receipt:
            steered = model.generate(prompts, max_new_tokens=12, temperature=temperature, seed=1)
        said.append((plain, steered, receipt[resid_post[3]].decode_tokens))
    assert said[0] == said[1]


def test_a_store_written_from_a_gpu_holds_what_one_from_the_cpu_holds(cpu: Model, gpu: Model, tmp_path: Path) -> None:
    texts, sites = TEXTS * 4, [resid_post[3], mlp_act[1]]
    stores: list[ActivationStore] = []
    for name, model in (("gpu", gpu), ("cpu", cpu)):
        harvest(model, texts, sites, tmp_path / name, dtype=torch.float32, batch_size=2)
        stores.append(ActivationStore(tmp_path / name))
    ours, theirs = stores
    assert len(ours) == len(theirs)
    for site in sites:
        same(ours[:][site], theirs[:][site])
    assert torch.equal(ours[:].ids, theirs[:].ids)
    orders = [
        [batch[resid_post[3]] for batch in ShuffledRows(store, [resid_post[3]], batch_size=8)] for store in stores
    ]
    for one, other in zip(*orders, strict=True):
        same(one, other)


def rows(model: Model) -> tuple[Tensor, Tensor]:
    x = capture(model, [*BRIDGE, *TOWER], resid_post[2]).flat(resid_post[2])
    tokens = model.tokens([*BRIDGE, *TOWER])
    text = everywhere.mask(tokens).nonzero()[:, 0]
    return x, text < len(BRIDGE)


@pytest.mark.parametrize(
    "make",
    [
        DifferenceOfMeans,
        Logistic,
        MassMean,
        lambda: LDA(shrinkage=0.1),
        lambda: KSparse(4),
        lambda: Ridge(1.0),
        Multinomial,
    ],
    ids=["difference of means", "logistic", "mass-mean", "lda", "k-sparse", "ridge", "multinomial"],
)
def test_a_probe_fitted_on_a_gpu_is_the_one_fitted_on_the_cpu(cpu: Model, gpu: Model, make: Any) -> None:
    x, y = rows(cpu)
    x = x[:, :64].contiguous()
    labels = y.float() if make().__class__ is Ridge else y.long() if make().__class__ is Multinomial else y
    score = "predict" if make().__class__ is Ridge else "decision_function"
    on_cpu, there = make().fit(x, labels), make().fit(x.to(DEVICE), labels.to(DEVICE))
    expected = getattr(on_cpu, score)(x)
    size = float(expected.abs().max())
    same(getattr(there, score)(x.to(DEVICE)) / size, expected / size, rtol=1e-3, atol=1e-3)


def test_a_network_probe_trains_on_a_gpu_from_the_same_start(cpu: Model) -> None:
    x, y = rows(cpu)
    ours, theirs = (MLP(seed=1, steps=20).fit(x.to(device), y.to(device)) for device in (DEVICE, "cpu"))
    same(ours.decision_function(x.to(DEVICE)), theirs.decision_function(x), rtol=1e-2, atol=1e-2)


def test_an_attention_probe_trains_on_a_gpu_from_the_same_start(cpu: Model) -> None:
    acts = capture(cpu, [*BRIDGE, *TOWER], resid_post[2])
    x, mask, y = acts[resid_post[2]], everywhere.mask(acts.tokens), torch.arange(8) < 4
    made = [
        AttentionProbe(seed=1, steps=20).fit(x.to(device), y.to(device), mask.to(device)) for device in (DEVICE, "cpu")
    ]
    ours, theirs = made[0].decision_function(x.to(DEVICE), mask.to(DEVICE)), made[1].decision_function(x, mask)
    same(ours, theirs, rtol=1e-2, atol=1e-2)


def test_what_needs_no_labels_and_what_erases_them_agrees_on_a_gpu(cpu: Model) -> None:
    x, y = rows(cpu)
    n = min(int(y.sum()), int((~y).sum()))
    pairs = torch.stack([x[y][:n], x[~y][:n]], 1)
    ours, theirs = (CCS(seed=0).fit(pairs.to(device)) for device in (DEVICE, "cpu"))
    assert ours.loss_ == pytest.approx(theirs.loss_, abs=1e-2)
    same(LEACE().fit(x.to(DEVICE), y.to(DEVICE)).transform(x.to(DEVICE)), LEACE().fit(x, y).transform(x), 1e-3, 1e-3)


def test_scores_on_a_gpu_are_measured_as_on_the_cpu(cpu: Model) -> None:
    x, y = rows(cpu)
    scores = DifferenceOfMeans().fit(x, y).decision_function(x)
    assert float(auroc(scores.to(DEVICE), y.to(DEVICE))) == pytest.approx(float(auroc(scores, y)))
    cut = best_threshold(scores, y)
    assert best_threshold(scores.to(DEVICE), y.to(DEVICE)) == pytest.approx(cut)
    assert detection(scores.to(DEVICE), y.to(DEVICE), cut) == detection(scores, y, cut)


def test_a_sweep_of_probes_on_a_gpu_finds_what_it_finds_on_the_cpu(cpu: Model, gpu: Model) -> None:
    examples = Examples([*BRIDGE, *TOWER] * 2, ([True] * 4 + [False] * 4) * 2, [str(i) for i in range(8)] * 2)
    ours, theirs = (
        sweep(model, examples, [resid_post[1], resid_post[3]], [last], probe=Logistic(), permutations=2)
        for model in (gpu, cpu)
    )
    assert str(ours) == str(theirs)
    same(ours.direction.vector, theirs.direction.vector, 1e-2, 1e-3)


def test_whether_a_direction_matters_is_the_same_on_a_gpu(cpu: Model, gpu: Model, direction: Direction) -> None:
    found = [does_it_matter(direction, model, BRIDGE, answer_difference(" San", " London")) for model in (gpu, cpu)]
    assert found[0].used == found[1].used
    same(found[0].baseline, found[1].baseline, 1e-3, 1e-3)


@pytest.mark.parametrize("unit", [by_text, by_token], ids=["texts", "tokens"])
def test_a_search_on_a_gpu_finds_what_it_finds_on_the_cpu(cpu: Model, gpu: Model, unit: Any) -> None:
    mentions = [[Mention(4, 22)] for _ in BRIDGE] + [[] for _ in TOWER]
    concept = Concept("bridge", [*BRIDGE, *TOWER], [True] * 4 + [False] * 4, mentions)
    ours, theirs = (
        search(random_sae(model), model, concept, unit=unit, top=5, permutations=20) for model in (gpu, cpu)
    )
    assert [one.latent for one in ours.latents] == [one.latent for one in theirs.latents]
    assert ours.p_value == theirs.p_value
    for one, other in zip((*ours.latents, *ours.baselines), (*theirs.latents, *theirs.baselines), strict=True):
        assert one.held_out.f1 == pytest.approx(other.held_out.f1)


def test_the_evidence_for_a_latent_is_the_same_on_a_gpu(cpu: Model, gpu: Model) -> None:
    ours, theirs = (collect_evidence(random_sae(model), model, [*BRIDGE, *TOWER], 5) for model in (gpu, cpu))
    assert [one.activation for one in ours.examples] == pytest.approx(
        [one.activation for one in theirs.examples], abs=1e-4
    )


def test_lenses_read_on_a_gpu_what_they_read_on_the_cpu(cpu: Model, gpu: Model) -> None:
    for made in (LogitLens, TunedLens.identity):
        ours, theirs = (read(made(model), TEXTS) for model in (gpu, cpu))
        assert ours.tokens == theirs.tokens
        same(ours.kl, theirs.kl, 1e-3, 1e-3)
        same(ours.entropy, theirs.entropy, 1e-3, 1e-3)
        same(ours.probability, theirs.probability, 1e-3, 1e-4)
        same(ours.mean_kl, theirs.mean_kl, 1e-3, 1e-3)
    ours, theirs = (rank(LogitLens(model), TEXTS, " San") for model in (gpu, cpu))
    assert ours.ranks.tolist() == theirs.ranks.tolist()


def test_a_lens_tuned_on_a_gpu_is_the_one_tuned_on_the_cpu(cpu: Model, gpu: Model, tmp_path: Path) -> None:
    ours, theirs = (tune(model, TEXTS, steps=3, batch_size=2) for model in (gpu, cpu))
    same(ours.b, theirs.b, 1e-2, 1e-3)
    tune(gpu, TEXTS, steps=3, batch_size=2, checkpoint=tmp_path / "half")
    again = tune(gpu, TEXTS, steps=3, batch_size=2, checkpoint=tmp_path / "half")
    same(again.A, ours.A)
    ours.save(tmp_path / "lens")
    same(TunedLens.load(tmp_path / "lens", gpu).A, ours.A)
    x = torch.linspace(-1, 1, gpu.d_model, device=gpu.device)[None]
    assert on_gpu(ours.read(x, 1))


def test_a_jacobian_lens_fitted_on_a_gpu_is_the_one_fitted_on_the_cpu(cpu: Model, gpu: Model) -> None:
    ours, theirs = (
        fit_jacobian(model, TEXTS[:1], layers=[model.n_layers - 3, model.n_layers - 2], skip=3, batch_size=64)
        for model in (gpu, cpu)
    )
    for layer, J in theirs.J.items():
        same(ours.J[layer], J, 1e-3, 1e-3)
    same(ours.direction(" San", cpu.n_layers - 2).vector, theirs.direction(" San", cpu.n_layers - 2).vector, 1e-3, 1e-3)


@pytest.mark.parametrize("into", [components, heads, neurons], ids=["components", "heads", "neurons"])
def test_a_gpu_splits_a_logit_into_the_parts_of_the_cpu(cpu: Model, gpu: Model, into: Any) -> None:
    for settings in ({}, {"versus": " London"}, {"norm": linearise_norm}):
        ours, theirs = (attribute(model, CLEAN, " San", into=into, **settings) for model in (gpu, cpu))
        same(ours.parts, theirs.parts, 1e-3, 1e-3)
        same(ours.logit, theirs.logit, 1e-3, 1e-3)
        assert ours.top(1)[0][0] == theirs.top(1)[0][0]


def test_a_gpu_splits_a_logit_into_the_latents_of_the_cpu(cpu: Model, gpu: Model) -> None:
    ours, theirs = (attribute(model, CLEAN, " San", into=of_latents(random_sae(model))) for model in (gpu, cpu))
    same(ours.parts, theirs.parts, 1e-3, 1e-3)


@pytest.mark.parametrize(
    "over",
    [each_position([resid_pre[2]]), each_head([z[1], z[2]]), each_head_and_position([z[2]]), each_layer(mlp_out)],
    ids=["positions", "heads", "heads and positions", "layers"],
)
def test_a_gpu_patches_and_estimates_patches_as_the_cpu_does(cpu: Model, gpu: Model, over: Any) -> None:
    for patch in (patch_sweep, attribution_patching, lambda *a, **k: integrated_attribution(*a, steps=2, **k)):
        ours, theirs = (
            patch(model, denoising([CLEAN] * 2, [CORRUPT] * 2), logit_difference(model, " San", " London"), over=over)
            for model in (gpu, cpu)
        )
        same(ours.patched, theirs.patched, 1e-3, 1e-3)
        same(ours.interval(draws=10), theirs.interval(draws=10), 1e-2, 1e-2)


@pytest.mark.parametrize("score", [induction, duplicate_token, previous_token])
def test_a_gpu_scores_heads_as_the_cpu_does(cpu: Model, gpu: Model, score: Any) -> None:
    ours, theirs = (score(model, length=10, n=2) for model in (gpu, cpu))
    same(ours.values, theirs.values)
    same(ours.control, theirs.control)
    assert ours.top(1)[0][:2] == theirs.top(1)[0][:2]


def test_a_gpu_scores_copying_heads_as_the_cpu_does(cpu: Model, gpu: Model) -> None:
    ours, theirs = (copying(model) for model in (gpu, cpu))
    same(ours.values, theirs.values, 1e-2, 1e-2)


def test_a_gpu_gives_the_directions_of_the_cpu(cpu: Model, gpu: Model) -> None:
    pairs = Pairs(BRIDGE, [text.replace("Bridge", "Tower") for text in BRIDGE])
    site = resid_post[2]
    used = int(capture(cpu, BRIDGE, [mlp_act[2]]).flat(mlp_act[2]).amax(0).argmax())
    roads = {
        "caa": lambda model: caa(model, pairs, site, last),
        "caa of the answer": lambda model: caa(model, pairs, site),
        "repe": lambda model: repe(model, pairs, site),
        "mean centred": lambda model: mean_centring(model, BRIDGE, TOWER, site),
        "probe_direction": lambda model: probe_direction(model, BRIDGE, TOWER, site, Logistic()),
        "value": lambda model: ffn_value(model, 2, used, BRIDGE),
        "unembedding": lambda model: unembedding(model, " is", site, BRIDGE),
        "lens row": lambda model: lens_row(model, " is", site, BRIDGE),
    }
    found = {name: (road(gpu), road(cpu)) for name, road in roads.items()}
    for name, (ours, theirs) in found.items():
        assert on_gpu(ours.vector), name
        assert ours.cosine(theirs) == pytest.approx(1, abs=1e-3), name
        assert ours.scale == pytest.approx(theirs.scale, rel=1e-3), name
    ours, theirs = (
        compare(model, {name: found[name][i] for name in ("caa", "mean centred", "unembedding")}, TEXTS)
        for i, model in enumerate((gpu, cpu))
    )
    same(ours.effects, theirs.effects, 1e-2, 1e-2)
    same(ours.strength, theirs.strength, 1e-2, 1e-2)


def test_a_gpu_chooses_the_refusal_direction_of_the_cpu(cpu: Model, gpu: Model) -> None:
    marks = [int(cpu.tokens(" in").ids[0, -1])]
    ours, theirs = (refusal(model, BRIDGE, TOWER, marks, positions=(-1,)) for model in (gpu, cpu))
    assert ours.positive == pytest.approx(theirs.positive, abs=1e-3)
    for one, other in zip(ours.candidates, theirs.candidates, strict=True):
        assert (one.direction.site, one.position, one.admitted) == (
            other.direction.site,
            other.position,
            other.admitted,
        )
        assert one.bypass == pytest.approx(other.bypass, abs=1e-2)
        assert one.kl == pytest.approx(other.kl, abs=1e-2)


def test_a_probe_fitted_on_one_device_labels_rows_on_the_other(cpu: Model) -> None:
    x, y = rows(cpu)
    for probe, labels in ((Logistic(), y), (Multinomial(), y.long())):
        expected = probe.fit(x, labels).predict(x)
        assert torch.equal(probe.predict(x.to(DEVICE)).cpu(), expected)
