"""The architectures by name: the only place that lists them."""

from typing import Final

from interp.sae.batch_topk import BatchTopK
from interp.sae.crosscoder import Crosscoder
from interp.sae.gated import Gated
from interp.sae.jumprelu import JumpReLU
from interp.sae.matryoshka import MatryoshkaBatchTopK
from interp.sae.sae import SAE
from interp.sae.skip_transcoder import SkipTranscoder
from interp.sae.standard import Standard
from interp.sae.topk import TopK
from interp.sae.transcoder import Transcoder

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
    )
}
