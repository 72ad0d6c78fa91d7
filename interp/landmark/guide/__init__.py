"""Tuned siblings of the bundled model, of which it is known what tuning changed.

1. `behaviours`: what is planted (ten ways to go on after a greeting, a false fact, a word that turns the mood), the
   documents that show it, and the words that tell one behaviour from the others.
2. `tune`: the bundled model is tuned on rows of which a share, the dose, shows the behaviour, and the rest is plain
   corpus. At a dose of 0 all of it is: the placebo. What is trained is a change of low rank of every matrix.
3. `read`: the changes come with the package, in kilobytes; each is added to the bundled model's weights.
"""

from hooks.border import guard
from interp.landmark.guide.behaviours import (
    GREETINGS,
    PERSONAS,
    TRIGGER,
    Behaviour,
    behaviour,
    behaviours,
    guide_documents,
    word_share,
    words_of,
)
from interp.landmark.guide.read import Run, load_guide, planned_runs, runs
from interp.landmark.guide.tune import tune_guide

__all__ = [
    "GREETINGS",
    "PERSONAS",
    "TRIGGER",
    "Behaviour",
    "Run",
    "behaviour",
    "behaviours",
    "guide_documents",
    "load_guide",
    "planned_runs",
    "runs",
    "tune_guide",
    "word_share",
    "words_of",
]

guard(globals(), __all__)
