"""The forward pass in flight: which tokens it computes, told apart from those a KV cache already holds."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, final

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from hooks.huggingface import HFModel
from hooks.interventions import Intervention, Rows
from hooks.position import Position
from hooks.site import Site
from hooks.tokens import Tokens, is_in


@final
@dataclass(frozen=True, eq=False)
class Pass:
    """One forward pass.

    Attributes:
        tokens: every token so far, from the first column on.
        start: the first column this pass computes; earlier ones are in the KV cache.
    """

    tokens: Tokens
    start: int
    _rows: dict[Position, Rows] = field(default_factory=dict)

    @property
    def prefill(self) -> bool:
        """True for the pass over the prompt, False while decoding."""
        return self.start == 0

    def rows(self, at: Position) -> Rows:
        """Return which of the tokens this pass computes a position selects.

        Example:
            ```python
            model.running.current.rows(everywhere).token
            ```
        """
        if at not in self._rows:
            row, column = at.mask(self.tokens)[:, self.start :].nonzero(as_tuple=True)
            number = self.tokens.mask.long().cumsum(dim=1) - 1
            self._rows[at] = Rows(row, column + self.start, number[row, column + self.start])
        return self._rows[at]


@final
class Running:
    """Follows the forward passes of one Hugging Face model while somebody needs to know their tokens.

    Attributes:
        current: the pass in flight, or the last one.
        active: the interventions of all open blocks, those of outer blocks first.
    """

    def __init__(self, hf: HFModel, special: frozenset[int]) -> None:
        self._hf = hf
        self._special = special
        self._read: Tokens | None = None
        self.current: Pass | None = None
        self.active: dict[Site, tuple[Intervention, ...]] = {}

    @contextmanager
    def reading(self, tokens: Tokens) -> Iterator[None]:
        """Say where the ids of the passes inside the block come from: they may carry texts and offsets.

        Example:
            ```python
            with model.running.reading(tokens):
                ...
            ```
        """
        was, self._read = self._read, tokens
        try:
            yield
        finally:
            self._read = was

    @contextmanager
    def following(
        self, plan: Mapping[Site, tuple[Intervention, ...]], begins: Callable[[Pass], None]
    ) -> Iterator[None]:
        """Inside the block, `plan` is active, and `begins` is called before the first layer of each pass.

        Example:
            ```python
            with model.running.following({}, print):
                model.run("Fog")
            ```
        """
        outer = self.active

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.current = self._next(args, kwargs)
            begins(self.current)

        handle = self._hf.register_forward_pre_hook(hook, with_kwargs=True)
        self.active = outer | {site: (*outer.get(site, ()), *chain) for site, chain in plan.items()}
        try:
            yield
        finally:
            handle.remove()
            self.active = outer
            self.current = self.current if outer else None

    def _next(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Pass:
        ids = args[0] if args else kwargs.get("input_ids")
        if ids is None:
            raise ValueError("the forward pass got no input_ids, so positions mean nothing: pass token ids")
        cache = kwargs.get("past_key_values")
        start = 0 if cache is None else int(cache.get_seq_length())
        mask = self._mask(ids, kwargs.get("attention_mask"), start)
        if start == 0:
            return Pass(self._prompt(ids, mask), 0)
        if self.current is None or self.current.tokens.ids.shape[1] < start:
            raise ValueError("a KV cache was filled outside the block: start the generation inside it")
        return Pass(self._extended(self.current.tokens, ids, mask, start), start)

    def _mask(self, ids: Int[Tensor, "batch n"], mask: Tensor | None, start: int) -> Bool[Tensor, "batch pos"]:
        end = start + ids.shape[1]
        if mask is not None and mask.ndim == 2:
            return mask[:, :end].bool()
        new = torch.ones_like(ids, dtype=torch.bool)
        if start and self.current is not None:
            return torch.cat([self.current.tokens.mask[:, :start], new], dim=1)
        if mask is not None:
            raise ValueError(f"an attention mask of shape {tuple(mask.shape)} hides the padding: pass [batch pos]")
        return new

    def _prompt(self, ids: Int[Tensor, "batch pos"], mask: Bool[Tensor, "batch pos"]) -> Tokens:
        if self._read is not None and self._read.ids.shape == ids.shape:
            return self._read
        return Tokens(ids=ids, mask=mask, special=~mask | is_in(ids, self._special))

    def _extended(
        self, before: Tokens, ids: Int[Tensor, "batch n"], mask: Bool[Tensor, "batch pos"], start: int
    ) -> Tokens:
        new = mask[:, start:]
        return before.cut(start).extended(ids, new, ~new | is_in(ids, self._special))
