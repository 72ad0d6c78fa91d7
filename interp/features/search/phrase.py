"""A concept given by a word or phrase: its contexts found in texts, against texts without it."""

from collections.abc import Mapping, Sequence

from hooks.errors import InvalidArgument
from interp.common.texts import find_phrases, list_texts, unique_texts
from interp.features.search.concept import Concept, Mention


def concept_from_phrase(name: str, forms: Mapping[str, Sequence[str]] | Sequence[str], texts: Sequence[str]) -> Concept:
    """The concept of a phrase in its forms: texts that hold any of them, as whole words in any case, and the others.

    `forms` are spellings, or spellings by kind, such as {"name": ["Golden Gate Bridge"], "alias": ["the Gate"]}; the
    kinds become the forms of the mentions. Of overlapping spellings the longest counts.

    Raises:
        InvalidArgument: no form, a blank one, a string for a list, or texts that all hold one, or none.

    Examples:
        >>> concept_from_phrase("fog", ["fog"], ["Fog rolled in.", "The sun shone."]).mentions
        ((Mention(start=0, end=3, form=''),), ())
    """
    kinds = forms if isinstance(forms, Mapping) else {"": forms}
    if any(isinstance(some, str) for some in kinds.values()):
        raise InvalidArgument(f"the forms of '{name}' are {forms!r}: give a list of spellings, not a string")
    written = [(" ".join(form.split()), kind) for kind, some in kinds.items() for form in some]
    if not written or not all(form for form, _ in written):
        raise InvalidArgument(f"the forms of '{name}' are {forms!r}: give at least one, none of them blank")
    phrases, unique = [form for form, _ in written], unique_texts(list_texts(texts))
    mentions = [
        [Mention(start, end, written[i][1]) for start, end, i in find_phrases(text, phrases, ignore_case=True)]
        for text in unique
    ]
    held = sum(map(bool, mentions))
    if held in (0, len(unique)):
        raise InvalidArgument(
            f"{held} of {len(unique)} texts hold '{name}' in any of its forms: give texts that do and texts that do not"
        )
    return Concept(name, unique, [bool(m) for m in mentions], mentions)
