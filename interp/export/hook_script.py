"""A steered model as one short Python file that needs torch, transformers and safetensors, and not this library."""

import importlib.util
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import torch

from hooks import Model
from hooks.disk import write_text
from hooks.encoding import special_ids
from hooks.errors import InvalidArgument
from hooks.tensor_file import save_tensors
from interp.export.client import compare_logits, own_logits, plain_logits
from interp.export.layer_vectors import block_of, vectors_of
from interp.export.report import ExportReport
from interp.steering import Recipe, SteeredModel

SCRIPT: Final = '''"""Generate with a steered model: python {name}.py MODEL "a prompt".

It needs torch, transformers and safetensors.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

VECTORS = Path(__file__).with_suffix(".safetensors")  # what is added to the output of each module, dose included
SPECIAL = {special}  # token ids that are left as they are


def steer(model):
    """Add each vector to what its module gives, at every token that is not special; return what takes it out again."""
    tokens = {{}}

    def read(_module, args, kwargs):
        tokens["ids"] = kwargs["input_ids"] if kwargs.get("input_ids") is not None else args[0]

    def adding(vector):
        def add(_module, _args, output):
            stream = output[0] if isinstance(output, tuple) else output
            text = ~torch.isin(tokens["ids"], torch.tensor(SPECIAL, device=stream.device))
            steered = stream + text[..., None] * vector.to(stream)
            return (steered, *output[1:]) if isinstance(output, tuple) else steered

        return add

    handles = [model.register_forward_pre_hook(read, with_kwargs=True)]
    for name, vector in load_file(VECTORS).items():
        handles.append(model.get_submodule(name).register_forward_hook(adding(vector)))
    return lambda: [handle.remove() for handle in handles]


if __name__ == "__main__":
    folder, prompt = sys.argv[1:3]
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    steer(model)
    given = tokenizer(prompt, return_tensors="pt")
    made = model.generate(**given, max_new_tokens=40, do_sample=False)
    print(tokenizer.decode(made[0], skip_special_tokens=True))
'''


def to_hook_script(
    model: Model, recipes: Sequence[Recipe], file: str | Path, *, prompts: Sequence[str] = ("The",)
) -> ExportReport:
    """Write recipes as a script of plain hooks, with the vectors in a safetensors file of the same name.

    The script adds exactly where we do: at every token that is not special, of a prompt and of what is generated.

    Args:
        model: the model they steer.
        recipes: each adds a direction at some `resid_post`, everywhere and on no condition.
        file: the script to write, a name that ends in `.py`.
        prompts: what to compare logits on.

    Raises:
        InvalidArgument: a recipe that does anything else, or a name that does not end in `.py`.
        WrongModel: one of another model.
        WrongState: the script does not do what the recipes do.

    Cost: three forward passes a prompt.

    Examples:
        ```python
        to_hook_script(model, [Recipe(direction, "add", 4.0)], "bridge.py")
        ```
    """
    file = Path(file)
    if file.suffix != ".py":
        raise InvalidArgument(f"the script is called {str(file)!r}: give a name that ends in .py")
    vectors = vectors_of(model, recipes)
    names = {id(module): name for name, module in model.hf.named_modules()}
    weights = file.with_suffix(".safetensors")
    save_tensors(weights, {names[id(block_of(model, layer))]: vector for layer, vector in vectors.items()})
    write_text(file, SCRIPT.format(name=file.stem, special=sorted(special_ids(model.tokenizer))))
    return _run_script(model, recipes, ExportReport("recipes as a script of hooks", (file, weights)), prompts)


@torch.no_grad()
def _run_script(model: Model, recipes: Sequence[Recipe], report: ExportReport, prompts: Sequence[str]) -> ExportReport:
    plain = own_logits(model, prompts)
    with ExitStack() as stack:
        for recipe in recipes:
            stack.enter_context(SteeredModel(model, recipe).steer())
        ours = own_logits(model, prompts)
    remove = _import_script(report.files[0]).steer(model.hf)
    try:
        theirs = plain_logits(model.hf, model, prompts)
    finally:
        remove()
    return compare_logits(report, "the script's own hooks", plain=plain, ours=ours, theirs=theirs)


def _import_script(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"exported_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise InvalidArgument(f"{file} cannot be imported: give a name that ends in .py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
