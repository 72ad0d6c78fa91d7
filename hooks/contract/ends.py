"""The laws at the ends: embeddings into the stream, block to block, the stream out to logits."""

from collections.abc import Iterator

from jaxtyping import Float
from torch import Tensor

from hooks.contract.report import Check
from hooks.contract.rounding import SLACK, Values, miss, unit
from hooks.layout import find
from hooks.model import Model
from hooks.site import Site, ln_final_scale


def end_laws(model: Model, acts: Values) -> Iterator[Check]:
    """Yield the laws before, between and behind the blocks.

    Example:
        ```python
        [check.law for check in end_laws(model, acts.values)]
        ```
    """
    n, first, last = model.d_model, Site("resid_pre", 0), Site("resid_post", model.n_layers - 1)
    if first in acts and Site("embed") in acts:
        yield _embedding(model, acts, first)
    for layer in range(model.n_layers - 1):
        one, other = Site("resid_post", layer), Site("resid_pre", layer + 1)
        if one in acts and other in acts:
            error = miss(acts[one], acts[other])
            yield Check(
                "blocks join", "resid_post = the next resid_pre", error, SLACK * unit(model.dtype), (one, other)
            )
    if last in acts and Site("logits") in acts:
        error = miss(model.unembed(acts[last]), acts[Site("logits")])
        yield Check("unembedding", "logits = unembed(norm(the last resid_post))", error,
                    SLACK * unit(model.dtype, n), (last, Site("logits")), use="unembed")  # fmt: skip
    if ln_final_scale in model.taps and last in acts:
        yield _final_scale(model, acts[last])


def _embedding(model: Model, acts: Values, first: Site) -> Check:
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
        x, states = x + kinds.get_parameter("weight")[0], f"{states} + type"
    x, states = (x, states) if norm is None else (norm(x), f"LN({states})")
    error = miss(x, acts[first])
    return Check("embedding", f"resid_pre.0 = {states}", error, SLACK * unit(model.dtype), (*sites, first))


def _final_scale(model: Model, x: Float[Tensor, "batch pos d_model"]) -> Check:
    """With its own divisor held, a norm is linear: f(x) = scale(x) (N(x) - N(-x)) / 2 has f(x + y) = f(x) + f(y)."""
    norm, scale = model.final_norm, model.taps[ln_final_scale].derive
    assert norm is not None and scale is not None
    y = x.roll(1, dims=1)

    def f(x: Tensor) -> Tensor:
        return scale(x) * (norm(x) - norm(-x)).float() / 2

    error = miss(f(x + y), f(x), f(y))
    states = "ln_final_scale (norm(x) - bias) is linear in x"
    return Check("final scale", states, error, SLACK * unit(model.dtype), (ln_final_scale,))
