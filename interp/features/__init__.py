"""What a latent means: search by concept, and evidence from texts."""

from hooks.border import guard
from interp.features.evidence import Evidence, Example, evidence
from interp.features.explain.describe import Describer
from interp.features.explain.dictionary_map import DictionaryMap, dictionary_map
from interp.features.explain.explain import Firing, Read, explain
from interp.features.explain.judge import Explained, explained
from interp.features.explain.llm import Ask, Endpoint, asking
from interp.features.explain.negatives import hard_negatives
from interp.features.feature import Feature
from interp.features.index.catalogue import FeatureIndex, Record
from interp.features.index.index import index
from interp.features.logits import logit_effect
from interp.features.search.concept import Concept, Mention
from interp.features.search.group import Group
from interp.features.search.likely import likely
from interp.features.search.phrase import concept_of
from interp.features.search.rows import by_text, by_token
from interp.features.search.score import Score
from interp.features.search.search import SearchResult, search, search_many
from interp.features.search.similar import Similar, similar
from interp.features.search.stability import Stability

__all__ = [
    "Ask",
    "Concept",
    "Describer",
    "DictionaryMap",
    "Endpoint",
    "Evidence",
    "Example",
    "Explained",
    "Feature",
    "FeatureIndex",
    "Firing",
    "Group",
    "Mention",
    "Read",
    "Record",
    "Score",
    "SearchResult",
    "Similar",
    "Stability",
    "asking",
    "by_text",
    "by_token",
    "concept_of",
    "dictionary_map",
    "evidence",
    "explain",
    "explained",
    "hard_negatives",
    "index",
    "likely",
    "logit_effect",
    "search",
    "search_many",
    "similar",
]

guard(globals(), __all__)
