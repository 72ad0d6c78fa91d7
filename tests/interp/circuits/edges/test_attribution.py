"""Edge attribution is the derivative it says it is, in every family, and its sums close."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.tiny_models import tiny_model
from hooks import Model, capture, load
from hooks.errors import InvalidArgument
from hooks.resume import hold
from hooks.site import Site, attn_out, mlp_in, mlp_out, resid_mid, resid_post, resid_pre, z
from interp.circuits import attribution_patching, each_head, logit_difference, noising
from interp.circuits.edges import (
    Task,
    acdc,
    clean_corrupt,
    eap,
    eap_ig,
    edge_attribution,
    edge_graph,
    exact_edges,
    faithfulness_curve,
    gim,
    kl_from_clean,
    relp,
    run_circuit,
    top_circuit,
)
from interp.circuits.edges.backward_rules import BackwardRules, _pull_back_softmax
from interp.circuits.edges.blocks import blocks_of
from interp.circuits.edges.slope import slopes_at
from tests.conftest import tiny_hf, tiny_tokenizer
from tests.interp.circuits.edges.twins import CLEAN, CORRUPT, double, task_of
from tests.interp.circuits.handmade import linear_gpt2

FAMILIES = ("gpt2", "gpt_neox", "llama", "gemma2", "qwen2")
twin = cache(double)


def slope_by_autograd(model: Model, task: Task, receiver: str) -> Tensor:
    """dm/d(what one receiver reads), through a zero added to its input alone."""
    tokens = model.tokens(task.clean)
    held = hold(model, tokens, [Site("logits")])
    zero = torch.zeros(*tokens.ids.shape, model.d_model, dtype=model.dtype, requires_grad=True)
    kind = receiver.rstrip("0123456789.")
    if kind == "logits":
        final = held.final + zero
    else:
        layer = int(receiver[len(kind) :].split(".")[0])
        block = blocks_of(model)[layer]
        if kind == "mlp":
            x = capture(model, tokens, block.mlp_reads)[block.mlp_reads]
            norm = block.mlp_norm
            edits = {mlp_in[layer]: lambda _: norm(x + zero)}
        else:
            x, head = held.activations[resid_pre[layer]], int(receiver.split(".")[1])
            tap = model.tap(Site(kind, layer))
            out = tap.module.forward(block.attn_norm(x + zero))
            out = out if tap.view.rows is None else out[..., tap.view.rows]
            mine = out.unflatten(-1, tap.shape)[:, :, head]

            def edit(a: Tensor) -> Tensor:
                return torch.cat([a[:, :, :head], mine[:, :, None], a[:, :, head + 1 :]], 2)

            edits = {Site(kind, layer): edit}
        final = held.resume(layer, edits)
    m = task.metric(model.unembed(final[:, -1])).sum()
    return torch.autograd.grad(m, zero)[0]


def streams_read(model: Model, text: Any, receiver: str) -> Tensor:
    kind = receiver.rstrip("0123456789.")
    if kind == "logits":
        site = resid_post[model.n_layers - 1]
    else:
        layer = int(receiver[len(kind) :].split(".")[0])
        site = blocks_of(model)[layer].mlp_reads if kind == "mlp" else resid_pre[layer]
    return capture(model, text, site)[site]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_scores_into_a_receiver_sum_to_its_whole_change_times_its_slope(family: str) -> None:
    model = twin(family)
    task = task_of(model)
    found = edge_attribution(model, task, eap(), sample=0)
    for receiver in ("q0.3", "k1.1", "v2.0", "mlp1", "logits"):
        slope = slope_by_autograd(model, task, receiver)
        move = streams_read(model, CORRUPT, receiver) - streams_read(model, CLEAN, receiver)
        column = found.each[:, :, found.graph.receivers.index(receiver)]
        torch.testing.assert_close(column.sum(1), (move * slope).sum((1, 2)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("family", ("gpt2", "gpt_neox", "llama"))
def test_one_score_is_the_change_of_one_write_times_the_slope_of_one_read(family: str) -> None:
    model = twin(family)
    task = task_of(model)
    found = edge_attribution(model, task, eap(), sample=0)
    sites = [z[0], mlp_out[1]]
    clean, corrupt = (capture(model, text, sites) for text in (CLEAN, CORRUPT))
    W_O = model.module(attn_out[0]).weight if family == "gpt2" else model.module(attn_out[0]).weight.T
    head = (corrupt[z[0]] - clean[z[0]])[:, :, 2] @ W_O.unflatten(0, (4, -1))[2]
    feed_forward = corrupt[mlp_out[1]] - clean[mlp_out[1]]
    for sender, move in (("h0.2", head), ("mlp1", feed_forward)):
        for receiver in ("k2.1", "mlp2", "logits"):
            s, r = found.graph.edge(f"{sender}->{receiver}")
            true = (move * slope_by_autograd(model, task, receiver)).sum((1, 2))
            torch.testing.assert_close(found.each[:, s, r], true, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("family", ("gpt2", "gpt_neox", "llama", "qwen2"))
def test_the_scores_out_of_a_head_sum_to_what_patching_it_whole_does_to_first_order(family: str) -> None:
    model = twin(family)
    task = task_of(model)
    found = edge_attribution(model, task, eap(), sample=0)
    nodes = attribution_patching(model, noising(CLEAN, CORRUPT), task.metric, over=each_head(z)).difference
    heads = [s for s, name in enumerate(found.graph.senders) if name.startswith("h")]
    torch.testing.assert_close(found.each[:, heads].sum(2), nodes.flatten(1), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("family", ("llama", "gemma2", "olmo2"))
def test_as_the_corrupt_text_nears_the_clean_one_every_estimate_is_the_exact_effect(family: str) -> None:
    """Gemma-2 and OLMo-2 normalise what attention writes."""
    hf = tiny_hf(family).double()
    ids = torch.randint(6, 120, (2, 6), generator=torch.Generator().manual_seed(1))
    table = hf.get_input_embeddings().weight
    with torch.no_grad():
        near = torch.randn(table[:120].shape, generator=torch.Generator().manual_seed(2)).double()
        table[120:240] = table[:120] + 1e-4 * near  # RMSNorm computes in float32: no nearer
    model = load(hf, tiny_tokenizer())
    task = Task(ids, ids + 120, logit_difference(model, [3, 4], [5, 2]))
    exact = exact_edges(model, task).effect
    found = edge_attribution(model, task, eap(), sample=0).effect
    assert float((found - exact).norm() / exact.norm()) < 5e-3


@pytest.mark.parametrize("family", ("gpt2", "llama", "gemma2"))
def test_integrated_scores_out_of_the_embedding_sum_to_the_whole_effect_with_an_error_as_the_square(
    family: str,
) -> None:
    model = twin(family)
    task = task_of(model, ["fog over"], ["fog ovar"])
    off = []
    for steps in (8, 16, 32):
        found = edge_attribution(model, task, eap_ig(steps), sample=0)
        off.append(abs(float(found.effect[0].sum() - (found.corrupt - found.clean).mean())))
    assert off[2] < 0.02 * abs(float((found.corrupt - found.clean).mean()))
    assert off[1] / off[2] == pytest.approx(4, rel=0.4)


def test_where_all_is_linear_after_every_receiver_the_estimate_is_exact_for_every_edge(
    hf_model: Callable[..., Any], tokenizer: Any
) -> None:
    model = linear_gpt2(hf_model, tokenizer)
    task = task_of(model)
    exact = exact_edges(model, task)
    for slope in (eap(), eap_ig(3), eap_ig(2, rule="left"), clean_corrupt()):
        found = edge_attribution(model, task, slope)
        torch.testing.assert_close(found.each, exact.each, rtol=1e-4, atol=1e-5)
        assert found.check is not None
        assert found.check.error < 1e-4


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_the_left_rule_begins_in_the_corrupt_run_and_clean_corrupt_is_the_mean_of_both_ends(family: str) -> None:
    model = twin(family)
    there = edge_attribution(model, task_of(model, CLEAN, CORRUPT), eap(), sample=0).each
    back = edge_attribution(model, task_of(model, CORRUPT, CLEAN), eap(), sample=0).each
    left = edge_attribution(model, task_of(model), eap_ig(1, rule="left"), sample=0).each
    both = edge_attribution(model, task_of(model), clean_corrupt(), sample=0).each
    assert float((there + back).abs().max()) > 1e-4
    assert torch.allclose(left, -back, atol=1e-12) and torch.allclose(both, (there - back) / 2, atol=1e-12)


def test_nothing_that_is_given_to_a_method_is_changed_by_it() -> None:
    model = load(tiny_hf("gpt2"), tiny_tokenizer(), check=False)
    for parameter in model.hf.parameters():
        parameter.requires_grad_(True)
    before = [parameter.detach().clone() for parameter in model.hf.parameters()]
    task = task_of(model)
    scores = edge_attribution(model, task, eap_ig(2)).scores("contribution")
    kept, circuit = scores.clone(), top_circuit(edge_graph(model), scores, 40)
    mask = circuit.mask.clone()
    run_circuit(model, task, circuit)
    curve = faithfulness_curve(model, task, scores)
    acdc(model, task, 0.1)
    assert torch.equal(scores, kept) and torch.equal(circuit.mask, mask)
    assert torch.equal(faithfulness_curve(model, task, scores).f, curve.f)
    for parameter, value in zip(model.hf.parameters(), before, strict=True):
        assert torch.equal(parameter, value) and parameter.grad is None and parameter.requires_grad


def test_keys_and_values_that_heads_share_have_the_sum_of_their_copies_scores() -> None:
    grouped = double("llama")
    copies = tiny_hf("llama", num_key_value_heads=4)
    state = grouped.hf.state_dict()
    for name, value in list(state.items()):
        if ".k_proj." in name or ".v_proj." in name:
            state[name] = value.unflatten(0, (2, -1)).repeat_interleave(2, 0).flatten(0, 1)
    copies.load_state_dict(state)
    alone = load(copies.double(), tiny_tokenizer(), check=False)
    for name, module in alone.hf.named_modules():
        if "RMSNorm" in type(module).__name__:
            module.forward = grouped.hf.get_submodule(name).forward
    one, many = (edge_attribution(m, task_of(m), eap_ig(2), sample=0) for m in (grouped, alone))
    for name in ("k1", "v2"):
        shared = [r for r, said in enumerate(one.graph.receivers) if said.startswith(f"{name}.")]
        each = [r for r, said in enumerate(many.graph.receivers) if said.startswith(f"{name}.")]
        summed = many.each[:, :, each].unflatten(2, (2, 2)).sum(3)
        torch.testing.assert_close(one.each[:, :, shared], summed, rtol=1e-9, atol=1e-12)


def test_batches_order_and_padding_change_nothing() -> None:
    model = twin("llama")
    texts = [("fog over", "fig ever"), ("a bay", "a hat"), ("sun and sea", "son and set")]
    right = {"fog over": "a", "a bay": "b", "sun and sea": "e"}

    def scores(order: list[int], batch_size: int) -> Tensor:
        clean, corrupt = zip(*(texts[i] for i in order), strict=True)
        metric = logit_difference(model, [right[text] for text in clean], "c")
        task = Task(list(clean), list(corrupt), metric)
        return edge_attribution(model, task, eap_ig(2), batch_size=batch_size, sample=0).each[
            torch.tensor(order).argsort()
        ]

    whole = scores([0, 1, 2], 3)
    for order, size in (([0, 1, 2], 1), ([2, 0, 1], 2)):
        torch.testing.assert_close(scores(order, size), whole, rtol=1e-9, atol=1e-12)
    alone = edge_attribution(model, task_of(model, ["fog over"], ["fig ever"]), eap_ig(2), sample=0)
    torch.testing.assert_close(alone.each[0], whole[0], rtol=1e-9, atol=1e-12)


def test_a_head_written_twice_at_half_strength_has_half_of_its_score_each() -> None:
    hf = tiny_hf("gpt2", seed=3).double()
    attention, dh = hf.transformer.h[1].attn, 8
    with torch.no_grad():
        for i in range(3):
            attention.c_attn.weight[:, i * 32 + 3 * dh : i * 32 + 4 * dh] = attention.c_attn.weight[
                :, i * 32 : i * 32 + dh
            ]
            attention.c_attn.bias[i * 32 + 3 * dh : i * 32 + 4 * dh] = attention.c_attn.bias[i * 32 : i * 32 + dh]
        attention.c_proj.weight[:dh] /= 2
        attention.c_proj.weight[3 * dh :] = attention.c_proj.weight[:dh]
    model = load(hf, tiny_tokenizer(), check=False)
    found = edge_attribution(model, task_of(model), eap_ig(2), sample=0)
    one, other = (found.graph.senders.index(f"h1.{head}") for head in (0, 3))
    torch.testing.assert_close(found.each[:, one], found.each[:, other], rtol=1e-10, atol=1e-13)
    for name in "qkv":
        one, other = (found.graph.receivers.index(f"{name}1.{head}") for head in (0, 3))
        torch.testing.assert_close(found.each[:, :, one], found.each[:, :, other], rtol=1e-10, atol=1e-13)


def test_kl_from_the_clean_run_is_refused_where_its_slope_is_zero(gpt2: Model) -> None:
    clean, corrupt = ["fog over"], ["fig ever"]
    named = kl_from_clean(gpt2, clean)
    with pytest.raises(InvalidArgument, match="flat in the clean run"):
        edge_attribution(gpt2, Task(clean, corrupt, named), eap())
    own = gpt2.run(clean)[:, -1].detach().log_softmax(-1)
    with pytest.raises(InvalidArgument, match="flat in the clean run"):
        metric = lambda logits: (own.exp() * (own - logits.log_softmax(-1))).sum(-1)  # noqa: E731
        edge_attribution(gpt2, Task(clean, corrupt, metric), relp())
    found = edge_attribution(gpt2, Task(clean, corrupt, named), eap_ig(5), sample=0)
    assert float(found.effect.abs().max()) > 0.01


def test_kl_is_summed_over_the_vocabulary(gpt2: Model) -> None:
    logits = gpt2.run("fig ever")[:, -1]
    p, q = gpt2.run("fog over")[:, -1].softmax(-1), logits.softmax(-1)
    torch.testing.assert_close(kl_from_clean(gpt2, "fog over")(logits), (p * (p / q).log()).sum(-1))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("slope", (relp(), relp(patterns_held=True), gim()), ids=("relp", "relp-held", "gim"))
def test_backward_rules_change_no_value(family: str, slope: Any) -> None:
    model = twin(family)
    task = task_of(model)
    plain = edge_attribution(model, task, eap(), sample=0)
    found = edge_attribution(model, task, slope, sample=0)
    torch.testing.assert_close(found.clean, plain.clean, rtol=1e-6, atol=1e-6)  # some softmaxes are in float32
    assert not torch.allclose(found.each, plain.each, rtol=1e-3)


def test_relevance_is_conserved_from_the_logits_to_the_embedding() -> None:
    """Without biases and with patterns held, every rule makes a layer of degree 1: x . dm/dx is m all the way down."""
    model = double("llama", attention_bias=False, mlp_bias=False, tie_word_embeddings=False)
    tokens = model.tokens(["fog over"])
    found = slopes_at(
        model,
        blocks_of(model),
        tokens,
        None,
        lambda x: model.unembed(x[:, -1])[:, 7],
        relp(patterns_held=True).rules,
    )
    final = found.values[resid_post[2]]
    torch.testing.assert_close((final * found.final).sum((1, 2)), found.m, rtol=1e-9, atol=1e-9)
    task = Task(["fog over"], ["fig ever"], lambda logits: logits[:, 7])
    scores = edge_attribution(model, task, relp(patterns_held=True), sample=0)
    x, y = (capture(model, text, resid_pre[0])[resid_pre[0]] for text in ("fog over", "fig ever"))
    # the slope at the embedding, read off the scores of two corrupt runs that differ along it, is degree 1 as well
    into = scores.each[0, 0].sum()
    blocks = found.read
    assert torch.isfinite(into)
    assert set(blocks) == {(layer, name) for layer in range(3) for name in ("q", "k", "v", "mlp")}
    whole = relevance_of_embedding(model, tokens)
    torch.testing.assert_close(whole, found.m, rtol=1e-9, atol=1e-9)
    assert not torch.equal(x, y)


@pytest.mark.parametrize("slope", (relp(), gim()), ids=("relp", "gim"))
@pytest.mark.parametrize("family", ["qwen3", "olmo2"])
def test_norms_of_queries_and_keys_are_held_like_those_of_the_stream(family: str, slope: Any) -> None:
    """Held, a norm passes back gain * slope / divisor: nothing is taken away along its input."""
    model = double(family)
    tokens, seen = model.tokens(["fog over"]), []
    norms = [getattr(block.self_attn, name) for block in model.blocks for name in ("q_norm", "k_norm")]
    hooks = [
        norm.register_full_backward_hook(lambda m, given, got: seen.append((m, given[0], got[0]))) for norm in norms
    ]
    inputs = {}
    hooks += [norm.register_forward_pre_hook(lambda m, args: inputs.update({m: args[0].detach()})) for norm in norms]
    slopes_at(model, blocks_of(model), tokens, None, lambda x: model.unembed(x[:, -1])[:, 7], slope.rules)
    for hook in hooks:
        hook.remove()
    assert {m for m, _, _ in seen} == set(norms)
    for norm, into, out in seen:
        x = inputs[norm]
        divisor = (x.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon).sqrt()
        torch.testing.assert_close(into, norm.weight * out / divisor, rtol=1e-6, atol=1e-12)
        assert float(out.detach().abs().max()) > 0


def relevance_of_embedding(model: Model, tokens: Any) -> Tensor:
    """x . dm/dx at the stream before the first block, by plain autograd under the rules."""
    held = hold(model, tokens, [])
    x = held.activations[resid_pre[0]].clone().requires_grad_()
    with relp(patterns_held=True).rules.apply(model):
        m = model.unembed(held.resume(0, {resid_pre[0]: lambda _: x})[:, -1])[:, 7]
        return (x * torch.autograd.grad(m.sum(), x)[0]).sum((1, 2))


def test_the_softmax_of_gim_has_the_jacobian_of_twice_its_temperature() -> None:
    model = twin("gpt2")
    tokens, layer = model.tokens(["fog over"]), 2
    blocks = blocks_of(model)
    measured = lambda x: model.unembed(x[:, -1])[:, 7]  # noqa: E731
    soft = slopes_at(model, blocks, tokens, None, measured, BackwardRules(temperature=2.0))
    acts = capture(model, tokens, [Site(name, layer) for name in "qkv"])
    q, k, v = (acts[Site(name, layer)][0].transpose(0, 1) for name in "qkv")
    scores = (q @ k.transpose(1, 2) / 8**0.5).masked_fill(torch.ones(9, 9).triu(1).bool(), float("-inf"))
    p = (scores / 2).softmax(-1)
    held = hold(model, tokens, [])
    values = capture(model, tokens, z[layer])[z[layer]].clone().requires_grad_()
    m = measured(held.resume(layer, {z[layer]: lambda _: values})).sum()
    dz = torch.autograd.grad(m, values)[0][0].transpose(0, 1)
    dp = dz @ v.transpose(1, 2)
    ds = p * (dp - (p * dp).sum(-1, keepdim=True))
    torch.testing.assert_close(soft.read[layer, "q"][0].transpose(0, 1), ds @ k / 8**0.5, rtol=1e-9, atol=1e-11)


def test_blocks_that_normalise_the_stream_itself_have_no_edges(model: Model) -> None:
    if model.hf.config.model_type == "bert":
        with pytest.raises(InvalidArgument, match="no sum of writes"):
            edge_graph(model)
    else:
        assert edge_graph(model).n_edges > 100


def test_attention_whose_queries_keys_and_values_are_not_all_known_has_no_edges() -> None:
    model = load(tiny_model("persimmon", "PersimmonForCausalLM"))
    with pytest.raises(
        InvalidArgument, match=r"has no q\.0 and no k\.0 and no v\.0, so edges into its attention would be"
    ):
        edge_graph(model)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "name"), [("helium", "HeliumForCausalLM"), ("diffllama", "DiffLlamaForCausalLM")])
def test_a_family_that_no_adapter_knows_has_its_edges_through_the_norms_that_were_traced(kind: str, name: str) -> None:
    model = load(tiny_model(kind, name).double())
    ids = torch.randint(6, 60, (2, 5), generator=torch.Generator().manual_seed(3))
    task = Task(ids, ids.flip(1), logit_difference(model, [3, 4], [5, 2]))
    found, graph = edge_attribution(model, task, eap(), sample=0), edge_graph(model)
    tokens = model.tokens(task.clean)
    for receiver in ("v1.0", "mlp0"):
        slope = slope_by_autograd(model, task, receiver)
        move = streams_read(model, task.corrupt, receiver) - streams_read(model, tokens, receiver)
        column = found.each[:, :, graph.receivers.index(receiver)]
        torch.testing.assert_close(column.sum(1), (move * slope).sum((1, 2)), rtol=1e-4, atol=1e-7)


def test_gpt2_small_has_the_published_number_of_edges() -> None:
    import transformers

    with torch.device("meta"):
        hf = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_embd=24, n_inner=8, n_positions=8, vocab_size=10))
    model = load(hf.to_empty(device="cpu"), check=False)
    graph = edge_graph(model)
    assert (len(graph.senders), len(graph.receivers), graph.n_edges) == (157, 445, 32491)


def test_in_a_parallel_block_heads_do_not_send_to_their_own_feed_forward_layer() -> None:
    parallel, serial = edge_graph(twin("gpt_neox")), edge_graph(twin("gpt2"))
    assert bool(serial.allowed[serial.edge("h1.0->mlp1")])
    with pytest.raises(InvalidArgument, match="writes after"):
        parallel.edge("h1.0->mlp1")
    assert resid_mid[0] not in twin("gpt_neox").taps


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_a_softened_softmax_is_its_jacobian_times_the_scores_also_where_some_are_masked(
    temperature: float,
) -> None:
    scores = torch.tensor([[0.5, -1.0, 2.0, 0.3], [0.2, 1.0, 0.0, 0.0]], dtype=torch.float64)
    mask = torch.tensor([[False, False, False, True], [False, False, True, True]])
    for masked in (-torch.inf, -1e300):
        found = _pull_back_softmax(scores.masked_fill(mask, masked), temperature)
        for row, kept in enumerate((3, 2)):
            s = scores[row, :kept]
            J = torch.autograd.functional.jacobian(lambda x: x.softmax(0), s / temperature)
            torch.testing.assert_close(found[row, :kept], J @ s)
            assert found[row, kept:].tolist() == [0.0] * (4 - kept)
