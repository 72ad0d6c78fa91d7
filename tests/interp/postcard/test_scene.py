"""A scene is data with a border: what cannot be drawn is refused with the nearest name."""

import pytest

from hooks.errors import InvalidArgument, UnknownName
from interp.postcard import LANDMARKS, Scene
from interp.postcard.font import ink, write_sign


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"time": "nigth"}, "'night'"),
        ({"landmark": "Golden Gate"}, "'Golden Gate Bridge'"),
        ({"things": ("boot",)}, "'boat'"),
        ({"whether": "fog"}, "'weather'"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(changes: dict, said: str) -> None:
    with pytest.raises(UnknownName, match=said):
        Scene("Big Ben").but(**changes)


@pytest.mark.parametrize("changes", [{"tilt": 7.0}, {"tilt": float("nan")}, {"sun": 1.1}, {"seed": -1}, {"sign": "…"}])
def test_a_number_outside_its_range_is_refused(changes: dict) -> None:
    with pytest.raises(InvalidArgument):
        Scene("Big Ben").but(**changes)


def test_each_landmark_can_be_written_on_a_sign_that_fits_and_differs_from_the_others() -> None:
    assert all(ink(name).shape[1] <= 62 and ink(name).any() for name in LANDMARKS)
    assert len({write_sign(name) for name in LANDMARKS}) == len(LANDMARKS)
