"""Mixtures of experts: who serves which tokens, what that has to do with topic and word, and what each expert does.

1. Which experts each token runs through is captured, text by text (`routing.py`).
2. Load, balance, repetition, co-activation and saturation, each next to chance (`usage.py`).
3. Specialisation in bits, with labels permuted by document, and given the word (`specialisation.py`); the words of
   each expert, and what the word says of it (`words.py`).
4. What each expert adds, and what is lost without it or with another one in its place (`contribution.py`).
"""

from hooks.border import guard
from interp.experts.contribution import (
    Ablation,
    AblationMatrix,
    Contributions,
    ablate_experts,
    force_expert,
    measure_ablation,
    measure_ablation_matrix,
    measure_contributions,
)
from interp.experts.routing import Routing, capture_routing, cluster_routing
from interp.experts.specialisation import Specialisation, measure_specialisation
from interp.experts.usage import Saturation, Usage, measure_saturation, measure_usage
from interp.experts.words import ExpertWords, find_expert_words

__all__ = [
    "Ablation",
    "AblationMatrix",
    "Contributions",
    "ExpertWords",
    "Routing",
    "Saturation",
    "Specialisation",
    "Usage",
    "ablate_experts",
    "capture_routing",
    "cluster_routing",
    "find_expert_words",
    "force_expert",
    "measure_ablation",
    "measure_ablation_matrix",
    "measure_contributions",
    "measure_saturation",
    "measure_specialisation",
    "measure_usage",
]

guard(globals(), __all__)
