"""The trainer: activations in random order, one optimiser, and a report of what came out."""

import math
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor
from tqdm.auto import tqdm

from interp.sae.evaluate import Quality, evaluate
from interp.sae.sae import SAE, Step
from interp.sae.source import Source, shuffled

WARM_UP, DECAY, CLIP = 0.05, 0.2, 1.0  # first and last share of the run; gradient norm
EPSILON = 6.25e-10
EVALUATED = 131_072  # rows for the report, at most
SAMPLE = 16_384  # rows for initialisation
POINTS = 200  # points of a loss curve


@dataclass(frozen=True)
class Point:
    """One place on a training curve, each figure a mean over the batches since the last."""

    tokens: int
    loss: float
    explained_variance: float
    l0: float
    dead_share: float


@dataclass(frozen=True)
class TrainReport:
    """What training did: the curve, the final weights' quality, and the latents silent in the last `dead_after` tokens.

    `quality` is measured with the final weights on `quality.tokens` training tokens.
    """

    quality: Quality
    curve: tuple[Point, ...]
    tokens: int
    dead_share: float
    dead_after: int

    @property
    def explained_variance(self) -> float:
        """1 - E||x - x_hat||^2 / (E||x||^2 - ||E x||^2), final weights."""
        return self.quality.explained_variance

    @property
    def l0(self) -> float:
        """The mean number of latents above 0, final weights."""
        return self.quality.l0

    def __str__(self) -> str:
        return (
            f"trained on {self.tokens:,} tokens: explained variance {self.explained_variance:.3f}, L0 {self.l0:.1f} "
            f"(final weights, {self.quality.tokens:,} tokens); "
            f"{self.dead_share:.1%} of latents silent in the last {self.dead_after:,} tokens"
        )


def train(
    sae: SAE,
    source: Source,
    *,
    tokens: int = 1_000_000,
    batch_size: int = 2048,
    lr: float | None = None,
    dead_after: int = 100_000,
    buffer: int = 131_072,
    seed: int = 0,
    progress: bool = True,
) -> TrainReport:
    """Train a sparse autoencoder in place on `tokens` activations of a source, and say where it belongs.

    Adam (betas 0.9 and 0.999 unless the architecture says otherwise, epsilon 6.25e-10, gradient norm clipped at 1),
    its rate rising over the first 5 % of the run, with the sparsity penalty, and falling to 0 over the last 20 %.
    `lr` is 2e-4 sqrt(2^14 / d_sae) unless given (Gao et al. 2024). Batches are drawn from a shuffled buffer of
    `buffer` rows; a source that fits into it is read once, a longer one again and again. A latent silent for
    `dead_after` tokens counts as dead. Same seed, same weights. An autoencoder that is trained already is trained
    further.

    Costs the source's forward passes and, per batch, one dense product with the encoder.

    Raises:
        ValueError: activations of another width, or holding NaN or infinity, with their place.

    Example:
        ```python
        sae = TopK(model.d_model, 2048, k=32)
        print(train(sae, activations_of(model, texts, resid_post[4]), tokens=500_000))
        save(sae, "my_sae")
        ```
    """
    if tokens < 1 or batch_size < 1:
        raise ValueError(f"tokens is {tokens} and batch_size {batch_size}; both must be at least 1.")
    generator = torch.Generator().manual_seed(seed)
    batches = shuffled(source, buffer=buffer, batch_size=batch_size, generator=generator)
    sae.sites, sae.model_name, sae.normalisation = source.sites, source.model_name, source.normalisation
    sae.fingerprint, sae.dataset = source.fingerprint, source.dataset
    first = next(batches)
    sample = torch.cat([first, *islice(batches, SAMPLE // len(first))])
    sample = sample.to(sae.W_dec.device)
    sae.initialise(sample)

    steps = math.ceil(tokens / len(first))
    peak = 2e-4 * math.sqrt(2**14 / sae.d_sae) if lr is None else lr
    optimiser = torch.optim.Adam(sae.parameters(), lr=peak, betas=sae.betas, eps=EPSILON, fused=True)
    course = _Course(sae.d_sae, sae.variance_of(sample), dead_after, max(1, steps // POINTS))
    with tqdm(total=steps * len(first), unit=" tokens", unit_scale=True, disable=not progress) as bar:
        for step in range(steps):
            rows = sae.checked_rows(next(batches).to(sae.W_dec.device))
            sae.sparsity_share = min(1.0, (step + 1) / (WARM_UP * steps))
            done = sae.gradients(rows, course.dead)
            _update(sae, optimiser, peak * _rate(step / steps))
            course.add(done, len(rows), settled=step >= (1 - DECAY) * steps)
            bar.update(len(rows))
            bar.set_postfix(course.latest, refresh=False)

    seen = steps * len(first)
    quality = evaluate(sae, islice(batches, math.ceil(min(seen / 8, EVALUATED) / len(first))))
    sae.max_activation.copy_(torch.maximum(course.largest, quality.max_activation))
    dead_share = float((course.silent >= min(dead_after, seen)).double().mean())
    return TrainReport(quality, tuple(course.curve), seen, dead_share, dead_after)


def _rate(done: float) -> float:
    """The learning rate's share of its peak when a share `done` of the run is over."""
    return min(1.0, (done + 1e-3) / WARM_UP, (1 - done) / DECAY)


@torch.no_grad()
def _update(sae: SAE, optimiser: torch.optim.Adam, lr: float) -> None:
    """One step of Adam, clipping inside its kernel; the weights are put back where they must lie."""
    if sae.unit_norm_decoder and (grad := sae.W_dec.grad) is not None:
        grad -= (grad * sae.W_dec).sum(1, keepdim=True) * sae.W_dec
    grads = [p.grad for p in sae.parameters() if p.grad is not None]
    norm = torch.stack([grad.norm() for grad in grads]).norm()
    optimiser.grad_scale = (norm / CLIP).clamp(min=1.0)  # pyright: ignore[reportAttributeAccessIssue]
    optimiser.param_groups[0]["lr"] = lr
    optimiser.step()
    sae.constrain()


class _Course:
    """What is watched while training: which latents are silent, the largest activations, and the curve."""

    def __init__(self, d_sae: int, variance: Tensor, dead_after: int, every: int) -> None:
        self.variance, self.dead_after, self.every = variance, dead_after, every
        self.silent = torch.zeros(d_sae, dtype=torch.long, device=variance.device)
        self.largest = torch.zeros(d_sae, device=variance.device)
        self.sums = torch.zeros(3, device=variance.device)  # of loss, squared error and L0 since the last point
        self.curve: list[Point] = []
        self.tokens = self.steps = 0

    @property
    def dead(self) -> Tensor:
        return self.silent >= self.dead_after

    def add(self, step: Step, n: int, settled: bool) -> None:
        """Take in one step of n rows; once the weights have settled, its activations count towards the largest."""
        self.silent = torch.where(step.largest > 0, 0, self.silent + n)
        if settled:
            self.largest = torch.maximum(self.largest, step.largest)
        self.sums += torch.stack([step.loss, step.squared_error / self.variance, step.l0])
        self.tokens += n
        self.steps += 1
        if self.steps % self.every == 0:
            loss, unexplained, l0 = (self.sums / self.every).tolist()
            self.sums.zero_()
            dead = float(self.dead.double().mean())
            self.curve.append(Point(self.tokens, loss, 1 - unexplained, l0, dead))

    @property
    def latest(self) -> dict[str, str]:
        """The last point of the curve, for the progress bar."""
        if not self.curve:
            return {}
        p = self.curve[-1]
        return {
            "loss": f"{p.loss:.3f}",
            "L0": f"{p.l0:.1f}",
            "EV": f"{p.explained_variance:.3f}",
            "dead": f"{p.dead_share:.1%}",
        }
