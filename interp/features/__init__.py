"""What a latent means: search by concept, and evidence from texts."""

from interp.features.asking import Ask, Endpoint, asking
from interp.features.catalogue import FeatureIndex, Record
from interp.features.concept import Concept, Mention
from interp.features.describe import Describer
from interp.features.dictionary_map import DictionaryMap, dictionary_map
from interp.features.evidence import Evidence, Example, evidence
from interp.features.explain import Firing, Read, explain
from interp.features.feature import Feature
from interp.features.group import Group
from interp.features.index import index
from interp.features.judge import Explained, explained
from interp.features.likely import likely
from interp.features.logits import logit_effect
from interp.features.negatives import hard_negatives
from interp.features.phrase import concept_of
from interp.features.rows import by_text, by_token
from interp.features.score import Score
from interp.features.search import SearchResult, search, search_many
from interp.features.similar import Similar, similar
from interp.features.stability import Stability

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
