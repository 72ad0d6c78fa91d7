"""Causal tracing restores exactly what it says: nothing broken or everything restored gives the clean run."""

import pytest
import torch

from hooks import Model
from interp.memory import Subject, locate, trace_attention, trace_mlp, trace_states
from interp.memory.trace import ROLES, Trace, roles_of

FACTS = [Subject("so Rome is in", "Italy", "Rome"), Subject("Oslo is", "b", "Oslo")]


def test_noise_of_zero_breaks_nothing_and_restoring_then_has_no_effect(gpt2: Model) -> None:
    trace = trace_mlp(gpt2, FACTS, window=2, noise=0.0)
    assert torch.allclose(trace.corrupted, trace.clean, atol=1e-6)
    assert trace.indirect_effect.nan_to_num(0.0).abs().max() < 1e-6


def test_restoring_the_last_state_of_the_last_prompt_token_gives_the_clean_probability(gpt2: Model) -> None:
    trace = trace_states(gpt2, FACTS)
    assert torch.allclose(trace.restored[:, ROLES.index("last prompt"), -1], trace.clean, atol=1e-6)
    assert not torch.allclose(trace.corrupted, trace.clean, atol=1e-6)


def test_the_last_state_of_any_other_token_has_no_effect_at_all(gpt2: Model) -> None:
    trace = trace_states(gpt2, FACTS[:1])
    others = [i for i, role in enumerate(ROLES) if role != "last prompt"]
    assert trace.indirect_effect[:, others, -1].nan_to_num(0.0).abs().max() < 1e-7


def test_tokens_before_the_subject_are_never_roles_and_every_later_token_has_one() -> None:
    assert roles_of(9, [3, 4, 5]) == [[3], [4], [5], [6], [7], [8]]
    assert roles_of(4, [3]) == [[], [], [3], [], [], []]
    assert roles_of(4, [2]) == [[], [], [2], [], [], [3]]


def test_a_role_a_prompt_lacks_is_left_out_of_the_mean(gpt2: Model) -> None:
    trace = trace_attention(gpt2, [Subject("x is in", "a", "x")], window=1, draws=2)
    assert trace.restored[0, ROLES.index("first subject")].isnan().all()
    assert not trace.restored[0, ROLES.index("last subject")].isnan().any()


def test_the_place_with_the_largest_effect_is_located_with_its_margin_and_majority() -> None:
    restored = torch.full((4, 6, 3), 0.1)
    restored[:, 2, 1] = torch.tensor([0.9, 0.9, 0.9, 0.2])
    restored[:, 5, 2] = 0.3
    windows = ((0, 1), (1, 2), (2, 3))
    trace = Trace("feed-forward", ROLES, windows, torch.full((4,), 0.9), torch.full((4,), 0.1), restored)
    found = locate(trace)
    assert (found.role, found.layers, found.layer, found.majority) == ("last subject", (1, 2), 2, 0.75)
    assert found.effect == pytest.approx(0.625) and found.margin == pytest.approx(0.425)
    low, high = trace.interval()[:, 2, 1]
    assert low < 0.625 < high


def test_a_window_wider_than_the_model_and_no_facts_are_refused(gpt2: Model) -> None:
    with pytest.raises(ValueError, match="a window of 4 layers does not fit .*, which has 3"):
        trace_mlp(gpt2, FACTS, window=4)
    with pytest.raises(ValueError, match="no facts were given to trace"):
        trace_mlp(gpt2, [])
