"""The index against latent-by-latent evidence, brute force, other batches, and being broken off."""

import sys
from pathlib import Path

import pytest
import torch

from hooks import Model, stream
from hooks.disk import lock
from hooks.errors import WrongState
from hooks.site import resid_post
from interp.features import FeatureIndex, collect_evidence, index, measure_logit_effect
from interp.features import index as index_of
from interp.features.index.accumulator import EVERY, Accumulator, IndexSize, cut_windows, hash_to_unit
from interp.features.index.misra_gries import HeaviestItems
from interp.features.index.statistics import BINS, RunningStatistics
from interp.features.index.tables import _partner_slack, _partners
from interp.features.index.top_examples import TopExamples
from interp.sae import TopK, load, save
from interp.sae.architectures.latent_share import LatentShare

G = torch.Generator().manual_seed(0)
TEXTS = ["".join("abcdefghijklmnop ."[i] for i in torch.randint(18, (n,), generator=G).tolist()) for n in range(3, 43)]


@pytest.fixture
def made(letters: TopK, gpt2: Model, tmp_path: Path) -> FeatureIndex:
    return index(letters, gpt2, TEXTS, tmp_path / "made", top=5, sampled=6, context=3, batch_size=7)


def test_every_latents_record_is_the_evidence_gathered_for_it_alone(
    made: FeatureIndex, letters: TopK, gpt2: Model
) -> None:
    for latent in (0, 7, 17):
        got, want = made.record(latent), collect_evidence(letters, gpt2, TEXTS, latent, top=5, context=3)
        assert got.evidence.examples == want.examples
        assert got.evidence.firing_rate == want.firing_rate and got.evidence.tokens == want.tokens
        assert (got.evidence.mean, got.evidence.largest) == pytest.approx((want.mean, want.largest))
        assert int(got.evidence.counts.sum()) == int(want.counts.sum())
        assert [w for w, _ in got.evidence.promoted] == [w for w, _ in want.promoted]
        assert dict(got.evidence.suppressed) == pytest.approx(dict(want.suppressed), abs=1e-5)


def test_statistics_positions_and_tokens_are_those_of_the_dense_codes(
    made: FeatureIndex, letters: TopK, gpt2: Model
) -> None:
    site, number, f, written = letters.sites[0], [], [], ""
    for acts in stream(gpt2, TEXTS, [site], batch_size=64):
        number = [i for text in TEXTS for i in range(len(text))]
        f, written = letters.encode(acts.flat(site)).detach().double(), "".join(TEXTS)
    for latent in (3, 16):
        record, on = made.record(latent), f[:, latent] > 0
        assert record.second_moment == pytest.approx(float(f[on, latent].pow(2).mean()))
        places = torch.tensor([min(15, (number[i] + 1).bit_length() - 1) for i in on.nonzero().flatten().tolist()])
        assert torch.equal(record.positions, torch.bincount(places, minlength=16))
        mass = {c: sum(float(f[i, latent]) for i, s in enumerate(written) if s == c) for c in set(written)}
        expected = {c: m / sum(mass.values()) for c, m in mass.items() if m > 0}
        assert dict(record.tokens) == pytest.approx(expected, rel=1e-5) and record.token_slack == 0


def test_co_activation_is_the_jaccard_index_on_every_eighth_token(letters: TopK, gpt2: Model, tmp_path: Path) -> None:
    with torch.no_grad():
        letters.W_enc[:, 5] += letters.W_enc[:, 3]  # latent 5 also fires on what latent 3 fires on
    made = index(letters, gpt2, TEXTS, tmp_path / "pairs")
    written = "".join(TEXTS)[::EVERY]
    d, f = written.count("d"), written.count("f")
    assert d > 0 and dict(made.record(3).partners) == {5: pytest.approx(d / (d + f))}
    assert dict(made.record(5).partners) == {3: pytest.approx(d / (d + f))}


def test_partners_come_with_the_most_alike_first(letters: TopK, gpt2: Model, tmp_path: Path) -> None:
    with torch.no_grad():
        letters.W_enc[:, 5] += letters.W_enc[:, 3]
        letters.W_enc[:, 6] += letters.W_enc[:, 3] + letters.W_enc[:, 5]
    alike = [jaccard for _, jaccard in index(letters, gpt2, TEXTS, tmp_path / "pairs").record(3).partners]
    assert len(set(alike)) > 1 and alike == sorted(alike, reverse=True)


def test_sampled_texts_are_ones_it_fires_on_whatever_their_peak(made: FeatureIndex) -> None:
    record = made.record(2)
    firing = {i for i, text in enumerate(TEXTS) if "c" in text}
    texts = {e.text for e in record.sampled}
    assert len(texts) == 6 and texts <= firing
    assert all(e.tokens[e.peak] == "c" for e in record.sampled)


def test_the_batch_size_changes_nothing(letters: TopK, gpt2: Model, tmp_path: Path) -> None:
    one, other = (index(letters, gpt2, TEXTS, tmp_path / str(n), top=4, sampled=4, batch_size=n) for n in (3, 40))
    for name in ("examples", "coactivation"):
        assert one.table(name).equals(other.table(name))
    for mine, theirs in zip(one.table("latents").to_pylist(), other.table("latents").to_pylist(), strict=True):
        for key, value in mine.items():
            assert value == (pytest.approx(theirs[key]) if isinstance(value, float) else theirs[key]) or key in (
                "token_mass",
                "promoted_logits",
                "suppressed_logits",
            )


def test_broken_off_it_goes_on_and_ends_the_same(
    letters: TopK, gpt2: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules["interp.features.index.index"]
    whole = index(letters, gpt2, TEXTS, tmp_path / "whole", batch_size=4)
    monkeypatch.setattr(module, "PAUSES", 2)
    seen = []
    add = module.Accumulator.add

    def failing(self, ids, *rest, **texts):
        seen.append(len(ids))
        if len(seen) == 6:
            raise KeyboardInterrupt
        add(self, ids, *rest, **texts)

    monkeypatch.setattr(module.Accumulator, "add", failing)
    with pytest.raises(KeyboardInterrupt):
        index(letters, gpt2, TEXTS, tmp_path / "broken", batch_size=4)
    with pytest.raises(FileNotFoundError, match="holds no finished feature index"):
        FeatureIndex.open(tmp_path / "broken")
    seen.clear()
    seen.extend([0] * 10)
    again = index(letters, gpt2, TEXTS, tmp_path / "broken", batch_size=4)
    assert len(seen) == 10 + 6  # ten batches in all, of which four had been saved
    for name in ("latents", "examples", "coactivation"):
        assert again.table(name).equals(whole.table(name))


def test_a_finished_index_is_returned_at_once_and_another_is_refused(
    made: FeatureIndex, letters: TopK, gpt2: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["interp.features.index.index"], "stream", None)
    again = index(letters, gpt2, TEXTS, made.folder, top=5, sampled=6, context=3, batch_size=7)
    assert again.about == made.about
    with pytest.raises(ValueError, match="holds an index made with another data, context: give another folder"):
        index(letters, gpt2, TEXTS[1:], made.folder, top=5, sampled=6, context=4, batch_size=7)


def test_two_indexes_at_once_are_not_written_to_one_place(letters: TopK, gpt2: Model, tmp_path: Path) -> None:
    with lock(tmp_path, "index"), pytest.raises(WrongState, match="another index is writing to .*: wait until it ends"):
        index(letters, gpt2, TEXTS, tmp_path, top=5, sampled=6, context=3)


def test_any_text_and_any_number_an_autoencoder_computes_with_makes_another_index(
    made: FeatureIndex, letters: TopK, gpt2: Model, tmp_path: Path
) -> None:
    how = {"top": 5, "sampled": 6, "context": 3, "batch_size": 7}
    with pytest.raises(ValueError, match="holds an index made with another data: give"):
        index(letters, gpt2, [*TEXTS[:20], "another", *TEXTS[21:]], made.folder, **how)
    letters.k = 3
    with pytest.raises(ValueError, match="holds an index made with another autoencoder: give"):
        index(letters, gpt2, TEXTS, made.folder, **how)
    letters.k = 4
    for tensor in (tensor for name, tensor in letters.state_dict().items() if name != "variance"):
        was = tensor.clone()
        tensor[(0,) * tensor.ndim] += 1
        with pytest.raises(ValueError, match="holds an index made with another autoencoder: give"):
            index(letters, gpt2, TEXTS, made.folder, **how)
        tensor.copy_(was)
    letters.variance.fill_(7.0)  # of training, which files do not keep
    save(letters, tmp_path / "kept")
    assert index(load(tmp_path / "kept"), gpt2, TEXTS, made.folder, **how).about == made.about


def test_a_jaccard_index_is_too_small_by_no_more_than_its_slack(letters: TopK, gpt2: Model, tmp_path: Path) -> None:
    shape, g = IndexSize(d_sae=100, d_vocab=3, top=1, sampled=1, context=0), torch.Generator().manual_seed(0)
    gathered = Accumulator(tmp_path, shape, LatentShare(shape.d_sae))
    on = torch.rand(1000, 100, generator=g) < torch.linspace(0.3, 0.02, 100)
    on[:, 0] = True  # fires with every other one, of which 64 are kept
    n = EVERY * len(on)
    for part in torch.arange(n).split(EVERY * 50):
        values = torch.zeros(len(part), 100)
        values[::EVERY] = on[part[0] // EVERY : part[-1] // EVERY + 1].float()
        indices = torch.arange(100).expand(len(part), 100)
        gathered.add(torch.zeros(len(part), dtype=torch.long), torch.zeros(len(part)).long(), values, indices, 1)
    both = on.double().T @ on.double()
    of = on.double().sum(0)
    true = both / (of[:, None] + of - both)
    rows = list(_partners(range(1), gathered, letters, gpt2, str))
    slack = _partner_slack(gathered, 0)
    assert len(rows) == 64 and 0 < slack < 1
    for row in rows:
        assert row["jaccard"] - 1e-12 <= float(true[0, row["other"]]) <= row["jaccard"] + slack + 1e-12


def test_an_index_that_does_not_say_how_far_partners_are_off_is_read_as_knowing_nothing(made: FeatureIndex) -> None:
    from pyarrow import parquet

    assert made.record(3).partner_slack == 0.0
    file = made.folder / "latents.parquet"
    parquet.write_table(parquet.read_table(file).drop_columns(["partner_slack"]), file)
    assert made.record(3).partner_slack == 1.0


def test_what_an_index_lacks_is_named(made: FeatureIndex) -> None:
    with pytest.raises(IndexError, match="latent 18 does not exist; this index has latents 0 to 17"):
        made.record(18)
    with pytest.raises(ValueError, match="an index has no table 'latent'"):
        made.table("latent")


def test_a_histogram_is_the_same_as_if_its_range_had_been_known() -> None:
    v = torch.rand(500, generator=torch.Generator().manual_seed(1)).double().exp().float() ** 9
    parts, whole = RunningStatistics(1), RunningStatistics(1)
    zeros = torch.zeros(500, dtype=torch.long)
    for some in v.sort().values.split(50):
        parts.add(zeros[: len(some)], some, zeros[: len(some)], len(some))
    whole.add(zeros, v, zeros, 500)
    assert torch.equal(parts.counts, whole.counts) and int(parts.counts.sum()) == 500
    edges = torch.linspace(0, float(whole.top[0]), BINS + 1).double()
    brute = [int(((v.double() > a) & (v.double() <= b)).sum()) for a, b in zip(edges, edges[1:], strict=False)]
    assert whole.counts[0].tolist() == brute
    assert float(v.max()) <= float(whole.top[0]) < 2 * float(v.max())


def test_heavy_items_are_never_lost_and_weights_are_never_too_large() -> None:
    g = torch.Generator().manual_seed(0)
    truth, summary = torch.zeros(3, 200, dtype=torch.float64), HeaviestItems(3, 200, 10)
    for _ in range(30):
        latent = torch.randint(3, (60,), generator=g)
        item = (torch.rand(60, generator=g) ** 3 * 200).long()
        weight = torch.rand(60, generator=g) + 0.1
        truth.index_put_((latent, item), weight.double(), accumulate=True)
        summary.add(latent, item, weight)
    for latent in range(3):
        items, weights = summary.of(latent)
        slack = float(summary.slack[latent])
        assert len(items) <= 10 and weights.tolist() == sorted(weights.tolist(), reverse=True)
        assert slack <= float(truth[latent].sum()) / 11
        true = truth[latent, items]
        assert bool((weights <= true + 1e-9).all() and (true <= weights + slack + 1e-9).all())
        assert set((truth[latent] > slack).nonzero().flatten().tolist()) <= set(items.tolist())


def test_what_is_kept_is_what_sorting_everything_would_keep(tmp_path: Path) -> None:
    g, all_of = torch.Generator().manual_seed(0), []
    kept = TopExamples(tmp_path, "x", 4, 3, 1)
    for start in range(0, 60, 12):
        latent = torch.randint(4, (12,), generator=g)
        priority = (torch.rand(12, generator=g) * 8).round().double()
        text = torch.arange(start, start + 12)
        all_of += list(zip(latent.tolist(), priority.tolist(), text.tolist(), strict=True))
        kept.offer(
            latent, priority, priority.float(), text, lambda w, text=text: (text[w, None].int(), text[w, None].float())
        )
    for i in range(4):
        best = sorted((e for e in all_of if e[0] == i), key=lambda e: (-e[1], e[2]))[:3]
        assert sorted(kept.text[i].tolist()) == sorted(e[2] for e in best)
        assert kept.ids[i, :, 0].tolist() == kept.text[i].tolist() == kept.acts[i, :, 0].tolist()


def test_the_shuffle_is_uniform_and_forgets_order() -> None:
    u = hash_to_unit(torch.arange(20000))
    assert torch.histc(u.float(), 20, 0, 1).sub(1000).abs().max() < 160
    assert abs(float(torch.corrcoef(torch.stack([u[:-1], u[1:]]))[0, 1])) < 0.03


def test_the_numbers_are_those_of_splitmix64() -> None:
    """Its first three from the state 0, as its authors publish them (Steele, Lea and Flood 2014)."""
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert hash_to_unit(torch.arange(3)).tolist() == [(one >> 11) / 2**53 for one in published]


def test_records_are_read_without_the_row_groups_of_other_latents(gpt2: Model, tmp_path: Path) -> None:
    """The others' bytes are overwritten, which whoever reads them would notice."""
    from pyarrow import parquet

    sae = TopK(gpt2.d_model, 600, k=4)
    sae.site, sae.fingerprint = resid_post[0], gpt2.fingerprint
    found = index(sae, gpt2, TEXTS, tmp_path / "wide", top=2, sampled=2, context=1)
    expected = [str(one) for one in found.records([3, 250])]
    every = [str(one) for one in found.records([599, 0, 300])]
    assert every == [str(found.record(latent)) for latent in (599, 0, 300)]
    for name in ("latents", "examples", "coactivation"):
        file = found.folder / f"{name}.parquet"
        about = parquet.read_metadata(file)
        assert about.num_row_groups == 3
        data = bytearray(file.read_bytes())
        for group in (1, 2):
            for column in range(about.num_columns):
                part = about.row_group(group).column(column)
                begin = part.dictionary_page_offset or part.data_page_offset
                data[begin : begin + part.total_compressed_size] = b"\xff" * part.total_compressed_size
        file.write_bytes(data)
    assert [str(one) for one in found.records([3, 250])] == expected
    with pytest.raises(OSError):
        found.records([3, 300])


def test_a_dictionary_in_double_precision_is_indexed_as_in_single(
    letters: TopK, gpt2: Model, made: FeatureIndex, tmp_path: Path
) -> None:
    found = index(letters.double(), gpt2, TEXTS, tmp_path / "double", top=5, sampled=6, context=3, batch_size=7)
    for latent in (0, 3):
        mine, single = found.record(latent).evidence, made.record(latent).evidence
        assert mine.firing_rate == single.firing_rate and mine.mean == pytest.approx(single.mean, rel=1e-5)
        assert [one.tokens for one in mine.examples] == [one.tokens for one in single.examples]


def test_the_index_needs_an_autoencoder_of_the_model_and_some_text(letters: TopK, gpt2: Model, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="top, sampled and batch_size must be at least 1"):
        index_of(letters, gpt2, TEXTS, tmp_path, top=0)
    with pytest.raises(ValueError, match="the data can be read once only: give a list"):
        index_of(letters, gpt2, iter(TEXTS), tmp_path)
    letters.fingerprint = "0" * 64
    with pytest.raises(ValueError, match="was trained on"):
        index_of(letters, gpt2, TEXTS, tmp_path)


def test_the_logit_effect_of_several_vectors_is_that_of_each(gpt2: Model, letters: TopK) -> None:
    from interp.features.logits import measure_logit_effects

    both = measure_logit_effects(gpt2, letters.W_dec[:2].detach())
    assert torch.allclose(both[1], measure_logit_effect(gpt2, letters.W_dec[1].detach()), atol=1e-5)


def test_a_window_has_no_activation_outside_of_its_text() -> None:
    ids, text = torch.tensor([5, 6, 7, 8]), torch.tensor([0, 0, 1, 1])
    values, indices = torch.full((4, 1), 2.0), torch.zeros(4, 1, dtype=torch.long)
    around, acts = cut_windows(ids, text, values, indices, torch.tensor([1, 2]), torch.zeros(2, dtype=torch.long), 2)
    assert around.tolist() == [[-1, 5, 6, -1, -1], [-1, -1, 7, 8, -1]]
    assert acts.tolist() == [[0, 2, 2, 0, 0], [0, 0, 2, 2, 0]]


def test_partners_are_counted_on_the_same_tokens_however_the_texts_are_cut(tmp_path: Path) -> None:
    shape = IndexSize(d_sae=8, d_vocab=40, top=2, sampled=2, context=1)
    draw = torch.Generator().manual_seed(4)
    indices = torch.rand(40, 8, generator=draw).argsort(1)[:, :3]
    ids, text, values = torch.arange(40), torch.arange(40) // 5, torch.rand(40, 3, generator=draw) + 0.1
    whole, parts = (
        Accumulator(tmp_path, shape, LatentShare(shape.d_sae)),
        Accumulator(tmp_path, shape, LatentShare(shape.d_sae)),
    )
    whole.add(ids, text, values, indices, 8)
    for a in range(0, 40, 5):
        part = slice(a, a + 5)
        parts.add(ids[part], text[part] - text[a], values[part], indices[part], 1)
    assert torch.equal(whole.paired, parts.paired)
    for i in range(8):
        assert all(map(torch.equal, whole.partners.of(i), parts.partners.of(i)))


def random_codes(n: int = 400, d_sae: int = 24, k: int = 5, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Token ids, the text of each, and sparse codes of which some values are 0 and some are alike."""
    g = torch.Generator().manual_seed(seed)
    indices = torch.rand(n, d_sae, generator=g).argsort(1)[:, :k]
    values = (torch.rand(n, k, generator=g) * 8).round() / 4 * (torch.rand(n, k, generator=g) < 0.8)
    text = torch.rand(n, generator=g).lt(0.15).long().cumsum(0)
    return torch.randint(90, (n,), generator=g), text - text[0], values, indices


def test_what_is_gathered_of_some_latents_is_what_is_gathered_of_all_for_them(tmp_path: Path) -> None:
    """And after half of it was saved and taken up again."""
    ids, text, values, indices = random_codes()
    shape = IndexSize(d_sae=24, d_vocab=90, top=3, sampled=4, context=2)
    cut = int((text == text[200]).nonzero()[0])
    halves = ((slice(0, cut), 0), (slice(cut, 400), int(text[cut])))
    (tmp_path / "whole").mkdir()
    whole = Accumulator(tmp_path / "whole", shape, LatentShare(24))
    for part, first in halves:
        texts = int(text[part][-1]) - first + 1
        whole.add(ids[part], text[part] - first, values[part], indices[part], texts)
    assert whole.texts == int(text[-1]) + 1 and whole.tally.tokens == 400
    for number, own in enumerate((LatentShare(24, 1, 0, 2), LatentShare(24, 1, 1, 2), LatentShare(24, 3, 1, 4))):
        (tmp_path / str(number)).mkdir()
        some = Accumulator(tmp_path / str(number), shape, own)
        for part, first in halves:
            some.add(ids[part], text[part] - first, values[part], indices[part], int(text[part][-1]) - first + 1)
            state = {name: value.clone() for name, value in some.state().items()}
            some = Accumulator(tmp_path / str(number), shape, own)
            some.restore(state)
        assert some.texts == whole.texts and torch.equal(some.paired, whole.paired)
        for name in ("fired", "total", "squares", "largest", "top", "counts", "positions"):
            assert torch.equal(getattr(some.tally, name), own.part(getattr(whole.tally, name)))
        for j, i in enumerate(i for run in own.ranges for i in run):
            for mine, all_of in ((some.tokens, whole.tokens), (some.partners, whole.partners)):
                assert all(map(torch.equal, mine.of(j), all_of.of(i)))
            for mine, all_of in ((some.top, whole.top), (some.sampled, whole.sampled)):
                slots, others = mine.text[j].argsort(), all_of.text[i].argsort()
                assert torch.equal(mine.text[j][slots], all_of.text[i][others])
                assert (mine.ids[j][slots] == all_of.ids[i][others]).all()
                assert (mine.acts[j][slots] == all_of.acts[i][others]).all()


def test_what_is_gathered_is_what_loops_over_the_tokens_give(tmp_path: Path) -> None:
    ids, text, values, indices = random_codes(seed=3)
    shape = IndexSize(d_sae=24, d_vocab=90, top=3, sampled=4, context=2)
    gathered = Accumulator(tmp_path, shape, LatentShare(24))
    gathered.add(ids, text, values, indices, int(text[-1]) + 1)
    f = torch.zeros(400, 24).scatter(1, indices, values)
    first = [int((text == number).nonzero()[0]) for number in text.tolist()]
    for i in range(24):
        on = [t for t in range(400) if f[t, i] > 0]
        assert int(gathered.tally.fired[i]) == len(on)
        assert float(gathered.tally.squares[i]) == pytest.approx(sum(float(f[t, i]) ** 2 for t in on))
        assert float(gathered.tally.largest[i]) == float(f[:, i].max())
        place = [min(15, (t - first[t] + 1).bit_length() - 1) for t in on]
        assert gathered.tally.positions[i].tolist() == [place.count(p) for p in range(16)]
        mass = {int(ids[t]): sum(float(f[s, i]) for s in on if ids[s] == ids[t]) for t in on}
        items, weights = gathered.tokens.of(i)
        assert dict(zip(items.tolist(), weights.tolist(), strict=True)) == pytest.approx(mass)
        looked = [t for t in on if t % EVERY == 0]
        both = {j: sum(bool(f[t, j] > 0) for t in looked) for j in range(24) if j != i}
        others, counts = gathered.partners.of(i)
        assert dict(zip(others.tolist(), counts.tolist(), strict=True)) == {j: n for j, n in both.items() if n}
        assert int(gathered.paired[i]) == len(looked)
        peaks = {}
        for t in on:
            number = int(text[t])
            peaks[number] = max(peaks.get(number, t), t, key=lambda s: (float(f[s, i]), -s))
        best = sorted(peaks, key=lambda number: (-float(f[peaks[number], i]), number))[:3]
        assert sorted(gathered.top.text[i].tolist()) == sorted(best)
        drawn = sorted(peaks, key=lambda number: -float(hash_to_unit(torch.tensor([number * 24 + i]))))[:4]
        assert sorted(gathered.sampled.text[i].tolist()) == sorted(drawn)
        for kept in (gathered.top, gathered.sampled):
            for slot, number in enumerate(kept.text[i].tolist()):
                window = [t for t in range(peaks[number] - 2, peaks[number] + 3)]
                inside = [0 <= t < 400 and int(text[t]) == number for t in window]
                assert kept.ids[i, slot].tolist() == [
                    int(ids[t]) if w else -1 for t, w in zip(window, inside, strict=True)
                ]
                acts = [float(f[t, i]) if w else 0.0 for t, w in zip(window, inside, strict=True)]
                assert kept.acts[i, slot].tolist() == acts and float(kept.value[i, slot]) == acts[2]


def test_a_range_is_the_least_power_of_two_that_holds_the_largest() -> None:
    for largest, top in ((0.28, 0.5), (0.5, 0.5), (1.0, 1.0), (1.01, 2.0), (7.0, 8.0), (8.0, 8.0), (9.0, 16.0)):
        one = RunningStatistics(2)
        one.add(torch.tensor([1]), torch.tensor([largest]), torch.tensor([0]), 3)
        assert one.top.tolist() == [0.0, top] and int(one.counts[1].sum()) == 1 and one.tokens == 3
        assert int(one.counts[1].argmax()) == -int(-largest / top * BINS // 1) - 1
    far = RunningStatistics(1)
    numbers = torch.tensor([0, 1, 2, 6, 7, 2**14 - 2, 2**14 - 1, 2**15 - 1, 2**20])
    far.add(torch.zeros(9, dtype=torch.long), torch.ones(9), numbers, 9)
    assert far.positions[0].nonzero().flatten().tolist() == [0, 1, 2, 3, 13, 14, 15]
    assert far.positions[0, 15] == 2 and far.positions[0, 1] == 2


def test_the_weight_that_does_not_fit_is_taken_off_all_that_do() -> None:
    few = HeaviestItems(2, 9, 2)
    few.add(torch.tensor([1, 1, 1]), torch.tensor([4, 2, 8]), torch.tensor([5.0, 2.0, 3.0]))
    assert [part.tolist() for part in few.of(1)] == [[4, 8], [3.0, 1.0]] and few.slack.tolist() == [0.0, 2.0]
    few.add(torch.tensor([0, 1]), torch.tensor([8, 4]), torch.tensor([1.0, 1.0]))
    assert [part.tolist() for part in few.of(1)] == [[4, 8], [4.0, 1.0]] and few.of(0)[1].tolist() == [1.0]
    few.add(torch.tensor([1, 1]), torch.tensor([0, 1]), torch.tensor([1.0, 0.5]))
    assert [part.tolist() for part in few.of(1)] == [[4], [3.0]] and few.slack.tolist() == [0.0, 3.0]


def test_the_tables_are_the_same_in_blocks_of_any_size(
    letters: TopK, gpt2: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = index(letters, gpt2, TEXTS, tmp_path / "whole", top=2, sampled=2, context=2)
    monkeypatch.setattr(sys.modules["interp.features.index.tables"], "BLOCK", 5)
    monkeypatch.setattr(sys.modules["interp.features.index.accumulator"], "ROWS", 3)
    parts = index(letters, gpt2, TEXTS, tmp_path / "parts", top=2, sampled=2, context=2)
    for name in ("examples", "coactivation"):
        assert whole.table(name).equals(parts.table(name))
    drop = ["promoted_logits", "suppressed_logits"]
    assert whole.table("latents").drop_columns(drop).equals(parts.table("latents").drop_columns(drop))
    row = whole.table("latents", 3).to_pylist()[0]
    effect = measure_logit_effect(gpt2, letters.W_dec[3].detach())
    assert row["promoted_logits"] == pytest.approx(effect.topk(10).values.tolist(), abs=1e-4)
    assert row["suppressed_logits"] == pytest.approx(effect.sort().values[:10].tolist(), abs=1e-4)
    listed = [e for e in whole.table("examples").to_pylist() if e["latent"] == 3 and e["kind"] == "top"]
    assert [e["rank"] for e in listed] == [0, 1] and [e["text"] for e in listed] == sorted(e["text"] for e in listed)
    assert all(e["activations"][e["peak"]] == max(e["activations"]) for e in listed)


def test_a_latents_row_says_its_rates_per_token_and_per_firing(tmp_path: Path, letters: TopK, gpt2: Model) -> None:
    """And the share of activation, of twenty tokens at most, of a summary that kept fewer than came."""
    from interp.features.index.tables import _latents

    shape, g = IndexSize(d_sae=18, d_vocab=257, top=1, sampled=1, context=0), torch.Generator().manual_seed(0)
    gathered = Accumulator(tmp_path, shape, LatentShare(18))
    ids = torch.randint(200, (600,), generator=g)
    value = torch.rand(600, 1, generator=g) + 0.1
    gathered.add(ids, torch.zeros(600).long(), value, torch.full((600, 1), 5), 1)
    gathered.add(ids[:200], torch.zeros(200).long(), torch.zeros(200, 1), torch.full((200, 1), 5), 1)
    rows = list(_latents(range(18), gathered, letters, gpt2, str))
    row, total = rows[5], float(value.double().sum())
    assert (row["latent"], row["fired"], row["firing_rate"]) == (5, 600, 600 / 800)
    assert row["mean"] == pytest.approx(total / 600)
    assert row["second_moment"] == pytest.approx(float(value.double().pow(2).mean()))
    items, mass = gathered.tokens.of(5)
    assert len(items) == 64 and len(row["tokens"]) == 20 and row["tokens"] == [str(i) for i in items[:20].tolist()]
    assert row["token_mass"] == pytest.approx([float(m) / total for m in mass[:20]])
    assert row["token_slack"] == pytest.approx(float(gathered.tokens.slack[5]) / total) and row["token_slack"] > 0
    silent = rows[4]
    assert (silent["fired"], silent["firing_rate"], silent["mean"], silent["second_moment"]) == (0, 0.0, 0.0, 0.0)
    assert silent["tokens"] == [] and silent["partner_slack"] == 0.0 and silent["token_slack"] == 0.0


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("slack", "expected"),
    [(0.0, 0.0), (1.0, (1 + 1) / (9 - 1) - 1 / 9), (3.0, 1.0), (50.0, 1.0)],  # of 6 and 4 firings, one together
)
def test_a_partners_slack_is_how_much_larger_its_jaccard_index_may_be_and_one_at_most(
    slack: float, expected: float
) -> None:
    from types import SimpleNamespace

    partners = SimpleNamespace(
        of=lambda _: (torch.tensor([2]), torch.tensor([1.0]).double()), slack=torch.tensor([0.0, slack]).double()
    )
    paired = torch.tensor([9, 9, 4, 9, 9, 6]) if slack < 3 else torch.tensor([9, 9, 1, 9, 9, 1])
    gathered = SimpleNamespace(own=LatentShare(16, 1, 1, 4), partners=partners, paired=paired)
    assert _partner_slack(gathered, 5) == pytest.approx(expected)  # pyright: ignore[reportArgumentType]


def test_the_rows_of_some_latents_are_those_of_a_summary_of_all(letters: TopK, gpt2: Model, tmp_path: Path) -> None:
    from interp.features.index.tables import _examples, _latents

    ids, text, values, indices = random_codes(d_sae=18)
    shape = IndexSize(d_sae=18, d_vocab=257, top=3, sampled=2, context=2)
    made = []
    for own in (LatentShare(18), LatentShare(18, 1, 1, 2)):
        (tmp_path / str(own.rank)).mkdir()
        gathered = Accumulator(tmp_path / str(own.rank), shape, own)
        gathered.add(ids, text, values, indices, int(text[-1]) + 1)
        made.append([[*rows(range(12, 16), gathered, letters, gpt2, str)] for rows in (_latents, _partners, _examples)])
    assert made[0] == made[1] and all(len(rows) >= 4 for rows in made[0])
    assert {row["latent"] for rows in made[1] for row in rows} == {12, 13, 14, 15}
