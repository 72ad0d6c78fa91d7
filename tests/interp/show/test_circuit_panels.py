"""The panels of lenses, patches and heads show the numbers they are given."""

import pytest
import torch

from hooks import Model, capture
from hooks.site import pattern, resid_pre, z
from interp.circuits import denoising, each_head, each_layer, each_position, logit_difference, patch_sweep
from interp.circuits.heads import copying, induction, previous_token
from interp.lenses import LogitLens, attribute, heads, rank, read
from interp.show import (
    Panel,
    attention_panel,
    attribution_panel,
    divergence_panel,
    entropy_panel,
    heads_panel,
    lens_panel,
    patch_panel,
    rank_panel,
)


def cells(panel: Panel) -> torch.Tensor:
    (trace,) = panel.body.data
    return torch.tensor(trace.z)


def test_a_lens_panel_holds_the_likeliest_tokens_and_their_probabilities(gpt2: Model) -> None:
    reading = read(LogitLens(gpt2), ["fog", "bay"])
    panel = lens_panel(reading, text=1)
    torch.testing.assert_close(cells(panel), reading.probability[:, 1, :, 0], rtol=1e-5, atol=1e-6)
    (trace,) = panel.body.data
    assert len(trace.text[2]) == 4 and len(trace.text) == 3
    torch.testing.assert_close(cells(divergence_panel(reading)), reading.kl[:, 0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(cells(entropy_panel(reading)), reading.entropy[:, 0], rtol=1e-5, atol=1e-6)
    ranks = rank(LogitLens(gpt2), "fog", "g")
    (trace,) = rank_panel(ranks).body.data
    assert [[int(word) for word in row] for row in trace.text] == ranks.ranks[:, 0].tolist()
    padded = rank(LogitLens(gpt2), ["fog over", "bay"], "g")
    (trace,) = rank_panel(padded, text=1).body.data
    padding = ~gpt2.tokens(["fog over", "bay"]).mask[1]
    assert torch.equal(torch.tensor(trace.z).isnan(), padding.expand(3, -1))
    assert [word == "" for word in trace.text[0]] == padding.tolist()


def test_attribution_bars_are_the_largest_parts_and_the_caption_their_sum(gpt2: Model) -> None:
    found = attribute(gpt2, "fog", "a", into=heads)
    panel = attribution_panel(found, 6)
    (bars,) = panel.body.data
    assert list(zip(bars.y, bars.x, strict=True))[::-1] == list(found.top(6))
    assert f"{float(found.logit.mean()):+.3g}" in panel.control


@pytest.mark.parametrize("over", [each_position(resid_pre), each_head(z), each_layer(resid_pre)])
def test_a_patch_panel_holds_the_shares_and_names_both_ends(over: object, gpt2: Model) -> None:
    found = patch_sweep(gpt2, denoising("fog over", "fig ever"), logit_difference(gpt2, "a", "c"), over=over)
    panel = patch_panel(found, gpt2)
    torch.testing.assert_close(cells(panel).flatten(), found.effect.flatten(), rtol=1e-5, atol=1e-6)
    assert f"{float(found.base):+.3g}" in panel.control and f"{float(found.donor):+.3g}" in panel.control


def test_positions_at_which_texts_differ_are_numbered_and_the_others_named(gpt2: Model) -> None:
    metric, over = logit_difference(gpt2, "a", "c"), each_position(resid_pre)
    found = patch_sweep(gpt2, denoising(["fog over", "fig even"], ["fig ever", "fog ever"]), metric, over=over)
    panel = patch_panel(found, gpt2)
    (trace,) = panel.body.data
    assert trace.customdata[0] == ["&lt;|endoftext|>", "f", "position 2", *"g ever"]
    assert "a place where the two runs agree has exactly 0" in panel.control
    assert bool((cells(panel)[0, :2] == 0).all())


def test_markup_in_tokens_is_shown_once_escaped_in_figures_and_not_twice_in_titles(gpt2: Model) -> None:
    reading = rank(LogitLens(gpt2), "<b>&", "<")
    assert rank_panel(reading).title.startswith("The rank of “<”")
    assert "“<”" in attribution_panel(attribute(gpt2, "fog", "<")).title
    (trace,) = rank_panel(reading).body.data
    assert list(trace.customdata[0]) == ["&lt;|endoftext|>", "&lt;", "b", ">", "&amp;"]
    (trace,) = attention_panel(gpt2, capture(gpt2, "<b>", pattern[1]), 1, 0).body.data
    assert list(trace.y) == ["0 &lt;|endoftext|>", "1 &lt;", "2 b", "3 >"]


def test_a_head_panel_says_what_its_detectors_control_is(gpt2: Model) -> None:
    for scores, where in (
        (induction(gpt2, length=8, n=2), "where the second half repeats nothing"),
        (previous_token(gpt2, length=8, n=2), "at the token before that"),
        (copying(gpt2), "with the unembedding's rows in random order"),
    ):
        assert f"Next to it, {where}: that head scores" in heads_panel(scores).control


def test_a_head_panel_names_the_best_head_next_to_its_control(gpt2: Model) -> None:
    scores = induction(gpt2, length=8, n=2)
    panel, (layer, head, best) = heads_panel(scores), scores.top(1)[0]
    torch.testing.assert_close(cells(panel), scores.values, rtol=1e-5, atol=1e-6)
    assert f"head {head} of layer {layer}, with {best:.2f}" in panel.caption
    assert f"{float(scores.control[layer, head]):.2f}" in panel.control


def test_an_attention_panel_leaves_out_padding_and_its_rows_sum_to_one(gpt2: Model) -> None:
    acts = capture(gpt2, ["fog over", "bay"], pattern[1])
    A = cells(attention_panel(gpt2, acts, 1, 2, text=1))
    assert A.shape == (4, 4)
    torch.testing.assert_close(A.sum(1), torch.ones(4), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(A, acts[pattern[1]][1, 2, :4, :4], rtol=1e-5, atol=1e-6)
