"""Memory outside the weights: stored states that vote (kNN-LM) over any store, and passages that are read first.

1. `token_memory`: the keys and the tokens after them, from a store or from texts; the entries nearest to a state, all
   compared or looked up in an approximate index (`interp.common.key_index`) whose recall is measured.
2. `mixture`: their vote mixed with the model's prediction; the share and temperature chosen on held-out texts; what it
   does to perplexity, next to shuffled tokens and random keys; which entries voted.
3. `search`: passages found for a question, by their words or by any encoder's states.
4. `retrieval`: whether the right one is found, and what reading it changes, next to another passage as long.
"""

from hooks.border import guard
from interp.common.key_index import KeyIndex
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
from interp.memory.outside.retrieval import (
    PassageReading,
    RetrievalScore,
    measure_passage_reading,
    measure_retrieval,
)
from interp.memory.outside.search import (
    PassageSearch,
    StateSearch,
    WordSearch,
    encode_by_states,
    index_states,
    index_words,
)
from interp.memory.outside.token_memory import TokenMemory, make_token_memory, measure_recall, read_token_memory

__all__ = [
    "ChosenMixture",
    "KeyIndex",
    "MixtureGain",
    "PassageReading",
    "PassageSearch",
    "RetrievalScore",
    "StateSearch",
    "TokenMemory",
    "Vote",
    "WordSearch",
    "choose_mixture",
    "encode_by_states",
    "explain_vote",
    "flip_weight",
    "index_states",
    "index_words",
    "make_token_memory",
    "measure_mixture",
    "measure_passage_reading",
    "measure_recall",
    "measure_retrieval",
    "predict_mixture",
    "read_token_memory",
]

guard(globals(), __all__)
