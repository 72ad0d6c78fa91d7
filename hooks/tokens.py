"""Tokens: a batch of token ids that knows which are real, which are special, and where each is in its text."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import final

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from hooks.errors import InvalidArgument, OutOfRange
from hooks.grid import Grid
from hooks.images import Images
from hooks.site import OF_THE_ENCODER, Site
from hooks.summary import summarise


@final
@dataclass(frozen=True, eq=False)
class Tokens:
    """A padded batch of token ids.

    Attributes:
        ids: token ids, padding included.
        mask: True on real tokens, beginning-of-text included; False on padding.
        special: True on beginning-of-text, end-of-text, separators and padding.
        texts: the texts they came from, if they came from texts.
        offsets: start and end of each token in its text, in characters; (0, 0) where it has none.
        prompt_pos: columns from this one on were generated; None when all were given.
        inputs: what a module that reads no text is given, by place or by name; its places are the tokens then, and
            `ids` are their numbers.
        cut_from: of which text each row is, where texts longer than the context were cut into rows; else None.
        more: what else the model is given, by the names of its arguments, as what a tokenizer or processor returned
            has it: `token_type_ids`, `pixel_values`. Of a tensor as long as the batch each text has its row.
        decoder: what a decoder after an encoder reads; None where it reads the text itself, moved right by one.
        images: the pictures, of a model that reads them; its places are the tokens.
        grids: where the places of each site are in the picture; under None where these are, if they are one site's.

    Examples:
        ```python
        tokens = model.tokens(["The Golden Gate Bridge", "Fog"])
        tokens.ids.shape, tokens[1].texts
        ```
    """

    ids: Int[Tensor, "batch pos"]
    mask: Bool[Tensor, "batch pos"]
    special: Bool[Tensor, "batch pos"]
    texts: tuple[str, ...] | None = None
    offsets: Int[Tensor, "batch pos 2"] | None = None
    prompt_pos: int | None = None
    inputs: Mapping[int | str, Shaped[Tensor, "batch ..."]] | None = None
    cut_from: tuple[int, ...] | None = None
    more: Mapping[str, Shaped[Tensor, "..."]] = field(default_factory=dict)
    decoder: "Tokens | None" = None
    images: Images | None = None
    grids: Mapping[Site | None, Grid] | None = None

    __repr__ = summarise

    def __len__(self) -> int:
        return self.ids.shape[0]

    def __getitem__(self, rows: int | slice) -> "Tokens":
        """Take some texts of the batch; columns that are padding in all of them are dropped.

        Raises:
            OutOfRange: a text that is not there.

        Examples:
            ```python
            first_two = tokens[:2]
            ```
        """
        if isinstance(rows, int):
            if not -len(self) <= rows < len(self):
                raise OutOfRange(f"text {rows} was asked for, and there are {len(self)}")
            rows = slice(rows, rows + 1 or None)
        used = self.mask[rows].any(dim=0).nonzero().flatten()
        start, stop = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 0)
        return replace(
            self,
            ids=self.ids[rows, start:stop],
            mask=self.mask[rows, start:stop],
            special=self.special[rows, start:stop],
            texts=None if self.texts is None else self.texts[rows],
            offsets=None if self.offsets is None else self.offsets[rows, start:stop],
            prompt_pos=None if self.prompt_pos is None else self.prompt_pos - start,
            inputs=None if self.inputs is None else {slot: one[rows] for slot, one in self.inputs.items()},
            cut_from=None if self.cut_from is None else self.cut_from[rows],
            more={name: self._rows_of(name, one, rows, slice(start, stop)) for name, one in self.more.items()},
            decoder=None if self.decoder is None else self.decoder[rows],
            images=None if self.images is None else self.images[rows],
        )

    def _rows_of(self, name: str, one: Tensor, rows: slice, columns: slice) -> Tensor:
        """The part of some texts in what else is given."""
        if one.shape == self.ids.shape:
            return one[rows, columns]
        if len(one) == len(self):
            return one[rows]
        if [*range(len(self))[rows]] == [*range(len(self))]:
            return one
        raise InvalidArgument(
            f"{name} has {len(one)} rows for {len(self)} texts, so which of them belong to some of the texts is not "
            "known: read all texts in one batch (batch_size), or one by one"
        )

    @property
    def text_number(self) -> Int[Tensor, "batch"]:
        """Of which text each row is, counted from 0: a row is a text unless longer ones were cut into rows."""
        if self.cut_from is None:
            return torch.arange(len(self), device=self.ids.device)
        return torch.tensor(self.cut_from, device=self.ids.device)

    @property
    def grid(self) -> Grid | None:
        """Where these places are in the picture, if they are those of one site."""
        return (self.grids or {}).get(None)

    @property
    def are_places(self) -> bool:
        """Whether these are places of pictures, or of whatever else is no text; each site has as many as it has."""
        return self.inputs is not None or self.images is not None

    @property
    def content(self) -> Bool[Tensor, "batch pos"]:
        """True on the tokens of text: neither padding nor special."""
        return self.mask & ~self.special

    @property
    def predicted(self) -> Bool[Tensor, "batch pos"]:
        """True on the tokens of text with a token before them: those with a next-token loss, wherever padding is."""
        predicted = self.content.clone()
        predicted[:, 0] = False
        predicted[:, 1:] &= self.mask[:, :-1]
        return predicted

    @property
    def given(self) -> Bool[Tensor, "batch pos"]:
        """True on the tokens of the prompt that are text."""
        given = self.content.clone()
        if self.prompt_pos is not None:
            given[:, self.prompt_pos :] = False
        return given

    def to(self, device: torch.device) -> "Tokens":
        """Return the same tokens on a device.

        Examples:
            ```python
            tokens.to(torch.device("cpu"))
            ```
        """
        held = (self.ids, self.mask, self.special, self.offsets, *(self.inputs or {}).values(), *self.more.values())
        whole = self.decoder is None and self.images is None
        if whole and all(one is None or one.device == device for one in held):
            return self
        return replace(
            self,
            ids=self.ids.to(device),
            mask=self.mask.to(device),
            special=self.special.to(device),
            offsets=None if self.offsets is None else self.offsets.to(device),
            inputs=None if self.inputs is None else {slot: one.to(device) for slot, one in self.inputs.items()},
            images=None if self.images is None else self.images.to(device),
            more={name: one.to(device) for name, one in self.more.items()},
            decoder=None if self.decoder is None else self.decoder.to(device),
        )

    def read_at(self, site: Site | None) -> "Tokens":
        """Return the tokens that a site's rows are of: the decoder's, where it reads others than the encoder does.

        Examples:
            ```python
            acts.tokens.read_at(decoder.resid_post[1])
            ```
        """
        if self.decoder is None or site is None or site.stack == "encoder" or site.name in OF_THE_ENCODER:
            return self
        return self.decoder

    def places(self, n: int, site: Site | None = None) -> "Tokens":
        """Return the tokens of a site with `n` columns: of a module that reads no text, sites differ in them.

        Of pictures they know where they are, and those before the picture's own, such as a class token, are special.

        Examples:
            ```python
            acts.tokens.places(acts[site].shape[1], site)
            ```
        """
        if (own := self.read_at(site)) is not self:
            return own
        grid = None if site is None else (self.grids or {}).get(site)
        grid = grid if grid is not None and len(grid) == n else None
        if not self.are_places or (self.ids.shape[1] == n and grid == self.grid):
            return self
        ids = torch.arange(n, device=self.ids.device).expand(len(self), n)
        mask = torch.ones_like(ids, dtype=torch.bool)
        others = {at: one for at, one in (self.grids or {}).items() if at is not None}
        grids = others if grid is None else {**others, None: grid}
        special = ids < (0 if grid is None else grid.front)
        return replace(self, ids=ids, mask=mask, special=special, grids=grids or None)

    def cut(self, columns: int) -> "Tokens":
        """Return the first columns only.

        Examples:
            ```python
            tokens.cut(3).ids.shape
            ```
        """
        return replace(
            self,
            ids=self.ids[:, :columns],
            mask=self.mask[:, :columns],
            special=self.special[:, :columns],
            offsets=None if self.offsets is None else self.offsets[:, :columns],
            more={n: one[:, :columns] if one.shape == self.ids.shape else one for n, one in self.more.items()},
        )

    def extend(
        self, ids: Int[Tensor, "batch n"], mask: Bool[Tensor, "batch n"], special: Bool[Tensor, "batch n"]
    ) -> "Tokens":
        """Return these tokens followed by generated ones.

        Examples:
            ```python
            tokens.extend(new_ids, torch.ones_like(new_ids).bool(), torch.zeros_like(new_ids).bool())
            ```
        """
        offsets = self.offsets
        if offsets is not None:
            offsets = torch.cat([offsets, offsets.new_zeros(*ids.shape, 2)], dim=1)
        return replace(
            self,
            ids=torch.cat([self.ids, ids], dim=1),
            mask=torch.cat([self.mask, mask], dim=1),
            special=torch.cat([self.special, special], dim=1),
            offsets=offsets,
            prompt_pos=self.ids.shape[1] if self.prompt_pos is None else self.prompt_pos,
        )
