"""Whether a text names a concept, decided by the forms of its name."""

from dataclasses import dataclass
from typing import Final

import regex

from hooks.errors import InvalidArgument
from interp.common.texts import find_phrases, fold_text

OF_A_NAME: Final = regex.compile(r"\s+of\s+(?:the\s+)?\p{Lu}\p{Ll}")


@dataclass(frozen=True)
class Names:
    """A matcher that says where a text names a concept by any of the given forms: whole words, in any case.

    The longest form counts. What looks like a form but is part of a longer name is no mention: where a longer name of
    something else, one of `others`, has words of it, and where a short form, one that begins a longer form, goes on
    with "of" and a capital letter.

    Args:
        forms: the concept's names.
        others: names of other things.

    Raises:
        InvalidArgument: no form, a blank one, or a string given for a tuple.

    Examples:
        >>> bridge = Names(("Golden Gate Bridge", "Golden Gate"), others=("Golden Gate Park",))
        >>> bridge("Fog hid the golden gate."), bridge("A golden gateway.")
        (True, False)
        >>> bridge("A walk in Golden Gate Park."), bridge("The Golden Gate of Peace.")
        (False, False)
    """

    forms: tuple[str, ...]
    others: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.forms, str) or not self.forms or not all(form.strip() for form in self.forms):
            raise InvalidArgument(
                f"the forms of a name are {self.forms!r}: give at least one, none of them blank, in a tuple"
            )
        if isinstance(self.others, str) or not all(name.strip() for name in self.others):
            raise InvalidArgument(f"the names of other things are {self.others!r}: give them in a tuple, none blank")

    def __call__(self, text: str) -> bool:
        """Whether the text names the concept."""
        return bool(self.spans(text))

    def spans(self, text: str) -> tuple[tuple[int, int], ...]:
        """The character spans of the mentions in the text, left to right, the longest form first."""
        found = find_phrases(text, self.forms, ignore_case=True)
        theirs = find_phrases(text, self.others, ignore_case=True) if found and self.others else []
        return tuple(
            (start, end)
            for start, end, form in found
            if not any(a < end and start < b and b - a > end - start for a, b, _ in theirs)
            and not (self._is_short(self.forms[form]) and OF_A_NAME.match(text, end))
        )

    def _is_short(self, form: str) -> bool:
        """Whether a form is the beginning of a longer one, as "Golden Gate" is."""
        start = fold_text(form).casefold() + " "
        return any(fold_text(other).casefold().startswith(start) for other in self.forms)
