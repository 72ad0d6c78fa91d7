"""What errors say: all of their parts, and the names that look most like the one that was asked for."""

from hooks.errors import InterpError, nearest


def test_an_error_says_all_it_was_given() -> None:
    assert str(InterpError("fog", 3)) == "fog 3" and str(InterpError()) == ""


def test_the_three_nearest_names_are_said_and_the_first_three_where_none_is_near() -> None:
    assert nearest("fog", ["fog1"]) == "'fog1'"
    assert nearest("fog", ["fog1", "fog2"]) in ("'fog1' or 'fog2'", "'fog2' or 'fog1'")
    assert nearest("fog", ["fog1", "fog2", "fog3", "fog4", "fog5"]).count("'fog") == 3
    assert nearest("fog", ["bay", "sea", "tide", "wave"]) == "'bay', 'sea' or 'tide'"
    assert nearest("fog", ["bay", "bay", "sea"]) == "'bay' or 'sea'"
    assert nearest("abcd", ["abxy", "zzzz", "yyyy"]) == "'abxy'", "half the letters are near enough"
