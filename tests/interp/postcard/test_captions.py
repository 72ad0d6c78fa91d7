"""A caption says true things, and the record of what it says is exact."""

import pytest

from interp.postcard.captions import LANGUAGES, WORDS, caption, is_true_of
from interp.postcard.scene import FACTORS
from interp.postcard.splits import scenes
from interp.postcard.words import UNKNOWN, caption_tokenizer

SCENES = scenes("test", 400)
OTHER = {
    "time": {"day": "night", "dusk": "day", "night": "dusk"},
    "weather": {"clear": "fog", "cloud": "rain", "fog": "clear", "rain": "cloud"},
}


@pytest.mark.parametrize("factor", ["time", "weather"])
@pytest.mark.parametrize("held_out", [False, True])
def test_a_caption_changes_with_a_factor_if_and_only_if_it_names_it(factor: str, held_out: bool) -> None:
    for i, scene in enumerate(SCENES):
        other = scene.but(**{factor: OTHER[factor][getattr(scene, factor)]})
        said, there = (caption(s, i, held_out=held_out) for s in (scene, other))
        assert (said.text != there.text) == (factor in said.factors) == (not is_true_of(said, scene, other))


def test_what_a_caption_says_is_drawn_and_nothing_else_is_said() -> None:
    for scene in SCENES:
        for language in LANGUAGES:
            said = caption(scene, 3, language=language)
            for factor in ("time", "weather", "side", "distance", "ground"):
                for value, words in WORDS[language][factor].items():
                    assert (words in said.text) == (factor in said.factors and getattr(scene, factor) == value), said
            for thing, words in WORDS[language]["thing"].items():
                assert words not in said.text or (scene.shows(thing) and thing in said.factors)


def test_there_are_words_for_every_value_of_every_factor_in_every_language() -> None:
    for language in LANGUAGES:
        for factor in ("time", "weather", "side", "distance", "ground"):
            assert set(WORDS[language][factor]) == set(FACTORS[factor])


def test_the_tokenizer_knows_every_word_of_every_caption_and_cuts_none() -> None:
    tokenizer = caption_tokenizer()
    texts = [caption(s, i, held_out=held_out).text for i, s in enumerate(SCENES) for held_out in (False, True)]
    read = tokenizer(texts)["input_ids"]
    assert max(map(len, read)) <= tokenizer.model_max_length
    assert not any(tokenizer.convert_tokens_to_ids(UNKNOWN) in ids for ids in read)


def test_captions_come_in_all_languages_most_in_english() -> None:
    counts = [[caption(s, 1).language for s in SCENES].count(language) for language in LANGUAGES]
    assert counts[0] > 180 and min(counts) > 30
