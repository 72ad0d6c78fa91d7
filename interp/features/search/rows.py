"""What a search detects: a row per token or a row per text, each with its label."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hooks.errors import InvalidArgument
from hooks.summary import summarise
from interp.features.reading import Reading
from interp.features.search.concept import Concept


@dataclass(frozen=True)
class Rows:
    """Labelled rows and how tokens score them: a row's score is the largest among its tokens'.

    `row_of` gives each token's row, -1 for tokens that are left out. `text` is each row's text. `forms` lists, for
    each form of mention, the positive rows of that form; rows whose forms are all set apart are `apart`. `cluster`
    and `block` say what may be exchanged if the labels mean nothing: clusters of rows keep one label, and labels move
    between the clusters of a block.
    """

    unit: str
    y: Bool[Tensor, "n"]
    text: Int[Tensor, "n"]
    row_of: Int[Tensor, "..."]
    forms: dict[str, Int[Tensor, "..."]]
    apart: Bool[Tensor, "n"]
    cluster: Int[Tensor, "n"]
    block: Int[Tensor, "..."]

    __repr__ = summarise

    def pool(self, scores: Float[Tensor, "..."]) -> Float[Tensor, "n"]:
        """The rows' scores, from one score per token."""
        kept = self.row_of >= 0
        empty = scores.new_full((len(self.y),), -torch.inf)
        return empty.scatter_reduce_(0, self.row_of[kept], scores[kept], "amax")


Unit = Callable[[Reading, Concept], Rows]


@dataclass(frozen=True)
class TokenLabels:
    """Which tokens are positive, which count at all, the form of each positive one, and which are of forms apart."""

    y: Bool[Tensor, "n"]
    counts: Bool[Tensor, "n"]
    forms: list[tuple[int, str]]
    apart: Bool[Tensor, "n"]


def label_tokens(reading: Reading, concept: Concept) -> TokenLabels:
    """Label tokens by the concept's mentions, or, where it has none, by their texts' labels.

    The last token of each mention is positive (where a model that reads from left to right can first know what is
    named), its earlier tokens are left out, and all others are negative.

    Raises:
        InvalidArgument: a mention that no token covers.
    """
    y = torch.tensor(concept.labels)[reading.text]
    counts, apart = torch.ones_like(y), torch.zeros_like(y)
    if not concept.mentions:
        return TokenLabels(y, counts, [], apart)
    last: list[tuple[int, str]] = []
    first = torch.searchsorted(reading.text, torch.arange(len(concept.texts) + 1)).tolist()
    for number, mentions in enumerate(concept.mentions):
        start, end = (part[first[number] : first[number + 1]] for part in (reading.start, reading.end))
        for m in mentions:
            inside = ((start < m.end) & (end > m.start)).nonzero().flatten() + first[number]
            if not len(inside):
                raise InvalidArgument(
                    f"no token covers the mention at {m.start}:{m.end} of text {number}: {concept.texts[number]!r}"
                )
            counts[inside] = False
            last.append((int(inside[-1]), m.form))
    named = torch.tensor([token for token, form in last if form not in concept.apart], dtype=torch.long)
    y = torch.zeros_like(y)
    y[torch.tensor([token for token, _ in last], dtype=torch.long)] = True
    apart = y.clone()
    apart[named] = False
    return TokenLabels(y, counts | y, last, apart)


def by_token(reading: Reading, concept: Concept) -> Rows:
    """A row per token: the last of each mention is positive, the earlier ones are left out, all others are negative.

    If the labels mean nothing, they may as well be at any other token of their text.

    Raises:
        InvalidArgument: the concept has no mentions.

    Examples:
        ```python
        search(sae, model, concept, unit=by_token)
        ```
    """
    if not any(concept.mentions):
        raise InvalidArgument(
            f"concept '{concept.name}' has no mentions, so its tokens have no labels: give mentions, or use by_text"
        )
    labels = label_tokens(reading, concept)
    row_of = torch.where(labels.counts, labels.counts.cumsum(0) - 1, -1)
    text = reading.text[labels.counts]
    forms = {form: row_of[torch.tensor([t for t, f in labels.forms if f == form])] for form in concept.forms}
    apart = labels.apart[labels.counts]
    return Rows("token", labels.y[labels.counts], text, row_of, forms, apart, torch.arange(len(text)), text)


def by_text(reading: Reading, concept: Concept) -> Rows:
    """A row per text, scored by its highest token.

    If the labels mean nothing, groups that hold one label may exchange it, and in groups that hold both the texts may.

    Examples:
        ```python
        search(sae, model, concept, unit=by_text)
        ```
    """
    y = torch.tensor(concept.labels)
    names = {group: i for i, group in enumerate(dict.fromkeys(concept.groups))}
    group = torch.tensor([names[g] for g in concept.groups])
    size = torch.bincount(group, minlength=len(names))
    positive = torch.bincount(group[y], minlength=len(names))
    mixed = ((positive > 0) & (positive < size))[group]
    # A mixed group's texts are clusters of one in a block of their own; each other group is one cluster in block 0.
    apart = torch.tensor([not concept.counts(number) for number in range(len(y))])
    key = torch.where(mixed, 2 * len(names) + torch.arange(len(y)), 2 * group + apart)
    _, cluster = key.unique(return_inverse=True)
    block = torch.zeros(int(cluster.max()) + 1, dtype=torch.long)
    block[cluster] = torch.where(mixed, group + 1, 0)
    forms = {
        form: torch.tensor([i for i, mentions in enumerate(concept.mentions) if any(m.form == form for m in mentions)])
        for form in concept.forms
    }
    return Rows("text", y, torch.arange(len(y)), reading.text, forms, apart, cluster, block)


def draw_exchanges(
    rows: Rows, half: Bool[Tensor, "n"], count: int, generator: torch.Generator
) -> Iterator[Bool[Tensor, "n"]]:
    """Labels after random exchanges, within each half, that change nothing if labels mean nothing; `count` of them."""
    label, side = torch.zeros(len(rows.block), dtype=torch.bool), torch.zeros_like(rows.block)
    label[rows.cluster], side[rows.cluster] = rows.y, torch.where(rows.apart, 2, half.long())
    block = 3 * rows.block + side
    place = block.argsort(stable=True)
    for _ in range(count):
        drawn = (block + torch.rand(len(block), generator=generator, dtype=torch.float64)).argsort()
        shuffled = torch.empty_like(label)
        shuffled[place] = label[drawn]
        yield shuffled[rows.cluster]
