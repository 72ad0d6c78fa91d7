"""A text the model has read before every other: its keys and values are in the cache of each forward pass."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from hooks import Model
from hooks.encoding import special_ids
from hooks.errors import InvalidArgument
from hooks.forward import check_length, named_outputs


@dataclass(frozen=True, eq=False)
class Preamble:
    """Token ids put before every text: logits are those of the preamble and the text read as one.

    The beginning-of-text token of a text after it is hidden. Inside the model only the text's own tokens flow, so
    sites keep their shapes; their attention sees the preamble.
    """

    ids: Int[Tensor, "pos"]

    def attach(self, model: Model) -> Callable[[], None]:
        """Put the preamble before every text; what is returned ends that.

        Raises:
            InvalidArgument: the model keeps no cache of keys and values, or the preamble fills its context.
        """
        base = model.hf.base_model
        if base is model.hf or not model.hf.can_generate():
            raise InvalidArgument(
                f"{model.name} keeps no cache of what it read, so nothing can be put before its texts"
            )
        check_length(model.hf, len(self.ids))
        return base.register_forward_pre_hook(_Before(model, self._run_prompt(model)), with_kwargs=True).remove

    @torch.no_grad()
    def _run_prompt(self, model: Model) -> Any:
        with model.running.at_rest(), named_outputs(model.hf):  # it outlives a block of interventions
            return model.hf(input_ids=self.ids[None].to(model.device), use_cache=True).past_key_values

    def control(self, random: torch.Generator) -> "Preamble":
        """The same tokens in a random order; a beginning-of-text token stays first."""
        order = torch.randperm(len(self.ids) - 1, generator=random) + 1
        return Preamble(torch.cat([self.ids[:1], self.ids[order]]))


class _Before:
    """Gives each fresh forward pass the cache of the preamble, and each later one the mask that goes with it."""

    def __init__(self, model: Model, cache: Any) -> None:
        self._hf, self._cache = model.hf, cache
        self._length = int(cache.get_seq_length())
        self._special = torch.tensor(sorted(special_ids(model.tokenizer)), dtype=torch.long)
        self._masks: WeakKeyDictionary[Any, Bool[Tensor, "batch pos"]] = WeakKeyDictionary()

    def __call__(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        ids = args[0] if args else kwargs["input_ids"]
        given = kwargs.get("attention_mask")
        cache = kwargs.get("past_key_values")
        known = None if cache is None else self._masks.get(cache)
        if known is None:
            if cache is not None and cache.get_seq_length():
                raise InvalidArgument(
                    "a KV cache was filled without the preamble of an edit: start the generation again; "
                    "where another edit is searched, undo this one first"
                )
            mask = torch.ones_like(ids, dtype=torch.bool) if given is None else given.bool()
            mask = mask & ~self._begins(ids, mask)
            cache = self._copy(len(ids))
        else:
            more = ids.new_ones(ids.shape) if given is None else given[:, known.shape[1] :]
            mask = torch.cat([known, more.bool()], dim=1)
        self._masks[cache] = mask
        whole = torch.cat([mask.new_ones(len(ids), self._length), mask], dim=1)
        check_length(self._hf, whole.shape[1])
        place = (whole.long().cumsum(1) - 1).clamp_min(0)[:, -ids.shape[1] :]
        changed = {"attention_mask": whole.long(), "past_key_values": cache, "position_ids": place}
        return args, {**kwargs, **changed}

    def _begins(self, ids: Int[Tensor, "batch pos"], mask: Bool[Tensor, "batch pos"]) -> Bool[Tensor, "batch pos"]:
        """Where each row has the special token that begins a text."""
        first = mask & (mask.long().cumsum(1) == 1)
        return first & torch.isin(ids, self._special.to(ids.device)) & (mask.sum(1, keepdim=True) > 1)

    def _copy(self, rows: int) -> Any:
        cache = copy.deepcopy(self._cache)
        cache.batch_repeat_interleave(rows)
        return cache
