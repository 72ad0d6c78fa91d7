"""The folder of a tiny model, which tests of commands read."""

from collections.abc import Callable
from typing import Any

import pytest

from interp.commands import arguments


@pytest.fixture(scope="module")
def folder(hf_model: Callable[..., Any], tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model")
    hf_model("gpt2").save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No line of a step that takes long, since how long one takes is the machine's matter."""
    monkeypatch.setattr(arguments, "PATIENCE", 600.0)
