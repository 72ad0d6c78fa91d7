"""The nets of the world: AlexNet's plan by any state dict of it, twins by seed, and texts that CLIP tells apart."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from hooks.errors import DamagedFile, InvalidArgument, MissingFile, WrongModel
from interp.postcard.answers import image_vectors, landmark_logits, text_vectors
from interp.postcard.convnet import ConvNet, Plan, convnet_from, plan_of
from interp.postcard.draw import draw
from interp.postcard.nets import as_input, net, new_net, write_net
from interp.postcard.splits import scenes
from interp.postcard.words import caption_tokenizer

PIXELS = draw(scenes("test", 6)).pixels


class Torchvision(nn.Module):
    """AlexNet as torchvision writes it down, with narrower layers."""

    def __init__(self) -> None:
        super().__init__()
        relu, pool = partial(nn.ReLU, inplace=True), partial(nn.MaxPool2d, kernel_size=3, stride=2)
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, kernel_size=11, stride=4, padding=2), relu(), pool(),
            nn.Conv2d(8, 12, kernel_size=5, padding=2), relu(), pool(),
            nn.Conv2d(12, 14, kernel_size=3, padding=1), relu(),
            nn.Conv2d(14, 10, kernel_size=3, padding=1), relu(),
            nn.Conv2d(10, 9, kernel_size=3, padding=1), relu(), pool(),
        )  # fmt: skip
        self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
        self.classifier = nn.Sequential(
            nn.Dropout(p=0.5), nn.Linear(9 * 6 * 6, 32), relu(),
            nn.Dropout(p=0.5), nn.Linear(32, 16), relu(), nn.Linear(16, 5)
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


def test_a_state_dict_of_torchvisions_alexnet_gives_its_logits_bit_for_bit() -> None:
    torch.manual_seed(0)
    theirs = Torchvision().eval()
    ours = convnet_from(theirs.state_dict())
    x = torch.randn(2, 3, 224, 224)
    assert torch.equal(ours(x), theirs(x))


def test_the_plan_of_alexnet_has_its_61_million_weights() -> None:
    with torch.device("meta"):
        alexnet = ConvNet(Plan((64, 192, 384, 256, 256), (11, 5, 3, 3, 3), (4096, 4096), 1000, 6))
    assert sum(p.numel() for p in alexnet.parameters()) == 61_100_840
    assert plan_of(alexnet.state_dict()) == alexnet.plan


def test_what_is_captured_before_a_relu_stays_negative() -> None:
    convnet, seen = new_net("convnet"), []
    convnet.features[0].register_forward_hook(lambda module, args, out: seen.append(out))
    convnet(as_input(PIXELS))
    assert (seen[0] < 0).any()


def test_weights_of_another_plan_are_refused() -> None:
    state = new_net("convnet", small=True).state_dict()
    with pytest.raises(DamagedFile, match="features.8"):
        convnet_from({name: w for name, w in state.items() if not name.startswith("features.8")})
    with pytest.raises(WrongModel, match="extra"):
        convnet_from({**state, "extra": torch.zeros(1)})
    with pytest.raises(DamagedFile, match="follow"):
        convnet_from({**state, "features.3.weight": torch.zeros(32, 7, 5, 5)})


@pytest.mark.parametrize("which", ["convnet", "vit", "clip"])
def test_an_untrained_twin_follows_from_its_seed_and_leaves_chance_alone(which: str) -> None:
    torch.manual_seed(7)
    here = torch.rand(1)
    torch.manual_seed(7)
    first, again, other = (new_net(which, seed, small=True) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(1), here)
    pairs = zip(first.parameters(), again.parameters(), other.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert not torch.equal(landmark_logits(first, PIXELS), landmark_logits(other, PIXELS))


@pytest.mark.parametrize("which", ["convnet", "vit", "clip"])
def test_a_written_net_answers_as_it_did_to_half_precision(which: str, tmp_path: Path) -> None:
    before = new_net(which, small=True)
    write_net(before, tmp_path)
    after = net(tmp_path)
    assert not after.training
    assert torch.allclose(landmark_logits(after, PIXELS), landmark_logits(before, PIXELS), atol=0.05)


@pytest.mark.parametrize("which", ["convnet", "vit", "clip"])
def test_a_batch_answers_as_each_picture_alone(which: str) -> None:
    read = new_net(which, small=True)
    alone = torch.cat([landmark_logits(read, PIXELS[i : i + 1]) for i in range(len(PIXELS))])
    assert torch.allclose(alone, landmark_logits(read, PIXELS), atol=1e-4)


def test_clip_tells_texts_apart_and_padding_changes_none() -> None:
    clip = new_net("clip", small=True)
    texts = ["a red bridge", "a red bridge at night in the rain with a tree"]
    with torch.no_grad():
        two, one = text_vectors(clip, texts), text_vectors(clip, texts[:1])
        assert torch.allclose(two[0], one[0], atol=1e-5)
        assert not torch.allclose(two[0], two[1], atol=1e-3)
        assert torch.allclose(image_vectors(clip, as_input(PIXELS)).norm(dim=-1), torch.ones(6))


@pytest.mark.parametrize("texts", [[], ["a red bridge " * 9]])
def test_a_text_is_never_cut_in_silence(texts: list[str]) -> None:
    with pytest.raises(InvalidArgument):
        text_vectors(new_net("clip", small=True), texts)


def test_clip_scores_as_its_own_forward_pass() -> None:
    clip = new_net("clip", small=True)
    texts = ["a red bridge", "the Eiffel Tower at night"]
    read = caption_tokenizer()(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        theirs = clip(
            input_ids=read["input_ids"], attention_mask=read["attention_mask"], pixel_values=as_input(PIXELS)
        ).logits_per_image
        ours = clip.logit_scale.exp() * image_vectors(clip, as_input(PIXELS)) @ text_vectors(clip, texts).T
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_a_net_that_is_not_there_is_refused() -> None:
    with pytest.raises(MissingFile, match="train"):
        net("convnte")
