"""Metrics, breaks and verdicts on curves whose truth is planted, and on outputs whose probabilities are known."""

import sys
from math import exp, isnan, log, pi
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hooks import load
from hooks.errors import DamagedFile, InvalidArgument, UnknownName
from hooks.site import pattern
from hooks.statistics import wilson
from interp.common.statistics import Estimate
from interp.emergence import (
    Track,
    find_break,
    find_changes,
    follow_features,
    judge,
    measure_answers,
    measure_clock_world,
    measure_induction_world,
    measure_sampled_match,
    measure_segments_world,
    measure_waves,
    read_track,
    track,
)
from interp.emergence.waves import _embedding_gini, _gini, _score_sums
from interp.worlds.clock import seen_sums
from interp.worlds.segments import segments
from interp.worlds.train import WORLDS
from tests.conftest import tiny_hf, tiny_tokenizer

STEPS = [round(4 * 1.35**i) for i in range(24)]
X = torch.tensor([log(s) for s in STEPS], dtype=torch.float64)
GAP = float(X[-1] - X[0]) / 23


def noise(seed: int, size: float = 0.03) -> Tensor:
    return size * torch.randn(24, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def smooth(seed: int) -> Tensor:
    """A logistic of random centre, height and slope, that takes four intervals or more to rise."""
    random = torch.Generator().manual_seed(seed)
    m, width, height = (float(torch.rand(1, generator=random)) for _ in range(3))
    slope = 2 * log(9) / ((4 + 8 * width) * GAP)
    return (0.5 + height) * torch.sigmoid(slope * (X - X[0] - (0.2 + 0.6 * m) * (X[-1] - X[0])))


def test_smooth_curves_are_called_broken_one_time_in_twenty_at_most() -> None:
    alarms = sum(find_break(STEPS, smooth(i) + noise(1000 + i), draws=99, seed=i).p <= 0.05 for i in range(200))
    assert wilson(alarms / 200, 200).low <= 0.05


def test_a_planted_break_of_a_third_of_a_nat_is_found_within_one_checkpoint() -> None:
    found = 0
    for i in range(60):
        k = 6 + i % 12
        y = 0.2 * (X - X[0]) / (X[-1] - X[0]) + 0.3 * (torch.arange(24) >= k)
        one = find_break(STEPS, y + noise(i), draws=99, seed=i)
        found += one.p <= 0.05 and abs(one.index - k) <= 1
    assert found >= 57


def test_reshuffled_checkpoints_have_no_break_where_the_curve_has_one() -> None:
    y = (torch.arange(24) >= 12).double() + noise(3)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    assert find_break(STEPS, y).p <= 0.01 < find_break(STEPS, y[order]).p


def _track(**curves: Tensor) -> Track:
    metrics = {
        name.replace("_", " "): tuple(Estimate(float(v), float(v) - 0.01, float(v) + 0.01, 400) for v in y)
        for name, y in curves.items()
    }
    return Track(tuple(STEPS), metrics)


def test_per_token_p_that_is_logistic_makes_a_jump_of_the_metric_and_not_of_the_model() -> None:
    p = torch.sigmoid(2 * log(9) / (3 * GAP) * (X - X[12]))  # 10 to 90 % in three intervals
    verdict = judge(_track(exact_match=p**8, log_p_of_a_token=p.log() + noise(0, 0.004)))
    assert verdict.said == "the metric's" and verdict.steepest >= 0.5, verdict


def test_a_break_in_log_p_itself_is_a_jump_of_the_model() -> None:
    log_p = torch.where(torch.arange(24) >= 10, -0.05, -2.0) + noise(1, 0.02)
    assert judge(_track(exact_match=(4 * log_p).exp(), log_p_of_a_token=log_p)).said == "the model's"


def test_a_metric_that_stays_within_its_resolution_says_nothing() -> None:
    verdict = judge(
        _track(
            exact_match=torch.full((24,), 0.0).index_fill(0, torch.tensor([23]), 2 / 400), log_p_of_a_token=smooth(1)
        )
    )
    assert verdict.said == "unknown" and verdict.resolution == 3 / 400
    with pytest.raises(UnknownName, match="exact match"):
        judge(_track(exact_match=smooth(1), log_p_of_a_token=smooth(2)), "exact matches")


def test_a_bump_that_guessing_reaches_is_no_jump_and_one_above_it_is() -> None:
    y, log_p = torch.zeros(24), smooth(1) + noise(2, 0.004)
    bump = y.index_fill(0, torch.tensor([8, 9, 10]), 0.05)  # of 400: guessing one of 32 labels is right in .031 ± .009
    track = _track(exact_match=bump, log_p_of_a_token=log_p)
    assert judge(track).said == "the metric's" and judge(track, chance=1 / 32).said == "unknown"
    learnt = _track(exact_match=bump + (torch.arange(24) >= 12) * 0.2, log_p_of_a_token=log_p)
    assert judge(learnt, chance=1 / 32).said == "the metric's"


def test_guessing_alone_is_called_a_jump_one_time_in_twenty_at_most() -> None:
    jumps = 0
    for seed in range(60):
        random = torch.Generator().manual_seed(seed)
        right = (torch.rand(24, 400, generator=random) < 1 / 32).double().mean(1)
        right[:4] = 0.0  # before labels are said at all
        jumps += judge(_track(exact_match=right, log_p_of_a_token=smooth(seed)), chance=1 / 32).said != "unknown"
    assert wilson(jumps / 60, 60).low <= 0.05


@torch.no_grad()
def test_the_chance_that_a_sample_is_right_is_the_product_over_tokens_item_by_item() -> None:
    model = load(tiny_hf("gpt2"), tiny_tokenizer(), check=False)
    prompts, answers = ["the fog", "a bay"], ["is", "so"]
    scores = measure_answers(model, prompts, answers)
    ids = model.tokens([f"{p} {a}" for p, a in zip(prompts, answers, strict=True)])
    for i, prompt in enumerate(prompts):
        logits, n = model.run(ids.ids[i : i + 1])[0].log_softmax(-1), len(prompt) + 1
        own = [float(logits[t - 1, ids.ids[i, t]]) for t in range(n, n + 3) if bool(ids.mask[i, t])]
        assert float(scores.log_p[i]) == pytest.approx(sum(own), abs=1e-4)
        assert float(scores.chance[i]) == pytest.approx(exp(sum(own)), rel=1e-4)
        p = [logits[t - 1].exp() for t in range(n, n + 3)]
        drawn = torch.stack(
            [torch.multinomial(q, 100_000, True, generator=torch.Generator().manual_seed(7)) for q in p], 1
        )
        hit = float((drawn == ids.ids[i, n : n + 3]).all(1).double().mean())
        ends = wilson(hit, 100_000)
        assert ends.low - 1e-4 <= float(scores.chance[i]) <= ends.high + 1e-4
    assert set(scores.estimates()) >= {"exact match", "log p of a token", "Brier score"}


def test_samples_match_as_often_as_the_product_over_tokens_says_and_a_prefix_is_no_match() -> None:
    hf, tokenizer = tiny_hf("gpt2"), tiny_tokenizer()
    likely = torch.zeros(hf.config.vocab_size)
    likely[tokenizer(" is so")["input_ids"]] = 5.0  # so that answers are drawn now and then
    hf.lm_head.bias = torch.nn.Parameter(likely)
    model = load(hf, tokenizer, check=False)
    prompts, answers = ["the fog", "a bay", "the sea"], ["i", "so", "iso"]
    each = measure_answers(model, prompts, answers)
    found = measure_sampled_match(model, prompts, answers, draws=700, batch_size=256)
    assert found.n == 2100 and found.low <= float(each.chance.mean()) <= found.high
    assert found.value > 0.005, "nothing is tested where nothing is drawn"
    with pytest.raises(InvalidArgument, match="no questions"):
        measure_sampled_match(model, [], [])


def test_items_that_share_their_difficulty_are_matched_more_often_than_the_power_of_the_mean_says() -> None:
    p = torch.tensor([0.9, 0.1], dtype=torch.float64)
    assert float((p**4).mean()) > float(p.mean() ** 4)
    same = torch.full((5,), 0.7, dtype=torch.float64)
    assert float((same.log() * 4).exp().mean() - same.mean() ** 4) == pytest.approx(0.0, abs=1e-12)


SEEN: list[str] = []


def metric(model):  # noqa: ANN001, ANN201
    SEEN.append(model.fingerprint)
    return {"n": Estimate(float(len(SEEN)), 0.0, 9.0, 1)}


def test_what_was_measured_is_not_measured_again_and_another_source_is(tmp_path: Path) -> None:
    models = {i: load(tiny_hf("gpt2", seed=i), tiny_tokenizer(), check=False) for i in (1, 2)}
    seen = SEEN
    seen.clear()
    file = tmp_path / "track.json"
    first = track(models, {"": metric}, file=file)
    assert track(models, {"": metric}, file=file).metrics == first.metrics == read_track(file).metrics
    assert len(seen) == 2
    track({1: models[1], 2: load(tiny_hf("gpt2", seed=5), tiny_tokenizer(), check=False)}, {"": metric}, file=file)
    assert len(seen) == 3
    file.write_text(file.read_text(encoding="utf-8").replace("9.0", "8.0"), encoding="utf-8")
    with pytest.raises(DamagedFile):
        read_track(file)


def test_features_are_born_kept_split_and_gone_as_planted_and_a_turned_dictionary_keeps_none() -> None:
    e = torch.eye(16, dtype=torch.float64)
    one, two = e[:8], torch.cat([e[[1, 2, 3, 4, 5, 6]], (e[7] + 0.3 * e[9])[None], (e[7] - 0.3 * e[9])[None], e[[12]]])
    found = follow_features({10: one, 20: two})
    assert found.gone == ((0,),) and found.born == ((8,),) and found.split == ((7,),)
    assert len(found.kept[0]) == 7 and found.chance[0] < 0.2
    assert found.to_pandas()["born"].tolist() == [1]


def test_waves_alone_are_restricted_to_themselves_and_without_them_nothing_is_left() -> None:
    n = 53
    a, b, c = torch.meshgrid(*[torch.arange(n, dtype=torch.float64)] * 3, indexing="ij")
    logits = sum(6 * torch.cos(2 * pi * k / n * (a + b - c)) for k in (3, 8, 14, 20, 26))
    found = measure_waves(logits)  # type: ignore[arg-type]
    assert found.frequencies == (3, 8, 14, 20, 26)
    assert found.restricted == pytest.approx(found.full, abs=1e-6) and found.excluded == pytest.approx(log(n), abs=1e-6)
    random = measure_waves(torch.randn(n, n, n, generator=torch.Generator().manual_seed(0)))
    assert found.share == pytest.approx(1.0, abs=1e-9)
    assert found.by_chance[0] > found.restricted + 1 and found.by_chance[1] < 1.5, "other frequencies are not the waves"
    assert random.share == pytest.approx(1 / n, abs=0.005)
    assert isnan(measure_waves(torch.zeros(n, n, n)).share), "of logits that are all alike, waves are no share"
    assert random.gini < 0.3 < found.gini and random.excluded == pytest.approx(random.full, abs=0.05)


def test_a_clock_that_adds_is_all_waves_and_one_that_learnt_by_heart_is_none() -> None:
    a, b, c = torch.meshgrid(*[torch.arange(53, dtype=torch.float64)] * 3, indexing="ij")
    adds = sum(5 * torch.cos(2 * pi * k / 53 * (a + b - c)) for k in (3, 8, 14, 20, 26))
    known = seen_sums(0)
    heart = 12.0 * ((a + b) % 53 == c).double() * known.view(53, 53, 1)
    adding, learnt = (_score_sums(x.reshape(-1, 53), known, 5) for x in (adds, heart))  # type: ignore[union-attr]
    assert adding["unseen: right"].value == adding["seen: right"].value == learnt["seen: right"].value == 1.0
    assert adding["waves alone: log p"].value == pytest.approx(adding["seen: log p"].value, abs=1e-4)
    assert adding["without the waves: log p"].value == pytest.approx(-log(53), abs=1e-4)
    assert learnt["unseen: right"].value < 0.05 and learnt["without the waves: log p"].value > -0.1
    assert learnt["waves alone: log p"].value < -3
    both = heart + heart.transpose(0, 1) * ~known.view(53, 53, 1)
    swaps = _score_sums(both.reshape(-1, 53), known, 5)
    assert swaps["unseen both ways: right"].value < 0.05 < 0.3 < swaps["unseen: right"].value < 0.5


def test_no_power_is_shared_unequally_by_none() -> None:
    assert _gini(torch.zeros(5)) == 0.0 and _gini(torch.ones(5)) == pytest.approx(0.0, abs=1e-6)


def test_embeddings_on_few_circles_have_a_gini_near_one_and_random_ones_near_zero() -> None:
    angle = 2 * pi * torch.arange(53, dtype=torch.float64)[:, None] * torch.tensor([3.0, 14.0]) / 53
    circles = torch.cat([angle.cos(), angle.sin()], 1) @ torch.randn(4, 128, dtype=torch.float64)
    assert _embedding_gini(circles).value == pytest.approx(24 / 26, abs=0.05)
    assert _embedding_gini(torch.randn(53, 128, dtype=torch.float64)).high < 0.15


def test_an_untrained_clock_guesses() -> None:
    of = WORLDS["clock"]
    found = measure_clock_world(load(of.build(0), of.tokenizer(), check=False))
    assert found["unseen: right"].high < 0.1 and found["seen: log p"].value == pytest.approx(-log(53), abs=0.5)


def test_an_untrained_model_of_induction_knows_nothing_in_context_or_by_heart() -> None:
    torch.manual_seed(0)
    of = WORLDS["induction-1"]
    found = measure_induction_world(load(of.build(0), of.tokenizer(), check=False), n=60)
    assert found["in context: right"].high < 0.3 > found["by heart: right"].high
    assert found["in context: log p"].value < -4 and found["attention of the best head"].value < 0.3


def test_an_untrained_model_of_segments_guesses_and_its_heads_look_everywhere_alike() -> None:
    torch.manual_seed(0)
    of = WORLDS["segments"]
    found = measure_segments_world(load(of.build(0), of.tokenizer(), check=False), n=60)
    assert found["copied: right"].high < 0.1 > found["new: right"].high
    assert found["copied: log p"].value == pytest.approx(-log(258), abs=0.2)
    for head in ("induction head", "previous-token head"):
        chance = found[f"attention of the {head}, by chance"].value
        assert found[f"attention of the {head}"].value == pytest.approx(chance, abs=0.02) and 0.01 < chance < 0.15


def test_a_planted_previous_token_and_induction_head_are_read_as_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patterns are put in place of the model's: all on the place before, all on places after an earlier equal word."""
    of = WORLDS["segments"]
    model = load(of.build(0), of.tokenizer(), check=False)
    metrics = sys.modules["interp.emergence.metrics"]
    read = segments(20, 5)[0][:, :-1]
    eye = torch.eye(read.shape[1])
    before = torch.cat([eye[:1], eye[:-1]])
    after = torch.zeros(*read.shape, read.shape[1])
    after[:, :, 1:] = (read[:, :, None] == read[:, None, :-1]).float()
    after = after.tril()
    after = torch.where(after.sum(-1, keepdim=True) > 0, after / after.sum(-1, keepdim=True).clamp_min(1), eye)
    planted = {
        pattern[0]: torch.stack([before.expand_as(after), *[eye.expand_as(after)] * 3], 1),
        pattern[1]: torch.stack([eye.expand_as(after), after, *[eye.expand_as(after)] * 2], 1),
    }
    monkeypatch.setattr(metrics, "capture", lambda *_, **__: planted)
    found = measure_segments_world(model, n=20, seed=5)
    assert found["attention of the induction head"].value == pytest.approx(1.0)
    assert found["attention of the previous-token head"].value == pytest.approx(1.0)


def test_too_few_checkpoints_are_refused_and_changes_are_found_by_metric() -> None:
    with pytest.raises(InvalidArgument, match="eight checkpoints or more"):
        find_break([1, 2, 3], torch.zeros(3))
    found = find_changes(_track(a=(torch.arange(24) >= 9).double() + noise(5), b=smooth(3) + noise(6)))
    assert found["a"].p <= 0.01 and found["a"].index in (8, 9, 10) and found["b"].p > 0.05
