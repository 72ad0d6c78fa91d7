"""What a model reads: texts and encodings, with what else comes with them, and no batch that its contract forbids."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from hooks import Model
from hooks.contract.report import Check, ContractReport
from hooks.errors import InvalidArgument, InvalidType


def refusing(model: Model, use: str) -> None:
    broken = Check(use, "measured otherwise", 1.0, 0.1, use=use)
    model.contract = ContractReport(model.name, "float32", model.fingerprint, (broken,), 0, 0.0)


@pytest.mark.parametrize("use", ["left padding", "right padding", "batch"])
def test_a_batch_with_padding_on_the_side_that_is_not_fit_is_refused_and_no_other(
    fresh: Callable[..., Model], use: str
) -> None:
    """One column of padding in one of three texts is enough."""
    model = fresh("gpt2")
    refusing(model, use)
    ids, side = torch.arange(5, 20).view(3, 5), slice(0, 1) if use == "left padding" else slice(-1, None)
    mask = torch.ones(3, 5, dtype=torch.long)
    assert len(model.tokens(ids[:1])) == 1
    even = {"input_ids": ids, "attention_mask": mask}
    ragged = {"input_ids": ids, "attention_mask": mask.clone()}
    ragged["attention_mask"][1, side] = 0
    if use == "batch":
        for given in (even, ids[:2]):
            with pytest.raises(InvalidArgument, match="refuses batch.*pass texts one by one"):
                model.tokens(given)
        return
    assert len(model.tokens(even)) == 3
    with pytest.raises(InvalidArgument, match=f"refuses {use}.*pass texts of equal length, or one by one"):
        model.tokens(ragged)
    other = {"input_ids": ids, "attention_mask": mask.clone()}
    other["attention_mask"][1, slice(-1, None) if use == "left padding" else slice(0, 1)] = 0
    assert len(model.tokens(other)) == 3


def test_a_text_that_speaks_of_ids_is_a_text_and_a_mapping_without_them_is_refused(gpt2: Model) -> None:
    assert gpt2.tokens("of input_ids").texts == ("of input_ids",)
    with pytest.raises(InvalidType):
        gpt2.tokens({"text": "Fog"})  # pyright: ignore[reportArgumentType]


def test_segments_that_a_tokenizer_adds_are_left_out_of_a_model_that_takes_none(llama: Model) -> None:
    ids = torch.tensor([[5, 6, 7]])
    given: dict[str, Any] = {"input_ids": ids, "token_type_ids": torch.zeros_like(ids)}
    assert torch.equal(llama.run(given), llama.run(ids)) and llama.tokens(given).more == {}
    with pytest.raises(InvalidArgument, match="takes no pixel_values nor decoder_input_ids: leave it out"):
        llama.run({**given, "pixel_values": torch.zeros(1, 3, 8, 8), "decoder_input_ids": ids})
