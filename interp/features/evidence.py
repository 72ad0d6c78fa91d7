"""Why to believe that a latent means something: where it fires most, how often and how strongly, what it promotes."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import Model, Tokens, stream
from hooks.errors import InvalidArgument, OutOfRange
from hooks.pieces import pieces
from hooks.summary import summarise
from interp.common.texts import list_texts
from interp.features.logits import add_layers, find_promoted_tokens, promotes_tokens
from interp.features.reading import find_sites, rows_of
from interp.sae import SAE, decoder_rows

if TYPE_CHECKING:
    from pandas import DataFrame

PROMOTED = 10


@final
@dataclass(frozen=True)
class Example:
    """A stretch of text number `text` around the token where a latent is highest: number `peak` of its `tokens`."""

    text: int
    tokens: tuple[str, ...]
    activations: tuple[float, ...]
    peak: int

    __repr__ = summarise

    @property
    def activation(self) -> float:
        """The latent's activation at the peak."""
        return self.activations[self.peak]

    def __str__(self) -> str:
        before, after = "".join(self.tokens[: self.peak]), "".join(self.tokens[self.peak + 1 :])
        return f"{self.activation:6.2f}  {before}[[{self.tokens[self.peak]}]]{after}"


@final
@dataclass(frozen=True)
class Evidence:
    """What a latent did on some texts.

    `examples` are its highest texts, one stretch from each, highest first. `counts` is the histogram of its
    activations above 0 between `edges`. `firing_rate` is the share of the `tokens` read (BOS and padding left out)
    on which it was above 0, `mean` and `largest` are over those. `promoted` and `suppressed` are next tokens with
    the change of their logits; empty where the site does not write to the residual stream.
    """

    latent: int
    examples: tuple[Example, ...]
    counts: Int[Tensor, "n"]
    edges: Float[Tensor, "..."]
    firing_rate: float
    mean: float
    largest: float
    tokens: int
    promoted: tuple[tuple[str, float], ...]
    suppressed: tuple[tuple[str, float], ...]

    def __repr__(self) -> str:
        return f"Evidence(latent {self.latent}, on at {self.firing_rate:.3%} of {self.tokens:,} tokens)"

    def __str__(self) -> str:
        words = ", ".join(repr(token) for token, _ in self.promoted)
        head = (
            f"latent {self.latent}: on at {self.firing_rate:.3%} of {self.tokens:,} tokens, "
            f"mean {self.mean:.2f}, largest {self.largest:.2f}; promotes {words or 'nothing that can be read off'}"
        )
        return "\n".join([head, *map(str, self.examples)])

    def to_pandas(self) -> "DataFrame":
        """A row for each example, the highest first: its text, the token at the peak, its activation, the stretch."""
        from pandas import DataFrame

        rows = [(one.text, one.tokens[one.peak], one.activation, "".join(one.tokens)) for one in self.examples]
        return DataFrame(rows, columns=["text", "token", "activation", "stretch"])


def collect_evidence(
    sae: SAE,
    model: Model,
    texts: Sequence[str] | Int[Tensor, "batch pos"],
    latent: int,
    *,
    top: int = 20,
    context: int = 16,
    batch_size: int = 32,
    progress: bool = True,
) -> Evidence:
    """Read texts once and collect what one latent does on them: `top` examples, `context` tokens each side.

    Texts may be token ids, of a model without a tokenizer.

    Cost: one forward pass per text up to the autoencoder's site; memory for one batch and the examples.

    Raises:
        OutOfRange: the latent does not exist.
        InvalidArgument: the autoencoder belongs to another model, no texts or none with a token besides special ones,
            or no examples wanted.

    Examples:
        ```python
        print(collect_evidence(sae, model, texts, found.best.latent))
        ```
    """
    sites = find_sites(sae, model)
    if min(top, batch_size) < 1 or context < 0:
        raise InvalidArgument(
            f"top and batch_size must be at least 1 and context at least 0: {top}, {batch_size}, {context} were given"
        )
    if not 0 <= latent < sae.d_sae:
        raise OutOfRange(f"latent {latent} does not exist; this autoencoder has latents 0 to {sae.d_sae - 1}")
    seen = _Seen(model, top, context)
    given = texts if isinstance(texts, Tensor) else list_texts(texts)
    for acts in stream(model, given, sites, batch_size=batch_size, progress=progress):
        values, indices = sae.encode_sparse(rows_of(acts, sites))
        seen.add(acts.tokens, (values * (indices == latent)).sum(1))
    if not seen.tokens:
        raise InvalidArgument("the texts hold no tokens besides special ones: give texts")
    vector = add_layers(decoder_rows(sae, [latent]))[0]
    readable = promotes_tokens(model, sae.sites[-1]) and model.tokenizer is not None
    return Evidence(
        latent=latent,
        examples=tuple(example for _, _, example in sorted(seen.best, reverse=True)),
        counts=seen.histogram.counts,
        edges=seen.histogram.edges,
        firing_rate=seen.fired / seen.tokens,
        mean=seen.total / max(1, seen.fired),
        largest=seen.largest,
        tokens=seen.tokens,
        promoted=find_promoted_tokens(model, vector, PROMOTED) if readable else (),
        suppressed=tuple((token, -rise) for token, rise in find_promoted_tokens(model, -vector, PROMOTED))
        if readable
        else (),
    )


class _Seen:
    """Running totals over batches, and the texts with the highest activation so far."""

    def __init__(self, model: Model, top: int, context: int) -> None:
        self.model, self.top, self.context = model, top, context
        self.best: list[tuple[float, int, Example]] = []
        self.histogram = Histogram()
        self.texts = self.tokens = self.fired = 0
        self.total = self.largest = 0.0

    def add(self, tokens: Tokens, f: Float[Tensor, "n"]) -> None:
        """Take in a batch: its tokens, and the latent at those of them that are not special."""
        on = f[f > 0]
        self.histogram.add(on)
        self.tokens += len(f)
        self.fired += len(on)
        self.total += float(on.double().sum())
        self.largest = max(self.largest, float(f.max()) if len(f) else 0.0)
        spread = torch.zeros(tokens.ids.shape, dtype=f.dtype, device=f.device)
        spread[tokens.content.to(f.device)] = f
        peaks, places = (part.tolist() for part in spread.max(1))
        highest: dict[int, int] = {}  # of each text the row with the highest peak
        for row, text in enumerate(numbers := tokens.text_number.tolist()):
            highest[text] = max(highest.get(text, row), row, key=lambda i: (peaks[i], -i))
        for text, row in highest.items():
            peak, pos, number = peaks[row], places[row], self.texts + text
            if peak > (self.best[0][0] if len(self.best) >= self.top else 0):
                push = heapq.heappushpop if len(self.best) >= self.top else heapq.heappush
                push(
                    self.best,
                    (peak, -number, self._example(number, tokens.ids[row], tokens.content[row], spread[row], pos)),
                )
        self.texts += numbers[-1] + 1

    def _example(self, number: int, ids: Tensor, content: Tensor, f: Tensor, peak: int) -> Example:
        near = torch.arange(len(ids), device=ids.device)
        kept = content & ((near - peak).abs() <= self.context)
        written = pieces(self.model.tokenizer, ids[content].tolist())
        tokens = tuple(token for token, near in zip(written, kept[content].tolist(), strict=True) if near)
        return Example(number, tokens, tuple(f[kept].tolist()), int(kept[:peak].sum()))


class Histogram:
    """Counts in equal bins from 0; where a number is beyond the last bin, bins merge in pairs and the range doubles.

    Examples:
        >>> h = Histogram(bins=4)
        >>> h.add(torch.tensor([1.0, 3.5]))
        >>> h.add(torch.tensor([5.0]))
        >>> h.counts.tolist(), h.edges.tolist()
        ([1, 1, 1, 0], [0.0, 1.75, 3.5, 5.25, 7.0])
    """

    def __init__(self, bins: int = 40) -> None:
        if bins < 2 or bins % 2:
            raise InvalidArgument(f"a histogram needs an even number of bins to merge in pairs, not {bins}")
        self.counts = torch.zeros(bins, dtype=torch.long)
        self.top = 0.0

    def add(self, values: Float[Tensor, "..."]) -> None:
        """Count numbers; `InvalidArgument` for one that is not finite or not above 0."""
        if not values.numel():
            return
        values = values.flatten().double().cpu()
        odd = values[~(values.isfinite() & (values > 0))]
        if len(odd):
            raise InvalidArgument(
                f"a histogram of activations counts finite numbers above 0 only, got {float(odd[0]):g}: leave it out"
            )
        largest, bins = float(values.max()), len(self.counts)
        self.top = self.top or largest
        while largest > self.top:
            self.counts = torch.cat([self.counts.view(-1, 2).sum(1), self.counts.new_zeros(bins // 2)])
            self.top *= 2
        place = (values / self.top * bins).long().clamp(max=bins - 1)
        self.counts = self.counts + torch.bincount(place, minlength=bins)

    @property
    def edges(self) -> Float[Tensor, "..."]:
        """The bins' edges, one more than there are bins."""
        return torch.linspace(0, self.top, len(self.counts) + 1)
