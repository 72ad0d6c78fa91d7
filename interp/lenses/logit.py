"""The logit lens: every stream is read as if it were the last."""

from jaxtyping import Float
from torch import Tensor

from interp.lenses.lens import Lens


class LogitLens(Lens):
    """transform(h, l) = h (nostalgebraist 2020).

    Cost:
        One unembedding per layer that is read.

    Examples:
        ```python
        LogitLens(model).read(acts[resid_post[3]], 3)
        ```
    """

    def carry(self, h: Float[Tensor, "*n d_model"], layer: int) -> Float[Tensor, "*n d_model"]:  # noqa: ARG002
        """The stream as it is."""
        return h
