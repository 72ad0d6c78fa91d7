"""Token ids that are read as the same tokens again when they are written as text, and their changes by one token."""

from collections.abc import Sequence
from functools import cached_property
from typing import TypeAlias, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hooks import Model, Tokens
from hooks.encoding import from_ids
from hooks.errors import InvalidArgument
from hooks.pieces import BROKEN
from hooks.structure import input_embeddings

Ids: TypeAlias = Int[Tensor, "batch pos"]
TRIES = 64
"""How many tokens are tried at a place until one is found that is read as itself after those before it."""


@final
class Writer:
    """Writes texts token by token for one model; every text it gives is read as the same tokens again.

    Attributes:
        model: the model.
        random: what is drawn from.
        before: the special tokens that its tokenizer puts before a text.
    """

    def __init__(self, model: Model, random: torch.Generator) -> None:
        self.model, self.random = model, random
        if model.tokenizer is None:
            raise InvalidArgument(f"{model.name} has no tokenizer, so its tokens cannot be written as text")
        self.before = list(model.tokenizer("")["input_ids"])
        if list(model.tokenizer("a")["input_ids"])[: len(self.before)] != self.before:
            raise InvalidArgument(
                f"the tokenizer of {model.name} puts special tokens after a text, so its last token is not the text's: "
                "take a causal language model"
            )

    def tokens(self, ids: Ids) -> Tokens:
        """What the model reads: the special tokens, and the text."""
        front = torch.tensor(self.before, dtype=ids.dtype).expand(len(ids), -1)
        whole = torch.cat([front, ids], 1)
        return from_ids(self.model.tokenizer, whole, self.model.d_vocab, torch.ones_like(whole))

    def write(self, ids: Ids) -> list[str]:
        """The texts of token ids."""
        return self.model.tokenizer.batch_decode(ids.tolist(), clean_up_tokenization_spaces=False)

    def cross_entropy(self, logits: Float[Tensor, "batch _ vocab"], ids: Ids) -> Float[Tensor, "batch"]:
        """Mean −log p of each text's tokens, in nats; without the first token where nothing is before it."""
        given = logits[:, len(self.before) - 1 : -1] if self.before else logits[:, :-1]
        asked = (ids if self.before else ids[:, 1:]).to(logits.device)
        if asked.shape[1] == 0:
            return logits.new_zeros(len(ids))
        return -given.log_softmax(-1).gather(2, asked[..., None])[..., 0].mean(1)

    def begin(self, length: int, n: int, texts: Sequence[str]) -> Ids:
        """`n` texts of a length: the beginnings of those given, or words at random."""
        if not texts:
            return torch.cat([self._draw(length) for _ in range(n)])
        given = [self.model.tokenizer(text)["input_ids"][len(self.before) :][:length] for text in texts]
        short = next((text for text, ids in zip(texts, given, strict=True) if len(ids) < length), None)
        if short is not None:
            raise InvalidArgument(
                f"{short[:40]!r} has fewer than {length} tokens: give longer texts, or a lower length"
            )
        kept = self._read_again(torch.tensor(given))
        if not len(kept):
            raise InvalidArgument(f"no text's first {length} tokens are read as the same again: give other texts")
        return kept[torch.arange(n) % len(kept)]

    def log_shares(self, logits: Float[Tensor, "batch _ vocab"]) -> Float[Tensor, "batch pos vocab"]:
        """What each token at each place adds to −CE itself: `log p(v|t_<p) / n`; 0 where nothing is before it."""
        if self.before:
            given = logits[:, len(self.before) - 1 : -1].log_softmax(-1)
            return given / given.shape[1]
        given = logits[:, :-1].log_softmax(-1) / max(1, logits.shape[1] - 1)
        return torch.cat([torch.zeros_like(logits[:, :1]), given], 1)

    def promise(
        self, slopes: Float[Tensor, "batch pos d_model"], own: Float[Tensor, "batch pos vocab"] | float = 0.0
    ) -> Float[Tensor, "batch pos vocab"]:
        """What the gradient promises of each token at each place: `e_v · ∂m/∂e + own`; -inf of those that are no text.

        `own` is what the token adds by itself, apart from what its embedding changes at later places.
        """
        found = slopes @ self._embeddings.to(slopes).T
        found = found + (own.to(found) if isinstance(own, Tensor) else own)
        return found.masked_fill(~self._allowed.to(found.device), -torch.inf)

    def children(
        self, ids: Ids, promise: Float[Tensor, "batch pos vocab"], n: int, choices: int
    ) -> Int[Tensor, "_ pos"]:
        """Each text `n` times with one token changed, to one of the `choices` that promise most at its place."""
        batch, length = ids.shape
        most = promise.topk(min(choices, int(self._allowed.sum())), dim=-1).indices.cpu()
        made = ids.repeat_interleave(n, 0)
        row = torch.arange(batch).repeat_interleave(n)
        place = torch.randint(length, (len(made),), generator=self.random)
        rank = torch.randint(most.shape[-1], (len(made),), generator=self.random)
        made[torch.arange(len(made)), place] = most[row, place, rank]
        return self._read_again(made.unique(dim=0))

    def _read_again(self, ids: Ids) -> Int[Tensor, "_ pos"]:
        """Those that are read as the same tokens again."""
        found = self.model.tokenizer(self.write(ids), verbose=False)["input_ids"] if len(ids) else []
        same = [read == [*self.before, *wanted] for read, wanted in zip(found, ids.tolist(), strict=True)]
        return ids[torch.tensor(same, dtype=torch.bool)]

    def _draw(self, length: int) -> Ids:
        vocabulary = self._allowed.nonzero().flatten()
        made = torch.empty((1, 0), dtype=torch.long)
        for _ in range(length):
            drawn = vocabulary[torch.randint(len(vocabulary), (TRIES,), generator=self.random)]
            kept = self._read_again(torch.cat([made.expand(TRIES, -1), drawn[:, None]], 1))
            if not len(kept):
                raise InvalidArgument(
                    f"none of {TRIES} tokens after {self.write(made)[0]!r} is read as itself: give texts to begin from"
                )
            made = kept[:1]
        return made

    @cached_property
    def _allowed(self) -> Bool[Tensor, "vocab"]:
        """The tokens that are text: no special ones, no parts of characters."""
        every = range(self.model.d_vocab)
        special = set(self.model.tokenizer.all_special_ids)
        known = len(self.model.tokenizer)
        pieces = self.model.tokenizer.batch_decode([[i] for i in every if i < known])
        text = [bool(piece) and BROKEN not in piece for piece in pieces] + [False] * (self.model.d_vocab - known)
        return torch.tensor([good and i not in special for i, good in zip(every, text, strict=True)])

    @cached_property
    def _embeddings(self) -> Float[Tensor, "vocab d_model"]:
        module = input_embeddings(self.model.hf)
        if module is None:
            raise InvalidArgument(f"{self.model.name} does not say which its table of token embeddings is")
        with torch.no_grad():
            return module(torch.arange(self.model.d_vocab, device=self.model.device))
