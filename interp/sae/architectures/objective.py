"""What every objective that trains a sparse autoencoder is: a loss, its gradients, and constraints after a step."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hooks.errors import InvalidArgument
from interp.sae.architectures.sae import SAE, convert_rows

S = TypeVar("S", bound=SAE)


@dataclass(frozen=True)
class Step:
    """What one batch did: its loss, E||y - y_hat||^2, the mean number of latents on, each latent's largest value."""

    loss: Float[Tensor, ""]
    squared_error: Float[Tensor, ""]
    l0: Float[Tensor, ""]
    largest: Float[Tensor, "latent"]

    @staticmethod
    def of(loss: Float[Tensor, ""], squared_error: Float[Tensor, ""], f: Float[Tensor, "n latent"]) -> "Step":
        """The step of a batch whose latents are held dense."""
        f = f.detach()
        return Step(loss, squared_error, (f > 0).sum() / len(f), f.amax(0))


class Objective(ABC, Generic[S]):
    """How an autoencoder learns: the loss of a batch, its gradients, and the constraints on the weights after a step.

    `sparsity_share`, from 0 to 1, is the share of the sparsity penalty that counts; a trainer raises it as it begins.

    Examples:
        ```python
        objective = sae.objective()
        objective.initialise(rows)
        objective.gradients(rows, dead)        # fills sae.W_dec.grad and the others
        ```
    """

    betas: ClassVar[tuple[float, float]] = (0.9, 0.999)
    """Adam's, where the paper says so."""
    unit_norm_decoder: ClassVar[bool] = False

    def __init__(self, sae: S) -> None:
        self.sae, self.sparsity_share = sae, 1.0

    @abstractmethod
    def loss(self, rows: Float[Tensor, "n *d"], dead: Bool[Tensor, "latent"]) -> Step:
        """The training loss of a batch, differentiable, given which latents are dead."""

    def gradients(self, rows: Float[Tensor, "n *d"], dead: Bool[Tensor, "latent"]) -> Step:
        """Fill `.grad` of every parameter with the gradient of `loss` on one batch, and return what the batch did."""
        self.sae.zero_grad()
        step = self.loss(rows, dead)
        step.loss.backward()
        return Step(step.loss.detach(), step.squared_error.detach(), step.l0, step.largest)

    def gradient_norm(self) -> Float[Tensor, ""]:
        """||g|| over all parameters."""
        return torch.stack([p.grad.norm() for p in self.sae.parameters() if p.grad is not None]).norm()

    def initialise(self, rows: Float[Tensor, "n *d"]) -> None:
        """Set what is read off the data before training, from a sample of it; refused if the sample never varies."""
        measure_variance(self.sae, rows)

    def settle(self, batches: Iterable[Float[Tensor, "n *d"]]) -> None:  # noqa: B027
        """Set what only followed the weights in training by the final ones, on batches that were not trained on."""

    @torch.no_grad()
    def constrain(self) -> None:
        """Restore the constraints on the weights after a step of the optimiser: decoder rows of unit norm."""
        if self.unit_norm_decoder:
            self.sae.W_dec /= self.sae.W_dec.norm(dim=1, keepdim=True)


def measure_variance(sae: SAE, rows: Float[Tensor, "n *d"]) -> Float[Tensor, ""]:
    """E||y - E y||^2 over rows of a source, y being what is to be reconstructed.

    Raises:
        InvalidArgument: all y are the same; or as for `convert_rows`.

    Examples:
        ```python
        V = measure_variance(sae, rows)
        ```
    """
    y = sae.parts(convert_rows(sae, rows))[1].flatten(1)
    variance = (y - y.mean(0)).pow(2).sum(1).mean()
    if variance <= 0:
        raise InvalidArgument(f"all {len(y)} activations are the same vector: there is nothing to reconstruct")
    return variance
