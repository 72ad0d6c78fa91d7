"""The text of single tokens, with the space that running text has before them."""

from hooks.huggingface import Tokenizer


def piece(tokenizer: Tokenizer | None, token: int) -> str:
    """What one token spells; `[7]` where there is no tokenizer.

    Tokenizers that mark the beginning of words (`▁fog`) drop the space when they decode a token by itself; here it
    stays, so that joining pieces gives the text.

    ```python
    "".join(piece(model.tokenizer, i) for i in ids)
    ```
    """
    if tokenizer is None:
        return f"[{token}]"
    said = str(tokenizer.decode([token]))
    marked = str(tokenizer.convert_ids_to_tokens(token)).startswith("▁")
    return f" {said}" if marked and not said.startswith(" ") else said
