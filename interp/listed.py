"""A list of texts, as against a single string, whose letters would pass for texts."""

from collections.abc import Sequence


def listed(texts: Sequence[str], called: str = "texts") -> list[str]:
    """The texts as a list.

    Errors: `ValueError` for a single string, or no texts.

    ```python
    listed(prompts, "prompts")
    ```
    """
    if isinstance(texts, str) or not texts:
        raise ValueError(f"the {called} are {texts!r}: give a list of at least one {called.removesuffix('s')}")
    return list(texts)
