"""What a kept thing was made of: the weights of one model, and nothing that changes what it computes besides."""

from collections.abc import Sequence
from pathlib import Path

from hooks import Model
from hooks.errors import WrongModel, WrongState
from hooks.fingerprint import is_of


def check_own(what: str, changed_by: Sequence[str]) -> None:
    """Raise where something is not of a model by itself, which is what its file says.

    Args:
        what: what is to be written, such as "lens".
        changed_by: what changed the passes it was made of besides the weights.

    Raises:
        WrongState: something did.

    Examples:
        >>> check_own("lens", ())
    """
    if changed_by:
        raise WrongState(
            f"this {what} was made of passes that were changed by {', '.join(changed_by)}, and its file would say that "
            "it is the model's own: make it outside the block and with those edits undone"
        )


def check_made_with(what: str, path: str | Path, model: Model, made_with: str | None) -> None:
    """Raise where what a file holds was made with other weights than a model was loaded with or has now.

    Args:
        what: what it holds, such as "lens".
        path: the file.
        model: with which it is to be used.
        made_with: the fingerprint in the file.

    Raises:
        WrongModel: it was.

    Examples:
        ```python
        check_made_with("lens", file, model, about["fingerprint"])
        ```
    """
    if not is_of(model, made_with):
        raise WrongModel(
            f"the {what} in {path} was made with other weights ({str(made_with)[:12]}) than {model.name} was loaded "
            f"with ({model.fingerprint[:12]}) or has now: make one on this model, or give it the weights it had then"
        )
