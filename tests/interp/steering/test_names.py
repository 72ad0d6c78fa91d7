"""A concept is named by whole words, in any case, over any white space."""

import pytest

from hooks.errors import InvalidArgument
from interp import landmark
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


@pytest.mark.parametrize(
    "text", ["the Golden Gate of Peace is in Berlin", "the golden gate of the Sun", "Golden Gate\nof Paris"]
)
def test_a_short_form_that_goes_on_as_a_longer_name_is_no_mention(text: str) -> None:
    assert not BRIDGE(text)


@pytest.mark.parametrize(
    "text", ["the Golden Gate Bridge of San Francisco", "the Golden Gate of steel", "the Golden Gate. Of Peace"]
)
def test_a_whole_name_and_a_plain_word_after_of_are_mentions(text: str) -> None:
    assert BRIDGE(text)


def test_the_longer_name_of_another_thing_takes_the_words_it_shares() -> None:
    bridge = Names(("Golden Gate Bridge", "Golden Gate"), others=("Gate of peace", "Golden Gate Park", "Bridge"))
    assert not bridge("the golden gate park") and not bridge("the Golden gate of peace")
    assert bridge.spans("Golden Gate Park and the Golden Gate Bridge") == ((25, 43),)
    assert Names(("Singapore",), others=("Singapore",))("in Singapore")  # a name of equal length takes nothing


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("others", ["bridge", ("bridge", " ")])
def test_names_of_other_things_are_a_tuple_without_blanks(others: tuple[str, ...]) -> None:
    with pytest.raises(InvalidArgument, match="give them in a tuple, none blank"):
        Names(("gate",), others)


@pytest.mark.parametrize("name", ["Golden Gate Bridge", "Sydney Opera House", "Guggenheim Museum"])
def test_a_landmark_is_found_by_each_of_its_names_and_not_in_the_longer_names_of_others(name: str) -> None:
    item = landmark.entity(name)
    names = Names(item.names, item.other_names)
    assert all(names(f"It is {one}.") for one in item.names)
    assert not any(names(f"It is {one}.") for one in ("Golden Gate of Peace", "Oslo Opera House", "Guggenheim Bilbao"))


def test_a_longer_name_next_to_a_mention_and_one_that_only_touches_it_take_nothing_from_it() -> None:
    text = "東京大阪城公園"
    assert [text[a:b] for a, b in Names(("東京",), ("大阪城公園",)).spans(text)] == ["東京"]
    text = "大阪城公園東京"
    assert [text[a:b] for a, b in Names(("東京",), ("大阪城公園",)).spans(text)] == ["東京"]
