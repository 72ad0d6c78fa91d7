"""Feed-forward layers as key-value memories: trace where a fact is, rewrite it, undo it, score what that did."""

from interp.memory.covariance import Covariance, covariance
from interp.memory.edit import Edit, conflicts
from interp.memory.fact import Fact, Query
from interp.memory.rome import prefixes, rome
from interp.memory.scorecard import Scorecard, scorecard
from interp.memory.trace import Subject, Trace, locate, trace_attention, trace_mlp, trace_states
from interp.memory.value import Search

__all__ = [
    "Covariance",
    "Edit",
    "Fact",
    "Query",
    "Scorecard",
    "Search",
    "Subject",
    "Trace",
    "conflicts",
    "covariance",
    "locate",
    "prefixes",
    "rome",
    "scorecard",
    "trace_attention",
    "trace_mlp",
    "trace_states",
]
