"""The laws of what a block has of its own: the state of its mixer, and the embedding that it alone is given."""

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hooks.capture import capture
from hooks.contract.report import Check, measure_laws
from hooks.contract.rounding import SLACK, Values, miss, unit
from hooks.forward import arguments, forward, named_outputs
from hooks.model import Model
from hooks.site import STATES, Site
from hooks.structure import Block
from hooks.taps import Changed
from hooks.tokens import Tokens

_SHORT = 4


def state_laws(model: Model, text: Tokens) -> Iterator[Check]:
    """Yield, for each mixer: its state after a token is what the model's own cache holds when it has read so far.

    Cost: two forward passes, and for each mixer a call of it for each token.

    Examples:
        ```python
        [check.error for check in state_laws(model, tokens)]
        ```
    """
    sites = [site for site in model.taps if site.name in STATES]
    if sites:
        ends = sorted({min(_SHORT, text.ids.shape[1]), text.ids.shape[1]})
        yield from measure_laws("state is cached", lambda: _cached(model, text, sites, ends))


def _cached(model: Model, text: Tokens, sites: list[Site], ends: list[int]) -> Iterator[Check]:
    acts = capture(model, text, sites)
    caches = [_cache_after(model, text.cut(end)) for end in ends]
    for site in sites:
        layer = getattr(model.taps[site].module, "layer_idx", site.layer)
        held = [cache.layers[layer].recurrent_states[0] for cache in caches]
        mine = [acts[site][:, end - 1] for end in ends]
        error = max(miss(one.flatten(1)[:, None], other.flatten(1)[:, None])
                    for one, other in zip(mine, held, strict=True))  # fmt: skip
        allowed = SLACK * unit(model.dtype, model.d_model)
        yield Check("state is cached", "mixer_state = what the model's cache holds", error, allowed, (site,))


def _cache_after(model: Model, text: Tokens) -> Any:
    """The cache that the model itself fills while it reads a text."""
    with named_outputs(model.hf):
        output = model.hf(**arguments(model.hf, text.to(model.device)) | {"use_cache": True})
    return getattr(output, "cache_params", None) or output.past_key_values


def layer_embed_laws(model: Model, acts: Values, text: Tokens) -> Iterator[Check]:
    """Yield: a block, given the stream and its own embedding as they were read, gives the stream after it.

    With zeros for the embedding it gives another, so the embedding is read.

    Cost: one forward pass, and two calls of each such block.

    Examples:
        ```python
        [check.error for check in layer_embed_laws(model, acts.values, tokens)]
        ```
    """
    given = {block.site("layer_embed"): block for block in model.structure.blocks
             if block.site("layer_embed") in acts and not block.repeated}  # fmt: skip
    calls: dict[Site, Changed] = {}

    def note(site: Site, _: nn.Module, args: Any, kwargs: Any) -> None:
        calls[site] = args, kwargs

    with ExitStack() as stack:
        for site, block in given.items():
            stack.callback(block.module.register_forward_pre_hook(partial(note, site), with_kwargs=True).remove)
        if given:
            forward(model.hf, text.to(model.device))
    for site, block in given.items():
        pre, post = block.site("resid_pre"), block.site("resid_post")
        if pre in acts and post in acts:
            made = [_given(model, block, calls[site], {pre: acts[pre], site: own})
                    for own in (acts[site], torch.zeros_like(acts[site]))]  # fmt: skip
            allowed = SLACK * unit(model.dtype, model.d_model)
            error = miss(acts[post], made[0]) if miss(acts[post], made[1]) > allowed else 1.0
            states = "resid_post = Block(resid_pre, layer_embed)"
            yield Check("embedding of a layer", states, error, allowed, (site, pre, post))


def _given(model: Model, block: Block, call: Changed, values: Values) -> Tensor:
    args, kwargs = [*call[0]], dict(call[1])
    for site, value in values.items():
        part = model.taps[site].part
        if isinstance(part, int):
            args[part] = value
        else:
            kwargs[str(part)] = value
    output, part = block.module.forward(*args, **kwargs), model.taps[block.site("resid_post")].part
    return output if isinstance(output, Tensor) else output[part]
