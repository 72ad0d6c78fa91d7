"""Turn a direction up or down, and measure what that does to the text before believing it."""

from hooks.border import guard
from interp.steering.clamp import clamp_latent
from interp.steering.comparison import MethodComparison, compare_methods
from interp.steering.conditional import Conditional, choose_sparing_threshold, choose_threshold, measure_projections
from interp.steering.damage import Damage, measure_damage, measure_normal_range
from interp.steering.dose_choice import ChosenDose, SuggestedDose, choose_dose, suggest_dose
from interp.steering.dose_response import DoseResponse, measure_dose_response
from interp.steering.effect_search import choose_by_effect, estimate_naming_slope
from interp.steering.effects import Effect, measure_effects
from interp.steering.names import Names
from interp.steering.recipe import Recipe, SteeredModel, format_chat
from interp.steering.rules import ablate_direction, cap_projection, rotate_in_plane, set_from_origin, set_projection
from interp.steering.samples import Samples, Sampling, sample
from interp.steering.scorers import score_by_judge, score_by_projection
from interp.steering.steer import steer
from interp.steering.steering import Steering, add_direction

__all__ = [
    "MethodComparison",
    "ChosenDose",
    "Samples",
    "Conditional",
    "Damage",
    "DoseResponse",
    "Effect",
    "Names",
    "Recipe",
    "Sampling",
    "SteeredModel",
    "Steering",
    "SuggestedDose",
    "ablate_direction",
    "add_direction",
    "set_from_origin",
    "compare_methods",
    "choose_by_effect",
    "cap_projection",
    "format_chat",
    "choose_dose",
    "clamp_latent",
    "measure_damage",
    "measure_dose_response",
    "measure_effects",
    "score_by_judge",
    "estimate_naming_slope",
    "measure_normal_range",
    "score_by_projection",
    "measure_projections",
    "sample",
    "set_projection",
    "steer",
    "suggest_dose",
    "choose_sparing_threshold",
    "choose_threshold",
    "rotate_in_plane",
]

guard(globals(), __all__)
