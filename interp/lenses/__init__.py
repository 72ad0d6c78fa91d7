"""Lenses: what the residual stream would say at every layer, and which parts of the model made it say so."""

from hooks.border import guard
from interp.lenses.attribution import Attribution as Attribution
from interp.lenses.attribution import attribute as attribute
from interp.lenses.frozen_norm import freeze_norm as freeze_norm
from interp.lenses.frozen_norm import linearise_norm as linearise_norm
from interp.lenses.jacobian import JacobianLens as JacobianLens
from interp.lenses.jacobian import fit_jacobian as fit_jacobian
from interp.lenses.lens import Lens as Lens
from interp.lenses.logit import LogitLens as LogitLens
from interp.lenses.parts import components as components
from interp.lenses.parts import heads as heads
from interp.lenses.parts import latents as latents
from interp.lenses.parts import neurons as neurons
from interp.lenses.reading import LensReading as LensReading
from interp.lenses.reading import Ranks as Ranks
from interp.lenses.reading import rank as rank
from interp.lenses.reading import read as read
from interp.lenses.tuned import TunedLens as TunedLens
from interp.lenses.tuning import tune as tune

__all__ = [
    "Attribution",
    "JacobianLens",
    "Lens",
    "LensReading",
    "LogitLens",
    "Ranks",
    "TunedLens",
    "attribute",
    "components",
    "fit_jacobian",
    "freeze_norm",
    "heads",
    "latents",
    "linearise_norm",
    "neurons",
    "rank",
    "read",
    "tune",
]

guard(globals(), __all__)
