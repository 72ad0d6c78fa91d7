"""The text of tokens as running text has it: with the space before a word, and characters of several tokens whole."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from hooks.huggingface import Tokenizer

BROKEN: Final = "\ufffd"  # what part of a character decodes to
LONGEST: Final = 8  # tokens that spell one character at most


def piece(tokenizer: Tokenizer | None, token: int) -> str:
    """What one token spells; `[7]` where there is no tokenizer.

    Tokenizers that mark the beginning of words (`▁fog`) drop the space when they decode a token by itself; here it
    stays. A token that is part of a character is its bytes, `<0xE5><0xB7>`, as SentencePiece writes them.
    """
    if tokenizer is None:
        return f"[{token}]"
    said = _decode(tokenizer, [token])
    return _as_bytes(str(tokenizer.convert_ids_to_tokens(token)), said) if BROKEN in said else said


def is_blank(tokenizer: Tokenizer | None, token: int) -> bool:
    """Whether a token spells white space alone: with some tokenizers every word begins with such a one."""
    return not piece(tokenizer, token).strip(" ▁\t\r\n")


def pieces(tokenizer: Tokenizer | None, tokens: Sequence[int]) -> tuple[str, ...]:
    """What each of some tokens in a row spells; joined they are the text.

    A character that several tokens spell is the piece of the first of them, and the others' pieces are empty: a token
    with no text of its own belongs to the piece before it.

    Examples:
        ```python
        "".join(pieces(model.tokenizer, ids)) == text
        ```
    """
    if tokenizer is None:
        return tuple(f"[{token}]" for token in tokens)
    found: list[str] = []
    while len(found) < len(tokens):
        start = len(found)
        for stop in range(start + 1, min(start + LONGEST, len(tokens)) + 1):
            written = _decode(tokenizer, tokens[start:stop])
            if BROKEN not in written:
                found += [written, *[""] * (stop - start - 1)]
                break
        else:
            found.append(_decode(tokenizer, tokens[start : start + 1]))
    return tuple(found)


def _as_bytes(token: str, said: str) -> str:
    """The bytes of a token of byte-level BPE; what it decodes to if it is of another kind, or whole characters."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    byte_of = {letter: byte for byte, letter in bytes_to_unicode().items()}
    if not token or any(letter not in byte_of for letter in token):
        return said
    read = bytes(byte_of[letter] for letter in token)
    with suppress(UnicodeDecodeError):
        return read.decode()
    return "".join(f"<0x{byte:02X}>" for byte in read)


def _decode(tokenizer: Tokenizer, tokens: Sequence[int]) -> str:
    said = str(tokenizer.decode(list(tokens)))
    marked = str(tokenizer.convert_ids_to_tokens(tokens[0])).startswith("▁")
    return f" {said}" if marked and not said.startswith(" ") else said
