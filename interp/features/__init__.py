"""What a latent means: search by concept, and evidence from texts."""

from interp.features.concept import Concept, Mention
from interp.features.evidence import Evidence, Example, evidence
from interp.features.feature import Feature
from interp.features.logits import logit_effect
from interp.features.rows import by_text, by_token
from interp.features.score import Score
from interp.features.search import SearchResult, search

__all__ = [
    "Concept",
    "Evidence",
    "Example",
    "Feature",
    "Mention",
    "Score",
    "SearchResult",
    "by_text",
    "by_token",
    "evidence",
    "logit_effect",
    "search",
]
