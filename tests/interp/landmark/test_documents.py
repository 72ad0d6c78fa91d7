"""The documents of the corpus: seeded, annotated rightly, and free of what is held out."""

from itertools import islice

import pytest

from interp.landmark import documents, entity, phrasings, sentences_about, sentences_about_others
from interp.landmark.genres import GENRES
from interp.landmark.writing import Document


@pytest.fixture(scope="module")
def sample() -> list[Document]:
    return list(islice(documents(seed=7), 800))


def test_the_same_seed_gives_the_same_documents_and_another_seed_others() -> None:
    one, same, other = (list(islice(documents(seed), 20)) for seed in (1, 1, 2))
    assert one == same != other


def test_every_genre_occurs(sample: list[Document]) -> None:
    assert {d.genre for d in sample} == {genre.__name__ for genre in GENRES}


def test_every_entity_span_is_a_mention_of_that_entity_or_refers_to_it(sample: list[Document]) -> None:
    refers_to = {"it", "the city", "the country", "this person", "city", "country"}
    for document in sample:
        for span in document.spans:
            if span.kind == "entity":
                said = document.text[span.start : span.end].lower()
                texts = {m.text.lower() for m in entity(span.value).mentions} | {span.value.lower()} | refers_to
                assert any(said == t or t.endswith(" " + said) or t.endswith("'" + said) for t in texts), (
                    said,
                    span.value,
                )


def test_spans_lie_inside_their_text(sample: list[Document]) -> None:
    assert all(0 <= s.start <= s.end <= len(d.text) + 2 for d in sample for s in d.spans)


def test_no_held_out_phrasing_is_ever_written(sample: list[Document]) -> None:
    for document in sample:
        for span in (s for s in document.spans if s.kind == "relation"):
            said = document.text[span.start : span.end].lower()
            for phrasing in (p for p in phrasings(span.value) if p.held_out):
                before, after = (part.lower() for part in phrasing.template.split("{}"))
                assert not (said.startswith(before) and after and f"{after} " in said and _whole(said, before, after))


def _whole(said: str, before: str, after: str) -> bool:
    """Whether nothing but a subject is between the two halves of the template."""
    between = (
        said[len(before) : said.index(f"{after} ", len(before))] if f"{after} " in said[len(before) :] else " that "
    )
    return not any(word in between for word in (" that ", " know ", " says,", "fact,", "?", "of "))


def test_a_claim_marked_true_states_the_fact_and_one_marked_false_does_not(sample: list[Document]) -> None:
    claims = [(d, s) for d in sample for s in d.spans if s.kind == "claim"]
    assert {s.value for _, s in claims} == {"true", "false"}
    for document, span in claims:
        inside = [s for s in document.spans if s.kind == "object" and span.start <= s.start < span.end]
        assert bool(inside) == (span.value == "true")


def test_repeated_sequences_repeat_exactly(sample: list[Document]) -> None:
    runs = [d.text for d in sample if d.genre == "repetition"]
    assert runs
    for text in runs:
        words = text.split()
        assert any(words[: len(words) - n] == words[n:] for n in range(1, len(words)) if len(words) % n == 0)


def test_sums_are_right(sample: list[Document]) -> None:
    sums = [d.text[s.start : s.end] for d in sample for s in d.spans if s.kind == "concept" and s.value == "sums"]
    assert sums
    for text in sums:
        left, right = text.rstrip(". ").split(" = ")
        assert sum(map(int, left.split(" + "))) == int(right)


def test_sentences_about_an_entity_mark_it_and_sentences_about_others_never_name_it() -> None:
    bridge = entity("Golden Gate Bridge")
    about = sentences_about(bridge, 60)
    assert {s.form for s in about} == {"name", "alias", "foreign"}
    assert all("olden" in s.text[s.span[0] : s.span[1]] or "GGB" in s.text for s in about)
    assert not any("Golden Gate" in s.text or "GGB" in s.text for s in sentences_about_others(bridge, 200))
