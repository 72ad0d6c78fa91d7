"""What a latent means: search by concept, and evidence from texts."""

from hooks.border import guard
from interp.features.evidence import Evidence, Example, collect_evidence
from interp.features.explain.dictionary_map import DictionaryMap, map_dictionary
from interp.features.explain.explanation import Explanation, explain_latent, find_hard_negatives
from interp.features.explain.label_many import LatentLabel, LatentLabels, Limits, label_latents
from interp.features.explain.labels import Describer
from interp.features.explain.llm import Answer, Ask, Endpoint, ask_loaded_model
from interp.features.explain.token_latents import Firing, TokenLatents, explain_text
from interp.features.feature import Feature
from interp.features.index.catalogue import FeatureIndex, Record
from interp.features.index.index import index
from interp.features.logits import measure_logit_effect
from interp.features.search.candidates import SimilarLatents, choose_candidates, find_similar
from interp.features.search.concept import Concept, Mention
from interp.features.search.group import Group
from interp.features.search.phrase import concept_from_phrase
from interp.features.search.ranking import Stability
from interp.features.search.rows import by_text, by_token
from interp.features.search.score import Score, compare_all_scores, compare_scores
from interp.features.search.search import SearchResult, search, search_many

__all__ = [
    "Answer",
    "Ask",
    "Concept",
    "Describer",
    "DictionaryMap",
    "Endpoint",
    "Evidence",
    "Example",
    "Explanation",
    "Feature",
    "FeatureIndex",
    "Firing",
    "Group",
    "LatentLabel",
    "LatentLabels",
    "Limits",
    "Mention",
    "TokenLatents",
    "Record",
    "Score",
    "SearchResult",
    "SimilarLatents",
    "Stability",
    "ask_loaded_model",
    "by_text",
    "by_token",
    "concept_from_phrase",
    "map_dictionary",
    "collect_evidence",
    "explain_text",
    "explain_latent",
    "find_hard_negatives",
    "index",
    "label_latents",
    "choose_candidates",
    "compare_all_scores",
    "compare_scores",
    "measure_logit_effect",
    "search",
    "search_many",
    "find_similar",
]

guard(globals(), __all__)
