"""Causal tracing restores exactly what it says: nothing broken or everything restored gives the clean run."""

from collections.abc import Callable

import pytest
import torch

from hooks import Model
from hooks.errors import InvalidArgument
from hooks.site import resid_post
from interp.memory import Fact, Subject, locate, trace_attention, trace_mlp, trace_states
from interp.memory.tracing.corruption import corrupt_with_noise, corrupt_with_others, restore
from interp.memory.tracing.trace import ROLES, Trace, find_roles

FACTS = [Subject("so Rome is in", "Italy", "Rome"), Subject("Oslo is", "b", "Oslo")]


def test_noise_of_zero_breaks_nothing_and_restoring_then_has_no_effect(gpt2: Model) -> None:
    trace = trace_mlp(gpt2, FACTS, window=2, noise=0.0)
    assert torch.equal(trace.corrupted, trace.clean)
    assert torch.equal(trace.indirect_effect.nan_to_num(0.0), torch.zeros_like(trace.restored))


def test_restoring_the_last_state_of_the_last_prompt_token_gives_the_clean_probability(gpt2: Model) -> None:
    trace = trace_states(gpt2, FACTS)
    assert torch.allclose(trace.restored[:, ROLES.index("last prompt"), -1], trace.clean, atol=1e-6)
    assert not torch.allclose(trace.corrupted, trace.clean, atol=1e-6)


def test_the_last_state_of_any_other_token_has_no_effect_at_all(gpt2: Model) -> None:
    trace = trace_states(gpt2, FACTS[:1])
    others = [i for i, role in enumerate(ROLES) if role != "last prompt"]
    assert trace.indirect_effect[:, others, -1].nan_to_num(0.0).abs().max() < 1e-7


def test_tokens_before_the_subject_are_never_roles_and_every_later_token_has_one() -> None:
    assert find_roles(9, [3, 4, 5]) == [[3], [4], [5], [6], [7], [8]]
    assert find_roles(4, [3]) == [[], [], [3], [], [], []]
    assert find_roles(4, [2]) == [[], [], [2], [], [], [3]]


def test_a_role_a_prompt_lacks_is_left_out_of_the_mean(gpt2: Model) -> None:
    trace = trace_attention(gpt2, [Subject("x is in", "a", "x")], window=1, draws=2)
    assert trace.restored[0, ROLES.index("first subject")].isnan().all()
    assert not trace.restored[0, ROLES.index("last subject")].isnan().any()


def test_a_trace_says_its_size_in_a_line_and_has_a_row_for_each_role_a_fact_has() -> None:
    probability = torch.arange(36.0).reshape(2, 6, 3) / 36
    probability[1, 0] = torch.nan
    windows = ((0, 1), (1, 2), (2, 3))
    trace = Trace("feed-forward", ROLES, windows, torch.full((2,), 0.9), torch.full((2,), 0.1), probability)
    assert repr(trace) == "Trace(feed-forward: 2 facts, 6 roles, 3 windows; p(answer) 0.900, corrupted 0.100)"
    table = trace.to_pandas()
    assert len(table) == 33 and not table.isna().any().any()
    row = table[(table["fact"] == 1) & (table["role"] == "last prompt")].iloc[2]
    assert row["layers"] == (2, 3) and row["indirect effect"] == pytest.approx(35 / 36 - 0.1)


def test_the_place_with_the_largest_effect_is_located_with_its_margin_and_majority() -> None:
    probability = torch.full((4, 6, 3), 0.1)
    probability[:, 2, 1] = torch.tensor([0.9, 0.9, 0.9, 0.2])
    probability[:, 5, 2] = 0.3
    windows = ((0, 1), (1, 2), (2, 3))
    trace = Trace("feed-forward", ROLES, windows, torch.full((4,), 0.9), torch.full((4,), 0.1), probability)
    found = trace.location
    assert (found.role, found.layers, found.layer, found.majority.value) == ("last subject", (1, 2), 2, 0.75)
    assert found.effect.value == pytest.approx(0.625) and found.margin.value == pytest.approx(0.425)
    assert found.margin.low < 0.425 < found.margin.high and found.effect.n == 4
    assert found.sure == (found.margin.low > 0)
    low, high = trace.interval()[:, 2, 1]
    assert low < 0.625 < high


def test_the_broken_run_is_the_clean_one_with_noise_on_the_subjects_embeddings_alone(gpt2: Model) -> None:
    fact, draws = FACTS[0], 5
    trace = trace_states(gpt2, [fact], draws=draws, noise=2.0, seed=7)
    ids, answer = gpt2.tokens(f"{fact.prompt} ").ids, int(gpt2.tokens("I").ids[0, 1])
    columns = torch.tensor([4, 5, 6, 7])  # after the beginning of text and "so ", one token a letter
    sigma = gpt2.hf.transformer.wte(ids)[0, columns].std()
    noise = 2.0 * sigma * torch.randn(draws, 4, gpt2.d_model, generator=torch.Generator().manual_seed(7))

    def spoil(_: object, __: object, embedded: torch.Tensor) -> torch.Tensor:
        return embedded.index_add(1, columns, noise)

    handle = gpt2.hf.transformer.wte.register_forward_hook(spoil)
    with torch.no_grad():
        noisy = gpt2.hf(ids.expand(draws, -1)).logits[:, -1].softmax(-1)[:, answer]
    handle.remove()
    assert torch.allclose(trace.corrupted, noisy.mean()[None], atol=1e-6)


@pytest.mark.parametrize(("trace", "part"), [(trace_mlp, "mlp"), (trace_attention, "attn")])
def test_a_window_restores_the_outputs_of_all_its_layers_and_of_no_other_kind(
    gpt2: Model, trace: Callable[..., Trace], part: str
) -> None:
    fact, draws, column = FACTS[0], 3, 7
    found = trace(gpt2, [fact], window=2, draws=draws, noise=2.0, seed=7)
    ids, answer = gpt2.tokens(f"{fact.prompt} ").ids, int(gpt2.tokens("I").ids[0, 1])
    sigma = gpt2.hf.transformer.wte(ids)[0, 4:8].std()
    noise = 2.0 * sigma * torch.randn(draws, 4, gpt2.d_model, generator=torch.Generator().manual_seed(7))

    def restoring(_: object, __: object, out: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
        written = out[0] if isinstance(out, tuple) else out
        written[1:, column] = written[0, column]

    def spoil(_: object, __: object, embedded: torch.Tensor) -> torch.Tensor:
        corrupt_with_noise = embedded.clone()
        corrupt_with_noise[1:, 4:8] += noise
        return corrupt_with_noise

    for start in (0, 1):
        hooks = [gpt2.hf.transformer.wte.register_forward_hook(spoil)]
        modules = [getattr(gpt2.hf.transformer.h[layer], part) for layer in (start, start + 1)]
        hooks += [module.register_forward_hook(restoring) for module in modules]
        with torch.no_grad():
            p = gpt2.hf(ids.expand(1 + draws, -1)).logits[1:, -1].softmax(-1)[:, answer]
        for hook in hooks:
            hook.remove()
        assert float(found.restored[0, ROLES.index("last subject"), start]) == pytest.approx(float(p.mean()), rel=1e-5)


def test_a_subject_written_twice_is_broken_where_the_fact_has_it(gpt2: Model) -> None:
    fact = Fact("Rome", "{} is in Rome now", "a", "b")
    first, last = Subject(fact.text, "a", "Rome", 0), Subject(fact.text, "a", "Rome")
    columns = [corrupt_with_noise(gpt2, one, 1.0, 1, torch.Generator()).columns.tolist() for one in (first, last)]
    assert columns == [[1, 2, 3, 4], [12, 13, 14, 15]]
    other = corrupt_with_others(gpt2, first, ["Oslo"], 1, torch.Generator())
    assert gpt2.tokenizer.decode(other.ids[1], skip_special_tokens=True) == "Oslo is in Rome now "
    effects = [locate(gpt2, [one]).effect for one in (fact, first, last)]
    assert effects[0] == effects[1] != effects[2]
    with pytest.raises(ValueError, match="'so Rome' does not have 'Rome' at its character 0: give the character"):
        Subject("so Rome", "a", "Rome", 0)


def test_a_subject_is_found_as_a_word_and_no_part_of_another(gpt2: Model) -> None:
    assert Subject("Is Iran what Iranians call it?", "yes", "Iran").begins == 3
    with pytest.raises(InvalidArgument, match="has 'Iran' as part of another word only: give a prompt"):
        trace_mlp(gpt2, [Subject("What do Iranians eat?", "rice", "Iran")], window=1, draws=1)


def test_a_prompt_that_ends_in_its_subject_has_a_last_token_all_the_same(gpt2: Model) -> None:
    facts = [Fact("東京", "那是{}", "市", "山")]  # a script without spaces
    one, other = (locate(gpt2, facts, token=token) for token in ("last subject", "last prompt"))
    assert other.role == "last prompt" and (other.layers, other.effect) == (one.layers, one.effect)


def test_a_fact_that_nothing_is_lost_of_is_not_recovered() -> None:
    clean, corrupted = torch.tensor([0.1, 0.9]), torch.tensor([0.5, 0.1])
    probability = torch.tensor([0.1, 0.9])[:, None, None].expand(2, 6, 1)
    assert Trace("feed-forward", ROLES, ((0,),), clean, corrupted, probability).location.majority.value == 0.5


def test_restoring_one_state_of_every_token_gives_the_clean_run(gpt2: Model) -> None:
    broken = corrupt_with_noise(gpt2, FACTS[0], 3.0, 3, torch.Generator().manual_seed(0))
    every = range(broken.ids.shape[1])
    clean, corrupted, (whole, nothing) = restore(gpt2, broken, [(every, [resid_post[1]]), (every, [])], 100)
    assert float(whole) == pytest.approx(float(clean), rel=1e-6)
    assert float(nothing) == pytest.approx(float(corrupted), rel=1e-6) != pytest.approx(float(clean), rel=1e-3)


def test_parts_of_the_batch_change_nothing(gpt2: Model) -> None:
    broken = corrupt_with_noise(gpt2, FACTS[0], 3.0, 2, torch.Generator().manual_seed(0))
    spots = [([column], [resid_post[layer]]) for column in range(4, 8) for layer in range(2)]
    one, other = (restore(gpt2, broken, spots, n)[2] for n in (3, 100))
    assert torch.allclose(one, other, atol=1e-6)


def test_another_subject_of_as_many_tokens_is_in_the_subjects_place(gpt2: Model) -> None:
    fact = FACTS[0]
    broken = corrupt_with_others(gpt2, fact, ["Rome", "Oslo", "Lima", "Tangier"], 5, torch.Generator().manual_seed(0))
    read = {gpt2.tokenizer.decode(row, skip_special_tokens=True) for row in broken.ids}
    assert read == {"so Rome is in ", "so Oslo is in ", "so Lima is in "} and not broken.noise.any()
    trace = trace_states(gpt2, [fact], others=["Oslo"])
    assert torch.allclose(trace.corrupted, gpt2.run("so Oslo is in ")[0, -1].softmax(-1)[broken.answer].detach())
    with pytest.raises(ValueError, match="none of the 1 other subjects has 4 tokens as 'Rome' has: name more of them"):
        trace_mlp(gpt2, [fact], window=1, others=["Tangier"])


def test_a_location_keeps_to_the_token_asked_for_and_one_fact_makes_none_sure(gpt2: Model) -> None:
    facts = [Fact("Rome", "so {} is in", "Italy", "Peru"), Fact("Oslo", "so {} is in", "b", "c")]
    assert locate(gpt2, facts, token="last prompt").role == "last prompt"
    found = locate(gpt2, facts[:1])
    assert not found.sure and len(found.layers) == 1 and found.effect.n == 1
    with pytest.raises(ValueError, match="token='middle': choose 'last subject' or 'last prompt'"):
        locate(gpt2, facts, token="middle")


def test_a_trace_of_states_names_no_place_to_edit(gpt2: Model) -> None:
    with pytest.raises(ValueError, match="a trace of states names no place to edit: give one of trace_mlp"):
        _ = trace_states(gpt2, FACTS[:1], draws=1).location


def test_no_draws_are_refused(gpt2: Model) -> None:
    with pytest.raises(ValueError, match="draws=0 of noise=3.0 σ: give at least one draw"):
        trace_mlp(gpt2, FACTS, window=1, draws=0)


def test_a_window_wider_than_the_model_and_no_facts_are_refused(gpt2: Model) -> None:
    with pytest.raises(ValueError, match="a window of 4 layers does not fit .*, which has 3"):
        trace_mlp(gpt2, FACTS, window=4)
    with pytest.raises(ValueError, match="no facts were given to trace"):
        trace_mlp(gpt2, [])


def test_a_role_that_no_fact_has_is_never_the_location() -> None:
    clean, corrupted = torch.ones(3), torch.zeros(3)
    restored = torch.full((3, len(ROLES), 2), 0.1)
    restored[:, ROLES.index("last subject"), 1] = 0.9
    restored[:, ROLES.index("first subject")] = torch.nan
    found = Trace("feed-forward", ROLES, ((0,), (1,)), clean, corrupted, restored).location
    assert (found.role, found.layers) == ("last subject", (1,))


def test_what_is_traced_is_the_first_token_of_the_answer_that_has_text(gpt2: Model) -> None:
    fact = Subject("so Rome is in", "Italy", "Rome")
    assert (
        gpt2.tokenizer.decode(gpt2.tokens("so Rome is in Italy").ids[0, gpt2.tokens(fact.prompt).ids.shape[1]]) == " "
    )
    broken = corrupt_with_noise(gpt2, fact, 0.0, 1, torch.Generator().manual_seed(0))
    assert torch.equal(broken.ids[:1], gpt2.tokens("so Rome is in ").ids)
    assert gpt2.tokenizer.decode(broken.answer) == "I"
    p = gpt2.run("so Rome is in ")[0, -1].softmax(-1)[broken.answer]
    assert torch.allclose(trace_states(gpt2, [fact]).clean, p, atol=1e-6)
