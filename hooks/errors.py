"""How errors suggest what was probably meant."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(given: str, choices: Iterable[str]) -> str:
    """Return the three choices spelt most like `given`, quoted and ready for an error message.

    Args:
        given: what was asked for.
        choices: what exists.

    Returns:
        `'a', 'b' or 'c'`; the first choices when none is close.

    Example:
        >>> nearest("resid_pots", ["resid_post", "mlp_out"])
        "'resid_post'"
    """
    choices = list(dict.fromkeys(choices))
    close = get_close_matches(given, choices, n=3, cutoff=0.5) or choices[:3]
    quoted = [f"'{choice}'" for choice in close]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"
