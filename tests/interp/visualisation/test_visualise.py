"""Visualisation against optima known in closed form, kernels against gratings, dissection against stamps."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hooks import Direction, Images, Network, Processor, load
from hooks.errors import InvalidArgument, OutOfRange
from hooks.site import conv_act, conv_pre, logits
from interp.postcard import draw, load_net, new_net, scenes
from interp.sae import TopK
from interp.visualisation import (
    Canvas,
    Moves,
    along,
    channel,
    compare_with_natural,
    dissect,
    latent,
    measure_colours,
    measure_kernels,
    read_kernels,
    unit,
    visualise,
    visualise_random,
)
from interp.visualisation.compare import ranks
from interp.visualisation.objective import alikeness, values_of

STILL = Moves(0.0, 0.0, 0.0)
SIZE = (8, 8)


@pytest.fixture
def linear() -> Network:
    """One unit that is linear in the whole picture."""
    torch.manual_seed(0)
    return load(nn.Sequential(nn.Conv2d(3, 1, 8, bias=False)), inputs=torch.zeros(1, 3, 8, 8), processor=Processor())


def weight(model: Network) -> Tensor:
    return next(model.hf.parameters()).detach()[0]


@pytest.mark.parametrize("by", ["frequency", "pixel"])
def test_the_optimum_of_a_linear_unit_on_a_ball_is_its_filter_whatever_the_canvas(linear: Network, by: Any) -> None:
    made = visualise(
        linear, unit(conv_pre[0], 0), steps=300, moves=STILL, canvas=Canvas(1, SIZE, by=by, radius=0.4, seed=1)
    )
    w, x = weight(linear), made.pictures.pixels[0] - 0.5
    assert float(F.cosine_similarity(x.flatten(), w.flatten(), dim=0)) > 0.999
    assert float(made.values) == pytest.approx(float(0.5 * w.sum() + 0.4 * w.norm()), rel=1e-3)


def test_the_optimum_of_a_linear_unit_between_0_and_1_is_1_where_its_weight_is_positive(linear: Network) -> None:
    canvas = Canvas(1, SIZE, by="pixel", seed=1)
    made = visualise(linear, unit(conv_pre[0], 0), steps=400, rate=1.0, moves=STILL, canvas=canvas)
    w = weight(linear)
    assert float(made.values) > 0.999 * float(w.clamp_min(0).sum())
    assert torch.equal(made.pictures.pixels[0] > 0.5, w > 0)


def test_nothing_outside_what_a_unit_sees_has_a_slope() -> None:
    model: Any = load_net(new_net("convnet", small=True))
    pixels = torch.rand(1, 3, 64, 64, requires_grad=True)
    values_of(model, unit(conv_pre[1], 3, (8, 8)), pixels)[0].sum().backward()
    down, across = model.grids[conv_pre[1]].receptive_field(8, 8)
    inside = torch.zeros(64, 64, dtype=torch.bool)
    inside[down.start : down.stop, across.start : across.stop] = True
    assert pixels.grad is not None
    slope = pixels.grad[0].abs().sum(0)
    assert float(slope[~inside].max()) == 0.0 < float(slope[inside].max())


def test_a_direction_with_a_power_asks_for_its_cosine_and_a_channel_is_the_mean_of_its_places() -> None:
    model: Any = load_net(new_net("convnet", small=True))
    pixels = torch.rand(2, 3, 64, 64)
    site = conv_act[1]
    value, acts = values_of(model, channel(site, 4), pixels)
    torch.testing.assert_close(value, acts[..., 4].mean(1))
    v = torch.randn(32, generator=torch.Generator().manual_seed(0))
    power = values_of(model, along(Direction(v, site, "v"), power=2.0), pixels)[0]
    dot, cosine = acts @ (v / v.norm()), F.cosine_similarity(acts, v.expand(acts.shape), dim=-1)
    torch.testing.assert_close(power, (dot * cosine.clamp_min(0.1) ** 2).mean(1), atol=1e-4, rtol=1e-4)


def test_a_latent_of_a_linear_dictionary_is_its_row_and_a_sparse_one_is_climbed_by_its_values_before_the_cut() -> None:
    model: Any = load_net(new_net("convnet", small=True))
    pixels, site = torch.rand(2, 3, 64, 64), conv_act[1]
    W = torch.randn(32, 5, generator=torch.Generator().manual_seed(0))
    value = values_of(model, latent(lambda a: a @ W, site, 3), pixels)[0]
    row = values_of(model, along(Direction(W[:, 3], site, "row")), pixels)[0]
    torch.testing.assert_close(value, row * W[:, 3].norm(), atol=1e-4, rtol=1e-4)
    sae = TopK(32, 64, k=2)
    own = values_of(model, channel(site, 0), pixels)[1]
    sparse = values_of(model, latent(sae.encode, site, 9), pixels)[0]
    torch.testing.assert_close(sparse, sae.encode(own)[..., 9].mean(1))
    made = visualise(model, latent(sae.pre, site, 9), steps=30)
    assert float(made.values.max()) > float(made.begun.max())
    with pytest.raises(OutOfRange, match="64"):
        values_of(model, latent(sae.encode, site, 64), pixels)


def test_pictures_that_are_to_differ_differ_more() -> None:
    model: Any = load_net("convnet")
    alike, apart = (visualise(model, channel(conv_pre[1], 2, diversity=d), n=3, steps=25, seed=0) for d in (0.0, 20.0))
    with torch.no_grad():
        likeness = [float(alikeness(values_of(model, m.objective, m.pictures.pixels)[1])) for m in (alike, apart)]
    assert likeness[1] < likeness[0]


def test_a_channel_of_the_trained_net_is_made_larger_than_by_any_real_picture_and_its_weights_are_left_alone() -> None:
    model: Any = load_net("convnet")
    natural = draw(scenes("test", 300)).images()
    before = [p.clone() for p in model.hf.parameters()]
    made = visualise(model, channel(conv_pre[2], 7), n=2, steps=60, colours=measure_colours(natural))
    found = compare_with_natural(model, made, natural, [conv_pre[0], conv_pre[1], conv_pre[2]])
    assert found.quantile == 1.0 and found.value > found.greatest and not found.silent
    assert 0 < found.path_similarity < 1
    assert all(torch.equal(a, b) and b.requires_grad for a, b in zip(before, model.hf.parameters(), strict=True))


def test_the_control_is_the_same_ascent_along_a_direction_at_random_with_the_same_colours_and_moves() -> None:
    model: Any = load_net(new_net("convnet", small=True))
    colours = measure_colours(draw(scenes("test", 20)).images())
    made = visualise(model, channel(conv_pre[2], 7), n=2, steps=4, moves=STILL, colours=colours)
    control = visualise_random(model, made, moves=STILL, colours=colours, seed=3)
    assert control.objective.site == conv_pre[2] and control.steps == 4 and control.objective.vector is not None
    direction = Direction(control.objective.vector, conv_pre[2], "the same")
    again = visualise(model, along(direction), n=2, steps=4, moves=STILL, colours=colours, seed=3)
    torch.testing.assert_close(control.pictures.pixels, again.pictures.pixels)
    other = visualise_random(model, made, moves=STILL, seed=3)
    assert not torch.allclose(control.pictures.pixels, other.pictures.pixels, atol=1e-2)


def test_a_real_picture_takes_the_path_of_real_ones_and_noise_does_not() -> None:
    model: Any = load_net("convnet")
    natural = draw(scenes("test", 60)).images()
    made = visualise(model, channel(conv_pre[1], 3), steps=1)
    sites = [conv_pre[0], conv_pre[1], conv_pre[2], conv_pre[3]]
    similar = []
    for pixels in (natural.pixels[:1], torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))):
        one = type(made)(made.objective, Images(pixels), made.values, made.begun, 0)
        similar.append(compare_with_natural(model, one, natural[1:], sites).path_similarity)
    assert similar[0] > similar[1] + 0.2


def test_ranks_give_spearmans_correlation_with_ties() -> None:
    from scipy.stats import spearmanr

    x = torch.randint(4, (2, 50), generator=torch.Generator().manual_seed(0)).float()
    r = ranks(x)
    assert float(r[0] @ r[1]) == pytest.approx(spearmanr(x[0], x[1]).statistic, abs=1e-5)


def test_the_colours_of_a_canvas_are_those_it_was_given() -> None:
    random = torch.Generator().manual_seed(0)
    red = torch.rand(4, 1, 32, 32, generator=random) * torch.tensor([1.0, 0.2, 0.1])[:, None, None]
    colours = measure_colours(Images(red))
    pixels = Canvas(4, (32, 32), colours=colours).pixels().detach()
    means = pixels.mean((0, 2, 3))
    assert float(means[0]) > float(means[1]) > float(means[2])
    assert torch.linalg.matrix_rank(colours.root.double(), atol=1e-3) == 1


@pytest.mark.parametrize("degrees", [0.0, 30.0, 45.0, 90.0, 135.0])
def test_the_stripes_of_a_grating_run_the_way_it_was_drawn(degrees: float) -> None:
    y, x = torch.meshgrid(torch.arange(11.0), torch.arange(11.0), indexing="ij")
    across = math.radians(degrees + 90)
    wave = torch.cos(2 * math.pi * 0.2 * (x * math.cos(across) + y * math.sin(across)))
    envelope = torch.exp(-((x - 5) ** 2 + (y - 5) ** 2) / 12)
    grating, blob = (wave * envelope).expand(1, 3, 11, 11), envelope.expand(1, 3, 11, 11)
    found = measure_kernels(torch.cat([grating, blob]))
    apart = abs(float(found.orientation[0]) - degrees) % 180
    assert min(apart, 180 - apart) < 4
    assert float(found.oriented[0]) > 0.8 and float(found.oriented[1]) < 0.1
    assert abs(float(found.frequency[0]) - 0.2) < 0.05
    assert float(found.colourfulness.max()) < 1e-6


def test_a_kernel_of_one_colour_is_as_colourful_as_can_be_computed() -> None:
    one = torch.zeros(1, 3, 5, 5)
    one[:, 0] = torch.randn(5, 5)
    assert float(measure_kernels(one).colourfulness) == pytest.approx(math.sqrt(2 / 3), abs=1e-6)
    kernels = read_kernels(load_net("convnet"))  # type: ignore[arg-type]
    assert kernels.weights.shape == (32, 3, 7, 7)
    assert float(kernels.pictures().min()) >= 0 and float(kernels.pictures().max()) <= 1


def stamped() -> Images:
    """Red stamps of 3 × 3 at random places; the mask is of their middles."""
    random = torch.Generator().manual_seed(0)
    pixels, mask = torch.zeros(8, 3, 20, 20), torch.zeros(8, 20, 20, dtype=torch.bool)
    for i in range(8):
        for row, column in torch.randint(2, 18, (2, 2), generator=random).tolist():
            mask[i, row, column] = True
            pixels[i, 0, row - 1 : row + 2, column - 1 : column + 2] = 1.0
    return Images(pixels, {"stamp": mask, "sky": torch.ones(8, 20, 20, dtype=torch.bool)})


def test_a_template_detects_exactly_its_stamps_and_another_pictures_masks_it_does_not() -> None:
    net = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.ReLU())
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        conv: Any = net[0]
        conv.weight[0, 0] = 1.0
        conv.bias[0] = -8.5
    model = load(net, inputs=torch.zeros(1, 3, 20, 20), processor=Processor())
    pictures = stamped()
    share = float(pictures.masks["stamp"][:4].float().mean())
    found = dissect(model, pictures, conv_act[0], quantile=share)
    assert found.concepts[int(found.chosen[0])] == "stamp"
    assert float(found.iou[0]) == 1.0 and float(found.shuffled[0]) < 0.2
    assert found.detectors.tolist()[0] and float(found.constant[1]) == 1.0


def test_a_latent_that_unmixes_units_detects_what_none_of_them_does_and_is_the_best_of_its_concept() -> None:
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU())
    pictures = stamped()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        conv: Any = net[0]
        conv.weight[:, :, 0, 0] = torch.tensor([[1.0, 3.0, 0.0], [0.0, 1.0, 0.0]])  # red and green, and green
    pixels = pictures.pixels.clone()
    pixels[:, 1] = torch.rand(8, 20, 20, generator=torch.Generator().manual_seed(1))
    red = pixels[:, 0] > 0.5
    mixed = Images(pixels, {"red": red, "sky": pictures.masks["sky"]})
    model = load(net, inputs=torch.zeros(1, 3, 20, 20), processor=Processor())
    share = float(red[:4].float().mean())

    def unmix(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.zeros(len(x)), x[:, 0] - 3 * x[:, 1], x[:, 1]], 1)

    units, latents = (dissect(model, mixed, conv_act[0], quantile=share, encode=how) for how in (None, unmix))
    assert float(units.best_iou[0]) < 0.8
    assert int(latents.best[0]) == 1 and float(latents.best_iou[0]) > 0.99
    assert float(latents.best_shuffled[0]) < 0.5
    same = dissect(model, mixed, conv_act[0], quantile=share, encode=lambda x: x.flip(1))
    assert torch.equal(same.iou, units.iou.flip(0)) and int(same.best[0]) == 1 - int(units.best[0])


def test_shuffled_pixels_agree_as_often_as_chance_says() -> None:
    random = torch.Generator().manual_seed(0)
    pixels = torch.rand(40, 3, 16, 16, generator=random)
    mask = torch.rand(40, 16, 16, generator=random) < 0.3
    net = nn.Sequential(nn.Conv2d(3, 1, 1), nn.ReLU())
    model = load(net, inputs=torch.zeros(1, 3, 16, 16), processor=Processor())
    found = dissect(model, Images(pixels, {"noise": mask}), conv_pre[0], quantile=0.2)
    p, q = 0.2, 0.3
    assert float(found.iou[0]) == pytest.approx(p * q / (p + q - p * q), abs=0.02)


@pytest.mark.parametrize(
    ("ask", "kind", "says"),
    [
        (lambda m: visualise(m, channel(conv_pre[0], 99), steps=1), OutOfRange, "channel 99"),
        (lambda m: dissect(m, Images(torch.rand(4, 3, 64, 64)), conv_act[0]), InvalidArgument, "0 concepts"),
        (lambda m: dissect(m, draw(scenes("test", 4)).images(), logits), InvalidArgument, "no places in the picture"),
        (lambda m: dissect(m, draw(scenes("test", 4)).images(), conv_act[0], ["cow"]), InvalidArgument, "no masks"),
        (lambda m: Canvas(1, SIZE, radius=2.0), InvalidArgument, "between 0 and 0.5"),
    ],
)
def test_what_cannot_be_made_is_refused(ask: Any, kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says):
        ask(load_net(new_net("convnet", small=True)))
