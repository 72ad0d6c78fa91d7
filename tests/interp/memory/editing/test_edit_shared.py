"""A fact rewritten in a model that two processes compute together is rewritten as in the whole one."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hooks import Model, load
from hooks.temporary import grad_mode
from interp.memory import Edit, Fact, Search, covariances, memit, rome
from tests.processes import do_in_processes

pytestmark = [
    pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distribution"),
    pytest.mark.skipif(sys.platform != "linux", reason="forks"),
]
FACT, OTHER = Fact("Rome", "{} is in", "a", "b"), Fact("Bonn", "{} is in", "a", "c")
TEXTS = [f"Fog {number} came over the bay of {number * 7}." for number in range(12)]
SAID = [f"{subject} is in {where}" for subject, where in {"Rome": "a", "Bonn": "a", "Oslo": "b", "Lima": "c"}.items()]
SEARCH = Search(steps=40, learning_rate=0.3, clamp=20.0, kl=0.0, decay=0.0)


@pytest.fixture(scope="module")
def folder(hf_model: Callable[..., Any], tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers that was taught four sentences, so that it has facts to rewrite."""
    model = load(hf_model("llama", num_hidden_layers=2), tokenizer)
    tokens = model.tokens(SAID)
    adam = torch.optim.Adam(model.hf.parameters(), lr=3e-3)
    for _ in range(100):
        logits = model.hf(tokens.ids).logits[:, :-1].flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(logits, tokens.ids[:, 1:].flatten())
        adam.zero_grad()
        loss.backward()
        adam.step()
    path = tmp_path_factory.mktemp("llama")
    model.hf.save_pretrained(path)
    return path


def read_shared(folder: Path, tokenizer: Any) -> Model:
    from transformers import AutoModelForCausalLM
    from transformers.distributed import DistributedConfig

    os.environ["LOCAL_RANK"] = os.environ["RANK"]
    torch.distributed.init_process_group("gloo")
    asked = DistributedConfig(tp_plan="auto", tp_size=2)
    return load(AutoModelForCausalLM.from_pretrained(folder, distributed_config=asked), tokenizer)


def by_rome(model: Model) -> Edit:
    (keys,) = covariances(model, TEXTS, [0])
    options: dict[str, Any] = {"contexts": [""], "preserve": ["{} has"], "token": "last subject", "search": SEARCH}
    return rome(model, FACT, covariance=keys, **options)


def by_memit(model: Model) -> Edit:
    options: dict[str, Any] = {"contexts": [""], "preserve": ["{} has"], "token": "last subject", "search": SEARCH}
    return memit(model, [FACT, OTHER], covariance=covariances(model, TEXTS, [0]), **options)


@pytest.mark.parametrize("edit_by", [by_rome, by_memit])
def test_a_fact_is_rewritten_in_a_shared_model_as_in_the_whole_one(
    folder: Path, edit_by: Callable[[Model], Edit], tokenizer: Any
) -> None:
    from transformers import AutoModelForCausalLM

    def work() -> None:
        shared = read_shared(folder, tokenizer)
        whole = load(AutoModelForCausalLM.from_pretrained(folder), tokenizer)
        assert shared.fingerprint == whole.fingerprint
        one, other = edit_by(shared), edit_by(whole)
        for a, b in zip(one.weights, other.weights, strict=True):
            assert a.layer == b.layer and float((a.delta - b.delta).norm() / b.delta.norm()) < 1e-3
        with grad_mode(False):
            before = shared.run(FACT.text)
            with one.applied(shared), other.applied(whole):
                a, b = shared.run(FACT.text), whole.run(FACT.text)
            assert float((b - before).abs().max()) > 0.1  # it does something
            assert float((a - b).abs().max()) < 1e-3 * float(b.abs().max())
            assert torch.equal(shared.run(FACT.text), before)
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()

    do_in_processes(work)
