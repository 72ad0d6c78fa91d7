"""Turn a direction up or down, and measure what that does to the text before believing it."""

from interp.steering.choose_dose import ChosenDose, choose_dose
from interp.steering.clamp import clamp_latent, clamping
from interp.steering.condition import Condition, Sampling, sample
from interp.steering.dose_response import DoseResponse, dose_response
from interp.steering.names import Names
from interp.steering.steer import steer
from interp.steering.steering import Steering, adding

__all__ = [
    "ChosenDose",
    "Condition",
    "DoseResponse",
    "Names",
    "Sampling",
    "Steering",
    "adding",
    "choose_dose",
    "clamp_latent",
    "clamping",
    "dose_response",
    "sample",
    "steer",
]
