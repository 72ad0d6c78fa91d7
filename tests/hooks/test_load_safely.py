"""Loading runs no code of a model's own unless asked to, installs nothing, and minds no flag of a configuration."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.tiny_models import tiny_model
from hooks import Model, capture, check, load
from hooks.errors import InvalidArgument
from hooks.site import logits, resid_post

CLASSES = "t5:T5ForConditionalGeneration mamba:MambaForCausalLM gpt_oss:GptOssForCausalLM"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What programs were to be started; none is."""
    tried: list[Any] = []

    def refuse(*args: Any, **kwargs: Any) -> None:
        tried.append((args, kwargs))
        raise OSError("no program is started in this test")

    for place, names in ((subprocess.Popen, ["__init__"]), (os, ["system", "posix_spawn", "execv", "execve", "fork"])):
        for name in names:
            monkeypatch.setattr(place, name, refuse)
    yield tried


def test_the_fence_sees_an_installation(started: list[Any]) -> None:
    with pytest.raises(OSError, match="no program"):
        subprocess.check_call(["pip", "install", "torchvision", "-q"])
    assert "pip" in started[0][0][1]


def test_loading_starts_no_program_whatever_the_family(
    hf_model: Callable[..., Any], tokenizer: Any, started: list[Any], tmp_path: Path
) -> None:
    for family in ("gpt2", "llama", "bert", "gemma2"):
        load(hf_model(family), tokenizer, check=False)
    for kind in CLASSES.split():
        load(tiny_model(*kind.split(":")), check=False)
    hf_model("llama").save_pretrained(tmp_path)
    load(tmp_path)
    assert not started


def _own_code(folder: Path, **config: Any) -> Path:
    """A folder whose code leaves a mark when it runs."""
    code = {"AutoConfig": "evil.EvilConfig", "AutoModelForCausalLM": "evil.EvilModel"}
    (folder / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": code, **config}))
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w').close()\n")
    return folder / "ran"


def test_a_models_own_code_runs_only_where_it_was_said_that_it_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    ran = _own_code(tmp_path)
    for asked in ({}, {"trust_remote_code": False}):
        with pytest.raises(InvalidArgument, match=r"read by code of its own \(evil.py\), which was not run: read that"):
            load(tmp_path, **asked)
    assert not ran.exists()
    with pytest.raises(Exception):  # noqa: B017  it defines no model
        load(tmp_path, trust_remote_code=True)
    assert ran.exists()


def test_a_tokenizers_own_code_is_not_run_either(hf_model: Callable[..., Any], tmp_path: Path) -> None:
    hf_model("llama").save_pretrained(tmp_path)
    said = {"tokenizer_class": "EvilTokenizer", "auto_map": {"AutoTokenizer": ["evil.EvilTokenizer", None]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(said))
    (tmp_path / "vocab.json").write_text("{}")
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    with pytest.raises(InvalidArgument, match=r"code of its own \(evil.py\)"):
        load(tmp_path)
    assert not (tmp_path / "ran").exists()


FLAGS: list[dict[str, Any]] = [
    {"return_dict": False},
    {"output_hidden_states": True},
    {"output_attentions": True},
    {"use_cache": False},
    {"return_dict": False, "output_hidden_states": True, "output_attentions": True},
]


@pytest.mark.parametrize("flags", FLAGS, ids=lambda flags: "-".join(flags))
@pytest.mark.parametrize("family", ["gpt2", "llama", "bert"])
def test_a_flag_of_the_configuration_changes_nothing(
    hf_model: Callable[..., Any], tokenizer: Any, family: str, flags: dict[str, Any]
) -> None:
    plain, hf = load(hf_model(family), tokenizer), hf_model(family)
    hf.set_attn_implementation("eager")
    for name, value in flags.items():
        setattr(hf.config, name, value)
    model = load(hf, tokenizer, check=False)
    check(model)  # measured, not taken from the equal model without the flag
    assert model.sites == plain.sites and model.contract is not None and model.contract.holds
    assert {name: getattr(hf.config, name) for name in flags} == flags
    _same(plain, model)


def _same(plain: Model, model: Model) -> None:
    sites = [resid_post[1], logits]
    one, other = (capture(each, ["Fog", "The bay"], sites) for each in (plain, model))
    for site in sites:
        torch.testing.assert_close(one[site], other[site], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(plain.run("Fog"), model.run("Fog"), atol=1e-5, rtol=1e-4)
    if model.hf.can_generate():
        assert model.generate("Fog", max_new_tokens=4) == plain.generate("Fog", max_new_tokens=4)


@pytest.mark.parametrize("config", ["{}", '{"model_type": "fog"}', "{"])
def test_a_config_that_names_no_model_is_not_said_to_be_missing(tmp_path: Path, config: str) -> None:
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(InvalidArgument, match=r"the config.json in .* cannot be read as a model of transformers"):
        load(tmp_path)
