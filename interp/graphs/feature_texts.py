"""What the features of a graph fire on: where each is highest in some texts, and on which tokens."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heappush, heappushpop

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Model, Tokens, stream
from hooks.border import Count
from hooks.errors import InvalidArgument, UnknownName, nearest
from hooks.pieces import piece, pieces
from hooks.summary import summarise
from interp.common.texts import list_texts
from interp.features import Example
from interp.graphs.transcoders import Transcoders

NAMED, LEAST = 3, 0.1
"""At most so many tokens are named, each with at least this share."""


@dataclass(frozen=True)
class FeatureText:
    """What one feature fires on.

    Attributes:
        feature: its name, such as `f3.120`.
        fires: the tokens that it fires on most often, each with its share of all.
        examples: the places where it is highest, one of each text.
        firing_rate: the share of tokens on which it is on.
        tokens: how many were read.
    """

    feature: str
    fires: tuple[tuple[str, float], ...]
    examples: tuple[Example, ...]
    firing_rate: float
    tokens: int

    __repr__ = summarise

    @property
    def label(self) -> str:
        """A line about it."""
        if not self.examples:
            return "never fires"
        named = [f"{token.strip() or repr(token)} ({share:.0%})" for token, share in self.fires if share >= LEAST]
        if named:
            return f"fires on {', '.join(named)}"
        peaks = dict.fromkeys(example.tokens[example.peak].strip() for example in self.examples)
        return f"fires on many different tokens, most on {', '.join([*filter(None, peaks)][:NAMED])}"

    def __str__(self) -> str:
        head = f"{self.feature}: {self.label}; on at {self.firing_rate:.2%} of {self.tokens:,} tokens"
        return "\n".join([head, *map(str, self.examples)])


@torch.no_grad()
def collect_feature_texts(
    model: Model,
    transcoders: Transcoders,
    texts: Sequence[str],
    features: Iterable[str],
    *,
    top: Count = 5,
    context: int = 12,
    batch_size: Count = 16,
    progress: bool = True,
) -> dict[str, FeatureText]:
    """Return what each of some features fires on in some texts, by its name.

    Args:
        model: the model.
        transcoders: whose features they are.
        texts: to read; special tokens are left out.
        features: names of features, such as `f3.120`, or of nodes, such as `f3.120@5`.
        top: examples of each.
        context: tokens on each side of the highest.
        batch_size: texts at a time.
        progress: whether to show a bar.

    Raises:
        InvalidArgument: no texts, or texts of special tokens only.
        UnknownName: a feature that there is not.

    Cost: one forward pass for each text, and the encoding of its tokens at the layers of these features.

    Examples:
        ```python
        names = [name for name, _ in graph.top(50)]
        said = collect_feature_texts(model, transcoders, landmark.corpus()[:500], names)
        said["f3.120"].label
        ```
    """
    wanted = _by_layer(transcoders, features)
    sites = list(dict.fromkeys(transcoders.layers[layer].reads for layer in wanted))
    seen = {f"f{layer}.{latent}": _Seen(top) for layer, latents in wanted.items() for latent in latents}
    tokens = texts_read = 0
    for acts in stream(model, list_texts(texts), sites, batch_size=batch_size, progress=progress):
        content = acts.tokens.content
        tokens += int(content.sum())
        for layer, latents in wanted.items():
            one = transcoders.layers[layer]
            a = one.encode(acts.flat(one.reads))[:, torch.tensor(latents)].float().cpu()
            whole = torch.zeros(len(latents), *content.shape)
            whole[:, content.cpu()] = a.T
            for latent, values in zip(latents, whole, strict=True):
                seen[f"f{layer}.{latent}"].add(model, acts.tokens, values, texts_read, context)
        texts_read += len(content)
    if not tokens:
        raise InvalidArgument("the texts hold no tokens besides special ones: give texts")
    return {name: one.finish(model, name, tokens) for name, one in seen.items()}


def _by_layer(transcoders: Transcoders, features: Iterable[str]) -> dict[int, list[int]]:
    """The features of each layer, each once; logits, tokens and errors are passed over."""
    found: dict[int, list[int]] = {}
    for name in dict.fromkeys(name.partition("@")[0] for name in features if name.startswith("f")):
        layer, _, latent = name[1:].partition(".")
        known = layer.isdigit() and latent.isdigit() and int(layer) in transcoders.layers
        if not known or int(latent) >= len(transcoders.layers[int(layer)].W_enc):
            near = nearest(name, [f"f{each}.0" for each in transcoders.layers])
            raise UnknownName(f"no feature is called '{name}'; did you mean {near}?")
        found.setdefault(int(layer), []).append(int(latent))
    return dict(sorted(found.items()))


class _Seen:
    """What has been seen of one feature so far."""

    def __init__(self, top: int) -> None:
        self.top, self.on = top, 0
        self.best: list[tuple[float, int, Example]] = []
        self.counts: dict[int, int] = {}

    def add(self, model: Model, tokens: Tokens, a: Float[Tensor, "batch pos"], first: int, context: int) -> None:
        on = a > 0
        self.on += int(on.sum())
        for i in tokens.ids.cpu()[on].tolist():
            self.counts[i] = self.counts.get(i, 0) + 1
        for row in on.any(1).nonzero().flatten().tolist():
            peak = int(a[row].argmax())
            value = float(a[row, peak])
            full = len(self.best) >= self.top
            if full and value <= self.best[0][0]:
                continue
            near = (torch.arange(a.shape[1]) - peak).abs() <= context
            kept = tokens.content[row].cpu() & near
            shown = tuple(pieces(model.tokenizer, tokens.ids[row].cpu()[kept].tolist()))
            example = Example(first + row, shown, tuple(a[row][kept].tolist()), int(kept[:peak].sum()))
            (heappushpop if full else heappush)(self.best, (value, -first - row, example))

    def finish(self, model: Model, name: str, tokens: int) -> FeatureText:
        most = sorted(self.counts.items(), key=lambda pair: (-pair[1], pair[0]))[:NAMED]
        fires = tuple((piece(model.tokenizer, i), n / self.on) for i, n in most)
        examples = tuple(example for *_, example in sorted(self.best, reverse=True))
        return FeatureText(name, fires, examples, self.on / tokens, tokens)
