"""Search against brute force, planted concepts, and concepts that are not there."""

from dataclasses import replace

import pytest
import torch

from hooks import Model
from hooks.site import embed, resid_post
from interp.common.statistics import mean_share
from interp.features import Concept, Mention, by_text, by_token, search, search_many
from interp.features.reading import Reading, encode_texts
from interp.features.search.concept import split_by_group
from interp.features.search.group import Group
from interp.features.search.ranking import Entries, Ranking, pool_entries
from interp.features.search.rows import Rows
from interp.features.search.score import Evaluation, compare_all_scores, compare_scores
from interp.sae import TopK
from probes import best_threshold, detection

pytestmark = pytest.mark.usefixtures("unchecked")

D_SAE = 50
LETTERS = "abcdefghijklmnop ."  # of the latents of `letters`


def random_reading(n_texts: int, seed: int = 0, per_text: int = 7, ties: bool = False) -> Reading:
    """Codes with nothing in them, 4 latents kept per token, some of them off."""
    g = torch.Generator().manual_seed(seed)
    n = n_texts * per_text
    indices = torch.stack([torch.randperm(D_SAE, generator=g)[:4] for _ in range(n)])
    values = torch.randn(n, 4, generator=g).relu()
    text = torch.arange(n_texts).repeat_interleave(per_text)
    place = torch.arange(per_text).repeat(n_texts)
    values = (values * 4).round() / 4 if ties else values
    return Reading(torch.randn(n, 3, generator=g), values, indices, text, place, place + 1, D_SAE)


def random_concept(n_texts: int, seed: int = 0) -> Concept:
    g = torch.Generator().manual_seed(seed)
    labels = [i < n_texts // 2 for i in torch.randperm(n_texts, generator=g).tolist()]
    mentions = [[Mention(3, 4)] if label else [] for label in labels]
    return Concept("nothing", [f"{i:07}" for i in range(n_texts)], labels, mentions)


@pytest.mark.parametrize("unit", [by_text, by_token], ids=["texts", "tokens"])
@pytest.mark.parametrize("ties", [False, True], ids=["no ties", "ties"])
def test_the_sparse_ranking_is_every_latents_best_f1_by_brute_force(unit, ties: bool) -> None:
    reading = random_reading(60, ties=ties)
    rows = unit(reading, random_concept(60))
    entries = pool_entries(reading, rows)
    dense = torch.zeros(len(reading.text), D_SAE).scatter(1, reading.indices, reading.values)
    f1, threshold = Ranking(entries, D_SAE).best(rows.y, int(rows.y.sum()))
    for latent in range(D_SAE):
        scores = rows.pool(dense[:, latent].contiguous())
        assert torch.equal(entries.column(latent, len(rows.y)), scores)
        assert float(f1[latent]) == pytest.approx(detection(scores, rows.y, float(threshold[latent])).f1)
        brute = max((detection(scores, rows.y, t - 1e-4).f1 for t in scores.unique().tolist() if t > 0), default=0.0)
        assert float(f1[latent]) == pytest.approx(brute)
        if best_threshold(scores, rows.y) > 0:
            assert float(f1[latent]) == pytest.approx(detection(scores, rows.y, best_threshold(scores, rows.y)).f1)


def test_entries_of_some_rows_are_those_rows_only() -> None:
    reading = random_reading(10)
    entries = pool_entries(reading, by_text(reading, random_concept(10)))
    kept = torch.arange(10) < 3
    assert set(entries.at(kept).row.tolist()) == {0, 1, 2}


def bench_of(reading: Reading, concept: Concept, unit=by_text) -> tuple[Evaluation, Rows, Entries]:
    rows = unit(reading, concept)
    return Evaluation(concept, rows, split_by_group(concept, 0)[rows.text], seed=0), rows, pool_entries(reading, rows)


def test_a_concept_that_is_not_there_is_seldom_significant() -> None:
    small = 0
    for seed in range(60):
        bench, rows, entries = bench_of(random_reading(40, seed=seed), random_concept(40, seed=seed))
        ranking = Ranking(entries.at(bench.searched), D_SAE)
        observed = ranking.highest(rows.y, bench.counts(bench.searched)[1])
        small += (1 + int((bench.null(ranking, 39) >= observed).sum())) / 40 <= 0.05
    assert small <= 8  # binomial(60, 0.05) exceeds 8 once in 500


def test_what_chance_finds_on_the_searched_half_does_not_hold_on_the_other() -> None:
    bench, rows, entries = bench_of(random_reading(60, seed=3), random_concept(60, seed=3), by_token)
    f1, threshold = Ranking(entries.at(bench.searched), D_SAE).best(rows.y, bench.counts(bench.searched)[1])
    best = int(f1.argmax())
    score = bench.score("best", entries.column(best, len(rows.y)), float(threshold[best]), best, None)
    assert score.searched_f1 == pytest.approx(float(f1.max()))
    assert score.held_out.f1 < 0.7 * score.searched_f1


def test_the_interval_is_that_of_groups_drawn_again() -> None:
    reading, plain = random_reading(80, seed=1), random_concept(80)
    groups = [f"g{i // 2}" for i in range(80)]
    bench, rows, _ = bench_of(reading, Concept("c", plain.texts, plain.labels, groups=groups))
    scores = rows.y + 1.5 * torch.randn(80, generator=torch.Generator().manual_seed(0))
    low, high = bench.score("noisy", scores, 0.5, None, None).interval
    g, f1s = torch.Generator().manual_seed(7), []
    reported = sorted({i // 2 for i in range(80) if bool(bench.reported[i])})
    for _ in range(800):
        drawn = [reported[j] for j in torch.randint(len(reported), (len(reported),), generator=g).tolist()]
        at = torch.tensor([i for group in drawn for i in (2 * group, 2 * group + 1)])
        f1s.append(detection(scores[at], rows.y[at], 0.5).f1)
    assert torch.allclose(
        torch.tensor([low, high]), torch.tensor(f1s).quantile(torch.tensor([0.025, 0.975])), atol=0.03
    )


def test_a_detector_without_a_miss_or_without_a_hit_has_an_interval_of_some_width() -> None:
    bench, rows, _ = bench_of(random_reading(40), random_concept(40))
    n = int(rows.y[bench.reported].sum())
    perfect, none, silent = (
        bench.score("x", scores, 0.5, None, None).interval
        for scores in (rows.y.float(), (~rows.y).float(), torch.zeros(len(rows.y)))
    )
    assert perfect == (pytest.approx(n / (n + 1.959964**2)), 1.0)  # where p = 1, Wilson's lower end is n / (n + z²)
    assert none[0] == silent[0] == 0.0 and 0 < none[1] < silent[1] < 0.6


def test_the_threshold_of_neighbours_in_half_precision_reaches_the_f1_it_claims() -> None:
    g = torch.Generator().manual_seed(0)
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        eps = torch.finfo(dtype).eps
        value = (1 + eps * torch.arange(40)[torch.randperm(40, generator=g)]).to(dtype)
        entries = Entries(torch.arange(40), torch.zeros(40, dtype=torch.long), value)
        for seed in range(20):
            y = torch.rand(40, generator=torch.Generator().manual_seed(seed)) < 0.4
            f1, threshold = Ranking(entries, 1).best(y, int(y.sum()))
            found = detection(entries.column(0, 40), y, float(threshold[0])).f1
            assert found == pytest.approx(float(f1[0]), abs=1e-6)


def sentences(n: int = 48) -> tuple[list[str], list[bool], list[list[Mention]]]:
    """Texts over "abcd .", half of them naming "gh" (a name) or "kg" (an alias) or "o" (a description)."""
    g = torch.Generator().manual_seed(0)
    texts, labels, mentions = [], [], []
    for i in range(n):
        words = ["abcd. "[j] for j in torch.randint(6, (9,), generator=g).tolist()]
        before, after = "".join(words[:5]) + "a", "".join(words[5:]) + "b"
        named, form = (("gh", "name"), ("kh", "alias"), ("o", "description"))[i // 2 % 3]
        texts.append(f"{before}{named}{after}" if i % 2 else f"{before}e{after}{i % 3}")
        labels.append(bool(i % 2))
        mentions.append([Mention(len(before), len(before) + len(named), form)] if i % 2 else [])
    return texts, labels, mentions


@pytest.mark.parametrize("unit", [by_text, by_token], ids=["texts", "tokens"])
def test_the_planted_latent_is_found_with_its_controls(gpt2: Model, letters: TopK, unit) -> None:
    concept = Concept("h", *sentences(), apart=["description"])
    found = search(letters, gpt2, concept, unit=unit, top=3)
    best = found.best
    assert best.latent == "abcdefgh".index("h")
    assert (best.held_out.f1, best.held_out.precision, best.held_out.recall, best.held_out.auroc) == (1, 1, 1, 1)
    assert best.interval == (pytest.approx(mean_share(torch.ones(8)).low), 1.0)  # 8 texts are found, none amiss
    assert best.recall_by_form == {"name": 1.0, "alias": 1.0, "description": 0.0}
    assert found.p_value <= 0.01
    assert float(found.null_f1.max()) < 1
    assert 0 < best.held_out.threshold < 1.7
    assert found.site == embed and found.searched[1] + found.reported[1] == 16
    assert [score.name for score in found.baselines[:2]] == ["difference of means", "logistic probe"]
    assert all(score.held_out.auroc > 0.9 for score in found.baselines[:2])
    assert found.baselines[2].name.startswith("PCA, component")
    n, positive = found.reported
    assert found.baselines[3].name == "always yes" and found.baselines[3].held_out.auroc == 0.5
    assert found.baselines[3].held_out.f1 == pytest.approx(2 * positive / (n + positive))
    assert [*found.against] == [one.name for one in found.baselines]
    for one in found.baselines:
        assert found.against[one.name].value == pytest.approx(one.held_out.f1 - found.best.held_out.f1)
    assert found.stability.rank == 1
    assert found.best.direction.cosine(found.baselines[0].direction) > 0.3
    assert (
        "latent 7" in str(found)
        and "searches with exchanged labels: p = 0.0" in str(found)
        and "logistic probe" in str(found)
    )


def test_what_a_search_says_of_its_best_baseline_holds_for_all_of_them_at_once(gpt2: Model, letters: TopK) -> None:
    texts, labels, _ = sentences()
    concept = Concept("nothing", texts, [labels[i] ^ (i % 7 == 0) for i in range(len(labels))])
    found = search(letters, gpt2, concept, permutations=5)
    assert [*found.against.values()] == [*compare_all_scores(found.baselines, found.best)]
    alone = [compare_scores(one, found.best) for one in found.baselines]
    assert all(e.low < one.low for e, one in zip(found.against.values(), alone, strict=True) if one.low < one.value)


def test_the_halves_change_with_the_seed_and_the_finding_does_not(gpt2: Model, letters: TopK) -> None:
    concept = Concept("h", *sentences(), apart=["description"])
    first, again, other = (search(letters, gpt2, concept, seed=seed, permutations=20) for seed in (0, 0, 1))
    assert torch.equal(first.null_f1, again.null_f1) and not torch.equal(first.null_f1, other.null_f1)
    assert first.best.latent == other.best.latent


def test_an_autoencoder_of_another_model_is_refused(gpt2: Model, letters: TopK) -> None:
    letters.fingerprint = "0" * 64
    with pytest.raises(ValueError, match="was trained on .*, not on .* load that model .*fingerprint = None"):
        search(letters, gpt2, Concept("h", *sentences()))


def test_an_autoencoder_without_a_site_is_refused(gpt2: Model, letters: TopK) -> None:
    letters.site = None
    with pytest.raises(ValueError, match=r"does not know its site: set sae\.site, for example to resid_post\[4\]"):
        search(letters, gpt2, Concept("h", *sentences()))


def test_a_site_the_model_lacks_is_refused_before_anything_runs(gpt2: Model, letters: TopK) -> None:
    letters.site = resid_post[30]
    with pytest.raises(ValueError, match=r"resid_post\.30"):
        search(letters, gpt2, Concept("h", *sentences()))


def test_no_permutations_is_no_control(gpt2: Model, letters: TopK) -> None:
    with pytest.raises(ValueError, match="top is 10 and permutations 0; both must be at least 1"):
        search(letters, gpt2, Concept("h", *sentences()), permutations=0)


def test_a_search_in_several_dictionaries_finds_in_each_what_a_search_in_it_alone_does(
    gpt2: Model, letters: TopK
) -> None:
    concept = Concept("h", *sentences(), apart=["description"])
    other = TopK(gpt2.d_model, 24, k=2, seed=5)
    other.site, other.fingerprint = letters.site, letters.fingerprint
    other.max_activation.fill_(1.0)
    both = search_many([letters, other, letters], gpt2, concept, unit=by_token, permutations=20)
    for sae, found in zip((letters, other, letters), both, strict=True):
        alone = search(sae, gpt2, concept, unit=by_token, permutations=20)
        assert str(found) == str(alone) and torch.equal(found.null_f1, alone.null_f1)
    assert str(both[0]) != str(both[1])


def test_dictionaries_of_several_sites_are_not_searched_together(gpt2: Model, letters: TopK) -> None:
    other = TopK(gpt2.d_model, 24, k=2)
    other.site = resid_post[0]
    with pytest.raises(ValueError, match=r"the 2 autoencoders read at \['embed', 'resid_post.0'\]: give at least one"):
        search_many([letters, other], gpt2, Concept("h", *sentences()))


def graded(model: Model, letters: TopK) -> TopK:
    """The same dictionary with latent 0 on "a", "b" and "c" instead of "a" alone: by 1, 2 and 3."""
    ids = torch.tensor([int(model.tokens(letter).ids[0, -1]) for letter in LETTERS])
    rows = model.hf.transformer.wte.weight.detach()[ids]
    strength = torch.zeros(len(LETTERS))
    strength[:3] = torch.tensor([1.0, 2.0, 3.0])
    with torch.no_grad():
        letters.W_enc[:, 0] = torch.linalg.pinv(rows) @ strength
        letters.W_enc[:, 1:3] = 0.0
    return letters


def moved_up(n: int = 40) -> tuple[Concept, torch.Tensor]:
    """Searched, "b" expresses it and not "a"; reported, "c" does and not "b"; and which texts are searched."""
    labels, groups = [i % 2 == 0 for i in range(n)], [f"group {i}" for i in range(n)]
    half = split_by_group(Concept("shift", groups, labels, groups=groups), seed=0)
    kinds = {(True, True): "b", (True, False): "a", (False, True): "c", (False, False): "b"}
    texts = [
        kinds[bool(half[i]), labels[i]] + "".join("defghijk"[int(digit)] for digit in f"{i:02o}") for i in range(n)
    ]
    return Concept("shift", texts, labels, groups=groups), half


def test_a_latent_is_reported_at_the_threshold_that_the_searched_half_gave(gpt2: Model, letters: TopK) -> None:
    concept, _ = moved_up()
    found = search(graded(gpt2, letters), gpt2, concept, permutations=20)
    assert found.best.latent == 0 and found.best.searched_f1 == 1.0
    assert found.best.held_out.threshold == pytest.approx(1.5, abs=1e-3)  # the reported half would have given 2.5
    assert found.best.held_out.recall == 1.0 and found.best.held_out.precision == 0.5
    assert found.best.held_out.f1 == pytest.approx(2 / 3)


def test_probes_know_the_searched_half_alone(gpt2: Model, letters: TopK) -> None:
    concept, half = moved_up()
    sae = graded(gpt2, letters)
    means = search(sae, gpt2, concept, permutations=20).baselines[0]
    reading, y = encode_texts(sae, gpt2, concept.texts), torch.tensor(concept.labels)
    searched = half[reading.text]
    positive, negative = (reading.x[searched & (y[reading.text] == kind)].mean(0) for kind in (True, False))
    expected = torch.nn.functional.normalize(positive - negative, dim=0)
    assert means.direction is not None and torch.allclose(means.direction.unit.float(), expected, atol=1e-4)
    assert means.searched_f1 == 1.0 > means.held_out.f1


def test_the_p_value_counts_the_search_itself_among_those_with_exchanged_labels(gpt2: Model, letters: TopK) -> None:
    planted = search(letters, gpt2, Concept("h", *sentences(), apart=["description"]), permutations=19)
    assert float(planted.null_f1.max()) < planted.best.searched_f1 and planted.p_value == 1 / 20
    texts, labels, _ = sentences()
    chance = search(letters, gpt2, Concept("none", [f"{t}a" for t in texts], labels[1:] + labels[:1]), permutations=19)
    reached = int((chance.null_f1 >= chance.best.searched_f1 - 1e-6).sum())
    assert chance.p_value == (1 + reached) / 20


def test_what_is_gone_on_with_is_the_group_where_there_is_one(gpt2: Model, letters: TopK) -> None:
    one = search(letters, gpt2, Concept("h", *sentences(), apart=["description"]), permutations=5)
    assert one.group is None and one.finding is one.best and one.found_latents == (one.best.latent,)
    two = replace(one, group=Group((3, 7), (1.0, 0.5), one.latents[1], ""))
    assert two.finding is one.latents[1] and two.found_latents == (3, 7)


def test_a_result_shows_itself_in_a_line_and_as_a_table_of_what_it_prints(gpt2: Model, letters: TopK) -> None:
    found = search(letters, gpt2, Concept("h", *sentences(), apart=["description"]), permutations=5, top=3)
    assert repr(found) == f"SearchResult('h' at embed: latent 7, F1 1.000, p {found.p_value:.3f})"
    searched = [one.searched_f1 for one in found.latents]
    assert len(searched) == 3 and searched == sorted(searched, reverse=True)
    table = found.to_pandas()
    assert table["detector"].tolist() == [one.name for one in (*found.latents, *found.baselines)]
    assert table["F1"].tolist() == [one.held_out.f1 for one in (*found.latents, *found.baselines)]
    assert table["recall, name"][0] == 1.0
