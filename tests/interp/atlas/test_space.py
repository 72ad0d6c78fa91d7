"""Neighbours and arithmetic against planted spaces, where every answer and every chance is known."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from hooks import Images, load
from hooks.errors import InvalidArgument, NotFinite, OutOfRange, UnknownName
from hooks.position import where
from hooks.site import embedding, pool, resid_post
from interp.atlas import (
    Space,
    find_neighbours,
    find_offset,
    histogram_space,
    measure_analogies,
    measure_hubness,
    measure_precision,
    pixel_space,
    random_query,
    solve_analogy,
    space_at,
    token_space,
)
from interp.postcard import draw, load_net, new_net, scenes
from tests.conftest import tiny_hf


def planted(
    noise: float, n: int = 40, d: int = 24, seed: int = 0, change: float = 3.0
) -> tuple[Space, list[tuple[int, int]]]:
    """x = who it is + whether it is night + noise."""
    random = torch.Generator().manual_seed(seed)
    who, night = torch.randn(n, d, generator=random), change * torch.randn(d, generator=random)
    rows = torch.cat([who, who + night]) + noise * torch.randn(2 * n, d, generator=random)
    names = tuple(f"{i} {time}" for time in ("day", "night") for i in range(n))
    return Space(rows, names, site=resid_post[0]), [(i, n + i) for i in range(n)]


def test_an_offset_of_others_leads_to_the_right_item_and_no_control_does() -> None:
    space, pairs = planted(noise=0.01)
    found = measure_analogies(space, pairs)
    for table in (found.excluded, found.allowed):
        assert table["mean of the others"].value == table["one other pair"].value == 1.0
        assert table["mean and class"].value == 1.0
    assert found.allowed["c alone"].value == 0.0 == found.allowed["random offset"].value
    assert found.excluded["random offset"].high < 0.5
    offset = find_offset(space, pairs)
    assert offset.consistency.low > 0.99
    assert offset.shuffled.high < 0.9


def test_where_the_change_is_small_leaving_c_out_is_all_that_finds_the_answer() -> None:
    space, pairs = planted(noise=0.0, change=0.1)
    found = measure_analogies(space, pairs, classes=False)
    assert found.excluded["c alone"].value == 1.0 == found.excluded["random offset"].value
    assert found.allowed["c alone"].value == 0.0


def test_pairs_that_share_an_item_are_not_tried_on_each_other() -> None:
    """Eight items of noise with two others each: what the two pairs of one have in common is the item, no change."""
    found = []
    for seed in range(20):
        rows = torch.randn(24, 64, generator=torch.Generator().manual_seed(seed))
        space = Space(rows, tuple(map(str, range(24))), site=resid_post[0])
        pairs = [(i, 8 + 2 * i + j) for i in range(8) for j in (0, 1)]
        found.append(find_offset(space, pairs).consistency)
    assert abs(sum(e.value for e in found)) / 20 < 0.04 and {e.n for e in found} == {8}
    answered = measure_analogies(space, pairs)
    assert {e.n for e in answered.excluded.values()} == {8} and answered.n == 16
    with pytest.raises(InvalidArgument, match="pair 0 shares an item with all others"):
        measure_analogies(space, [(0, 5), (0, 6), (0, 7)])
    with pytest.raises(InvalidArgument, match="linked by shared items"):
        measure_analogies(space, [(0, 1), (1, 2), (2, 3), (3, 4)])


def test_pairs_that_do_not_belong_together_lead_nowhere() -> None:
    space, pairs = planted(noise=0.01)
    n = len(pairs)
    wrong = [(i, n + (i + 7) % n) for i in range(n)]
    assert measure_analogies(space, wrong, classes=False).excluded["mean of the others"].value == 0.0


def test_the_offset_is_the_mean_difference_and_its_consistency_is_the_mean_cosine_with_the_others() -> None:
    space, pairs = planted(noise=1.0, n=5)
    offset = find_offset(space, pairs)
    delta = torch.stack([space.rows[b] - space.rows[a] for a, b in pairs])
    torch.testing.assert_close(offset.direction.vector, delta.mean(0))
    cosines = [F.cosine_similarity(delta[i], delta[[j for j in range(5) if j != i]].mean(0), dim=0) for i in range(5)]
    assert offset.consistency.value == pytest.approx(float(torch.stack(cosines).mean()), abs=1e-6)


def test_the_chance_of_a_neighbour_is_that_of_the_items_that_may_be_one() -> None:
    """Crops of eight pictures of two kinds in a space of noise: crops of one picture are never neighbours."""
    labels, groups = ["ab"[i % 2] for i in range(8) for _ in range(25)], [i for i in range(8) for _ in range(25)]
    y, own = torch.tensor([label == "a" for label in labels]), torch.tensor(groups)
    apart = own[:, None] != own
    exact = float((((y[:, None] == y) & apart).sum(1) / apart.sum(1)).double().mean())
    found = []
    for seed in range(20):
        rows = torch.randn(200, 32, generator=torch.Generator().manual_seed(seed))
        space = Space(rows, tuple(map(str, range(200))))
        found.append(measure_precision({"noise": space}, labels, k=10, groups=groups))
    assert found[0].chance == pytest.approx(exact) == pytest.approx(75 / 175)
    assert sum(one.by_space["noise"].value for one in found) / 20 == pytest.approx(exact, abs=0.01)
    assert {one.by_space["noise"].n for one in found} == {8}, "crops of one picture are one case"
    with pytest.raises(InvalidArgument, match="200 rows and 2 groups"):
        measure_precision({"noise": space}, labels, groups=groups[:2])


def test_copies_of_pictures_make_no_interval_narrower() -> None:
    rows = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    labels = ["ab"[i % 2] for i in range(40)]
    once = measure_precision({"x": Space(rows, tuple(map(str, range(40))))}, labels, k=3).by_space["x"]
    again = Space(rows.repeat_interleave(9, 0), tuple(map(str, range(360))))
    groups = torch.arange(40).repeat_interleave(9)
    copied = measure_precision(
        {"x": again}, [x for x in labels for _ in range(9)], k=27, groups=groups.tolist()
    ).by_space["x"]
    assert (copied.value, copied.low, copied.high) == pytest.approx((once.value, once.low, once.high))


def test_excluded_items_are_named_and_c_alone_explains_what_exclusion_hides() -> None:
    space, _ = planted(noise=0.0)
    small = Space(torch.cat([space.rows[:3], space.rows[40:43]]), ("a", "b", "c", "A", "B", "C"))
    assert solve_analogy(small, "a", "A", "b", 1).names == ("B",)
    assert solve_analogy(small, "a", "A", "b", 1).excluded == ("a", "b", "A")
    near = Space(torch.tensor([[0.0, 0.0], [0.2, 0.0], [5.0, 1.0], [5.3, 1.0], [-5.0, 4.0]]), tuple("aAbBx"), "euclid")
    assert solve_analogy(near, "a", "A", "b", 1, exclude=()).names == ("B",)
    tiny = Space(torch.tensor([[0.0, 0.0], [0.1, 0.0], [5.0, 1.0], [5.3, 1.0], [-5.0, 4.0]]), tuple("aAbBx"), "euclid")
    assert solve_analogy(tiny, "a", "A", "b", 1, exclude=()).names == ("b",)
    assert solve_analogy(tiny, "a", "A", "b", 1).names == ("B",)


def test_turning_the_space_changes_no_neighbour_and_moving_it_changes_none() -> None:
    random = torch.Generator().manual_seed(1)
    rows = torch.randn(50, 8, generator=random)
    turn = torch.linalg.qr(torch.randn(8, 8, generator=random)).Q
    names = tuple(map(str, range(50)))
    for metric in ("cosine", "euclid"):
        plain, moved = (Space(x, names, metric) for x in (rows, rows @ turn + 5.0))  # type: ignore[arg-type]
        for i in range(50):
            assert find_neighbours(plain, i, 5).names == find_neighbours(moved, i, 5).names


def test_shuffled_labels_agree_as_often_as_chance_says() -> None:
    random = torch.Generator().manual_seed(2)
    space = Space(torch.randn(300, 4, generator=random), tuple(map(str, range(300))))
    labels = ["a"] * 150 + ["b"] * 100 + ["c"] * 50
    shares = []
    for seed in range(30):
        order = torch.randperm(300, generator=torch.Generator().manual_seed(seed)).tolist()
        found = measure_precision({"space": space}, [labels[i] for i in order], k=10)
        shares.append(found.by_space["space"].value)
    exact = sum(n / 300 * (n - 1) / 299 for n in (150, 100, 50))
    assert found.chance == pytest.approx(exact)
    assert abs(sum(shares) / 30 - exact) < 3 * 0.02 / math.sqrt(30) + 0.01


def test_items_of_one_group_are_no_neighbours() -> None:
    rows = torch.tensor([[0.0], [0.01], [1.0], [1.01]])
    space = Space(rows, ("a", "a'", "b", "b'"), "euclid")
    alone = measure_precision({"x": space}, ["a", "a", "b", "b"], k=1)
    apart = measure_precision({"x": space}, ["a", "a", "b", "b"], k=1, groups=[0, 0, 1, 1])
    assert alone.by_space["x"].value == 1.0 and apart.by_space["x"].value == 0.0


def test_a_hub_is_found_and_an_even_space_has_none() -> None:
    spokes = F.normalize(torch.randn(30, 40, generator=torch.Generator().manual_seed(3)), dim=-1)
    star = Space(torch.cat([spokes, torch.zeros(1, 40)]), (*map(str, range(30)), "hub"), "euclid")
    found = measure_hubness(star, 1)
    assert found.hubs[0] == ("hub", 30) and found.skew > 3 and found.never > 0.9
    circle = torch.tensor([[math.cos(t), math.sin(t)] for t in torch.linspace(0, 2 * math.pi, 13)[:-1].tolist()])
    assert measure_hubness(Space(circle, tuple(map(str, range(12))), "euclid"), 2).skew == pytest.approx(0.0, abs=1e-6)


def test_a_row_of_a_space_is_the_mean_of_the_selected_places() -> None:
    drawn = draw(scenes("test", 3))
    model: Any = load_net(new_net("convnet", small=True))
    pictures = drawn.images()
    space = space_at(model, pictures, pool[1], at=where("landmark"), batch_size=2)
    from hooks import capture

    acts = capture(model, pictures, pool[1])
    for i in range(3):
        mask = where("landmark").mask(acts.tokens.places(64, pool[1]))[i]
        torch.testing.assert_close(space.rows[i], acts[pool[1]][i][mask].mean(0))
    assert space.fingerprint == model.fingerprint and space.site == pool[1]


def test_the_bundled_convnet_puts_pictures_of_a_landmark_together_and_their_pixels_do_not() -> None:
    shown = scenes("test", 1200)
    labels, pictures = [scene.landmark for scene in shown], draw(shown).images()
    model: Any = load_net("convnet")
    spaces = {
        "embedding": space_at(model, pictures, embedding, labels),
        "pixels": pixel_space(pictures, labels),
        "colours": histogram_space(pictures, labels),
    }
    found = measure_precision(spaces, labels, k=5)
    assert found.by_space["embedding"].low > 0.9
    assert found.by_space["pixels"].high < 0.35 > found.by_space["colours"].high
    assert "pixels" in str(found)


def word_pieces() -> Any:
    """A tokenizer of SentencePiece's kind, in which the letter a is a byte, too, and words bear their space."""
    words = ["<0x61>", "a", "▁little", "little", "▁"]
    inner = Tokenizer(models.BPE({piece: i for i, piece in enumerate(words)}, []))
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    inner.decoder = decoders.Sequence(parts)
    return PreTrainedTokenizerFast(tokenizer_object=inner)


def test_a_token_is_called_as_it_reads_in_a_text_and_of_two_that_read_alike_one_is_named_by_its_id() -> None:
    space = token_space(load(tiny_hf("gpt2", vocab_size=5), word_pieces()))
    assert space.names == ("a", "a", " little", "little", " ")
    assert space.number(" little") == 2 and space.number("little") == 3 and space.number("id:1") == 1
    with pytest.raises(UnknownName, match="2 are called 'a': say which by its number, one of id:0, id:1"):
        find_neighbours(space, "a", 1)
    with pytest.raises(UnknownName, match="give one of .*, or its number as in id:123"):
        space.number("big")
    with pytest.raises(OutOfRange, match="item 9 was asked for"):
        space.number("id:9")


def test_no_package_names_a_token_by_what_it_decodes_to_alone() -> None:
    alone = re.compile(r"\bdecode\(\[(?!\*)|\bdecode\(ids\[-1:\]")
    for package in ("hooks", "probes", "interp"):
        for file in (Path(__file__).parents[3] / package).rglob("*.py"):
            assert not alone.search(file.read_text("utf-8")), f"{file.name}: hooks.pieces.piece keeps a word's space"


def test_a_query_drawn_by_chance_has_the_mean_and_covariance_of_the_rows() -> None:
    rows = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([3.0, 1.0, 0.0]) + 5.0
    space = Space(rows, tuple(map(str, range(200))))
    drawn = torch.stack([random_query(space, seed) for seed in range(2000)])
    torch.testing.assert_close(drawn.mean(0), rows.mean(0), rtol=0, atol=0.25)
    torch.testing.assert_close(drawn.T.cov(), rows.T.cov(), rtol=0.1, atol=0.2)


def test_tokens_have_a_space_in_which_each_is_named() -> None:
    model: Any = load("landmark")
    space = token_space(model)
    assert len(set(space.names)) == len(space) == model.hf.get_input_embeddings().weight.shape[0]
    word = space.names[400]
    assert word not in find_neighbours(space, word, 5).names


@pytest.mark.parametrize(
    ("given", "kind", "says"),
    [
        (lambda s: find_neighbours(s, "mist"), UnknownName, "none is called 'mist'"),
        (lambda s: find_neighbours(s, "fog", 9), InvalidArgument, "9 neighbours were asked for"),
        (lambda s: find_offset(s, [("fog", "bay")]), InvalidArgument, "no direction: use space_at"),
        (lambda s: measure_analogies(s, [("fog", "bay")]), InvalidArgument, "at least three pairs"),
        (lambda s: measure_analogies(s, [("fog", "bay"), (0, 1), ("bay", "sea")]), InvalidArgument, "3 pairs .* 2 are"),
        (lambda s: measure_precision({"s": s}, ["a"]), InvalidArgument, "one for each"),
        (lambda s: Space(s.rows * torch.nan, s.names), NotFinite, "the row .fog. of the space holds nan"),
        (lambda s: Space(s.rows, ("a",)), InvalidArgument, "a name for each"),
    ],
)
def test_what_has_no_answer_is_refused(given: Any, kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says):
        given(Space(torch.eye(3), ("fog", "bay", "sea")))


def test_colours_of_equal_shares_are_equal_and_pictures_of_other_colours_are_far() -> None:
    red, blue = torch.zeros(3, 4, 4), torch.zeros(3, 4, 4)
    red[0], blue[2] = 1.0, 1.0
    space = histogram_space(Images(torch.stack([red, red.flip(1), blue])), ("red", "again", "blue"))
    scores = space.scores(space.rows)
    assert float(scores[0, 1]) == 0.0 and float(scores[0, 2]) == pytest.approx(-math.sqrt(2))
