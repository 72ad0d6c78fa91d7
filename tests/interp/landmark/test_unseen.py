"""Texts the bundled model never saw: fitting its context, about a kind where asked, and free of trained phrasings."""

from itertools import islice

import pytest

from hooks import Model, load
from interp import landmark
from interp.landmark.grammar import training_phrasings


@pytest.fixture(scope="module")
def model() -> Model:
    return load("landmark")


def test_unseen_texts_are_the_documents_from_the_unseen_seed_on_that_fit_shortest_first(model: Model) -> None:
    found = landmark.unseen_texts(model, 100, seed=3)
    drawn = [document.text for document in islice(landmark.documents(landmark.UNSEEN + 3), 100)]
    lengths = [int(model.tokens(text).mask.sum()) for text in found]
    assert sorted(found) == sorted(text for text in drawn if model.tokens(text).ids.shape[1] <= 256)
    assert lengths == sorted(lengths)
    assert len(found) < len(drawn)


def test_texts_about_a_kind_mention_it_twice_or_more(model: Model) -> None:
    texts = {d.text: d for d in islice(landmark.documents(landmark.UNSEEN), 400)}
    for text in landmark.unseen_texts(model, 40, about="landmark"):
        named = [landmark.entity(span.value).kind for span in texts[text].spans if span.kind == "entity"]
        assert named.count("landmark") >= 2


def test_unseen_phrasings_leave_a_place_for_the_bare_name_and_are_none_of_training() -> None:
    bridge = landmark.entity("Golden Gate Bridge")
    found = landmark.unseen_phrasings(bridge, "located_in_city")
    trained = {phrasing.template for phrasing in training_phrasings("located_in_city")}
    assert all(template.count("{}") == 1 and "the {}" in template.lower() for template in found)
    assert not any(template.lower().replace("the {}", "{}") in {t.lower() for t in trained} for template in found)


def test_names_hold_every_form_that_names_and_no_article() -> None:
    articles = ("", "the ", "el ", "la ", "le ", "les ", "los ", "las ", "die ", "der ", "das ", "den ", "dem ", "l'")
    for entity in landmark.entities():
        forms = [m.text for m in entity.mentions if m.form in ("name", "alias", "foreign")]
        for form, name in zip(forms, entity.names, strict=True):
            assert form.removesuffix(name).lower() in articles
            assert not name.lower().startswith(("the ", "el ", "la ", "le "))
