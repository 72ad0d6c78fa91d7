"""Memories planted by hand are found: their triggers, what their values say, how they agree, what they give."""

from collections.abc import Callable
from dataclasses import replace
from itertools import permutations

import pytest
import torch

from hooks import Model, capture, intervene, load
from hooks.interventions import zero
from hooks.position import last
from hooks.site import mlp_act, mlp_in, mlp_out
from interp.common.completion import score
from interp.lenses import LogitLens
from interp.memory import (
    Query,
    agreement,
    composition,
    find_shared_neurons,
    key_rows,
    knowledge,
    silence_neurons,
    triggers,
    triggers_by_layer,
    value_logits,
)
from interp.memory.neurons.agreement import compare_with_permutations
from interp.memory.neurons.vocabulary import find_promoted_tokens, is_gated
from tests.contracts.words import sentences, taught, untaught

pytestmark = pytest.mark.usefixtures("unchecked")

LAYER = 0


def words(model: Model) -> list[str]:
    """Every word of the vocabulary but the end of text, by its number."""
    return [model.tokenizer.decode([i]) for i in range(model.d_vocab - 1)]


@torch.no_grad()
def planted(family: str) -> Model:
    """Memory t of the first layer matches word t alone and promotes word t + 1; attention writes nothing."""
    model = untaught(family)
    hf, n = model.hf, model.d_vocab
    centred = torch.linalg.qr(torch.cat([torch.ones(48, 1), torch.randn(48, 47)], 1))[0][:, 1:].T
    e = centred[:n] if family == "gpt2" else torch.eye(n, 48)  # without a bias only exact zeros keep a key silent
    hf.get_input_embeddings().weight.copy_(e)
    hf.get_output_embeddings().weight.copy_(e)
    values = torch.zeros(160, 48)
    values[: n - 1] = e[1:n]
    keys = torch.zeros(160, 48)
    keys[:n] = e
    if family == "gpt2":
        hf.transformer.wpe.weight.zero_()
        hf.transformer.h[0].attn.c_proj.weight.zero_()
        hf.transformer.h[0].mlp.c_fc.weight.copy_(keys.T)
        hf.transformer.h[0].mlp.c_fc.bias.fill_(-1.0)
        hf.transformer.h[0].mlp.c_proj.weight.copy_(values)
    else:
        hf.model.layers[0].self_attn.o_proj.weight.zero_()
        hf.model.layers[0].mlp.gate_proj.weight.copy_(keys)
        hf.model.layers[0].mlp.up_proj.weight.copy_(keys)
        hf.model.layers[0].mlp.down_proj.weight.copy_(values.T)
    return load(hf, model.tokenizer)


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def model(request: pytest.FixtureRequest) -> Model:
    torch.manual_seed(0)
    return planted(request.param)


def cycles(model: Model) -> list[str]:
    """Texts in which every word is followed by the next of the vocabulary, of unequal lengths."""
    said = words(model)
    return [" ".join(said), " ".join(said[3:9]), said[0]]


def test_each_planted_key_is_triggered_by_its_word_alone_and_never_by_the_beginning_of_text(model: Model) -> None:
    found = triggers(model, cycles(model), LAYER, top=2, batch_size=2)
    said = words(model)
    for neuron in range(len(said) - 1):
        examples = found.examples(model, neuron)
        assert {e.tokens[e.peak] for e in examples} == {said[neuron]}
        assert [e.activation for e in examples] == pytest.approx(found.coefficient[neuron][: len(examples)].tolist())
    assert found.followed_by(len(said)) == () == found.examples(model, 159)
    assert found.n_tokens == len(said) - 1 + 5


def test_the_triggers_are_the_same_in_any_batches_and_one_per_text(model: Model) -> None:
    texts = [*cycles(model), *sentences()[:7]]
    one, other = (triggers(model, texts, LAYER, top=3, batch_size=size) for size in (1, 20))
    assert torch.allclose(one.coefficient, other.coefficient, atol=1e-5)
    m = capture(model, texts, [mlp_act[LAYER]])
    best = [float(m[mlp_act[LAYER]][i, 1 : len(t.split()), 4].max()) for i, t in enumerate(texts) if " " in t]
    assert torch.allclose(one.coefficient[4], torch.tensor(best).topk(3).values, atol=1e-5)


def test_the_other_side_of_gated_memories_is_triggered_where_they_write_the_opposite_of_their_value() -> None:
    torch.manual_seed(0)
    model = planted("llama")
    with torch.no_grad():
        for name in ("up_proj", "down_proj"):
            model.hf.model.layers[0].mlp.get_submodule(name).weight.neg_()
    assert float(triggers(model, cycles(model), LAYER, top=1).coefficient.max()) <= 0
    found, n = triggers(model, cycles(model), LAYER, top=1, sign=-1), len(words(model)) - 1
    assert agreement(model, found).agreeing == tuple(range(n))
    assert find_promoted_tokens(model, LAYER, [3], sign=-1, top=1)[0][0][0] == words(model)[4]
    assert is_gated(model, LAYER) and not is_gated(untaught("gpt2"), LAYER)
    apart = composition(model, " ".join(words(model)[:-1]), LAYER)
    assert apart.composed.value == 0.0 and apart.largest(0, 1)[0][1] < 0


def test_layers_read_together_and_memories_shown_together_are_as_one_by_one(model: Model) -> None:
    texts = [*cycles(model), *sentences()[:7]]
    for layer, together in enumerate(triggers_by_layer(model, texts, (0, 1), top=3)):
        alone = triggers(model, texts, layer, top=3)
        assert torch.equal(together.coefficient, alone.coefficient) and torch.equal(together.text, alone.text)
        shown = alone.examples_of(model, (4, 0, 4))
        assert shown[0] == shown[2] and [e.tokens for e in shown[1]] == [e.tokens for e in alone.examples(model, 0)]


def test_planted_memories_agree_exactly_and_shuffled_values_at_chance_exactly(model: Model) -> None:
    found = triggers(model, cycles(model), LAYER, top=1)
    n = len(words(model)) - 1
    agreed = agreement(model, found)
    assert (agreed.rate.value, agreed.rate.n, agreed.agreeing) == (1.0, n, tuple(range(n)))
    assert agreed.chance == pytest.approx(1 / n) and agreed.p_value < 0.01 and agreed.null < 0.3
    turned = [compare_with_permutations(agreed.said[:n].roll(by), agreed.followed[:n])[0].value for by in range(n)]
    assert sum(turned) / n == pytest.approx(agreed.chance)
    assert turned[1:] == [0.0] * (n - 1)


def test_the_logit_lens_reads_values_as_the_final_norm_does(model: Model) -> None:
    plain = value_logits(model, LAYER)
    assert plain[: len(words(model)) - 1].argmax(1).tolist() == list(range(1, len(words(model))))
    assert torch.allclose(value_logits(model, LAYER, lens=LogitLens(model)), plain, atol=1e-5)
    assert torch.allclose(value_logits(model, LAYER, torch.tensor([5, 2])), plain[[5, 2]], atol=1e-5)


def test_the_key_rows_give_the_coefficients_back() -> None:
    for family, f in (("gpt2", torch.nn.functional.gelu), ("llama", torch.nn.functional.silu)):
        model = taught(family)
        acts = capture(model, sentences()[:3], [mlp_in[1], mlp_act[1]])
        x, rows = acts.flat(mlp_in[1]), key_rows(model, 1)
        if family == "gpt2":
            bias = model.hf.transformer.h[1].mlp.c_fc.bias.detach()
            again = torch.nn.functional.gelu(x @ rows["key"].T + bias, approximate="tanh")
        else:
            again = f(x @ rows["gate"].T) * (x @ rows["up"].T)
        assert torch.allclose(again, acts.flat(mlp_act[1]), atol=1e-5)


def test_the_shares_of_all_memories_and_of_the_bias_sum_to_one_and_rebuild_the_output(model: Model) -> None:
    for layer in range(model.n_layers):
        found = composition(model, sentences()[:4], layer)
        assert torch.allclose(found.shares.sum(1) + found.bias, torch.ones(len(found.said)).double(), atol=1e-4)
    o = capture(model, sentences()[:4], [mlp_out[LAYER]]).flat(mlp_out[LAYER]).double()
    found = composition(model, sentences()[:4], LAYER)
    again = found.coefficient.double() @ model.w_out(LAYER).detach().double()
    assert torch.allclose(again, o, atol=1e-4)


def test_a_layer_of_one_memory_per_word_is_composed_nowhere(model: Model) -> None:
    found = composition(model, " ".join(words(model)[:-1]), LAYER)
    assert found.composed.value == 0.0 and found.composed_by_chance.value > 0.9
    assert [found.largest(i, 1)[0][0] for i in range(3)] == [0, 1, 2]
    assert torch.allclose(found.active, torch.full_like(found.active, 1 / 160))


def test_an_answer_that_appears_in_one_short_step_is_attributed_all_the_same(model: Model) -> None:
    with torch.no_grad():
        for weight in (model.hf.get_output_embeddings().weight, model.w_out(LAYER)):
            weight.mul_(30)  # p rises from 0 to 1 within a fraction of the integral that few points would meet
    try:
        found = knowledge(model, Query(words(model)[4], words(model)[5]))
        assert found.clean - float(found.without[LAYER]) > 0.9
        assert float(found.error.abs().max()) <= 0.01
        assert found.neurons()[0] == (LAYER, 4)
    finally:
        with torch.no_grad():
            for weight in (model.hf.get_output_embeddings().weight, model.w_out(LAYER)):
                weight.div_(30)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_attributions_of_each_layer_sum_to_what_the_answer_loses_without_it(family: str) -> None:
    model = taught(family, steps=60)
    query = Query("well . Rome is in", "Italy")
    coarse, fine = (knowledge(model, query, tolerance=tolerance) for tolerance in (0.5, 1e-3))
    assert fine.clean == pytest.approx(float(score(model, [query.prompt], [query.answer]).exp()), rel=1e-4)
    assert float(fine.error.abs().max()) < 1e-3 and float(coarse.error.abs().max()) < 0.5
    assert float((fine.clean - fine.without).abs().max()) > 0.05  # there is something to attribute
    for layer in range(model.n_layers):
        with intervene(model, {mlp_act[layer]: zero(last)}):
            logits = model.run(query.prompt)[0, -1].detach()
        (word,) = model.tokens("Italy").ids[0, 1:].tolist()
        assert float(logits.softmax(-1)[word]) == pytest.approx(float(fine.without[layer]), abs=1e-5)


def test_shared_neurons_are_those_most_prompts_have_and_silencing_none_is_refused() -> None:
    model = untaught("gpt2")
    one = knowledge(model, Query("Rome is in", "Italy"))
    peaks = torch.zeros(3, *one.attribution.shape)
    peaks[:, 0, 3], peaks[0, 1, 7] = 1.0, 0.9
    found = [replace(one, attribution=attribution) for attribution in peaks]
    assert found[0].neurons() == ((0, 3), (1, 7))
    assert find_shared_neurons(found) == ((0, 3),)
    assert replace(one, attribution=-peaks[0]).neurons() == ()
    with pytest.raises(ValueError, match=r"no memories were given to silence: Knowledge.neurons\(\) names some"):
        silence_neurons(model, one.query, [])
    with pytest.raises(ValueError, match="90 of the 160 memories of layer 1 leave fewer than 90 others"):
        silence_neurons(model, one.query, [(1, i) for i in range(90)])
    with pytest.raises(ValueError, match="no prompts were given to share neurons: call knowledge on several"):
        find_shared_neurons([])


def test_silenced_memories_write_nothing_at_the_prompts_last_token_and_as_many_others_are_the_control() -> None:
    model = taught("gpt2", steps=60)
    query, neurons = Query("well . Rome is in", "Italy"), [(0, i) for i in range(40)] + [(1, 5)]
    (word,) = model.tokens("Italy").ids[0, 1:].tolist()

    def without(chosen: list[tuple[int, int]]) -> float:
        def silence(layer: int) -> Callable[..., tuple[torch.Tensor, ...]]:
            def change(_: object, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
                k = args[0].clone()
                k[0, -1, [i for one, i in chosen if one == layer]] = 0.0
                return (k,)

            return change

        blocks = model.hf.transformer.h
        hooks = [block.mlp.c_proj.register_forward_pre_hook(silence(i)) for i, block in enumerate(blocks)]
        with torch.no_grad():
            p = float(model.run(query.prompt)[0, -1].softmax(-1)[word])
        for hook in hooks:
            hook.remove()
        return p

    p, control = silence_neurons(model, query, neurons)
    assert p == pytest.approx(without(neurons), rel=1e-4) and control != pytest.approx(p, rel=1e-2)
    draws = torch.Generator().manual_seed(0)
    order = [torch.randperm(model.d_mlp, generator=draws).tolist() for _ in range(2)]
    others = [(0, i) for i in order[0] if i >= 40][:40] + [(1, i) for i in order[1] if i != 5][:1]
    assert control == pytest.approx(without(others), rel=1e-4)


def test_what_is_not_there_is_refused(model: Model) -> None:
    found = triggers(model, cycles(model), LAYER, top=1)
    with pytest.raises(IndexError, match="memory 160 does not exist: layer 0 has memories 0 to 159"):
        found.examples(model, 160)
    with pytest.raises(IndexError, match="memory -1 does not exist: layer 0 has memories 0 to 159"):
        value_logits(model, LAYER, torch.tensor([-1]))
    with pytest.raises(ValueError, match=r"top=0 in layers \[0\]: keep at least one example for each memory"):
        triggers(model, cycles(model), LAYER, top=0)
    with pytest.raises(ValueError, match="no token of the 1 texts is followed by another: give texts of several words"):
        triggers(model, ["Rome"], LAYER)
    with pytest.raises(ValueError, match="tolerance=1: give a probability between 0 and 1"):
        knowledge(model, Query("Rome is in", "Italy"), tolerance=1)
    other = untaught("gpt2", seed=1)
    for call in (lambda: found.examples(other, 1), lambda: agreement(other, found)):
        with pytest.raises(ValueError, match=r"these triggers are of model .* call triggers\(model, data, 0\)"):
            call()
    with pytest.raises(ValueError, match="give a lens of this one"):
        value_logits(model, LAYER, lens=LogitLens(other))


def test_agreement_by_chance_is_the_sum_over_tokens_of_the_product_of_their_shares() -> None:
    """Σ n_c m_c / n², which is the mean over all n! orders: of four pairs, by hand."""
    said, followed = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1, 1, 1])
    rate, mean, most, p = compare_with_permutations(said, followed)
    orders = [(said[[*order]] == followed).double().mean() for order in permutations(range(4))]
    assert (rate.value, mean) == (0.5, float(torch.stack(orders).mean())) == (0.5, 6 / 16)
    assert most == 0.5 and p > 0.5
    # of a thousand orders none agrees as often: p = (1 + 0) / (1 + 1000), never 0
    every = compare_with_permutations(torch.arange(40), torch.arange(40))
    assert every[0].value == 1.0 and every[1] == pytest.approx(1 / 40) and every[2] < 0.2
    assert every[3] == 1 / 1001
