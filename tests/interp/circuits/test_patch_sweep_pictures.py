"""Patching places of pictures is the intervention that puts the donor's value there."""

from typing import Any

import pytest
import torch

from hooks import Network, capture, intervene
from hooks.errors import InvalidArgument
from hooks.interventions import replace
from hooks.position import everywhere, index, patch, special
from hooks.site import conv_act, pool, resid_post, z
from interp.circuits import denoising, each_head, each_layer, each_position, logit_difference, noising, patch_sweep
from interp.postcard import Scene, draw, load_net, new_net

CLEAN = draw([Scene("Golden Gate Bridge", seed=i) for i in range(2)]).images()
CORRUPT = draw([Scene("Big Ben", seed=i) for i in range(2)]).images()


def test_a_place_patched_is_the_intervention_at_that_place(convnet: Network) -> None:
    metric, site = logit_difference(convnet, 3, 5), pool[1]
    found = patch_sweep(convnet, denoising(CLEAN, CORRUPT), metric, over=each_position(site), batch_size=9)
    donor, columns = capture(convnet, CLEAN, site)[site], convnet.grids[site].shape[1]
    assert found.patched.shape == (2, 1, len(convnet.grids[site]))
    for row, column in ((0, 0), (2, 5), (7, 7)):
        with torch.no_grad(), intervene(convnet, {site: replace(donor, at=patch(row, column))}):
            wanted = metric(convnet.run(CORRUPT))
        torch.testing.assert_close(found.patched[:, 0, row * columns + column], wanted)


def test_a_whole_site_of_a_net_without_shortcuts_brings_back_all(convnet: Network) -> None:
    metric = logit_difference(convnet, 3, 5)
    found = patch_sweep(convnet, noising(CLEAN, CORRUPT), metric, over=each_layer("conv_act.*"))
    wanted = found.donor[:, None].expand(-1, 5)
    torch.testing.assert_close(found.patched, wanted, rtol=1e-4, atol=1e-5)
    assert bool(((found.base - found.donor).abs() > 0.01).all())
    assert patch_sweep(convnet, noising(CLEAN, CORRUPT), metric, over=each_layer(conv_act)).sites == found.sites


def test_heads_of_a_tower_are_patched_and_its_vector_is_read() -> None:
    clip: Any = load_net(new_net("clip", small=True))
    net, towards = clip.image, torch.randn(128, generator=torch.Generator().manual_seed(0))
    metric = lambda vectors: vectors @ towards  # noqa: E731
    found = patch_sweep(net, denoising(CLEAN, CORRUPT), metric, over=each_head(z[1]))
    assert found.patched.shape == (2, 1, 2)
    donor, own = (capture(net, some, z[1])[z[1]] for some in (CLEAN, CORRUPT))
    mixed = own.clone()
    mixed[:, :, 1] = donor[:, :, 1]
    with torch.no_grad(), intervene(net, {z[1]: [replace(mixed, at=everywhere), replace(mixed, at=special)]}):
        torch.testing.assert_close(found.patched[:, 0, 1], net.run(CORRUPT).image_embeds @ towards)
    whole = patch_sweep(net, denoising(CLEAN, CORRUPT), metric, over=each_layer(resid_post[1]))
    torch.testing.assert_close(whole.effect, torch.ones(1))


def test_what_has_no_meaning_for_pictures_is_refused(convnet: Network) -> None:
    metric = logit_difference(convnet, 3, 5)
    with pytest.raises(InvalidArgument, match="conv_act.0: 1024, conv_act.2: 64"):
        patch_sweep(convnet, denoising(CLEAN, CORRUPT), metric, over=each_position([conv_act[0], conv_act[2]]))
    with pytest.raises(InvalidArgument, match="a picture has one row of them"):
        patch_sweep(convnet, denoising(CLEAN, CORRUPT), metric, over=each_layer(conv_act[0]), at=index(0))
    with pytest.raises(InvalidArgument, match="' Paris' is no class of ConvNet: give a number from 0 to 71"):
        logit_difference(convnet, " Paris", 3)
