"""Devices, files and halves of characters that are refused in words."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hooks import Model, capture, load
from hooks.devices import find_device
from hooks.errors import InvalidArgument, InvalidType
from hooks.interventions import add
from hooks.site import embed
from probes import LDA, Logistic
from tests import shapes


def test_a_device_that_is_not_there_is_refused_with_those_that_are() -> None:
    assert str(find_device("cpu")) == "cpu"
    for name in ("fog", "cuda:99"):
        with pytest.raises(InvalidArgument, match=f"no device is called '{name}' on this machine: there is 'cpu'"):
            find_device(name)


def test_a_file_in_place_of_the_folder_of_a_model_is_answered_with_its_folder(
    hf_model: Callable[..., Any], tmp_path: Path
) -> None:
    hf_model("gpt2").save_pretrained(tmp_path)
    with pytest.raises(InvalidArgument, match=f"is a file, and a model is a folder: give '{tmp_path}'"):
        load(tmp_path / "config.json")
    with pytest.raises(InvalidArgument, match="no device is called 'cuda:99'"):
        load(tmp_path, device="cuda:99")


def test_half_of_a_character_is_refused_wherever_texts_are_read(gpt2: Model) -> None:
    for call in (gpt2.tokens, gpt2.generate, lambda text: capture(gpt2, ["fog", text], [embed])):
        with pytest.raises(InvalidArgument, match="holds '.ud83d' at character 4, which is half of a character"):
            call("fog \ud83d")


def test_a_number_given_as_a_text_is_refused_by_name() -> None:
    x = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    y = torch.arange(20) % 2 == 0
    with shapes.unchecked(), pytest.raises(InvalidType, match="strength is '3', a str: give a number"):
        add(x[0], "3")  # type: ignore[arg-type]
    with shapes.unchecked():
        made = ((Logistic(C="1"), "C"), (LDA(shrinkage="1"), "shrinkage"))  # type: ignore[arg-type]
    for probe, name in made:
        with pytest.raises(InvalidType, match=f"{name} is '1', of type str: give a number"):
            probe.fit(x, y)
