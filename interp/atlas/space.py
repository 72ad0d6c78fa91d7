"""A space: rows with names, whose distances are asked about; of pictures, tokens, or a site of any model."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from hooks import Model, Position, Site, capture
from hooks.border import Count
from hooks.capture import Data
from hooks.errors import InvalidArgument, NotFinite, OutOfRange, UnknownName, nearest
from hooks.fingerprint import fingerprint_now
from hooks.network import AnyModel
from hooks.pieces import piece
from hooks.position import everywhere
from hooks.structure import input_embeddings
from hooks.summary import summarise
from hooks.weights import has_weight, weight_of

Metric = Literal["cosine", "euclid"]
_ID = re.compile(r"id:(\d+)")


@final
@dataclass(frozen=True, eq=False)
class Space:
    """Rows that are searched, each with a name.

    By `cosine` a row's score for a query is `cos(query − μ, row − μ)` with μ the mean of these rows: activations after
    a ReLU are all in one orthant, where cosines of any two are large. By `euclid` it is `−‖query − row‖`.

    Attributes:
        rows: one for each item.
        names: of the items.
        metric: how near two rows are.
        site: where the rows were taken, if they were captured.
        fingerprint: of the weights they were computed with, as they were then.
        changed_by: what changed the passes besides the weights.

    Examples:
        >>> space = Space(torch.eye(3), ("a", "b", "c"))
        >>> len(space), space.number("b")
        (3, 1)
    """

    rows: Float[Tensor, "n d_model"]
    names: tuple[str, ...]
    metric: Metric = "cosine"
    site: Site | None = None
    fingerprint: str | None = None
    changed_by: tuple[str, ...] = ()

    __repr__ = summarise

    def __post_init__(self) -> None:
        if self.rows.ndim == 2 and len(self.rows) == len(self.names) < 2:
            raise InvalidArgument(
                f"neighbours are of two rows at least, and there are {len(self.rows)}: give more texts, pictures or "
                "places of each"
            )
        if self.rows.ndim != 2 or len(self.rows) != len(self.names):
            raise InvalidArgument(
                f"a space has rows and a name for each, got rows of {list(self.rows.shape)} and {len(self.names)} names"
            )
        odd = (~self.rows.isfinite()).nonzero()
        if len(odd):
            row, value = self.names[int(odd[0, 0])], float(self.rows[tuple(odd[0])])
            raise NotFinite(f"the row {row!r} of the space holds {value:g}: leave it out, or load the model in float32")

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def mean(self) -> Float[Tensor, "d_model"]:
        """The mean of the rows."""
        return self.rows.float().mean(0)

    def number(self, item: str | int) -> int:
        """The number of an item, which is given by its name, its number, or `id:123` where nothing is called that.

        Raises:
            UnknownName: none is called that, or several are: the message has their numbers.
            OutOfRange: there is no item of that number.

        Examples:
            >>> Space(torch.eye(2), ("fog", "bay")).number("bay")
            1
        """
        if isinstance(item, str) and item not in self.names and (by_id := _ID.fullmatch(item)):
            item = int(by_id[1])
        if isinstance(item, int):
            if not 0 <= item < len(self):
                raise OutOfRange(f"item {item} was asked for, and there are {len(self)}")
            return item
        found = [i for i, name in enumerate(self.names) if name == item]
        if len(found) != 1:
            raise UnknownName(self._not_one(str(item), found))
        return found[0]

    def _not_one(self, name: str, found: Sequence[int]) -> str:
        if not found:
            return f"none is called {name!r}: give one of {nearest(name, self.names)}, or its number as in id:123"
        shown = ", ".join(f"id:{i}" for i in found[:8]) + (", …" if len(found) > 8 else "")
        return f"{len(found)} are called {name!r}: say which by its number, one of {shown}"

    def scores(self, queries: Float[Tensor, "_ d_model"]) -> Float[Tensor, "_ n"]:
        """How near each row is to each query: greater is nearer.

        Examples:
            >>> Space(torch.tensor([[1.0], [3.0]]), ("a", "b"), "euclid").scores(torch.tensor([[2.5]]))
            tensor([[-1.5000, -0.5000]])
        """
        if queries.ndim != 2 or queries.shape[1] != self.rows.shape[1]:
            raise InvalidArgument(
                f"queries are rows of {self.rows.shape[1]}, as those of the space; got {list(queries.shape)}"
            )
        rows, asked = self.rows.float(), queries.float()
        if self.metric == "euclid":
            return -torch.cdist(asked, rows, compute_mode="donot_use_mm_for_euclid_dist")
        return F.normalize(asked - self.mean, dim=-1) @ F.normalize(rows - self.mean, dim=-1).T

    def part(self, items: Int[Tensor, "_"]) -> "Space":
        """The space of some of the items.

        Examples:
            >>> Space(torch.eye(3), ("a", "b", "c")).part(torch.tensor([2, 0])).names
            ('c', 'a')
        """
        return replace(self, rows=self.rows[items], names=tuple(self.names[i] for i in items.tolist()))


def space_at(
    model: AnyModel,
    data: Data,
    site: Site,
    names: Sequence[str] | None = None,
    *,
    at: Position = everywhere,
    metric: Metric = "cosine",
    batch_size: Count = 64,
    progress: bool = True,
) -> Space:
    """The space of what a model computes at a site: a row for each picture or text, the mean of the selected places.

    Args:
        model: any model.
        data: what `capture` takes.
        site: where.
        names: of the pictures or texts; their numbers by default.
        at: which places or tokens; several of one picture or text are averaged.
        metric: how near two rows are.
        batch_size: of the passes.
        progress: show a bar.

    Raises:
        InvalidArgument: a picture or text of which no place is selected, or another number of names.

    Cost: one forward pass per batch, up to the site.

    Examples:
        ```python
        space_at(load_net("convnet"), draw(shown).images(), embedding, [scene.landmark for scene in shown])
        ```
    """
    acts = capture(model, data, site, batch_size=batch_size, progress=progress)
    value = acts[site].flatten(2).float()
    chosen = at.mask(acts.tokens.places(value.shape[1], site)).to(value.dtype)
    counts = chosen.sum(1)
    if not bool((counts > 0).all()):
        raise InvalidArgument(f"{at} selects nothing in item {int((counts == 0).nonzero()[0])}: leave it out")
    rows = torch.einsum("bp,bpd->bd", chosen, value) / counts[:, None]
    named = tuple(map(str, range(len(rows)))) if names is None else tuple(names)
    return Space(rows, named, metric, site, acts.fingerprint, acts.changed_by)


def token_space(model: Model, *, metric: Metric = "cosine") -> Space:
    """The space of a model's token embeddings: a row for each token of its vocabulary, called as it reads in a text.

    Tokens may read alike, such as a letter and the byte of it: they are asked for by their ids.

    Raises:
        InvalidArgument: the model has no table of embeddings, or no tokenizer that names its rows.

    Examples:
        ```python
        find_neighbours(token_space(load("landmark")), " London")
        ```
    """
    table, tokenizer = input_embeddings(model.hf), model.tokenizer
    if tokenizer is None or table is None or not has_weight(table):
        raise InvalidArgument(
            f"{model.name} has no table of embeddings with a tokenizer that names its rows: load both"
        )
    rows = weight_of(table).detach().float()
    names = tuple(piece(tokenizer, i) for i in range(min(len(rows), len(tokenizer))))
    return Space(rows[: len(names)], names, metric, Site("embed"), fingerprint_now(model.hf))
