"""The Jacobian lens: the mean linear effect of a layer's stream on the last one, over texts and later tokens."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import Model, Tokens
from hooks.border import Count, Natural
from hooks.disk import checksum, read_foreign, read_pickled, write_file
from hooks.errors import DamagedFile, InvalidArgument
from hooks.fingerprint import fingerprint
from hooks.progress import progress_bar
from hooks.resume import hold
from hooks.site import resid_post
from interp.common.made_of import check_made_with, check_own
from interp.lenses.lens import Lens


class JacobianLens(Lens):
    """transform(h, l) = J_l h (Gurnee et al. 2026). Made by `fit_jacobian`, or `load`.

    Attributes:
        J: for each layer it reads but the last, the mean Jacobian of the last stream.
        n_prompts: over how many texts.
        fingerprint: of the weights it was fitted on, as they were then.
        changed_by: what changed the passes it was fitted on besides the weights.

    Examples:
        ```python
        lens = fit_jacobian(model, texts)
        lens.direction(" Paris", 3)
        ```
    """

    def __init__(self, model: Model, J: Mapping[int, Float[Tensor, "d_model d_model"]], n_prompts: int) -> None:
        super().__init__(model)
        self.fingerprint, self.changed_by = fingerprint(model.hf), model.running.changed_by
        for layer, matrix in J.items():
            if not 0 <= layer < model.n_layers - 1 or matrix.shape != (model.d_model, model.d_model):
                raise InvalidArgument(
                    f"a Jacobian lens of {model.name} has matrices of width {model.d_model} for layers 0 to "
                    f"{model.n_layers - 2}, got {tuple(matrix.shape)} for layer {layer}: it belongs to another model"
                )
        self.J = {layer: matrix.to(model.device, model.dtype) for layer, matrix in sorted(J.items())}
        self.n_prompts = n_prompts

    @property
    def layers(self) -> Sequence[int]:
        """The layers it was fitted for, and the last."""
        return (*self.J, self.model.n_layers - 1)

    def carry(self, h: Float[Tensor, "*n d_model"], layer: int) -> Float[Tensor, "*n d_model"]:
        """J_l h."""
        return h @ self.J[layer].mT

    def save(self, path: str | Path) -> None:
        """Write the lens in the format in which such lenses are published: matrices in float16.

        Raises:
            InvalidArgument: a matrix that float16 cannot hold.
            WrongState: it was fitted while something besides the weights changed what the model computes.
        """
        check_own("lens", self.changed_by)
        for layer, matrix in self.J.items():
            most, end = float(matrix.abs().max()), torch.finfo(torch.float16).max
            if not most <= end:
                raise InvalidArgument(
                    f"the matrix of layer {layer} holds {most:.3g}, and float16, which such files hold, ends at "
                    f"{end:.0f}: leave the layer out"
                )
        kept = {layer: matrix.to("cpu", torch.float16) for layer, matrix in self.J.items()}
        sums = checksum(*(part for layer, matrix in kept.items() for part in (str(layer), matrix)), str(self.n_prompts))
        about = {"fingerprint": self.fingerprint, "checksum": sums}
        whole = {"J": kept, "n_prompts": self.n_prompts, "source_layers": [*kept], "d_model": self.model.d_model}
        with write_file(path) as partial:
            torch.save({**whole, "metadata": about}, partial)

    @staticmethod
    def load(path: str | Path, model: Model) -> "JacobianLens":
        """Read a published lens, the running sums of one that is being fitted, or a lens that `save` wrote.

        A published file does not say which weights it was fitted on, only their width and number of layers.

        Raises:
            InvalidArgument: the file holds no Jacobian lens, or one of effects on another layer than the last.
            WrongModel: it was fitted on another model, or on other weights than the model has now.
        """
        held = read_pickled(path, "expected a Jacobian lens, published or saved")
        J, n = read_foreign(path, CURE, lambda: _matrices(held)) if isinstance(held, dict) else ({}, 0)
        if not J:
            raise DamagedFile(f"{path} holds no Jacobian lens: expected matrices under 'J', as in the published files")
        about = read_foreign(path, CURE, lambda: {**held, **(held.get("metadata") or {})})
        _check(path, about, J, n)
        check_made_with("lens", path, model, about.get("fingerprint"))
        end = about.get("target_layer", model.n_layers - 1)
        if end != model.n_layers - 1:
            raise InvalidArgument(
                f"the lens in {path} is of effects on layer {end}, and the last of {model.name} is "
                f"{model.n_layers - 1}: fit one with that target"
            )
        return JacobianLens(model, J, n)


def _check(path: str | Path, about: dict[str, Any], J: dict[int, Tensor], n: int) -> None:
    """Raise where matrices are not finite, or not those whose checksum was written."""
    for layer, matrix in J.items():
        if not isinstance(matrix, Tensor) or not bool(matrix.isfinite().all()):
            raise DamagedFile(f"the matrix of layer {layer} in {path} is not finite: {CURE}")
    parts = (part for layer, matrix in J.items() for part in (str(layer), matrix))
    if "checksum" in about and about["checksum"] != checksum(*parts, str(n)):
        raise DamagedFile(f"{path} is damaged, its checksum is another: {CURE}")


CURE = "put it back from a copy, or download or save it again"


def _matrices(held: dict[str, Any]) -> tuple[dict[int, Tensor], int]:
    """The mean Jacobians by layer and the number of texts: of a finished lens, or of sums over the texts so far."""
    if "J" in held:
        return {int(layer): matrix for layer, matrix in held["J"].items()}, int(held.get("n_prompts", 0))
    n = int(held.get("n_done", 0))
    sums = held.get("jacobian_sum", {}) if n > 0 else {}
    return {int(layer): matrix.float() / n for layer, matrix in sums.items()}, n


def fit_jacobian(
    model: Model,
    texts: Sequence[str] | Sequence[Int[Tensor, "pos"]],
    *,
    layers: Sequence[int] | None = None,
    skip: Natural = 16,
    max_tokens: Count = 128,
    batch_size: Count = 16,
    progress: bool = True,
) -> JacobianLens:
    """Fit a Jacobian lens: J_l = E_text[ 1/|V| sum_{t in V} sum_{t' in V, t' >= t} dh_last[t'] / dh_l[t] ].

    V are a text's tokens without the first `skip`, whose streams are unlike all others, and without the last. Effects
    are summed over where they arrive, and averaged over where they start.

    Args:
        model: a causal model.
        texts: texts, or the token ids of texts, of more than `skip + 1` tokens.
        layers: which to fit; all but the last if not given.
        skip: tokens left out at the start, BOS counted.
        max_tokens: where longer texts are cut.
        batch_size: rows of the Jacobian per backward pass.
        progress: whether to show a bar.

    Raises:
        InvalidArgument: a model that is not causal, no texts, a text too short to hold a token of V, a layer that is
            not before the last.

    Cost:
        Per text, two forward passes and d_model / batch_size backward passes over batch_size copies.

    Gurnee et al. 2026, Verbalizable Representations Form a Global Workspace in Language Models.

    Examples:
        ```python
        fit_jacobian(model, texts).read(acts[resid_post[3]], 3)
        ```
    """
    if not model.hf.can_generate():
        raise InvalidArgument(
            f"{model.name} reads in both directions, so effects on later tokens are not all there are: load a causal "
            "language model"
        )
    texts = [texts] if isinstance(texts, str) else [*texts]  # pyright: ignore[reportAssignmentType]
    sources = [*range(model.n_layers - 1)] if layers is None else sorted(set(layers))
    if not sources or not 0 <= sources[0] <= sources[-1] < model.n_layers - 1:
        raise InvalidArgument(
            f"layers {sources} were asked for: a Jacobian lens is fitted for 0 to {model.n_layers - 2}"
        )
    if not texts or skip < 0 or batch_size < 1:
        raise InvalidArgument(
            f"{len(texts)} texts, skip {skip}, batch_size {batch_size}: give a text, and 0, 1 or more"
        )
    read = [model.tokens(text).cut(max_tokens) for text in texts]
    for tokens, text in zip(read, texts, strict=True):
        if tokens.ids.shape[1] < skip + 2:
            raise InvalidArgument(
                f"{_show_text(text)} has {tokens.ids.shape[1]} tokens, and {skip + 2} are needed to leave out the "
                f"first {skip} and the last: give longer texts, or a smaller skip"
            )
    J = torch.zeros(len(sources), model.d_model, model.d_model, device=model.device)
    for tokens in progress_bar(read, desc="fitting", progress=progress):
        J += _of_text(model, tokens, sources, skip, batch_size) / len(read)
    return JacobianLens(model, dict(zip(sources, J, strict=True)), len(read))


def _show_text(text: str | Int[Tensor, "pos"]) -> str:
    return repr(text[:60]) if isinstance(text, str) else f"token ids {text.tolist()[:8]}"


def _of_text(
    model: Model, tokens: Tokens, sources: list[int], skip: int, rows: int
) -> Float[Tensor, "layer d_model d_model"]:
    """The mean Jacobian of one text, `rows` of its rows at a time: vector-Jacobian products with unit vectors."""
    h: dict[int, Tensor] = {}
    held = hold(model, tokens)
    with torch.inference_mode(False), torch.enable_grad():
        edits = {resid_post[layer]: partial(_note, h, layer) for layer in sources}
        last = held.resume(sources[0], edits, times=rows)
    V = torch.arange(skip, tokens.ids.shape[1] - 1, device=model.device)
    J = torch.zeros(len(sources), model.d_model, model.d_model, device=model.device)
    for start in range(0, model.d_model, rows):
        row = torch.arange(min(rows, model.d_model - start), device=model.device)
        unit = torch.zeros_like(last)
        unit[row[:, None], V[None], start + row[:, None]] = 1.0
        slopes = torch.autograd.grad(last, [h[layer] for layer in sources], unit, retain_graph=True)
        for held_J, slope in zip(J, slopes, strict=True):
            held_J[start + row] = slope[: len(row), V].mean(1).float()
    return J


def _note(h: dict[int, Tensor], layer: int, value: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Keep a stream; the first one begins the graph."""
    h[layer] = value if value.requires_grad and h else value.detach().requires_grad_()
    return h[layer]
