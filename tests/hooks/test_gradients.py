"""Captured gradients are the slopes of the metric, those autograd finds in a model written by hand."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hooks import Model, Site, capture, capture_gradients, intervene, load
from hooks.contract.families import FAMILIES, tiny
from hooks.interventions import add, scale
from hooks.position import first, last
from hooks.site import embed, ln_final_scale, logits, mlp_act, mlp_out, pattern, pos_embed, resid_post, z

TEXTS = ["Fog over", "A bay", "o"]


def surprise(said: Tensor) -> Tensor:
    return said[:, 1].logsumexp(-1).sum() - said[0, 2, 7] * said[0, 1, 3]


def surprise_of_one(said: Tensor) -> Tensor:
    return said[0, 1].logsumexp(-1) - said[0, 2, 7]


def changeable(model: Model) -> list[Site]:
    return [site for site in model.sites if site.layer in (None, 0, 2) and not model.tap(site).read_only]


def test_a_step_along_any_site_changes_the_metric_by_the_gradient(model: Model) -> None:
    """Against central differences of what intervening there really does, for every site at once.

    In float64; but some families compute their norms in float32 even so, and need a larger step.
    """
    tokens, was = model.tokens(TEXTS[:2]), model.dtype
    exact = model.hf.config.model_type in ("gpt2", "gpt_neox", "bert")
    h, close = (1e-5, {"rtol": 1e-5, "atol": 1e-7}) if exact else (1e-3, {"rtol": 2e-3, "atol": 2e-3})
    model.hf.double()
    try:
        found = capture_gradients(model, tokens, changeable(model), surprise)
        for site in changeable(model):
            step = torch.randn(model.tap(site).shape, generator=torch.Generator().manual_seed(1)).double()

            def moved(size: float, site: Site = site, step: Tensor = step) -> Tensor:
                with torch.no_grad(), intervene(model, {site: add(step, size, at=first(2) | last)}):
                    return surprise(model.run(tokens))

            rise = (moved(h) - moved(-h)) / (2 * h)
            slope = found.gradients[site][(first(2) | last).mask(tokens)]
            torch.testing.assert_close((slope * step).sum(), rise, **close)
    finally:
        model.hf.to(was)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_site_asked_for_alone_has_the_gradient_it_has_among_all(family: str) -> None:
    model = load(tiny(family), None, check=False)
    ids = torch.tensor([[5, 17, 3, 42]])
    chosen = {"expert_choice"}  # which experts are chosen has no gradient, and is refused
    wanted = [site for site in model.sites if not model.tap(site).read_only and site.name not in chosen]
    every = capture_gradients(model, ids, wanted, surprise_of_one)
    for site in wanted:
        alone = capture_gradients(model, ids, [site], surprise_of_one)
        torch.testing.assert_close(alone.gradients[site], every.gradients[site], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(alone.activations[site], every.activations[site])


def by_hand(hf: Any, ids: Tensor) -> tuple[Tensor, dict[Site, Tensor]]:
    """GPT-2's forward written out, with every site a node of the graph."""
    parts, nodes = hf.transformer, dict[Site, Tensor]()

    def node(site: Site, value: Tensor) -> Tensor:
        value.retain_grad()
        nodes[site] = value
        return value

    heads, n = hf.config.n_head, ids.shape[1]
    hidden = node(embed, parts.wte(ids)) + node(pos_embed, parts.wpe(torch.arange(n)).expand(len(ids), -1, -1) + 0)
    for layer, block in enumerate(parts.h):
        q, k, v = (F.linear(block.ln_1(hidden), block.attn.c_attn.weight.T, block.attn.c_attn.bias)).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, k, v))
        scores = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).masked_fill(torch.ones(n, n).triu(1).bool(), -1e30)
        mixed = node(z[layer], (scores.softmax(-1) @ v).transpose(1, 2) + 0)
        hidden = hidden + F.linear(mixed.flatten(-2), block.attn.c_proj.weight.T, block.attn.c_proj.bias)
        inner = F.gelu(F.linear(block.ln_2(hidden), block.mlp.c_fc.weight.T, block.mlp.c_fc.bias), approximate="tanh")
        inner = node(mlp_act[layer], inner)
        out = node(mlp_out[layer], F.linear(inner, block.mlp.c_proj.weight.T, block.mlp.c_proj.bias))
        hidden = node(resid_post[layer], hidden + out)
    return node(logits, parts.ln_f(hidden) @ hf.lm_head.weight.T), nodes


def test_activations_and_gradients_are_those_of_a_forward_written_by_hand(fresh: Any) -> None:
    model = fresh("gpt2")
    tokens = model.tokens(["Fog over", "The bays"])
    said, nodes = by_hand(model.hf, tokens.ids)
    m = surprise(said)
    m.backward()
    model.hf.zero_grad()
    found = capture_gradients(model, tokens, list(nodes), surprise)
    torch.testing.assert_close(found.metric, m.detach(), rtol=1e-4, atol=1e-4)
    for site, node in nodes.items():
        torch.testing.assert_close(found.activations[site], node.detach(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found.gradients[site], node.grad, rtol=1e-3, atol=1e-4)


def test_a_site_asked_for_alone_has_the_gradient_it_has_among_others(model: Model) -> None:
    """Nodes inserted at other sites cut nothing off, and sites that hold one tensor stay apart."""
    together = capture_gradients(model, TEXTS[:2], changeable(model), surprise)
    for site in changeable(model):
        alone = capture_gradients(model, TEXTS[:2], site, surprise)
        torch.testing.assert_close(alone.gradients[site], together.gradients[site], rtol=1e-3, atol=1e-5)
        plain = capture(model, TEXTS[:2], site)
        torch.testing.assert_close(together.activations[site], plain[site], rtol=1e-4, atol=1e-5)


def test_the_gradients_of_a_batch_are_those_of_its_texts(gpt2: Model) -> None:
    tokens = gpt2.tokens(TEXTS)
    ends = last.mask(tokens)
    site = resid_post[1]
    together = capture_gradients(gpt2, tokens, site, lambda said: said[ends][:, 7].sum()).gradients[site]
    for row, text in enumerate(TEXTS):
        alone = capture_gradients(gpt2, text, site, lambda said: said[0, -1, 7]).gradients[site][0]
        torch.testing.assert_close(together[row, : len(alone)], alone, rtol=1e-3, atol=1e-6)
        assert not bool(together[row, len(alone) :].any())


def test_parameters_collect_no_gradients_and_may_be_trained_as_before(fresh: Any) -> None:
    model = fresh("llama")
    half = [parameter for i, parameter in enumerate(model.hf.parameters()) if i % 2]
    for parameter in half:
        parameter.requires_grad_(False)
    before = [parameter.requires_grad for parameter in model.hf.parameters()]

    def watching(said: Tensor) -> Tensor:
        assert not any(parameter.requires_grad for parameter in model.hf.parameters())
        return surprise(said)

    capture_gradients(model, "Fog", resid_post[0], watching)
    with pytest.raises(ZeroDivisionError):
        capture_gradients(model, "Fog", resid_post[0], lambda said: said.sum() / (1 // 0))
    assert [parameter.requires_grad for parameter in model.hf.parameters()] == before
    assert all(parameter.grad is None for parameter in model.hf.parameters())
    assert not any(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.hf.modules())


def test_nothing_is_kept_for_the_backward_pass_before_the_first_site(llama: Model) -> None:
    """Saved tensors are counted by autograd's own hook."""

    def saved(site: Site) -> int:
        kept: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(one.numel()) or one, lambda one: one):
            capture_gradients(llama, "Fog over", site, surprise)
        return len(kept)

    counts = [saved(site) for site in (resid_post[2], resid_post[1], resid_post[0])]
    assert 0 < counts[0] < counts[1] < counts[2]
    assert counts[2] - counts[1] == counts[1] - counts[0]


def test_gradients_are_found_whatever_the_grad_mode_around(gpt2: Model) -> None:
    expected = capture_gradients(gpt2, "Fog", resid_post[0], surprise).gradients[resid_post[0]]
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            found = capture_gradients(gpt2, "Fog", resid_post[0], surprise).gradients[resid_post[0]]
            assert torch.equal(found, expected)


def test_an_open_intervention_is_part_of_what_the_gradient_goes_through(gpt2: Model) -> None:
    site, plain = resid_post[0], capture_gradients(gpt2, "Fog", resid_post[1], surprise)
    with intervene(gpt2, {resid_post[1]: scale(1.0)}):
        assert torch.equal(
            capture_gradients(gpt2, "Fog", resid_post[1], surprise).gradients[resid_post[1]],
            plain.gradients[resid_post[1]],
        )
    with intervene(gpt2, {resid_post[2]: scale(0.0, at=last)}):
        found = capture_gradients(gpt2, "Fog", site, lambda said: said[0, -1].sum())
    assert not bool(found.gradients[site].any())


MISTAKES: list[tuple[Any, Any, str]] = [
    (resid_post[0], lambda said: said[0, -1], r"a tensor without axes, got shape \(257,\): take a mean or a sum"),
    (resid_post[0], lambda said: said.sum().item(), "a tensor without axes, got float"),
    (resid_post[0], lambda said: said.detach().sum(), "does not depend on the logits by differentiable steps"),
    (resid_post[0], lambda said: said.sum() / 0, "the metric is .*inf: its gradient would mean nothing"),
    (resid_post[0], lambda said: (said - said).sum().sqrt(), r"the gradient at resid_post\.0 holds NaN or infinity"),
    (pattern[0], surprise, r"pattern\.0 is derived from what flows to the logits, so it has no gradient of its own"),
    (ln_final_scale, surprise, "ln_final_scale is derived"),
    ("resid_pots.0", surprise, r"no site is called 'resid_pots\.0'"),
]


@pytest.mark.parametrize(("site", "metric", "message"), MISTAKES, ids=[message[:30] for *_, message in MISTAKES])
def test_a_metric_or_site_without_a_gradient_is_reported(gpt2: Model, site: Any, metric: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        capture_gradients(gpt2, "Fog", site, metric)
