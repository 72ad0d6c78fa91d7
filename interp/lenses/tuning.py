"""Tuning a lens: steps down the divergence between what it reads and what the model says, at every layer at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Model, stream
from hooks.border import Count, Natural, Positive
from hooks.direction import wide
from hooks.errors import InvalidArgument
from hooks.fingerprint import fingerprint
from hooks.position import everywhere
from hooks.progress import progress_bar
from hooks.site import resid_post
from interp.common.digests import digest_of_data
from interp.lenses.tuned import TunedLens, read_lens, write_lens

EVERY = 50  # steps between two checkpoints


def tune(
    model: Model,
    texts: Sequence[str],
    *,
    steps: Count = 250,
    batch_size: Count = 8,
    learning_rate: Positive = 1e-3,
    seed: Natural = 0,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> TunedLens:
    """Train a tuned lens: minimise E[KL(p_model || p_lens)] over tokens, for each layer, by Adam from the identity.

    The learning rate falls linearly to 0. BOS and padding are left out. Weights and moments are float32 at least, and
    the lens has the model's precision.

    Args:
        model: the model; its weights stay as they are.
        texts: what it reads; not what the lens is judged on.
        steps: batches.
        batch_size: texts per batch.
        learning_rate: of the first step.
        seed: of the choice of texts.
        checkpoint: a file to keep the state in; given again after an interruption, tuning goes on from there and
            ends at the same lens, bit for bit.
        progress: whether to show a bar.

    Raises:
        InvalidArgument: no texts or steps, a text without a token, a checkpoint of other settings, a loss or weights
            that are not finite.
        WrongState: a checkpoint, and a block of interventions is open.

    Cost:
        A forward pass per step, and a forward and backward pass of the unembedding per step and layer.

    Examples:
        ```python
        lens = tune(model, texts, steps=200, checkpoint="lens.safetensors")
        ```
    """
    texts = [texts] if isinstance(texts, str) else list(texts)
    if not texts or steps < 1 or batch_size < 1:
        raise InvalidArgument(
            f"{len(texts)} texts, {steps} steps of {batch_size}: tuning needs at least one text, step and text per step"
        )
    if checkpoint is not None:
        model.running.check_unchanged(
            "a checkpoint is of the unchanged model: tune outside the block, or leave `checkpoint` out"
        )
    made_with = {
        "fingerprint": model.fingerprint,
        "settings": [steps, batch_size, learning_rate, seed],
        "weights": fingerprint(model.hf),
        "texts": digest_of_data(texts),
    }
    state = _State.begin(model)
    file = None if checkpoint is None else Path(checkpoint)
    if file is not None and file.exists():
        state.resume(file, made_with)
    for step in progress_bar(range(state.step, steps), desc="tuning", progress=progress):
        random = torch.Generator().manual_seed(seed * 1_000_003 + step)
        chosen = torch.randint(len(texts), (batch_size,), generator=random).tolist()
        rate = learning_rate * (1 - step / steps)
        state.descend(_gradients(state.lens, [texts[i] for i in chosen]), rate)
        if file is not None and ((step + 1) % EVERY == 0 or step + 1 == steps):
            write_lens(file, state.tensors(), {**made_with, "step": step + 1})
    return TunedLens(model, state.lens.A.to(model.dtype), state.lens.b.to(model.dtype))


def _gradients(lens: TunedLens, texts: list[str]) -> list[Float[Tensor, "layer *d"]]:
    """The gradients of the summed divergences of all layers with respect to A and b."""
    model, n = lens.model, lens.model.n_layers
    (acts,) = stream(model, texts, [resid_post[layer] for layer in range(n)], batch_size=len(texts))
    for number, content in zip(acts.tokens.text_number.tolist(), acts.tokens.content.any(1).tolist(), strict=True):
        if not content:
            raise InvalidArgument(f"the text {texts[number]!r} has no token to tune on: leave it out")
    with torch.no_grad():
        log_p = model.unembed(acts.flat(resid_post[n - 1], everywhere)).float().log_softmax(-1)
    total = [torch.zeros_like(lens.A), torch.zeros_like(lens.b)]
    with torch.enable_grad():
        for layer in range(n - 1):
            A, b = lens.A[layer].detach().requires_grad_(), lens.b[layer].detach().requires_grad_()
            h = acts.flat(resid_post[layer], everywhere)
            guess = h.to(A.dtype) + h.to(A.dtype) @ A.mT + b
            log_q = model.unembed(guess.to(h.dtype)).float().log_softmax(-1)
            loss = (log_p.exp() * (log_p - log_q)).sum(-1).mean()
            if not bool(torch.isfinite(loss.detach())):
                raise InvalidArgument(
                    f"the divergence at layer {layer} is {float(loss.detach())}: lower the learning rate"
                )
            for held, slope in zip(total, torch.autograd.grad(loss, [A, b]), strict=True):
                held[layer] = slope
    return total


@dataclass
class _State:
    """A lens that is being tuned: its weights, Adam's moments of them, and the step."""

    lens: TunedLens
    first: list[Tensor]
    second: list[Tensor]
    step: int = 0

    @staticmethod
    def begin(model: Model) -> "_State":
        lens = TunedLens.identity(model)
        lens = TunedLens(model, wide(lens.A), wide(lens.b))
        first, second = ([torch.zeros_like(lens.A), torch.zeros_like(lens.b)] for _ in range(2))
        return _State(lens, first, second)

    @torch.no_grad()
    def descend(self, slopes: list[Tensor], rate: float) -> None:
        """One step of Adam (Kingma and Ba 2014) with its usual constants."""
        self.step += 1
        for w, m, v, g in zip((self.lens.A, self.lens.b), self.first, self.second, slopes, strict=True):
            m.mul_(0.9).add_(g, alpha=0.1)
            v.mul_(0.999).addcmul_(g, g, value=0.001)
            m_hat, v_hat = m / (1 - 0.9**self.step), v / (1 - 0.999**self.step)
            w.sub_(rate * m_hat / (v_hat.sqrt() + 1e-8))
            if not bool(w.isfinite().all()):
                raise InvalidArgument(f"the weights after step {self.step} are not finite: lower the learning rate")

    def tensors(self) -> dict[str, Tensor]:
        pairs = zip(("A", "b"), self.first, self.second, strict=True)
        moments = {f"{kind}_{name}": t for name, m, v in pairs for kind, t in (("first", m), ("second", v))}
        return {"A": self.lens.A, "b": self.lens.b, **moments}

    def resume(self, file: Path, made_with: dict[str, object]) -> None:
        tensors, about = read_lens(file)
        other = [name for name, value in made_with.items() if about.get(name) != value]
        if other or "step" not in about:
            raise InvalidArgument(
                f"the checkpoint {file} was made with another {' and '.join(other) or 'program'} (settings are steps, "
                "batch_size, learning_rate, seed): give those again, or another file"
            )
        for name, held in self.tensors().items():
            held.copy_(tensors[name])
        self.step = int(str(about["step"]))
