"""Whether a text names a concept, decided by the forms of its name."""

from dataclasses import dataclass

from hooks.errors import InvalidArgument
from interp.common.texts import find_phrases


@dataclass(frozen=True)
class Names:
    """A matcher that says where a text names a concept by any of the given forms: whole words, in any case.

    Raises:
        InvalidArgument: there is no form, one is blank, or a string is given for the tuple.

    >>> bridge = Names(("Golden Gate Bridge", "Golden Gate"))
    >>> bridge("Fog hid the golden gate."), bridge("A golden gateway.")
    (True, False)
    """

    forms: tuple[str, ...]

    def __post_init__(self) -> None:
        if isinstance(self.forms, str) or not self.forms or not all(form.strip() for form in self.forms):
            raise InvalidArgument(
                f"the forms of a name are {self.forms!r}: give at least one, none of them blank, in a tuple"
            )

    def __call__(self, text: str) -> bool:
        """Whether the text contains any form."""
        return bool(self.spans(text))

    def spans(self, text: str) -> tuple[tuple[int, int], ...]:
        """The character spans of the forms in the text, left to right, the longest form first."""
        return tuple((start, end) for start, end, _ in find_phrases(text, self.forms, ignore_case=True))
