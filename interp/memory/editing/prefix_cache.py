"""Texts from the edited token on: what comes before it is the same at every step of a search and is read once."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from hooks import Model, Site, Tokens
from hooks.forward import accepts, named_outputs, positions
from hooks.site import mlp_act


@dataclass(frozen=True)
class Projection:
    """What the output projection of a feed-forward layer writes, W k + b, before anything normalises or scales it."""

    layer: int

    def __str__(self) -> str:
        return f"the output projection of layer {self.layer}"


Change = Callable[[Float[Tensor, "batch pos d_model"]], Float[Tensor, "batch pos d_model"]]
Where = Site | Projection
"""What a value is searched for: a site, or what a weight writes."""


def attach(model: Model, where: Where, change: Change) -> Callable[[], None]:
    """Change what flows there at each forward pass; what is returned ends that."""
    if isinstance(where, Projection):

        def changed(_module: nn.Module, _args: Any, v: Tensor) -> Tensor:
            return change(v)

        return model.module(mlp_act[where.layer]).register_forward_hook(changed).remove
    return model.tap(where).attach(change).remove


@dataclass(frozen=True, eq=False)
class Remainder:
    """What is left to read of each text, and the cache of what came before.

    Attributes:
        ids: the tokens left, padded on the right.
        mask: the tokens there are, of those read and of those left.
        column: where in `ids` the edited token is, in each row.
        start: where in the original batch column 0 of each row of `ids` was.
        cache: keys and values of what was read; None where all is left.
    """

    ids: Int[Tensor, "batch pos"]
    mask: Bool[Tensor, "batch _"]
    column: Int[Tensor, "batch"]
    start: Int[Tensor, "batch"]
    cache: Any

    def logits(self, model: Model) -> Float[Tensor, "batch pos vocab"]:
        """The logits of what is left, under the caller's grad mode.

        Cost: one forward pass over it.
        """
        place = {name: ids[:, -self.ids.shape[1] :] for name, ids in positions(model.hf, self.mask).items()}
        extra: dict[str, Any] = {"past_key_values": copy.deepcopy(self.cache)} if self.cache is not None else {}
        if accepts(model.hf, "use_cache"):
            extra["use_cache"] = self.cache is not None
        with named_outputs(model.hf):
            return model.hf(input_ids=self.ids, attention_mask=self.mask.long(), **place, **extra).logits

    def of(self, chosen: Bool[Tensor, "batch pos"]) -> Bool[Tensor, "batch _"]:
        """Tokens of the original batch, found again in what is left."""
        columns = self.start[:, None] + torch.arange(self.ids.shape[1], device=chosen.device)
        inside = (columns >= 0) & (columns < chosen.shape[1])
        return chosen.gather(1, columns.clamp(0, chosen.shape[1] - 1)) & inside

    @contextmanager
    def add_deltas(self, model: Model, deltas: Mapping[Where, Float[Tensor, "*n d_model"]]) -> Iterator[None]:
        """Inside the block each δ is added at its place to the edited token: one for all rows, or one for each."""
        rows = torch.arange(len(self.ids), device=self.ids.device)

        def added(a: Tensor, delta: Tensor) -> Tensor:
            place = (rows, self.column)
            return a.index_put(place, (a[place].float() + delta).to(a))

        with ExitStack() as stack:
            for where, delta in deltas.items():
                stack.callback(attach(model, where, partial(added, delta=delta)))
            yield


@torch.no_grad()
def read_prefixes(model: Model, tokens: Tokens, at: Bool[Tensor, "batch pos"]) -> Remainder:
    """Read the texts up to the edited tokens; all is left where the model's contract rules out caches or left padding.

    Args:
        model: the model.
        tokens: whole texts.
        at: the edited token, one in each row.

    Cost: one forward pass over what comes before.
    """
    edited, begin = at.int().argmax(1), tokens.mask.int().argmax(1)
    end = begin + tokens.mask.sum(1)
    before = int((edited - begin).max())
    unfit = set() if model.contract is None else {*model.contract.unfit}
    if unfit & {"cache", "left padding"} or not before or not model.hf.can_generate():
        return Remainder(tokens.ids, tokens.mask, edited, torch.zeros_like(edited), None)
    columns = edited[:, None] + torch.arange(-before, int((end - edited).max()), device=edited.device)
    mask = (columns >= begin[:, None]) & (columns < end[:, None])
    ids = tokens.ids.gather(1, columns.clamp(0, tokens.ids.shape[1] - 1))
    read = mask[:, :before]
    with named_outputs(model.hf):
        said = model.hf(
            input_ids=ids[:, :before], attention_mask=read.long(), use_cache=True, **positions(model.hf, read)
        )
    return Remainder(ids[:, before:], mask, torch.zeros_like(edited), edited, said.past_key_values)
