"""What tuning changed: a base model next to one tuned from it, each finding next to that of a placebo tuning.

A placebo is the base tuned for as many steps on text that shows nothing new; what it shows too is no finding.

1. `pair`: two checkpoints of one architecture, LoRA adapters included, checked to read the same tokens.
2. `difference`: the mean difference of activations on unrelated texts, also as a direction, and what of it depends on
   the context; `naming`: the words it raises, and which of some candidates it names.
3. `divergence`: how far predictions moved, by token, and how much of that each site holds.
4. `latent_scaling`: which latents of a crosscoder of both are the tuned model's own.
5. `weights`: how much of each matrix changed, in how few directions, and what those write.
6. `persona`: the direction of a trait; watching, screening, and how far tuning moved the model along it.
"""

from hooks.border import guard
from interp.tuning.difference import Difference, measure_difference
from interp.tuning.divergence import (
    SiteDivergence,
    TokenDivergence,
    measure_site_divergence,
    measure_token_divergence,
)
from interp.tuning.latent_scaling import LatentScaling, measure_latent_scaling
from interp.tuning.naming import Naming, WordsOfDifference, name_difference, read_difference
from interp.tuning.pair import ModelPair, load_pair
from interp.tuning.persona import (
    Monitoring,
    Persona,
    PersonaShift,
    correlate,
    extract_persona,
    mean_responses,
    measure_persona_shift,
    monitor_persona,
    read_persona,
    screen_texts,
)
from interp.tuning.weights import MatrixChange, WeightDifference, find_written_words, measure_weight_difference

__all__ = [
    "Difference",
    "LatentScaling",
    "MatrixChange",
    "ModelPair",
    "Monitoring",
    "Naming",
    "Persona",
    "PersonaShift",
    "SiteDivergence",
    "TokenDivergence",
    "WeightDifference",
    "WordsOfDifference",
    "correlate",
    "extract_persona",
    "load_pair",
    "mean_responses",
    "measure_difference",
    "measure_persona_shift",
    "measure_site_divergence",
    "measure_token_divergence",
    "monitor_persona",
    "name_difference",
    "read_difference",
    "read_persona",
    "measure_weight_difference",
    "find_written_words",
    "measure_latent_scaling",
    "screen_texts",
]

guard(globals(), __all__)
