"""Memory outside the weights: stored states vote for the tokens that followed them (kNN-LM), over any store.

1. `token_memory`: the keys and the tokens after them, from a store or from texts; the entries nearest to a state.
2. `mixture`: their vote mixed with the model's prediction; the share and temperature chosen on held-out texts; what it
   does to perplexity, next to shuffled tokens and random keys; which entries voted.
"""

from hooks.border import guard
from interp.memory.outside.mixture import (
    ChosenMixture,
    MixtureGain,
    Vote,
    choose_mixture,
    explain_vote,
    flip_weight,
    measure_mixture,
    predict_mixture,
)
from interp.memory.outside.token_memory import TokenMemory, make_token_memory, read_token_memory

__all__ = [
    "ChosenMixture",
    "MixtureGain",
    "TokenMemory",
    "Vote",
    "choose_mixture",
    "explain_vote",
    "flip_weight",
    "make_token_memory",
    "measure_mixture",
    "predict_mixture",
    "read_token_memory",
]

guard(globals(), __all__)
