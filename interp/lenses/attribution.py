"""Direct logit attribution: a logit as the exact sum of what every part of the model writes to the stream."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Model, Position, capture
from hooks.errors import InvalidArgument
from hooks.model import Text
from hooks.position import last
from hooks.site import resid_post
from interp.circuits.metric import Word, name_token, token_ids
from interp.circuits.patching import select_one_token
from interp.lenses.frozen_norm import Norm, Reader, freeze_norm
from interp.lenses.parts import Parts, components

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, eq=False)
class Attribution:
    """A logit, or a difference of two, and its parts, which sum to it.

    Attributes:
        word: the token, or the two.
        norm: how the final norm was treated.
        names: of the parts; the last is what no part writes: biases after the stream.
        parts: what each part adds to the logit.
        logit: what they sum to.
    """

    word: str
    norm: str
    names: tuple[str, ...]
    parts: Float[Tensor, "example n"]
    logit: Float[Tensor, "example"]

    def __repr__(self) -> str:
        parts = ", ".join(f"{name} {share:+.3f}" for name, share in self.top(3))
        return f"Attribution({self.word!r}, logit {float(self.logit.mean()):+.3f}; {parts}, …)"

    def to_pandas(self) -> "DataFrame":
        """A row for each text and part: its number, the part's name, and what the part adds to the logit."""
        from pandas import DataFrame

        n = len(self.parts)
        texts = torch.arange(n).repeat_interleave(len(self.names)).tolist()
        return DataFrame({"text": texts, "part": [*self.names] * n, "share": self.parts.flatten().tolist()})

    def top(self, count: int = 10) -> tuple[tuple[str, float], ...]:
        """The parts with the largest mean over texts, by size, with it; `InvalidArgument` for fewer than one."""
        if count < 1:
            raise InvalidArgument(f"the {count} largest parts were asked for: give 1 or more")
        mean = self.parts.mean(0)
        order = mean.abs().argsort(descending=True)[:count].tolist()
        return tuple((self.names[i], float(mean[i])) for i in order)


def attribute(
    model: Model,
    text: Text,
    word: Word,
    *,
    versus: Word | None = None,
    into: Parts = components,
    norm: Norm = freeze_norm,
    at: Position = last,
) -> Attribution:
    """Split the logit of a token into the parts of the stream: logit_t = sum_c g_t . c + constant.

    Args:
        model: the model.
        text: a text, texts, token ids or `Tokens`, read as one batch.
        word: the token, as a word or as its id; `first_token` takes the first of a word of several.
        versus: another token, whose logit is subtracted.
        into: `components`, `heads`, `neurons` or `latents(sae)`.
        norm: `freeze_norm` holds the final norm's divisor, `linearise_norm` follows its slope.
        at: after which token of each text the logit is read.

    Raises:
        InvalidArgument: a word of several tokens; capped logits; a model whose stream is not the sum of the parts, or
            whose logits are not read off it.

    Cost:
        One forward pass.

    Examples:
        ```python
        attribute(model, "The Golden Gate Bridge is in", " San", versus=" New", into=heads).top()
        ```
    """
    tokens = model.tokens(text)
    ends = select_one_token(tokens, at)
    acts = capture(model, tokens, resid_post[model.n_layers - 1], batch_size=len(tokens))
    x = acts[resid_post[model.n_layers - 1]][ends]
    model.unembed(x)  # refuses a model whose logits are not read off this stream
    reader = _make_reader(model, x, word, norm)
    if versus is not None:
        other = _make_reader(model, x, versus, norm)
        reader = Reader(reader.norm, reader.g - other.g, reader.constant - other.constant, reader.logit - other.logit)
    names, parts = into(model, tokens, ends, reader.g)
    _check_sum(model, parts, (reader.g * x).sum(-1))
    named = " − ".join(name_token(model, one) for one in (word, versus) if one is not None)
    whole = torch.cat([parts, reader.constant[:, None]], 1)
    return Attribution(named, reader.norm, (*names, "biases after the stream"), whole, reader.logit)


def _make_reader(model: Model, x: Float[Tensor, "example d_model"], word: Word, norm: Norm) -> Reader:
    return norm(model, x, token_ids(model, word).expand(len(x)))


def _check_sum(model: Model, parts: Float[Tensor, "example n"], whole: Float[Tensor, "example"]) -> None:
    error, rounding = (parts.sum(1) - whole).abs().max(), 4 * torch.finfo(model.dtype).eps
    if float(error) > max(1e-3, rounding) * float(parts.abs().sum(1).max() + 1e-6):
        raise InvalidArgument(
            f"the stream of {model.name} is not the sum of these parts (they miss its share of the logit by "
            f"{float(error):.3g}): its norms act on the stream or on what is added; take components, or another model"
        )
