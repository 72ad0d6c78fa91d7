"""The laws of reach: what is written at a site arrives, where it should and nowhere else."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from math import prod

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from hooks.capture import capture
from hooks.contract.report import Check
from hooks.contract.rounding import SLACK, Values, unit
from hooks.model import Model
from hooks.site import Site
from hooks.structure import Block
from hooks.tokens import Tokens
from hooks.tracing.residual import is_plain
from hooks.weights import shape_of

_ROWS = 55
_AT, _ASKING = 2, slice(2, 5)
_ADDED = ("resid_pre", "attn_out", "resid_mid", "mlp_out")
_NEXT = {
    "resid_pre": ("resid_post",),
    "v": ("z",),
    "z": ("attn_out",),
    "attn_out": ("resid_mid", "resid_post"),
    "attn_gate": ("attn_out",),
    "cross_v": ("cross_z",),
    "cross_z": ("cross_out",),
    "cross_out": ("resid_mid", "resid_post"),
    "mixer_in": ("mixer_out",),
    "mixer_gate": ("mixer_out",),
    "mixer_out": ("resid_mid", "resid_post"),
    "resid_mid": ("resid_post",),
    "mlp_in": ("mlp_pre", "mlp_out"),
    "mlp_pre": ("mlp_act",),
    "mlp_act": ("mlp_out",),
    "mlp_out": ("resid_post",),
    "expert_weights": ("mlp_out",),
    "expert_act": ("expert_out",),
    "expert_out": ("mlp_out",),
    "shared_out": ("mlp_out",),
}
_NAMES = (
    "resid_pre",
    "q",
    "k",
    "v",
    "z",
    "attn_gate",
    "attn_out",
    "cross_q",
    "cross_k",
    "cross_v",
    "cross_z",
    "cross_out",
    "mixer_in",
    "mixer_gate",
    "mixer_out",
    "resid_mid",
    "mlp_in",
    "mlp_pre",
    "mlp_act",
    "mlp_out",
    "expert_weights",
    "expert_act",
    "expert_out",
    "shared_out",
)


def reach_laws(model: Model, text: Tokens, sound: Collection[Site]) -> Iterator[Check]:
    """Yield, for each sound site in a block that can be written: what is written at one token arrives.

    Queries move only their own rows of their own heads' pattern, keys only the rows that see them. What is
    written on the stream is on it after the block, next to what the sublayers make of it: with Δ the change,
    Δresid_post = Δresid_mid + Δmlp_out, and Δattn_out more when resid_pre is written. Every other site moves
    the next one. Each row of a batch writes at another site, so one pass measures many.

    Args:
        model: the model.
        text: a text of at least six tokens; nothing is measured on a shorter one.
        sound: sites that can be read and have kept every law so far.

    Cost: one forward pass for every 55 sites.

    Examples:
        ```python
        list(reach_laws(model, tokens, model.sites))
        ```
    """
    if text.ids.shape[1] <= _ASKING.stop:
        return
    written = [site for site in sound if site.name in _NAMES and {site, *_needs(model, site, sound)} <= set(sound)]
    for start in range(0, len(written), _ROWS):
        yield from _chunk(model, text, written[start : start + _ROWS], sound)


def _chunk(model: Model, text: Tokens, sites: Sequence[Site], sound: Collection[Site]) -> Iterator[Check]:
    repeat = [len(sites) + 1, 1]
    tokens = Tokens(text.ids.repeat(repeat), text.mask.repeat(repeat), text.special.repeat(repeat))
    read = dict.fromkeys(one for site in sites for one in (*_needs(model, site, sound), site) if _role(one) != "q")
    with ExitStack() as stack:
        for row, site in enumerate(sites):
            stack.callback(model.taps[site].attach(partial(_write_noise, row, site)).remove)
        acts = capture(model, tokens, read, batch_size=len(tokens)).values
    for row, site in enumerate(sites):
        if _role(site) in ("q", "k"):
            yield _on_pattern(model, site, acts, row)
        elif site.name in _ADDED and _adds_plainly(model, site):
            yield _on_stream(model, site, acts, row)
        else:
            yield _on_next(model, site, _needs(model, site, sound)[0], acts, row)


def _needs(model: Model, site: Site, sound: Collection[Site]) -> tuple[Site, ...]:
    """The sites that tell whether what is written at a site arrives."""

    def here(name: str) -> Site:
        return replace(site, name=name)

    if _role(site) in ("q", "k"):
        return (here(site.name[:-1] + "pattern"),)
    if site.name in _ADDED and _adds_plainly(model, site):
        later = {"resid_pre": ("attn_out", "mlp_out"), "mlp_out": ()}.get(site.name, ("mlp_out",))
        later = () if _block(model, site).sums.middle is None and site.name == "attn_out" else later
        return (here("resid_post"), *(here(name) for name in later))
    there = [here(name) for name in _NEXT[site.name]]
    return next(((one,) for one in there if one in sound), (there[-1],))


def _block(model: Model, site: Site) -> Block:
    found = (one for one in model.structure.blocks if (one.stack, one.layer) == (site.stack, site.layer))
    return next(found)


def _adds_plainly(model: Model, site: Site) -> bool:
    """Whether the block of a site is a plain sum of the stream, attention and feed-forward."""
    block = _block(model, site)
    names = {one.name for one in block.terms}
    return block.sums.end is not None and is_plain(block.sums.end) and names == {"attn_out", "mlp_out"}


def _write_noise(row: int, site: Site, a: Tensor) -> Tensor:
    """Noise of ten times the size of what is there, and of at least ten, in one row.

    A key changes at the tokens before the one measured, by opposite amounts, so that every query is drawn to
    one of them; queries of half the heads change at several tokens, and values at all of them: one alone may not
    matter.
    """
    a = a.clone()
    token = {"q": _ASKING, "k": slice(0, _AT), "v": slice(0, None)}.get(_role(site), slice(_AT, _AT + 1))
    here = a[row, token, : _half(a.shape[2])] if _role(site) in ("q", "k") else a[row, token]
    noise = torch.randn(here.shape, generator=torch.Generator().manual_seed(row))
    if _role(site) == "k":
        noise[1] = -noise[0]
    size = here.float().square().mean().sqrt().clamp_min(1.0).cpu()
    here += (10 * noise * size).to(here)
    return a


def _role(site: Site) -> str:
    """What a site of attention is called, whatever the attention reads."""
    return site.name.removeprefix("cross_")


def _half(heads: int) -> int:
    return max(1, heads // 2)


def _on_pattern(model: Model, site: Site, acts: Values, row: int) -> Check:
    (there_read,) = _needs(model, site, ())
    value = acts[there_read].float()
    moved = (value[row] - value[-1]).square().sum(dim=-1)  # [head pos]
    there, inside = torch.zeros_like(moved, dtype=torch.bool), torch.zeros_like(moved, dtype=torch.bool)
    kept = model.taps[site].shape[0]
    heads = model.n_heads if _norm_spans_heads(model, site) else _half(kept) * (model.n_heads // kept)
    there[:heads, _ASKING if _role(site) == "q" else slice(_AT, None)] = True
    inside[:heads, _ASKING if _role(site) == "q" else slice(0, None)] = True
    states = {"q": "q moves its own row of its pattern", "k": "k moves the rows of its pattern that see it"}[
        _role(site)
    ]
    return _arrives(model, site, states, moved[there].sum(), moved[~inside].sum(), value[-1])


def _norm_spans_heads(model: Model, site: Site) -> bool:
    """OLMo-2 normalises queries and keys over all heads at once, so that one head moves the others."""
    norm = model.parts(_block(model, site)).get(f"attn.{site.name}_norm")
    return norm is not None and prod(shape_of(norm)) != model.d_head


def _on_next(model: Model, site: Site, there: Site, acts: Values, row: int) -> Check:
    value = acts[there].float().flatten(2)
    moved = (value[row] - value[-1]).square().sum(dim=1)  # [pos]
    before = 0 if _role(site) in ("v", "resid_pre", "mixer_in") else _AT
    states = "what is written arrives at the next site"
    return _arrives(model, site, states, moved[_AT:].sum(), moved[:before].sum(), value[-1])


def _on_stream(model: Model, site: Site, acts: Values, row: int) -> Check:
    """What is missing of Δresid_post = Δsite + Δ(what the sublayers after it add), relative to the values."""
    left, *right = (*_needs(model, site, ()), site)
    values = {one: acts[one][[row, -1], _AT].float() for one in (left, *right)}
    moved = {one: value[0] - value[1] for one, value in values.items()}
    size = float(torch.stack([value.norm() for value in values.values()]).sum())
    missing = float((moved[left] - torch.stack([moved[one] for one in right]).sum(dim=0)).norm())
    u = unit(model.dtype)
    error = missing / size if float(moved[site].norm()) > u * size else 1.0
    states = "what is written on the stream stays on it"
    return Check("stream keeps", states, error, SLACK * u, (site,), at=site)


def _arrives(
    model: Model,
    site: Site,
    states: str,
    there: Float[Tensor, ""],
    elsewhere: Float[Tensor, ""],
    clean: Shaped[Tensor, "..."],
) -> Check:
    """What moves elsewhere, relative to the size of what is there; all of it when nothing beyond rounding arrives."""
    u = unit(model.dtype, model.d_model)
    size = clean.norm()
    error = float(elsewhere.sqrt() / size) if bool(there.sqrt() > u * size) else 1.0
    law = f"{_role(site)} reaches" if _role(site) in ("q", "k") else "writing reaches"
    return Check(law, states, error, SLACK * u, (site,), at=site)
