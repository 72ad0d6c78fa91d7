"""Patchscopes: a state of one prompt put into another, which the model then says in its own words."""

from dataclasses import dataclass

import torch

from hooks import Model, Position, Site, capture, intervene
from hooks.border import Count
from hooks.errors import InvalidArgument
from hooks.interventions import replace
from hooks.pieces import piece
from hooks.position import last
from hooks.summary import summarise

IDENTITY = "cat cat ; 135 135 ; hello hello ; x"
"""A target prompt that makes a model repeat: what is put in for its last token is what is said."""


@dataclass(frozen=True)
class Patchscope:
    """What the target prompt says with the state in it, and without.

    Attributes:
        said: the likeliest next tokens with their probabilities.
        unpatched: the same without the state: the control.
        text: the continuation.
    """

    said: tuple[tuple[str, float], ...]
    unpatched: tuple[tuple[str, float], ...]
    text: str

    __repr__ = summarise


@torch.no_grad()
def patchscope(
    model: Model,
    source: str,
    site: Site,
    target: str = IDENTITY,
    *,
    at: Position = last,
    into: Site | None = None,
    put_at: Position = last,
    top: Count = 5,
    max_new_tokens: Count = 5,
) -> Patchscope:
    """Put the state of one prompt at a site into another prompt, and see what is said (Ghandeharioun et al. 2024).

    arXiv:2401.06102. The plain case of a lens is `target=source`, `into` the last layer.

    Args:
        model: a causal language model.
        source: the prompt the state is of.
        site: where it is taken, such as `resid_post[4]`.
        target: the prompt it is put into.
        at: which token of the source, one.
        into: where it is put; by default the same site.
        put_at: which token of the target, one.
        top: likeliest tokens to return.
        max_new_tokens: of the continuation.

    Raises:
        InvalidArgument: a position of none or several tokens.

    Cost: two forward passes, and one for each new token.

    Examples:
        ```python
        patchscope(model, "The Golden Gate Bridge", resid_post[4])
        ```
    """
    h = capture(model, source, site).flat(site, at)
    tokens = model.tokens(target)
    n = int(put_at.mask(tokens).sum())
    if len(h) != 1 or n != 1:
        raise InvalidArgument(f"at selects {len(h)} tokens of the source and put_at {n} of the target: select one each")

    def likeliest() -> tuple[tuple[str, float], ...]:
        p = model.run(tokens)[0, -1].float().softmax(-1).topk(top)
        return tuple((piece(model.tokenizer, i), v) for i, v in zip(p.indices.tolist(), p.values.tolist(), strict=True))

    plain = likeliest()
    with intervene(model, {into or site: replace(h[0], at=put_at)}):
        said, text = likeliest(), model.generate(target, max_new_tokens=max_new_tokens)
    assert isinstance(text, str)
    return Patchscope(said, plain, text)
