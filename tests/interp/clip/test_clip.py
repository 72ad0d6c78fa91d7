"""The parts of a CLIP's vectors against their sum, names and latents against planted directions and concepts."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from hooks import Images
from hooks.errors import InvalidArgument, OutOfRange, WrongModel
from interp.clip import (
    ablate_heads,
    centre_rows,
    decompose_vectors,
    find_shared_latent,
    head_effects,
    map_patches,
    pair_rows,
    score_rows,
    span_head,
)
from interp.clip.decomposition import each_head
from interp.postcard import draw, load_net, new_net, scenes


@pytest.fixture(scope="module")
def exact() -> tuple[Any, Images]:
    """A CLIP in double precision, whose norms have gains and biases of their own, and pictures."""
    net: Any = new_net("clip", seed=3, small=True)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in net.parameters():
            if p.ndim == 1:
                p.add_(0.3 * torch.randn(p.shape, generator=random))
    net.set_attn_implementation("eager")
    return load_net(net.double()), Images(draw(scenes("test", 5)).images().pixels.double())


def test_heads_layers_and_the_rest_sum_to_the_vector_of_the_picture(exact: Any) -> None:
    clip, pictures = exact
    parts, own = decompose_vectors(clip, pictures, batch_size=2), clip.image.run(pictures).image_embeds.detach()
    assert float((parts.vectors - own).abs().max()) < 1e-10
    torch.testing.assert_close(F.normalize(parts.vectors, dim=-1), clip.image_vectors(pictures))
    assert parts.heads.std(0).min() >= 0 and float(parts.heads.abs().mean()) > 1e-3
    assert len([*each_head(parts)]) == parts.heads.shape[1] * parts.heads.shape[2]


def test_what_a_head_reads_at_each_place_sums_to_what_it_writes_along_a_direction(exact: Any) -> None:
    clip, pictures = exact
    u = torch.randn(128, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    places, parts = map_patches(clip, pictures, u, batch_size=2), decompose_vectors(clip, pictures)
    assert places.shape[-1] == 65
    assert float((places.sum(-1) - parts.heads @ u).abs().max()) < 1e-10
    with pytest.raises(InvalidArgument, match="128 dimensions"):
        map_patches(clip, pictures, u[:5])


def test_a_net_with_one_tower_has_no_such_parts() -> None:
    convnet: Any = load_net(new_net("convnet", small=True))
    clip: Any = load_net(new_net("clip", small=True))
    with pytest.raises(WrongModel, match="no image tower"):
        decompose_vectors(type(clip)(clip.hf, convnet, clip.text), draw(scenes("test", 1)).images())


def test_taking_a_head_out_changes_nothing_else_and_all_pictures_get_its_mean(exact: Any) -> None:
    clip, pictures = exact
    parts = decompose_vectors(clip, pictures)
    without = ablate_heads(parts, [(1, 0), (1, 0)])
    torch.testing.assert_close(without - parts.vectors, parts.heads[:, 1, 0].mean(0) - parts.heads[:, 1, 0])
    torch.testing.assert_close(ablate_heads(parts, []), parts.vectors)
    with pytest.raises(OutOfRange, match=r"head 7\.0"):
        ablate_heads(parts, [(7, 0)])
    u = torch.randn(128, dtype=torch.double)
    torch.testing.assert_close(head_effects(parts, parts, u), torch.zeros_like(parts.heads[0, ..., 0]))


def planted_head(n: int = 400, d: int = 40) -> tuple[Any, Any, list[str]]:
    random = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(d, d, generator=random, dtype=torch.double))[0]
    strengths = torch.tensor([3.0, 2.0, 1.0], dtype=torch.double)
    x = torch.randn(n, 3, generator=random, dtype=torch.double) * strengths @ axes[:3] + 5.0
    x = x + 0.05 * torch.randn(n, d, generator=random, dtype=torch.double)
    lengths = torch.cat([torch.tensor([0.5, 1.0, 2.0]), torch.full((20,), 30.0)])[:, None]  # the others are long
    others = torch.randn(20, d, generator=random, dtype=torch.double)
    others = F.normalize(others - others @ axes[:3].T @ axes[:3], dim=1)
    t = lengths * torch.cat([axes[:3], others])
    return x, torch.cat([t, -t]), [f"{sign}{i}" for sign in ("", "-") for i in range(23)]


def test_planted_texts_are_named_in_order_of_variance_however_short_and_never_beat_principal_components() -> None:
    x, t, names = planted_head()
    found = span_head(x, t, names, rank=6)
    assert [name.strip("-") for name in found.texts[:3]] == ["0", "1", "2"]
    assert bool((found.explained <= found.components + 1e-12).all())
    assert float(found.explained[2]) > 0.98 and float(found.random[2]) < 0.9 * float(found.explained[2])
    assert bool((found.explained[1:] >= found.explained[:-1]).all())
    assert len(str(found).splitlines()) == 7
    with pytest.raises(InvalidArgument, match="all pictures"):
        span_head(torch.ones(4, 40), t, names)
    with pytest.raises(InvalidArgument, match="rank 99"):
        span_head(x, t, names, rank=99)


def test_a_latent_that_is_one_concept_in_both_towers_is_found_and_one_of_pictures_alone_is_not() -> None:
    random = torch.Generator().manual_seed(0)
    y, said = (torch.rand(600, generator=random) < 0.1 for _ in range(2))
    pictures, texts = torch.rand(600, 30, generator=random), torch.rand(500, 30, generator=random)
    said = said[:500]
    pictures[:, 4] = y.float()  # perfect in pictures, nothing in texts
    pictures[:, 9] = y + 0.5 * torch.rand(600, generator=random)
    texts[:, 9] = 3 * said + torch.rand(500, generator=random)
    found = find_shared_latent(pictures, y, texts, said)
    assert found.latent == 9 and found.pictures.f1 == found.texts.f1 == 1.0
    assert max(found.shuffled) < 0.5
    with pytest.raises(InvalidArgument, match="shape"):
        find_shared_latent(pictures, y, texts[:, :5], said)
    with pytest.raises(InvalidArgument, match="0 of 300"):
        score_rows(pictures[:, 0], torch.zeros(600, dtype=torch.bool))


def test_rows_whose_group_chose_the_latent_are_not_those_it_is_scored_on() -> None:
    """A latent that knows the pictures of the first half by heart, and their copies: of others it knows nothing."""
    random = torch.Generator().manual_seed(0)
    y = torch.rand(100, generator=random) < 0.5
    values, own = torch.rand(400, 3, generator=random), torch.arange(100)
    of = torch.cat([own, own, own, own + 100])  # the second half has copies of the first, and 100 others
    values[:300, 1] = y.repeat(3).float()
    labels = torch.cat([y, y, y, torch.rand(100, generator=random) < 0.5])
    assert score_rows(values[:, 1], labels).f1 > 0.7
    assert (
        score_rows(values[:, 1], labels, groups=of.tolist()).f1
        == score_rows(
            torch.cat([values[:200, 1], values[300:, 1], values[300:, 1]]),
            torch.cat([labels[:200], labels[300:], labels[300:]]),
        ).f1
    )
    words = torch.cat([torch.rand(400, 1, generator=random), labels[:, None].float()], 1).repeat(1, 2)[:, :3]
    names = [[f"picture {i}" for i in of.tolist()], [f"caption {i}" for i in range(400)]]
    found = find_shared_latent(values, labels, words, labels, groups=(names[0], names[1]))
    apart = find_shared_latent(values, labels, words, labels)
    assert found.latent == apart.latent == 1 and found.pictures.f1 < apart.pictures.f1
    with pytest.raises(InvalidArgument, match="every row of the second half is of a group of the first"):
        score_rows(values[:200, 1], labels[:200], groups=[0] * 200)
    with pytest.raises(InvalidArgument, match="400 rows and 2 groups; give one per row"):
        find_shared_latent(values, labels, words, labels, groups=(["a", "b"], names[1]))


def test_a_caption_of_a_picture_that_chose_is_not_scored() -> None:
    random = torch.Generator().manual_seed(2)
    y = torch.rand(40, generator=random) < 0.5
    shown = torch.stack([torch.rand(40, generator=random), y.float()], 1)
    groups = (list(range(40)), [*range(20), *range(10), *range(30, 40)])
    said = shown.clone()
    said[20:30, 1] = 1.0 - said[20:30, 1]  # of pictures of the first half
    assert find_shared_latent(shown, y, said, y, groups=groups).texts.f1 == 1.0
    assert find_shared_latent(shown, y, said, y).texts.f1 < 1.0


def test_the_threshold_is_the_best_of_all_on_the_first_half_and_equal_scores_fall_on_one_side() -> None:
    random = torch.Generator().manual_seed(1)
    scores, y = torch.randint(0, 6, (80,), generator=random).float(), torch.rand(80, generator=random) < 0.4
    found = score_rows(scores, y)
    every = [
        float(2 * ((scores[:40] > t) & y[:40]).sum() / ((scores[:40] > t).sum() + y[:40].sum()))
        for t in (-0.5, 0.5, 1.5, 2.5, 3.5, 4.5)
    ]
    at = float(
        2 * ((scores[:40] > found.threshold) & y[:40]).sum() / ((scores[:40] > found.threshold).sum() + y[:40].sum())
    )
    assert at == pytest.approx(max(every))


def test_centred_rows_have_length_1_and_pairs_lack_what_is_not_given() -> None:
    rows = torch.randn(9, 4)
    torch.testing.assert_close(centre_rows(rows, rows).norm(dim=1), torch.ones(9))
    assert float(pair_rows(None, rows)[:, 0].abs().max()) == 0
    with pytest.raises(InvalidArgument, match="both towers"):
        pair_rows(None, None)
