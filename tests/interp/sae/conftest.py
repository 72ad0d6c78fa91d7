"""Some texts of different lengths."""

import pytest


@pytest.fixture
def texts() -> list[str]:
    return ["Fog over the strait.", "A red bridge.", "Two towers hold the cables.", "Sea", "The city sleeps at night."]
