"""Words in any script: what is found, what is not, how words are joined, and texts that read alike."""

from unicodedata import normalize

import pytest

from interp.common.texts import begins_with, find_phrases, fold_text, join_words, unique_texts

FOUND = {
    "Latin": ("Die Brücke in Zürich.", "Zürich"),
    "Cyrillic": ("Столица — Москва, конечно", "Москва"),
    "Greek": ("Η Αθήνα είναι πόλη", "Αθήνα"),
    "Han": ("我们去金门大桥看雾", "金门大桥"),
    "Kana": ("私はロンドンです。", "ロンドン"),
    "Japanese": ("日本の首都は東京です。", "東京"),
    "Hangul": ("도시는 서울, 한국", "서울"),
    "Thai": ("เมืองหลวงคือกรุงเทพมหานคร", "กรุงเทพ"),
    "Arabic": ("هي القاهرة.", "القاهرة"),
    "Hebrew": ("העיר ירושלים, כן", "ירושלים"),
    "Devanagari": ("राजधानी दिल्ली है", "दिल्ली"),
    "Khmer": ("នៅកម្ពុជា", "កម្ពុជា"),
    "possessive": ("Paris's river", "Paris"),
    "quoted": ("'Paris'", "Paris"),
    "end of a sentence": ("He was 5.", "5"),
}
INSIDE = {
    "Iranian": "Iran",
    "5.5 metres": "5",
    "3.5": "5",
    "1,000 people": "1",
    "1,000,000": "000",
    "Москва": "Москв",
    "ロンドン": "ロン",
    "दिल्ली": "दिल",
    "Zoe\u0308": "Zoe",
    "golden_gate": "golden",
    "서울대학교": "서울",
    "القاهرة": "القاهر",
}


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("script", FOUND)
def test_a_word_is_found_in_its_script_composed_or_not_at_its_own_characters(script: str, form: str) -> None:
    text, word = FOUND[script]
    given = normalize(form, text)
    ((start, end, number),) = find_phrases(given, ["nothing", word])
    assert normalize("NFC", given[start:end]) == normalize("NFC", word)
    assert number == 1
    assert begins_with(" " + given[start:], normalize("NFD", word))


@pytest.mark.parametrize("text", INSIDE)
def test_a_word_is_not_found_inside_another_or_inside_a_number(text: str) -> None:
    assert not find_phrases(text, [INSIDE[text]])
    assert not begins_with(text, INSIDE[text])


def test_the_longest_of_overlapping_phrases_is_found_in_any_case_and_over_any_space() -> None:
    assert find_phrases("the golden\n gate bridge", ["Gate", "Golden Gate"], ignore_case=True) == [(4, 16, 1)]
    assert find_phrases("the golden gate", ["Golden Gate"]) == []


def test_an_answer_is_said_only_at_the_beginning() -> None:
    assert begins_with("\n Paris.", "Paris")
    assert not begins_with("not Paris", "Paris")


@pytest.mark.parametrize(
    ("before", "after", "joined"),
    [
        ("lives in", "Rome", "lives in Rome"),
        ("lives in", "東京", "lives in 東京"),
        ("住在", "巴黎", "住在巴黎"),
        ("首都は", "東京", "首都は東京"),
        ("เมืองหลวงคือ", "กรุงเทพ", "เมืองหลวงคือกรุงเทพ"),
        ("수도는", "서울", "수도는 서울"),
        ("عاصمة مصر", "القاهرة", "عاصمة مصر القاهرة"),
        ("राजधानी", "दिल्ली", "राजधानी दिल्ली"),
    ],
)
def test_a_space_is_put_between_words_where_the_script_has_one(before: str, after: str, joined: str) -> None:
    assert join_words(before, after) == joined


def test_texts_that_differ_by_normalisation_or_outer_space_read_alike() -> None:
    alike = ["Zoe\u0308 sang", "Zo\u00eb sang ", "  Zo\u00eb\n sang"]
    assert len({*map(fold_text, alike)}) == 1
    assert unique_texts(["Zoe sang", *alike, "Zoe sang"]) == ["Zoe sang", alike[0]]
