"""Feed-forward layers as key-value memories: trace where a fact is, rewrite it, undo it, score what that did."""

from interp.memory.alphaedit import alphaedit
from interp.memory.audit import Audit, audit
from interp.memory.case import Case, read_cases
from interp.memory.covariance import Covariance, covariance, covariances
from interp.memory.edit import Edit, conflicts
from interp.memory.emmet import emmet
from interp.memory.fact import Fact, Query
from interp.memory.ft_l import ft_l
from interp.memory.grace import grace
from interp.memory.in_context import in_context
from interp.memory.keys import prefixes
from interp.memory.knn_memory import knn_memory
from interp.memory.memit import memit
from interp.memory.merge import merge
from interp.memory.pmet import pmet
from interp.memory.rome import rome
from interp.memory.scorecard import Scorecard, scorecard
from interp.memory.trace import Subject, Trace, locate, trace_attention, trace_mlp, trace_states
from interp.memory.value import Search

__all__ = [
    "Audit",
    "Case",
    "Covariance",
    "Edit",
    "Fact",
    "Query",
    "Scorecard",
    "Search",
    "Subject",
    "Trace",
    "alphaedit",
    "audit",
    "conflicts",
    "covariance",
    "covariances",
    "emmet",
    "ft_l",
    "grace",
    "in_context",
    "knn_memory",
    "locate",
    "memit",
    "merge",
    "pmet",
    "prefixes",
    "read_cases",
    "rome",
    "scorecard",
    "trace_attention",
    "trace_mlp",
    "trace_states",
]
