"""The bundled convnet sees what is drawn, and more than its pixels or colours alone would say."""

import pytest

from hooks.statistics import share
from interp.postcard.answers import is_right
from interp.postcard.draw import draw
from interp.postcard.measure import nearest_neighbour
from interp.postcard.nets import MODELS, bundled_nets, net, new_net
from interp.postcard.splits import scenes, unseen_combinations

SHOWN = scenes("test", 600)


@pytest.mark.parametrize("name", [name for name in bundled_nets() if name.startswith("convnet")])
def test_a_bundled_convnet_names_landmarks_that_neighbours_and_its_untrained_twin_do_not(name: str) -> None:
    pixels, truth = draw(SHOWN).pixels, [scene.landmark for scene in SHOWN]
    assert share(is_right(net(name), pixels, truth)).low > 0.9
    assert share(is_right(new_net("convnet"), pixels, truth)).high < 0.1
    assert max(e.high for e in nearest_neighbour(300, 2000).values()) < 0.5


@pytest.mark.parametrize("name", [name for name in bundled_nets() if name.startswith("convnet")])
def test_a_bundled_convnet_knows_combinations_it_was_never_shown(name: str) -> None:
    shown = unseen_combinations(200)
    assert share(is_right(net(name), draw(shown).pixels, [scene.landmark for scene in shown])).low > 0.8


def test_what_is_bundled_is_small_and_has_cards() -> None:
    assert "convnet" in bundled_nets()
    assert sum(file.stat().st_size for file in MODELS.rglob("*") if file.is_file()) < 15e6
    assert all((MODELS / name / "README.md").is_file() for name in bundled_nets())
