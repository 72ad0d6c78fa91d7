"""Hard negatives: texts like those a latent fires on, on which it is off."""

from collections import Counter

from interp.features.evidence import Example
from interp.features.index.catalogue import FeatureIndex, Record


def hard_negatives(found: FeatureIndex, record: Record, count: int = 20) -> tuple[Example, ...]:
    """Examples of other latents, from texts this one is not known to fire on, most like its own in their words first.

    Two are alike by the Jaccard index of the tokens in their windows, of the best match among the latent's examples.
    Windows that hold the token which carries most of its activation are left out: there it may fire.

    Example:
        ```python
        hard_negatives(FeatureIndex.open("index"), record)
        ```
    """
    own = (*record.evidence.examples, *record.sampled)
    texts, bags = {e.text for e in own}, [frozenset(e.tokens) for e in own]
    peaks = Counter(e.tokens[e.peak] for e in own)
    table = found.table("examples").select(["latent", "text", "tokens", "peak"]).to_pydict()
    best: dict[int, tuple[float, Example]] = {}
    for text, tokens, peak in zip(table["text"], table["tokens"], table["peak"], strict=True):
        words = frozenset(tokens)
        if text in texts or words & peaks.keys():
            continue
        alike = max((len(words & bag) / len(words | bag) for bag in bags), default=0.0)
        if text not in best or alike > best[text][0]:
            best[text] = (alike, Example(text, tuple(tokens), (0.0,) * len(tokens), peak))
    ranked = sorted(best.values(), key=lambda pair: (-pair[0], pair[1].text))
    return tuple(example for _, example in ranked[:count])
