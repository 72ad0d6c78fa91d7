"""Training, search, evidence, scorecard and trace are shown as they are, with their controls."""

from dataclasses import replace

import pytest
import torch

from interp.common.statistics import Estimate
from interp.features import Evidence, Example, Feature, SearchResult
from interp.memory import Edit, Fact, Scorecard, Trace
from interp.memory.evaluation.scorecard import Column
from interp.sae import Quality, TopK, TrainReport
from interp.sae.training.history import Point
from interp.show import (
    examples_panel,
    histogram_panel,
    scorecard_panel,
    search_panel,
    trace_panel,
    training_panel,
    words_panel,
)
from interp.show.html import Html


def quality(explained: float) -> Quality:
    return Quality(explained, 16.0, 0.0, 5000, torch.ones(64, dtype=torch.long), torch.ones(64))


@pytest.fixture
def feature(found: SearchResult) -> Feature:
    example = Example(0, ("<|endoftext|>", "the", " <b>", " bridge"), (0.0, 0.0, 1.0, 4.0), peak=3)
    evidence = Evidence(
        latent=7,
        examples=(example,),
        counts=torch.tensor([5, 0, 3]),
        edges=torch.tensor([0.0, 2.0, 4.0, 6.0]),
        firing_rate=0.002,
        mean=3.0,
        largest=4.0,
        tokens=4000,
        promoted=((" bridge", 4.0),),
        suppressed=((" fog", -2.0),),
    )
    return Feature(TopK(4, 16, 2), 7, evidence, found.best)


def test_training_is_shown_next_to_held_out_text_and_an_untrained_dictionary() -> None:
    curve = tuple(Point(tokens, 1.0, share, 16.0, 0.1) for tokens, share in ((1000, 0.2), (2000, 0.8)))
    panel = training_panel(TrainReport(quality(0.8), curve, 2000, 0.1, 1000), quality(0.7), quality(-3.0))
    line = panel.body.data[0]
    assert list(line.x) == [1000, 2000] and list(line.y) == [0.2, 0.8]
    assert {a.text: a.y for a in panel.body.layout.annotations} == {"untrained dictionary": 0.0, "held-out text": 0.7}
    assert "explains 70.0% of the variance" in panel.caption and "-300.0%" in panel.control


def test_latents_and_probes_are_in_one_table_with_the_best_latent_marked(found: SearchResult) -> None:
    panel = search_panel(found)
    assert isinstance(panel.body, Html)
    rows = panel.body.text.split("<tr")[2:]
    assert ["latent 7" in rows[0], "latent 9" in rows[1], "difference of means" in rows[2]] == [True] * 3
    assert 'class="strong"' in rows[0] and "0.950 <small>0.800 to 1.000</small>" in rows[0]
    assert all('class="strong"' not in row for row in rows[1:])
    assert "reach an F1 of at most 0.20" in panel.control and "p = 0.005" in panel.control


def test_tokens_are_coloured_by_activation_and_special_ones_left_out(feature: Feature) -> None:
    body = examples_panel(feature).body
    assert isinstance(body, Html)
    assert "endoftext" not in body.text
    assert 'title="4"> bridge' in body.text and 'title="1"> &lt;b&gt;' in body.text
    assert "<span>the</span>" in body.text


def test_the_histogram_shows_the_counts_and_the_threshold(feature: Feature) -> None:
    panel = histogram_panel(feature)
    assert list(panel.body.data[0].x) == [1.0, 3.0, 5.0] and list(panel.body.data[0].y) == [5, 0, 3]
    assert panel.body.layout.shapes[0].x0 == 1.5
    assert "precision is 0.90 and recall 0.80" in panel.control


def test_a_feature_without_a_score_says_that_nothing_was_tested(feature: Feature) -> None:
    assert (
        "nothing here says that its high values mean a concept" in histogram_panel(replace(feature, score=None)).control
    )


def test_promoted_and_suppressed_words_are_side_by_side(feature: Feature) -> None:
    body = words_panel(feature).body
    assert isinstance(body, Html)
    assert "<code>·bridge</code></td><td>+4.00</td><td><code>·fog</code></td><td>-2.00" in body.text


@pytest.mark.parametrize("panel", [examples_panel, histogram_panel, words_panel])
def test_a_feature_without_evidence_is_refused_with_the_way_to_gather_it(panel: object, feature: Feature) -> None:
    with pytest.raises(ValueError, match=r"feature 7 has no evidence: make it with .*collect_evidence\("):
        panel(replace(feature, evidence=None))  # type: ignore[operator]


def column(share: float) -> Column:
    shares = {name: Estimate(share, share / 2, 1.0, 12) for name in Column.__dataclass_fields__}
    return Column(**{**shares, "kl": 0.001, "perplexity_ratio": 1.01})


def test_every_measure_of_a_scorecard_is_shown_before_after_and_for_the_control() -> None:
    edit = Edit((Fact("bridge", "The {} is in", "San Francisco", "Rome"),), "rome", (), "fingerprint")
    panel = scorecard_panel(Scorecard(column(0.0), column(0.9), column(0.1)), edit)
    assert isinstance(panel.body, Html)
    rows = panel.body.text.split("<tr")[2:]
    assert len(rows) == len(Column.__dataclass_fields__)
    for row in rows[:9]:
        assert row.index(">0%<") < row.index(">90%<") < row.index(">10%<")
        assert "<small>45% to 100%</small>" in row and "n = 12" in row
    assert "1.010" in rows[10] and "San Francisco → Rome" in panel.title


def test_a_trace_is_a_map_of_mean_indirect_effects_with_intervals() -> None:
    restored = torch.full((2, 2, 2), 0.1)
    restored[:, 1, 0] = torch.tensor([0.9, 0.7])
    clean, corrupted = torch.full((2,), 0.9), torch.full((2,), 0.1)
    roles, layers = ("first subject", "last subject"), ((0, 1), (1, 2))
    panel = trace_panel(Trace("feed-forward", roles, layers, clean, corrupted, restored))
    cells = panel.body.data[0]
    assert torch.allclose(torch.tensor(cells.z), torch.tensor([[0.0, 0.0], [70.0, 0.0]]), atol=1e-4)
    assert list(cells.x) == ["0–1", "1–2"] and list(cells.y) == list(roles)
    low, high = cells.customdata[1][0]
    assert low <= 70.0 <= high
    assert "nothing broken the answer has 90%, with nothing restored 10%" in panel.control
