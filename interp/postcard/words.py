"""The words of the captions as a tokenizer: one token a word, of every word that a caption can have."""

import functools
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from interp.landmark.entities import entity, find
from interp.postcard.captions import HELD_OUT, TEMPLATES, WORDS
from interp.postcard.scene import LANDMARKS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, UNKNOWN, START, END = "<pad>", "<unk>", "<start>", "<end>"
LONGEST = 24


def _texts() -> Iterator[str]:
    for language in TEMPLATES:
        for template in (*TEMPLATES[language], *HELD_OUT[language]):
            yield re.sub(r"\{\w+\}", " ", template)
        for table in WORDS[language].values():
            yield from table.values()
    yield "a an"
    for name in LANDMARKS:
        landmark = entity(name)
        yield from (m.text for m in landmark.mentions if m.form != "description")
        yield from (landmark[column] for column in ("kind", "colour", "city"))
        city = find(landmark["city"])
        yield from () if city is None else (m.text for m in city.forms("foreign"))


@functools.cache
def vocabulary() -> tuple[str, ...]:
    """Every word and mark of the captions in lower case, in the order of the alphabet, the four special ones first.

    The end of a caption is the last of the special ones and has the id 3: CLIP pools a text where that id is, and takes
    the id 2 for an older convention.

    Examples:
        >>> vocabulary()[:4], "bridge" in vocabulary()
        (('<pad>', '<unk>', '<start>', '<end>'), True)
    """
    words = {word for text in _texts() for word in re.findall(r"\w+|[^\w\s]+", text.lower())}
    return (PAD, UNKNOWN, START, END, *sorted(words))


def caption_tokenizer() -> "PreTrainedTokenizerFast":
    """The tokenizer of the bundled CLIP.

    Examples:
        >>> tokenizer = caption_tokenizer()
        >>> tokenizer.decode(tokenizer("A red bridge")["input_ids"])
        '<start> a red bridge <end>'
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {word: i for i, word in enumerate(vocabulary())}
    inner = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    inner.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, ids[START]), (END, ids[END])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token=START, eos_token=END, pad_token=PAD, unk_token=UNKNOWN,
        model_max_length=LONGEST, clean_up_tokenization_spaces=False,
    )  # fmt: skip
