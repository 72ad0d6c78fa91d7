"""What actions share: what they may call while they run, and how long a text may be."""

from typing import Any, Final, Protocol, runtime_checkable

from hooks import Tokens
from hooks.errors import InvalidArgument

Document = dict[str, Any]
MAX_TOKENS: Final = 2_048


@runtime_checkable
class Progress(Protocol):
    """What an action calls while it runs; each raises `JobCancelled` where the page no longer wants the result."""

    def send(self, event: str, data: Document) -> None:
        """Send an event to the page."""

    def check(self) -> None:
        """Stop here if the job is cancelled."""


def check_length(tokens: Tokens, more: int = 0) -> None:
    """Refuse a text that is longer than a page takes, with what is to follow it.

    Raises:
        InvalidArgument: it is.
    """
    n = tokens.ids.shape[1]
    if n + more > MAX_TOKENS:
        raise InvalidArgument(
            f"the text has {n:,} tokens and {more:,} are to follow: a page takes {MAX_TOKENS:,} in all"
        )
