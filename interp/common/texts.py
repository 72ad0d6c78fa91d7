"""Texts: a list of them checked, and long ones cut into pieces that a model can read."""

from collections.abc import Iterator, Sequence

from hooks import Model
from hooks.errors import InvalidArgument


def listed(texts: Sequence[str], called: str = "texts") -> list[str]:
    """The texts as a list.

    Errors: `ValueError` for a single string, or no texts.

    ```python
    listed(prompts, "prompts")
    ```
    """
    if isinstance(texts, str) or not texts:
        raise InvalidArgument(f"the {called} are {texts!r}: give a list of at least one {called.removesuffix('s')}")
    return list(texts)


def fitting(model: Model, texts: Sequence[str]) -> list[str]:
    """The same texts, those longer than the model's context cut into pieces that fit, between words where it can be.

    Errors: `ValueError` when the tokenizer gives no character offsets. Cost: reading the tokens of every text.

    ```python
    fitting(model, lines(path))
    ```
    """
    room = getattr(model.hf.config.get_text_config(), "max_position_embeddings", None)
    return list(texts) if room is None else [piece for text in texts for piece in _pieces(model, text, room) if piece]


def _pieces(model: Model, text: str, room: int) -> Iterator[str]:
    while text and (tokens := model.tokens(text)).ids.shape[1] > room:
        if tokens.offsets is None:
            raise InvalidArgument(f"the tokenizer of {model.name} gives no character offsets: load its fast version")
        most = max(1, int(tokens.offsets[0, room - 1, 0]))
        cut = max((i for i in range(1, most) if text[i].isspace()), default=most)
        yield text[:cut].rstrip()
        text = text[cut:].lstrip()
    yield text
