"""A memory of tokens: states as keys, the tokens that followed as values, and the nearest entries to a state."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from hooks import ActivationStore, Model, Site, stream
from hooks.border import Count, Natural
from hooks.direction import wide
from hooks.errors import InvalidArgument, OutOfRange, WrongModel
from hooks.position import everywhere
from interp.common.key_index import KeyIndex, make_key_index
from interp.common.statistics import Estimate, mean_share
from interp.common.texts import list_texts

SPARE = 8
"""How many more candidates than neighbours are taken by the fast product, whose rounding can misplace close ones."""
ROWS = 262_144


@final
@dataclass(frozen=True, eq=False, repr=False)
class TokenMemory:
    """Entries (k_i, v_i): the state at a token, and the token that followed it in the same document.

    Attributes:
        keys: the states, in the precision they were kept in.
        tokens: what followed.
        document: which document each entry is of.
        site: where states are read.
        fingerprint: of the model they are of.
        index: what entries are looked up in; None to compare a state with all of them.
    """

    keys: Float[Tensor, "n d_model"]
    tokens: Int[Tensor, "n"]
    document: Int[Tensor, "n"]
    site: Site
    fingerprint: str
    index: KeyIndex | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def __repr__(self) -> str:
        return f"TokenMemory({len(self):,} entries of {int(self.document.unique().numel())} documents at {self.site})"

    def check_model(self, model: Model) -> None:
        """Raise where the states are another model's.

        Raises:
            WrongModel: they are.
        """
        if self.fingerprint != model.fingerprint:
            raise WrongModel(
                f"this memory holds states of model {self.fingerprint[:12]}, and {model.name} is "
                f"{model.fingerprint[:12]}: make it again of this one"
            )

    def without(self, entries: Shaped[Tensor, "n"]) -> "TokenMemory":
        """The memory with some entries forgotten, by number or by a mask; all others stay as they are.

        It has no index: make one again with `with_index`.

        Raises:
            OutOfRange: an entry that is not there.
        """
        kept = torch.ones(len(self), dtype=torch.bool)
        if entries.dtype == torch.bool and len(entries) != len(self):
            raise OutOfRange(f"a mask of {len(entries)} entries was given, and there are {len(self)}")
        if (
            entries.dtype != torch.bool
            and len(entries)
            and not 0 <= int(entries.min()) <= int(entries.max()) < len(self)
        ):
            raise OutOfRange(f"entries are 0 to {len(self) - 1}, got {entries.tolist()[:5]}")
        kept[entries] = False
        held = {name: getattr(self, name)[kept] for name in ("keys", "tokens", "document")}
        return replace(self, **held, index=None)

    def with_index(
        self, *, cells: Count | None = None, probes: Count | None = None, seed: Natural = 0
    ) -> "TokenMemory":
        """The same memory, whose entries are looked up in an approximate index: for more than a million of them.

        An index finds most of the nearest entries and not all; `measure_recall` says how many. The distances of those
        that it finds are computed again from the keys.

        Args:
            cells: into which keys are put; by default 4 √n.
            probes: how many cells a search looks into, by default a sixteenth; with all of them it is exact.
            seed: of the centres.

        Raises:
            InvalidArgument: more cells than entries, or more probes than cells.
            MissingExtra: faiss is not installed.

        Cost: minutes of one core for a million keys of 256 numbers, and a copy of the keys in single precision.
        """
        return replace(self, index=make_key_index(self.keys, cells=cells, probes=probes, seed=seed))

    def shuffle(self, seed: Natural = 0) -> "TokenMemory":
        """The control: the same keys with the tokens of other entries."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        return replace(self, tokens=self.tokens[order])

    def with_random_keys(self, seed: Natural = 0) -> "TokenMemory":
        """The control: the same tokens, with keys that are normal numbers of the same mean and variance."""
        keys, random = wide(self.keys), torch.Generator().manual_seed(seed)
        drawn = torch.randn(keys.shape, generator=random) * keys.std(0) + keys.mean(0)
        return replace(self, keys=drawn.to(self.keys.dtype), index=None)

    def find(self, q: Float[Tensor, "n d_model"], k: Count) -> tuple[Float[Tensor, "n _"], Int[Tensor, "n _"]]:
        """The squared distances ‖q − k_i‖² of the k nearest entries, and their numbers, nearest first.

        Candidates are ranked by ‖k‖² − 2 q·k over all entries, or by the index where there is one; the distances of
        those kept are computed again from differences in float64, since the product loses what close vectors differ by.

        Cost: a product of queries by entries, in pieces of 262,144 entries; with an index, by those of the cells that
        it looks into.
        """
        k, q = min(k, len(self)), wide(q.cpu())
        at = self._compare(q, k) if self.index is None else self._look_up(q, k, self.index)
        squared = torch.stack(
            [((self.keys[rows].double() - one) ** 2).sum(1) for rows, one in zip(at, q.double(), strict=True)]
        )
        squared, order = squared.sort(dim=1, stable=True)
        return squared[:, :k], at.gather(1, order)[:, :k]

    def _compare(self, q: Float[Tensor, "n d_model"], k: int) -> Int[Tensor, "n _"]:
        """Candidates among all entries."""
        best, at = torch.empty(len(q), 0), torch.empty(len(q), 0, dtype=torch.long)
        for start in range(0, len(self), ROWS):
            keys = wide(self.keys[start : start + ROWS])
            near = (keys * keys).sum(1) - 2 * q @ keys.T
            best = torch.cat([best.to(near), near], 1)
            at = torch.cat([at, torch.arange(start, start + len(keys)).expand(len(q), -1)], 1)
            best, order = best.topk(min(k + SPARE, best.shape[1]), largest=False)
            at = at.gather(1, order)
        return at

    def _look_up(self, q: Float[Tensor, "n d_model"], k: int, index: KeyIndex) -> Int[Tensor, "n _"]:
        """Candidates that the index finds; where its cells hold too few, those among all entries."""
        at = index.find(q, min(k + SPARE, len(self)))
        short = (at < 0).any(1)
        if bool(short.any()):
            at[short] = self._compare(q[short], k)
        return at


def measure_recall(memory: TokenMemory, q: Float[Tensor, "n d_model"], *, k: Count = 64) -> Estimate:
    """The share of the k entries found by the memory's index that are as near as the k nearest, a mean over states.

    Without an index it is 1. Entries at one distance count as one another, since a text's first tokens can be many's.

    Args:
        memory: with an index.
        q: states to look up, such as those of texts that the memory does not hold.
        k: how many entries vote.

    Cost: an exact search and one by the index.

    Examples:
        ```python
        measure_recall(memory.with_index(), states)
        ```
    """
    (found, _), (exact, _) = memory.find(q, k), replace(memory, index=None).find(q, k)
    return mean_share((found <= exact[:, -1:]).double().mean(1))


def read_token_memory(store: ActivationStore, site: Site, *, limit: Count | None = None) -> TokenMemory:
    """The memory of all documents of a store: each row that is not the last of its document, and the next one's token.

    Args:
        store: harvested at `site`, at every token.
        site: whose states are keys; the input of the last feed-forward layer is the paper's.
        limit: how many entries at most, from the first on.

    Raises:
        UnknownName: the store does not hold the site.
        InvalidArgument: no document has two tokens; a store of some tokens only, whose next row is not the next token.

    Cost: the rows of one site in memory.

    Examples:
        ```python
        read_token_memory(harvest(model, texts, mlp_in[7], "store", packing=separate()), mlp_in[7])
        ```
    """
    (kept,) = store.only(site)
    if (at := store.manifest.settings.at) != everywhere.name:
        raise InvalidArgument(
            f"the store at {store.url} holds {at} of each text, and a memory needs every token, as each is followed by "
            "the next one: harvest with at=everywhere"
        )
    parts = [(rows[kept], rows.ids) for rows in store.chunks(kept)]
    keys, ids = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
    begins = store.documents
    document = torch.bucketize(torch.arange(len(ids)), begins, right=True) - 1
    return _pair_with_next(keys, ids, document, kept, store.fingerprint, limit)


def make_token_memory(
    model: Model,
    texts: Sequence[str],
    site: Site,
    *,
    batch_size: Count = 32,
    limit: Count | None = None,
    progress: bool = True,
) -> TokenMemory:
    """The same of texts, in memory.

    Raises:
        InvalidArgument: no texts, or none of two tokens.

    Cost: one forward pass per text, up to the site.

    Examples:
        ```python
        make_token_memory(model, ["The harbour of Vell is red."], mlp_in[7])
        ```
    """
    keys, ids, document, done = [], [], [], 0
    for acts in stream(model, list_texts(texts), [site], batch_size=batch_size, progress=progress):
        mask = everywhere.mask(acts.tokens)
        keys.append(acts.flat(site).cpu())
        ids.append(acts.tokens.ids[mask].cpu())
        number = acts.tokens.text_number.cpu()
        document.append(number[mask.nonzero()[:, 0].cpu()] + done)
        done += int(number[-1]) + 1
    return _pair_with_next(torch.cat(keys), torch.cat(ids), torch.cat(document), site, model.fingerprint, limit)


def _pair_with_next(
    keys: Tensor, ids: Tensor, document: Tensor, site: Site, fingerprint: str, limit: int | None
) -> TokenMemory:
    """The rows that another row of the same document follows, with its token."""
    same = (document[1:] == document[:-1]).nonzero()[:, 0][:limit]
    if not len(same):
        raise InvalidArgument("no document has two tokens, so none is followed by another: give longer texts")
    return TokenMemory(keys[same], ids[same + 1].long(), document[same], site, fingerprint)
