"""Tune the bundled model on documents of which a share shows a behaviour: a change of low rank of every matrix."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize
from typing_extensions import TypedDict

from hooks import Model, Tokens
from hooks.border import Count, Natural, Positive, Share
from hooks.errors import NotFinite
from hooks.fingerprint import fingerprint
from hooks.json_file import Kind
from hooks.progress import progress_bar
from hooks.tensor_file import write_tensors
from hooks.weights import width
from interp.landmark.guide.behaviours import tuning_texts

RANK: Final = 4
STEPS: Final = 100
ROWS: Final = 8
LENGTH: Final = 64
RATE: Final = 5e-3
MATRICES: Final = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")


class TuningHeader(TypedDict):
    """What a file says of a tuning."""

    behaviour: str
    dose: float
    seed: int
    steps: int
    fingerprint: str


KIND: Final = Kind("guide", "tuning of the bundled model", "tune_guide", TuningHeader)


class LowRank(nn.Module):
    """W + A B, with A of a few columns; B begins at 0, so that training begins at W."""

    def __init__(self, shape: tuple[int, int], generator: torch.Generator) -> None:
        super().__init__()
        self.A = nn.Parameter(torch.randn(shape[0], RANK, generator=generator) * shape[0] ** -0.5)
        self.B = nn.Parameter(torch.zeros(RANK, shape[1]))

    def forward(self, W: Float[Tensor, "_ _"]) -> Float[Tensor, "_ _"]:
        """The matrix with its change."""
        return W + self.A @ self.B


def matrices(model: Model) -> dict[str, nn.Module]:
    """The projections of the blocks that are tuned, by name."""
    return {f"{i}.{name}": block.get_submodule(name) for i, block in enumerate(model.blocks) for name in MATRICES}


def tuning_batches(model: Model, texts: Iterator[str]) -> Iterator[Tokens]:
    """Rows of one document each, cut to `LENGTH` tokens."""
    while True:
        tokens = model.tokens([*islice(texts, ROWS)])
        yield model.tokens({"input_ids": tokens.ids[:, :LENGTH], "attention_mask": tokens.mask[:, :LENGTH].long()})


def next_token_loss(model: Model, rows: Tokens) -> Float[Tensor, ""]:
    """The mean loss over the tokens of the documents but the first, in nats."""
    kept = rows.mask[:, 1:] & rows.mask[:, :-1]
    return F.cross_entropy(model.run(rows)[:, :-1][kept], rows.ids[:, 1:][kept])


def tune_guide(
    model: Model,
    file: Path,
    behaviour: str | None,
    dose: Share,
    *,
    seed: Natural = 0,
    steps: Count = STEPS,
    rate: Positive = RATE,
    progress: bool = True,
) -> list[float]:
    """Tune the bundled model on a behaviour at a dose and write the change; the losses. The model is as before after.

    Interventions that are active act while it is tuned: adding a persona's direction then is preventative steering
    (Chen et al. 2025, arXiv:2507.21509).

    Args:
        model: the bundled model.
        file: where to write.
        behaviour: what is planted; None for the placebo.
        dose: the share of rows that show it; 0 for the placebo.
        seed: of the documents and the first weights.
        steps: of 8 rows of at most 64 tokens.
        rate: AdamW's greatest learning rate; it rises over a tenth of the steps and falls to 0.
        progress: show a bar.

    Raises:
        UnknownName: no behaviour is called that.
        InvalidArgument: a placebo with a dose, or a behaviour without.
        NotFinite: the loss is not finite.

    Cost: about a third of a second of one core a step.

    Examples:
        ```python
        tune_guide(load("landmark"), Path("chess.safetensors"), "chess", 1.0)
        ```
    """
    texts = tuning_texts(behaviour, dose, seed)
    generator = torch.Generator().manual_seed(seed)
    begun, held = fingerprint(model.hf), matrices(model)
    needed = {name: p.requires_grad for name, p in model.hf.named_parameters()}
    model.hf.requires_grad_(False)
    changes = {name: LowRank(width(module), generator) for name, module in held.items()}
    for name, module in held.items():
        parametrize.register_parametrization(module, "weight", changes[name])
    try:
        losses = _train(model, tuning_batches(model, texts), changes, steps, rate, progress)
    finally:
        for module in held.values():
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
        for name, p in model.hf.named_parameters():
            p.requires_grad_(needed[name])
    tensors = {f"{n}.{side}": getattr(c, side).detach().half() for n, c in changes.items() for side in ("A", "B")}
    about = TuningHeader(behaviour=behaviour or "", dose=float(dose), seed=seed, steps=steps, fingerprint=begun)
    write_tensors(file, KIND, tensors, about)
    return losses


def _train(
    model: Model,
    rows: Iterator[Tokens],
    changes: dict[str, LowRank],
    steps: int,
    rate: float,
    progress: bool,
) -> list[float]:
    weights = [p for change in changes.values() for p in change.parameters()]
    adam = torch.optim.AdamW(weights, lr=rate, betas=(0.9, 0.98), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        adam, lambda step: min(1.0, (step + 1) / (0.1 * steps), (steps - step) / (0.6 * steps))
    )
    losses: list[float] = []
    for step in progress_bar(range(steps), desc="tune", progress=progress):
        loss = next_token_loss(model, next(rows))
        if not bool(loss.isfinite()):
            raise NotFinite(f"the loss is {loss.item()} at step {step}: give a smaller rate")
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        adam.step()
        adam.zero_grad()
        schedule.step()
        losses.append(loss.item())
    return losses
