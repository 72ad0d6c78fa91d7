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
FAR = Search(steps=80, learning_rate=0.3, clamp=2000.0, kl=0.0, decay=0.0)
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


@pytest.fixture(scope="module")
def deep(folder: Path, hf_model: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a random layer of small output between the two: what is written there is read by a later one."""
    from transformers import AutoModelForCausalLM

    hf = hf_model("llama", num_hidden_layers=3)
    two = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    new = {name: weight for name, weight in hf.state_dict().items() if ".layers.1." in name}
    for name in new:
        if "o_proj" in name or "down_proj" in name:
            new[name] = 0.3 * new[name]
    hf.load_state_dict({name.replace(".layers.1.", ".layers.2."): weight for name, weight in two.items()} | new)
    path = tmp_path_factory.mktemp("deep")
    hf.save_pretrained(path)
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


def by_memit_over_layers(model: Model) -> Edit:
    """What is left to change is divided among two layers, the second seeing what the first already did."""
    options: dict[str, Any] = {"contexts": [""], "preserve": ["{} has"], "token": "last subject", "search": FAR}
    edit = memit(model, [FACT, OTHER], covariance=covariances(model, TEXTS, [0, 1]), **options)
    assert [one.layer for one in edit.weights] == [0, 1]
    return edit


def by_rome_after_rome(model: Model) -> Edit:
    """A fact at layer 1, in a model that already holds another at layer 0."""
    options: dict[str, Any] = {"contexts": [""], "preserve": ["{} has"], "token": "last subject", "search": FAR}
    with by_rome(model).applied(model):
        (keys,) = covariances(model, TEXTS, [1])
        return rome(model, OTHER, covariance=keys, **options)


@pytest.mark.parametrize("edit_by", [by_rome, by_memit])
def test_a_fact_is_rewritten_in_a_shared_model_as_in_the_whole_one(
    folder: Path, edit_by: Callable[[Model], Edit], tokenizer: Any
) -> None:
    do_in_processes(lambda: compare_edits(folder, edit_by, tokenizer))


@pytest.mark.parametrize("edit_by", [by_memit_over_layers, by_rome_after_rome])
def test_facts_are_rewritten_over_several_layers_of_a_shared_model_as_of_the_whole_one(
    deep: Path, edit_by: Callable[[Model], Edit], tokenizer: Any
) -> None:
    do_in_processes(lambda: compare_edits(deep, edit_by, tokenizer))


def compare_edits(folder: Path, edit_by: Callable[[Model], Edit], tokenizer: Any) -> None:
    from transformers import AutoModelForCausalLM

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
