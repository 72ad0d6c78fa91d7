"""How results show themselves: importing `interp.show` gives every result that has a panel a `_repr_html_`.

The folders that make results do not know this one. `PANELS` says which panels show which type; a notebook that has
imported `interp.show` shows them where a cell ends with a result, and `panels_of` returns them anywhere else. A result
whose panel needs a control that it does not hold, such as `Knowledge` or `TrainReport`, keeps its text.
"""

from collections.abc import Callable
from typing import Any

from hooks.errors import InvalidType
from interp.circuits import PatchEffect
from interp.circuits.edges import EdgeEffect, FaithfulnessCurve
from interp.circuits.heads import HeadScores
from interp.context import DemonstrationEffects, Transfer
from interp.features import DictionaryMap, Feature, Record, SearchResult
from interp.graphs import AttributionGraph
from interp.graphs.feature_circuits import FeatureCircuit, FeatureFaithfulness
from interp.lenses import Attribution, LensReading, Ranks
from interp.memory import Agreement, Audit, Composition, Trace
from interp.show.attribution_graph import graph_panel
from interp.show.audit import audit_panel
from interp.show.circuit import circuit_panel, faithfulness_panel
from interp.show.composition import composition_panel
from interp.show.context import demonstrations_panel, transfer_panel
from interp.show.dictionary_map import map_html
from interp.show.dose import dose_panel
from interp.show.feature import examples_panel, histogram_panel
from interp.show.feature_circuit import feature_circuit_panel, feature_faithfulness_panel
from interp.show.heads import heads_panel
from interp.show.html import Html
from interp.show.latent import record_html
from interp.show.lens import attribution_panel, divergence_panel, lens_panel, rank_panel
from interp.show.memories import NORM, agreement_panel
from interp.show.page import Panel
from interp.show.patch import patch_panel
from interp.show.search import search_panel
from interp.show.steering import comparison_panel
from interp.show.teaching import costs_panel, ways_panel
from interp.show.trace import trace_panel
from interp.show.tuning import predictions_panel, raised_words_panel, weights_panel
from interp.steering import ChosenDose, DoseResponse, MethodComparison
from interp.teaching import WayComparison
from interp.tuning import TokenDivergence, WeightDifference, WordsOfDifference

Shown = Panel | Html
CONCEPT = "the concept"  # what a result that does not know its concept's name calls it
PANELS: dict[type, Callable[[Any], tuple[Shown, ...]]] = {
    Agreement: lambda found: (agreement_panel({NORM: [found]}),),
    Attribution: lambda found: (attribution_panel(found),),
    AttributionGraph: lambda found: (graph_panel(found),),
    Audit: lambda found: (audit_panel(found),),
    ChosenDose: lambda found: (dose_panel(found, CONCEPT),),
    Composition: lambda found: (composition_panel(found),),
    DemonstrationEffects: lambda found: (demonstrations_panel(found),),
    DictionaryMap: lambda found: (map_html(found, {}),),
    DoseResponse: lambda found: (dose_panel(found, CONCEPT),),
    EdgeEffect: lambda found: (circuit_panel(found),),
    FaithfulnessCurve: lambda found: (faithfulness_panel([found]),),
    Feature: lambda found: () if found.evidence is None else (examples_panel(found), histogram_panel(found)),
    FeatureCircuit: lambda found: (feature_circuit_panel(found),),
    FeatureFaithfulness: lambda found: (feature_faithfulness_panel(found),),
    HeadScores: lambda found: (heads_panel(found),),
    LensReading: lambda found: (lens_panel(found), divergence_panel(found)),
    MethodComparison: lambda found: (comparison_panel(found, CONCEPT),),
    PatchEffect: lambda found: (patch_panel(found),),
    Ranks: lambda found: (rank_panel(found),),
    Record: lambda found: (record_html(found, ""),),
    SearchResult: lambda found: (search_panel(found),),
    TokenDivergence: lambda found: (predictions_panel(found),),
    Trace: lambda found: (trace_panel(found),),
    Transfer: lambda found: (transfer_panel(found),),
    WayComparison: lambda found: (ways_panel(found), costs_panel(found)),
    WeightDifference: lambda found: (weights_panel(found),),
    WordsOfDifference: lambda found: (raised_words_panel(found),),
}


def panels_of(result: object) -> tuple[Shown, ...]:
    """The panels that show a result; none for a `Feature` without evidence.

    Raises:
        InvalidType: a type of which there is no panel.

    Examples:
        ```python
        panels_of(read(LogitLens(model), "The Golden Gate Bridge is in"))[0].body.show()
        ```
    """
    for kind in type(result).__mro__:
        if kind in PANELS:
            return PANELS[kind](result)
    names = ", ".join(kind.__name__ for kind in PANELS)
    raise InvalidType(f"no panel shows a {type(result).__name__}; there are panels of {names}")


def _repr_html(result: object) -> str | None:
    """What a notebook shows of a result; None, and so its text, where there is nothing to draw."""
    return "".join(panel._repr_html_() for panel in panels_of(result)) or None


for _kind in PANELS:
    setattr(_kind, "_repr_html_", _repr_html)  # noqa: B010
