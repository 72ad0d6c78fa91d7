"""The laws at the ends: embeddings into the stream, block to block, the stream out to logits."""

from collections.abc import Iterator
from functools import partial
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor

from hooks.capture import capture
from hooks.contract.block_identities import project
from hooks.contract.report import Check, measure_laws
from hooks.contract.rounding import SLACK, Values, miss, unit
from hooks.layout import find
from hooks.model import Model
from hooks.site import Site, ln_final_scale
from hooks.tokens import Tokens
from hooks.weights import weight_of


def end_laws(model: Model, acts: Values, text: Tokens) -> Iterator[Check]:
    """Yield the laws before, between and after the blocks, each measured by itself.

    Examples:
        ```python
        [check.law for check in end_laws(model, acts.values, tokens)]
        ```
    """
    yield from measure_laws("embedding", lambda: _embeddings(model, acts, text))
    for one, other in pairwise(model.structure.blocks):
        if one.stack == other.stack:
            yield from measure_laws(
                "blocks join", partial(_join, model, acts, one.site("resid_post"), other.site("resid_pre"))
            )
    made = [*measure_laws("unembedding", lambda: _unembeds(model, acts), use="unembed")]
    yield from made
    if not any(check.holds for check in made):
        yield from measure_laws("stream is read", lambda: _read_on(model, acts, text))
    yield from measure_laws("final scale", lambda: _scales(model, acts))


def _join(model: Model, acts: Values, one: Site, other: Site) -> Iterator[Check]:
    if one in acts and other in acts:
        error = miss(acts[one], acts[other])
        if error <= SLACK * unit(model.dtype) or model.structure.joined:
            yield Check(
                "blocks join", "resid_post = the next resid_pre", error, SLACK * unit(model.dtype), (one, other)
            )


def cross_laws(model: Model, acts: Values, text: Tokens) -> Iterator[Check]:
    """Yield: keys and values of cross-attention are projections of what the encoder gives.

    Cost: one forward pass for each place that blocks read the encoder at.

    Examples:
        ```python
        [check.law for check in cross_laws(model, acts.values, tokens)]
        ```
    """
    for source in {block.source for block in model.structure.blocks} - {None}:
        assert source is not None
        given = capture(model, text, source)[source]
        for block in (one for one in model.structure.blocks if one.source == source):
            for name in ("k", "v"):
                site, part = block.site(f"cross_{name}"), model.parts(block).get(f"cross_attn.{name}")
                if site in acts and part is not None:
                    error = miss(acts[site].flatten(2), project(part, given))
                    states = f"cross_{name} = W_{name.upper()} {source} + b"
                    allowed = SLACK * unit(model.dtype, model.d_model)
                    yield Check(f"cross {name} projects", states, error, allowed, (site, source))


def _unembeds(model: Model, acts: Values) -> Iterator[Check]:
    last = model.structure.main[-1].site("resid_post")
    if last in acts and Site("logits") in acts:
        error = miss(model.unembed(acts[last]), acts[Site("logits")])
        yield Check("unembedding", "logits = unembed(norm(the last resid_post))", error,
                    SLACK * unit(model.dtype, model.d_model), (last, Site("logits")), use="unembed")  # fmt: skip


def _read_on(model: Model, acts: Values, text: Tokens) -> Iterator[Check]:
    """What reads the last block's output, where the way from there to the logits is longer than a norm and a matrix."""
    last, reader = model.structure.main[-1].site("resid_post"), model.structure.reader
    if last in acts and reader is not None:
        error = miss(acts[last], capture(model, text, reader)[reader])
        yield Check(
            "stream is read", f"the last resid_post = {reader}", error, SLACK * unit(model.dtype), (last, reader)
        )


def _scales(model: Model, acts: Values) -> Iterator[Check]:
    last = model.structure.main[-1].site("resid_post")
    if ln_final_scale in model.taps and last in acts:
        yield _final_scale(model, acts[last])


def _embeddings(model: Model, acts: Values, text: Tokens) -> Iterator[Check]:
    """What the table of embeddings gives, and, where an adapter says how, what the first block reads of it."""
    first = model.structure.main[0].site("resid_pre")
    if Site("embed") not in acts:
        return
    given = model.taps[Site("embed")].module(text.ids.to(model.device))
    made = given if isinstance(given, Tensor) else given[0]
    allowed = SLACK * unit(model.dtype)
    table = Check("embedding", "embed = W_E[token]", miss(acts[Site("embed")], made), allowed, (Site("embed"),))
    into = _embeds(model, acts, first) if "embed" in model.paths.top and first in acts else None
    yield into if into is not None and (into.holds or not table.holds) else table


def _embeds(model: Model, acts: Values, first: Site) -> Check:
    """What the first block reads, out of the embeddings."""
    hf, top, sites = model.hf, model.paths.top, [Site("embed")]
    factor = getattr(hf.config.get_text_config(), "embedding_multiplier", 1.0)
    narrow = getattr(hf.get_decoder(), "project_in", None) if "pos_embed" in top else None
    x, states = acts[Site("embed")], "embed"
    x, states = (x, states) if narrow is None else (narrow(x), "W_in embed")
    x, states = (x, states) if factor == 1.0 else (x * factor, f"{factor:g} {states}")
    if Site("pos_embed") in acts:
        x, states = x + acts[Site("pos_embed")], f"{states} + pos_embed"
        sites.append(Site("pos_embed"))
    kinds, norm = find(hf, top.get("token_type_embed")), find(hf, top.get("embed_ln"))
    if kinds is not None:
        x, states = x + weight_of(kinds)[0], f"{states} + type"
    x, states = (x, states) if norm is None else (norm(x), f"LN({states})")
    error = miss(x, acts[first])
    return Check("embedding", f"resid_pre.0 = {states}", error, SLACK * unit(model.dtype), (*sites, first))


def _final_scale(model: Model, x: Float[Tensor, "batch pos d_model"]) -> Check:
    """With its own divisor held, a norm is linear: f(x) = scale(x) (N(x) - N(-x)) has f(x + y) = f(x) + f(y)."""
    norm, scale = model.final_norm, model.taps[ln_final_scale].view.derive
    assert norm is not None and scale is not None
    y = x.roll(1, dims=1)

    def f(x: Tensor) -> Tensor:
        return scale(x) * (norm(x) - norm(-x)).float()

    error = miss(f(x + y), f(x), f(y))
    states = "ln_final_scale (norm(x) - bias) is linear in x"
    return Check("final scale", states, error, SLACK * unit(model.dtype), (ln_final_scale,))
