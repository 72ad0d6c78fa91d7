"""Turn a direction up or down, and measure what that does to the text before believing it."""

from interp.steering.clamp import clamp_latent as clamp_latent
from interp.steering.clamp import clamping as clamping
from interp.steering.condition import Condition as Condition
from interp.steering.condition import Sampling as Sampling
from interp.steering.condition import sample as sample
from interp.steering.dose_response import DoseResponse as DoseResponse
from interp.steering.dose_response import dose_response as dose_response
from interp.steering.names import Names as Names
from interp.steering.steer import steer as steer
from interp.steering.steering import Steering as Steering
from interp.steering.steering import adding as adding

__all__ = [
    "Condition",
    "DoseResponse",
    "Names",
    "Sampling",
    "Steering",
    "adding",
    "clamp_latent",
    "clamping",
    "dose_response",
    "sample",
    "steer",
]
