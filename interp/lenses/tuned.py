"""The tuned lens: an affine map per layer, that makes the stream say what the model will say."""

from pathlib import Path
from typing import Any, Final, NotRequired, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import TypedDict

from hooks import Model
from hooks.errors import InvalidArgument
from hooks.fingerprint import fingerprint
from hooks.json_file import Kind, parse_contents
from hooks.tensor_file import read_tensors, write_tensors
from interp.common.made_of import check_made_with, check_own
from interp.lenses.lens import Lens


class TunedLensHeader(TypedDict):
    """What a file says of a tuned lens; all but the fingerprint where it is one that is still being tuned."""

    fingerprint: str
    settings: NotRequired[list[float]]
    texts: NotRequired[str]
    weights: NotRequired[str]
    step: NotRequired[int]


KIND: Final = Kind("interp.lenses.tuned", "tuned lens", "TunedLens.save or tune", TunedLensHeader)
Weights: TypeAlias = dict[str, Tensor]


class TunedLens(Lens):
    """transform(h, l) = h + A_l h + b_l (Belrose et al. 2023, arXiv:2303.08112). Made by `tune`, or `load`.

    At A = 0, b = 0 it is the logit lens.

    Attributes:
        A: a matrix for every layer but the last.
        b: a bias for each.
        fingerprint: of the weights it was made for, as they were then.
        changed_by: what changed the passes it was made of besides the weights.

    Examples:
        ```python
        lens = tune(model, texts, steps=200)
        lens.read(acts[resid_post[3]], 3)
        ```
    """

    def __init__(
        self, model: Model, A: Float[Tensor, "layer d_model d_model"], b: Float[Tensor, "layer d_model"]
    ) -> None:
        super().__init__(model)
        self.fingerprint, self.changed_by = fingerprint(model.hf), model.running.changed_by
        wanted = (model.n_layers - 1, model.d_model)
        if A.shape[:2] != wanted or b.shape != wanted:
            raise InvalidArgument(
                f"a tuned lens of {model.name} has {wanted[0]} layers of width {wanted[1]}, got A of "
                f"{tuple(A.shape)} and b of {tuple(b.shape)}: tune it on this model"
            )
        self.A, self.b = A, b

    @staticmethod
    def identity(model: Model) -> "TunedLens":
        """The lens before it is tuned: A = 0, b = 0."""
        d, like = model.d_model, {"dtype": model.dtype, "device": model.device}
        return TunedLens(
            model, torch.zeros(model.n_layers - 1, d, d, **like), torch.zeros(model.n_layers - 1, d, **like)
        )

    def carry(self, h: Float[Tensor, "*n d_model"], layer: int) -> Float[Tensor, "*n d_model"]:
        """h + A_l h + b_l."""
        return h + h @ self.A[layer].mT + self.b[layer]

    def save(self, path: str | Path) -> None:
        """Write the lens to one safetensors file.

        Raises:
            WrongState: it was tuned while something besides the weights changed what the model computes.
        """
        check_own("lens", self.changed_by)
        write_lens(path, {"A": self.A, "b": self.b}, {"fingerprint": self.fingerprint})

    @staticmethod
    def load(path: str | Path, model: Model) -> "TunedLens":
        """Read a lens that `save` or `tune` wrote.

        Raises:
            MissingFile: there is no such file.
            DamagedFile: it is torn, changed, or holds no tuned lens.
            WrongModel: it was tuned on another model, or on other weights than the model has now.
            InvalidArgument: it is still being tuned.
        """
        tensors, about = read_lens(path)
        done, steps = about.get("step"), about.get("settings", [None])[0]
        if done != steps:
            raise InvalidArgument(
                f"the lens in {path} was tuned for {done} of {steps} steps: call tune again with this checkpoint"
            )
        check_made_with("lens", path, model, about.get("weights", about["fingerprint"]))
        held = (parse_contents(path, KIND, lambda name=name: tensors[name]) for name in ("A", "b"))
        return parse_contents(
            path, KIND, lambda: TunedLens(model, *(one.to(model.device, model.dtype) for one in held))
        )


def write_lens(path: str | Path, tensors: Weights, about: dict[str, object]) -> None:
    """Write the tensors of a lens, or of its tuning, with what is said about them."""
    write_tensors(path, KIND, tensors, about)


def read_lens(path: str | Path) -> tuple[Weights, dict[str, Any]]:
    """Read what `write_lens` wrote.

    Raises:
        MissingFile: there is no such file.
        DamagedFile: it is torn, changed, or holds something else.
    """
    return read_tensors(path, KIND)
