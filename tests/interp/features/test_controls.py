"""What the best latent is compared with: groups, principal components, the other half, and other ways to ask."""

from dataclasses import replace

import pytest
import torch

from hooks import Direction, Model, capture
from hooks.site import embed, mlp_out, resid_post
from interp.features import (
    Concept,
    Mention,
    by_token,
    choose_candidates,
    concept_from_phrase,
    explain_text,
    find_similar,
    search,
)
from interp.features.reading import Reading, encode_texts
from interp.features.search.baselines import score_baselines, score_components
from interp.features.search.concept import split_by_group
from interp.features.search.group import Member, _find_missed, describe_sharing, find_group
from interp.features.search.ranking import Ranking, compare_halves, pool_entries
from interp.features.search.rows import by_text
from interp.features.search.score import Evaluation
from interp.sae import TopK


def split_concept(n: int = 48) -> Concept:
    """A concept named by an h in one text and by an o in the next, between letters that mean nothing."""
    g = torch.Generator().manual_seed(0)
    texts, labels, mentions = [], [], []
    for i in range(n):
        words = "".join("abcd. "[j] for j in torch.randint(6, (6,), generator=g).tolist())
        yes = bool(i % 2)
        named = ("h", "o")[i // 2 % 2] if yes else "ef"[i // 2 % 2]
        texts.append(f"{words}{named}a"), labels.append(yes)
        mentions.append([Mention(6, 7, named)] if yes else [])
    return Concept("h or o", texts, labels, mentions)


@pytest.mark.parametrize("unit", [by_text, by_token], ids=["texts", "tokens"])
def test_two_latents_cover_a_concept_that_is_split_between_them(gpt2: Model, letters: TopK, unit) -> None:
    found = search(letters, gpt2, split_concept(), unit=unit, permutations=20)
    assert found.best.held_out.f1 < 0.8
    assert set(found.group.latents) == {"abcdefgh".index("h"), "abcdefghijklmno".index("o")}
    assert found.group.score.held_out.f1 == 1.0 and found.group.score.recall_by_form == {"h": 1.0, "o": 1.0}
    assert "splitting: latent" in found.group.note and "of the positives that latent" in str(found)
    assert found.group.score.direction is not None
    assert max(found.group.weights) == pytest.approx(1) and min(found.group.weights) > 0


def test_what_is_tried_next_finds_the_positives_that_no_member_finds(gpt2: Model, letters: TopK) -> None:
    concept = split_concept()
    reading = encode_texts(letters, gpt2, concept.texts)
    rows = by_text(reading, concept)
    bench = Evaluation(concept, rows, split_by_group(concept, 0)[rows.text], 0)
    entries, h, o = pool_entries(reading, rows), "abcdefgh".index("h"), "abcdefghijklmno".index("o")
    members = [Member(latent, entries.column(latent, len(rows.y)), 0.0) for latent in (h, o)]
    for member, other in (members, members[::-1]):
        missed = _find_missed(letters, bench, entries, [member])
        assert next(iter(missed)) == other.latent and member.latent not in missed
    assert _find_missed(letters, bench, entries, members) == {}


def test_two_latents_that_each_fire_on_more_find_a_concept_where_they_meet(gpt2: Model, letters: TopK) -> None:
    texts = [f"{a}{e} {pair}" for a in "abcd" for e in "efg" for pair in ("ho", "hb", "bo", "ef")]
    found = search(letters, gpt2, Concept("ho", texts, [t.endswith("ho") for t in texts]), permutations=20)
    assert found.best.held_out.f1 < 0.8
    assert set(found.group.latents) == {"abcdefgh".index("h"), "abcdefghijklmno".index("o")}
    assert found.group.score.held_out.f1 == 1.0 and found.group.score.direction is not None


def test_a_concept_that_one_latent_covers_has_no_group(gpt2: Model, letters: TopK) -> None:
    concept = split_concept()
    only = Concept("h", *zip(*[(t, "h" in t) for t in concept.texts], strict=True))
    assert search(letters, gpt2, only, permutations=20).group is None


def test_a_small_latent_that_writes_the_same_has_absorbed_and_one_that_writes_else_has_split() -> None:
    sae = TopK(6, 3, k=1)
    with torch.no_grad():
        sae.W_dec.copy_(torch.tensor([[1.0, 0, 0, 0, 0, 0], [0.6, 0.8, 0, 0, 0, 0], [0, 0, 1.0, 0, 0, 0]]))
    y, place = torch.arange(100) < 50, torch.arange(100)
    main = Member(0, (place < 40).float(), 0.5)
    absorbing, other = (Member(i, ((place >= 40) & (place < 50)).float(), 0.5) for i in (1, 2))
    assert describe_sharing(sae, [main, absorbing], y) == (
        "absorption: latent 1 finds 20% of the positives that latent 0 misses, and writes nearly the same (cosine 0.60)"
    )
    assert describe_sharing(sae, [main, other], y).startswith("splitting: latent 2 finds 20%")
    assert describe_sharing(sae, [main, Member(1, (place < 30).float(), 0.5)], y) == ""


@pytest.mark.parametrize(
    ("cosine", "alone", "said"),
    [
        (0.11, 10, "absorption: latent 1 finds 20%"),
        (0.09, 10, "splitting: latent 1 finds 20%"),
        (0.5, 13, "absorption: latent 1 finds 20%"),  # 13 of 40: less than a third of what the larger finds
        (0.5, 14, "splitting: latent 1 finds 20%"),
        (0.5, 3, "absorption: latent 1 finds 6%"),
        (0.5, 2, ""),  # under a twentieth of the positives
    ],
)
def test_absorption_is_rows_a_tenth_alike_and_a_third_of_the_firings_of_a_latent_with_a_twentieth_of_its_own(
    cosine: float, alone: int, said: str
) -> None:
    sae = TopK(6, 2, k=1)
    with torch.no_grad():
        sae.W_dec.zero_()[0, 0] = 2.0
        sae.W_dec[1, :2] = torch.tensor([cosine, (1 - cosine**2) ** 0.5])
    y, place = torch.arange(100) < 50, torch.arange(100)
    main = Member(0, (place < 40).float() if alone <= 10 else (place >= 10).float() * (place < 50), 0.5)
    own = (place >= 40) & (place < 40 + alone) if alone <= 10 else place < alone
    found = describe_sharing(sae, [main, Member(1, own.float(), 0.5)], y)
    assert found.startswith(said) if said else found == ""


def planted_component(seed: int) -> tuple[Reading, Concept]:
    """Tokens whose greatest variance is along -axis 3, on which positive texts lie far out."""
    g = torch.Generator().manual_seed(seed)
    labels = [bool(i % 2) for i in range(60)]
    text = torch.arange(60).repeat_interleave(5)
    x = torch.randn(300, 8, generator=g)
    x[:, 3] -= 12.0 * torch.tensor(labels)[text]
    place = torch.arange(5).repeat(60)
    none = torch.zeros(300, 1)
    return Reading(x, none, none.long(), text, place, place + 1, 4), Concept(
        "x", [f"{i:05}" for i in range(60)], labels
    )


def test_a_component_of_great_variance_is_found_with_the_sign_of_the_concept() -> None:
    reading, concept = planted_component(0)
    rows, half = by_text(reading, concept), split_by_group(concept, 0)
    score = score_components(
        reading.x, half[reading.text], Evaluation(concept, rows, half[rows.text], 0), resid_post[0], "f"
    )
    assert score.held_out.f1 == 1.0 and score.name == "PCA, component 1"
    assert float(score.direction.unit[3]) < -0.99 and score.direction.scale > 5
    assert score.direction.fingerprint == "f"


def test_a_component_and_its_opposite_are_both_tried() -> None:
    reading, concept = planted_component(0)
    half = split_by_group(concept, 0)
    for sign, labels in ((1, concept.labels), (-1, [not label for label in concept.labels])):
        other = Concept("x", concept.texts, labels)
        bench = Evaluation(other, by_text(reading, other), half, 0)
        score = score_components(reading.x, half[reading.text], bench, resid_post[0], "f")
        assert score.held_out.f1 > 0.9 and sign * float(score.direction.unit[3]) < -0.99
        rows = reading.x[half[reading.text]]
        along = (rows - rows.mean(0)) @ score.direction.vector
        assert float(score.direction.vector.norm()) == pytest.approx(1, rel=1e-5)
        assert score.direction.scale == pytest.approx(float(along.max()), rel=1e-4)


def test_what_the_reported_half_holds_changes_nothing_that_was_chosen(gpt2: Model, letters: TopK) -> None:
    split = split_concept()
    half = split_by_group(split, 0)
    g = torch.Generator().manual_seed(1)
    flipped = [
        bool(yes) != (not kept and i % 3 == 0) for i, (yes, kept) in enumerate(zip(split.labels, half, strict=True))
    ]
    plain = encode_texts(letters, gpt2, split.texts)
    there = ~half[plain.text]
    moved = plain.x + 3 * there[:, None] * torch.randn(plain.x.shape, generator=g)
    found = []
    louder = plain.values * (1 + there[:, None])
    for labels, x, values in ((split.labels, plain.x, plain.values), (flipped, moved, louder)):
        reading, concept = replace(plain, x=x, values=values), Concept("x", split.texts, labels)
        rows = by_text(reading, concept)
        bench, entries = Evaluation(concept, rows, half[rows.text], 0), pool_entries(reading, rows)
        best = Ranking(entries.at(bench.searched), letters.d_sae).best(rows.y, bench.counts(bench.searched)[1])
        group = find_group(letters, bench, entries, best, 3)
        scores = [*score_baselines(letters, gpt2, reading, bench, half[reading.text])[:-1], group.score]
        chosen = [(one.name, one.searched_f1, one.held_out.threshold, one.direction.vector) for one in scores]
        found.append((chosen, group.latents, group.weights, group.note, [one.held_out.f1 for one in scores]))
    (here, *ours, f1), (same, *theirs, other_f1) = found
    for (name, *numbers, v), (as_named, *others, w) in zip(here, same, strict=True):
        assert name == as_named and numbers == pytest.approx(others) and torch.allclose(v, w, atol=1e-6)
    assert ours == theirs and "splitting" in ours[2] and f1 != other_f1


def test_a_difference_of_means_is_fitted_to_last_tokens_of_mentions_against_tokens_of_none(
    gpt2: Model, letters: TopK
) -> None:
    texts, labels, mentions = [], [], []
    for i in range(32):
        word, form = (("gh", "name"), ("o", "description"))[i // 2 % 2]
        texts.append(f"ab{'cd'[i % 3 > 0]}{word}{i}" if i % 2 else f"ab{i}ee")
        labels.append(bool(i % 2)), mentions.append([Mention(3, 3 + len(word), form)] if i % 2 else [])
    concept = Concept("h", texts, labels, mentions, apart=["description"])
    found = search(letters, gpt2, concept, unit=by_token, permutations=5)
    half, on, off = split_by_group(concept, 0), [], []
    for text, marks, kept in zip(texts, mentions, half.tolist(), strict=True):
        x = capture(gpt2, text, embed)[embed][0, 1:]
        inside = [i for m in marks for i in range(m.start, m.end)]
        if kept:
            on += [x[m.end - 1] for m in marks if m.form == "name"]
            off += [x[i] for i in range(len(text)) if i not in inside]
    by_hand = torch.stack(on).mean(0) - torch.stack(off).mean(0)
    assert found.baselines[0].direction.cosine(Direction(by_hand, embed, "by hand")) == pytest.approx(1.0, abs=1e-5)


def test_split_half_stability_is_the_rank_on_the_other_half_and_spearmans_correlation() -> None:
    from scipy.stats import spearmanr

    g = torch.Generator().manual_seed(0)
    here = (torch.rand(40, generator=g) * 10).round() / 10
    there = ((here + torch.rand(40, generator=g)) * 10).round() / 10
    found = compare_halves(here, there)
    assert found.correlation == pytest.approx(float(spearmanr(here.numpy(), there.numpy()).statistic))
    assert found.rank == 1 + int((there > there[here.argmax()]).sum())
    same = compare_halves(here, here)
    assert (same.rank, same.correlation) == (1, pytest.approx(1.0))


def test_a_phrase_is_found_in_its_forms_the_longest_first_and_as_whole_words() -> None:
    texts = ["The Golden  gate bridge", "golden gate and Bridges", "a bridge", "Golden gateway", "a bridge"]
    concept = concept_from_phrase("GGB", {"name": ["Golden Gate Bridge"], "alias": ["golden gate"]}, texts)
    assert concept.texts == ("The Golden  gate bridge", "golden gate and Bridges", "a bridge", "Golden gateway")
    assert concept.mentions == ((Mention(4, 23, "name"),), (Mention(0, 11, "alias"),), (), ())
    assert concept.labels == (True, True, False, False)


def test_a_spelling_is_found_as_it_is_written_whatever_casefolding_or_its_spaces_make_of_it() -> None:
    texts = ["Gauß rechnet.", "Gauss counts.", "nobody"]
    concept = concept_from_phrase("Gauß", {"German": ["Gauß"], "English": ["Gauss"]}, texts)
    assert concept.mentions == ((Mention(0, 4, "German"),), (Mention(0, 5, "English"),), ())
    spaced = concept_from_phrase("GG", {"name": ["golden  gate"]}, ["the Golden gate", "a gate"])
    assert spaced.mentions == ((Mention(4, 15, "name"),), ())


@pytest.mark.parametrize("forms", ["fog", {"name": "fog"}])
def test_a_string_is_no_list_of_spellings(forms) -> None:
    with pytest.raises(ValueError, match="give a list of spellings, not a string"):
        concept_from_phrase("fog", forms, ["a fog", "a sun"])


@pytest.mark.parametrize(
    ("forms", "said"),
    [(["zebra"], "0 of 2 texts hold"), (["a"], "2 of 2 texts hold"), ([" "], "none of them blank")],
)
def test_a_phrase_that_divides_nothing_is_refused(forms: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        concept_from_phrase("x", forms, ["a fog", "a sun"])


def test_the_latent_of_a_direction_is_found_and_no_random_one_comes_near(letters: TopK, gpt2: Model) -> None:
    found = find_similar(letters, letters.direction(7), top=3)
    assert found.latents[0] == (7, pytest.approx(1.0)) and found.chance < 0.8
    drawn = torch.randn(100, gpt2.d_model, generator=torch.Generator().manual_seed(9))
    best = [find_similar(letters, Direction(v, embed, "random"), top=1).latents[0][1] for v in drawn]
    assert sum(cosine < found.chance for cosine in best) >= 85


def test_a_half_precision_dictionary_is_searched_as_its_float32_copy_is(letters: TopK) -> None:
    direction = letters.direction(7)
    half = find_similar(letters.bfloat16(), direction, top=3)
    full = find_similar(letters.float(), direction, top=3)
    assert [i for i, _ in half.latents] == [i for i, _ in full.latents]
    assert half.latents[0][1] == pytest.approx(full.latents[0][1], abs=1e-5) and half.chance == full.chance


def test_likely_are_the_latents_that_tell_a_concept_then_those_that_write_it_and_none_that_never_fired(
    gpt2: Model, letters: TopK
) -> None:
    found = search(letters, gpt2, split_concept(), permutations=20)
    telling = [score.latent for score in found.latents[:2]]
    writing = [latent for latent, _ in find_similar(letters, found.baselines[0].direction, top=2).latents]
    assert choose_candidates(letters, found, top=2) == tuple(dict.fromkeys([*telling, *writing]))
    letters.max_activation[telling[0]] = 0
    assert telling[0] not in choose_candidates(letters, found, top=2) and telling[1] in choose_candidates(
        letters, found, top=2
    )
    letters.sites = (embed, mlp_out[0])  # what reads the embedding says nothing of rows written elsewhere
    assert choose_candidates(letters, found, top=2) == (telling[1],)


def test_a_direction_of_another_place_or_model_is_not_searched(letters: TopK) -> None:
    with pytest.raises(ValueError, match="the direction is at resid_post.1, the autoencoder writes at embed"):
        find_similar(letters, Direction(torch.ones(32), resid_post[1], "x"))
    with pytest.raises(ValueError, match="come from different models"):
        find_similar(letters, Direction(torch.ones(32), embed, "x", fingerprint="another"))


def test_explaining_a_text_names_each_tokens_latent_and_what_it_does_to_the_logits(gpt2: Model, letters: TopK) -> None:
    reads = explain_text(letters, gpt2, "gah")
    assert [read.token for read in reads] == ["g", "a", "h"]
    assert [[f.latent for f in read.firings] for read in reads] == [[6], [0], [7]]
    assert reads[2].firings[0].activation == pytest.approx(1.7, abs=1e-3)
    final = resid_post[gpt2.n_layers - 1]
    x = capture(gpt2, "gah", [final]).flat(final)[2]
    change = gpt2.unembed(x) - gpt2.unembed(x - reads[2].firings[0].activation * letters.W_dec[7])
    change = (change - change.mean()).detach()
    best = int(change.argmax())
    assert reads[2].firings[0].raises[0] == (
        gpt2.tokenizer.decode([best]),
        pytest.approx(float(change[best]), abs=1e-3),
    )
    assert reads[2].firings[0].lowers[0][1] == pytest.approx(float(change.min()), abs=1e-3)
    assert str(reads[1]).startswith("'a'            0 at 1.00 (")


def test_the_latents_of_a_token_come_strongest_first_as_many_as_asked_for(gpt2: Model, letters: TopK) -> None:
    with torch.no_grad():
        letters.W_enc[:, 5] += 2 * letters.W_enc[:, 3]  # on "d", latent 3 by 1.3 and latent 5 by 2.6
        letters.W_enc[:, 7] += letters.W_enc[:, 3] / 2  # and latent 7 by 0.65
    (read,) = explain_text(letters, gpt2, "d")
    assert [f.latent for f in read.firings] == [5, 3, 7]
    assert [f.activation for f in read.firings] == pytest.approx([2.6, 1.3, 0.65], abs=1e-3)
    assert [f.latent for f in explain_text(letters, gpt2, "d", top=2)[0].firings] == [5, 3]
    x = capture(gpt2, "d", [resid_post[gpt2.n_layers - 1]]).flat(resid_post[gpt2.n_layers - 1])[0]
    for f in read.firings:
        change = gpt2.unembed(x) - gpt2.unembed(x - f.activation * letters.W_dec[f.latent])
        falling = (change - change.mean()).detach().sort(descending=True).values
        assert [rise for _, rise in f.raises] == pytest.approx(falling[:3].tolist(), abs=1e-3)
        assert [rise for _, rise in f.lowers] == pytest.approx(falling.flip(0)[:3].tolist(), abs=1e-3)
    table = read.to_pandas()
    assert table["latent"].tolist() == [5, 3, 7] and table["raises"].tolist() == [f.raises[0][0] for f in read.firings]


def test_candidates_are_those_that_detect_and_those_that_write_alike_without_the_dead(
    gpt2: Model, letters: TopK
) -> None:
    found = search(letters, gpt2, split_concept(), permutations=5, top=4)
    telling = [one.latent for one in found.latents]
    means = found.baselines[0].direction
    assert means is not None
    near = [i for i, _ in find_similar(letters, means, top=3).latents]
    expected = [*dict.fromkeys([*telling[:3], *near])]
    assert choose_candidates(letters, found, top=3) == tuple(expected)
    assert len(choose_candidates(letters, found, top=10)) >= 10
    letters.max_activation[expected[1]] = 0.0
    assert choose_candidates(letters, found, top=3) == tuple(i for i in expected if i != expected[1])
    letters.sites = (embed, mlp_out[0])
    assert choose_candidates(letters, found, top=3) == tuple(i for i in telling[:3] if i != expected[1])
