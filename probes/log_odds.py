"""Probabilities of the probes whose score is the log-odds of the label."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from probes.arrays import Array


class LogOdds(ABC):
    """p(y | x) = sigmoid(f(x)), f the score."""

    @abstractmethod
    def decision_function(self, x: Float[Array, "n d_model"]) -> Float[Tensor, "n"]:
        """The log-odds f(x)."""

    def predict_proba(self, x: Float[Array, "n d_model"]) -> Float[Tensor, "n 2"]:
        """The probabilities of False and of True.

        Raises:
            RuntimeError: the probe is not fitted.
        """
        score = self.decision_function(x)
        return torch.stack([(-score).sigmoid(), score.sigmoid()], 1)
