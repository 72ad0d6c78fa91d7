"""Turn a direction up or down, and measure what that does to the text before believing it."""

from hooks.border import guard
from interp.steering.by_effect import by_effect
from interp.steering.choose_dose import ChosenDose, choose_dose
from interp.steering.clamp import clamp_latent, clamping
from interp.steering.comparison import Beside, beside
from interp.steering.conditional import Conditional, projections, sparing_threshold, threshold_of
from interp.steering.damage import Damage, damage, normal_range
from interp.steering.dose_response import DoseResponse, dose_response
from interp.steering.effects import Effect, effects
from interp.steering.names import Names
from interp.steering.naming_slope import naming_slope
from interp.steering.recipe import Recipe, SteeredModel, chat
from interp.steering.rules import ablating, affine, capping, setting, turning
from interp.steering.samples import Condition, Sampling, sample
from interp.steering.scorers import judging, projecting
from interp.steering.steer import steer
from interp.steering.steering import Steering, adding

__all__ = [
    "Beside",
    "ChosenDose",
    "Condition",
    "Conditional",
    "Damage",
    "DoseResponse",
    "Effect",
    "Names",
    "Recipe",
    "Sampling",
    "SteeredModel",
    "Steering",
    "ablating",
    "adding",
    "affine",
    "beside",
    "by_effect",
    "capping",
    "chat",
    "choose_dose",
    "clamp_latent",
    "clamping",
    "damage",
    "dose_response",
    "effects",
    "judging",
    "naming_slope",
    "normal_range",
    "projecting",
    "projections",
    "sample",
    "setting",
    "steer",
    "sparing_threshold",
    "threshold_of",
    "turning",
]

guard(globals(), __all__)
