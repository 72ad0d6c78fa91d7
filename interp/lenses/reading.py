"""Reading a text with a lens: what every layer's stream would say at every token, and how far that is from the end."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hooks import Activations, Model, capture
from hooks.errors import InvalidArgument
from hooks.model import Text
from hooks.pieces import piece, pieces
from hooks.position import everywhere
from hooks.site import resid_post
from interp.circuits.metric import Word, name_token, token_ids
from interp.lenses.lens import Lens

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, eq=False)
class LensReading:
    """What a lens read off texts, layer by layer and token by token; padding is NaN.

    Attributes:
        lens: the name of the lens.
        layers: the layers read.
        tokens: the texts, token by token.
        content: which tokens are text.
        top: the likeliest tokens, likeliest first, of the last axis.
        words: the text of each of them.
        probability: of those tokens.
        entropy: of the whole distribution, in nats.
        kl: KL(p_model || p_lens) in nats: how much of the model's answer the layer does not yet say.
    """

    lens: str
    layers: tuple[int, ...]
    tokens: tuple[tuple[str, ...], ...]
    content: Bool[Tensor, "batch pos"]
    top: Int[Tensor, "layer batch pos n"]
    words: dict[int, str]
    probability: Float[Tensor, "layer batch pos n"]
    entropy: Float[Tensor, "layer batch pos"]
    kl: Float[Tensor, "layer batch pos"]

    def __repr__(self) -> str:
        said = [self.words[int(i)] for i in self.top[-1, 0, self.content[0]].reshape(-1, self.top.shape[-1])[-1:, 0]]
        layers, (texts, pos) = f"layers {self.layers[0]} to {self.layers[-1]}", self.content.shape
        kl = ", ".join(f"{float(one):.2f}" for one in self.mean_kl[:6])
        more = ", …" if len(self.layers) > 6 else ""
        return f"LensReading({self.lens}, {layers}, {texts} texts of up to {pos} tokens, says {said}; KL {kl}{more})"

    def to_pandas(self) -> "DataFrame":
        """A row for each layer and token with text: the likeliest token, its probability, entropy and KL."""
        from pandas import DataFrame

        places = self.content.nonzero().tolist()
        return DataFrame(
            {
                "layer": layer,
                "text": row,
                "position": pos,
                "token": self.tokens[row][pos],
                "likeliest": self.words[int(self.top[i, row, pos, 0])],
                "probability": float(self.probability[i, row, pos, 0]),
                "entropy": float(self.entropy[i, row, pos]),
                "kl": float(self.kl[i, row, pos]),
            }
            for i, layer in enumerate(self.layers)
            for row, pos in places
        )

    @property
    def mean_kl(self) -> Float[Tensor, "layer"]:
        """KL by layer, a mean over the tokens of text."""
        return self.kl[:, self.content].mean(1)


@torch.no_grad()
def read(lens: Lens, text: Text, *, top: int = 5) -> LensReading:
    """Read texts with a lens at every layer and token.

    Args:
        lens: the lens, which knows its model.
        text: a text, texts, token ids or `Tokens`, read as one batch.
        top: how many of the likeliest tokens to keep.

    Raises:
        InvalidArgument: no such number of tokens.

    Cost:
        One forward pass, and one unembedding per layer; the logits of one layer at a time are held.

    Examples:
        ```python
        read(LogitLens(model), "The Golden Gate Bridge is in").top[:, 0, -1, 0]
        ```
    """
    model = lens.model
    if not 1 <= top <= model.d_vocab:
        raise InvalidArgument(f"top is {top}: give a number of tokens from 1 to {model.d_vocab}")
    acts = streams(lens, text)
    end = model.unembed(acts[resid_post[model.n_layers - 1]]).float().log_softmax(-1)
    rows = [
        _layer(lens.read(acts[resid_post[layer]], layer).float().log_softmax(-1), end, top) for layer in lens.layers
    ]
    ids, probability, entropy, kl = (torch.stack(column) for column in zip(*rows, strict=True))
    padding = ~acts.tokens.mask
    entropy[:, padding], kl[:, padding], probability[:, padding] = torch.nan, torch.nan, torch.nan
    return LensReading(
        lens=type(lens).__name__,
        layers=tuple(lens.layers),
        tokens=_pieces_of(model, acts.tokens.ids.tolist()),
        content=everywhere.mask(acts.tokens),
        top=ids,
        words={i: piece(model.tokenizer, i) for i in ids.unique().tolist()},
        probability=probability,
        entropy=entropy,
        kl=kl,
    )


@dataclass(frozen=True, eq=False)
class Ranks:
    """How many tokens each layer finds likelier than `word`, at every token: 0 where it is the likeliest.

    `content` marks the tokens of text; padding has the rank -1.
    """

    lens: str
    word: str
    layers: tuple[int, ...]
    tokens: tuple[tuple[str, ...], ...]
    content: Bool[Tensor, "batch pos"]
    ranks: Int[Tensor, "layer batch pos"]

    def __repr__(self) -> str:
        end = [
            f"{layer}: {int(row[0, self.content[0]][-1])}" for layer, row in zip(self.layers, self.ranks, strict=True)
        ]
        return f"Ranks({self.word!r} by {self.lens} at the last token, layer: rank {', '.join(end)})"

    def to_pandas(self) -> "DataFrame":
        """A row for each layer and token with text, with the rank of the word there."""
        from pandas import DataFrame

        places = self.content.nonzero().tolist()
        return DataFrame(
            {"layer": layer, "text": row, "position": pos, "token": self.tokens[row][pos], "rank": int(ranks[row, pos])}
            for layer, ranks in zip(self.layers, self.ranks, strict=True)
            for row, pos in places
        )


@torch.no_grad()
def rank(lens: Lens, text: Text, word: Word) -> Ranks:
    """Rank a token, a word or its id, at every layer and token of texts.

    Raises:
        InvalidArgument: a word of several tokens (`first_token` takes the first), or an id that is none.

    Cost:
        One forward pass, and one unembedding per layer.

    Examples:
        ```python
        rank(LogitLens(model), "The Golden Gate Bridge is in", " San").ranks[:, 0, -1]
        ```
    """
    (token,) = token_ids(lens.model, word).tolist()
    acts = streams(lens, text)
    said = (lens.read(acts[resid_post[layer]], layer) for layer in lens.layers)
    ranks = torch.stack([(logits > logits[..., token, None]).sum(-1) for logits in said])
    return Ranks(
        lens=type(lens).__name__,
        word=name_token(lens.model, word),
        layers=tuple(lens.layers),
        tokens=_pieces_of(lens.model, acts.tokens.ids.tolist()),
        content=everywhere.mask(acts.tokens),
        ranks=ranks.masked_fill(~acts.tokens.mask, -1),
    )


def streams(lens: Lens, text: Text) -> Activations:
    """The streams a lens reads, of one batch."""
    tokens = lens.model.tokens(text)
    return capture(lens.model, tokens, [resid_post[layer] for layer in lens.layers], batch_size=len(tokens))


def _layer(
    log_q: Float[Tensor, "batch pos vocab"], log_p: Float[Tensor, "batch pos vocab"], top: int
) -> tuple[
    Int[Tensor, "batch pos n"], Float[Tensor, "batch pos n"], Float[Tensor, "batch pos"], Float[Tensor, "batch pos"]
]:
    kept = log_q.topk(top, dim=-1)
    entropy = -(log_q.exp() * log_q).sum(-1)
    kl = (log_p.exp() * (log_p - log_q)).sum(-1)
    return kept.indices, kept.values.exp(), entropy, kl


def _pieces_of(model: Model, ids: Sequence[Sequence[int]]) -> tuple[tuple[str, ...], ...]:
    return tuple(pieces(model.tokenizer, row) for row in ids)
