"""Contrast pairs of pictures: the mean difference of their places, what chance gives, and what is refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from hooks import Images, Network, capture, load
from hooks.errors import InvalidArgument
from hooks.position import everywhere, where
from hooks.site import conv_act, embedding, resid_post
from interp.directions import Pairs, caa, repe
from interp.postcard import Scene, draw, load_net, new_net

DAY = [Scene(name, seed=7, time="day") for name in ("Big Ben", "Eiffel Tower", "Golden Gate Bridge")]


@pytest.fixture(scope="module")
def net() -> Network:
    loaded: Any = load_net(new_net("convnet", small=True))
    return loaded


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    return Pairs(draw([scene.but(time="night") for scene in DAY]).images(), draw(DAY).images())


def test_caa_of_pictures_is_the_mean_difference_of_night_and_day(net: Network, pairs: Pairs) -> None:
    found = caa(net, pairs, embedding)
    night, day = (capture(net, side, embedding)[embedding][:, 0] for side in (pairs.positive, pairs.negative))
    assert torch.allclose(found.vector, (night - day).mean(0), atol=1e-5)
    assert found.site == embedding and "everywhere" in found.source


def test_at_a_map_the_places_that_are_selected_are_averaged(net: Network, pairs: Pairs) -> None:
    site, at = conv_act[1], where("landmark")
    sides = []
    for side in (pairs.positive, pairs.negative):
        acts = capture(net, side, site)
        mask = at.mask(acts.tokens.places(acts[site].shape[1], site)).float()
        sides.append(torch.einsum("bp,bpd->bd", mask, acts[site]) / mask.sum(1, keepdim=True))
    assert torch.allclose(caa(net, pairs, site, at).vector, (sides[0] - sides[1]).mean(0), atol=1e-5)


def test_repe_of_one_planted_change_is_its_direction(net: Network, pairs: Pairs) -> None:
    one = Pairs(*(Images(side.pixels[:1].expand(3, -1, -1, -1)) for side in (pairs.positive, pairs.negative)))  # type: ignore[union-attr]
    found, mean = repe(net, one, embedding, everywhere), caa(net, one, embedding)
    assert torch.allclose(found.vector, mean.vector, atol=1e-4)


def test_shuffled_pairs_are_the_same_pictures_of_which_some_changed_sides(pairs: Pairs) -> None:
    assert isinstance(pairs.positive, Images) and isinstance(pairs.negative, Images)
    found = [pairs.shuffle(seed) for seed in range(8)]
    for one in found:
        assert isinstance(one.positive, Images) and isinstance(one.negative, Images)
        assert torch.equal(one.positive.pixels + one.negative.pixels, pairs.positive.pixels + pairs.negative.pixels)
        for i in range(pairs.n):
            assert any(torch.equal(one.positive.pixels[i], side.pixels[i]) for side in (pairs.positive, pairs.negative))
    assert len({tuple(one.positive.pixels.flatten(1).sum(1).tolist()) for one in found}) > 1  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda p, n: Pairs(p.positive, ["a"]), "give `Images` for both"),
        (lambda p, n: Pairs(p.positive, p.negative[:2]), "give a partner of the same size for each"),
        (lambda p, n: Pairs(p.positive, p.positive), "pair 0 is the same picture twice"),
        (lambda p, n: p.answer, "pictures have no answer's token"),
        (lambda p, n: caa(n, Pairs(["a"], ["b"]), embedding), "reads no texts, and the pairs are of texts"),
    ],
)
def test_what_is_no_pair_is_refused(
    call: Callable[[Pairs, Network], object], text: str, net: Network, pairs: Pairs
) -> None:
    with pytest.raises(InvalidArgument, match=text):
        call(pairs, net)


def test_a_language_model_refuses_pairs_of_pictures(pairs: Pairs) -> None:
    with pytest.raises(InvalidArgument, match="reads texts, and the pairs are of pictures"):
        caa(load("landmark"), pairs, resid_post[1])
