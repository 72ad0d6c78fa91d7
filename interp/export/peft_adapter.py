"""An edit of facts as a LoRA adapter, which peft, and servers that take adapters, load next to the unedited weights."""

import copy
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Model
from hooks.border import Count
from hooks.disk import check_new_folder, write_folder, write_text
from hooks.errors import EditRefused, WrongModel
from hooks.site import mlp_act
from hooks.tensor_file import save_tensors
from hooks.weights import is_output_first
from interp.export.client import compare_logits, own_logits, plain_logits
from interp.export.report import ExportReport
from interp.memory.editing.change import LowRank, group_by_layer
from interp.memory.editing.edit import Edit, suspend_edits

ADAPTER: Final = "adapter_model.safetensors"
CONFIG: Final = "adapter_config.json"


def to_peft(
    model: Model, edit: Edit, folder: str | Path, *, prompts: Sequence[str] = (), rank: Count | None = None
) -> ExportReport:
    """Write an edit as a LoRA adapter, and compare peft's logits with ours where peft is installed.

    peft adds y += (α/r) B A x. An edit adds x ΔW with ΔW = keyᵀ value, so A = key, B = valueᵀ and α = r.

    Args:
        model: the model the edit was made for.
        edit: one that changes weights.
        folder: where to write; it must be new or empty.
        prompts: what to compare logits on; the edited facts' own prompts where none are given.
        rank: the rank to write. A change of a larger rank is cut to its largest singular values, and the report says
            how much of it was lost; one of a smaller rank is filled up with zeros, as some servers take certain ranks
            only. The logits are compared with those of the change that was kept.

    Raises:
        EditRefused: the edit changes no weight (a codebook, a datastore, a text read before every other).
        WrongModel: it was made for another model.
        InvalidArgument: a folder that holds something.
        WrongState: peft does not do with the adapter what the edit does.

    Cost: three forward passes a prompt, and memory for a second copy of the model while peft is asked.

    Examples:
        ```python
        print(to_peft(model, edit, "adapter"))
        peft.PeftModel.from_pretrained(hf, "adapter")
        ```
    """
    _check(model, edit, Path(folder))
    updates = {layer: _of_rank(update, rank) for layer, update in group_by_layer(edit.weights).items()}
    names = _module_names(model, updates)
    with write_folder(folder) as partial:
        save_tensors(partial / ADAPTER, _tensors(updates, names), {"format": "pt"})
        write_text(partial / CONFIG, json.dumps(_config(model, updates, names), indent=2) + "\n")
    files = (Path(folder) / ADAPTER, Path(folder) / CONFIG)
    what = f"the {edit.method} edit as a LoRA adapter"
    lost = _say_lost(edit, updates)
    if find_spec("peft") is None:
        return ExportReport(what, files, lost=lost)
    kept = replace(edit, updates=tuple(updates.values()))
    return _run_peft(model, kept, ExportReport(what, files, lost=lost), prompts)


def _check(model: Model, edit: Edit, folder: Path) -> None:
    if edit.fingerprint != model.fingerprint:
        raise WrongModel(f"this edit was made for another model than {model.name}: export it with its own")
    if len(edit.weights) < len(edit.updates) or not edit.updates:
        raise EditRefused(
            f"an edit by {edit.method} works next to the weights, and an adapter is a change of weights: take an edit "
            "by rome, memit or another method that changes them"
        )
    check_new_folder(folder)


def _of_rank(update: LowRank, rank: int | None) -> LowRank:
    """The update with exactly `rank` rows: cut by singular values, or filled up with zeros."""
    r = len(update.key)
    if rank is None or r == rank:
        return update
    if r < rank:
        filled = [torch.cat([part, part.new_zeros(rank - r, part.shape[1])]) for part in (update.key, update.value)]
        return LowRank(update.layer, *filled)
    U, S, Vh = torch.linalg.svd(update.delta, full_matrices=False)
    return LowRank(update.layer, U[:, :rank].T, S[:rank, None] * Vh[:rank])


def _say_lost(edit: Edit, updates: Mapping[int, LowRank]) -> tuple[str, ...]:
    said = []
    for layer, whole in group_by_layer(edit.weights).items():
        left = float((whole.delta - updates[layer].delta).norm() / whole.delta.norm())
        if left > 1e-6:
            said.append(
                f"{left:.1%} of the norm of the change of layer {layer}, whose rank is above {len(updates[layer].key)}"
            )
    return tuple(said)


def _module_names(model: Model, updates: Mapping[int, LowRank]) -> dict[int, str]:
    names = {id(module): name for name, module in model.hf.named_modules()}
    return {layer: names[id(model.module(mlp_act[layer]))] for layer in updates}


def _tensors(updates: Mapping[int, LowRank], names: Mapping[int, str]) -> dict[str, Float[Tensor, "_ _"]]:
    written = {}
    for layer, update in updates.items():
        stem = f"base_model.model.{names[layer]}"
        written[f"{stem}.lora_A.weight"] = update.key.float()
        written[f"{stem}.lora_B.weight"] = update.value.float().T
    return written


def _config(model: Model, updates: Mapping[int, LowRank], names: Mapping[int, str]) -> dict[str, Any]:
    ranks = {names[layer]: len(update.key) for layer, update in updates.items()}
    most = max(ranks.values())
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": model.name,
        "r": most,
        "lora_alpha": most,
        "rank_pattern": {name: rank for name, rank in ranks.items() if rank != most},
        "alpha_pattern": {name: rank for name, rank in ranks.items() if rank != most},
        "target_modules": sorted(ranks),
        "fan_in_fan_out": not all(is_output_first(model.module(mlp_act[layer])) for layer in updates),
        "bias": "none",
        "lora_dropout": 0.0,
        "use_rslora": False,
        "inference_mode": True,
    }


def _run_peft(model: Model, edit: Edit, report: ExportReport, prompts: Sequence[str]) -> ExportReport:
    import peft

    asked = list(prompts) or list(dict.fromkeys(fact.text for fact in edit.facts))
    with suspend_edits(model):
        plain = own_logits(model, asked)
        with edit.applied(model):
            ours = own_logits(model, asked)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("error", UserWarning)  # peft only warns of tensors that it does not find
            theirs = peft.PeftModel.from_pretrained(copy.deepcopy(model.hf), report.files[0].parent).eval()
        client = plain_logits(theirs, model, asked)
    return compare_logits(report, f"peft {peft.__version__}", plain=plain, ours=ours, theirs=client)
