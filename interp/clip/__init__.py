"""A CLIP from inside: which head and which patch put what into a picture's vector, and one concept in both towers.

1. The vector of a picture is a sum over heads, patches and feed-forward layers (`decomposition.py`).
2. What a head writes is named by texts (`text_span.py`); heads are taken out and classes asked for again
   (`ablation.py`).
3. A concept is one latent for pictures and captions, of a dictionary over both towers (`concept.py`).
"""

from hooks.border import guard
from interp.clip.ablation import ablate_heads, head_effects
from interp.clip.concept import SharedLatent, centre_rows, find_shared_latent, pair_rows, score_rows
from interp.clip.decomposition import Decomposition, decompose_vectors, map_patches
from interp.clip.text_span import TextSpan, span_head

__all__ = [
    "Decomposition",
    "SharedLatent",
    "TextSpan",
    "ablate_heads",
    "centre_rows",
    "decompose_vectors",
    "find_shared_latent",
    "head_effects",
    "map_patches",
    "pair_rows",
    "score_rows",
    "span_head",
]

guard(globals(), __all__)
