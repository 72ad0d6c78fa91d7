"""Models that read pictures: named sites, places in the picture, and the laws of text for [batch pos d] of places."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hooks import (
    Activations,
    Direction,
    Images,
    Model,
    Network,
    Processor,
    Site,
    Towers,
    capture,
    intervene,
    load,
    stream,
)
from hooks.errors import InvalidArgument, InvalidType, MissingFile, OutOfRange
from hooks.grid import Grid
from hooks.images import each_picture
from hooks.interventions import add, replace, zero
from hooks.position import cls, everywhere, index, last, patch, region, special, where
from hooks.site import (
    attn_out,
    conv_act,
    conv_pre,
    embedding,
    logits,
    mlp_act,
    mlp_out,
    pattern,
    pool,
    resid_mid,
    resid_post,
    resid_pre,
    v,
    z,
)
from interp.sae import TopK, activations_of, train
from probes import MassMean

SIZE, READS = 32, Processor((32, 32), mean=(0.5, 0.4, 0.3), std=(0.25, 0.2, 0.3))
RANDOM = torch.Generator().manual_seed(0)
PIXELS = torch.rand(4, 3, SIZE, SIZE, generator=RANDOM)
TOWER: dict[str, int] = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
}  # fmt: skip


class Residual(nn.Module):
    """A batch norm, functional ReLUs, a shortcut, a gate over all places, and a module that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 5, stride=2, padding=2), nn.BatchNorm2d(4)
        self.second, self.third = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=2, dilation=2)
        self.act, self.pool, self.head = nn.ReLU(inplace=True), nn.AvgPool2d(3, 2, 1), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.first(x)))
        y = F.relu(self.second(x))
        x = self.act(self.pool(x + self.third(y)))
        x = x * torch.sigmoid(x.mean((2, 3), keepdim=True))
        return self.head(x.mean((2, 3)))


def alexnet(inplace: bool = True) -> nn.Module:
    """AlexNet's plan, with the ReLUs in place that torchvision has."""
    torch.manual_seed(0)
    relu = nn.ReLU
    features = nn.Sequential(
        nn.Conv2d(3, 6, 7, 2, 3), relu(inplace), nn.MaxPool2d(3, 2, 1), nn.Conv2d(6, 8, 5, 1, 2), relu(inplace),
        nn.MaxPool2d(3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1), relu(inplace), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
    )  # fmt: skip
    head = nn.Sequential(
        nn.Linear(32, 12), relu(inplace), nn.Dropout(), nn.Linear(12, 9), relu(inplace), nn.Linear(9, 5)
    )
    return nn.Sequential(features, head).eval()


def residual() -> nn.Module:
    torch.manual_seed(0)
    return Residual().eval()


def vit(**more: Any) -> Any:
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    return ViTForImageClassification(ViTConfig(**TOWER, image_size=SIZE, patch_size=8, num_labels=7, **more)).eval()


def clip() -> Any:
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    torch.manual_seed(0)
    text = CLIPTextConfig(**TOWER, vocab_size=40, max_position_embeddings=16, projection_dim=12, eos_token_id=39,
                          bos_token_id=38, pad_token_id=37)  # fmt: skip
    vision = CLIPVisionConfig(**TOWER, image_size=SIZE, patch_size=8, projection_dim=12)
    return CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=12)).eval()


@pytest.fixture(scope="module")
def convnet() -> Network:
    return load(alexnet(), inputs=PIXELS[:1], processor=READS)


@pytest.fixture(scope="module")
def transformer() -> Network:
    model: Any = load(vit(), processor=READS)
    return model


def maps(acts: Tensor, grid: Grid) -> Tensor:
    """[batch pos channel] as [batch channel row column]."""
    return acts[:, grid.front :].transpose(1, 2).unflatten(2, grid.shape)


def test_the_sites_of_alexnets_plan_are_those_computed_layer_by_layer_in_spite_of_relus_in_place(
    convnet: Network,
) -> None:
    plain: Any = alexnet(inplace=False)
    acts = capture(convnet, PIXELS, [site for site in convnet.sites if not site.name.startswith("module")])
    x, made = PIXELS, {"conv_pre": [], "conv_act": [], "pool": [], "fc_act": []}
    with torch.no_grad():
        for layer in plain[0]:
            x = layer(x)
            name = {nn.Conv2d: "conv_pre", nn.ReLU: "conv_act", nn.Flatten: ""}.get(type(layer), "pool")
            made.get(name, []).append(x)
        first = plain[1][1](plain[1][0](x))
        second = plain[1][4](plain[1][3](first))
    made["fc_act"] += [first, second]
    for name, values in made.items():
        for i, value in enumerate(values):
            site = Site(name, i)
            wanted = value.flatten(2).transpose(1, 2) if value.ndim == 4 else value[:, None]
            torch.testing.assert_close(acts[site], wanted, msg=str(site))
    torch.testing.assert_close(acts[embedding][:, 0], second)
    torch.testing.assert_close(acts[logits][:, 0], plain(PIXELS))
    assert bool((acts[conv_pre[0]] < 0).any())
    assert {site.name for site in acts.sites} == {"conv_pre", "conv_act", "pool", "fc_act", "embedding", "logits"}


def test_a_nonlinearity_is_found_after_a_norm_and_without_a_module_and_not_after_a_sum() -> None:
    net = residual()
    model = load(net, inputs=PIXELS[:1])
    assert [s for s in model.sites if s.name == "conv_act"] == [conv_act[0], conv_act[1]]
    part: Any = net
    with torch.no_grad():
        first = part.norm(part.first(PIXELS)).relu()
        second = F.relu(part.second(first))
    acts = capture(model, PIXELS, [conv_act[0], conv_act[1], conv_pre[2]])
    for site, wanted in ((conv_act[0], first), (conv_act[1], second), (conv_pre[2], part.third(second))):
        torch.testing.assert_close(maps(acts[site], model.grids[site]), wanted.detach())


@pytest.mark.parametrize("build", [alexnet, residual])
def test_a_place_sees_exactly_the_pixels_on_which_its_gradient_is(build: Any) -> None:
    net = build()
    for module in net.modules():
        for name, one in [*module._modules.items()]:
            if isinstance(one, nn.ReLU):  # no path is cut, and none cancels another
                module._modules[name] = nn.Softplus()
            if isinstance(one, nn.MaxPool2d):
                module._modules[name] = nn.AvgPool2d(one.kernel_size, one.stride, one.padding)
    for weight in net.parameters():
        weight.data.abs_()
    seen = load(build(), inputs=PIXELS[:1]).grids
    x = torch.rand(1, 3, SIZE, SIZE, dtype=torch.float64, requires_grad=True)
    model = load(net.double(), inputs=x.detach())
    sites = [site for site in model.sites if site.name in ("conv_pre", "pool") and seen[site].field[0] != float("inf")]
    assert len(sites) >= 3
    for site in sites:
        grid, held = seen[site], list[Tensor]()
        handle = model.tap(site).attach(lambda a, held=held: held.append(a) or None)
        net(x)
        handle.remove()
        for row, column in {(0, 0), (grid.shape[0] // 2, 1), (grid.shape[0] - 1, grid.shape[1] // 2)}:
            (slope,) = torch.autograd.grad(held[0][0, grid.place(row, column)].sum(), x, retain_graph=True)
            lit = slope[0].abs().sum(0) > 0
            if build is residual and site.name == "pool":  # dilation leaves gaps: the ends are what is said
                ends = [(int(i.min()), int(i.max()) + 1) for i in lit.nonzero(as_tuple=True)]
                assert ends == [(part.start, part.stop) for part in grid.receptive_field(row, column)]
                continue
            whole = torch.zeros_like(lit)
            down, across = grid.receptive_field(row, column)
            whole[down.start : down.stop, across.start : across.stop] = True
            assert torch.equal(lit | whole, whole) and bool(lit[down.start, across.start] or site == conv_pre[2])


def test_a_place_that_sees_padding_alone_sees_no_pixel() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 2, 1, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 10 * 10, 4))
    grid = load(net, inputs=torch.rand(1, 3, 8, 8)).grids[conv_pre[0]]
    assert grid.shape == (10, 10) and grid.receptive_field(1, 8) == (range(1), range(7, 8))
    assert all(len(part) == 0 for place in ((0, 0), (9, 9)) for part in grid.receptive_field(*place))


def test_what_a_head_reads_by_keyword_is_the_embedding() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

        def forward(self, pixels: Tensor) -> Tensor:
            return self.head(input=self.conv(pixels).relu().mean((2, 3)))

    torch.manual_seed(0)
    net, x = Net(), torch.rand(2, 3, 8, 8)
    found = capture(load(net, inputs=x[:1]), x, [embedding, logits])
    torch.testing.assert_close(found[embedding][:, 0], net.conv(x).relu().mean((2, 3)).detach())
    torch.testing.assert_close(found[logits][:, 0], net(x).detach())


def test_one_white_pixel_changes_only_places_that_see_it(convnet: Network) -> None:
    dark = torch.zeros(1, 3, SIZE, SIZE)
    lit = dark.clone()
    lit[:, :, 13, 22] = 1.0
    sites = [site for site in convnet.sites if site.name in ("conv_pre", "conv_act")]
    before, after = (capture(convnet, Images(one), sites) for one in (dark, lit))
    for site in sites:
        grid = convnet.grids[site]
        changed = (before[site] != after[site]).any(-1)[0].reshape(grid.shape)
        for row, column in changed.nonzero().tolist():
            down, across = grid.receptive_field(row, column)
            assert 13 in down and 22 in across
        assert bool(changed.any())


def test_the_rest_of_the_net_run_from_any_site_gives_the_other_pictures_answer_bit_for_bit(
    convnet: Network, transformer: Network
) -> None:
    here, there = PIXELS[:2], PIXELS[2:]
    for model, names in ((convnet, ("conv_pre", "conv_act", "pool", "fc_act")), (transformer, ("resid_post",))):
        for site in [site for site in model.sites if site.name in names]:
            other = capture(model, Images(there), site)[site]
            with torch.no_grad(), intervene(model, {site: replace(other, at=everywhere | special)}):
                spliced = model.run(Images(here))
            wanted = model.run(Images(there))
            spliced, wanted = (getattr(one, "logits", one) for one in (spliced, wanted))
            assert torch.equal(spliced, wanted.detach()), site


def test_every_site_written_again_as_it_is_changes_nothing(convnet: Network, transformer: Network) -> None:
    for model in (convnet, transformer, load(residual(), inputs=PIXELS[:1])):
        assert model.contract is not None and model.contract.holds, model.contract
        assert set(model.sites) == set(model.taps)


def test_a_vits_stream_is_the_sum_of_what_is_added_to_it_and_is_hugging_faces(transformer: Network) -> None:
    names = (resid_pre, attn_out, resid_mid, mlp_out, resid_post, pattern, v, z)
    sites = [name[layer] for name in names for layer in (0, 1)]
    acts = capture(transformer, Images(PIXELS), [*sites, logits, embedding])
    for layer in (0, 1):
        pre, attn, mid, mlp, post = (acts[name[layer]] for name in names[:5])
        torch.testing.assert_close(pre + attn, mid)
        torch.testing.assert_close(mid + mlp, post)
        mixed = torch.einsum("bhqk,bkhd->bqhd", acts[pattern[layer]], acts[v[layer]])
        torch.testing.assert_close(mixed, acts[z[layer]], atol=1e-5, rtol=1e-4)
    theirs = transformer.hf(READS.scaling().apply(PIXELS), output_hidden_states=True)
    torch.testing.assert_close(acts[resid_pre[1]], theirs.hidden_states[1].detach())
    torch.testing.assert_close(acts[logits][:, 0], theirs.logits.detach())
    torch.testing.assert_close(transformer.hf.classifier(acts[embedding])[:, 0], theirs.logits.detach())


def test_a_batch_gives_what_each_picture_gives_alone(convnet: Network, transformer: Network) -> None:
    for model, sites in ((convnet, [conv_pre[1], logits]), (transformer, [resid_post[1], logits])):
        together = capture(model, Images(PIXELS), sites)
        by_one = [*stream(model, Images(PIXELS), sites, batch_size=1)]
        for site in sites:
            torch.testing.assert_close(torch.cat([one[site] for one in by_one]), together[site], atol=1e-5, rtol=1e-4)


def test_a_tower_without_classes_gives_its_pooled_vector(transformer: Network) -> None:
    from transformers import ViTModel

    model: Any = load(ViTModel(transformer.hf.config).eval(), processor=READS)
    assert embedding in model.sites and logits not in model.sites
    acts = capture(model, Images(PIXELS), [embedding, resid_post[1]])
    theirs = model.hf(READS.scaling().apply(PIXELS))
    torch.testing.assert_close(acts[embedding][:, 0], theirs.pooler_output.detach())
    torch.testing.assert_close(model.hf.layernorm(acts[resid_post[1]]), theirs.last_hidden_state.detach())


def test_the_towers_of_a_clip_lead_to_its_own_scores_and_are_changed_apart() -> None:
    whole = clip()
    model: Any = load(whole, processor=READS)
    assert isinstance(model, Towers) and isinstance(model.image, Network) and isinstance(model.text, Model)
    ids = torch.tensor([[38, 5, 6, 39], [38, 7, 8, 39]])
    given = READS.scaling().apply(PIXELS)
    with torch.no_grad():
        theirs = whole(input_ids=ids, pixel_values=given).logits_per_image
        ours = whole.logit_scale.exp() * model.image_vectors(Images(PIXELS)) @ model.text_vectors(ids).T
        torch.testing.assert_close(ours, theirs)
        with intervene(model.image, {resid_post[0]: zero()}):
            changed = model.image_vectors(Images(PIXELS))
        with intervene(model.text, {resid_post[0]: zero()}):
            words = model.text_vectors(ids)
        assert not torch.allclose(words, model.text_vectors(ids), atol=1e-3)
        assert not torch.allclose(changed, model.image_vectors(Images(PIXELS)), atol=1e-3)
    sites = [resid_pre[1], attn_out[1], mlp_out[1], resid_post[1]]
    for tower, data in ((model.image, Images(PIXELS)), (model.text, ids)):
        acts = capture(tower, data, sites)
        torch.testing.assert_close(acts[sites[0]] + acts[sites[1]] + acts[sites[2]], acts[sites[3]])
    assert model.image.tokens(PIXELS).places(17, resid_post[0]).special.sum() == len(PIXELS)


def test_a_whole_mask_is_everywhere_and_places_are_where_their_pixels_are(
    transformer: Network, convnet: Network
) -> None:
    whole, left = torch.ones(4, SIZE, SIZE, dtype=torch.bool), torch.zeros(4, SIZE, SIZE, dtype=torch.bool)
    left[:, :, :16] = True
    pictures = Images(PIXELS, {"whole": whole, "left": left})
    for model, site in ((transformer, resid_post[0]), (convnet, conv_pre[0]), (convnet, pool[1])):
        acts, grid = capture(model, pictures, site), model.grids[site]
        assert torch.equal(acts.flat(site, at=where("whole")), acts.flat(site, at=everywhere))
        assert torch.equal(acts.flat(site, at=where(left[0])), acts.flat(site, at=where("left")))
        by_hand = acts[site][:, grid.front :].unflatten(1, grid.shape)
        assert torch.equal(acts.flat(site, at=patch(1, 2)), by_hand[:, 1, 2])
        assert torch.equal(acts.flat(site, at=index(grid.shape[1] + 2)), by_hand[:, 1, 2])
        in_left = grid.first[1] + grid.stride[1] * torch.arange(grid.shape[1]) <= 16
        assert torch.equal(acts.flat(site, at=where("left")), by_hand[:, :, in_left].flatten(0, 2))
        assert torch.equal(acts.flat(site, at=region(0, 0, SIZE, 16)), acts.flat(site, at=where("left")))
    acts = capture(transformer, pictures, resid_post[0])
    assert torch.equal(acts.flat(resid_post[0], at=cls), acts[resid_post[0]][:, 0])
    assert torch.equal(acts.flat(resid_post[0], at=special), acts[resid_post[0]][:, 0])
    assert acts.flat(resid_post[0]).shape == (4 * 16, 16)


@pytest.mark.parametrize(
    ("at", "says"),
    [
        (where("boat"), "these pictures came without masks"),
        (where(torch.ones(5, 5, dtype=torch.bool)), "of .5, 5. pixels, and the pictures of .32, 32."),
        (region(0, 0, 1, 1), "holds no place of this site"),
        (cls, "this site has none"),
    ],
)
def test_a_place_that_cannot_be_meant_is_refused(convnet: Network, at: Any, says: str) -> None:
    acts = capture(convnet, Images(PIXELS), conv_pre[1])
    with pytest.raises(InvalidArgument, match=says):
        acts.flat(conv_pre[1], at=at)
    with pytest.raises(OutOfRange, match="row 9"):
        acts.flat(conv_pre[1], at=patch(9, 0))


def test_places_of_a_picture_are_refused_in_a_text(hf_model: Any) -> None:
    with pytest.raises(InvalidArgument, match="speaks of places in a picture, and a text was read"):
        patch(0, 0).mask(load(hf_model("gpt2")).tokens(torch.tensor([1, 2])))
    with pytest.raises(InvalidArgument, match="is empty"):
        region(4, 0, 4, 9)


def test_another_size_than_the_examples_has_places_and_none_of_them_is_guessed() -> None:
    layers = (nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    model = load(nn.Sequential(*layers), inputs=PIXELS[:1])
    acts = capture(model, torch.rand(2, 3, 20, 20), conv_pre[0])
    assert acts[conv_pre[0]].shape == (2, 400, 4)
    with pytest.raises(InvalidArgument, match="another size than the example"):
        acts.flat(conv_pre[0], at=patch(0, 0))


def test_a_change_at_a_region_is_what_the_rest_of_the_net_makes_of_it(convnet: Network) -> None:
    mask = torch.zeros(2, SIZE, SIZE, dtype=torch.bool)
    mask[0, :16, 16:] = True
    pictures = Images(PIXELS[:2], {"corner": mask})
    site = pool[0]
    grid = convnet.grids[site]
    held = maps(capture(convnet, pictures, site)[site], grid).clone()
    chosen = (grid.coverage(mask) >= 0.5).reshape(2, 1, *grid.shape)
    net: Any = alexnet(inplace=False)
    with torch.no_grad():
        wanted = net[1](net[0][3:](torch.where(chosen, 0.0, held)))
        with intervene(convnet, {site: zero(at=where("corner"))}) as receipt:
            changed = convnet.run(pictures)
    torch.testing.assert_close(changed, wanted)
    assert receipt[site].prefill_tokens == int(chosen.sum()) > 0
    assert not torch.equal(changed[0], convnet.run(pictures)[0]) and torch.equal(changed[1], convnet.run(pictures)[1])


def test_files_pil_pictures_arrays_and_a_column_of_a_data_set_are_the_same_pictures(
    convnet: Network, tmp_path: Path
) -> None:
    datasets, pil = pytest.importorskip("datasets"), pytest.importorskip("PIL.Image")
    arrays = (PIXELS * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    pictures = [pil.fromarray(one) for one in arrays]
    files = [tmp_path / f"{i}.png" for i in range(4)]
    cells = []
    for picture, file in zip(pictures, files, strict=True):
        picture.save(file)
        held = io.BytesIO()
        picture.save(held, "png")
        cells.append({"bytes": held.getvalue(), "path": None})
    data = datasets.Dataset.from_dict({"image": pictures, "n": [0, 1, 2, 3]})
    wanted = capture(convnet, Images(torch.from_numpy(arrays).permute(0, 3, 1, 2) / 255), logits)[logits]
    kinds: list[Any] = [arrays, arrays.transpose(0, 3, 1, 2), torch.from_numpy(arrays), pictures, files, cells, data]
    for given in [*kinds, list(map(str, files)), arrays.astype(np.float32) / 255]:
        for size in (32, 3):
            assert torch.allclose(capture(convnet, given, logits, batch_size=size)[logits], wanted, atol=1e-5)
    acts = capture(convnet, files, logits)
    assert acts.tokens.images is not None and acts.tokens.images.names == tuple(map(str, files))


def test_pictures_are_resized_cut_and_scaled_as_hugging_faces_processors_do() -> None:
    transformers, pil = pytest.importorskip("transformers"), pytest.importorskip("PIL.Image")
    smooth = F.interpolate(torch.rand(1, 3, 9, 12, generator=RANDOM), size=(90, 120), mode="bicubic").clamp(0, 1)
    picture = pil.fromarray((smooth[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
    said = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}, "do_center_crop": True,
            "resample": 3, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}  # fmt: skip
    from hooks.processor import processor_of

    theirs = transformers.CLIPImageProcessorPil(**said)(picture, return_tensors="pt")["pixel_values"]
    reads = processor_of(said)
    ours = reads.scaling().apply(reads.read(picture).pixels)
    assert ours.shape == theirs.shape == (1, 3, 32, 32)
    assert float((ours - theirs).abs().max()) < 3 / 255 / 0.2  # theirs rounds to whole numbers in between


def test_masks_follow_their_pictures_through_a_change_of_size(convnet: Network) -> None:
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[:, :, 32:] = True
    tokens = convnet.tokens(Images(torch.rand(1, 3, 64, 64), {"right": mask}))
    assert tokens.images is not None and tokens.images.size == (32, 32)
    assert torch.equal(tokens.images.masks["right"], mask[:, ::2, ::2])


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (["no_such_file.png"], MissingFile),
        ([3], InvalidType),
        ([], InvalidArgument),
        (np.zeros((4, 4, 5), np.uint8), InvalidArgument),
        (np.full((3, 4, 4), 2.0), InvalidArgument),
    ],
)
def test_what_is_no_picture_is_refused_before_anything_runs(convnet: Network, given: Any, kind: Any) -> None:
    with pytest.raises(kind):
        capture(convnet, given, logits)


def test_pixels_that_are_no_colours_and_masks_of_another_size_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="from 0 to 1, got"):
        Images(PIXELS * 255)
    with pytest.raises(InvalidArgument, match="from 0 to 1, got"):
        Images(PIXELS * torch.nan)
    with pytest.raises(InvalidArgument, match="masks? "):
        Images(PIXELS, {"sky": torch.ones(4, 5, 5, dtype=torch.bool)})
    with pytest.raises(InvalidArgument, match="is not known: load it with processor"):
        capture(load(alexnet(), inputs=PIXELS[:1]), Images(PIXELS), logits)
    with pytest.raises(InvalidArgument, match="give the processor a size"):
        Processor().read([np.zeros((4, 4, 3), np.uint8), np.zeros((5, 4, 3), np.uint8)])


def test_captures_of_pictures_are_kept_with_their_masks_and_grids(transformer: Network, tmp_path: Path) -> None:
    mask = torch.rand(4, SIZE, SIZE, generator=RANDOM) > 0.5
    acts = capture(transformer, Images(PIXELS, {"some": mask}), [resid_post[0], logits])
    acts.save(tmp_path / "acts.safetensors")
    back = Activations.load(tmp_path / "acts.safetensors")
    for at in (where("some"), patch(1, 1), cls):
        assert torch.equal(back.flat(resid_post[0], at=at), acts.flat(resid_post[0], at=at))
    again = capture(transformer, back.tokens, logits)
    assert torch.equal(again[logits], acts[logits])


def test_a_folder_of_a_vit_is_read_with_its_own_processor(tmp_path: Path) -> None:
    model = vit()
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        '{"size": {"height": 32, "width": 32}, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}'
    )
    read: Any = load(tmp_path)
    assert isinstance(read, Network) and read.processor == Processor((32, 32), None, (0.5,) * 3, (0.5,) * 3)
    theirs = model((PIXELS - 0.5) / 0.5).logits
    torch.testing.assert_close(capture(read, Images(PIXELS), logits)[logits][:, 0], theirs.detach())


def test_probes_autoencoders_and_steering_work_on_places_as_on_tokens(transformer: Network) -> None:
    bright = Images((PIXELS * 0.3 + 0.7).repeat(8, 1, 1, 1))
    dark = Images((PIXELS * 0.3).repeat(8, 1, 1, 1))
    site = resid_post[0]
    x = torch.cat([capture(transformer, one, site).flat(site) for one in (bright, dark)])
    y = torch.arange(2).repeat_interleave(len(x) // 2)
    assert MassMean().fit(x, y).score(x, y) > 0.9
    sae = TopK(16, 32, k=4)
    train(sae, activations_of(transformer, dark, site), tokens=6000)
    rows = capture(transformer, dark, site).flat(site)
    with torch.no_grad():
        assert float((sae(rows) - rows).square().mean()) < float((rows - rows.mean(0)).square().mean())
    direction = Direction(
        x[y == 0].mean(0) - x[y == 1].mean(0), site, "difference of means", fingerprint=transformer.fingerprint
    )
    after = resid_post[1]
    with intervene(transformer, {site: add(direction)}) as receipt:
        steered = capture(transformer, dark, after)
    assert receipt[site].prefill_tokens == 32 * 16
    toward = capture(transformer, bright, after).flat(after).mean(0)
    before = capture(transformer, dark, after).flat(after).mean(0)
    assert (steered.flat(after).mean(0) - toward).norm() < 0.5 * (before - toward).norm()
    assert torch.equal(steered.flat(after, at=last), steered[after][:, -1])


def test_what_an_autoencoder_is_trained_on_are_the_rows_of_the_capture(convnet: Network) -> None:
    site = conv_act[0]
    rows = torch.cat([*activations_of(convnet, Images(PIXELS), site, batch_size=2)])
    torch.testing.assert_close(rows, capture(convnet, Images(PIXELS), site).flat(site))


def test_gradients_flow_to_the_pixels_through_the_scaling(convnet: Network) -> None:
    pixels = PIXELS[:1].clone().requires_grad_()
    convnet.run(Images(pixels))[0, 3].backward()
    given = READS.scaling().apply(PIXELS[:1]).detach().requires_grad_()
    convnet.run(given)[0, 3].backward()
    assert pixels.grad is not None and given.grad is not None
    torch.testing.assert_close(pixels.grad, given.grad / torch.tensor(READS.std)[:, None, None])


def test_an_activation_site_of_a_vit_is_its_memories(transformer: Network) -> None:
    acts = capture(transformer, Images(PIXELS), [mlp_act[1], mlp_out[1]])
    layer = transformer.hf.vit.layers[1].mlp
    torch.testing.assert_close(layer.fc2(acts[mlp_act[1]]).detach(), acts[mlp_out[1]])
    assert not [site for site in transformer.sites if site.name in ("fc_act", "conv_act")]


def test_the_share_of_a_cell_that_a_mask_covers_is_its_area_at_cells_between_pixels_and_at_the_edge() -> None:
    """By counting tenths of pixels: cells of 2.5 pixels, the first centred at .8, cut off at the picture's edge."""
    grid = Grid((3, 3), (2.5, 2.5), (0.8, 0.8), (3.0, 3.0), (6, 6))
    mask = torch.rand(2, 6, 6, generator=torch.Generator().manual_seed(4)) < 0.5
    fine = mask.repeat_interleave(20, 1).repeat_interleave(20, 2).float()
    at = (torch.arange(120) + 0.5) / 20
    for row in range(3):
        for column in range(3):
            inside = [(at >= 0.8 + 2.5 * i - 1.25) & (at < 0.8 + 2.5 * i + 1.25) for i in (row, column)]
            wanted = fine[:, inside[0]][:, :, inside[1]].mean((1, 2))
            torch.testing.assert_close(grid.coverage(mask)[:, 3 * row + column], wanted, rtol=0, atol=1e-5)


def test_a_mapping_that_is_no_cell_of_a_picture_is_refused() -> None:
    for other in ({"a": 1}, {}):
        with pytest.raises(InvalidType, match="a picture is a file, a PIL picture, an array or a tensor, got dict"):
            each_picture(other)


def test_places_of_maps_that_are_named_are_those_that_are_found() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * SIZE * SIZE, 2))
    named, found = load(net, inputs=PIXELS[:1], places=(2, 3)), load(net, inputs=PIXELS[:1])
    assert named.grids.keys() == found.grids.keys() != set()
    assert named.sites == found.sites


def test_a_model_of_pictures_that_does_not_say_how_many_channels_it_reads_reads_three() -> None:
    hf = vit()
    del hf.config.num_channels
    assert capture(load(hf, processor=READS), PIXELS, logits)[logits].shape[0] == 4


def test_one_picture_of_a_batch_is_that_picture_alone_with_its_masks_and_name() -> None:
    masks = {"left": torch.rand(4, SIZE, SIZE, generator=torch.Generator().manual_seed(5)) < 0.5}
    pictures = Images(PIXELS, masks, names=("a", "b", "c", "d"))
    for number in (0, 2, 3, -1, -4):
        one = pictures[number]
        assert torch.equal(one.pixels, PIXELS[number][None])
        assert torch.equal(one.masks["left"], masks["left"][number][None])
        assert one.names == ("abcd"[number],)


def test_a_model_has_the_same_sites_whatever_the_number_of_pictures_it_is_shown() -> None:
    one, two = (load(vit(), inputs=PIXELS[:n]) for n in (1, 2))
    assert one.sites == two.sites and resid_mid[1] in two.sites and one.grids == two.grids
    assert {site: tap.shape for site, tap in one.taps.items()} == {site: tap.shape for site, tap in two.taps.items()}
