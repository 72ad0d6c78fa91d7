"""Circuits: which places of a forward pass a behaviour runs through, by patching one run's values into another."""

from hooks.border import guard
from interp.circuits.attribution import attribution_patching as attribution_patching
from interp.circuits.effect import PatchEffect as PatchEffect
from interp.circuits.integrated import integrated_attribution as integrated_attribution
from interp.circuits.metric import first_token as first_token
from interp.circuits.metric import logit_difference as logit_difference
from interp.circuits.metric import word_log_probability as word_log_probability
from interp.circuits.patch_sweep import patch_sweep as patch_sweep
from interp.circuits.patching import Patching as Patching
from interp.circuits.patching import denoising as denoising
from interp.circuits.patching import noising as noising
from interp.circuits.sweep_places import SweepPlaces as SweepPlaces
from interp.circuits.sweep_places import each_head as each_head
from interp.circuits.sweep_places import each_head_and_position as each_head_and_position
from interp.circuits.sweep_places import each_layer as each_layer
from interp.circuits.sweep_places import each_position as each_position

__all__ = [
    "SweepPlaces",
    "PatchEffect",
    "Patching",
    "attribution_patching",
    "denoising",
    "each_head",
    "each_head_and_position",
    "each_layer",
    "each_position",
    "first_token",
    "integrated_attribution",
    "logit_difference",
    "noising",
    "patch_sweep",
    "word_log_probability",
]

guard(globals(), __all__)
