"""The architectures by name: the only place that lists them."""

from typing import Final

from interp.sae.architectures.batch_topk import BatchTopK
from interp.sae.architectures.cross_layer_transcoder import CrossLayerTranscoder
from interp.sae.architectures.crosscoder import Crosscoder
from interp.sae.architectures.gated import Gated
from interp.sae.architectures.jumprelu import JumpReLU
from interp.sae.architectures.matching_pursuit import MatchingPursuit
from interp.sae.architectures.matryoshka import MatryoshkaBatchTopK
from interp.sae.architectures.sae import SAE
from interp.sae.architectures.skip_transcoder import SkipTranscoder
from interp.sae.architectures.sparse_coder import SparseCoder
from interp.sae.architectures.standard import Standard
from interp.sae.architectures.temporal import Temporal
from interp.sae.architectures.topk import TopK
from interp.sae.architectures.transcoder import Transcoder

ARCHITECTURES: Final[dict[str, type[SAE]]] = {
    kind.architecture: kind
    for kind in (
        Standard,
        Gated,
        JumpReLU,
        TopK,
        BatchTopK,
        MatryoshkaBatchTopK,
        Transcoder,
        SkipTranscoder,
        Crosscoder,
        CrossLayerTranscoder,
    )
}
READ_ONLY: Final[dict[str, type[SAE]]] = {kind.architecture: kind for kind in (SparseCoder, MatchingPursuit, Temporal)}
"""Architectures that are read from other libraries and not trained here."""
