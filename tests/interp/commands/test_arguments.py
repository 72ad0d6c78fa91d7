"""What commands do with the texts they are given."""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import processors

from hooks import load
from hooks.errors import InvalidArgument
from interp.commands.arguments import check_one_vector, read_lines
from interp.common.texts import split_long_texts


def test_texts_longer_than_the_context_are_cut_between_words_and_lose_no_word(
    hf_model: Callable[..., Any], tokenizer: Any
) -> None:
    model = load(hf_model("gpt2"), tokenizer)
    room = model.hf.config.get_text_config().max_position_embeddings
    long = " ".join(f"fog{i}" for i in range(room))
    unbroken = "f" * (3 * room)
    with pytest.warns(UserWarning, match="2 of 3 texts are longer than the context"):
        pieces = split_long_texts(model, ["short", long, unbroken])
    assert pieces[0] == "short" and len(pieces) > 4
    assert all(model.tokens(piece).ids.shape[1] <= room for piece in pieces)
    whole = [piece for piece in pieces if " " in piece]
    assert " ".join(whole).split() == long.split()
    assert "".join(piece for piece in pieces[1:] if piece not in whole) == unbroken
    assert all(model.tokens(f"{a} {b}").ids.shape[1] > room for a, b in zip(whole, whole[1:], strict=False))


def test_blanks_after_a_long_text_are_no_piece_of_it(hf_model: Callable[..., Any], tokenizer: Any) -> None:
    bare = copy.deepcopy(tokenizer)
    bare._tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    assert split_long_texts(load(hf_model("gpt2"), bare), ["a" * 90 + " " * 20]) == ["a" * 90]


def test_a_line_ends_where_the_file_breaks_it_and_a_mark_of_byte_order_is_no_text(tmp_path: Path) -> None:
    (file := tmp_path / "texts.txt").write_bytes("\ufeffFog\u2028over\r\n\n the bay \n".encode())
    assert read_lines(file) == ["Fog\u2028over", "the bay"]


def test_texts_that_fit_stay_as_they_are(hf_model: Callable[..., Any], tokenizer: Any) -> None:
    model = load(hf_model("gpt2"), tokenizer)
    assert split_long_texts(model, ["fog", "  the bay "]) == ["fog", "  the bay "]


@pytest.mark.parametrize(
    ("direction", "sae", "latent", "said"),
    [
        (None, None, None, "none of them"),
        ("d", "s", 3, "--direction, --sae, --latent"),
        ("d", None, 3, "--direction, --latent"),
        (None, "s", None, "--sae"),
        (None, None, 3, "--latent"),
    ],
)
def test_one_vector_is_a_direction_or_a_latent_with_its_dictionary(
    direction: str | None, sae: str | None, latent: int | None, said: str
) -> None:
    check_one_vector(Path("d"), None, None)
    check_one_vector(None, Path("s"), 0)
    with pytest.raises(InvalidArgument, match=f"given: {re.escape(said)}$"):
        check_one_vector(*(None if path is None else Path(path) for path in (direction, sae)), latent)
