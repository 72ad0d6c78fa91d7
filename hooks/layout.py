"""Where each site of a model sits on its Hugging Face modules.

What the names mean, block by block (x is the residual stream):

- `resid_pre`, `resid_post`: the input and the output of a block. `resid_post[l]` is `resid_pre[l + 1]`.
- `attn_out`, `mlp_out`: what attention and feed-forward add to the stream, so after the extra norms
  (Gemma-2, OLMo-2) and times the residual multiplier (Granite) of the families that have them:
  resid_pre + attn_out = resid_mid, resid_mid + mlp_out = resid_post.
- `resid_mid`: the stream between the two. A parallel block has none: there
  resid_pre + attn_out + mlp_out = resid_post. In a post-norm block (BERT) the stream is normalised
  after each addition: resid_mid = LN1(resid_pre + attn_out), resid_post = LN2(resid_mid + mlp_out).
  In a mixture of experts (Mixtral) each token runs through its own few feed-forward layers: `mlp_in`
  and `mlp_out` are those of the mixture, and there is no `mlp_pre` and no `mlp_act`, but
- `router_logits` [expert]: what the choice of experts is made of; `expert_choice` [k]: the numbers of the experts of
  a token; `expert_weights` [k]: how much each counts; `expert_act` [k d_expert]: what the output projection of each
  reads; `expert_out` [k d]: what each gives; `shared_out`: what the experts that every token runs through add.
  mlp_out = Σ_k expert_weights expert_out + shared_out, in Llama-4 too, which weighs what an expert reads: there
  `expert_out` is what it gives divided by its weight. `expert_out[3, 5]` is that of expert 5 alone, zeros at the
  tokens that it does not serve; what is written there goes nowhere.
- `q`, `k`, `v`: the projections, by head, before rotary embedding and before any norm of queries and
  keys; keys and values have their own, fewer heads under grouped-query attention.
- `z`: the weighted values by head, before the output projection. `pattern`: the attention weights; they can be read
  and not written, since a kernel computes z without them: write `z` or `v`.
- `attn_gate`: what, after a sigmoid, attention's average is multiplied by before its output projection, in the
  families that gate it (Qwen3-Next, AFMOE); there z is the product.
- `cross_q`, `cross_k`, `cross_v`, `cross_z`, `cross_pattern`, `cross_out`: the same of the attention with which a
  decoder reads its encoder; the rows of `cross_k` and `cross_v` are the encoder's tokens, and so are the keys of
  `cross_pattern`.
- `mixer_in`, `mixer_gate`, `mixer_out`: what another mixer of tokens reads (state-space, linear attention, recurrence,
  convolution), what its result is multiplied by after a SiLU or sigmoid, and what it adds. `mixer_state` [*d]: what it
  holds after each token, in the axes of its own cache; it can be read and not written, and costs a call of the mixer
  for each token.
- `layer_embed`: the embedding of a token that is given to one block alone (Gemma-3n, Gemma-4).
- `mlp_in`: what the feed-forward layer reads. `mlp_pre`: the input of its nonlinearity (the gate
  where gated). `mlp_act`: the memory coefficients, input of its output projection (gate times up).
- `embed`: token embeddings. `pos_embed`: learnt position embeddings. `ln_final_scale`: the divisor of
  the final norm. `logits`: the output, soft-cap included.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Final

import torch
from jaxtyping import Int
from torch import Tensor, nn

from hooks.adapters import Paths
from hooks.errors import InvalidArgument
from hooks.huggingface import HFConfig, HFModel
from hooks.offload import place_of
from hooks.site import NAMES, Site, ln_final_scale, logits
from hooks.structure import Block, Structure, input_embeddings
from hooks.taps import Aliases, MergedAxes, Tap
from hooks.view import View, norm_scale
from hooks.weights import has_weight, is_tied, shape_of, width

_UNTRACED: Final = Structure()
_MISFITS: Final = (AttributeError, KeyError, TypeError, ValueError, IndexError, RuntimeError, ZeroDivisionError)
"""What an adapter that does not fit the model may raise."""
_STREAM: Final = ("resid_pre", "resid_mid", "resid_post")
_INNER: Final = ("q", "k", "v", "z", "pattern", "mlp_in", "mlp_pre", "mlp_act")
_NEEDS: Final[dict[str, str]] = {name: "attn_out" for name in ("q", "k", "v", "z", "pattern")} | {
    name: "mlp_out" for name in ("mlp_in", "mlp_pre", "mlp_act")
}
"""What a block must add for a site inside it to be there."""


def find(root: nn.Module, path: str | None) -> nn.Module | None:
    """Return the module at a dotted path, or None where there is none.

    Examples:
        >>> find(nn.Sequential(nn.Identity()), "0")
        Identity()
    """
    if path is None:
        return None
    try:
        return root.get_submodule(path)
    except AttributeError:
        return None


def blocks(hf: nn.Module, paths: Paths) -> nn.ModuleList:
    """Return the blocks of a model.

    Examples:
        ```python
        len(blocks(hf, component_paths(hf)))
        ```
    """
    found = find(hf, paths.top["blocks"])
    if not isinstance(found, nn.ModuleList):
        raise InvalidArgument(f"{type(hf).__name__} has no list of blocks at '{paths.top['blocks']}'")
    return found


def find_paths(paths: Paths, structure: Structure, hf: HFModel) -> Paths:
    """Return the paths of a model: the adapter's where they agree with what was traced, else those traced.

    Raises:
        InvalidArgument: no blocks were found.

    Examples:
        ```python
        find_paths(adapter_paths(hf), find_structure(hf), hf).top["blocks"]
        ```
    """
    if not structure.main:
        raise InvalidArgument(f"{type(hf).__name__} has no blocks that can be found: {structure.why}")
    if paths.top.get("blocks") == structure.path:
        return paths
    first = structure.main[0]
    names = {id(module): path for path, module in hf.named_modules()}
    norm = names.get(id(structure.final_norm)) if structure.final_norm is not None else None
    after = first.sums.middle is not None and not hasattr(first.sums.middle, "op")
    top = {"blocks": structure.path}
    parallel = all(block.sums.middle is None for block in structure.main)
    return Paths(top, norm, {}, parallel=parallel, norms_last=False, norms_after=after, qkv_rows=None)


def taps(hf: HFModel, paths: Paths, structure: Structure = _UNTRACED) -> Mapping[Site, Tap]:
    """Return the tap of every site a model has, in the order of the forward pass.

    What tracing found counts before what an adapter says; what only the adapter says is a guess for the contract.

    Examples:
        ```python
        taps(hf, component_paths(hf), find_structure(hf))[Site("resid_post", 0)].module
        ```
    """
    found = {tap.site: tap for tap in _before(hf, paths, structure)}
    hinted = blocks(hf, paths) if "blocks" in paths.top else []
    if not structure.blocks:
        for layer, block in enumerate(hinted):
            found |= {tap.site: tap for tap in _in_block(hf.config.get_text_config(), block, layer, paths)}
    for block in structure.blocks:
        found |= _merge_sites(hf, block, any(one is block.module for one in hinted), paths)
    found |= {tap.site: tap for tap in _norms_after(hf, paths)}
    return found


def _merge_sites(hf: HFModel, block: Block, hinted: bool, paths: Paths) -> Mapping[Site, Tap]:
    """The sites of one block: those traced, and of the adapter's, if it knows it, those that contradict none traced."""
    hints: dict[Site, Tap] = {}
    if hinted and not block.repeated and not block.stack:
        with suppress(*_MISFITS):
            hints = {tap.site: tap for tap in _in_block(hf.config.get_text_config(), block.module, block.layer, paths)}
    has = {site.name for site in block.terms}
    if block.sums.end is None:
        hints = {}
    else:
        hints = {site: tap for site, tap in hints.items() if _NEEDS.get(site.name, site.name) in has | set(_STREAM)}
        if block.sums.middle is None:
            hints = {site: tap for site, tap in hints.items() if site.name != "resid_mid"}
    traced = {site: tap for site, tap in block.taps.items()
              if site.name not in _INNER or site not in hints or tap.inside is not None
              or tap.view.rows is not None}  # fmt: skip
    both = hints | traced
    return {site: both[site] for site in sorted(both, key=_order)}


def _order(site: Site) -> int:
    return NAMES.index(site.name) if site.name in NAMES else NAMES.index("mlp_out")


def parts(block: nn.Module, paths: Paths) -> Mapping[str, nn.Module]:
    """Return the modules of a block by TransformerLens's names for them (`ln1`, `attn.o`, `mlp.out`, ...).

    Examples:
        ```python
        parts(blocks(hf, paths)[0], paths)["attn.o"]
        ```
    """
    found = ((name, find(block, path)) for name, path in paths.block.items())
    part = {name: module for name, module in found if module is not None}
    if find(part.get("mlp", block), "experts") is not None:  # its gate chooses experts and is no gate of a layer
        return {name: module for name, module in part.items() if not name.startswith("mlp.")}
    joint = find(part.get("mlp", block), "gate_up_proj")
    return part if joint is None else part | {"mlp.gate_up": joint}


def _before(hf: HFModel, paths: Paths, structure: Structure) -> Iterator[Tap]:
    ran = {id(tap.module): tap for site, tap in structure.modules.items() if site.name == "module"}
    for name in ("embed", "pos_embed"):
        module = find(hf, paths.top.get(name))
        if name == "embed" and module is None:
            module = input_embeddings(hf)
        if name == "embed" and module is not None and ran and id(module) not in ran:
            module = _tied_table(module, ran.values()) or module
        if module is not None and has_weight(module):
            tap = Tap(Site(name), module, "output", shape_of(module)[1:])
            traced = ran.get(id(module), tap)
            yield replace(tap, alias=traced.alias, axes=traced.axes)


def _tied_table(table: nn.Module, ran: Iterable[Tap]) -> nn.Module | None:
    """The first table that runs with the weight of one that does not (the encoder's, of a table that both share)."""
    held = (tap.module for tap in ran if isinstance(tap.module, nn.Embedding))
    return next((one for one in held if is_tied(one, table)), None)


def _norms_after(hf: HFModel, paths: Paths) -> Iterator[Tap]:
    norm, head = find(hf, paths.final_norm), hf.get_output_embeddings()
    if norm is not None and has_weight(norm):
        with suppress(*_MISFITS):
            yield Tap(ln_final_scale, norm, "input", (1,), view=View(derive=norm_scale(norm)))
    if head is not None:
        n_vocab = shape_of(head)[0] if isinstance(head, nn.Embedding) else width(head)[1]
        yield Tap(logits, hf, "output", (n_vocab,), part="logits")


def _in_block(config: HFConfig, block: nn.Module, layer: int, paths: Paths) -> Iterator[Tap]:
    part = parts(block, paths)
    d_model = (config.hidden_size,)
    merged = None if "mlp" in part else MergedAxes(block)
    later = ("ln1", "ln2") if paths.norms_last else ("ln1_post", "ln2_post")
    yield Tap(Site("resid_pre", layer), block, "input", d_model)
    yield from _attention(config, part, layer, paths, later[0])
    if paths.norms_after:
        yield Tap(Site("resid_mid", layer), part["ln1"], "output", d_model)
    elif not paths.parallel and "ln2" in part:
        reader = part["mlp"] if paths.norms_last else part["ln2"]
        yield Tap(Site("resid_mid", layer), reader, "input", d_model, alias=frozenset({"shared"}), axes=merged)
    for tap in _feed_forward(config, part, layer, later[1]):
        yield replace(tap, axes=merged)
    yield Tap(Site("resid_post", layer), block, "output", d_model)


def _attention(config: HFConfig, part: Mapping[str, nn.Module], layer: int, paths: Paths, norm: str) -> Iterator[Tap]:
    if "attn.o" not in part:
        return
    heads = config.num_attention_heads
    d_head = getattr(config, "head_dim", None) or config.hidden_size // heads
    for name in ("q", "k", "v"):
        rows = None if paths.qkv_rows is None else paths.qkv_rows[name]
        module = part.get(f"attn.{name}") if rows is None else part["attn.qkv"]
        if module is not None:
            count = (width(module)[1] if rows is None else len(rows)) // d_head
            rows = None if rows is None else rows.to(place_of(module)[0])
            yield Tap(Site(name, layer), module, "output", (count, d_head), view=View(rows, heads=count))
    yield Tap(Site("pattern", layer), part["attn"], "output", (heads,), part=1)
    yield Tap(Site("z", layer), part["attn.o"], "input", (heads, d_head), view=View(heads=heads))
    added, factor = part.get(norm, part["attn.o"]), getattr(config, "residual_multiplier", 1.0)
    yield Tap(Site("attn_out", layer), added, "output", (config.hidden_size,), view=View(factor=factor))


def _feed_forward(config: HFConfig, part: Mapping[str, nn.Module], layer: int, norm: str) -> Iterator[Tap]:
    d_model = (config.hidden_size,)
    first, out = part.get("mlp.gate", part.get("mlp.in")), part.get("mlp.out")
    whole = part.get("mlp", first)
    if whole is not None:
        yield Tap(Site("mlp_in", layer), whole, "input", d_model)
    if "mlp.gate_up" in part:
        gate, up = gate_up_rows(part["mlp.gate_up"])
        yield Tap(Site("mlp_pre", layer), part["mlp.gate_up"], "output", (len(gate),), view=View(gate))
    elif first is not None:
        yield Tap(Site("mlp_pre", layer), first, "output", width(first)[1:])
    if out is not None:
        yield Tap(Site("mlp_act", layer), out, "input", width(out)[:1])
    added, factor = part.get(norm, whole if out is None else out), getattr(config, "residual_multiplier", 1.0)
    if added is not None:
        alias: Aliases = frozenset({"overwritten"} if config.model_type == "falcon" else ())
        yield Tap(Site("mlp_out", layer), added, "output", d_model, view=View(factor=factor), alias=alias)


def gate_up_rows(joint: nn.Module) -> tuple[Int[Tensor, "n"], Int[Tensor, "n"]]:
    """Return which outputs of a joint projection are the gate, and which what it multiplies (Phi-3).

    Examples:
        >>> gate_up_rows(nn.Linear(2, 4))
        (tensor([0, 1]), tensor([2, 3]))
    """
    rows = torch.arange(width(joint)[1], device=place_of(joint)[0])
    gate, up = rows.chunk(2)
    return gate, up
