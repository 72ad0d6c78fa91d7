"""Patchings: which run is changed, and which run its values come from."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from hooks import Images, Model, Position, Tokens
from hooks.errors import InvalidArgument
from hooks.model import Text
from hooks.network import AnyModel
from hooks.pieces import pieces
from hooks.summary import summarise


@dataclass(frozen=True, eq=False)
class Patching:
    """The run that is changed (`base`) and the run whose values are put into it (`donor`)."""

    kind: str
    base: Text | Images
    donor: Text | Images

    __repr__ = summarise

    def tokens(self, model: AnyModel) -> tuple[Tokens, Tokens]:
        """Both runs' tokens, each in the place of its counterpart.

        Raises:
            InvalidArgument: they differ in number, so that a patch would put one word in another's place.
        """
        read: Callable[[Text | Images], Tokens] = model.tokens  # type: ignore[assignment]
        base, donor = read(self.base), read(self.donor)
        if len(base) != len(donor):
            raise InvalidArgument(
                f"{len(base)} texts are to be patched with {len(donor)}: give as many clean as corrupt ones"
            )
        lengths = [(int(one.sum()), int(other.sum())) for one, other in zip(base.mask, donor.mask, strict=True)]
        for row, (n, m) in enumerate(lengths):
            if n != m:
                clean, corrupt = (donor, base) if self.kind == "denoising" else (base, donor)
                raise InvalidArgument(
                    f"text {row} has {int(clean.mask[row].sum())} tokens in the clean run and "
                    f"{int(corrupt.mask[row].sum())} in the corrupt one, and a patch needs each in the place of its "
                    f"counterpart: reword one of them ({_spell(model, clean, row)}; {_spell(model, corrupt, row)})"
                )
        return base, donor


def denoising(clean: Text | Images, corrupt: Text | Images) -> Patching:
    """Put clean values into the corrupt run: what suffices to bring the behaviour back (sufficiency).

    Examples:
        >>> denoising("The bridge", "The tunnel").kind
        'denoising'
    """
    return Patching("denoising", base=corrupt, donor=clean)


def noising(clean: Text | Images, corrupt: Text | Images) -> Patching:
    """Put corrupt values into the clean run: what the behaviour cannot do without (necessity).

    Examples:
        >>> noising("The bridge", "The tunnel").kind
        'noising'
    """
    return Patching("noising", base=clean, donor=corrupt)


def select_one_token(tokens: Tokens, at: Position) -> Bool[Tensor, "batch pos"]:
    """Where the metric reads: one token per text.

    Raises:
        InvalidArgument: the position selects none or several in a text.
    """
    ends = at.mask(tokens)
    for row, count in enumerate(ends.sum(1).tolist()):
        if count != 1:
            raise InvalidArgument(
                f"{at} selects {count} tokens of {_name_text(tokens, row)}, and a metric reads one: use last"
            )
    return ends


def check_aligned(tokens: Tokens) -> None:
    """Refuse an axis of positions that would mean different things in different texts.

    Raises:
        InvalidArgument: texts of different lengths.
    """
    lengths = tokens.mask.sum(1)
    if not torch.equal(lengths, lengths[:1].expand_as(lengths)):
        raise InvalidArgument(
            f"the texts have {sorted(set(lengths.tolist()))} tokens, so one axis of positions does not fit them all: "
            "give texts of equal length, or sweep each_layer or each_head"
        )


def _spell(model: AnyModel, tokens: Tokens, row: int) -> str:
    """A text by its first tokens, as far as two texts of a sentence go."""
    if not isinstance(model, Model):
        return _name_text(tokens, row)
    ids = tokens.ids[row][tokens.mask[row]].tolist()
    return "|".join(pieces(model.tokenizer, ids[:40])) + (" …" if len(ids) > 40 else "")


def _name_text(tokens: Tokens, row: int) -> str:
    return f"text {row}" if tokens.texts is None else repr(tokens.texts[row][:60])
