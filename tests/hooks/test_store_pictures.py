"""A harvest of pictures writes what capture gives, place by place, and every reader of a store reads it."""

from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from PIL import Image

from hooks import Images, Network, capture, load
from hooks.errors import InvalidArgument, InvalidType, MissingFile, OutOfRange, WrongModel
from hooks.position import cls, patch, special, where
from hooks.site import conv_act, conv_pre, embedding, logits, pattern, resid_post
from hooks.store import ActivationStore, harvest, packed, plan
from hooks.store.documents import count, sample
from hooks.store.places import _size, places
from interp.postcard import draw, scenes
from interp.sae import TopK, read_activations, tensor_source, train

PICTURES = draw(scenes("test", 9)).images()


def kept(store: ActivationStore, site: Any) -> torch.Tensor:
    return store[:][site]


def test_rows_are_the_places_of_the_capture_and_a_picture_is_a_document(convnet: Network, tmp_path: Path) -> None:
    sites = [conv_act[2], conv_pre[3]]
    store = harvest(convnet, PICTURES, sites, tmp_path, dtype=torch.float32, documents_per_shard=4, batch_size=2)
    acts = capture(convnet, PICTURES, sites)
    for site in sites:
        torch.testing.assert_close(kept(store, site), acts.flat(site))
    places = acts[sites[0]].shape[1]
    assert store.documents.tolist() == [i * places for i in range(10)]
    assert torch.equal(store[:].ids.long(), torch.arange(places).repeat(9))


def test_a_class_token_is_left_out_unless_it_is_asked_for(tower: Network, tmp_path: Path) -> None:
    site, acts = resid_post[1], capture(tower, PICTURES, resid_post[1])
    for name, at in (("patches", None), ("class", cls), ("both", special)):
        given: dict[str, Any] = {} if at is None else {"at": at}
        store = harvest(tower, PICTURES, site, tmp_path / name, dtype=torch.float32, **given)
        wanted = acts[site][:, 1:].flatten(0, 1) if at is None else acts[site][:, 0]
        torch.testing.assert_close(kept(store, site), wanted)
    assert store[:].ids.tolist() == [0] * 9


def test_a_mask_of_pixels_selects_the_rows_of_each_picture(convnet: Network, tmp_path: Path) -> None:
    site, at = conv_act[2], where("landmark")
    store = harvest(convnet, PICTURES, site, tmp_path, at=at, dtype=torch.float32, documents_per_shard=2)
    acts = capture(convnet, PICTURES, site)
    mask = at.mask(acts.tokens.places(acts[site].shape[1], site))
    torch.testing.assert_close(kept(store, site), acts.flat(site, at))
    assert store.documents.diff().tolist() == mask.sum(1).tolist()
    assert torch.equal(store[:].ids.long(), mask.nonzero()[:, 1])


def test_files_and_a_column_of_a_data_set_give_the_store_of_their_pixels(convnet: Network, tmp_path: Path) -> None:
    drawn, files = (PICTURES.pixels * 255).round().byte(), []
    for i, one in enumerate(drawn):
        files.append(tmp_path / f"{i}.png")
        Image.fromarray(one.movedim(0, -1).numpy()).save(files[-1])
    table = datasets.Dataset.from_dict({"image": [str(f) for f in files], "label": [*range(9)]})
    column = table.cast_column("image", datasets.Image())
    assert count(tmp_path) == count(tmp_path / "*.png") == len(files) == 9
    bare = Images(drawn.float() / 255)
    whole = harvest(convnet, bare, conv_act[2], tmp_path / "pixels", documents_per_shard=4)
    for name, data in {"files": files, "column": column, "stream": column.to_iterable_dataset()}.items():
        store = harvest(convnet, data, conv_act[2], tmp_path / name, documents_per_shard=4)
        assert torch.equal(kept(store, conv_act[2]), kept(whole, conv_act[2]))
        assert store.manifest.data_fingerprint == whole.manifest.data_fingerprint


def test_a_store_of_pictures_is_gone_on_with_and_not_with_other_pictures(convnet: Network, tmp_path: Path) -> None:
    first = harvest(convnet, PICTURES, conv_act[2], tmp_path, documents_per_shard=2)
    before, shard = kept(first, conv_act[2]), first.manifest.shards[1]
    for file in tmp_path.glob(f"{shard.name}.*"):
        file.unlink()
    assert torch.equal(
        kept(harvest(convnet, PICTURES, conv_act[2], tmp_path, documents_per_shard=2), conv_act[2]), before
    )
    pixels = PICTURES.pixels.clone()
    pixels[5, 0, 0, 0] = 1 - pixels[5, 0, 0, 0]
    with pytest.raises(WrongModel, match="other data"):
        harvest(convnet, Images(pixels, PICTURES.masks), conv_act[2], tmp_path, documents_per_shard=2)


def test_an_autoencoder_of_a_store_is_that_of_the_same_rows_as_a_tensor(tower: Network, tmp_path: Path) -> None:
    store = harvest(tower, PICTURES, resid_post[0], tmp_path, dtype=torch.float32)
    rows = torch.cat([*read_activations(store, resid_post[0])])
    assert torch.equal(rows.sort(0).values, capture(tower, PICTURES, resid_post[0]).flat(resid_post[0]).sort(0).values)
    made = []
    for source in (read_activations(store, resid_post[0]), tensor_source(rows)):
        torch.manual_seed(0)
        sae = TopK(32, 48, k=4)
        train(sae, source, tokens=4000, progress=False)
        made.append(sae.W_dec.detach())
    assert torch.equal(*made)


def test_the_plan_counts_places(convnet: Network, tmp_path: Path) -> None:
    planned = plan(convnet, PICTURES, conv_act[2], tmp_path)
    assert planned.tokens == 9 * capture(convnet, PICTURES[:1], conv_act[2])[conv_act[2]].shape[1]


def test_a_module_of_vectors_is_harvested_from_a_tensor(tmp_path: Path) -> None:
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    net = load(torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU()), inputs=x[:1])
    store = harvest(net, x, "module(1)", tmp_path, dtype=torch.float32, documents_per_shard=3)
    torch.testing.assert_close(kept(store, store.sites[0]), net.run(x).detach())


@pytest.mark.parametrize(
    ("given", "options", "kind", "says"),
    [
        (PICTURES, {"sites": [conv_act[0], conv_act[2]]}, InvalidArgument, "harvest each grid into a store of its own"),
        (PICTURES, {"sites": [conv_act[2], logits]}, InvalidArgument, "logits one place"),
        (PICTURES, {"packing": packed(8)}, InvalidArgument, "lays out texts, and ConvNet reads none"),
        (PICTURES, {"at": patch(9, 0)}, OutOfRange, "row 9 was asked for"),
        ([], {}, InvalidArgument, "got no pictures"),
        (["fog"], {}, MissingFile, "no picture 'fog'"),
        (3, {}, InvalidType, "a picture is a file"),
    ],
)
def test_what_cannot_be_stored_is_refused(
    convnet: Network, given: Any, options: dict[str, Any], kind: Any, says: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=says):
        harvest(convnet, given, options.pop("sites", conv_act[2]), tmp_path, **options)
    assert [*tmp_path.iterdir()] == []


def test_patterns_have_no_rows_and_a_place_of_its_own_is_one_row(tower: Network, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="has a width that depends"):
        harvest(tower, PICTURES, pattern[0], tmp_path)
    store = harvest(tower, PICTURES, embedding, tmp_path, dtype=torch.float32)
    torch.testing.assert_close(kept(store, embedding), capture(tower, PICTURES, embedding)[embedding][:, 0])


@pytest.mark.parametrize("n", [1, 2, 4, 9, 20])
def test_a_sample_of_pictures_is_every_so_many_of_them(convnet: Network, n: int) -> None:
    numbered = Images((torch.arange(9.0) / 10).view(9, 1, 1, 1).expand(9, 3, 64, 64).contiguous())
    found = sample(numbered, n, convnet)
    assert isinstance(found, Images)
    step = next(step for step in range(1, 10) if len(range(0, 9, step)) <= n)  # the least that gives no more than n
    assert found.pixels[:, 0, 0, 0].mul(10).round().long().tolist() == [*range(0, 9, step)]


def test_pictures_are_laid_out_by_the_places_of_the_first_of_them(convnet: Network) -> None:
    seen: list[int] = []
    handle = convnet.hf.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    try:
        packing = places(convnet, [conv_act[2], conv_pre[2]], PICTURES)
    finally:
        handle.remove()
    assert seen == [1]
    placed, n = packing.place(convnet, PICTURES[:3]), capture(convnet, PICTURES[:1], conv_act[2])[conv_act[2]].shape[1]
    assert placed is not None and placed.document.tolist() == [[number] * n for number in range(3)]
    assert [_size(torch.zeros(2, many, 5)) for many in (1, 2, 49)] == ["one place", "2 places", "49 places"]


class Sides(torch.nn.Module):
    """Two maps of one size, whose places are elsewhere in the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.even = torch.nn.Conv2d(3, 4, 2, stride=2)
        self.odd = torch.nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.same = torch.nn.Conv2d(3, 4, 2, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.even(x) + self.odd(x) * self.same(x)).mean((2, 3))


def test_maps_of_one_size_are_of_one_store_where_their_places_are_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net: Any = load(Sides().eval(), inputs=PICTURES.pixels[:1, :, :16, :16])
    pictures = PICTURES.pixels[:, :, :16, :16].contiguous()
    store = harvest(net, pictures, ["module(even)", "module(same)"], tmp_path / "one", dtype=torch.float32)
    assert len(store) == 9 * 64
    with pytest.raises(InvalidArgument, match=r"even.* has 64 places and .*odd.* 64 places, or they are elsewhere in"):
        harvest(net, pictures, ["module(even)", "module(odd)"], tmp_path / "two")


def test_pictures_of_whole_numbers_give_the_store_of_their_fractions(convnet: Network, tmp_path: Path) -> None:
    drawn = (PICTURES.pixels * 255).round().byte()
    whole = harvest(convnet, drawn, conv_act[2], tmp_path / "bytes", dtype=torch.float32)
    expected = capture(convnet, Images(drawn.float() / 255), conv_act[2]).flat(conv_act[2])
    torch.testing.assert_close(kept(whole, conv_act[2]), expected)
