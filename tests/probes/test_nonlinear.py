"""Probes that learn by gradient descent: what a line cannot read, which token to read, what needs no labels."""

from collections.abc import Callable

import pytest
import torch

from hooks import Site
from probes import CCS, MLP, AttentionProbe, Logistic


def test_a_hidden_layer_reads_an_exclusive_or_that_no_line_reads() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(900, 3, generator=g)
    y = (x[:, 0] > 0) != (x[:, 1] > 0)
    assert MLP(width=16, steps=200).fit(x[:600], y[:600]).score(x[600:], y[600:]) > 0.95
    assert Logistic().fit(x[:600], y[:600]).score(x[600:], y[600:]) < 0.6


def test_the_scaling_of_the_rows_does_not_matter_to_it() -> None:
    g = torch.Generator().manual_seed(1)
    x = torch.randn(100, 3, generator=g)
    y = x[:, 0] > 0
    probe, moved = MLP(width=4, steps=30), 1000 * x + 5
    assert torch.allclose(
        probe.fit(x, y).decision_function(x), MLP(width=4, steps=30).fit(moved, y).decision_function(moved), atol=1e-2
    )


def test_training_leaves_the_callers_random_numbers_and_gradients_alone() -> None:
    g = torch.Generator().manual_seed(2)
    x = torch.randn(20, 3, generator=g)
    torch.manual_seed(5)
    before = torch.rand(3)
    torch.manual_seed(5)
    with torch.no_grad():
        MLP(width=4, steps=3).fit(x, x[:, 0] > 0)
    assert torch.equal(torch.rand(3), before)


def marked(n: int, seed: int, length: int = 9) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noise in which one token, flagged in coordinate 0, has the label in coordinate 1; its place, and a mask."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, length, 6, generator=g)
    y = torch.rand(n, generator=g) < 0.5
    ends = torch.randint(4, length + 1, (n,), generator=g)
    place = (torch.rand(n, generator=g) * ends).long()
    x[torch.arange(n), place, 0] = 6.0
    x[torch.arange(n), place, 1] = torch.where(y, 2.0, -2.0)
    return x, y, place, torch.arange(length) < ends[:, None]


def test_the_attention_probe_finds_the_token_that_holds_the_label() -> None:
    x, y, _, mask = marked(400, seed=0)
    probe = AttentionProbe().fit(x, y, mask)
    fresh, truth, place, kept = marked(300, seed=1)
    assert float((probe.predict(fresh, kept) == truth).float().mean()) > 0.95
    assert float((probe.attention(fresh, kept)[:, 0].argmax(1) == place).float().mean()) > 0.95
    mean = torch.stack([a[k].mean(0) for a, k in zip(x, mask, strict=True)])
    pooled = torch.stack([a[k].mean(0) for a, k in zip(fresh, kept, strict=True)])
    assert Logistic().fit(mean, y).score(pooled, truth) < 0.85


def test_attention_sums_to_one_over_the_tokens_that_count() -> None:
    x, y, _, mask = marked(60, seed=2)
    attention = AttentionProbe(heads=3, steps=10).fit(x, y, mask).attention(x, mask)
    assert attention.shape == (60, 3, 9)
    assert torch.allclose(attention.sum(-1), torch.ones(60, 3))
    assert float(attention.masked_select(~mask[:, None]).abs().max()) == 0


def test_neither_what_padding_holds_nor_how_much_there_is_changes_a_score() -> None:
    x, y, _, mask = marked(60, seed=3)
    probe = AttentionProbe(heads=2, steps=10).fit(x, y, mask)
    wide = torch.cat([torch.full((60, 4, 6), torch.nan), torch.where(mask[..., None], x, 1e9)], 1)
    padded = probe.decision_function(wide, torch.cat([torch.zeros(60, 4, dtype=torch.bool), mask], 1))
    assert torch.allclose(padded, probe.decision_function(x, mask), atol=1e-5)


def test_rows_are_standardised_by_the_tokens_that_count_alone() -> None:
    x, y, _, mask = marked(60, seed=3)
    probe = AttentionProbe(steps=2).fit(torch.where(mask[..., None], x + 4, 1e6), y, mask)
    kept = (x + 4)[mask]
    assert torch.allclose(probe.mean_, kept.mean(0), atol=1e-4)
    assert float(probe.std_) == pytest.approx(float((kept - kept.mean(0)).square().mean().sqrt()), rel=1e-4)


def test_a_mask_of_0_and_1_is_the_mask_of_false_and_true_and_other_numbers_are_none() -> None:
    x, y, _, mask = marked(60, seed=3)
    probe = AttentionProbe(steps=5).fit(x, y, mask)
    again = AttentionProbe(steps=5).fit(x, y, mask.long())
    assert torch.equal(again.decision_function(x, mask.long()), probe.decision_function(x, mask))
    with pytest.raises(Exception, match=r"A mask is True or 1 where a token counts, got torch.float32|Type-check"):
        probe.decision_function(x, mask.float())
    with pytest.raises(
        TypeError, match="a mask is True or 1 where a token counts, got torch.int64 up to 2: give mask > 0"
    ):
        probe.decision_function(x, 2 * mask.long())


def test_the_position_term_learns_to_read_the_last_token() -> None:
    g = torch.Generator().manual_seed(4)
    x = torch.randn(400, 6, 4, generator=g)
    y = x[:, -1, 0] > 0
    probe = AttentionProbe(steps=400).fit(x, y)
    assert int(probe.attention(x).mean((0, 1)).argmax()) == 5
    assert float((probe.predict(x) == y).float().mean()) > 0.9


def test_a_text_without_tokens_is_refused() -> None:
    mask = torch.ones(3, 4, dtype=torch.bool)
    mask[1] = False
    with pytest.raises(ValueError, match="text 1 has no token that counts"):
        AttentionProbe().fit(torch.randn(3, 4, 2), torch.tensor([True, False, True]), mask)


def contrasts(n: int, seed: int, truth: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Statements and negations, apart by a constant and, `truth` times, by which of the two is true."""
    g = torch.Generator().manual_seed(seed)
    y = torch.rand(n, generator=g) < 0.5
    sign = torch.where(y, 1.0, -1.0)
    x = 0.3 * torch.randn(n, 2, 6, generator=g)
    x[:, 0, 0] += 2.0
    x[:, 0, 1] += truth * sign
    x[:, 1, 1] -= truth * sign
    return x, y


def test_contrasts_give_the_truth_without_labels_and_one_bit_gives_its_sign(cosine: Callable) -> None:
    x, y = contrasts(300, seed=0)
    fresh, truth = contrasts(300, seed=1)
    probe = CCS(steps=300).fit(x).orient(x[:20], y[:20])
    assert probe.score(fresh, truth) > 0.97
    assert cosine(probe.coef_, torch.eye(6)[1]) > 0.9


def test_orienting_by_the_opposite_labels_turns_every_score_around() -> None:
    x, y = contrasts(100, seed=2)
    one, other = CCS(steps=100).fit(x).orient(x, y), CCS(steps=100).fit(x).orient(x, ~y)
    assert torch.allclose(one.decision_function(x), -other.decision_function(x), atol=1e-6)
    assert one.score(x, y) + other.score(x, y) == 1


def test_its_scale_reaches_the_farthest_side_of_a_pair_whichever_way_it_is_turned() -> None:
    x, y = contrasts(100, seed=2)
    for labels in (y, ~y):
        probe = CCS(restarts=2, steps=100).fit(x).orient(x, labels)
        direction = probe.direction(Site("resid_post", 1))
        along = (x - x.mean(0)).flatten(0, 1) @ direction.unit
        assert direction.scale == pytest.approx(float(along.max()), rel=1e-5)


def test_fitted_again_it_forgets_where_its_pairs_came_from() -> None:
    x, _ = contrasts(20, seed=2)
    probe = CCS(restarts=1, steps=5).fit(x).at_site(Site("resid_post", 1), "abc")
    assert probe.direction_.fingerprint == "abc"
    with pytest.raises(AttributeError, match="rows do not say where they come from"):
        _ = probe.fit(x).direction_


def test_each_side_of_a_pair_is_centred_by_its_own_mean(cosine: Callable) -> None:
    """Sides that lie apart by a constant give what the same sides give without it."""
    x, _ = contrasts(100, seed=2)
    apart = x + torch.tensor([5.0, -3.0])[:, None] * torch.ones(6)
    plain, moved = CCS(restarts=2, steps=100).fit(x), CCS(restarts=2, steps=100).fit(apart)
    assert torch.allclose(plain.decision_function(x), moved.decision_function(apart), atol=1e-4)


def test_the_unit_of_the_pairs_changes_no_score_and_the_loss_is_the_papers_at_what_was_found() -> None:
    """`mean (p_+ - (1 - p_-))^2 + min(p_+, p_-)^2` (Burns et al. 2022)."""
    x, _ = contrasts(100, seed=2)
    plain, large = (CCS(restarts=3, steps=60).fit(rows) for rows in (x, 1000 * x))
    assert torch.allclose(plain.decision_function(x), large.decision_function(1000 * x), atol=1e-4)
    p = ((x - x.mean(0)) @ plain.coef_ + plain.intercept_).sigmoid()
    loss = (p[:, 0] - (1 - p[:, 1])).square().mean() + p.amin(1).square().mean()
    assert plain.loss_ == pytest.approx(float(loss), rel=1e-4)


def test_with_labels_of_no_meaning_its_accuracy_is_one_half_and_not_above() -> None:
    """The better of an accuracy and its complement would average 0.5 + 0.04 here."""
    found = []
    for seed in range(30):
        x, y = contrasts(200, seed=seed, truth=0.0)
        probe = CCS(restarts=1, steps=20, seed=seed).fit(x[:100]).orient(x[:100], y[:100])
        found.append(probe.score(x[100:], y[100:]))
    assert abs(sum(found) / 30 - 0.5) < 3 * 0.05 / 30**0.5


def test_new_pairs_are_centred_by_the_means_of_those_it_was_fitted_to() -> None:
    x, y = contrasts(200, seed=3)
    probe = CCS(steps=100).fit(x).orient(x, y)
    assert torch.allclose(probe.decision_function(x[:1]), probe.decision_function(x)[:1], atol=1e-6)


def test_pairs_that_teach_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="CCS needs at least 2 pairs of finite numbers, got 1"):
        CCS().fit(torch.randn(1, 2, 3))
    with pytest.raises(ValueError, match="all 4 pairs are alike"):
        CCS().fit(torch.ones(4, 2, 3))


def test_orienting_keeps_a_probe_that_is_right_on_most_pairs_though_not_on_all() -> None:
    x, y = contrasts(100, seed=2)
    probe = CCS(steps=100).fit(x).orient(x, y)
    before = probe.decision_function(x)
    most = y.clone()
    most[:20] = ~most[:20]
    assert torch.equal(probe.orient(x, most).decision_function(x), before)
