"""Any torch module: what its sites hold is what can be computed by hand, and what is changed there flows on."""

from dataclasses import replace as replaced
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hooks import Activations, Model, Network, Site, capture, capture_gradients, intervene, load
from hooks.errors import ContractBroken, InvalidArgument, InvalidType, UnknownSite
from hooks.grid import Grid
from hooks.images import Images
from hooks.interventions import add, replace, zero
from hooks.network import guess_example
from hooks.position import everywhere, index, last
from hooks.processor import Processor
from hooks.site import conv_pre, resid_post
from interp.sae import TopK, activations_of, train
from probes import MassMean

PICTURES = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def convnet() -> nn.Module:
    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(4, 6, 2))
    return nn.Sequential(features, nn.Flatten(), nn.Linear(6 * 4, 7))


@pytest.fixture
def net() -> Network:
    return load(convnet(), inputs=PICTURES[:2], places=(2, 3))


class Twice(nn.Module):
    """One layer called twice, with a dictionary, a tuple and an addition in place through a view."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.pair, self.named = nn.Linear(4, 4), Pair(), Named()

    def forward(self, x: Tensor, *, scale: Tensor) -> Tensor:
        y = self.layer(self.layer(x))
        y[:, 0] += 100.0
        return self.named(self.pair(y)[0] * scale)["made"]


class Pair(nn.Module):
    """A module that returns a tuple."""

    def forward(self, x: Tensor) -> tuple[Tensor, str]:
        return 2 * x, "said"


class Named(nn.Module):
    """A module that returns a dictionary."""

    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"count": 1, "made": x + 1}


class Toy(nn.Module):
    """A sequence model of plain torch."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mlp, self.unembed = nn.Embedding(11, 6), nn.Linear(6, 6), nn.Linear(6, 11)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        return self.unembed(x + torch.tanh(self.mlp(x)))


def by_hand(net: Network, pictures: Tensor) -> Tensor:
    """A convolution, place after place, by sums over what is under the kernel."""
    conv: Any = net.hf.get_submodule("0.0")
    weight, bias = conv.weight.detach(), conv.bias.detach()
    under = pictures.unfold(2, 3, 1).unfold(3, 3, 1)  # batch channel row column 3 3
    made = torch.einsum("bcrsij,ocij->brso", under.double(), weight.double()) + bias
    return made.flatten(1, 2).float()


def test_a_convolution_is_read_as_computed_by_hand_in_spite_of_a_relu_in_place(net: Network) -> None:
    site, after = Site.module("0.0"), Site.module("0.1")
    acts = capture(net, PICTURES, [site, after])
    assert acts[site].shape == (5, 36, 4)
    torch.testing.assert_close(acts[site], by_hand(net, PICTURES), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(acts[after], by_hand(net, PICTURES).relu(), atol=1e-5, rtol=1e-5)
    assert torch.equal(capture(net, PICTURES, Site.module("0.1", "input"))[Site.module("0.1", "input")], acts[site])


def test_batches_of_two_give_what_one_batch_gives_at_sites_of_different_sizes(net: Network) -> None:
    sites = [Site.module(path) for path in ("0.0", "0.3", "2", "")]
    whole, parts = (capture(net, PICTURES, sites, batch_size=size) for size in (8, 2))
    for site, shape in zip(sites, [(5, 36, 4), (5, 4, 6), (5, 1, 7), (5, 1, 7)], strict=True):
        assert whole[site].shape == shape
        torch.testing.assert_close(whole[site], parts[site])
    assert whole.flat(sites[0], at=index(7)).shape == (5, 4)
    torch.testing.assert_close(whole.flat(sites[0], at=index(7)), by_hand(net, PICTURES)[:, 7], atol=1e-5, rtol=1e-5)


def test_a_linear_layer_by_itself_is_a_network_whose_example_is_made() -> None:
    linear = nn.Linear(3, 2)
    model = load(linear)
    x, site = torch.randn(4, 3), Site.module("")
    made = (x[:, None] * linear.weight).sum(-1) + linear.bias
    torch.testing.assert_close(capture(model, x, site)[site][:, 0], made.detach())
    with pytest.raises(InvalidArgument, match="give an example"):
        load(nn.Sequential(nn.Conv2d(3, 4, 3)))


def test_a_channel_set_to_zero_at_one_place_is_what_the_rest_of_the_net_makes_of_it(net: Network) -> None:
    site = Site.module("0.2")
    pooled = capture(net, PICTURES, site)[site].reshape(5, 3, 3, 4).permute(0, 3, 1, 2).clone()
    pooled[:, :, 1, 2] = 0.0
    rest: Any = net.hf
    with torch.no_grad():
        wanted = rest[2](rest[1](rest[0][3](pooled)))
        with intervene(net, {site: zero(at=index(5))}) as receipt:
            changed = net.run(PICTURES)
            distance = receipt.kl(PICTURES)
    torch.testing.assert_close(changed, wanted)
    assert receipt[site].prefill_tokens == 10 and receipt[site].fired == 2 and distance.shape == (5,)
    clean = net.run(PICTURES).log_softmax(-1)
    torch.testing.assert_close(distance, (clean.exp() * (clean - wanted.log_softmax(-1))).sum(-1).detach())


def test_a_call_of_the_module_itself_is_changed_too_and_nothing_is_left(net: Network) -> None:
    before = net.hf(PICTURES)
    with intervene(net, {Site.module("0.0"): add(torch.ones(4), 3.0)}):
        changed = net.hf(PICTURES)
    assert not torch.allclose(before, changed)
    assert torch.equal(net.hf(PICTURES), before)


def test_a_capture_put_back_changes_nothing(net: Network) -> None:
    site = Site.module("0.0")
    acts = capture(net, PICTURES, site)
    with torch.no_grad(), intervene(net, {site: replace(acts[site])}):
        changed = net.run(PICTURES)
    assert torch.equal(changed, net.run(PICTURES).detach())


def test_gradients_are_those_of_autograd_through_the_rest_of_the_net(net: Network) -> None:
    site = Site.module("0.0")
    found = capture_gradients(net, PICTURES, site, lambda logits: logits[:, 3].sum())
    rest: Any = net.hf
    a = rest[0][0](PICTURES).detach().requires_grad_()
    nn.Sequential(nn.ReLU(), *rest[0][2:], *rest[1:])(a)[:, 3].sum().backward()
    assert a.grad is not None
    torch.testing.assert_close(found.gradients[site], a.grad.flatten(2).transpose(1, 2))


def test_each_call_of_a_module_has_its_site_and_writing_in_place_is_not_seen() -> None:
    torch.manual_seed(0)
    module = Twice()
    x, scale = torch.randn(3, 4), torch.full((3, 1), 0.5)
    given: Any = {0: x, "scale": scale}
    model = load(module, inputs=given)
    first, second = (Site.module("layer", call=call) for call in (0, 1))
    acts = capture(model, given, [first, second, Site.module("pair"), Site.module("named")])
    once = module.layer(x).detach()
    torch.testing.assert_close(acts[first][:, 0], once)
    torch.testing.assert_close(acts[second][:, 0], module.layer(once).detach())
    raised = module.layer(once).detach() + torch.tensor([100.0, 0, 0, 0])
    torch.testing.assert_close(acts[Site.module("pair")][:, 0], 2 * raised)
    torch.testing.assert_close(acts[Site.module("named")][:, 0], raised + 1)
    with torch.no_grad(), intervene(model, {second: zero(), Site.module("named"): add(torch.ones(4))}):
        torch.testing.assert_close(model.run(given), torch.tensor([[102.0, 2, 2, 2]]).expand(3, 4))
    with pytest.raises(UnknownSite, match=r"runs 2 times in a pass: write Site.module\('layer', call=0\)"):
        capture(model, given, Site.module("layer"))
    assert Site.parse(str(second)) == second


def test_a_model_of_ids_has_a_place_for_each() -> None:
    torch.manual_seed(0)
    module = Toy()
    model, ids = load(module), torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    site = Site.module("mlp")
    acts = capture(model, ids, [site, Site.module("")])
    torch.testing.assert_close(acts[site], module.mlp(module.embed(ids)).detach())
    assert torch.equal(acts[Site.module("")], module(ids).detach())
    assert torch.equal(acts.flat(site, at=last), acts[site][:, -1])
    with torch.no_grad(), intervene(model, {site: zero(at=last)}):
        changed = model.run(ids)
    assert torch.equal(changed[:, :-1], module(ids)[:, :-1].detach())
    torch.testing.assert_close(changed[:, -1], module.unembed(module.embed(ids[:, -1])).detach())


def test_the_contract_refuses_a_module_that_drops_at_random() -> None:
    class Random(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * torch.rand_like(x)

    contract = load(Random(), inputs=torch.ones(2, 3)).contract
    assert contract is not None and not contract.holds
    sound = load(convnet(), inputs=PICTURES[:2], places=(2, 3)).contract
    assert sound is not None and sound.holds, sound


def test_captures_of_pictures_are_kept_and_read_back(net: Network, tmp_path: Path) -> None:
    acts = capture(net, PICTURES, ["module(0.0)", "0.3"])
    acts.save(tmp_path / "acts.safetensors")
    back = Activations.load(tmp_path / "acts.safetensors")
    for site in acts.sites:
        assert torch.equal(back[site], acts[site])
        assert torch.equal(back.flat(site, at=everywhere), acts.flat(site, at=everywhere))
    assert back.tokens.inputs is not None and torch.equal(back.tokens.inputs[0], PICTURES)


def test_probes_and_autoencoders_are_fitted_to_channels(net: Network) -> None:
    site = Site.module("0.0")
    pictures = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    labels = torch.arange(64) % 2
    pictures[labels == 1] += 8.0
    acts = capture(net, pictures, site).flat(site, at=index(0))
    assert MassMean().fit(acts, labels).score(acts, labels) > 0.9
    sae = TopK(4, 8, k=2)
    train(sae, activations_of(net, pictures, site), tokens=4000)
    x = capture(net, pictures, site).flat(site)
    with torch.no_grad():
        assert float((sae(x) - x).square().mean()) < float((x - x.mean(0)).square().mean())


def test_what_is_no_module_and_inputs_of_no_batch_are_refused(net: Network) -> None:
    with pytest.raises(InvalidType, match="got a dict"):
        load({"a": 1})  # pyright: ignore[reportCallIssue, reportArgumentType]
    with pytest.raises(InvalidArgument, match="one batch"):
        net.run((PICTURES, PICTURES[:2]))
    with pytest.raises(UnknownSite, match=r"has no module\(0.9\).*nearest"):
        capture(net, PICTURES, Site.module("0.9"))
    with pytest.raises(InvalidArgument, match="shape"):
        intervene(net, {Site.module("0.0"): add(torch.ones(5))})


def test_the_name_of_a_block_is_what_the_block_gives(hf_model: Any) -> None:
    model: Model = load(hf_model("llama"))
    ids = torch.tensor([[1, 20, 30, 40, 50, 60]])
    assert Site.parse("model.layers.1", model) == resid_post[1]
    assert Site.parse("model.layers.1.mlp", model) == Site.module("model.layers.1.mlp")
    acts = capture(model, ids, ["model.layers.1", "model.layers.1.mlp"])
    assert acts.sites == (resid_post[1], Site.module("model.layers.1.mlp"))


class Alias(nn.Module):
    """It adds in place to what a module inside it hands on, which a copy written there does not see."""

    def __init__(self) -> None:
        super().__init__()
        self.same, self.layer, self.scales = nn.Identity(), nn.Linear(3, 3), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = x + 0.0
        held = self.same(y)
        y += 1.0
        return self.layer(self.scales(held))


def test_a_site_that_cannot_be_written_again_is_refused_and_the_others_are_not() -> None:
    model = load(Alias(), inputs=torch.randn(2, 3))
    report = model.contract
    assert report is not None and not report.holds
    broken = {Site.module("same"), Site.module("same", "input")} & set(report.refused)
    assert broken == set(report.refused) and broken
    assert report.checks[0].law == "no dropout" and report.checks[0].holds
    assert [check.sites[0] for check in report.checks[1:]] == [*model.taps]
    assert report.passes == 3 + len(model.taps)
    assert {(check.error, check.allowed) for check in report.checks if check.holds} == {(0.0, 0.0)}
    assert {(check.error, check.allowed) for check in report.checks if not check.holds} == {(float("inf"), 0.0)}
    assert set(model.sites) == set(model.taps) - broken
    for site in broken:
        with pytest.raises(ContractBroken, match=r"refuses module\(same"):
            model.tap(site)


class Knows(nn.Module):
    """A net that gives twice as much of what it has seen before, by itself and not by its values."""

    def __init__(self, seen: Tensor) -> None:
        super().__init__()
        self.seen, self.same = [seen], nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.same(x * (2.0 if x is self.seen[0] else 1.0))


def test_where_the_first_site_alone_cannot_be_written_again_it_alone_is_refused() -> None:
    x = torch.randn(2, 3)
    report = load(Knows(x), inputs=x).contract
    assert report is not None and [check.holds for check in report.checks] == [True, False, True, True, True]
    assert [*report.refused] == [Site.module("", "input")] and report.passes == 3 + 4


def test_a_sound_net_takes_three_passes_to_be_found_so() -> None:
    model = load(convnet(), inputs=PICTURES[:2])
    report = model.contract
    assert report is not None and report.holds and report.passes == 3 and report.seconds == 0.0
    assert [check.sites for check in report.checks] == [(), *((site,) for site in model.taps)]
    assert {(check.error, check.allowed) for check in report.checks} == {(0.0, 0.0)}
    assert report.dtype == "float32"


class Turns(nn.Module):
    """What it gives, one call after the other, again and again."""

    def __init__(self, *given: Any) -> None:
        super().__init__()
        self.given, self.turn = given, 0

    def forward(self, x: Tensor) -> Any:
        self.turn += 1
        made = self.given[self.turn % len(self.given)]
        return tuple(x * one for one in made) if isinstance(made, tuple) else x * made


NAN, ONE = torch.tensor([float("nan"), 1.0]), torch.tensor([1.0, 1.0])


@pytest.mark.parametrize(
    ("given", "holds"),
    [
        ((ONE,), True),
        ((NAN,), True),
        ((ONE, NAN), False),
        ((NAN, NAN.flip(0)), False),
        ((ONE, torch.tensor([1.0, 2.0])), False),
        (((ONE, NAN),), True),
        (((ONE, ONE), (ONE, 2 * ONE)), False),
        (((2 * ONE, ONE), (ONE, ONE)), False),
        (((ONE, ONE), (ONE,)), False),
    ],
)
def test_two_runs_are_the_same_where_each_number_is_one_or_none_in_both(given: tuple[Any, ...], holds: bool) -> None:
    report = load(Turns(*given), inputs=torch.ones(2, 2)).contract
    assert report is not None
    assert report.checks[0].holds == holds and report.passes == 3
    assert all(check.holds for check in report.checks[1:]) and report.holds == holds


class Sequences(nn.Module):
    """Sequences of vectors, the mean of them, and what has more axes."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.mean, self.wide = nn.Linear(3, 5), nn.Identity(), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.read(x)
        self.wide(y[..., None].expand(-1, -1, -1, 2))
        return self.mean(y.mean(1))


@pytest.mark.parametrize(
    ("places", "read", "mean", "wide"),
    [
        ((), (1, 4, 5), (1, 5), (1, 4, 5, 2)),
        (None, (1, 4, 5), (1, 5), (1, 4, 5, 2)),
        ((1,), (4, 5), (1, 5), (4, 5, 2)),
        ((2,), (5, 4), (1, 5), (5, 4, 2)),
        ((3,), (1, 4, 5), (1, 5), (2, 4, 5)),
        ((1, 2), (1, 4, 5), (1, 5), (20, 2)),
        ((2, 3), (1, 4, 5), (1, 5), (10, 4)),
        ((1, 4), (1, 4, 5), (1, 5), (1, 4, 5, 2)),
    ],
)
def test_places_are_counted_along_their_axes_where_something_is_next_to_them(
    places: tuple[int, ...] | None, read: tuple[int, ...], mean: tuple[int, ...], wide: tuple[int, ...]
) -> None:
    x = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    model = load(Sequences(), inputs=x, places=places)
    sites = [Site.module(name) for name in ("read", "mean", "wide")]
    acts = capture(model, x, sites)
    assert [tuple(acts[site].shape[1:]) for site in sites] == [read, mean, wide]
    assert acts.flat(sites[1]).shape == (2, 5), "one place of each item"


def test_an_example_is_guessed_from_the_first_weights() -> None:
    ids = guess_example(nn.Sequential(nn.Sequential(nn.Embedding(7, 3)), nn.Linear(3, 2)))
    assert ids.shape == (1, 5) and ids.dtype == torch.long and 0 <= int(ids.min()) <= int(ids.max()) < 7
    vector = guess_example(nn.Sequential(nn.ReLU(), nn.Linear(4, 2).double()))
    assert vector.shape == (1, 4) and vector.dtype == torch.float64
    for unknown in (nn.ReLU(), nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 2))):
        with pytest.raises(InvalidArgument, match="its weights do not say what it reads"):
            guess_example(unknown)


def test_a_tensor_without_a_batch_is_refused_and_what_is_given_is_one_place_an_item(net: Network) -> None:
    for wrong in (torch.tensor(1.0), torch.zeros(0, 3), {"x": None}, (torch.tensor(1.0),)):
        with pytest.raises(InvalidArgument, match="tensors of one batch"):
            net.run(wrong)
    tokens = net.tokens((PICTURES, None))
    assert tokens.ids.tolist() == [[0]] * 5 and tokens.mask.tolist() == [[True]] * 5 and not bool(tokens.special.any())
    assert tokens.inputs is not None and [*tokens.inputs] == [0] and net.device == torch.device("cpu")


def test_places_of_rows_and_columns_are_those_of_pictures_and_other_places_are_not() -> None:
    grids = load(convnet(), inputs=PICTURES[:2]).grids
    assert load(convnet(), inputs=PICTURES[:2], places=(2, 3)).grids == grids
    assert grids[conv_pre[0]] == grids[Site.module("0.0")] == Grid((6, 6), (1.0, 1.0), (1.5, 1.5), (3.0, 3.0), (8, 8))
    assert grids[Site.module("0.0", "input")].shape == (8, 8) and grids[Site.module("0.3")].shape == (2, 2)
    other = load(convnet(), inputs=PICTURES[:2], places=(3,))
    assert not other.grids and conv_pre[0] not in other.taps
    assert capture(other, PICTURES, Site.module("0.0"))[Site.module("0.0")].shape == (5, 6, 4, 6)


def test_each_pixel_of_a_picture_that_is_scaled_first_sees_itself() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rest = convnet()

        def forward(self, x: Tensor) -> Tensor:
            return self.rest(2 * x - 1)

    pixels = Grid((8, 8), (1.0, 1.0), (0.5, 0.5), (1.0, 1.0), (8, 8))
    assert load(Scaled(), inputs=PICTURES[:1]).grids[Site.module("", "input")] == pixels


def test_places_that_tokens_know_already_are_not_replaced(net: Network) -> None:
    known = {Site.module("0.0"): Grid((1, 36), (8.0, 1.0), (4.0, 0.5), (8.0, 1.0), (8, 36))}
    assert net.tokens(replaced(net.tokens(PICTURES), grids=known)).grids == known
    assert net.tokens(PICTURES).grids == net.grids
    assert load(nn.Linear(3, 2)).tokens(torch.ones(1, 3)).grids is None


def test_pictures_joined_keep_the_masks_that_all_have_and_their_names_if_all_have_some() -> None:
    model = load(convnet(), inputs=PICTURES[:1], processor=Processor((8, 8), mean=(0.0,) * 3, std=(1.0,) * 3))
    lit = torch.rand(5, 8, 8, generator=torch.Generator().manual_seed(0)) < 0.5
    pixels = PICTURES.sigmoid()
    one = model.tokens(Images(pixels[:2], {"lit": lit[:2], "dark": ~lit[:2]}, ("a", "b")))
    for names in (None, ("c", "d", "e")):
        found = model.join([one, model.tokens(Images(pixels[2:], {"lit": lit[2:]}, names))]).images
        assert found is not None and torch.equal(found.pixels, pixels) and [*found.masks] == ["lit"]
        assert torch.equal(found.masks["lit"], lit) and found.names == (None if names is None else ("a", "b", *names))
