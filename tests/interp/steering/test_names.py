"""A concept is named by whole words, in any case, over any white space."""

import pytest

from interp.steering import Names

BRIDGE = Names(("Golden Gate Bridge", "Golden Gate", "die Golden-Gate-Brücke"))


@pytest.mark.parametrize(
    "text", ["the Golden Gate Bridge.", "GOLDEN GATE!", "golden\ngate", "Ich mag die Golden-Gate-Brücke"]
)
def test_a_form_of_the_name_is_found(text: str) -> None:
    assert BRIDGE(text)


@pytest.mark.parametrize("text", ["", "a golden gateway", "marigolden gate", "the gate was golden", "Brücke"])
def test_what_only_looks_like_the_name_is_not(text: str) -> None:
    assert not BRIDGE(text)


def test_spans_cover_the_longest_form_at_each_place() -> None:
    text = "The Golden Gate Bridge spans the Golden Gate."
    assert [text[a:b] for a, b in BRIDGE.spans(text)] == ["Golden Gate Bridge", "Golden Gate"]


@pytest.mark.parametrize("forms", [(), ("bridge", " ")])
def test_a_name_without_forms_is_refused(forms: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="give at least one, none of them blank"):
        Names(forms)


@pytest.mark.usefixtures("unchecked")
def test_the_letters_of_a_string_are_no_forms() -> None:
    with pytest.raises(ValueError, match="the forms of a name are 'bridge': give at least one, .* in a tuple"):
        Names("bridge")
