"""Feed-forward layers as key-value memories: trace where a fact is, rewrite it, undo it, score what that did."""

from hooks.border import guard
from interp.memory.editing.contexts import prefixes
from interp.memory.editing.covariance import Covariance, covariance, covariances
from interp.memory.editing.edit import Edit, conflicts
from interp.memory.editing.locate import locate
from interp.memory.editing.merge import merge
from interp.memory.editing.value_search import Search
from interp.memory.editors.alphaedit import alphaedit
from interp.memory.editors.emmet import emmet
from interp.memory.editors.ft_l import ft_l
from interp.memory.editors.grace import grace
from interp.memory.editors.in_context import in_context
from interp.memory.editors.knn_memory import knn_memory
from interp.memory.editors.memit import memit
from interp.memory.editors.pmet import pmet
from interp.memory.editors.rome import rome
from interp.memory.evaluation.audit import Audit, audit
from interp.memory.evaluation.preview import Preview, preview
from interp.memory.evaluation.scorecard import Scorecard, scorecard
from interp.memory.facts.case import Case, read_cases
from interp.memory.facts.fact import Fact, Query, Subject
from interp.memory.facts.tables import table_cases, table_templates
from interp.memory.neurons.agreement import Agreement, agreement
from interp.memory.neurons.composition import Composition, composition
from interp.memory.neurons.knowledge_neurons import Knowledge, find_shared_neurons, knowledge, silence_neurons
from interp.memory.neurons.triggers import Triggers, triggers, triggers_by_layer
from interp.memory.neurons.vocabulary import key_rows, value_logits
from interp.memory.tracing.trace import Location, Trace, trace_attention, trace_mlp, trace_states

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
    "find_shared_neurons",
    "silence_neurons",
    "table_cases",
    "table_templates",
    "trace_attention",
    "trace_mlp",
    "trace_states",
    "triggers",
    "triggers_by_layer",
    "value_logits",
]

guard(globals(), __all__)
