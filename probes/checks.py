"""What every probe and metric refuses: nothing to learn from, or numbers that are none."""

from jaxtyping import Bool, Float
from torch import Tensor


def check_rows(x: Float[Tensor, "n *d"], y: Bool[Tensor, "n"]) -> None:
    """Raise `ValueError` unless rows and labels match, are finite, and hold both classes.

    Example:
        >>> check_rows(torch.randn(4, 2), torch.tensor([True, False, True, False]))
    """
    if len(x) != len(y):
        raise ValueError(f"There are {len(x)} rows and {len(y)} labels; each row needs one label.")
    if not bool(x.isfinite().all()):
        row = int((~x.isfinite()).reshape(len(x), -1).any(1).nonzero()[0])
        raise ValueError(f"Row {row} holds NaN or infinity.")
    positive = int(y.sum())
    if positive in (0, len(y)):
        raise ValueError(
            f"All {len(y)} labels are {bool(positive)}; rows of both classes are needed to tell them apart."
        )
