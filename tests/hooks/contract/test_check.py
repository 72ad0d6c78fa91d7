"""What a check reads, counts and keeps: two short texts, every pass, and one report for models that are equal."""

import time
from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Any

import pytest
import torch
from torch import nn

from hooks import Model, capture, check, load
from hooks.contract.check import _sum_buffer, _texts, contract_of
from hooks.contract.families import tiny
from hooks.contract.invariance import measure_rounding
from hooks.contract.report import Check
from hooks.contract.rounding import unit
from hooks.site import logits, v, z

pytestmark = pytest.mark.usefixtures("unchecked")


def unchecked() -> Model:
    return load(tiny("gpt2"), check=False)


def test_two_texts_of_twelve_and_seven_ordinary_tokens_are_read() -> None:
    model = unchecked()
    for text, length in zip(_texts(model), (12, 7), strict=True):
        assert text.ids.shape == (1, length) and bool(text.mask.all()) and not bool(text.special.any())
    assert not {0, 100} & {*torch.cat([text.ids[0] for text in _texts(model)]).tolist()}


@pytest.mark.parametrize(
    ("held", "lengths"),
    [(0, (12, 7)), (13, (12, 7)), (12, (12, 7)), (8, (8, 7)), (5, (5, 4)), (2, (2, 1)), (1, (1, 1))],
)
def test_a_shorter_context_is_filled_and_the_second_text_is_shorter_by_a_token(
    held: int, lengths: tuple[int, int]
) -> None:
    model = unchecked()
    model.hf.config.max_position_embeddings = held
    assert tuple(text.ids.shape[1] for text in _texts(model)) == lengths


def test_tokens_that_pad_or_begin_a_text_are_not_read_where_there_are_others() -> None:
    """An id outside the vocabulary is none."""
    model = unchecked()

    def ids(d_vocab: int, pad: int, begin: int) -> set[int]:
        model.d_vocab, model.hf.config.pad_token_id, model.hf.config.bos_token_id = d_vocab, pad, begin
        return {*torch.cat([text.ids[0] for text in _texts(model)]).tolist()}

    assert ids(4, pad=0, begin=3) == {1, 2}
    assert ids(4, pad=4, begin=9) == {0, 1, 2, 3}
    assert ids(2, pad=0, begin=1) == {0, 1}


def test_a_report_says_how_many_passes_it_took_and_how_long_and_no_pass_keeps_gradients() -> None:
    model, kept = unchecked(), list[bool]()
    model.hf.register_forward_pre_hook(lambda *_: kept.append(torch.is_grad_enabled()))
    began = time.perf_counter()
    report = check(model)
    assert 0.0 < report.seconds <= time.perf_counter() - began
    assert report.passes == len(kept) > 10 and not any(kept)


def hooked(part: Any) -> None:
    part.register_forward_hook(lambda *_: None)


def hooked_before(part: Any) -> None:
    part.register_forward_pre_hook(lambda *_: None)


def replaced(part: Any) -> None:
    part.forward = part.forward


def in_training(part: Any) -> None:
    part.train()


@pytest.mark.parametrize("alter", [hooked, hooked_before, replaced, in_training])
def test_a_model_one_part_of_which_may_do_something_else_is_measured_itself(alter: Callable[[Any], None]) -> None:
    model = load(tiny("gpt2"))
    first = model.contract
    assert first is not None and contract_of(model) is first
    alter(model.hf.transformer.h[1].ln_1)
    assert contract_of(model) is not first
    assert load(tiny("gpt2")).contract is first


def test_a_buffer_is_known_by_its_sum_and_by_a_sum_that_counts_places() -> None:
    assert _sum_buffer(torch.tensor([[2, 3], [5, 7]])) == (17.0, 2.0 + 2 * 3 + 3 * 5 + 4 * 7)
    assert _sum_buffer(torch.tensor([])) == (0.0, 0.0)


def test_a_site_that_gives_nothing_or_another_shape_is_infinitely_far_from_what_it_should() -> None:
    for wrong in ({"module": nn.Identity()}, {"shape": (8, 4)}, {"shape": (5, 8)}):
        model = unchecked()
        model.taps = {**model.taps, z[1]: replace(model.taps[z[1]], **wrong)}
        said = "the site has a value of its shape at every token"
        fires = Check("every site fires", said, inf, 0.0, (z[1],))
        assert {one for one in check(model).checks if one.law == "every site fires"} == {fires}


def test_a_site_that_is_blamed_is_not_asked_whether_what_is_written_there_arrives() -> None:
    model = unchecked()
    model.taps = {**model.taps, z[1]: replace(model.taps[v[1]], site=z[1])}
    report = check(model)
    asked = {site for one in report.checks if one.law == "writing reaches" for site in one.sites}
    assert set(report.refused) == {z[1]} and z[1] not in asked and z[0] in asked


def test_logits_may_differ_by_four_times_what_noise_on_the_stream_of_the_longer_text_changes() -> None:
    """But not by more than four times sixteen units."""
    model = load(tiny("gpt2"))
    assert model.contract is not None
    law = next(one for one in model.contract.checks if one.law == "same as Hugging Face")
    text, u = _texts(model)[0], unit(torch.float32, 32)
    floor = measure_rounding(model, text, (logits,), capture(model, text, logits).values)[logits]
    assert u < floor < 16 * u
    assert law.allowed == pytest.approx(4 * floor, rel=1e-4)
