"""Results in, Plotly figures and pages that open offline out. Nothing here computes; nothing elsewhere draws."""

from hooks.border import guard
from interp.show.atlas import atlas_page
from interp.show.attribution_graph import graph_page, graph_panel
from interp.show.audit import audit_panel
from interp.show.browse import browse
from interp.show.circuit import circuit_panel, faithfulness_panel
from interp.show.composition import composition_panel, knowledge_panel
from interp.show.concept import concept_page
from interp.show.context import demonstrations_panel, transfer_panel
from interp.show.damage import damage_panel
from interp.show.dictionary_map import map_html, map_page
from interp.show.dose import dose_panel
from interp.show.edits_page import edits_page, facts_panel
from interp.show.experts import expert_words_panel, load_panel, specialisation_panel
from interp.show.feature import examples_panel, histogram_panel, words_panel
from interp.show.feature_circuit import feature_circuit_panel, feature_faithfulness_panel
from interp.show.generations import generations_panel
from interp.show.heads import attention_panel, heads_panel
from interp.show.latent import record_html
from interp.show.lens import attribution_panel, divergence_panel, entropy_panel, lens_panel, rank_panel
from interp.show.memories import agreement_panel, memories_page
from interp.show.page import Panel, Section, Tile, bundle_page, report
from interp.show.patch import patch_panel
from interp.show.pictures import pictures_panel
from interp.show.positions import positions_panel
from interp.show.results import panels_of
from interp.show.scorecard import scorecard_panel
from interp.show.search import search_panel
from interp.show.steering import comparison_panel, dose_page
from interp.show.teaching import costs_panel, ways_panel
from interp.show.trace import trace_panel
from interp.show.track import track_panel
from interp.show.training import training_panel
from interp.show.tuning import difference_panel, predictions_panel, raised_words_panel, weights_panel

__all__ = [
    "Panel",
    "Section",
    "Tile",
    "agreement_panel",
    "atlas_page",
    "attention_panel",
    "attribution_panel",
    "audit_panel",
    "comparison_panel",
    "browse",
    "bundle_page",
    "composition_panel",
    "concept_page",
    "costs_panel",
    "damage_panel",
    "demonstrations_panel",
    "difference_panel",
    "divergence_panel",
    "dose_page",
    "dose_panel",
    "edits_page",
    "entropy_panel",
    "expert_words_panel",
    "examples_panel",
    "facts_panel",
    "feature_circuit_panel",
    "feature_faithfulness_panel",
    "generations_panel",
    "graph_page",
    "graph_panel",
    "heads_panel",
    "histogram_panel",
    "knowledge_panel",
    "lens_panel",
    "load_panel",
    "map_html",
    "map_page",
    "memories_page",
    "circuit_panel",
    "faithfulness_panel",
    "panels_of",
    "patch_panel",
    "pictures_panel",
    "positions_panel",
    "predictions_panel",
    "rank_panel",
    "raised_words_panel",
    "record_html",
    "report",
    "scorecard_panel",
    "search_panel",
    "specialisation_panel",
    "trace_panel",
    "track_panel",
    "transfer_panel",
    "training_panel",
    "ways_panel",
    "weights_panel",
    "words_panel",
]

guard(globals(), __all__)
