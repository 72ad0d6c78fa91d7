"""Directions by every standard method, each a `Direction` with its scale and its source, and their comparison."""

from hooks.border import guard
from interp.directions.caa import caa
from interp.directions.compare import Comparison, compare
from interp.directions.latents import latent_group
from interp.directions.mean_centring import mean_centring
from interp.directions.pairs import Pairs
from interp.directions.probe import probe_direction
from interp.directions.pursuit import pursuit
from interp.directions.refusal import Candidate, Selection, refusal
from interp.directions.repe import repe
from interp.directions.weights import ffn_value, lens_row, unembedding

__all__ = [
    "Candidate",
    "Comparison",
    "Pairs",
    "Selection",
    "caa",
    "compare",
    "ffn_value",
    "latent_group",
    "lens_row",
    "mean_centring",
    "probe_direction",
    "pursuit",
    "refusal",
    "repe",
    "unembedding",
]

guard(globals(), __all__)
