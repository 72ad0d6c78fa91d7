"""What every lens is: a guess, from the stream after a block, at the stream after the last one, and its logits."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Direction, Model
from hooks.errors import InvalidArgument
from hooks.site import resid_post
from interp.circuits.metric import Word, name_token, token_ids
from interp.common.unembedding import output_rows


class Lens(ABC):
    """Reads the residual stream after any block as logits: unembed(norm(transform(h, layer))).

    A lens says how it maps a stream forward from each layer but the last, where every lens is the identity. Layers
    are blocks: `layer` l reads `resid_post[l]`.

    Attributes:
        model: whose streams it reads.
    """

    def __init__(self, model: Model) -> None:
        self.model = model

    @abstractmethod
    def carry(self, h: Float[Tensor, "*n d_model"], layer: int) -> Float[Tensor, "*n d_model"]:
        """The guess at the last stream, from that after an earlier block: an affine map of h."""

    @property
    def layers(self) -> Sequence[int]:
        """The layers it reads, the last one among them."""
        return range(self.model.n_layers)

    def transform(self, h: Float[Tensor, "*n d_model"], layer: int) -> Float[Tensor, "*n d_model"]:
        """The guess at the stream after the last block, given that after block `layer`.

        Raises:
            InvalidArgument: a layer it does not read, or another width than the stream's.
        """
        if layer not in self.layers:
            raise InvalidArgument(
                f"this lens does not read layer {layer} of {self.model.name}: take one of {[*self.layers]}"
            )
        if h.shape[-1] != self.model.d_model:
            raise InvalidArgument(
                f"a stream of {self.model.name} has width {self.model.d_model}, got {h.shape[-1]}: give resid_post"
            )
        return h if layer == self.model.n_layers - 1 else self.carry(h, layer)

    def read(self, h: Float[Tensor, "*n d_model"], layer: int) -> Float[Tensor, "*n vocab"]:
        """The logits it reads off the stream after block `layer`; `InvalidArgument` as `transform`."""
        return self.model.unembed(self.transform(h, layer))

    def direction(self, token: Word, layer: int) -> Direction:
        """The direction of the stream that raises the logit of a token, a word or its id, most, read from this layer.

        v_t = M^T U_t: M the matrix of `transform`, U_t the token's row of the unembedding. The final norm, its gain
        included, is left out, as in the Jacobian lens's vectors. Its scale is its own length: no text is read.

        Raises:
            InvalidArgument: a word of several tokens (`first_token` takes the first), or a layer it does not read.
        """
        rows, _ = output_rows(self.model, token_ids(self.model, token))
        with torch.inference_mode(False), torch.enable_grad():
            h = torch.zeros(self.model.d_model, dtype=self.model.dtype, device=self.model.device, requires_grad=True)
            (v,) = torch.autograd.grad(self.transform(h, layer) @ rows[0], h)
        name = f"{type(self).__name__} token {name_token(self.model, token)!r}"
        return Direction(v, resid_post[layer], name, float(v.norm()), self.model.fingerprint)
