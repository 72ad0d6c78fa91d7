"""Probabilities of the probes whose score is the log-odds of the label."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float

from probes.arrays import Array, Table, like, tensor


class LogOdds(ABC):
    """p(y | x) = sigmoid(f(x)), f the score."""

    @abstractmethod
    def decision_function(self, x: Float[Array, "n d_model"] | Table) -> Float[Array, "n"]:
        """The log-odds f(x)."""

    def predict_proba(self, x: Float[Array, "n d_model"] | Table) -> Float[Array, "n 2"]:
        """The probabilities of the two classes, False and True.

        Raises:
            NotFitted: the probe is not fitted.
        """
        score = tensor(self.decision_function(x))
        return like(x, torch.stack([(-score).sigmoid(), score.sigmoid()], 1))
