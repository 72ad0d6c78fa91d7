"""The seam to TransformerLens: its architecture adapters say where each component lives in a Hugging Face model."""

import copy
import logging
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import torch
from jaxtyping import Int
from torch import Tensor, nn

from hooks.errors import InvalidArgument, nearest
from hooks.huggingface import HFModel, Tokenizer
from hooks.site import FINAL_NORM
from hooks.temporary import grad_mode
from hooks.weights import base_of, has_weight, is_output_first, shape_of, weight_of, width

Bridge: TypeAlias = Any
"""A `transformer_lens` bridge."""
Component: TypeAlias = Any
"""A component of an architecture adapter's mapping."""
_HEADS = ("ForCausalLM", "LMHeadModel", "ForMaskedLM")


@final
@dataclass(frozen=True)
class Paths:
    """Where the components of a model are.

    Attributes:
        top: module paths from the model (`embed`, `pos_embed`, `blocks`).
        final_norm: the path of the norm before the unembedding; None without one.
        block: module paths from a block (`ln1`, `attn`, `attn.q`, `mlp`, `mlp.out`, ...).
        parallel: attention and feed-forward read the same residual stream.
        norms_last: the norms of a block come after attention and feed-forward, before the addition.
        norms_after: the norms of a block normalise the stream itself, after each addition.
        qkv_rows: which outputs of a joint projection are the queries, keys and values.
    """

    top: Mapping[str, str]
    final_norm: str | None
    block: Mapping[str, str]
    parallel: bool
    norms_last: bool
    norms_after: bool
    qkv_rows: Mapping[str, Int[Tensor, "n"]] | None


def adapter_paths(hf: HFModel) -> Paths:
    """Return what the adapter says, or nothing where there is none or it does not fit the model.

    Examples:
        ```python
        adapter_paths(GPT2LMHeadModel(config)).block["attn.o"]  # "attn.c_proj"
        ```
    """
    try:
        return component_paths(hf)
    except Exception:  # an adapter of a library for a model that it does not know may raise anything
        return Paths({}, None, {}, parallel=False, norms_last=False, norms_after=False, qkv_rows=None)


def component_paths(hf: HFModel) -> Paths:
    """Ask TransformerLens's adapter for a Hugging Face model where its components are.

    No bridge is booted: a bridge configuration is made from the model's own, and the paths are read
    off the mapping of the adapter selected for it. Importing TransformerLens takes seconds, so it is imported only
    here.

    Raises:
        InvalidArgument: no adapter knows the architecture.

    Examples:
        ```python
        component_paths(GPT2LMHeadModel(config)).block["attn.o"]  # "attn.c_proj"
        ```
    """
    with _as_before():
        from transformer_lens.factories.architecture_adapter_factory import (
            SUPPORTED_ARCHITECTURES,
            ArchitectureAdapterFactory,
        )
        from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_config_from_hf

        architecture, prefix = _architecture(hf, SUPPORTED_ARCHITECTURES)
        config = copy.deepcopy(hf.config)
        config.architectures = [architecture]
        bridge_config = build_bridge_config_from_hf(config, architecture, architecture, torch.float32)
        adapter = ArchitectureAdapterFactory.select_architecture_adapter(bridge_config)
        mapping = adapter.get_component_mapping()

    top = {name: part.name.removeprefix(prefix) for name, part in mapping.items() if part.name}
    block = dict(_flatten(mapping["blocks"].submodules))
    parallel = type(mapping["blocks"]).__name__ == "ParallelBlockBridge"
    norms_last = bool(getattr(mapping["blocks"], "mlp_reads_resid_directly", False))
    norms_after = _norms_after(hf, block)
    rows = _qkv_rows(hf, mapping["blocks"], top, block)
    return Paths(top, top.get(FINAL_NORM), block, parallel, norms_last, norms_after, rows)


def unwrap(bridge: Bridge) -> tuple[HFModel, Tokenizer]:
    """Return the Hugging Face model and the tokenizer inside a `TransformerBridge`.

    The bridge puts its own modules between those of the model it wraps; the model returned has the
    original modules, shares its weights with the bridge, and leaves the bridge as it was.

    Examples:
        ```python
        hf, tokenizer = unwrap(TransformerBridge.boot_transformers("gpt2"))
        ```
    """
    return _without_wrappers(bridge.original_model, {}), bridge.tokenizer


def _without_wrappers(module: nn.Module, seen: dict[int, nn.Module]) -> nn.Module:
    while "_original_component" in module._modules:
        module = module._modules["_original_component"]  # pyright: ignore[reportAssignmentType]
    if id(module) not in seen:
        clean = copy.copy(module)
        seen[id(module)] = clean
        clean.__dict__ |= {name: copy.copy(held) for name, held in module.__dict__.items() if "_hooks" in name}
        clean.__dict__["_modules"] = {
            name: child if child is None else _without_wrappers(child, seen) for name, child in module._modules.items()
        }
    return seen[id(module)]


def _architecture(hf: HFModel, known: Collection[str]) -> tuple[str, str]:
    """The adapter's name for a model, and what to strip from its paths when the model has no head."""
    name = type(hf).__name__
    if name in known:
        return name, ""
    base = hf.base_model
    headed = [type(base).__name__.removesuffix("Model") + head for head in _HEADS]
    for candidate in headed:
        if candidate in known:
            return candidate, f"{hf.base_model_prefix}." if base is hf else ""
    raise InvalidArgument(
        f"no architecture adapter knows {name}; the nearest known architectures are {nearest(name, known)}"
    )


def _norms_after(hf: HFModel, block: Mapping[str, str]) -> bool:
    """BERT keeps the norm after the addition inside its attention; OPT's configuration says where it is."""
    inside = block.get("ln1", "").startswith(f"{block.get('attn')}.")
    return inside or not getattr(hf.config.get_text_config(), "do_layer_norm_before", True)


def _flatten(components: Mapping[str, Component], name: str = "", path: str = "") -> Iterator[tuple[str, str]]:
    for key, part in components.items():
        here = ".".join(filter(None, (path, part.name)))
        if part.name:
            yield name + key, here
        yield from _flatten(part.submodules, f"{name}{key}.", here)


def _qkv_rows(
    hf: HFModel, blocks: Component, top: Mapping[str, str], block: Mapping[str, str]
) -> Mapping[str, Int[Tensor, "n"]] | None:
    """Let the adapter split a projection whose row i is the number i; what it returns are the row numbers."""
    if "attn.qkv" not in block:
        return None
    attention = blocks.submodules["attn"]
    double = copy.copy(hf.get_submodule(f"{top['blocks']}.0.{block['attn']}"))
    double.__dict__["_modules"] = dict(double._modules)
    path = attention.submodules["qkv"].name
    double._modules[path] = _number_weights(hf.get_submodule(f"{top['blocks']}.0.{block['attn.qkv']}"))
    with grad_mode(False):
        parts = attention.split_qkv_matrix(double)
    return {name: weight_of(part)[:, 0].round().long() for name, part in zip("qkv", parts, strict=True)}


def _number_weights(projection: nn.Module) -> nn.Module:
    """A copy of a projection whose weights are the number of the output they feed."""
    projection = base_of(projection)
    numbered = copy.copy(projection)
    shape, rows = shape_of(projection), torch.arange(width(projection)[1], dtype=torch.float32)
    filled = rows[:, None].expand(shape) if is_output_first(projection) else rows.expand(shape)
    numbered.__dict__["_parameters"] = {
        "weight": nn.Parameter(filled.clone(), requires_grad=False),
        "bias": None if not has_weight(projection, "bias") else nn.Parameter(rows, requires_grad=False),
    }
    return numbered


@contextmanager
def _as_before() -> Iterator[None]:
    """Keep warning filters and log levels as they were: importing TransformerLens changes both."""
    logger = logging.getLogger("transformers")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)
