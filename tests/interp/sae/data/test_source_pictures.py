"""Autoencoders read pictures as they read texts: a place is a token."""

from typing import Any

import pytest
import torch

from hooks import Images, Network, capture, intervene
from hooks.errors import InvalidArgument
from hooks.position import where
from hooks.site import conv_act, conv_pre, embedding, resid_post
from interp.common.digests import digest_of_data
from interp.directions import mean_centring
from interp.postcard import draw, load_net, new_net, scenes
from interp.sae import (
    TopK,
    activations_at,
    activations_of,
    change_latents,
    check_fits,
    clamp_latents,
    drop_registers,
    splice,
    tensor_source,
    train,
)
from interp.steering import steer

PICTURES = draw(scenes("test", 8)).images()


@pytest.mark.parametrize("where_from", ["convnet", "tower"])
def test_an_autoencoder_of_pictures_is_that_of_the_same_rows_given_as_a_tensor(
    where_from: str, request: pytest.FixtureRequest
) -> None:
    net = request.getfixturevalue(where_from)
    site = conv_act[2] if where_from == "convnet" else resid_post[1]
    rows, made = capture(net, PICTURES, site).flat(site), []
    for source in (activations_of(net, PICTURES, site, batch_size=8), tensor_source(rows)):
        torch.manual_seed(0)
        sae = TopK(rows.shape[1], 64, k=4)
        train(sae, source, tokens=4096, progress=False)
        made.append(sae)
    assert torch.equal(made[0].W_dec, made[1].W_dec) and torch.equal(made[0].W_enc, made[1].W_enc)
    assert made[0].site == site and check_fits(made[0], net) == site


def test_a_position_selects_the_places_that_are_trained_on(convnet: Network) -> None:
    site, at = conv_act[2], where("landmark")
    got = torch.cat([*activations_of(convnet, PICTURES, site, at=at, batch_size=3)])
    torch.testing.assert_close(got, capture(convnet, PICTURES, site).flat(site, at))
    there, plain = (activations_of(convnet, PICTURES, site, **one).digest for one in ({"at": at}, {}))
    assert there is not None and plain is not None and there() != plain()


def test_registers_are_left_out_and_nothing_else(tower: Network) -> None:
    site = resid_post[1]
    rows = capture(tower, PICTURES, site).flat(site).clone()
    rows[[3, 200]] *= 50
    kept = torch.cat([*drop_registers(tensor_source(rows))])
    assert torch.equal(kept, rows[[i for i in range(len(rows)) if i not in (3, 200)]])
    source = activations_of(tower, PICTURES, site, batch_size=2)
    same = drop_registers(source, times=1e6)
    assert torch.equal(torch.cat([*same]), torch.cat([*source]))
    assert torch.equal(torch.cat([*same.begin(2)]), torch.cat([*source.begin(2)]))


def test_other_pictures_of_as_many_have_another_digest() -> None:
    other = draw(scenes("test", 8, start=100)).images()
    assert digest_of_data(PICTURES) != digest_of_data(other)
    assert digest_of_data(PICTURES) == digest_of_data(Images(PICTURES.pixels.clone(), PICTURES.masks))
    one, two = ([{"image": {"bytes": b, "path": None}}] for b in (b"a", b"b"))
    assert digest_of_data(one) != digest_of_data(two)


def test_sites_with_other_places_do_not_go_together_in_a_row(convnet: Network) -> None:
    with pytest.raises(InvalidArgument, match=r"other places in a picture.*conv_act.0: 8192, conv_act.2: 512"):
        next(iter(activations_at(convnet, PICTURES, [conv_act[0], conv_act[2]])))


def test_a_place_that_is_not_finite_is_named(convnet: Network) -> None:
    net: Any = load_net(new_net("convnet", small=True))
    with torch.no_grad():
        net.hf.features[0].bias[2] = torch.nan
    with pytest.raises(InvalidArgument, match=r"NaN or infinity at conv_pre.0 in batch 0, text 0"):
        next(iter(activations_of(net, PICTURES, conv_pre[0])))


def test_a_latent_spliced_in_or_clamped_changes_what_follows_by_its_row(tower: Network) -> None:
    site = resid_post[1]
    sae = TopK(32, 64, k=4)
    train(sae, activations_of(tower, PICTURES, site), tokens=2000, progress=False)
    x = capture(tower, PICTURES, site).flat(site)
    with torch.no_grad(), intervene(tower, {site: splice(sae)}):
        torch.testing.assert_close(capture(tower, PICTURES, site).flat(site), sae(x))
    with torch.no_grad(), intervene(tower, {site: change_latents(sae, clamp_latents([7], 2.0))}):
        moved = capture(tower, PICTURES, site).flat(site)
        torch.testing.assert_close(moved, x + (2.0 - sae.encode(x)[:, 7:8]) * sae.W_dec[7])


def test_the_mean_of_some_pictures_less_that_of_others_steers_them_there(convnet: Network) -> None:
    bright, dark = (Images(PICTURES.pixels * 0.3 + shift) for shift in (0.7, 0.0))
    site = conv_act[2]
    direction = mean_centring(convnet, bright, dark, site)
    one, other = (capture(convnet, some, site)[site].mean((0, 1)) for some in (bright, dark))
    torch.testing.assert_close(direction.vector, one - other)
    with torch.no_grad(), steer(convnet, direction, 1.0) as receipt:
        got = capture(convnet, dark, site)[site]
    step = direction.unit * direction.scale
    torch.testing.assert_close(got - capture(convnet, dark, site)[site], step.expand_as(got))
    assert receipt[site].prefill_tokens == 8 * 64


def test_a_net_of_pictures_has_one_vector_at_its_end(convnet: Network) -> None:
    rows = torch.cat([*activations_of(convnet, PICTURES, embedding)])
    assert rows.shape == (8, convnet.tap(embedding).shape[0])
