"""Why a model lacks a site, and what to ask for instead."""

from collections.abc import Sequence

from hooks.errors import nearest
from hooks.site import Site
from hooks.structure import Structure
from hooks.tracing.residual import Stream

_ADDED = ("attn_out", "mlp_out", "mixer_out", "cross_out")
_INSTEAD = {
    "mlp_act": (
        "its feed-forward is a mixture of experts, and each token runs through its own few; use expert_act, mlp_in or "
        "mlp_out"
    ),
}
_INSTEAD["mlp_pre"] = _INSTEAD["mlp_act"]
_INSTEAD |= dict.fromkeys(
    ("cross_q", "cross_k", "cross_v", "cross_z", "cross_pattern", "cross_out"),
    "none of its blocks reads an encoder with projections of its own; use q, k, v, z, pattern or attn_out",
)
_INSTEAD |= dict.fromkeys(("mixer_in", "mixer_gate", "mixer_out"), "it mixes tokens by attention; use attn_out")
_INSTEAD["mixer_state"] = "none of its mixers leaves one state in a cache; use mixer_in or mixer_out"
_INSTEAD["layer_embed"] = "none of its blocks is given an embedding of its own; use embed or resid_pre"
_INSTEAD |= dict.fromkeys(
    ("router_logits", "expert_choice", "expert_weights", "expert_act", "expert_out", "shared_out"),
    "no part of it is called with a choice of experts and their weights; use mlp_in or mlp_out",
)


def why_absent(called: str, site: Site, sites: Sequence[Site], structure: Structure | None = None) -> str:
    """Return the message for a site that a model does not have.

    Args:
        called: the model's name and class.
        site: what was asked for.
        sites: what there is.
        structure: what was traced in the model.

    Examples:
        >>> why_absent("tiny", Site("z", 9), [Site("z", 0), Site("z", 1)])
        'z.9 is out of range: tiny has 2 layers, so the last is z.1'
    """
    layers = [have.layer for have in sites if have.layer is not None]
    if site.name in {have.name for have in sites} and site.layer is not None and site.layer > max(layers):
        n_layers = max(layers) + 1
        return f"{site} is out of range: {called} has {n_layers} layers, so the last is {site.name}.{n_layers - 1}"
    why = None if structure is None else _of_block(site, structure)
    if why is not None:
        return f"{called} has no {site}: {why}"
    if site.name in _INSTEAD and site.name not in {have.name for have in sites}:
        return f"{called} has no {site.name}: {_INSTEAD[site.name]}"
    near = nearest(str(site), map(str, sites))
    return (
        f"{called} has no {site}; the nearest are {near}. `model.sites` lists every site of a model, and "
        "`interp sites MODEL` prints them"
    )


def _of_block(site: Site, structure: Structure) -> str | None:
    """Why a block lacks what a sublayer adds, or its middle; None where nothing in how it adds says so."""
    same = [one for one in structure.blocks if one.stack == site.stack and one.layer == site.layer]
    if not same or site.name not in (*_ADDED, "resid_mid"):
        return None
    block, names = same[0], [one.name for one in same[0].sublayers]
    stream = block.taps.get(block.site("resid_post"))
    if stream is not None and len(stream.shape) > 1:
        return (
            f"its stream is {stream.shape[0]} copies, mixed by weights that depend on the token, so what a sublayer "
            "gives is added to none of them as it is; use resid_pre or resid_post"
        )
    each = [str(one) for one, name in zip(block.terms, names, strict=True) if name == site.name]
    if len(each) > 1:
        return f"its block adds {len(each)} such parts, each named by its module: {', '.join(each)}"
    if site.name != "resid_mid":
        return None
    middle, (_, read) = block.sums.middle, block.reads.get("mlp_in", ((), None))
    apart = middle is None or isinstance(read, Stream)
    if sorted(names) == ["attn_out", "mlp_out"] and block.sums.end is not None and apart:
        return (
            "attention and feed-forward read the same stream, in parallel, so it has no middle; "
            "use resid_pre, resid_post, attn_out or mlp_out"
        )
    if middle is not None:
        return (
            "no module is given the stream after its attention, or its block computes that stream more than once, so "
            "it has no one place to be read and written; use resid_pre, attn_out or resid_post"
        )
    return (
        "no stage of its stream holds all that mixes tokens and nothing else, so it has no middle; "
        "use resid_pre or resid_post"
    )
