"""One forward pass: which tokens it computes, distinguished from those a KV cache already holds."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from hooks.encoding import is_in
from hooks.errors import InvalidArgument
from hooks.interventions import Rows
from hooks.position import Position
from hooks.site import Site
from hooks.tokens import Tokens


@final
@dataclass(frozen=True, eq=False)
class Pass:
    """One forward pass.

    Attributes:
        tokens: every token known, from the first column on; of a prompt read in pieces, all of it.
        start: the first column this pass computes; earlier ones are in the KV cache.
        end: the column after the last it computes.
    """

    tokens: Tokens
    start: int
    end: int
    _rows: dict[Callable[[Tokens], Tensor], Rows] = field(default_factory=dict)

    @property
    def prefill(self) -> bool:
        """True for a pass over the prompt or a part of it, False while decoding."""
        return self.start == 0 or self.start < prompt_width(self.tokens)

    def places(self, n: int, site: Site | None = None) -> "Pass":
        """Return the pass as a site with `n` columns sees it.

        Examples:
            ```python
            model.running.current.places(a.shape[1], site)
            ```
        """
        tokens = self.tokens.places(n, site)
        return self if tokens is self.tokens else Pass(tokens, 0, n)

    def rows(self, at: Position) -> Rows:
        """Return which of the tokens this pass computes a position selects.

        Examples:
            ```python
            model.running.current.rows(everywhere).token
            ```
        """
        if at.select not in self._rows:
            row, column = at.mask(self.tokens)[:, self.start : self.end].nonzero(as_tuple=True)
            number = self.tokens.mask.long().cumsum(dim=1) - 1
            column = column + self.start
            shape = (len(self.tokens), prompt_width(self.tokens))
            self._rows[at.select] = Rows(row, column, number[row, column], self.start, shape)
        return self._rows[at.select]


def prompt_width(tokens: Tokens) -> int:
    """Return how many columns hold the prompt.

    Examples:
        ```python
        prompt_width(model.tokens("Fog over the bay"))
        ```
    """
    width = tokens.ids.shape[1]
    return width if tokens.prompt_pos is None else min(width, tokens.prompt_pos)


def fresh(ids: Int[Tensor, "batch pos"], mask: Bool[Tensor, "batch pos"] | None, special: frozenset[int]) -> Tokens:
    """Return the tokens of ids of which nothing else is known.

    Examples:
        ```python
        fresh(ids, None, special_ids(model.tokenizer))
        ```
    """
    mask = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
    return Tokens(ids=ids, mask=mask, special=~mask | is_in(ids, special))


def spread(prompt: Tokens, ids: Int[Tensor, "batch pos"]) -> Tokens | None:
    """Return the prompt with a row for every beam or sample, or None where `ids` are of another text.

    Examples:
        ```python
        len(spread(tokens, tokens.ids.repeat_interleave(3, dim=0))) == 3 * len(tokens)
        ```
    """
    times, left = divmod(ids.shape[0], len(prompt))
    width = min(ids.shape[1], prompt_width(prompt))
    if left or not times or width == 0:
        return None
    row = torch.arange(len(prompt), device=ids.device).repeat_interleave(times)
    if not torch.equal(prompt.ids[row, :width], ids[:, :width]):
        return None
    if times == 1:
        return prompt
    return replace(
        prompt,
        ids=prompt.ids[row],
        mask=prompt.mask[row],
        special=prompt.special[row],
        texts=None if prompt.texts is None else tuple(prompt.texts[i] for i in row.tolist()),
        offsets=None if prompt.offsets is None else prompt.offsets[row],
    )


def continue_tokens(
    known: Tokens,
    ids: Int[Tensor, "batch n"],
    start: int,
    mask: Bool[Tensor, "batch pos"] | None,
    special: frozenset[int],
) -> Tokens:
    """Return what is known once `ids` are read from column `start` on.

    Columns of the prompt stay what they are, also those not read yet; candidates that speculative
    decoding rejected are forgotten; what follows the prompt is generated.

    Raises:
        InvalidArgument: `ids` continue another number of texts.

    Examples:
        ```python
        continue_tokens(tokens, next_ids, tokens.ids.shape[1], None, frozenset())
        ```
    """
    if len(known) != len(ids):
        raise InvalidArgument(f"the KV cache holds {len(known)} texts, and {len(ids)} are continued: continue each")
    end = start + ids.shape[1]
    both = min(known.ids.shape[1], end)
    kept = known
    if not torch.equal(known.ids[:, start:both], ids[:, : both - start]):
        other = {"texts": None, "offsets": None} if start < prompt_width(known) else {}
        kept = replace(known.cut(start), **other)
    done = kept.ids.shape[1]
    if end > done:
        new = ids[:, done - start :]
        real = torch.ones_like(new, dtype=torch.bool) if mask is None else mask[:, done:]
        kept = kept.extend(new, real, ~real | is_in(new, special))
    if mask is None:
        return kept
    mask = torch.cat([mask, kept.mask[:, end:]], dim=1)
    special_too = kept.special | ~mask
    if torch.equal(mask, kept.mask) and torch.equal(special_too, kept.special):
        return kept
    return replace(kept, mask=mask, special=special_too)


def asked_mask(mask: Any, batch: int, end: int) -> Bool[Tensor, "batch pos"] | None:
    """Return the columns so far of the attention mask a model was called with; None where it says nothing.

    Raises:
        InvalidArgument: a mask of [batch pos] that does not cover the texts and columns there are.

    Examples:
        ```python
        asked_mask(torch.ones(1, 3), batch=1, end=3)
        ```
    """
    if not isinstance(mask, Tensor) or mask.ndim != 2:
        return None
    if mask.shape[0] != batch or mask.shape[1] < end:
        raise InvalidArgument(
            f"an attention mask of shape {tuple(mask.shape)} does not cover {batch} texts of {end} tokens, those in "
            "the KV cache included: pass [batch pos]"
        )
    return mask[:, :end].bool()
