"""What an index gathers from each batch of tokens, and how it is saved to go on later."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from interp.features.index.misra_gries import HeaviestItems
from interp.features.index.statistics import RunningStatistics
from interp.features.index.top_examples import Around, TopExamples
from interp.sae.architectures.latent_share import LatentShare

TOKENS, PARTNERS = 64, 64  # kept per latent: token types by activation mass, latents that fire with it
EVERY = 8  # co-activation is counted on every so many tokens: a token's pairs are k (k - 1)
ROWS = 4096  # windows cut at once


@dataclass(frozen=True)
class IndexSize:
    """The sizes of an index: latents, vocabulary, examples of each kind per latent, tokens on each side of a peak."""

    d_sae: int
    d_vocab: int
    top: int
    sampled: int
    context: int


class Accumulator:
    """Everything an index knows so far of the latents in `own`: memory for so many, whatever the number of tokens."""

    def __init__(self, folder: Path, shape: IndexSize, own: LatentShare) -> None:
        self.shape, self.own, d_sae, width = shape, own, len(own), 2 * shape.context + 1
        self.texts = 0
        self.tally = RunningStatistics(d_sae)
        self.tokens = HeaviestItems(d_sae, shape.d_vocab, TOKENS)
        self.partners = HeaviestItems(d_sae, shape.d_sae, PARTNERS)
        self.paired = torch.zeros(shape.d_sae, dtype=torch.long)  # firings on the tokens where pairs were counted
        self.top = TopExamples(folder, "top", d_sae, shape.top, width)
        self.sampled = TopExamples(folder, "sampled", d_sae, shape.sampled, width)

    def add(
        self,
        ids: Int[Tensor, "n"],
        text: Int[Tensor, "n"],
        values: Float[Tensor, "n ..."],
        indices: Int[Tensor, "n ..."],
        texts: int,
    ) -> None:
        """Take in the tokens of so many further texts, with their sparse codes."""
        seen, on = self.tally.tokens, values > 0
        local, held = self.own.locate(indices)
        mine = on & held
        token = mine.nonzero()[:, 0]
        latent, value = local[mine], values[mine]
        number = torch.arange(len(ids)) - torch.searchsorted(text, text)
        self.tally.add(latent, value, number[token], len(ids))
        self.tokens.add(latent, ids[token], value)
        counted = ((torch.arange(len(ids)) + seen) % EVERY == 0).nonzero().flatten()
        self._pairs(indices[counted], on[counted], local[counted], mine[counted])
        peak = _peaks(text[token] * self.shape.d_sae + latent, value)
        token, latent, value = token[peak], latent[peak], value[peak]
        home = text[token] + self.texts

        def around(chosen: Tensor) -> tuple[Tensor, Tensor]:
            parts = [
                cut_windows(ids, text, values, indices, token[some], self.own.number(latent[some]), self.shape.context)
                for some in chosen.split(ROWS)
            ]
            return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])

        self._offer(latent, value, home, around)
        self.texts += texts

    def _offer(self, latent: Tensor, value: Tensor, home: Tensor, around: Around) -> None:
        self.top.offer(latent, value.double(), value, home, around)
        number = home * self.shape.d_sae + self.own.number(latent)
        self.sampled.offer(latent, hash_to_unit(number), value, home, around)

    def _pairs(self, indices: Tensor, on: Tensor, local: Tensor, mine: Tensor) -> None:
        self.paired += torch.bincount(indices[on], minlength=self.shape.d_sae)
        both = mine[:, :, None] & on[:, None, :]
        both.diagonal(dim1=1, dim2=2).fill_(False)
        row, a, b = both.nonzero(as_tuple=True)
        self.partners.add(local[row, a], indices[row, b], torch.ones(len(row)))

    def state(self) -> dict[str, Shaped[Tensor, "..."]]:
        """All of it as named tensors."""
        flat = {f"{name}/{key}": value for name, part in self._parts() for key, value in part.state().items()}
        return flat | {"texts": torch.tensor(self.texts), "paired": self.paired}

    def restore(self, state: dict[str, Shaped[Tensor, "..."]]) -> None:
        """Go on from an earlier `state`."""
        self.texts, self.paired = int(state["texts"]), state["paired"]
        for name, part in self._parts():
            mine = {key.split("/")[1]: value for key, value in state.items() if key.startswith(f"{name}/")}
            part.restore(mine)

    def _parts(self) -> list[tuple[str, RunningStatistics | HeaviestItems | TopExamples]]:
        names = ("tally", "tokens", "partners", "top", "sampled")
        return [(name, getattr(self, name)) for name in names]


def _peaks(key: Int[Tensor, "n"], value: Float[Tensor, "n"]) -> Int[Tensor, "..."]:
    """For each key the place of its largest value, the first of equals; in the order of the keys."""
    _, of = key.unique(return_inverse=True)
    count = int(of.max()) + 1 if len(of) else 0
    largest = value.new_zeros(count).scatter_reduce_(0, of, value, "amax")
    at = torch.where(value == largest[of], torch.arange(len(value)), len(value))
    return torch.full((count,), len(value)).scatter_reduce_(0, of, at, "amin")


def cut_windows(
    ids: Int[Tensor, "n"],
    text: Int[Tensor, "n"],
    values: Float[Tensor, "n ..."],
    indices: Int[Tensor, "n ..."],
    token: Int[Tensor, "..."],
    latent: Int[Tensor, "..."],
    context: int,
) -> tuple[Int[Tensor, "..."], Float[Tensor, "..."]]:
    """The ids around some tokens of the same text, -1 beyond it, and one latent's activations on each.

    Examples:
        ```python
        cut_windows(ids, text, values, indices, token, latent, context=16)
        ```
    """
    place = token[:, None] + torch.arange(-context, context + 1)
    inside = (place >= 0) & (place < len(ids))
    place = place.clamp(0, len(ids) - 1)
    inside &= text[place] == text[token][:, None]
    hit = indices[place] == latent[:, None, None]
    acts = (values[place] * hit).sum(-1) * inside
    return torch.where(inside, ids[place], -1).int(), acts.float()


def hash_to_unit(number: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
    """A number in [0, 1) for each integer, as if drawn at random, and the same again (splitmix64's finaliser)."""
    z = number * -7046029254386353131 + -7046029254386353131
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        z = (z ^ ((z >> shift) & ((1 << (64 - shift)) - 1))) * factor
    z = z ^ ((z >> 31) & ((1 << 33) - 1))
    return ((z >> 11) & ((1 << 53) - 1)).double() / 2**53
