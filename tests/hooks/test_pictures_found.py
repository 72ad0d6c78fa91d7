"""Pictures of any kind are read as their colours, and the sites of a net are found at the modules that give them."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hooks import Images, Network, Processor, capture, load
from hooks.errors import InvalidArgument
from hooks.images import each_picture, is_picture
from hooks.picture_sites import places_of
from hooks.site import conv_act, conv_pre, embedding, logits, pool
from tests.hooks.test_pictures import PIXELS, clip, residual, vit

X = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(2))


def names(model: Network) -> set[str]:
    return {site.name for site in model.sites} - {"module", "module_in", "module_out"}


def loaded(net: nn.Module) -> Network:
    return load(net.eval(), inputs=X[:1], check=False)


def test_a_grey_picture_is_the_same_in_all_three_channels_whatever_its_axes() -> None:
    grey = torch.rand(2, 5, 7, generator=torch.Generator().manual_seed(0))
    for batch in (grey[:, None], grey[..., None], grey[:, None].numpy()):
        for one, wanted in zip(each_picture(batch), grey, strict=True):
            assert torch.equal(one, wanted.expand(3, 5, 7))
    (alone,) = each_picture(grey[0])
    assert torch.equal(alone, grey[0].expand(3, 5, 7))
    (whole,) = each_picture((grey[0] * 255).round().to(torch.uint8))
    torch.testing.assert_close(whole, (grey[0] * 255).round().expand(3, 5, 7) / 255)


def test_of_two_axes_that_may_be_colours_the_first_is() -> None:
    both = torch.rand(1, 3, 5, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(each_picture(both)[0], both[0])
    last = torch.rand(1, 5, 4, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(each_picture(last)[0], last[0].permute(2, 0, 1))


@pytest.mark.parametrize("shape", [(3,), (1, 1, 1, 1, 3), (2, 3, 0, 4), (2, 4, 5)])
def test_an_array_of_other_axes_is_no_picture(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidArgument, match="a picture is .height width 3. or"):
        each_picture(np.zeros(shape, np.uint8))


def test_a_cell_is_a_picture_if_it_is_decoded_or_holds_bytes_and_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    pil = pytest.importorskip("PIL.Image")
    assert is_picture(pil.new("RGB", (2, 2))) and is_picture({"bytes": None, "path": "a.png"})
    for other in ("a text", 3, {"bytes": b""}, {"a": 1, "b": 2}):
        assert not is_picture(other)
    monkeypatch.delitem(sys.modules, "PIL.Image")
    assert not is_picture("a text") and is_picture({"bytes": b"", "path": None})


def test_pictures_have_a_height_and_a_width_and_stay_where_they_all_are() -> None:
    pictures = Images(PIXELS[:, :, :20], {"all": torch.ones(4, 20, 32, dtype=torch.bool)})
    assert pictures.size == (20, 32) and pictures.to(torch.device("cpu")) is pictures
    nowhere = Images(PIXELS, {"all": torch.ones(4, 32, 32, dtype=torch.bool, device="meta")})
    with pytest.raises(NotImplementedError, match="meta"):
        nowhere.to(torch.device("cpu"))


def test_places_are_rows_and_columns_of_maps_and_tokens_of_sequences() -> None:
    assert [places_of((1, 4, 6, 8)[:n]) for n in (1, 2, 3, 4)] == [(), (), (1,), (2, 3)]


def test_a_nonlinearity_that_runs_twice_is_read_at_the_call_that_follows_its_convolution() -> None:
    net: Any = residual()
    model = loaded(net)
    acts = capture(model, X, [conv_act[0], logits])
    with torch.no_grad():
        first = net.norm(net.first(X)).relu()
    torch.testing.assert_close(acts[conv_act[0]], first.flatten(2).transpose(1, 2))
    call = model.tap(conv_act[0]).call
    assert call is not None and (call.number, call.root) == (0, net)
    assert all(model.tap(site).call is None for site in (conv_pre[0], conv_pre[2], logits))


def test_sites_sit_on_the_innermost_module_that_gives_them() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.conv(x))

    net = nn.Sequential(
        Block(), nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU()), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    )
    model = loaded(net)
    taps = [model.tap(conv_act[i]) for i in (0, 1)]
    assert [tap.module for tap in taps] == [net[0], net[1].get_submodule("1")]
    assert [tap.side for tap in taps] == ["output", "output"]


def test_a_nonlinearity_after_a_chain_of_copies_and_norms_is_found_up_to_four_steps_on() -> None:
    class Net(nn.Module):
        def __init__(self, between: int) -> None:
            super().__init__()
            self.conv, self.norms = nn.Conv2d(3, 4, 3), nn.ModuleList(nn.BatchNorm2d(4) for _ in range(between))
            self.act, self.head = nn.ReLU(), nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            for norm in self.norms:
                x = norm(x)
            return self.head(self.act(x).mean((2, 3)))

    assert [conv_act[0] in loaded(Net(n)).sites for n in range(5)] == [True] * 4 + [False]


def test_the_head_is_the_layer_that_gives_the_scores_and_no_layer_that_runs_later() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head, self.aside = nn.Conv2d(3, 4, 3), nn.Linear(4, 5), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.head(self.conv(x).mean((2, 3)))
            self.aside(y)
            return y

    torch.manual_seed(0)
    net = Net()
    acts = capture(loaded(net), X, [embedding, logits])
    torch.testing.assert_close(acts[embedding][:, 0], net.conv(X).mean((2, 3)).detach())
    torch.testing.assert_close(acts[logits][:, 0], net(X).detach())


def test_scores_that_no_linear_layer_gives_have_no_embedding_where_they_are_named() -> None:
    class Net(nn.Module):
        def __init__(self, named: bool) -> None:
            super().__init__()
            self.conv, self.named = nn.Conv2d(3, 5, 3), named

        def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:
            y = self.conv(x).mean((2, 3))
            return {"logits": y} if self.named else y

    named, plain = loaded(Net(True)), loaded(Net(False))
    assert logits in named.sites and embedding not in named.sites
    assert embedding in plain.sites and logits not in plain.sites


def test_a_net_that_gives_maps_has_neither_scores_nor_an_embedding() -> None:
    model = loaded(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)))
    assert not {"logits", "embedding", "fc_act"} & names(model)
    assert {conv_pre[0], conv_act[0], conv_pre[1]} <= set(model.sites)


def test_a_pool_is_a_site_where_it_gives_one_map() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.pool, self.head = nn.Conv2d(3, 4, 3), nn.MaxPool2d(2, return_indices=True), nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.pool(self.conv(x))[0].mean((2, 3)))

    assert "pool" not in names(loaded(Net()))
    two = loaded(
        nn.Sequential(nn.MaxPool2d(2), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    )
    assert [site for site in two.sites if site.name == "pool"] == [pool[0], pool[1], pool[2]]


def test_the_vector_of_a_tower_is_its_embedding_and_no_score() -> None:
    from transformers import ViTModel

    image = load(clip(), processor=Processor((32, 32)), check=False).image  # pyright: ignore[reportAttributeAccessIssue]
    assert embedding in image.sites and logits not in image.sites
    acts = capture(image, PIXELS, embedding)
    torch.testing.assert_close(acts[embedding][:, 0], image.run(PIXELS).image_embeds.detach())
    tower: Any = load(ViTModel(vit().config).eval(), processor=Processor((32, 32)), check=False)
    assert not {"pool", "fc_act", "logits"} & names(tower)


def test_the_blocks_of_a_net_of_two_lengths_are_those_of_the_length_that_most_modules_have() -> None:
    class Net(nn.Module):
        """Four blocks over sixteen patches, the means of four of which two more blocks read; and a temperature."""

        def __init__(self) -> None:
            super().__init__()
            layers = [layer for _ in range(3) for layer in vit().vit.layers]
            self.patches, self.layers = nn.Conv2d(3, 16, 3, 3), nn.ModuleList(layers[:4])
            self.late = nn.ModuleList(layers[4:])
            self.heat, self.head = Heat(), nn.Linear(16, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.patches(x).flatten(2).transpose(1, 2)
            for layer in self.layers:
                x = layer(x)
            x = x.unflatten(1, (4, 4)).mean(2)
            for layer in self.late:
                x = layer(x)
            return self.head(x.mean(1)) * self.heat()

    class Heat(nn.Module):
        def forward(self) -> Tensor:
            return torch.tensor(2.0)

    model = loaded(Net())
    posts = [site for site in model.sites if site.name == "resid_post"]
    assert len(posts) == 4
    assert all(capture(model, X, site)[site].shape == (2, 16, 16) for site in posts)


def test_a_processor_that_is_given_is_taken_before_the_file_next_to_the_weights(tmp_path: Path) -> None:
    vit().save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"size": 32, "image_mean": [0.5, 0.5, 0.5]}')
    mine, read = Processor((32, 32), mean=(0.1, 0.2, 0.3)), Processor(32, mean=(0.5,) * 3)
    assert load(tmp_path, processor=mine, check=False).processor is mine  # pyright: ignore[reportAttributeAccessIssue]
    assert load(tmp_path, check=False).processor == read  # pyright: ignore[reportAttributeAccessIssue]
