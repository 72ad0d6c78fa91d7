"""Sparse feature circuits: exact where the model is linear, planted chains, rows that close, exact runs of nodes."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from hooks import Model, Site, capture, capture_gradients, intervene
from hooks.errors import InvalidArgument, UnknownName
from hooks.interventions import replace as put
from hooks.site import attn_out, mlp_in, mlp_out, resid_post, resid_pre
from interp.circuits.edges import Task
from interp.circuits.known import skip_trio
from interp.graphs.feature_circuits import (
    exact_feature_effects,
    feature_circuit,
    feature_effects,
    feature_faithfulness,
    run_feature_circuit,
)
from interp.graphs.feature_circuits.dictionaries import depth
from interp.sae import SAE, Standard, Transcoder
from tests.interp.circuits.edges.twins import double, task_of

FAMILIES = ("gpt2", "llama", "gpt_neox", "gemma2")


def site_of(sae: SAE) -> Site:
    assert sae.site is not None
    return sae.site


def identity(site: Site, d_model: int) -> SAE:
    """ReLU latents of x and of -x: an exact dictionary, whose features are the neurons."""
    sae = Standard(d_model, 2 * d_model).double()
    both = torch.cat([torch.eye(d_model), -torch.eye(d_model)]).double()
    with torch.no_grad():
        sae.W_enc.copy_(both.T)
        sae.W_dec.copy_(both)
    sae.site = site
    return sae


def random_sae(site: Site, d_model: int, seed: int) -> SAE:
    random = torch.Generator().manual_seed(seed)
    sae = Standard(d_model, 24, seed=seed).double()
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=random, dtype=torch.float64))
    sae.site = site
    return sae


def every_site(model: Model) -> list[SAE]:
    sites = [site[layer] for layer in range(model.n_layers) for site in (attn_out, mlp_out, resid_post)]
    return [random_sae(site, model.d_model, seed) for seed, site in enumerate([resid_pre[0], *sites])]


def gradients(model: Model, task: Task, sites: Sequence[Site]) -> dict[Site, Tensor]:
    clean, _ = task.tokens(model)
    found = capture_gradients(model, clean, [*sites], lambda logits: task.metric(logits[:, -1]).sum())
    return {site: found.gradients[site] for site in sites}


def moved(model: Model, task: Task, site: Site) -> Tensor:
    clean, corrupt = task.tokens(model)
    return capture(model, corrupt, [site])[site] - capture(model, clean, [site])[site]


def test_features_of_an_identity_dictionary_have_the_attribution_of_neurons_and_errors_none() -> None:
    model = double("gpt2")
    task = task_of(model)
    site, d = mlp_out[1], model.d_model
    found = feature_effects(model, [identity(site, d)], task, steps=0, by_position=True, sample=0)
    neurons = (gradients(model, task, [site])[site] * moved(model, task, site)).mean(0)
    assert torch.allclose(found.effect[site][:, :d] + found.effect[site][:, d : 2 * d], neurons, atol=1e-14)
    assert float(found.effect[site][:, -1].abs().max()) < 1e-14
    assert found.errors_share < 1e-12


@pytest.mark.parametrize("family", FAMILIES)
def test_features_and_errors_of_a_site_sum_to_the_attribution_of_the_whole_site(family: str) -> None:
    model = double(family)
    task = task_of(model)
    found = feature_effects(model, every_site(model), task, steps=0, sample=0)
    slopes = gradients(model, task, [*found.effect])
    for site, effect in found.effect.items():
        whole = float((slopes[site] * moved(model, task, site)).sum((1, 2)).mean())
        assert float(effect.sum()) == pytest.approx(whole, rel=1e-9, abs=1e-13), site
        assert float(effect[:, -1].abs().sum()) > 0


def test_integrated_effects_sum_to_the_exact_effect_of_the_site_with_an_error_that_falls_as_one_over_steps_squared():
    model = double("gpt2")
    task, saes = task_of(model), every_site(model)[:3]
    off = []
    for steps in (16, 64):
        found = feature_effects(model, saes, task, steps=steps, sample=0)
        off.append([abs(float(value.sum()) - found.whole[site]) for site, value in found.effect.items()])
    assert all(fine < coarse / 12 or fine < 1e-12 for coarse, fine in zip(*off, strict=True))
    assert max(off[1]) < 1e-4 < max(map(abs, found.whole.values()))


def test_where_the_model_is_linear_after_a_site_every_effect_is_exact() -> None:
    known = skip_trio()
    saes = [random_sae(resid_post[2], known.model.d_model, 1)]
    for steps in (0, 3):
        found = feature_effects(known.model, saes, known.task, steps=steps, sample=8)
        assert found.check is not None and found.check.error < 1e-12
        assert found.whole[resid_post[2]] == pytest.approx(float((found.corrupt - found.clean).mean()))
        names = [f"resid_post.2/{i}" for i in (*range(24), "error")]
        exact = exact_feature_effects(known.model, saes, known.task, names)
        assert torch.allclose(found.effect[resid_post[2]][0].cpu(), exact, atol=1e-12)
    assert "WRONG" not in str(found)


def test_a_chain_of_features_has_the_edges_of_the_chain_and_no_edge_that_skips_a_step() -> None:
    known = skip_trio()
    model, d = known.model, known.model.d_model
    saes = [identity(mlp_out[layer], d) for layer in range(3)]
    circuit = feature_circuit(model, saes, known.task, node_threshold=0.01, edge_threshold=0.01, by_position=True)
    a, b, c = (f"mlp_out.{layer}/{model_at}@2" for layer, model_at in enumerate(stream_places(model)))
    assert circuit.names == (a, b, c)
    assert {(source, target) for source, target, _ in circuit.edges.above(0.01)} == {(a, b), (b, c), (c, "metric")}
    for source, target in ((a, b), (b, c), (c, "metric")):
        assert circuit.edges.of(source, target) == pytest.approx(circuit.effects.of(source), rel=1e-3)
    assert circuit.edges.of(a, c) == 0.0
    assert max(abs(circuit.edges.of(one, "metric")) for one in (a, b)) < 1e-4  # what heads make of noise
    assert all(circuit.effects.of(f"mlp_out.{layer}/0@2") == 0.0 for layer in range(3))
    found = feature_faithfulness(model, saes, circuit)
    assert found.circuit["circuit"].value == pytest.approx(1.0) and found.complement["circuit"].value < 1e-9
    with pytest.raises(UnknownName, match="did you mean"):
        circuit.edges.of(a, "metrik")


def stream_places(model: Model) -> list[int]:
    """Where each step of the chain writes."""
    return [int(block.mlp.c_proj.weight.abs().sum(0).argmax()) for block in model.hf.transformer.h]


def test_a_feature_that_nothing_reads_has_no_effect() -> None:
    known = skip_trio()
    sae, c = identity(mlp_out[2], known.model.d_model), stream_places(known.model)[2]
    with torch.no_grad():
        sae.W_enc[:, 0] = sae.W_enc[:, c]  # on with C, and written to the token, which nothing reads any more
    found = feature_effects(known.model, [sae], known.task, sample=2)
    assert found.of("mlp_out.2/0") == 0.0 and found.of(f"mlp_out.2/{c}") == pytest.approx(-1.0)
    assert found.of("mlp_out.2/error") == 0.0


@pytest.mark.parametrize("family", FAMILIES)
def test_all_nodes_are_the_model_bit_for_bit_and_none_is_the_corrupt_run(family: str) -> None:
    model = double(family)
    task, saes = task_of(model), every_site(model)
    found = feature_effects(model, saes, task, steps=0, sample=0)
    every = {site: torch.ones_like(value, dtype=torch.bool) for site, value in found.effect.items()}
    none = {site: ~mask for site, mask in every.items()}
    assert torch.equal(run_feature_circuit(model, saes, task, every)[0], found.clean)
    both = run_feature_circuit(model, saes, task, [every, none])
    assert torch.allclose(both, torch.stack([found.clean, found.corrupt]), atol=1e-12)
    kept = run_feature_circuit(model, saes, task, [none], errors="keep")
    removed = run_feature_circuit(model, saes, task, [every], errors="remove")
    assert not torch.allclose(kept[0], found.corrupt) and not torch.allclose(removed[0], found.clean)


def test_with_errors_removed_a_run_of_all_features_is_that_of_reconstructions() -> None:
    model = double("llama")
    task, saes = task_of(model), every_site(model)[:2]
    found = feature_effects(model, saes, task, steps=0, sample=0)
    every = {site: torch.ones_like(value, dtype=torch.bool) for site, value in found.effect.items()}
    clean, _ = task.tokens(model)
    first = capture(model, clean, [site_of(saes[0])])[site_of(saes[0])]
    with torch.no_grad(), intervene(model, {site_of(saes[0]): put(saes[0](first), at=everywhere())}):
        second = capture(model, clean, [site_of(saes[1])])[site_of(saes[1])]
        with intervene(model, {site_of(saes[1]): put(saes[1](second), at=everywhere())}):
            expected = task.metric(model.run(clean)[:, -1])
    assert torch.allclose(run_feature_circuit(model, saes, task, every, errors="remove")[0], expected, atol=1e-10)


def everywhere():
    from hooks import Position

    return Position("every token", lambda tokens: tokens.mask)


@pytest.mark.parametrize("family", FAMILIES)
def test_edges_are_the_differences_that_moving_one_site_makes_with_the_others_held(family: str) -> None:
    """Central differences: the source's site is moved along one node, all sites but the target's keep their values."""
    model = double(family)
    task, saes = task_of(model), every_site(model)
    by_site = {site_of(sae): sae for sae in saes}
    circuit = feature_circuit(model, saes, task, node_threshold=0.0, steps=2)
    effects, edges = circuit.effects, circuit.edges
    clean, _ = task.tokens(model)
    x = {site: capture(model, clean, [site])[site] for site in by_site}
    source, target = resid_post[0], mlp_out[1]
    for u, d in ((largest(effects, source), largest(effects, target)), ("error", "error")):
        move = moved_along(model, task, by_site[source], u)
        d_of = []
        for h in (1e-4, -1e-4):
            held = {site: put(value, at=everywhere()) for site, value in x.items() if depth(site) < depth(target)}
            held[source] = put(x[source] + h * move, at=everywhere())
            with torch.no_grad(), intervene(model, {**held}):
                d_of.append(
                    node_value(by_site[target], capture(model, clean, [target])[target], d, effects.slope[target])
                )
        expected = (d_of[0] - d_of[1]) / 2e-4 / len(clean)
        assert edges.of(f"{source}/{u}", f"{target}/{d}") == pytest.approx(float(expected), rel=1e-5, abs=1e-10)


def largest(effects, site: Site) -> str:
    return str(int(effects.effect[site][0, :-1].abs().argmax()))


def moved_along(model: Model, task: Task, sae: SAE, node: str) -> Tensor:
    clean, corrupt = (capture(model, run, [site_of(sae)])[site_of(sae)] for run in task.tokens(model))
    a, b = sae.encode(clean).detach(), sae.encode(corrupt).detach()
    if node == "error":
        return ((corrupt - clean) - (b - a) @ sae.W_dec).detach()
    return ((b - a)[..., int(node), None] * sae.W_dec[int(node)]).detach()


def node_value(sae: SAE, x: Tensor, node: str, slope: Tensor) -> Tensor:
    a = sae.encode(x)
    if node == "error":
        return ((x - sae.decode(a)) * slope).sum()
    return (a[..., int(node)] * (slope @ sae.W_dec[int(node)])).sum()


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_close_over_features_and_errors_at_both_ends(family: str) -> None:
    model = double(family)
    task, saes = task_of(model), every_site(model)
    circuit = feature_circuit(model, saes, task, node_threshold=0.0, steps=0)
    names, weight = circuit.edges.names, circuit.edges.weight
    at = lambda site: [i for i, name in enumerate(names) if name.startswith(f"{site}/")]  # noqa: E731
    assert torch.allclose(weight.sum(1), circuit.edges.inflow, atol=1e-9)
    slope, move = circuit.effects.slope[resid_post[1]], moved(model, task, resid_post[1])
    whole = float((slope * move).sum((1, 2)).mean())
    assert float(circuit.edges.inflow[at(resid_post[1])].sum()) == pytest.approx(whole, rel=1e-9)
    for site in (resid_post[0], mlp_out[0]):
        leaving = weight[:, at(site)].sum(0)
        assert torch.allclose(
            leaving, torch.tensor([circuit.effects.of(names[i]) for i in at(site)]).double(), atol=1e-9
        )


def test_the_order_and_batching_of_texts_change_nothing() -> None:
    model = double("llama")
    clean, corrupt = ["fog over", "a baysun", "fog over"], ["fig ever", "a hatsun", "fog ever"]
    saes = every_site(model)[2:5]
    one = feature_circuit(model, saes, task_of(model, clean, corrupt), node_threshold=1e-4, batch_size=3)
    other = feature_circuit(model, saes, task_of(model, clean, corrupt), node_threshold=1e-4, batch_size=2)
    assert one.names == other.names
    assert torch.allclose(one.edges.weight, other.edges.weight, atol=1e-12)
    assert all(torch.allclose(one.effects.effect[s], other.effects.effect[s], atol=1e-12) for s in one.effects.effect)


def test_against_zero_a_node_is_weighed_by_its_own_value() -> None:
    known = skip_trio()
    model = known.model
    saes = [identity(mlp_out[layer], model.d_model) for layer in range(3)]
    found = feature_effects(model, saes, known.task, against="zero", sample=4)
    assert found.of(f"mlp_out.2/{stream_places(model)[2]}") == pytest.approx(-1.0)
    assert found.check is not None and found.check.error < 1e-6


def test_what_a_feature_circuit_cannot_be_made_of_is_refused() -> None:
    model = double("gpt2")
    task = task_of(model)
    good = random_sae(resid_post[0], model.d_model, 0)
    cases: list[tuple[list[SAE], str]] = [
        ([], "no autoencoders were given"),
        ([good, good], "two autoencoders read"),
        ([Standard(model.d_model, 8)], "does not know its site"),
        ([Transcoder(model.d_model, 8)], "reads and writes at several sites"),
        ([random_sae(mlp_in[0], model.d_model, 0)], "nodes are in the stream"),
    ]
    for saes, said in cases:
        with pytest.raises(InvalidArgument, match=said):
            feature_effects(model, saes, task)
    with pytest.raises(InvalidArgument, match="did you mean 'zero'"):
        feature_effects(model, [good], task, against="zer")
    with pytest.raises(InvalidArgument, match="no node has an absolute effect above"):
        feature_circuit(model, [good], task, node_threshold=1e9)
    found = feature_effects(model, [good], task, sample=0)
    with pytest.raises(UnknownName, match="resid_post.0/error"):
        found.of("resid_post.0/99")
    with pytest.raises(InvalidArgument, match="take FeatureEffects.nodes"):
        run_feature_circuit(model, [random_sae(resid_post[1], model.d_model, 0)], task, found.nodes())
    with pytest.raises(InvalidArgument, match="errors are not treated as"):
        run_feature_circuit(model, [good], task, found.nodes(), errors="kept")
