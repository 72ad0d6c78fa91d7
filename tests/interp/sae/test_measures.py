"""Matching, comparing and probing dictionaries: against all permutations, closed forms and planted absorption."""

import math
from itertools import permutations

import pytest
import torch
from scipy import stats

from hooks import Model, capture
from hooks.site import resid_post
from interp.sae import (
    Interval,
    LabelledTokens,
    SparseProbe,
    Standard,
    absorption,
    capture_labelled_tokens,
    compare,
    concept_recovery,
    evaluate,
    expected_norm,
    fold_normalisation,
    k_sparse,
    match_truth,
    mean_centring,
    nearest_rows,
    normalise_source,
    reconstruction,
    rms_scaling,
    stability,
    tensor_source,
    whitening,
)
from tests.shapes import unchecked


def some_rows(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def cosines(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cosine_similarity(a[:, None], b[None], dim=2)


def test_the_match_is_the_best_of_all_permutations() -> None:
    rows, truth = some_rows(6, 4), some_rows(6, 4, seed=1)
    table = cosines(truth, rows).abs()
    best = max(permutations(range(6)), key=lambda p: float(table[range(6), p].sum()))
    found = match_truth(rows, truth)
    assert found.latents.tolist() == list(best)
    assert found.mcc == pytest.approx(float(table[range(6), best].mean()), abs=1e-6)


def test_a_dictionary_in_another_order_and_scale_matches_whole_and_signs_can_be_seen() -> None:
    truth = some_rows(8, 12)
    rows = -3 * truth[torch.randperm(8, generator=torch.Generator().manual_seed(2))]
    found = match_truth(rows, truth)
    assert found.mcc == pytest.approx(1, abs=1e-6) and float(found.cosines.max()) == pytest.approx(-1, abs=1e-6)
    assert found.floor < 0.6
    assert float(stability([truth, rows])[0]) == pytest.approx(1, abs=1e-6)
    with pytest.raises(ValueError, match="stability compares dictionaries of several seeds; 1 were given"):
        stability([truth])


def test_the_nearest_row_is_never_the_row_itself() -> None:
    rows = some_rows(1500, 6)
    table = cosines(rows, rows).fill_diagonal_(-1)
    assert torch.allclose(nearest_rows(rows), table.amax(1), atol=1e-5)


def test_rows_of_other_precisions_are_matched_and_what_has_no_direction_or_no_other_is_refused() -> None:
    rows, truth = some_rows(6, 4), some_rows(6, 4, seed=1)
    for kind in (torch.float64, torch.bfloat16):
        for pair in ((rows.to(kind), truth), (rows, truth.to(kind))):
            assert match_truth(*pair).mcc == pytest.approx(match_truth(rows, truth).mcc, abs=1e-2)
    assert torch.allclose(nearest_rows(rows.bfloat16()).float(), nearest_rows(rows.bfloat16().float()))
    for value, said in ((0.0, "0"), (math.nan, "nan"), (math.inf, "inf")):
        rows[2] = value
        with pytest.raises(ValueError, match=f"row 2 has length {said}: it has no direction"):
            match_truth(rows, truth)
    with pytest.raises(ValueError, match="1 rows were given: the nearest other one needs at least two"):
        nearest_rows(truth[:1])


def test_an_interval_is_students() -> None:
    values = [1.0, 2.5, 2.0, 4.0, 3.0]
    for some in (values, [float(i) for i in range(12)], [i**0.5 for i in range(40)]):
        found = Interval.of(some)
        ends = stats.t.interval(0.95, len(some) - 1, loc=sum(some) / len(some), scale=stats.sem(some))
        assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx(ends, rel=1e-9)
    assert math.isnan(Interval.of([1.0]).half_width)
    with pytest.raises(ValueError, match=r"the values \[1\.0, nan\] are not all finite: they have no mean"):
        Interval.of([1.0, math.nan])


def threshold_of(level: float) -> Standard:
    """Reads 4 dimensions one by one, each latent on above a level."""
    sae = Standard(4, 4)
    with torch.no_grad():
        sae.W_enc.copy_(torch.eye(4))
        sae.W_dec.copy_(torch.eye(4))
        sae.b_enc.fill_(-level)
    return sae


def test_a_comparison_at_unequal_sparsity_is_refused_unless_asked_for() -> None:
    source = tensor_source(some_rows(500, 4))
    pair = {"dense": [threshold_of(0.0)], "sparse": [threshold_of(1.0), threshold_of(1.1)]}
    with pytest.raises(ValueError, match=r"L0 is 0\.6 for sparse and 2\.0 for dense: at unequal sparsity"):
        compare(pair, source)
    said = compare(pair, source, l0_tolerance=math.inf)
    assert said.l0("dense").values == (evaluate(pair["dense"][0], source).l0,)
    assert "2 seeds" in str(said) and "one seed, no interval" in str(said)
    with pytest.raises(ValueError, match="at least two names with an autoencoder each"):
        compare({"dense": pair["dense"]}, source)


def test_lengths_and_angles_of_reconstructions_follow_a_known_shrinkage() -> None:
    sae = threshold_of(0.0)
    x = some_rows(300, 4).abs() + 0.1
    with torch.no_grad():
        sae.W_dec *= 0.8
    found = reconstruction(sae, tensor_source(x))
    assert (found.cosine, found.norm_ratio, found.bias) == pytest.approx((1.0, 0.8, 0.8), abs=1e-6)
    with pytest.raises(ValueError, match="activation 2 has length 0: it has no cosine"):
        reconstruction(sae, tensor_source(torch.cat([x[:2], torch.zeros(1, 4)])))


def test_lengths_and_angles_of_a_reconstruction_that_points_elsewhere_are_those_by_hand() -> None:
    sae = threshold_of(0.0)
    with torch.no_grad():
        sae.W_dec.copy_(2 * torch.eye(4))
        sae.W_dec[1] = torch.tensor([1.0, 0.0, 0.0, 0.0])
    x = torch.tensor([[3.0, 4.0, 0.0, 0.0], [0.0, 0.0, 2.0, 0.0]])  # becomes [10 0 0 0] and [0 0 4 0]
    found = reconstruction(sae, tensor_source(x))
    assert (found.cosine, found.norm_ratio, found.bias) == pytest.approx((0.8, 14 / 7, 116 / 38))


def test_density_counts_tokens_and_the_histogram_holds_every_latent_that_fired() -> None:
    sae = threshold_of(0.0)
    x = torch.full((100, 4), -1.0)
    x[:1, 0], x[:20, 1], x[:, 2] = 1.0, 1.0, 1.0
    found = evaluate(sae, tensor_source(x))
    assert found.density.tolist() == pytest.approx([0.01, 0.2, 1.0, 0.0])
    assert found.dense_share == 0.5 and found.dead_share == 0.25
    edges, counts = found.histogram()
    assert int(counts.sum()) == 3 and float(edges[0]) == -2 and float(edges[-1]) == 0
    assert edges.tolist() == pytest.approx([-2 + i / 4 for i in range(9)]) and counts.tolist() == [
        1,
        0,
        0,
        0,
        0,
        1,
        0,
        1,
    ]
    edges, counts = found.histogram(bins_per_decade=1)
    assert edges.tolist() == [-2, -1, 0] and counts.tolist() == [1, 2]


def test_a_whitened_source_has_the_identity_as_covariance() -> None:
    x = some_rows(5000, 5).double() @ torch.diag(torch.tensor([0.5, 1.0, 2.0, 3.0, 4.0]).double()) + 7
    z = torch.cat(list(normalise_source(tensor_source(x), whitening([x], epsilon=1e-9))))
    assert torch.allclose(z.T @ z / len(z), torch.eye(5).double(), atol=1e-5)
    assert float(z.mean(0).abs().max()) < 1e-9


def test_normalisations_of_rows_of_unequal_length_are_those_by_hand() -> None:
    lengths = expected_norm([torch.diag(torch.tensor([1.0, 1.0, 1.0, 5.0]))])  # E||x|| = 2, of d = 4
    assert torch.allclose(lengths.matrix, torch.eye(4).double()) and not bool(lengths.mean.any())
    centred = mean_centring([torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 4.0], [2.0, 4.0]])])  # E||x - m||^2 = 5
    assert centred.mean.tolist() == [1, 2]
    assert torch.allclose(centred.matrix, (2 / 5) ** 0.5 * torch.eye(2).double())


def test_each_normalisation_gives_every_site_rows_of_the_length_it_says() -> None:
    """Of width 9: a mean length of 3, or a mean square of 9; centred or not."""
    x = some_rows(400, 18).view(400, 2, 9).double() * torch.tensor([[0.2], [7.0]]) + 1
    found = {make: make([x[:250], x[250:]])(x) for make in (expected_norm, rms_scaling, mean_centring, whitening)}
    assert found[expected_norm].norm(dim=-1).mean(0).tolist() == pytest.approx([3, 3])
    for make in (rms_scaling, mean_centring):
        assert found[make].pow(2).sum(-1).mean(0).tolist() == pytest.approx([9, 9])
    assert float(found[mean_centring].mean(0).abs().max()) < 1e-9 < 0.05 < float(found[rms_scaling].mean(0).abs().min())
    assert found[whitening].pow(2).sum(-1).mean(0).tolist() == pytest.approx([9, 9], rel=0.01)
    for make, z in found.items():
        torch.testing.assert_close(make([x]).back(z), x, rtol=1e-9, atol=1e-9)


def test_the_unit_of_activations_does_not_matter_to_whitening() -> None:
    x = some_rows(500, 4) * torch.tensor([0.1, 1.0, 2.0, 3.0])
    n, tenfold = (whitening([rows], epsilon=0.5) for rows in (x, 10 * x))
    assert torch.allclose(tenfold(10 * x), n(x), atol=1e-4)
    assert float(n(x).var(0).max()) < 0.9


def test_of_a_name_the_last_token_is_kept_and_a_run_ends_with_its_text() -> None:
    concepts = ("", "Rome", "Rome", "Oslo", "", "Rome", "Rome", "Rome")
    data = LabelledTokens(torch.arange(8.0)[:, None], concepts, torch.tensor([0, 0, 0, 0, 0, 0, 1, 1]))
    ends = data.ends()
    assert ends.concepts == ("", "Rome", "Oslo", "", "Rome", "Rome")
    assert ends.x.flatten().tolist() == [0.0, 2.0, 3.0, 4.0, 5.0, 7.0] and ends.text.tolist() == [0, 0, 0, 0, 0, 1]


def planted_concepts() -> tuple[Standard, LabelledTokens]:
    """Concept a is latent 0 throughout; b is split between latents 1 and 2; c is no latent."""
    g = torch.Generator().manual_seed(0)
    labels = ["", "a", "b", "c"]
    concepts = [labels[i] for i in torch.randint(0, 4, (1200,), generator=g)]
    x = torch.zeros(1200, 4)
    for row, concept in enumerate(concepts):
        if concept == "a":
            x[row, 0] = 1.0
        if concept == "b":
            x[row, 1 + row % 2] = 1.0
    x = x + 0.01 * torch.rand(1200, 4, generator=g)
    return threshold_of(0.0), LabelledTokens(x, tuple(concepts), torch.arange(1200) // 10)


def test_a_concept_with_a_latent_of_its_own_is_recovered_and_others_are_not() -> None:
    sae, data = planted_concepts()
    found = concept_recovery(sae, data)
    assert found.latents["a"] == 0 and found.f1["a"] == pytest.approx(1, abs=0.02)
    assert found.latents["b"] in (1, 2) and found.f1["b"] == pytest.approx(2 / 3, abs=0.08)
    assert found.f1["c"] < 0.5
    assert found.share() == pytest.approx(1 / 3)


def test_a_concept_counts_from_ten_tokens_in_both_halves_on() -> None:
    """ "a" has 10 in each, "b" 9 in one, "c" all of its own in one."""
    sae, data = planted_concepts()
    chosen, concepts = data.choose_half(0), [""] * 1200
    ours, theirs = chosen.nonzero().flatten().tolist(), (~chosen).nonzero().flatten().tolist()
    for concept, first, second, here, there in (("a", 0, 0, 10, 10), ("b", 10, 10, 30, 9), ("c", 40, 0, 60, 0)):
        for row in ours[first : first + here] + theirs[second : second + there]:
            concepts[row] = concept
    found = concept_recovery(sae, LabelledTokens(data.x, tuple(concepts), data.text))
    assert set(found.latents) == set(found.f1) == {"a"}
    nine = concept_recovery(sae, LabelledTokens(data.x, tuple(concepts), data.text), min_tokens=9)
    assert set(nine.latents) == {"a", "b"}


def test_a_concept_split_in_two_needs_two_latents() -> None:
    sae, data = planted_concepts()
    whole, split = k_sparse(sae, data, "a", k=3), k_sparse(sae, data, "b", k=3)
    assert whole.latents[0] == 0 and whole.split == 1 and whole.f1[0] > 0.98
    assert set(split.latents[:2]) == {1, 2} and split.split == 2 and split.f1[1] > 0.98
    with pytest.raises(ValueError, match="need tokens that express 'nowhere'"):
        k_sparse(sae, data, "nowhere")


def test_a_latent_that_is_always_on_is_of_no_concept_however_many_tokens_express_it() -> None:
    x = torch.zeros(400, 4)
    x[:, 1], x[torch.arange(400) % 4 > 0, 0] = 5.0, 1.0
    concepts = tuple("a" if row[0] else "" for row in x)
    probe = k_sparse(threshold_of(0.0), LabelledTokens(x, concepts, torch.arange(400) // 10), "a", k=1)
    assert probe.latents == (0,) and probe.f1 == (1.0,)


def test_what_is_said_of_a_concept_is_said_of_texts_it_was_not_chosen_on() -> None:
    """In the texts that are reported on, "a" is where its latent is off: what the other half taught scores nothing."""
    sae, data = planted_concepts()
    swapped = {"a": "", "": "a"}
    seen = data.choose_half(0).tolist()
    concepts = [c if here else swapped.get(c, c) for c, here in zip(data.concepts, seen, strict=True)]
    turned = LabelledTokens(data.x, tuple(concepts), data.text)
    found = concept_recovery(sae, turned)
    assert found.latents["a"] == 0 and found.f1["a"] == 0
    probe = k_sparse(sae, turned, "a", k=1)
    assert probe.latents == (0,) and probe.f1 == (0,)


def test_a_concept_is_split_as_far_as_each_latent_raises_f1_by_more_than_three_hundredths() -> None:
    assert SparseProbe((0, 1, 2, 3), (0.50, 0.54, 0.60, 0.62)).split == 3
    assert SparseProbe((0, 1, 2), (0.50, 0.52, 0.90)).split == 1


def test_latents_that_read_normalised_activations_are_not_held_against_raw_ones() -> None:
    sae, data = planted_concepts()
    sae.normalisation = expected_norm([data.x])
    y = data.where("a")
    for measure in (
        lambda: concept_recovery(sae, data),
        lambda: k_sparse(sae, data, "a"),
        lambda: absorption(sae, data.x, y, [0], torch.eye(4)[0]),
    ):
        with pytest.raises(ValueError, match=r"read normalised activations: use fold_normalisation\(sae\)"):
            measure()
    assert concept_recovery(fold_normalisation(sae), data).f1.keys() == {"a", "b", "c"}


def test_absorption_counts_rows_whose_concept_another_latent_holds() -> None:
    """Latent 1 fires where child and parent are on and holds both; latent 0 fires for the parent alone."""
    sae = Standard(3, 3)
    u = torch.tensor([1.0, 0.0, 0.0])
    with torch.no_grad():
        sae.W_enc.copy_(torch.tensor([[1.0, 0.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
        sae.W_dec.copy_(torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    parent, child = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0])
    other = torch.tensor([0.0, 0.0, 1.0])
    x = torch.stack([parent] * 6 + [parent + child] * 3 + [other])
    y = torch.tensor([True] * 9 + [False])
    found = absorption(sae, x, y, [0], u)
    assert (found.rate, found.missed, found.rows) == (pytest.approx(3 / 9), pytest.approx(3 / 9), 9)
    with torch.no_grad():
        sae.W_dec[1] = torch.tensor([0.3, 1.0, 0.0])  # holds less than 0.4 of the parent
    weak = absorption(sae, x, y, [0], u)
    assert (weak.rate, weak.missed) == (0.0, pytest.approx(3 / 9))
    with torch.no_grad():
        sae.W_dec[1] = torch.tensor([0.5, 25.0, 0.0])  # holds more than 0.4 of it, at a cosine below 0.025
    assert absorption(sae, x, y, [0], u).rate == 0.0
    with pytest.raises(ValueError, match="no row expresses the concept"):
        absorption(sae, x, ~torch.ones(10, dtype=torch.bool), [0], u)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize(
    ("row", "absorbed"),
    [((0.41, 1.0), True), ((0.39, 1.0), False), ((0.5, 19.5), True), ((0.5, 20.5), False), ((-0.5, 1.0), False)],
)
def test_a_latent_absorbs_from_four_tenths_of_the_concept_and_a_cosine_of_a_fortieth_on(
    row: tuple[float, float], absorbed: bool, scale: float
) -> None:
    sae, u = Standard(2, 2), torch.tensor([1.0, 0.0])
    with torch.no_grad():
        sae.W_enc.copy_(torch.tensor([[0.0, 0.0], [0.0, 1.0]]))
        sae.W_dec.copy_(torch.tensor([[1.0, 0.0], row]))
    assert absorption(sae, torch.full((1, 2), scale), torch.tensor([True]), [0], 3 * u).rate == float(absorbed)


def test_what_another_latent_holds_is_compared_with_what_is_along_the_concept_beyond_the_bias() -> None:
    sae, u = Standard(2, 2), torch.tensor([1.0, 0.0])
    with torch.no_grad():
        sae.W_enc.copy_(torch.tensor([[0.0, 0.0], [0.0, 1.0]]))
        sae.W_dec.copy_(torch.tensor([[1.0, 0.0], [0.5, 1.0]]))
        sae.b_dec.copy_(torch.tensor([2.0, 0.0]))
    x = torch.tensor([[3.0, 1.0]])  # x . u is 3, of which the bias makes 2; latent 1 holds 0.5
    assert absorption(sae, x, torch.tensor([True]), [0], u).rate == 1.0


def test_a_concept_is_missed_where_all_of_its_latents_are_off_and_absorbed_by_none_that_is_off_too() -> None:
    sae, u = threshold_of(0.0), torch.eye(4)[0]
    with torch.no_grad():
        sae.W_dec[3] = u  # points along the concept, and is on nowhere
    x = torch.tensor([[0.0, 1.0, 0.0, 0.0], [-1.0, -1.0, -1.0, -1.0], [-1.0, -1.0, 1.0, 0.0]])
    found = absorption(sae, x, torch.ones(3, dtype=torch.bool), [0, 1], u)
    assert (found.missed, found.rate) == (pytest.approx(2 / 3), 0.0)


def test_absorption_refuses_what_would_give_a_share_of_nothing() -> None:
    sae, x, y, u = threshold_of(0.0), some_rows(20, 4).abs(), torch.arange(20) < 10, torch.eye(4)[0]
    for given, said in (
        ((x, y, [], u), "latents is empty: name the latents of the concept"),
        ((x, y.long(), [0], u), r"takes y as a tensor of shape .n., Bool, got a tensor of shape .20., int64"),
        ((x, y[:10], [0], u), r"y is torch\.bool of shape \(10,\)"),
        ((x, y, [0], 0 * u), r"direction has length 0\.0: it points nowhere"),
        ((x, y, [0], torch.nan * u), "direction has length nan"),
    ):
        with unchecked(), pytest.raises(ValueError, match=said):
            absorption(sae, *given)
    for latents in ([-1], [0, 99]):
        with pytest.raises(IndexError, match=rf"latents \[{latents[-1]}\] do not exist; .* has latents 0 to 3"):
            absorption(sae, x, y, latents, u)
    assert absorption(sae, x, y, [0], u.double()) == absorption(sae, x.double(), y, (0,), u)


def test_reconstructions_that_are_not_finite_have_no_quality() -> None:
    x = some_rows(50, 4).abs() + 0.1
    for spoil in ("W_dec", "b_dec", "W_enc"):
        for value in (math.nan, math.inf):
            sae = threshold_of(0.0)
            with torch.no_grad():
                getattr(sae, spoil)[..., 0] = value
            for measure in (evaluate, reconstruction):
                with pytest.raises(ValueError, match="reconstructions of 50 activations hold NaN or infinity"):
                    measure(sae, tensor_source(x))


def test_a_batch_without_rows_and_a_tensor_in_place_of_batches() -> None:
    sae, x = threshold_of(0.0), some_rows(50, 4)
    assert str(evaluate(sae, [x[:20], x[:0], x[20:]])) == str(evaluate(sae, tensor_source(x)))
    for measure in (lambda: evaluate(sae, x), lambda: reconstruction(sae, x), lambda: whitening(x)):
        with unchecked(), pytest.raises(ValueError, match=r"a tensor of shape \(50, 4\): give tensor_source\(x\)"):
            measure()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_labels_stay_with_their_tokens_whatever_the_padding(gpt2: Model, padded_left, texts: list[str]) -> None:
    from datasets import Dataset

    ids = [gpt2.tokens(text).ids[0].tolist() for text in texts]
    labels = [[f"{number}:{place}" for place in range(len(each))] for number, each in enumerate(ids)]
    rows = [{"input_ids": i, "concept": c} for i, c in zip(ids, labels, strict=True)]
    for model in (gpt2, padded_left(gpt2)):
        data = capture_labelled_tokens(model, Dataset.from_list(rows), resid_post[1], "concept", batch_size=3)
        assert list(data.concepts) == [label for each in labels for label in each[1:]]  # all but BOS
        for number, text in enumerate(texts):
            alone = capture(gpt2, text, resid_post[1]).flat(resid_post[1])
            assert torch.allclose(data.x[data.text == number], alone, atol=1e-4)
    with pytest.raises(ValueError, match=r"and lacks \['entity'\]"):
        capture_labelled_tokens(gpt2, Dataset.from_list(rows), resid_post[1], "entity")
    rows[1]["concept"] = rows[1]["concept"][1:]
    with pytest.raises(ValueError, match=rf"text 1 has {len(ids[1]) - 1} labels and {len(ids[1])} tokens"):
        capture_labelled_tokens(gpt2, Dataset.from_list(rows), resid_post[1], "concept")
