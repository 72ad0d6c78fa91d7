"""Recipes in the files of other tools act at the same layer with the same strength, counted as each tool counts."""

import json
import runpy
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from hooks import Direction, Model, intervene
from hooks.errors import DamagedFile, InvalidArgument, MissingFile, WrongModel
from hooks.interventions import add
from hooks.position import everywhere, special
from hooks.site import mlp_out, resid_post, resid_pre
from interp.export import (
    read_gguf_vector,
    read_layer_tensors,
    read_svec,
    to_gguf_vector,
    to_hook_script,
    to_layer_tensors,
    to_svec,
)
from interp.export.client import largest_difference, own_logits, plain_logits
from interp.steering import Recipe, SteeredModel, steer

PROMPTS = ["Rome is in", "Fog over the bay"]


def recipe(model: Model, layer: int, dose: float = 2.0, seed: int = 0) -> Recipe:
    vector = torch.randn(model.d_model, generator=torch.Generator().manual_seed(seed))
    return Recipe(Direction(vector, resid_post[layer], "random", 1.5, model.fingerprint), "add", dose)


def plain_hook_logits(model: Model, vectors: dict[int, torch.Tensor], *, before: bool) -> list[torch.Tensor]:
    """Logits with vectors added to what a block gives, or to what it is given, written without this library's hooks."""
    blocks = model.hf.get_decoder().layers if hasattr(model.hf.get_decoder(), "layers") else model.hf.transformer.h
    handles = []
    for layer, vector in vectors.items():
        if before:
            hook = lambda m, args, v=vector: (args[0] + v, *args[1:])  # noqa: E731
            handles.append(blocks[layer].register_forward_pre_hook(hook))
        else:
            hook = lambda m, a, out, v=vector: (out[0] + v, *out[1:]) if isinstance(out, tuple) else out + v  # noqa: E731
            handles.append(blocks[layer].register_forward_hook(hook))
    try:
        return plain_logits(model.hf, model, PROMPTS)
    finally:
        for handle in handles:
            handle.remove()


def added_everywhere(model: Model, recipes: list[Recipe]) -> list[torch.Tensor]:
    """Our own adding at every token, special ones too, which is what other tools do."""
    plan = {}
    for one in recipes:
        vector = one.direction.unit * one.direction.scale * one.dose
        plan.setdefault(one.direction.site, []).append(add(vector, at=everywhere | special))
    with intervene(model, plan):
        return own_logits(model, PROMPTS)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_direction_i_of_a_control_vector_is_added_to_what_block_i_gives(
    family: str, fresh: Callable, tmp_path: Path
) -> None:
    model = fresh(family)
    recipes = [recipe(model, 1), recipe(model, 2, -1.0, 1), recipe(model, 2, 0.5, 2)]
    report = to_gguf_vector(model, recipes, tmp_path / "v.gguf", prompts=PROMPTS)
    assert report.difference is not None and report.difference < 1e-5 < report.effect
    read = gguf.GGUFReader(tmp_path / "v.gguf")
    held = {int(t.name.split(".")[1]): torch.from_numpy(np.array(t.data)) for t in read.tensors}
    assert sorted(held) == [1, 2] and all(t.dtype == torch.float32 for t in held.values())
    ours = added_everywhere(model, recipes)
    right = largest_difference(plain_hook_logits(model, held, before=False), ours)
    shifted = largest_difference(plain_hook_logits(model, {i - 1: v for i, v in held.items()}, before=False), ours)
    assert right < 1e-5 and shifted > 10 * max(right, 1e-3)


def test_the_header_of_a_control_vector_is_the_one_its_clients_read(fresh: Callable, tmp_path: Path) -> None:
    model = fresh("llama")
    to_gguf_vector(model, [recipe(model, 1)], tmp_path / "v.gguf")
    fields = gguf.GGUFReader(tmp_path / "v.gguf").fields
    said = {
        name: bytes(fields[name].parts[-1]).decode() for name in ("general.architecture", "controlvector.model_hint")
    }
    assert said == {"general.architecture": "controlvector", "controlvector.model_hint": "llama"}
    assert int(fields["controlvector.layer_count"].parts[-1][0]) == 1


def test_layer_zero_has_no_place_in_a_control_vector(fresh: Callable, tmp_path: Path) -> None:
    model = fresh("gpt2")
    with pytest.raises(InvalidArgument, match="begins at layer 1"):
        to_gguf_vector(model, [recipe(model, 0)], tmp_path / "v.gguf")
    assert not (tmp_path / "v.gguf").exists()


def test_layer_l_of_activation_steering_is_added_to_what_block_l_is_given(fresh: Callable, tmp_path: Path) -> None:
    model = fresh("llama")
    recipes = [recipe(model, 0), recipe(model, 1, 1.0, 1)]
    to_svec(model, recipes, tmp_path / "v.svec", prompts=PROMPTS)
    written = json.loads((tmp_path / "v.svec").read_text())
    held = {int(layer): torch.tensor(vector) for layer, vector in written["directions"].items()}
    assert sorted(held) == [1, 2] and written["model_type"] == "llama"
    ours = added_everywhere(model, recipes)
    assert largest_difference(plain_hook_logits(model, held, before=True), ours) < 1e-5
    assert largest_difference(plain_hook_logits(model, held, before=False), ours) > 0.01
    with pytest.raises(InvalidArgument, match="after the last block"):
        to_svec(model, [recipe(model, 2)], tmp_path / "w.svec")


@pytest.mark.parametrize(
    ("write", "read", "name"),
    [
        (to_gguf_vector, read_gguf_vector, "v.gguf"),
        (to_svec, read_svec, "v.svec"),
        (to_layer_tensors, read_layer_tensors, "v.safetensors"),
    ],
)
def test_what_is_read_back_steers_with_a_dose_of_one_as_the_recipe_did(
    write: Callable, read: Callable, name: str, fresh: Callable, tmp_path: Path
) -> None:
    model = fresh("gpt2")
    one = recipe(model, 1, -1.7)
    write(model, [one], tmp_path / name)
    (found,) = read(tmp_path / name).values()
    assert found.site == resid_post[1]
    with SteeredModel(model, one).steer():
        ours = own_logits(model, PROMPTS)
    with steer(model, found, 1.0):
        theirs = own_logits(model, PROMPTS)
    assert largest_difference(ours, theirs) < 1e-5


def test_a_dictionary_of_tensors_that_torch_saved_is_read_and_code_in_it_is_not_run(tmp_path: Path) -> None:
    torch.save({3: torch.ones(1, 4), "direction.5": 2 * torch.ones(4)}, tmp_path / "v.pt")
    read = read_layer_tensors(tmp_path / "v.pt")
    assert {layer: float(d.vector.sum()) for layer, d in read.items()} == {3: 4.0, 5: 8.0}
    torch.save({3: print}, tmp_path / "code.pt")
    with pytest.raises(DamagedFile):
        read_layer_tensors(tmp_path / "code.pt")


@pytest.mark.parametrize("content", [b"", b"GGUF", b"{}", b'{"directions": [1]}', b"\x00" * 64])
def test_torn_files_are_named_by_every_reader(content: bytes, tmp_path: Path) -> None:
    for read, name in ((read_gguf_vector, "v.gguf"), (read_svec, "v.svec"), (read_layer_tensors, "v.safetensors")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises((DamagedFile, InvalidArgument), match=name):
            read(tmp_path / name)
        with pytest.raises(MissingFile):
            read(tmp_path / f"no-{name}")


def test_what_a_file_of_vectors_cannot_say_is_refused(fresh: Callable, tmp_path: Path) -> None:
    model = fresh("gpt2")
    d = recipe(model, 1).direction
    elsewhere = Direction(d.vector, mlp_out[1], "random", 1.0, model.fingerprint)
    before = Direction(d.vector, resid_pre[1], "random", 1.0, model.fingerprint)
    refused = [
        Recipe(d, "ablate", 1.0),
        Recipe(d, "set", 1.0),
        Recipe(d, "add", 1.0, at="generated"),
        Recipe(d, "add", 1.0, condition=d),
        Recipe(elsewhere, "add", 1.0),
        Recipe(before, "add", 1.0),
    ]
    for one in refused:
        for write, name in ((to_gguf_vector, "v.gguf"), (to_svec, "v.svec"), (to_hook_script, "v.py")):
            with pytest.raises(InvalidArgument):
                write(model, [one], tmp_path / name)
    with pytest.raises(WrongModel):
        to_layer_tensors(fresh("gpt2", seed=1), [recipe(model, 1)], tmp_path / "v.safetensors")
    with pytest.raises(InvalidArgument, match="no recipes"):
        to_gguf_vector(model, [], tmp_path / "v.gguf")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_script_generates_what_the_recipe_does_without_this_library(
    family: str, fresh: Callable, tmp_path: Path
) -> None:
    model = fresh(family)
    recipes = [recipe(model, 0, 6.0), recipe(model, 2, 3.0, 1)]
    report = to_hook_script(model, recipes, tmp_path / "steered.py", prompts=PROMPTS)
    assert report.difference is not None and report.difference < 1e-5 and report.effect > 0.1
    source = (tmp_path / "steered.py").read_text()
    assert not [
        name for name in ("hooks", "interp", "probes") if f"import {name}" in source or f"from {name}" in source
    ]
    with SteeredModel(model, recipes[0]).steer(), SteeredModel(model, recipes[1]).steer():
        ours = model.generate("Rome is", max_new_tokens=12)
    unsteered = model.generate("Rome is", max_new_tokens=12)
    remove = runpy.run_path(str(tmp_path / "steered.py"))["steer"](model.hf)
    given = model.tokenizer("Rome is", return_tensors="pt")
    made = model.hf.generate(**given, max_new_tokens=12, do_sample=False, pad_token_id=256)
    remove()
    theirs = model.tokenizer.decode(made[0, given["input_ids"].shape[1] :], skip_special_tokens=True)
    assert theirs == ours != unsteered
