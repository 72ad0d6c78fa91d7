"""Feed-forward layers as key-value memories: trace where a fact is, rewrite it, undo it, score what that did."""

from interp.memory.agreement import Agreement, agreement
from interp.memory.alphaedit import alphaedit
from interp.memory.audit import Audit, audit
from interp.memory.case import Case, read_cases
from interp.memory.composition import Composition, composition
from interp.memory.covariance import Covariance, covariance, covariances
from interp.memory.edit import Edit, conflicts
from interp.memory.emmet import emmet
from interp.memory.fact import Fact, Query, Subject
from interp.memory.ft_l import ft_l
from interp.memory.grace import grace
from interp.memory.in_context import in_context
from interp.memory.knn_memory import knn_memory
from interp.memory.knowledge import Knowledge, knowledge, shared, silenced
from interp.memory.locate import locate
from interp.memory.memit import memit
from interp.memory.merge import merge
from interp.memory.own_words import prefixes
from interp.memory.pmet import pmet
from interp.memory.preview import Preview, preview
from interp.memory.rome import rome
from interp.memory.scorecard import Scorecard, scorecard
from interp.memory.tables import table_cases, table_templates
from interp.memory.trace import Location, Trace, trace_attention, trace_mlp, trace_states
from interp.memory.triggers import Triggers, triggers, triggers_by_layer
from interp.memory.value import Search
from interp.memory.vocabulary import key_rows, value_logits

__all__ = [
    "Agreement",
    "Audit",
    "Case",
    "Composition",
    "Covariance",
    "Edit",
    "Fact",
    "Knowledge",
    "Location",
    "Preview",
    "Query",
    "Scorecard",
    "Search",
    "Subject",
    "Trace",
    "Triggers",
    "agreement",
    "alphaedit",
    "audit",
    "composition",
    "conflicts",
    "covariance",
    "covariances",
    "emmet",
    "ft_l",
    "grace",
    "in_context",
    "key_rows",
    "knn_memory",
    "knowledge",
    "locate",
    "memit",
    "merge",
    "pmet",
    "prefixes",
    "preview",
    "read_cases",
    "rome",
    "scorecard",
    "shared",
    "silenced",
    "table_cases",
    "table_templates",
    "trace_attention",
    "trace_mlp",
    "trace_states",
    "triggers",
    "triggers_by_layer",
    "value_logits",
]
