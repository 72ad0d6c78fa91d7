"""A source made in part: every step-th batch from any on is that of the whole pass, whatever form the texts have."""

from typing import Any

import datasets
import pytest
import torch
from datasets.iterable_dataset import ExamplesIterable

from hooks import Model
from hooks.site import resid_post
from interp.sae import across, activations_of, drop_registers
from interp.sae.data.source import Source

TEXTS = [f"fog {number} over the bay {number * number}" for number in range(23)]


def given(form: str, model: Model) -> Any:
    if form == "token ids":
        return torch.randint(1, 200, (23, 9), generator=torch.Generator().manual_seed(0))
    if form == "list":
        return TEXTS
    if form == "dataset":
        return datasets.Dataset.from_dict({"text": TEXTS})
    examples = ExamplesIterable(lambda: ((i, {"text": text}) for i, text in enumerate(TEXTS)), {})
    return datasets.IterableDataset(examples)  # `from_generator` would pickle the model


@pytest.mark.parametrize("form", ["list", "dataset", "stream", "token ids"])
@pytest.mark.parametrize("many", [False, True], ids=["one place", "two places"])
def test_every_step_th_batch_from_any_on_is_that_of_the_whole_pass(gpt2: Model, form: str, many: bool) -> None:
    data = given(form, gpt2)
    source = (
        across([(gpt2, resid_post[0]), (gpt2, resid_post[1])], data, batch_size=4)
        if many
        else activations_of(gpt2, data, resid_post[1], batch_size=4)
    )
    whole = [*source]
    assert len(whole) == 6
    for start, step in ((0, 1), (0, 2), (1, 2), (2, 1), (1, 3), (5, 4), (6, 1)):
        assert source.every is not None
        part, expected = [*source.every(start, step)], whole[start::step]
        assert len(part) == len(expected), (start, step)
        for found, rows in zip(part, expected, strict=True):
            torch.testing.assert_close(found, rows, rtol=1e-5, atol=1e-6)
    assert len([*source.begin(2)]) == 4


@pytest.mark.parametrize("form", ["list", "dataset", "stream", "token ids"])
def test_a_part_of_a_source_costs_the_passes_of_that_part_alone(gpt2: Model, form: str) -> None:
    source = activations_of(gpt2, given(form, gpt2), resid_post[1], batch_size=4)
    assert source.every is not None
    passes: list[int] = []
    hook = gpt2.hf.register_forward_pre_hook(lambda *_: passes.append(1))
    try:
        parts = [len([*source.every(start, 3)]) for start in range(3)]
    finally:
        hook.remove()
    assert parts == [2, 2, 2] and len(passes) == 6  # of six batches each is made once


def test_rows_longer_than_four_times_the_median_of_the_first_batch_are_left_out_of_all() -> None:
    """The first batch has lengths 1, 2, 5, 9, 9: of a median of 5, 20 is kept and 21 is not, in every batch."""
    parts = [
        torch.tensor([[1.0], [-2.0], [9.0], [9.0], [5.0]]),
        torch.tensor([[20.0], [-21.0], [-20.0], [99.0], [0.1]]),
    ]
    source = Source(lambda: iter(parts), "two batches", every=lambda start, step: iter(parts[start::step]))
    first, second = drop_registers(source)
    assert torch.equal(first, parts[0]) and second.flatten().tolist() == pytest.approx([20.0, -20.0, 0.1])
    (alone,) = drop_registers(source).begin(1)
    assert torch.equal(alone, second)
    assert [len(part) for part in drop_registers(source, times=1)] == [3, 1]
