"""Activation atlases against planted maps: rolls, clusters, linear nets, and numbers that must add up."""

import math
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import Tensor, nn

from hooks import Images, Processor, load
from hooks.errors import DamagedFile, InvalidArgument, UnknownName, WrongModel
from hooks.position import patch
from hooks.site import conv_act, conv_pre, embedding, resid_post
from interp.atlas import (
    Atlas,
    NeighbourGraph,
    Sample,
    Space,
    attribute_cells,
    cut_cells,
    draw_icons,
    find_walk,
    link_neighbours,
    map_activations,
    measure_map,
    read_cells,
    sample_activations,
)
from interp.atlas.activation_atlas import cell_of_row
from interp.atlas.map_quality import trustworthiness_of_rows
from interp.atlas.sample import unit_rows
from interp.common.umap_library import lay_out
from interp.postcard import draw, load_net, new_net, scenes
from interp.visualisation import Moves

needs_umap = pytest.mark.skipif(find_spec("umap") is None, reason="umap-learn is not installed")


def atlas_of(rows: Tensor, xy: Tensor, k: int = 8, labels: tuple[str, ...] | None = None, side: int = 6) -> Atlas:
    """An atlas whose map is given."""
    space = Space(rows, tuple(map(str, range(len(rows)))), site=embedding)
    sample = Sample(space, torch.arange(len(rows)), torch.zeros(len(rows), dtype=torch.long), labels)
    cells = cut_cells(xy, unit_rows(space), labels, side=side, least=2)
    return Atlas(sample, xy, xy, link_neighbours(space, k), cells, 2)


def roll(n: int = 900, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """A rolled sheet, as rows whose cosine falls with distance; its arc length, and the plane in which it is rolled."""
    random = torch.Generator().manual_seed(seed)
    angle = 1.5 * math.pi * (1 + 2 * torch.rand(n, generator=random))
    sheet = torch.stack([angle * angle.cos(), angle * angle.sin(), 4 * torch.rand(n, generator=random)], 1)
    waves = torch.randn(3, 256, generator=random) / 1.5
    rows = torch.cat([(sheet @ waves).cos(), (sheet @ waves).sin()], 1)
    return rows, angle, sheet[:, :2]


def test_a_walk_follows_the_roll_and_a_straight_line_on_the_map_does_not() -> None:
    rows, arc, plane = roll()
    walk = find_walk(atlas_of(rows, plane), int((arc - 3.5 * math.pi).abs().argmin()), int(arc.argmax()))  # across
    order = [abs(spearmanr(range(len(one.numbers)), arc[one.numbers]).statistic) for one in (walk.route, walk.straight)]
    assert order[0] > 0.98 and order[1] < 0.8
    assert walk.route.largest < walk.straight.largest and walk.route.largest < walk.random.largest
    assert walk.route.detour >= 1 and walk.route.changes is None


def test_rows_of_one_picture_are_one_case_of_how_far_a_map_is_believed() -> None:
    random = torch.Generator().manual_seed(0)
    rows, xy = torch.randn(160, 6, generator=random), torch.randn(160, 2, generator=random)
    atlas = atlas_of(rows, xy)
    places = replace(atlas, sample=replace(atlas.sample, item=torch.arange(160) // 8))
    alone, found = (measure_map(one, 5).trustworthiness["map"] for one in (atlas, places))
    assert (alone.n, found.n) == (160, 20) and found.value == alone.value


def test_the_shortest_way_along_a_line_of_rows_is_the_line() -> None:
    angles = torch.linspace(0, 2.6, 14)
    rows = torch.cat([torch.stack([angles.cos(), angles.sin()], 1)] * 2)
    space = Space(torch.cat([rows[:14], -rows[:14]]), tuple(map(str, range(28))), site=embedding)
    near = torch.stack([torch.arange(28).roll(1), torch.arange(28).roll(-1)], 1)
    near[0], near[13], near[14], near[27] = torch.tensor([1, 1]), torch.tensor([12, 12]), torch.tensor(
        [15, 15]), torch.tensor([26, 26])  # fmt: skip
    unit = unit_rows(space)
    far = 1 - (unit[:, None] * unit[near]).sum(-1)
    sample = Sample(space, torch.arange(28), torch.zeros(28, dtype=torch.long), tuple("ab"[i > 6] for i in range(28)))
    xy = torch.cat([rows[:14], -rows[:14]])
    atlas = Atlas(sample, xy, xy, NeighbourGraph(near, far), cut_cells(xy, unit, side=3, least=1), 1)
    walk = find_walk(atlas, 2, 11)
    assert walk.route.numbers.tolist() == [*range(2, 12)]
    assert walk.route.changes == 1 and walk.route.detour == pytest.approx(1.0, abs=1e-4)
    with pytest.raises(InvalidArgument, match="more neighbours"):
        find_walk(atlas, 0, 20)
    with pytest.raises(InvalidArgument, match="one and the same"):
        find_walk(atlas, 3, 3)
    assert atlas.number("b") in range(7, 28)
    with pytest.raises(UnknownName, match="no row and no label"):
        find_walk(atlas, "fog", 3)


def test_a_greater_power_takes_many_small_steps_and_a_small_one_few_large_ones() -> None:
    angles = torch.linspace(0, 2.6, 14)
    rows = torch.stack([angles.cos(), angles.sin()], 1)
    space = Space(torch.cat([rows, -rows]), tuple(map(str, range(28))), site=embedding)  # of mean 0
    steps = torch.tensor([-2, -1, 1, 2])
    near = torch.cat([(torch.arange(14)[:, None] + steps).clamp(0, 13) + first for first in (0, 14)])
    unit = unit_rows(space)
    sample = Sample(space, torch.arange(28), torch.zeros(28, dtype=torch.long), None)
    graph = NeighbourGraph(near, 1 - torch.einsum("nd,nkd->nk", unit, unit[near]))
    atlas = Atlas(sample, space.rows, space.rows, graph, cut_cells(space.rows, unit, side=3, least=1), 1)
    assert find_walk(atlas, 2, 10, power=0.4).route.numbers.tolist() == [2, 4, 6, 8, 10]
    for power in (1.0, 4.0):
        assert find_walk(atlas, 2, 10, power=power).route.numbers.tolist() == [*range(2, 11)]


@pytest.mark.parametrize("seed", range(5))
def test_every_row_is_in_one_cell_or_sparse_or_outside(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    xy = torch.randn(500, 2, generator=random) ** 3
    cells = cut_cells(xy, F.normalize(torch.randn(500, 4, generator=random), dim=1), side=9, least=4)
    held = torch.cat([cell.members for cell in cells.cells])
    assert len(held) == len(held.unique())
    assert len(held) + cells.sparse + cells.outside == 500
    assert all(len(cell) >= 4 for cell in cells.cells) and cells.sparse > 0 and cells.outside > 0
    for cell in cells.cells:
        low = [o + i * (h - o) / 9 for o, h, i in zip(cells.low, cells.high, (cell.column, cell.row), strict=True)]
        high = [
            o + (i + 1) * (h - o) / 9 for o, h, i in zip(cells.low, cells.high, (cell.column, cell.row), strict=True)
        ]
        inside = xy[cell.members]
        assert bool(((inside >= torch.tensor(low) - 1e-4) & (inside <= torch.tensor(high) + 1e-4)).all())


def test_rows_of_a_cell_are_sorted_by_their_mean_and_rows_of_one_direction_have_no_dispersion() -> None:
    xy = torch.tensor([[0.0, 0.0]] * 4 + [[1.0, 1.0]] * 4)
    unit = F.normalize(torch.tensor([[1.0, 0.0]] * 4 + [[1.0, 0.0], [0.0, 1.0], [0.2, 1.0], [0.1, 1.0]]), dim=1)
    cells = cut_cells(xy, unit, ["a"] * 4 + ["a", "b", "b", "b"], side=2, least=2).cells
    assert [cell.label for cell in cells] == ["a", "b"] and [cell.purity for cell in cells] == [1.0, 0.75]
    assert cells[0].dispersion == pytest.approx(0.0, abs=1e-6) and cells[1].dispersion > 0.1
    assert int(cells[1].members[-1]) == 4


def test_trustworthiness_is_that_of_scikit_learn() -> None:
    from sklearn.manifold import trustworthiness

    random = torch.Generator().manual_seed(3)
    unit = F.normalize(torch.randn(200, 6, generator=random), dim=1)
    for xy in (unit[:, :2], torch.randn(200, 2, generator=random)):
        mine = float(trustworthiness_of_rows(unit, xy, 7).mean())
        assert mine == pytest.approx(
            trustworthiness(unit.numpy(), xy.numpy(), n_neighbors=7, metric="cosine"), abs=1e-6
        )


def test_the_graph_is_that_of_all_pairs() -> None:
    space = Space(torch.randn(700, 9, generator=torch.Generator().manual_seed(0)), tuple(map(str, range(700))))
    graph, scores = link_neighbours(space, 5), space.scores(space.rows).fill_diagonal_(-torch.inf)
    assert torch.equal(graph.neighbours, scores.topk(5).indices)
    torch.testing.assert_close(graph.distances, 1 - scores.topk(5).values, atol=1e-5, rtol=0)
    with pytest.raises(InvalidArgument, match="fewer"):
        link_neighbours(space, 700)


def clusters(n: int = 240, seed: int = 0) -> Sample:
    random = torch.Generator().manual_seed(seed)
    which = torch.arange(n) % 6
    rows = 5 * F.normalize(torch.randn(6, 12, generator=random), dim=1)[which] + 0.4 * torch.randn(
        n, 12, generator=random
    )
    labels = tuple("abcdef"[i] for i in which.tolist())
    return Sample(Space(rows, tuple(map(str, range(n))), site=embedding), torch.arange(n), 0 * which, labels)


@needs_umap
def test_planted_clusters_are_pure_cells_and_one_seed_is_one_map(tmp_path: Path) -> None:
    sample, threads = clusters(), torch.get_num_threads()
    atlas, again = (map_activations(sample, neighbours=15, side=8, least=3) for _ in range(2))
    assert torch.equal(atlas.xy, again.xy)
    assert torch.get_num_threads() == threads
    assert all(cell.purity == 1.0 for cell in atlas.cells.cells)
    quality = measure_map(atlas, 8)
    assert quality.purity is not None and quality.purity.by_space["map"].value > 0.95 > 4 * quality.purity.chance
    assert quality.trustworthiness["map"].value > quality.trustworthiness["principal components"].value
    assert len(str(quality).splitlines()) == 7
    of_row = cell_of_row(atlas)
    assert int((of_row >= 0).sum()) == sum(map(len, atlas.cells.cells))
    atlas.save(tmp_path / "atlas.safetensors")
    read = Atlas.load(tmp_path / "atlas.safetensors")
    assert torch.equal(read.xy, atlas.xy) and torch.equal(read.means, atlas.means) and repr(read) == repr(atlas)
    assert torch.equal(read.graph.neighbours, atlas.graph.neighbours) and read.sample.labels == sample.labels
    torn = (tmp_path / "atlas.safetensors").read_bytes()
    (tmp_path / "torn.safetensors").write_bytes(torn[:-9])
    with pytest.raises(DamagedFile):
        Atlas.load(tmp_path / "torn.safetensors")


def test_threads_are_given_back_though_the_layout_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        def __init__(self, **_: Any) -> None: ...

        def fit_transform(self, _: Any) -> None:
            torch.set_num_threads(torch.get_num_threads() + 1)
            raise ValueError

    monkeypatch.setitem(sys.modules, "umap", type("umap", (), {"UMAP": Failing}))
    before = torch.get_num_threads()
    with pytest.raises(ValueError):  # noqa: PT011
        lay_out(torch.eye(3))
    assert torch.get_num_threads() == before


def linear(d: int = 5) -> Any:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, d, 8), nn.Flatten(), nn.Linear(d, 4))
    return load(net, inputs=torch.zeros(1, 3, 8, 8), processor=Processor((8, 8)))


def test_an_icon_of_a_linear_map_is_where_its_cell_is_and_noise_is_not() -> None:
    model, pictures = linear(), Images(torch.rand(60, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    sample = sample_activations(model, pictures, conv_pre[0])
    atlas = atlas_of(sample.space.rows, sample.space.rows[:, :2], side=3)
    atlas = Atlas(Sample(Space(sample.space.rows, sample.space.names, site=conv_pre[0]), sample.item, sample.place),
                  atlas.xy, atlas.pca, atlas.graph, atlas.cells, 2)  # fmt: skip
    icons = draw_icons(model, atlas, steps=400, power=4.0, moves=Moves(0.0, 0.0, 0.0))
    assert len(icons.pictures) == len(atlas.cells.cells) == len(icons.cosine)
    assert float(icons.cosine.min()) > 0.99
    assert float(icons.begun.mean()) < 0.7
    white = draw_icons(model, atlas, steps=5, whiten=True)
    assert len(white.pictures) == len(icons.pictures)


def test_the_share_of_a_class_in_a_linear_net_is_its_weights_times_the_activation() -> None:
    model, pictures = linear(), Images(torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(1)))
    sample = sample_activations(model, pictures, embedding)
    atlas = atlas_of(sample.space.rows, sample.space.rows[:, :2], side=2)
    found = attribute_cells(model, pictures, atlas, ["a", "b", "c", "d"], examples=3, top=4)
    w = [p for p in model.hf.parameters() if p.shape == (4, 5)][0].detach()
    for cell, words in zip(atlas.cells.cells, found, strict=True):
        wanted = (sample.space.rows[cell.members[:3]] @ w.T).mean(0)
        assert [name for name, _ in words] == ["abcd"[i] for i in wanted.argsort(descending=True).tolist()]
        assert [value for _, value in words] == pytest.approx(wanted.sort(descending=True).values.tolist(), abs=1e-5)
    with pytest.raises(WrongModel, match="logits of 7"):
        attribute_cells(model, pictures, atlas, list("abcdefg"))


def test_a_sample_does_not_depend_on_batches_and_leaves_the_class_token_out() -> None:
    vit: Any = load_net(new_net("vit", small=True))
    pictures = draw(scenes("test", 7)).images()
    labels = [str(i) for i in range(7)]
    one, two = (sample_activations(vit, pictures, resid_post[0], labels, per_item=9, batch_size=b) for b in (3, 7))
    assert torch.equal(one.place, two.place) and one.space.names == two.space.names
    torch.testing.assert_close(one.space.rows, two.space.rows, atol=1e-5, rtol=1e-5)
    assert len(one) == 63 and int(one.place.min()) >= 1
    assert all(len(one.place[one.item == i].unique()) == 9 for i in range(7))
    net: Any = load_net(new_net("convnet", small=True))
    exact = sample_activations(net, pictures, conv_act[4], at=patch(2, 3), per_item=4)
    assert len(exact) == 7 and set(exact.place.tolist()) == {net.grids[conv_act[4]].place(2, 3)}
    with pytest.raises(InvalidArgument, match="labels were given for 7 items"):
        sample_activations(net, pictures, conv_act[4], labels * 2)


def test_a_cell_of_texts_says_what_its_mean_would_and_marks_the_token_in_its_context() -> None:
    model: Any = load("landmark")
    texts = ["The Golden Gate Bridge is in San Francisco.", "Big Ben is in London.", "The Louvre is in Paris."] * 4
    sample = sample_activations(model, texts, resid_post[model.n_layers - 1], per_item=6)
    assert all(name.count("[") == 1 for name in sample.space.names)
    assert any("[ Bridge]" in name for name in sample.space.names) or any(
        "[ Gate]" in name for name in sample.space.names
    )
    atlas = atlas_of(sample.space.rows, sample.space.rows[:, :2], side=3)
    placed = Space(sample.space.rows, sample.space.names, site=sample.space.site)
    atlas = Atlas(Sample(placed, sample.item, sample.place), atlas.xy, atlas.pca, atlas.graph, atlas.cells, 2)
    words = read_cells(model, atlas, top=3)
    log_p = model.unembed(atlas.means).log_softmax(-1).detach()
    rest = model.unembed(placed.mean).log_softmax(-1).detach()
    first = [model.tokenizer.encode(said[0][0], add_special_tokens=False) for said in words]
    for i, ids in enumerate(first):
        assert words[i][0][1] == pytest.approx(float((log_p[i] - rest)[ids[0]]), abs=1e-3)
    with pytest.raises(InvalidArgument, match="residual stream"):
        read_cells(model, atlas_of(sample.space.rows, sample.space.rows[:, :2], side=3))
